"""Does every sampler give sane samples with few calls of the net? One table, for every packaged model.

    python benchmarks/few_steps.py --data DIR                       # all of it, which takes hours
    python benchmarks/few_steps.py --data DIR --models "image/*" --calls 5 8 10 25 --bounds 0.03,80

A row is a model, a sampler and a number of calls of its net; Heun's sampler makes half as many steps. What is counted is
the share of samples that the packaged judge takes for what was asked for (pictures, sounds, clouds; of pictures from words
the share whose caption is among the five nearest), the share of plausible chains, and the mean distance of actions from the
demonstrated ones over that of the default setting. Beside it: what a call warns of. A row that is far below the model's
default without a warning fails. Choices are made on the split for validation, which is what is used here.
"""

from __future__ import annotations

import argparse
import fnmatch
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from same_numbers import DATA

import zoo
import zoo.audio.judge
import zoo.image.judge
import zoo.point3d.judge
from zoo import files
from zoo.contract.registry import CHECKPOINTS, list_models
from zoo.core.samplers import SAMPLERS
from zoo.model.model import Model

#: samples of a row: shares to a few percent, of the slow ones to ten
SAMPLES = {"image": 200, "audio": 100, "point3d": 48, "protein": 24, "policy": 200}
#: further settings of some samplers
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {"ddpm": ({"variance": "small"}, {"variance": "large"})}
#: of the default's share below which samples are not sane, and the same for distances
FAIR, FAR = 0.8, 1.5

#: (samples, the conditions they were asked for) -> a figure
Figure = Callable[[Any], float]


#: packaged judges; the evaluators would first send all real data through the codec
JUDGES: dict[str, Callable[[], Any]] = {
    "image/fashion-ddpm": lambda: zoo.image.judge.load_judge(),
    "audio/spec-ddpm": lambda: zoo.audio.judge.load_judge("digits-judge"),
    "audio/words-ddpm": lambda: zoo.audio.judge.load_judge("words-judge"),
    "point3d/shapes-ddpm": lambda: zoo.point3d.judge.load_judge(),
}


def judged(model: Model, source: Path) -> tuple[dict[str, Any], Figure]:
    """Labels in turn; the share that the judge takes for them."""
    recipe = model.recipe
    judge = JUDGES[f"{recipe.domain}/{recipe.name}"]()
    labels = torch.arange(SAMPLES[recipe.domain]) % len(judge.class_names)

    def figure(samples: Any) -> float:
        x = torch.from_numpy(np.stack([s.points for s in samples])) if recipe.domain == "point3d" else samples.tensor.cpu()
        guessed = judge.features(x)[1].argmax(1)
        return float((guessed == labels).double().mean())

    return {"label": labels.tolist()}, figure


def prompted(model: Model, source: Path) -> tuple[dict[str, Any], Figure]:
    """Captions of held-out pictures; the share whose own caption is among the five nearest of all, by the judge."""
    evaluator = model.domain.evaluator(source, "validation", model)
    asked = evaluator.asked(model, SAMPLES[model.recipe.domain], 0)

    def figure(samples: Any) -> float:
        ranks = [told["rank"] for told in evaluator.measure(samples)["prompts"]]
        return sum(rank <= 5 for rank in ranks) / len(ranks)

    return asked, figure


def plausible(model: Model, source: Path) -> tuple[dict[str, Any], Figure]:
    """Chains of 64 residues; the share of plausible ones."""
    evaluator = model.domain.evaluator(source, "validation", model)
    return {"length": 64}, lambda samples: float(evaluator.plausible([s.atoms for s in samples]).mean())


def demonstrated(model: Model, source: Path) -> tuple[dict[str, Any], Figure]:
    """Held-out windows of demonstrations; the root mean square distance of the actions from theirs, in units of the codec."""
    held = model.domain.dataset(source, "validation", **model.domain.data_options(model.recipe))
    rows = torch.linspace(0, len(held) - 1, SAMPLES["policy"]).long().tolist()
    seen = np.stack([held[i][1]["observation"] for i in rows])
    true = torch.stack([model.codec.encode(held[i][0]).cpu() for i in rows])

    def figure(samples: Any) -> float:
        made = torch.stack([model.codec.encode(s).cpu() for s in samples])
        return float((made - true).square().mean().sqrt())

    return {"observation": seen}, figure


HOW = {"image": judged, "audio": judged, "point3d": judged, "protein": plausible, "policy": demonstrated}


def steps_of(sampler: str, calls: int) -> int:
    """How many steps make about so many calls of the net."""
    return (calls + 1) // 2 if sampler == "heun" else calls


def row(model: Model, asked: dict[str, Any], figure: Figure, **settings: Any) -> dict[str, Any]:
    """The figure of one setting and what it warned of."""
    n = SAMPLES[model.recipe.domain]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = model.sample(n, seed=0, progress=False, **asked, **settings)
    return {"figure": figure(samples), "warned": sorted({str(w.message)[:60] for w in caught})}


def main() -> None:
    """Read the command line, print the table; exit code 1 where a row fails."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True, help="the folder of all real data")
    p.add_argument("--models", default="*", help="patterns, with commas between")
    p.add_argument("--samplers", help="names, with commas between; default: all")
    p.add_argument("--calls", type=int, nargs="+", default=[10, 25], help="calls of the net")
    p.add_argument("--bounds", help="of a Karras grid: low,high")
    p.add_argument("--device", help="where the nets run, e.g. cuda")
    p.add_argument("--n", type=int, help="samples of a row (default: the domain's)")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    if args.n is not None:
        SAMPLES.update(dict.fromkeys(SAMPLES, args.n))
    samplers = args.samplers.split(",") if args.samplers else list(SAMPLERS)
    found, failed = [], 0
    for name in list_models():
        packaged = bool(DATA.get(name, ("",))[0]) and (CHECKPOINTS / name / files.WEIGHTS).exists()
        if not packaged or not any(fnmatch.fnmatch(name, w) for w in args.models.split(",")):
            continue
        model = zoo.load(name, device=args.device)
        how = prompted if "text" in model.recipe.conditions else HOW[model.recipe.domain]
        asked, figure = how(model, args.data / DATA[name][0])
        further = {"bounds": tuple(float(b) for b in args.bounds.split(","))} if args.bounds else {}
        best = row(model, asked, figure)
        print(f"{name:24} default {best['figure']:.3f}", flush=True)
        for sampler in samplers:
            for variant in VARIANTS.get(sampler, ({},)):
                for calls in args.calls:
                    settings = {"sampler": sampler, "steps": steps_of(sampler, calls), **variant, **further}
                    result = row(model, asked, figure, **settings)
                    if model.recipe.domain == "policy":
                        sane = result["figure"] <= FAR * best["figure"]
                    else:
                        sane = result["figure"] >= FAIR * best["figure"]
                    failed += not sane and not result["warned"]
                    word = "" if sane else "warned" if result["warned"] else "NOT SANE"
                    text = ", ".join([sampler, *variant.values()])
                    print(f"{name:24} {text:14} {calls:3} calls  {result['figure']:.3f}  {word}", flush=True)
                    found.append(
                        {
                            "model": name,
                            "calls": calls,
                            "n": SAMPLES[model.recipe.domain],
                            "sane": sane,
                            "default": best["figure"],
                        }
                        | settings
                        | result
                    )
                    if args.json:
                        files.write_atomic(args.json, files.dump_json(found))
    raise SystemExit(int(failed > 0))


if __name__ == "__main__":
    main()
