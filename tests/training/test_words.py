"""A net learns to draw what words say, in their order."""

import numpy as np
import pytest

import zoo
from zoo.contract.dataset import Items
from zoo.contract.text import Text
from zoo.image.recipes import RECIPES

COLOURS = {"red": (230, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 230), "white": (250, 250, 250)}


def picture(top: str, bottom: str) -> np.ndarray:
    half = np.ones((4, 8, 1), np.uint8)
    return np.concatenate([half * np.uint8(COLOURS[c]) for c in (top, bottom)])


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", ["unet", "transformer"])
def test_a_net_draws_what_words_say_in_their_order(tmp_path, denoiser):
    pairs = [(a, b) for a in COLOURS for b in COLOURS if a != b]
    text = Text(length=4, width=32, depth=1, heads=2)
    data = Items([(picture(a, b), {"text": f"{a} over {b}"}) for a, b in pairs], conditions={"text": text})
    net = {
        "unet": {
            "channels": 32,
            "patch": 2,
            "multipliers": [1],
            "attention": [True],
            "cross": [True],
            "blocks": 1,
            "emb_dim": 64,
        },
        "transformer": {"patch": 2, "dim": 64, "depth": 2, "heads": 4, "emb_dim": 64},
    }[denoiser]
    base = RECIPES["emoji-pixels"]
    recipe = base.model_copy(
        update={
            "name": "words",
            "codec": {"size": 8, "channels": 3},
            "denoiser": denoiser,
            "net": net,
            "conditions": {"text": text},
            "training": base.training.model_copy(update={"batch_size": 24, "ema": 0.98, "warmup": 20}),
        }
    )
    model = zoo.train(recipe, data=data, steps=400, out=tmp_path / "run", cpu=True, workers=0, preview_every=0)
    wishes = [*pairs[:5], ("blue", "red")]
    made = model.sample(len(wishes), text=[f"{a} over {b}" for a, b in wishes], seed=0, steps=10, guidance_weight=1.0)
    for sample, (a, b) in zip(made, wishes, strict=True):
        top, bottom = (sample.pixels[rows].reshape(-1, 3).mean(0) for rows in (slice(0, 4), slice(4, 8)))
        for seen, colour in ((top, a), (bottom, b)):
            nearest = min(COLOURS, key=lambda c: np.abs(seen - COLOURS[c]).sum())
            assert nearest == colour, f"{a} over {b}: {top.round()} over {bottom.round()}"
    away = model.sample(1, text="red over blue", negative={"text": "blue over red"}, seed=0, steps=10, guidance_weight=1.0)
    assert away[0].pixels[:4].reshape(-1, 3).mean(0)[0] > 150
