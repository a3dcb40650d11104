"""A look at data before anything is trained on them: what they are, and what a net will see of them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.contract.codec import Codec
from zoo.contract.dataset import Dataset
from zoo.contract.domain import Domain
from zoo.contract.recipe import Recipe
from zoo.contract.registry import domain_names, get_domain, list_models
from zoo.contract.samples import Samples, picture_format
from zoo.core import seeds
from zoo.data.folder import existing, search
from zoo.errors import ConfigError
from zoo.training import report
from zoo.training.train import recipe_of
from zoo.values import whole

#: seconds, at most, that are spent on counting classes, and on looking at samples
PATIENCE = 30.0


def look(
    source: str | Path,
    *,
    model: str | Path | Recipe | None = None,
    domain: str | None = None,
    split: str = "train",
    n: int = 36,
    out: str | Path | None = "sheet.png",
    seed: int = 0,
    data_options: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say what data are, and draw some of them as a net sees them: encoded as for training, and decoded again.

    Args:
        source: as for `zoo.train`.
        model: the recipe that is to be trained on them: a name, a model folder or a recipe; default: the domain's first.
        domain: what they are data of, where no model says it; default: as the files' names say.
        n: samples on the sheet.
        out: the sheet, a picture; None for none.
        seed: of the choice of samples and of what is random in encoding.
        data_options, overrides: as for `zoo.train`.

    Returns:
        {"domain", "model", "samples", "classes": {label: {class: count}}, "left_out", "sees", "sheet", "text": lines}.
    """
    n = whole(n, "n", 1)
    if out is not None:
        picture_format(out)  # before anything is read
    if model is not None and domain is not None:
        raise ConfigError("model and domain: give one of them.")
    if model is not None:
        recipe = recipe_of(model)
        plug_in = get_domain(recipe.domain)
    else:
        plug_in = get_domain(guess(source) if domain is None else domain)
        if not plug_in.recipes():
            raise ConfigError(f"the domain {plug_in.name!r} has no recipe: say which model the data are for (--for MODEL).")
        recipe = next(iter(plug_in.recipes().values()))
    recipe = recipe.override(overrides or {})
    if model is None or str(model) in list_models():
        recipe, _ = plug_in.suited(recipe, source, overrides or {})
    if out is not None and Path(out).suffix.lower() in plug_in.reads and _inside(Path(out), source):
        raise ConfigError(f"the sheet {out} would lie among the data, and be one of them. Give another place: --out.")
    options = plug_in.data_options(recipe) | dict(data_options or {})
    dataset = plug_in.dataset(source, split, **options)
    recipe = plug_in.adapt(recipe, dataset)
    codec = plug_in.codec(recipe.codec)
    name = f"{recipe.domain}/{recipe.name}"
    axes = codec.axes if len(codec.axes) == len(codec.shape) else [""] * len(codec.shape)
    sees = " x ".join(f"{size} {axis}".strip() for axis, size in zip(axes, codec.shape, strict=True))
    held = dataset.held_out() if split == "train" else None
    shown = recipe.shown().codec
    what = "latents of " if recipe.stage else ""
    text = [
        report.of_data(dataset, plug_in, None if held is None else len(held), PATIENCE),
        f"a net of {name} sees {what}samples of {sees}; other sizes: --set codec.NAME=VALUE with {shown or 'no options'}",
    ]
    found: dict[str, Any] = {
        "domain": plug_in.name,
        "model": name,
        "samples": len(dataset),
        "classes": counts(dataset),
        "left_out": dataset.left_out_words(),
        "sees": list(codec.shape),
        "sheet": None if out is None else str(out),
        "text": text,
    }
    if out is not None:
        samples = sheet(dataset, codec, recipe, plug_in, n, seed)
        samples.plot(out)
        text.append(f"{len(samples)} samples as the net sees them, encoded and decoded: {out}")
    return found


def _inside(path: Path, source: str | Path) -> bool:
    """Whether a file would lie in the folder of the data, or below it."""
    folder = Path(source).expanduser()
    return folder.is_dir() and path.resolve().is_relative_to(folder.resolve())


def guess(source: str | Path) -> str:
    """The domain that reads most of the files of a folder, by the names of archives that it knows, else by suffixes.

    Raises:
        ConfigError: none does, or more than one do.
    """
    known = ", ".join(domain_names())
    ask = f"Say what they are data of: --domain with one of {known}; or --for MODEL."
    if str(source).startswith("hub:"):
        raise ConfigError(f"{source}: a Hub dataset does not say it by its name. {ask}")
    path = existing(source, "a folder or a file of data")
    paths = [path] if path.is_file() else search(path, lambda p: True).files
    suffixes = Counter(p.suffix.lower() for p in paths)
    names = Counter(p.name for p in paths)
    # the name of a file tells more than its suffix, which several may read
    found = {
        name: (sum(names[n] for n in get_domain(name).archives), sum(suffixes[s] for s in get_domain(name).reads))
        for name in domain_names()
    }
    none = (0, 0)
    most = max(found.values(), default=none)
    best = [name for name, count in found.items() if count == most]
    if most == none or len(best) > 1:
        seen = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(5)) or "nothing"
        raise ConfigError(
            f"{path} holds {seen}, {'which no domain' if most == none else f'which {chr(32).join(best)} all'} may read. {ask}"
        )
    return best[0]


def counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """{label: {class: how many samples}}, of all samples."""
    found = {name: dict.fromkeys(names, 0) for name, names in dataset.labels.items()}
    for i in range(len(dataset)) if found else ():
        given = dataset.given(i)
        given = given if found.keys() <= given.keys() else dataset[i][1]
        for name, names in dataset.labels.items():
            found[name][names[int(given[name])]] += 1
    return found


def sheet(dataset: Dataset, codec: Codec, recipe: Recipe, domain: Domain, n: int, seed: int) -> Samples:
    """n samples, drawn at random, through the codec and back: what training makes of them, crops and all."""
    codec = copy.deepcopy(codec)
    codec.fit(dataset)
    rows = torch.randperm(len(dataset), generator=seeds.generator(seed))[:n].tolist()
    items, names = [], dict[str, list[Any]]()
    for k, i in enumerate(rows):
        item, given = dataset[i]
        batch = codec.batch([(item, given)], seeds.generator(seed, k), recipe.conditions)
        items += codec.decode(batch.x0, batch.cond)
        for name, labels in dataset.labels.items():
            names.setdefault(name, []).append(labels[int(given[name])])
    return Samples.of(items, domain=domain, conditions=names)
