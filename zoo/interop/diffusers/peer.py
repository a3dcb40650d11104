"""Nets of diffusers that ours do not express: that package's own class in the shape of a denoiser. It must be installed."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, one_of
from zoo.extras import need
from zoo.interop.diffusers.unet import Classes

EXTRA = "interop"
#: the classes that a folder may name; nothing else of the package is ever built from a file
CLASSES = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")


class PeerWarning(UserWarning):
    """The package that a net comes from is not the one that the model was saved with."""


def source_hash(kind: type) -> str:
    """The SHA-256 of the file that a class is written in: another one may compute something else."""
    try:
        return hashlib.sha256(inspect.getsource(inspect.getmodule(kind) or kind).encode()).hexdigest()
    except (OSError, TypeError):  # a package without its sources
        return ""


def peer_class(name: str) -> Any:
    """A class of diffusers by name.

    Raises:
        ConfigError: a name that is not in `CLASSES`, or the package is not installed, or too old to have it.
    """
    if name not in CLASSES:
        raise one_of("class of diffusers", name, CLASSES)
    package = need("diffusers", EXTRA)
    found = getattr(package, name, None)
    if found is None:
        raise ConfigError(f"diffusers {package.__version__} has no {name}: install a newer one.")
    return found


def peer_part(name: str, config: Mapping[str, Any]) -> Any:
    """A new module of a class of diffusers as its config says.

    Raises:
        ConfigError: an option that the installed version does not take; the message names it.
    """
    kind = peer_class(name)
    taken = inspect.signature(kind.__init__).parameters
    if odd := sorted(k for k in config if k not in taken):
        raise ConfigError(f"{name} of diffusers {need('diffusers', EXTRA).__version__} has no option {', '.join(odd)}.")
    return kind(**config)


class PeerNet(nn.Module):
    """A net of diffusers on x_t (B,C,H,W).

    Args:
        shape: of a sample.
        conditions: none, or "label".
        class_name: of the net, one of `CLASSES`.
        config: its options, as in its config.json.
        version, sha256: of the package and of the class's file when the model was saved; a warning says where they differ.
        time_scale, sign: as for `zoo.interop.diffusers.unet.UNet2D`.

    Raises:
        ConfigError: diffusers is not installed, or the config is not one of that class.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        class_name: str,
        config: Mapping[str, Any],
        version: str = "",
        sha256: str = "",
        time_scale: float = 1.0,
        sign: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.time_scale, self.sign = shape[0], time_scale, sign
        self.net = peer_part(class_name, config)
        table = getattr(self.net, "class_embedding", None)
        if isinstance(table, nn.Embedding):  # with our null: nothing is added
            self.net.class_embedding = Classes(table.num_embeddings, table.embedding_dim)
        self.labelled = bool(conditions)
        self.whole = config.get("time_embedding_type") == "learned"  # a table of whole steps
        installed = need("diffusers", EXTRA).__version__
        if sha256 and sha256 != source_hash(type(self.net)):
            warnings.warn(
                f"the net is {class_name} of diffusers, saved with version {version}; this is {installed}, where it is "
                "written differently. model.verify() tells whether it computes the same.",
                PeerWarning,
                stacklevel=2,
            )

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        given: dict[str, Any] = {}
        if self.labelled:
            label = cond.get("label")
            label = torch.full((len(x_t),), -1, device=x_t.device) if label is None else label
            given["class_labels"] = label
        t = self.time_scale * t
        out = self.net(x_t, t.round().long() if self.whole else t, return_dict=False, **given)[0]
        return self.sign * out[:, : self.channels].contiguous()


def described(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a `PeerNet` for a recipe: its name, and the version and hash of the package that is installed."""
    kind = peer_class(class_name)
    package = need("diffusers", EXTRA)
    return {"class_name": class_name, "config": dict(config), "version": package.__version__, "sha256": source_hash(kind)}
