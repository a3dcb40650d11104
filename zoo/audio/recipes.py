"""Recipes of the audio domain."""

from __future__ import annotations

from zoo.contract.conditions import Label
from zoo.contract.recipe import DiffusionPart, Discrete, Few, Recipe, Sampling, Training

#: the whole of a cosine schedule, which is the grid that the cards' figures were measured on
WHOLE = (0.0064254, 20291.2)

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
WORDS = ("yes", "no", "stop", "go")

_digits = Recipe(
    name="spec-ddpm",
    domain="audio",
    description="Spoken digits, zero to nine, in six voices: log-mel spectrograms at 8 kHz.",
    licence="CC BY-SA 4.0 (weights, as the training data): Free Spoken Digit Dataset, Zohar Jackson et al.",
    data="Free Spoken Digit Dataset (Jackson et al., DOI 10.5281/zenodo.1342401), takes 10-49; takes 5-9 held out for choices.",
    paper="DDPM (Ho et al. 2020), v prediction (Salimans & Ho 2022), classifier-free guidance (Ho & Salimans 2022), "
    "Griffin-Lim with momentum (Perraudin et al. 2013).",
    codec={"sample_rate": 8000, "frames": 128, "mels": 64, "n_fft": 256, "hop": 64, "jitter": 0.048, "speed": 0.06},
    denoiser="unet",
    net={"channels": 32, "multipliers": [3, 5], "blocks": 1, "attention": [False, True], "patch": 4, "dropout": 0.1},
    conditions={"label": Label(values=DIGITS), "speaker": Label(values=SPEAKERS, free="draw")},
    schedule=Discrete(curve="cosine"),
    diffusion=DiffusionPart(prediction="v"),
    # fewer steps need a grid that ends earlier at both sides, Heun's above all (`benchmarks/few_steps.py`, validation split)
    sampling=Sampling(
        sampler="dpmpp",
        steps=25,
        spacing="karras",
        bounds=WHOLE,
        guidance_weight=0.5,
        clip=1.0,
        few=(Few(steps=10, bounds=(0.03, 80.0)),),
    ),
    training=Training(batch_size=64, optimizer="muon", lr=1.5e-3, ema=0.9993),
)

_words = _digits.model_copy(
    update={
        "name": "words-ddpm",
        "description": "Four spoken words, yes, no, stop and go, in many voices: log-mel spectrograms at 16 kHz.",
        "licence": "CC BY 4.0 (weights, as the training data): Pete Warden, Speech Commands, arXiv:1804.03209, Google.",
        "data": "Four words of Speech Commands (Warden, arXiv:1804.03209), its official test archive split here by speakers: "
        "1,269 clips; 162 of 25 speakers held out for choices.",
        "codec": {"sample_rate": 16000, "frames": 128, "mels": 64, "n_fft": 512, "hop": 128, "lead": 0.0, "speed": 0.06},
        "conditions": {"label": Label(values=WORDS)},
    }
)

#: name -> recipe
RECIPES = {r.name: r for r in (_digits, _words)}
