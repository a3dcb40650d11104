"""From a name, a folder or a repository to a model: the one module that knows both the registry and `Model`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.contract.formats import FORMATS
from zoo.contract.recipe import Recipe
from zoo.contract.registry import get_domain, get_recipe, known, list_models, packaged_folder, read_evaluation
from zoo.disk import CHECKPOINT, CONFIG, SAVED
from zoo.errors import CheckpointError, ConfigError, HubError, memory

if TYPE_CHECKING:
    from zoo.model.model import Model


@dataclass(frozen=True)
class Card:
    """What is known of a registered model without loading it."""

    name: str
    domain: str
    description: str
    packaged: bool
    recipe: Recipe
    evaluation: dict[str, Any] | None

    @property
    def first_stage(self) -> bool:
        """Whether this is an autoencoder, of which nothing is sampled."""
        return self.recipe.role == "first_stage"

    @property
    def config(self) -> dict[str, Any]:
        """The recipe as plain data."""
        return self.recipe.model_dump(mode="json")

    def __str__(self) -> str:
        from zoo.hub.card import metrics_table

        own = self.name not in list_models()  # a folder or a repository
        weights = "packaged" if self.packaged else "its own" if own else "on the Hub or untrained"
        lines = [self.name, f"  {self.description}", f"  weights: {weights}"]
        if self.first_stage:
            lines.append("  a first stage: it turns objects into latents and back, and nothing is sampled from it")
        if self.recipe.stage is not None:
            lines.append(f"  on the latents of the first stage {self.recipe.stage.name}")
        lines += [f"  {name}: {condition.describe()}" for name, condition in self.recipe.conditions.items()]
        if self.evaluation:
            lines += ["", metrics_table(self.evaluation)]
        return "\n".join(lines)


def info(name: str) -> Card:
    """The card of a registered model, of a model folder or of a repository ("hub:owner/name[@revision]").

    A folder in another package's format says what it is only as a whole: its model is loaded.
    """
    folder: Path | None
    name = text_of(name)
    if name.startswith("hub:") or is_folder(name):
        from zoo.hub import client as hub
        from zoo.model.checkpoint import read_recipe

        folder = hub.pull(name, ("evaluation.json",)) if name.startswith("hub:") else Path(name).expanduser()
        model = None if format_of(folder) is None else foreign(locate(name))
        recipe, packaged = read_recipe(folder) if model is None else model.recipe, False
    else:
        recipe, folder = get_recipe(name), packaged_folder(name)
        packaged = folder is not None
    evaluation = read_evaluation(folder) if folder else None
    return Card(name, recipe.domain, recipe.description, packaged, recipe, evaluation)


def is_folder(name: str) -> bool:
    """Whether a text names a folder: it starts with "/", "." or "~", or there is one with a recipe."""
    if name.startswith(("/", ".", "~")):
        return True
    try:
        # the second: a save whose process ended before its files were in their places, see `zoo.files.settle`
        # the third: a training run that has not ended yet
        found = any((Path(name) / part).exists() for part in (CONFIG, f"{SAVED}/{CONFIG}", CHECKPOINT))
        return found and name not in list_models()
    except (OSError, ValueError):  # a name that no file can have
        return False


def text_of(source: Any) -> str:
    """What names a model as a text; a ConfigError for what is neither a text nor a path."""
    if not isinstance(source, str | Path):
        what = f"a {type(source).__name__}"
        raise ConfigError(f"{what} names no model: give a name (see zoo list), a folder, or hub:owner/name[@revision].")
    return str(source)


def create(name: str, **overrides: Any) -> Model:
    """An untrained model of a registered recipe; overrides are dotted recipe paths: create(n, **{"net.channels": 32})."""
    return build(get_recipe(text_of(name)).override(overrides))


def build(recipe: Recipe, stage: Model | None = None, *, filled: bool = True) -> Model:
    """An untrained model of a recipe.

    Args:
        stage: the first stage of a latent model; default: the one that the recipe names, see `open_stage`.
        filled: False for a first stage without weights, for one who fills all of the model at once.

    Raises:
        ResourceError: the net does not fit into memory. And what `open_stage` raises.
    """
    from zoo.model.model import Model

    if stage is None and recipe.stage is not None:
        stage = open_stage(recipe)
    with memory(f"the net of {recipe.domain}/{recipe.name}", f"Make it smaller: its options are {recipe.net}."):
        return Model(recipe, get_domain(recipe.domain), stage=stage, filled=filled)


def open_stage(recipe: Recipe, home: Path | None = None) -> Model:
    """The first stage that the recipe of a latent model names: a packaged model, a folder, or hub:owner/name.

    Another latent model's folder gives the one that is inside it. Folders of other formats are as good.

    Args:
        home: the folder of a latent model that the recipe comes from, which holds the weights as well.

    Raises:
        ConfigError: the name of nothing, or of a model that is not a first stage. Nothing is fetched for a name that does not
            say so. CheckpointError: a folder that is damaged, a run that is not at its end, or other weights than the recipe
            names.
    """
    from zoo.model.first_stage import Latent, check_role
    from zoo.model.model import Model
    from zoo.model.unfinished import newest

    spec = recipe.stage
    if spec is None:
        raise ConfigError(f"{recipe.domain}/{recipe.name} has no first stage: its codec has no option `stage`.")
    name = spec.name
    if home is not None and spec.recipe is not None:
        folder = home
    elif name.startswith("hub:"):
        folder = locate(name)
    elif name in list_models():
        found = packaged_folder(name)
        if found is None:
            raise ConfigError(
                f"the first stage {name} of {recipe.domain}/{recipe.name} has no packaged weights. Train it: zoo train {name} "
                f"--data DIR --out runs/autoencoder, then name its folder: --set codec.stage=runs/autoencoder. Or fetch one: "
                "--set codec.stage=hub:owner/name."
            )
        folder = found
    else:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"codec.stage={name!r}: there is no such folder, and no model of that name. Give the folder of an autoencoder "
                "(zoo train image/autoencoder --data DIR --out runs/autoencoder), a packaged first stage (zoo list) or "
                "hub:owner/name."
            )
    if newest(folder) is not None:
        raise CheckpointError(
            f"codec.stage={name!r}: {folder} holds a training run that is not at its end, and a first stage must not "
            "change any more. Finish the run (--resume), or copy a finished model."
        )
    model = (None if home is not None else foreign(folder)) or Model.from_folder(folder)
    if isinstance(model.codec, Latent):
        return model.first_stage()
    check_role(model.recipe, name)
    return model


def load(
    source: str | Path,
    device: Any = None,
    dtype: Any = None,
    *,
    precision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    format: str | None = None,
    **parts: Any,
) -> Model:
    """Load a model.

    Args:
        source: a registry name ("image/fashion-ddpm"), a folder (starts with "/", "." or "~", or exists with a
            config.json, or with the checkpoint of a training run that goes on, whose averaged weights are loaded then), or a
            Hub repository ("hub:owner/name", "hub:owner/name@revision"). A registry name without
            packaged weights is looked for on the Hub, see `zoo.hub.address.namespace`.
        device, dtype: where and in which dtype to put the weights, also by name: "cuda:0", "bf16".
        precision: in what the net multiplies when it samples, unless the call says otherwise: "fp32" (the default), "bf16"
            or "auto", see `Model.sample`. The weights stay in their dtype.
        token: for the Hub: an access token; None is the user's own, if any, False is none.
        local_files_only: make no request: the Hub's files must be in the cache.
        format: of a folder of another package, such as "diffusers", see docs/interop.md; default: by its files.
        **parts: net, codec, diffusion of a model that was made of its author's own parts, see `zoo.Model.of`; and diffusion of
            a net in another package's format that does not say on which noise it was trained.
    """
    from zoo.model.model import Model
    from zoo.model.own import check_parts
    from zoo.model.place import device_named, dtype_named, precision_named

    _check_file(text_of(source))
    device, dtype = device_named(device), dtype_named(dtype)  # before anything is fetched
    precision = precision_named("fp32" if precision is None else precision)
    check_parts(**{k: v for k, v in parts.items() if v is not None})
    if format is not None:
        FORMATS[text_of(format)]  # an unknown name is told before anything is fetched
    folder = locate(source, token=token, local_files_only=local_files_only, format=format)
    model = foreign(folder, format, **parts)
    if model is None:
        model = Model.from_folder(folder, device=device, dtype=dtype, **parts)
    else:
        model = model.to(device=device, dtype=dtype)
    model.precision = precision
    return model


#: suffixes of weights that are pickles
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")


def _check_file(source: str) -> None:
    """Refuse a file of weights, which is no model by itself.

    Raises:
        CheckpointError: it says what to do with it.
    """
    if not source.lower().endswith((*PICKLES, ".safetensors")) or source.startswith("hub:"):
        return
    path = Path(source).expanduser()
    if not path.is_file():
        return
    if path.suffix.lower() in PICKLES:
        raise _pickled(path)
    raise CheckpointError(f"{path} is a file of weights; a model is the folder that it lies in, with its config: load that.")


def _pickled(path: Path) -> CheckpointError:
    """The refusal of a pickle, with what converts it."""
    return CheckpointError(
        f"{path} is a pickle, which can run code: zoo never opens one. Where you trust it, convert it first, by programs of "
        "zoo's sources. With torch's weights-only loader: a checkpoint of DiT or SiT by python benchmarks/convert_dit.py FILE "
        "FOLDER --vae VAE, of guided-diffusion, improved-diffusion or k-diffusion by python benchmarks/convert_pickle.py "
        "FORMAT FILE FOLDER, the results of FoldingDiff by python benchmarks/convert_pickle.py foldingdiff RESULTS FOLDER, a "
        "run of Genie by python benchmarks/convert_pickle.py genie RUN FOLDER. One of EDM, which holds code, by python "
        "benchmarks/convert_edm.py SOURCES FILE FOLDER. See docs/interop.md."
    )


def check_pickles(folder: Path) -> None:
    """Refuse a folder that holds weights as pickles alone, and no config that says what they are of.

    Raises:
        CheckpointError: it says what to do with them.
    """
    found = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    pickles = [p for p in found if p.suffix.lower() in PICKLES]
    if pickles and not any(p.name == CONFIG or p.suffix == ".safetensors" for p in found):
        raise _pickled(pickles[0])


def foreign(folder: Path, format: str | None = None, **parts: Any) -> Model | None:
    """The model of a folder in another format; None for a folder of zoo, and for what nobody knows.

    Args:
        format: its name; default: the first that recognises the files.
        **parts: those of `load`.

    Raises:
        CheckpointError: the folder is not of that format. ConfigError: parts that the format does not take.
    """
    name = format_of(folder) if format is None else format
    if name is None:
        check_pickles(folder)
        return None
    found = FORMATS[name]
    if format is not None and not (folder.is_dir() and found.recognises(folder)):
        there = sorted(p.name for p in folder.iterdir())[:8] if folder.is_dir() else []
        what = f"it holds {', '.join(there) or 'nothing'}" if folder.is_dir() else "there is no such folder"
        raise CheckpointError(f"{folder} is not a folder of the format {name!r}: {what}.")
    given = {k: v for k, v in parts.items() if v is not None}
    taken = inspect.signature(found.load).parameters
    for part in given:
        if part not in taken:
            raise ConfigError(f"{part}=: a folder of the format {name!r} has its own. Leave it out.")
    model: Model = found.load(folder, **given)
    return model


def format_of(folder: Path) -> str | None:
    """The name of the format of a folder; None for a folder of zoo, and for what nobody knows."""
    if folder.is_dir() and not _is_zoo(folder):
        return next((name for name in FORMATS if FORMATS[name].recognises(folder)), None)
    return None


def _is_zoo(folder: Path) -> bool:
    """Whether a folder has a recipe of zoo's; other tools call their configuration config.json, too."""
    from zoo.errors import CheckpointError
    from zoo.model.checkpoint import read_config

    try:
        read_config(folder)
    except CheckpointError:
        return False
    return True


def locate(
    source: str | Path, *, token: str | bool | None = None, local_files_only: bool = False, format: str | None = None
) -> Path:
    """The folder of a model that is given as for `load`; from the Hub it is fetched first."""
    text = text_of(source)
    if isinstance(source, Path) or is_folder(text) or (format is not None and not text.startswith("hub:")):
        return Path(text).expanduser()
    folder = None if text.startswith("hub:") else packaged_folder(known(text))
    if folder is not None:
        return folder
    from zoo.hub import client as hub
    from zoo.hub.address import GOLDEN, WEIGHTS

    try:
        return hub.pull(text, (WEIGHTS, GOLDEN), token=token, local_files_only=local_files_only)
    except HubError as error:
        if text.startswith("hub:"):
            raise
        raise HubError(
            f"{text!r} has no packaged weights, and the Hub gave none: {error} Or train it: zoo train {text} --data DIR "
            "--out runs/mine. $ZOO_HUB_NAMESPACE names another owner of the registry's models."
        ) from None
