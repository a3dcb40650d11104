"""Recipes of the image domain."""

from __future__ import annotations

from zoo.contract.conditions import Label
from zoo.contract.recipe import DiffusionPart, Discrete, Few, Recipe, Sampling, Training
from zoo.image.latent_recipes import LATENT
from zoo.image.text_recipes import TEXT

FASHION = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip

_fashion = Recipe(
    name="fashion-ddpm",
    domain="image",
    description="Class-conditional 28 x 28 pictures of clothes and shoes.",
    licence="Apache-2.0 (weights); the training data is MIT, Copyright (c) 2017 Zalando SE.",
    data="Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv:1708.07747), first 55,000 training pictures; 5,000 held out for choices.",
    paper="DDPM (Ho et al. 2020), v prediction (Salimans & Ho 2022), classifier-free guidance (Ho & Salimans 2022).",
    codec={"size": 28, "channels": 1},
    denoiser="unet",
    net={"channels": 32, "multipliers": [3, 4], "blocks": 1, "attention": [False, True], "patch": 2},
    conditions={"label": Label(values=FASHION)},
    schedule=Discrete(curve="cosine"),
    diffusion=DiffusionPart(prediction="v"),
    # chosen on the validation split: 12 steps on this grid are as good as 25, and fewer need one that ends earlier
    sampling=Sampling(
        sampler="dpmpp",
        steps=12,
        spacing="karras",
        bounds=(0.02, 80.0),
        guidance_weight=0.3,
        guidance_interval=(0.3, 5.0),
        clip=1.0,
        few=(Few(steps=10, bounds=(0.03, 80.0)),),
    ),
    training=Training(batch_size=64, optimizer="muon", lr=1.5e-3),
)

_fashion_dit = _fashion.model_copy(
    update={
        "name": "fashion-dit",
        "description": "The same pictures from a diffusion transformer on 4 x 4 patches.",
        "denoiser": "transformer",
        "net": {"patch": 4, "dim": 256, "depth": 6, "heads": 8},
    }
)

#: name -> recipe
RECIPES = {r.name: r for r in (_fashion, _fashion_dit, *LATENT, *TEXT)}
