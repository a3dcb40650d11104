"""A domain of your own in one file: points of the plane on two half moons. python examples/own_domain.py [STEPS]

A domain says what its data are (Dataset), how its objects become tensors and come back (Codec), which nets it has, and which
recipes. Everything else comes from zoo: training, samplers, guidance, in-painting, model folders, the Hub, the command line.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import zoo
from zoo.contract.codec import Codec
from zoo.contract.conditions import Label
from zoo.contract.dataset import Items
from zoo.contract.domain import Domain
from zoo.contract.recipe import DiffusionPart, Discrete, Recipe, Sampling, Training
from zoo.errors import ConfigError
from zoo.evaluation.evaluate import Evaluator
from zoo.nets.blocks import Conditioning

MOONS = ("upper", "lower")


class Point:
    """What users get: one point, which saves and draws itself."""

    def __init__(self, place: np.ndarray) -> None:
        self.place = np.asarray(place, np.float32)

    def numpy(self) -> np.ndarray:
        """(2,) x and y."""
        return self.place

    def save(self, path: str | Path) -> Path:
        """Write x and y as text."""
        np.savetxt(path, self.place, fmt="%.9g")
        return Path(path)

    def plot(self, ax: Any = None) -> Image.Image:
        """A picture of the plane with the point in it."""
        return scatter([self.place])


class PointCodec(Codec):
    """Points as they are: the plane's units are the net's."""

    shape, axes = (2,), ("coordinate",)

    def encode(self, item: Any, rng: torch.Generator | None = None) -> Tensor:
        return torch.as_tensor(item.place if isinstance(item, Point) else item, dtype=torch.float32)

    def decode(self, x0: Tensor, cond: Any) -> list[Point]:
        return [Point(x.float().cpu().numpy()) for x in x0]


class PointNet(nn.Module):
    """Three layers over a point's coordinates, time and conditions."""

    def __init__(self, shape: tuple[int, ...], conditions: Any = None, *, width: int = 64) -> None:
        super().__init__()
        self.embed = Conditioning(conditions, width, time_scale=1.0)
        self.entry, self.middle, self.exit = nn.Linear(shape[0], width), nn.Linear(width, width), nn.Linear(width, shape[0])

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        h = torch.nn.functional.silu(self.entry(x_t) + self.embed(t, cond))
        return self.exit(torch.nn.functional.silu(self.middle(h)))


def moons(n: int, seed: int) -> Items:
    """n points on two half moons, with a little noise."""
    rng = np.random.default_rng(seed)
    label, angle = rng.integers(0, 2, n), rng.uniform(0, math.pi, n)
    x, y = np.cos(angle), np.sin(angle)
    place = np.stack([np.where(label == 0, x - 0.5, 0.5 - x), np.where(label == 0, y, -y) - 0.25 + 0.5 * label], 1)
    place += 0.05 * rng.normal(size=place.shape)
    return Items([(Point(p), {"label": int(k)}) for p, k in zip(place, label, strict=True)], labels={"label": list(MOONS)})


def scatter(places: list[np.ndarray], size: int = 200) -> Image.Image:
    """Points of [-2, 2]^2 as dots."""
    picture = Image.new("L", (size, size), 255)
    for x, y in places:
        column, row = (round((v + 2) / 4 * (size - 1)) for v in (x, -y))
        if 0 <= column < size and 0 <= row < size:
            picture.putpixel((column, row), 0)
    return picture


class MoonEvaluator(Evaluator):
    """How far samples are from the curve of their moon; real points beside it, and noise as a floor."""

    def asked(self, model: Any, n: int, seed: int) -> dict[str, Any]:
        return {"label": [MOONS[i % 2] for i in range(n)]}

    def measure(self, made: Any, **options: Any) -> dict[str, Any]:
        def far(points: np.ndarray, labels: np.ndarray) -> float:
            centre = np.stack([labels - 0.5, 0.5 * labels - 0.25], 1)
            return float(np.abs(np.linalg.norm(points - centre, axis=1) - 1).mean())

        labels, real = made.plan.cond["label"].numpy(), moons(len(made), seed=1)
        held_out = np.stack([p.place for p, _ in real.items]), np.array([c["label"] for _, c in real.items])
        noise = np.random.default_rng(0).normal(size=(len(made), 2))
        figures = {"value": far(made.tensor.numpy(), labels), "ceiling": far(*held_out), "floor": far(noise, labels)}
        return {"metrics": {"distance": figures | {"better": "lower"}}, "protocol": {"samples": len(made)}}


class ToyDomain(Domain):
    """Points of the plane."""

    name, suffix, measured = "toy", ".txt", 200
    denoisers, codecs = {"mlp": PointNet}, PointCodec

    def recipes(self) -> dict[str, Recipe]:
        recipe = Recipe(
            name="moons",
            domain="toy",
            description="Points on two half moons.",
            licence="CC0-1.0",
            data="Made by a formula.",
            paper="DDPM (Ho et al. 2020).",
            denoiser="mlp",
            conditions={"label": Label(values=MOONS)},
            schedule=Discrete(curve="cosine", T=200),
            diffusion=DiffusionPart(prediction="v"),
            sampling=Sampling(sampler="ddim", steps=20),
            training=Training(batch_size=256, lr=3e-3, warmup=20),
        )
        return {"moons": recipe}

    def dataset(self, source: str | Path, split: str = "train", **options: Any) -> Items:
        if str(source) != "moons":
            raise ConfigError(f"data={source!r}: this domain makes its own data, which is called 'moons'.")
        return moons(4096, seed=0 if split == "train" else 1)

    def plot(self, samples: Any) -> Image.Image:
        return scatter([s.place for s in samples])

    def evaluator(self, data: Any = None, split: str = "test", model: Any = None) -> MoonEvaluator:
        return MoonEvaluator()


def main(out: Path, steps: int = 1000) -> dict[str, Any]:
    """Register the domain, train its recipe, draw both moons, and measure."""
    if "toy" not in zoo.list_models("toy/*"):
        zoo.register(DOMAIN)
    model = zoo.train("toy/moons", data="moons", steps=steps, out=out / "run")
    model.sample(400, seed=0, label=[MOONS[i % 2] for i in range(400)]).plot(out / "moons.png")
    return zoo.evaluate(zoo.load(out / "run"), 200)["metrics"]


DOMAIN = ToyDomain()

if __name__ == "__main__":
    print(main(Path("runs/toy"), *map(int, sys.argv[1:2])))
