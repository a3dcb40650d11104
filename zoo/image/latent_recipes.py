"""Recipes of first stages, autoencoders of pictures, and of models on their latents."""

from __future__ import annotations

from zoo.contract.conditions import Label
from zoo.contract.recipe import DiffusionPart, Discrete, Recipe, Sampling, Training

FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

_EMOJI = (
    "emoji_styles: 9,122 pictures of nine emoji sets, drawn at 64 x 64 on white; 607 more for choices, 1,246 for the test. "
    "Fluent Emoji (Microsoft Corporation), Twemoji (Twitter, Inc. and other contributors), Noto Emoji and its first version "
    "(Google LLC), FxEmojis (Mozilla), Emoji One 2, Streamline Emojis (Streamline), Flat Color Icons (Icons8)."
)
_EMOJI_LICENCE = (
    "Apache-2.0 (weights); the pictures are MIT (Fluent Emoji flat and colour, Flat Color Icons), Apache-2.0 (Noto, Noto v1) "
    "and CC BY 4.0 (Twemoji, FxEmojis, Emoji One 2, Streamline Emojis); they were rescaled and laid on white."
)
_FLOWERS = (
    "flowers64: 3,071 photographs of five flowers, 64 x 64 (TensorFlow's flower_photos); 162 more for choices, 434 for the "
    "test."
)
_FLOWERS_LICENCE = (
    "Apache-2.0 (weights); the photographs are CC BY 2.0, by the photographers listed in LICENSE.txt of flower_photos; they "
    "were cut to squares and rescaled."
)
_PAPER = "Latent diffusion (Rombach et al. 2022, section 3.1), with a divergence term (Kingma & Welling 2013)."

#: 64 x 64 x 3 to 16 x 16 x 4
_AUTOENCODER = {"latent": 4, "channels": 64, "multipliers": [1, 2], "blocks": [1, 2], "patch": 2}

_emoji = Recipe(
    name="emoji-kl",
    domain="image",
    role="first_stage",
    description="An autoencoder of 64 x 64 colour drawings with 16 x 16 x 4 latents.",
    licence=_EMOJI_LICENCE,
    data=_EMOJI,
    paper=_PAPER,
    codec={"size": 64, "channels": 3},
    denoiser="autoencoder",
    net=_AUTOENCODER,
    training=Training(
        batch_size=32,
        optimizer="adamw",
        lr=2e-3,
        warmup=100,
        betas=(0.9, 0.99),
        ema=0.999,
        objective="autoencode",
        objective_options={"kl": 1e-3},
    ),
)

_autoencoder = _emoji.model_copy(
    update={
        "name": "autoencoder",
        "description": "An autoencoder of 64 x 64 colour pictures with 16 x 16 x 4 latents, to be trained on your own.",
        "licence": "Apache-2.0 (recipe)",
        "data": "Your own pictures.",
    }
)

_flowers = _emoji.model_copy(
    update={
        "name": "flowers-kl",
        "description": "An autoencoder of 64 x 64 photographs of flowers with 16 x 16 x 4 latents.",
        "licence": _FLOWERS_LICENCE,
        "data": _FLOWERS,
    }
)

_flowers_latent = Recipe(
    name="flowers-latent",
    domain="image",
    description="Photographs of five flowers, 64 x 64, made in the latents of an autoencoder.",
    licence=_FLOWERS_LICENCE,
    data=_FLOWERS,
    paper=(
        "Latent diffusion (Rombach et al. 2022), v prediction (Salimans & Ho 2022), classifier-free guidance (Ho & Salimans "
        "2022)."
    ),
    codec={"size": 64, "channels": 3, "stage": "image/flowers-kl"},
    denoiser="unet",
    net={"channels": 64, "multipliers": [2, 3], "blocks": 2, "attention": [False, True]},
    conditions={"label": Label(values=FLOWERS)},
    schedule=Discrete(curve="cosine"),
    diffusion=DiffusionPart(prediction="v"),
    sampling=Sampling(sampler="dpmpp", steps=25, spacing="karras", bounds=(0.02, 80.0), guidance_weight=1.0),
    training=Training(batch_size=64, optimizer="muon", lr=2e-3, ema=0.999),
)

LATENT = (_emoji, _autoencoder, _flowers, _flowers_latent)
