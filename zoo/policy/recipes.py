"""Recipes of the policy domain."""

from __future__ import annotations

from zoo.recipe import ArrayCondition, DiffusionPart, Discrete, Recipe, Sampling, Training

_corners = tuple(f"corner_{i}_{axis}" for i in range(8) for axis in "xy")

_pusht = Recipe(
    name="pusht-keypoints",
    domain="policy",
    description="Pushes the T of gym-pusht onto its goal, from the T's corners and the agent's position.",
    licence="Apache-2.0 (weights); the demonstrations are MIT, Copyright (c) 2023 Columbia Artificial Intelligence and "
    "Robotics Lab.",
    data="206 human Push-T demonstrations of Diffusion Policy (Chi et al., arXiv:2303.04137), every twentieth held out.",
    paper="Diffusion Policy (Chi et al. 2023): DDPM (Ho et al. 2020) with 100 steps, DDIM (Song et al. 2020) to act.",
    codec={
        "horizon": 16,
        "n_obs": 2,
        "executed": 8,
        "observation_names": [*_corners, "agent_x", "agent_y"],
        "action_names": ["x", "y"],
        "unit": "pixel",
        "rate": 10.0,
        "keys": ["environment_state", "agent_pos"],
    },
    denoiser="unet",
    net={"channels": 96, "multipliers": [1, 2], "blocks": 1, "attention": [False, False], "kernel": 5},
    conditions={"observation": ArrayCondition(shape=(2, 18))},
    schedule=Discrete(curve="cosine", T=100),
    diffusion=DiffusionPart(prediction="eps"),
    sampling=Sampling(sampler="ddim", steps=10, clip=1.0),
    training=Training(batch_size=256, optimizer="adamw", lr=3e-4, weight_decay=1e-6, betas=(0.95, 0.999), warmup=500, decay=0.9,
                      condition_dropout=0.02),
)  # fmt: skip

#: name -> recipe
RECIPES = {r.name: r for r in (_pusht,)}
