"""The samplers' own work: time outside the network as a share of the network's, and wall time of a first sample.

python benchmarks/samplers.py                       # image/fashion-ddpm, n = 16
python benchmarks/samplers.py image/fashion-dit -n 64 --steps 50
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import zoo
from zoo.model.model import Model


def overhead(model: Model, n: int, *, repeats: int = 5, **settings: Any) -> tuple[float, float, int]:
    """(seconds in the network, share of everything else but decoding, network calls) of the quickest of some runs.

    Both times come from the same run, and the quickest run has the least of other programs in it.
    """
    best: tuple[float, float, int] | None = None
    forward = model.denoiser.forward
    for _ in range(repeats + 1):
        inside: list[float] = []

        def timed(*args: Any, inside: list[float] = inside, **kwargs: Any) -> Any:
            start = time.perf_counter()
            out = forward(*args, **kwargs)
            inside.append(time.perf_counter() - start)
            return out

        model.denoiser.forward = timed  # type: ignore[method-assign]
        try:
            start = time.perf_counter()
            for _ in model.sample_iter(n, seed=0, **settings):
                pass
            total = time.perf_counter() - start
        finally:
            model.denoiser.forward = forward  # type: ignore[method-assign]
        net = sum(inside)
        if best is None or net < best[0]:
            best = (net, total / net - 1, len(inside))
    if best is None:
        raise ValueError(f"repeats={repeats}: give at least 0")
    return best


def main() -> None:
    """Read the command line, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="image/fashion-ddpm")
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    packaged = zoo.info(args.name).packaged
    model = zoo.load(args.name) if packaged else zoo.create(args.name)
    print(f"{model!r}, n={args.n}, {args.steps} steps, {torch.get_num_threads()} threads")
    label = [i % 10 for i in range(args.n)] if "label" in model.recipe.conditions else None
    for sampler in ("ddpm", "ddim", "dpmpp", "heun", "euler"):
        for weight in (0.0, 1.0):
            settings = {"sampler": sampler, "steps": args.steps, "guidance_weight": weight}
            net, share, calls = overhead(model, args.n, **settings, **({"label": label} if label else {}))
            print(
                f"{sampler:6} w={weight:g}: network {1e3 * net / calls:7.2f} ms a call, {calls:3} calls; the rest {share:6.2%}"
            )
    start = time.perf_counter()
    fresh = zoo.load(args.name) if packaged else model
    fresh.sample(args.n, seed=0, progress=False)
    print(f"load and sample(n={args.n}) at the default: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
