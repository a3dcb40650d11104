"""Nets of diffusers that ours do not express: that package's own class in the shape of a denoiser. It must be installed."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, ShapeError, one_of
from zoo.extras import need
from zoo.interop.diffusers.prompt import Prompt
from zoo.interop.diffusers.unet import Classes, outputs
from zoo.nets.autoencoder import Autoencoder
from zoo.nets.once import once

EXTRA = "interop"
#: the classes that a folder may name; nothing else of the package is ever built from a file
CLASSES = ("UNet1DModel", "UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "AutoencoderKL")
#: the text encoder, of transformers
TEXT_CLASS = "CLIPTextModel"


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
    """A net of diffusers on x_t (B,C,H,W), of raw sound (B,C,L).

    Args:
        shape: of a sample.
        conditions: none, or "label".
        class_name: of the net, one of `CLASSES`.
        config: its options, as in its config.json.
        version, sha256: of the package and of the class's file when the model was saved; a warning says where they differ.
        time_scale, sign, learned_variance: as for `zoo.interop.diffusers.unet.UNet2D`.

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
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.time_scale, self.sign, self.learned_variance = shape[0], time_scale, sign, learned_variance
        if learned_variance and config.get("out_channels") != 2 * shape[0]:
            raise ConfigError(
                f"{class_name}: out_channels={config.get('out_channels')} and a learned variance, which needs {2 * shape[0]}."
            )
        self.net = peer_part(class_name, config)
        table = getattr(self.net, "class_embedding", None)
        if isinstance(table, nn.Embedding):  # with our null: nothing is added
            self.net.class_embedding = Classes(table.num_embeddings, table.embedding_dim)
        #: the label that is its own null; -1 where it has none
        self.null = config.get("num_embeds_ada_norm", -1) if class_name == "DiTTransformer2DModel" else -1
        for part in self.net.modules():  # leaves labels out by itself in training: ours does so
            if type(part).__name__ == "LabelEmbedding":
                part.dropout_prob = 0.0  # type: ignore[assignment]
        self.labelled = bool(conditions)
        self.whole = config.get("time_embedding_type") == "learned"  # a table of whole steps
        compare(type(self.net), "diffusers", version, sha256)

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        t = self.time_scale * t
        given = self.told(cond, x_t.shape[0])
        out = self.net(x_t, t.round().long() if self.whole else t, return_dict=False, **given)[0]
        return outputs(out, self.channels, self.sign, self.learned_variance)

    def told(self, cond: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """What the net of the other package is told of conditions of n samples."""
        if not self.labelled:
            return {}
        label = cond.get("label")
        device = next(self.parameters()).device
        label = torch.full((n,), self.null, device=device) if label is None else label
        return {"class_labels": torch.where(label < 0, self.null, label)}


class PromptedNet(PeerNet):
    """A net of diffusers on latents x_t (B,C,H,W) that is told a text, and the text encoder in front of it.

    Args:
        conditions: "text" alone, a `zoo.interop.diffusers.prompt.Prompt`.
        text: of the encoder: its `config`, and the `version` and `sha256` of the package and file that its class is from.
        others: as for `PeerNet`.

    Raises:
        ConfigError: diffusers or transformers is not installed, or a config is not one of that class.
    """

    blank: Tensor

    def __init__(
        self, shape: tuple[int, ...], conditions: Mapping[str, Any] | None = None, *, text: Mapping[str, Any], **options: Any
    ) -> None:
        super().__init__(shape, None, **options)
        prompt = (conditions or {}).get("text")
        if not isinstance(prompt, Prompt):
            raise ConfigError('the net is told a text: its recipe needs the condition "text" of the kind "clip-text".')
        self.text = text_encoder(text["config"])
        compare(type(self.text), "transformers", text.get("version", ""), text.get("sha256", ""))
        self.register_buffer("blank", torch.tensor(prompt.blank), persistent=False)

    def told(self, cond: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        ids = cond.get("text")
        ids = self.blank[None].expand(n, -1) if ids is None else ids

        def encoded() -> Tensor:
            rows = torch.where((ids < 0).any(1, keepdim=True), self.blank, ids)
            found: Tensor = self.text(input_ids=rows).last_hidden_state
            return found

        return {"encoder_hidden_states": once(self.text, encoded, ids)}


class PeerAutoencoder(Autoencoder):
    """An autoencoder of diffusers as a first stage: pictures x (B,C,H,W) to latents and back.

    Args:
        shape: of the pictures.
        config, version, sha256: as for `PeerNet`.

    Attributes:
        latent_shape: of one latent.

    Raises:
        ConfigError: diffusers is not installed, or the config is not one of its class. ShapeError: sizes that it cannot halve
            as often as it must.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any],
        version: str = "",
        sha256: str = "",
    ) -> None:
        super().__init__()
        _, height, width = shape
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        if height % factor or width % factor:
            raise ShapeError(f"pictures of {height} x {width} do not divide by {factor}, as this autoencoder needs.")
        self.latent_shape = (config["latent_channels"], height // factor, width // factor)
        self.net = peer_part("AutoencoderKL", config)
        compare(type(self.net), "diffusers", version, sha256)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B,C,H,W) -> mean and log variance of the latents' Gaussian, each (B,*latent_shape)."""
        found = self.net.encode(x, return_dict=False)[0]
        return found.mean, found.logvar

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B,*latent_shape) -> pictures (B,C,H,W)."""
        found: Tensor = self.net.decode(z, return_dict=False)[0]
        return found


def text_encoder(config: Mapping[str, Any]) -> Any:
    """A new text encoder of transformers: tokens (B,L) -> an object with `last_hidden_state` (B,L,width).

    Raises:
        ConfigError: transformers is not installed, or an option that it does not take.
    """
    package = need("transformers", EXTRA)
    try:
        kept = package.CLIPTextConfig(**config)
    except Exception as error:  # each version checks with a library of its own
        raise ConfigError(f"{TEXT_CLASS} of transformers {package.__version__}: {error}.") from error
    model = package.CLIPTextModel(kept)
    return getattr(model, "text_model", model)  # the first versions had one more around it


def compare(kind: type, package: str, version: str, sha256: str) -> None:
    """Warn where a class is written otherwise than where a model was saved."""
    if sha256 and sha256 != source_hash(kind):
        warnings.warn(
            f"the net is {kind.__name__} of {package}, saved with version {version}; this is "
            f"{need(package, EXTRA).__version__}, where it is written differently. model.verify() tells whether it computes "
            "the same.",
            PeerWarning,
            stacklevel=3,
        )


def described(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a `PeerNet` for a recipe: its name, and the version and hash of the package that is installed."""
    kind = peer_class(class_name)
    package = need("diffusers", EXTRA)
    return {"class_name": class_name, "config": dict(config), "version": package.__version__, "sha256": source_hash(kind)}


def text_described(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of a text encoder, see `PromptedNet`."""
    package = need("transformers", EXTRA)
    return {"config": dict(config), "version": package.__version__, "sha256": source_hash(package.CLIPTextModel)}
