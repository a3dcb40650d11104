"""Recipes of pictures from words."""

from __future__ import annotations

from zoo.contract.conditions import Label
from zoo.contract.recipe import DiffusionPart, Discrete, Few, Recipe, Sampling, Training
from zoo.contract.small import SmallSample
from zoo.contract.text import Text

STYLES = (
    "fluent-flat", "fluent-color", "twemoji", "noto", "noto-blob", "firefox", "emojione", "streamline", "flat-icons",
)  # fmt: skip

#: what the drawings ask for: nine sets, each with its own name
LICENCE = (
    "Apache-2.0 (weights and word table). Drawings trained on: Fluent Emoji, flat and colour, MIT (Microsoft Corporation); "
    "Twemoji CC BY 4.0 (Twitter, Inc. and other contributors); Noto Emoji and its first version Apache-2.0 (Google LLC); "
    "FxEmojis CC BY 4.0 (Mozilla); Emoji One 2 CC BY 4.0 (Emoji One); Streamline Emojis CC BY 4.0 (Streamline); Flat Color "
    "Icons MIT (Icons8). They were rescaled and laid on white. Words: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0; "
    "names of the drawings: unicode-emoji-json and emojilib, MIT."
)

EXAMPLES = (
    "red sports car", "rocket", "cat with a party hat", "house with garden", "snowman", "slice of pizza", "orange fish",
    "angry face", "sunflower", "blue butterfly", "hot air balloon", "birthday cake",
)  # fmt: skip

_text = Text(examples=EXAMPLES)

_pixels = Recipe(
    name="emoji-pixels",
    domain="image",
    description="Emoji of 64 x 64 pixels from words, in nine drawing styles, drawn on patches of pixels.",
    licence=LICENCE,
    data="emoji_styles: 9,122 drawings of 2,205 things in nine styles; 607 more are held out for choices, 1,246 for tests.",
    paper="DDPM (Ho et al. 2020), v prediction (Salimans & Ho 2022), classifier-free guidance (Ho & Salimans 2022), "
    "cross-attention to text (Rombach et al. 2022).",
    codec={"size": 64, "channels": 3},
    denoiser="unet",
    net={
        "channels": 16,
        "multipliers": [4, 7],
        "blocks": 1,
        "attention": [False, True],
        "cross": [True, True],
        "patch": 4,
    },
    conditions={"text": _text, "style": Label(values=STYLES)},
    schedule=Discrete(curve="cosine"),
    diffusion=DiffusionPart(prediction="v"),
    sampling=Sampling(
        sampler="dpmpp",
        steps=25,
        spacing="karras",
        bounds=(0.01, 80.0),
        guidance_weight=2.0,
        clip=1.0,
        few=(Few(steps=10, bounds=(0.03, 80.0)),),
    ),
    training=Training(batch_size=128, optimizer="muon", lr=3e-3),
)

_pixels_dit = _pixels.model_copy(
    update={
        "name": "emoji-pixels-dit",
        "description": "The same from a diffusion transformer on 8 x 8 patches.",
        "denoiser": "transformer",
        "net": {"patch": 8, "dim": 160, "depth": 6, "heads": 5, "mlp_ratio": 3},
    }
)

_latent = _pixels.model_copy(
    update={
        "name": "emoji-text",
        "description": "Emoji of 64 x 64 pixels from words, in nine drawing styles, made in the latents of image/emoji-kl.",
        "paper": f"Latent diffusion (Rombach et al. 2022); {_pixels.paper}",
        "codec": {"size": 64, "channels": 3, "stage": "image/emoji-kl"},
        "net": _pixels.net | {"channels": 88, "multipliers": [1, 2], "patch": 1, "dropout": 0.1},
        # chosen on the validation split: twice as many steps are not better, and more guidance makes pictures more alike
        "sampling": _pixels.sampling.model_copy(update={"steps": 12, "bounds": (0.02, 80.0), "clip": None}),
        "training": _pixels.training.model_copy(update={"batch_size": 256, "ema": 0.9995}),
    }
)

_latent_dit = _latent.model_copy(
    update={
        "name": "emoji-text-dit",
        "description": "The same from a diffusion transformer on 2 x 2 patches of the latents.",
        "denoiser": "transformer",
        "net": _pixels_dit.net | {"patch": 2},
    }
)

_small = _pixels.model_copy(
    update={
        "name": "emoji-32",
        "description": "Emoji of 32 x 32 pixels from words, in nine drawing styles: the base of a chain.",
        "codec": {"size": 32, "channels": 3},
        "net": _pixels.net | {"patch": 2},
    }
)

_upsampler = _pixels.model_copy(
    update={
        "name": "emoji-up",
        "description": "Emoji of 64 x 64 pixels from those of 32 x 32 and words: the second of a chain with image/emoji-32.",
        "paper": f"Cascaded diffusion, noise-conditioning augmentation (Ho et al. 2022); {_pixels.paper}",
        "net": _pixels.net | {"channels": 16, "multipliers": [3, 4]},
        "conditions": _pixels.conditions | {"low": SmallSample(shape=(3, 32, 32), most=0.5, used=0.1)},
        "sampling": _pixels.sampling.model_copy(update={"guidance_weight": 0.0, "steps": 12, "bounds": (0.02, 80.0)}),
    }
)

TEXT = (_pixels, _pixels_dit, _latent, _latent_dit, _small, _upsampler)
