"""Recipes of the point3d domain."""

from __future__ import annotations

from zoo.contract.conditions import Label
from zoo.contract.recipe import EDM, DiffusionPart, Recipe, Sampling, Training

SHAPES = ("bed", "cabinet", "car", "chair", "fish", "lamp", "ship", "sofa", "spacecraft", "table", "tree", "vase")

_shapes = Recipe(
    name="shapes-ddpm",
    domain="point3d",
    description="Point clouds of everyday shapes in twelve categories, from beds to vases: 2,048 points or any number.",
    licence="CC BY 3.0 (weights, as the training data): shapes by Scopia, Blend Swap's artists, Andrew Kator & Jennifer Legaz, "
    "Quaternius and Kenney; ATTRIBUTION.md beside the weights names author and licence of each.",
    data="594 meshes of Sweet Home 3D's furniture libraries (CC0 and CC BY 3.0), Quaternius and Kenney (CC0), sampled to 2,048 "
    "points: 89 for tests, a tenth of the rest of each category held out for choices.",
    paper="EDM (Karras et al. 2022), classifier-free guidance (Ho & Salimans 2022), points through latents "
    "(Jabri et al. 2022; Zhang et al. 2023).",
    codec={"points": 2048, "train_points": 2048, "yaw": 0.15, "stretch": 0.12, "mirror": True, "warp": 0.35},
    denoiser="latents",
    net={"dropout": 0.1},
    conditions={"label": Label(values=SHAPES)},
    # with many points a shape is settled at noise far above its own size; thin parts need noise far below it, and most training
    # where sampling ends (0.12) and guides was chosen on validation shapes: thin surfaces in 26 calls of the net
    schedule=EDM(kind="edm", sigma_min=0.12, sigma_max=25.0, P_mean=-1.4, P_std=1.6),
    diffusion=DiffusionPart(prediction="x0", weighting="edm", sigma_data=1.0, precondition=True),
    # least: by `benchmarks/few_steps.py --models point3d/shapes-ddpm --samplers ddpm --calls 10 25 100`
    sampling=Sampling(
        sampler="dpmpp",
        steps=19,
        guidance_weight=0.6,
        guidance_interval=(1.5, 10.0),
        least={"ddpm": 25, "ddpm variance=large": 100},
    ),
    training=Training(batch_size=64, optimizer="muon", lr=3e-3, ema=0.9993),
)

#: name -> recipe
RECIPES = {r.name: r for r in (_shapes,)}
