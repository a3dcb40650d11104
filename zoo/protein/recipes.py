"""Recipes of the protein domain."""

from __future__ import annotations

from zoo.contract.recipe import EDM, DiffusionPart, Recipe, Sampling, Training

_backbone = Recipe(
    name="backbone-ddpm",
    domain="protein",
    description="Backbones of small protein domains, 32 to 128 residues: N, CA and C in space; O is placed.",
    licence="Apache-2.0 (weights); the training data are coordinates from the wwPDB (CC0 1.0) and small domains of Tsuboyama "
    "et al. 2023 (CC BY 4.0).",
    data="1,067 globular chains of 32 to 128 residues from the PDB (wwPDB, CC0 1.0) as collected by Greener & Jones 2021 and "
    "others, split by 25 % sequence identity; 108 more held out for choices.",
    paper="EDM (Karras et al. 2022) with self-conditioning (Chen et al. 2022) and the step scale of AlphaFold 3 (Abramson et "
    "al. 2024); frames and point attention after AlphaFold 2 (Jumper et al. 2021).",
    denoiser="residues",
    codec={"min_length": 32, "max_length": 128},
    net={"dim": 256, "depth": 6, "heads": 8, "mlp_ratio": 3.0, "pair": 64, "dropout": 0.1},
    schedule=EDM(kind="edm", sigma_min=0.002, sigma_max=10.0, P_mean=-1.3, P_std=1.5),
    diffusion=DiffusionPart(prediction="x0", weighting="edm", sigma_data=1.0, precondition=True, self_condition=True),
    sampling=Sampling(
        sampler="euler",
        steps=100,
        options={"s_churn": 40.0, "s_min": 0.05, "step_scale": 1.15},
        # by `benchmarks/few_steps.py --models protein/backbone-ddpm`: the default's share of plausible chains is .81; ddpm has
        # .69 with 250 calls of the net, and ddim, dpmpp and heun at most .63 with 10, 25, 100 or 250 (heun: 100)
        least={"euler": 25, "ddpm": 250, "ddim": None, "dpmpp": None, "heun": None},
    ),
    training=Training(batch_size=24, optimizer="muon", lr=1e-3, ema=0.9995, decay=0.3, weight_decay=0.01, warmup=300),
)

#: name -> recipe
RECIPES = {r.name: r for r in (_backbone,)}
