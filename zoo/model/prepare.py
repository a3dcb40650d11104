"""From a model to what is pushed to the Hub: a verified folder, its pictures and its card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zoo.contract.registry import read_evaluation
from zoo.files import read_json
from zoo.hub import client as hub
from zoo.hub.address import PREFIX
from zoo.hub.card import model_card
from zoo.hub.push import CURVES, MEDIA, PICTURE, Pushed, model_files, push, training_command, writable
from zoo.model import checkpoint


def push_model(
    model: Any,
    repo: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    tag: str | None = None,
    samples: bool = True,
) -> Pushed:
    """Push a model to the Hub, in one commit; arguments as for `zoo.model.publish.push`."""
    address = writable(repo, tag, token)
    with prepared(model, address.repo, samples=samples) as (files, card):
        return push(address, files, model.recipe, card, private=private, token=token, tag=tag)


@contextmanager
def prepared(model: Any, repo: str, *, samples: bool) -> Iterator[tuple[dict[str, Path], str]]:
    """(files, new card) of a model that loads strictly and reproduces its golden output.

    A model in memory that is no longer what its folder holds is written anew, without the folder's old measurements.
    Where there are no samples to show, some are drawn.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-push-") as name:
        temporary = Path(name)
        folder = model.folder if unchanged(model) else model.save_pretrained(temporary / "model")
        if checkpoint.without_stage(folder):
            folder = whole(model, folder, temporary / "whole")
        stored = reopened(model, folder)
        stored.verify(folder)
        files = model_files(folder)
        if samples and PICTURE not in files and not stored.is_first_stage:
            drawn = stored.sample(16, seed=0, progress=False, **stored.recipe.showcase(16))
            drawn.plot(temporary / PICTURE)
            files[PICTURE] = temporary / PICTURE
            if stored.domain.suffix in MEDIA and not any(n.startswith("samples/") for n in files):
                files |= {f"samples/{p.name}": p for p in drawn.save(temporary / "samples")[:4]}
        card = model_card(
            stored.recipe,
            read_evaluation(folder),
            PICTURE if PICTURE in files else None,
            _read_json(folder / CURVES),
            domain=stored.domain,
            source=f"{PREFIX}{repo}",
            sounds=[n for n in files if n.endswith(MEDIA)],
            base=f"{hub.endpoint()}/{repo}/resolve/main/",
            command=training_command(stored.recipe, folder),
            parts=list(model.own_parts or ()),
        )
        yield files, card


def whole(model: Any, folder: Path, target: Path) -> Path:
    """A packaged latent model, whose first stage is packaged by itself, as a folder that holds both, with all its figures."""
    for name, path in model_files(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    reopened(model, folder).save_pretrained(target, half=True)
    return target


def reopened(model: Any, folder: Path, **options: Any) -> Any:
    """The model that a folder holds, read again; parts that are their author's own are taken from the model."""
    parts = {} if model.own_parts is None else {k: copy_of(v) for k, v in model.own_parts.items()}
    return type(model).from_folder(folder, **parts, **options)


def copy_of(part: Any) -> Any:
    """A part that can be filled with other weights while the model keeps its own."""
    import copy

    return copy.deepcopy(part) if isinstance(part, torch.nn.Module) else part


def unchanged(model: Any) -> bool:
    """Whether a model is still what its folder holds."""
    if model.folder is None:
        return False
    stored = reopened(model, model.folder, device=model.device, dtype=model.dtype)
    if stored.recipe != model.recipe:
        return False
    return all(torch.equal(a, b) for a, b in zip(stored.state_dict().values(), model.state_dict().values(), strict=True))


def _read_json(path: Path) -> Any:
    return read_json(path) if path.exists() else None
