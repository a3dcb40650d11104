"""Recipes of the policy domain."""

from __future__ import annotations

from zoo.contract.conditions import Array
from zoo.contract.recipe import DiffusionPart, Discrete, Recipe, Sampling, Training

_corners = tuple(f"corner_{i}_{axis}" for i in range(8) for axis in "xy")

_pusht = Recipe(
    name="pusht-keypoints",
    domain="policy",
    description="Pushes the T of gym-pusht onto its goal, from the T's corners and the agent's position.",
    licence="Apache-2.0 (weights); the demonstrations are MIT, Copyright (c) 2023 Columbia Artificial Intelligence and "
    "Robotics Lab.",
    data="206 human Push-T demonstrations of Diffusion Policy (Chi et al., arXiv:2303.04137), every twentieth held out, "
    "each also as its mirror image.",
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
    conditions={"observation": Array(shape=(2, 18))},
    schedule=Discrete(curve="cosine", T=100),
    diffusion=DiffusionPart(prediction="eps"),
    sampling=Sampling(sampler="ddim", steps=10, clip=1.0, options={"eta": 1.0}),
    training=Training(batch_size=256, optimizer="muon", lr=2e-3, decay=0.9, condition_dropout=0.02),
)

_seen = ("hand_x", "hand_y", "hand_z", "gripper", "puck_x", "puck_y", "puck_z", "goal_x", "goal_y", "goal_z")

_metaworld = _pusht.model_copy(
    update={
        "name": "metaworld-push",
        "description": "Pushes a puck to its goal with Meta-World's simulated arm (push-v3), from hand, puck and goal.",
        "licence": "Apache-2.0 (weights); Meta-World, whose scripted expert made the demonstrations, is MIT.",
        "data": "Demonstrations of Meta-World's own scripted expert, made by benchmarks/metaworld_demos.py.",
        "codec": _pusht.codec
        | {
            "observation_names": list(_seen),
            "action_names": ["move_x", "move_y", "move_z", "grip"],
            "unit": "share of the largest move",
            "rate": 80.0,
            "keys": [],
        },
        "net": _pusht.net | {"channels": 64},
        "conditions": {"observation": Array(shape=(2, len(_seen)))},
    }
)

#: name -> recipe
RECIPES = {r.name: r for r in (_pusht, _metaworld)}
