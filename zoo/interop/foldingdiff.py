"""Checkpoints of FoldingDiff: backbones as six angles a residue, by a BERT of continuous inputs under the names of its weights.

Wu et al. 2024, "Protein structure generation via folding diffusion" (microsoft/foldingdiff). A folder of theirs holds
config.json (of the BERT), training_args.json, training_mean_offset.npy and checkpoints of Lightning, which are pickles, and zoo
opens none: `benchmarks/convert_pickle.py foldingdiff` makes a folder of safetensors with the other three files as they are, and
that is what is read here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import files
from zoo.contract.recipe import Recipe
from zoo.data.archive import read_array
from zoo.errors import CheckpointError, ConfigError, DataError, one_of
from zoo.interop.converted import agree, built
from zoo.interop.origin import Origin, read_origin
from zoo.interop.reading import Options, checked, looked_up, read_object, shapes_in, weights_in
from zoo.model.loading import PICKLES
from zoo.model.model import Model
from zoo.nets.blocks import attend

#: the name of the format, and of the denoiser in recipes
NAME = "foldingdiff"
#: the files beside the weights
ARGUMENTS, MEANS = "training_args.json", "training_mean_offset.npy"
HOW = f"Where you trust it: python benchmarks/convert_pickle.py {NAME} RESULTS FOLDER (of zoo's sources)."
#: what one residue is made of: phi, psi, omega, N-CA-C, CA-C-N, C-N-CA
FEATURES, SET = 6, "canonical-full-angles"
POSITIONS = ("absolute", "relative_key", "relative_key_query")
TIMES = ("gaussian_fourier", "sinusoidal")
DECODERS = ("mlp", "linear")
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU}
#: under which norms of the decoder divide, whatever the config says
DECODER_EPS = 1e-12
MOST_TIMES, MOST_LENGTH = 100_000, 4096
#: lengths of which their script makes as many each, where a model takes them
SWEPT = (50, 127)
#: the ends of their betas
LEAST, MOST = 1e-4, 0.02

#: options of the BERT that make it, and their kinds
NET = {
    "hidden_size": "whole", "num_hidden_layers": "whole", "num_attention_heads": "whole", "intermediate_size": "whole",
    "max_position_embeddings": "whole", "layer_norm_eps": "positive", "hidden_act": "text", "position_embedding_type": "text",
    "hidden_dropout_prob": "number", "attention_probs_dropout_prob": "number",
}  # fmt: skip
#: options of a BERT of words, of which there are none here, and notes of its writer
NET_WITHOUT_EFFECT = (
    "architectures", "classifier_dropout", "dtype", "gradient_checkpointing", "initializer_range", "pad_token_id",
    "torch_dtype", "transformers_version", "type_vocab_size", "use_cache", "vocab_size", "bos_token_id", "eos_token_id",
)  # fmt: skip
#: arguments of training that say what was trained, and their kinds
TRAINED = {
    "angles_definitions": "text", "max_seq_len": "whole", "min_seq_len": "count", "timesteps": "whole",
    "variance_schedule": "text", "variance_scale": "number", "time_encoding": "text", "decoder": "text",
}  # fmt: skip
#: {argument of training: the option of the BERT that was made of it}
SAME = {
    "num_hidden_layers": "num_hidden_layers", "hidden_size": "hidden_size", "intermediate_size": "intermediate_size",
    "num_heads": "num_attention_heads", "position_embedding_type": "position_embedding_type",
}  # fmt: skip
#: arguments that say how it was trained
TRAINED_WITHOUT_EFFECT = (
    "batch_size", "circle_reg", "cpu_only", "dataset_key", "dropout_p", "dryrun", "early_stop_patience",
    "exhaustive_validation_t", "gradient_clip", "l1_norm", "l2_norm", "loss", "lr", "lr_scheduler", "max_epochs", "min_epochs",
    "multithread", "ngpu", "results_dir", "subset", "trim_strategy", "use_pdist_loss", "use_swa", "write_valid_preds",
)  # fmt: skip


class Attention(nn.Module):
    """Self-attention with the norm behind it, as of BERT, and embeddings of distances (Shaw et al. 2018, Eq. 5)."""

    def __init__(self, net: AngleBert) -> None:
        super().__init__()
        size, heads = net.size, net.heads
        own = nn.Module()
        own.query, own.key, own.value = (nn.Linear(size, size) for _ in range(3))
        if net.positions != "absolute":
            own.distance_embedding = nn.Embedding(2 * net.longest - 1, size // heads)
        self.heads, self.both, self.longest = heads, net.positions == "relative_key_query", net.longest
        self.self, self.output = own, Closing(size, size, net)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (B,N,size); bias of padding (B,1,1,N), 0 or -inf -> the same shape as x."""
        own: Any = self.self
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (own.query, own.key, own.value))
        if hasattr(own, "distance_embedding"):
            place = torch.arange(x.shape[1], device=x.device)
            apart = own.distance_embedding(place[:, None] - place + self.longest - 1)
            scores = torch.einsum("bhld,lrd->bhlr", q, apart)
            if self.both:
                scores = scores + torch.einsum("bhrd,lrd->bhlr", k, apart)
            scores = scores / math.sqrt(q.shape[-1])
            bias = scores if bias is None else scores + bias
        elif bias is not None:
            bias = bias.expand(-1, self.heads, x.shape[1], -1)
        out: Tensor = self.output(attend(q, k, v, bias).transpose(1, 2).flatten(2), x)
        return out


class Closing(nn.Module):
    """What ends both halves of a layer: a linear map, dropout, plus the input, norm."""

    def __init__(self, cin: int, cout: int, net: AngleBert) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(cin, cout), nn.LayerNorm(cout, eps=net.eps)
        self.dropout = nn.Dropout(net.dropout)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """h (B,N,cin), x (B,N,cout) -> like x."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(h)) + x)
        return out


class Layer(nn.Module):
    """A layer of BERT (Devlin et al. 2019)."""

    def __init__(self, net: AngleBert, hidden: int, act: str) -> None:
        super().__init__()
        self.attention = Attention(net)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(net.size, hidden)
        self.act, self.output = ACTIVATIONS[act](), Closing(hidden, net.size, net)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (B,N,size), bias (B,1,1,N) -> like x."""
        x = self.attention(x, bias)
        inner: Any = self.intermediate
        out: Tensor = self.output(self.act(inner.dense(x)), x)
        return out


class Decoder(nn.Module):
    """Angles of tokens: linear, GELU, norm, linear."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.dense1, self.layer_norm, self.dense2 = nn.Linear(size, size), nn.LayerNorm(size, DECODER_EPS), nn.Linear(size, out)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,N,size) -> (B,N,out)."""
        out: Tensor = self.dense2(self.layer_norm(nn.functional.gelu(self.dense1(x))))
        return out


class Times(nn.Module):
    """The encoding of times: sines and cosines of phases, with random frequencies W (size / 2,) or fixed ones."""

    W: Tensor

    def __init__(self, size: int, encoding: str) -> None:
        super().__init__()
        self.count = size // 2
        if encoding == "gaussian_fourier":
            self.register_buffer("W", 2 * math.pi * torch.randn(self.count))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Times:
        """As of any module, but frequencies are never rounded below float32: phases of t = 1000 would be off by turns."""
        kept = self._buffers.get("W")
        super()._apply(fn, recurse)
        if kept is not None and self.W.dtype not in (torch.float32, torch.float64):
            self.W = kept.to(self.W.device)
        return self

    def forward(self, t: Tensor) -> Tensor:
        """t (B,) -> (B,size), by the products of theirs in their order: phases reach 100,000, and their digits count."""
        if "W" in self._buffers:
            phase = t[:, None] * self.W.to(t)[None] * 2 * math.pi
        else:
            rates = torch.exp(torch.arange(self.count, device=t.device) * (-math.log(10_000) / (self.count - 1)))
            phase = t[:, None] * rates[None]
        return torch.cat([phase.sin(), phase.cos()], -1)


class AngleBert(nn.Module):
    """FoldingDiff's BERT on angles x_t (B,N,6) in radians, wrapped to [-pi, pi), without conditions.

    Args:
        shape: of a sample (N,6), of which N may be another.
        conditions: none.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, hidden_act, layer_norm_eps: as of BERT.
        max_position_embeddings: the longest chain.
        position_embedding_type: "absolute", "relative_key" (Shaw et al. 2018) or "relative_key_query" (Huang et al. 2020).
        time_encoding: "gaussian_fourier" (Song et al. 2021, section C.2; its frequencies are weights), or "sinusoidal".
        decoder: "mlp" or "linear".
        hidden_dropout_prob, attention_probs_dropout_prob: of training; attention drops nothing here.

    Raises:
        ConfigError: numbers that do not fit together, an unknown name, conditions, or other samples.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        max_position_embeddings: int,
        position_embedding_type: str,
        time_encoding: str,
        decoder: str,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        hidden_dropout_prob: float = 0.0,
        attention_probs_dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        for what, value, allowed in (
            ("position_embedding_type", position_embedding_type, POSITIONS), ("time_encoding", time_encoding, TIMES),
            ("decoder", decoder, DECODERS), ("hidden_act", hidden_act, ACTIVATIONS),
        ):  # fmt: skip
            if value not in allowed:
                raise one_of(f"{what} of {NAME}", value, allowed)
        if conditions or len(shape) != 2 or shape[1] != FEATURES:
            raise ConfigError(f"{NAME}: the net takes (N, {FEATURES}) angles and is told nothing; samples are {shape}.")
        if hidden_size % num_attention_heads or hidden_size % 2 or hidden_size < 4 or num_hidden_layers < 1:
            raise ConfigError(
                f"{NAME}: hidden_size={hidden_size}, num_attention_heads={num_attention_heads}, num_hidden_layers="
                f"{num_hidden_layers}: give an even size of 4 or more that divides by the heads, and a layer or more."
            )
        for what, share in (("hidden", hidden_dropout_prob), ("attention_probs", attention_probs_dropout_prob)):
            if not 0 <= share < 1:
                raise ConfigError(f"{NAME}: {what}_dropout_prob={share}; give a probability below 1.")
        self.size, self.heads, self.eps, self.dropout = hidden_size, num_attention_heads, layer_norm_eps, hidden_dropout_prob
        self.positions, self.longest = position_embedding_type, max_position_embeddings
        self.inputs_to_hidden_dim = nn.Linear(FEATURES, hidden_size)
        self.embeddings = nn.Module()
        if position_embedding_type == "absolute":
            self.embeddings.position_embeddings = nn.Embedding(self.longest, hidden_size)
            # theirs is in their files, and says nothing
            self.embeddings.register_buffer("position_ids", torch.arange(self.longest)[None])
        self.embeddings.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop = nn.Dropout(hidden_dropout_prob)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(self, intermediate_size, hidden_act) for _ in range(num_hidden_layers))
        self.token_decoder = Decoder(hidden_size, FEATURES) if decoder == "mlp" else nn.Linear(hidden_size, FEATURES)
        self.time_embed = Times(hidden_size, time_encoding)

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B,N,6), t (B,) steps, mask (B,N) -> the noise (B,N,6), 0 in the padding.

        Raises:
            ConfigError: chains that are longer than its positions.
        """
        if x_t.shape[1] > self.longest:
            raise ConfigError(f"{NAME}: chains of {x_t.shape[1]} residues; this net has positions for {self.longest}.")
        own: Any = self.embeddings
        x = self.inputs_to_hidden_dim(x_t)
        if self.positions == "absolute":
            x = x + own.position_embeddings.weight[: x.shape[1]]
        x = self.drop(own.LayerNorm(x)) + self.time_embed(t).to(x.dtype)[:, None]
        bias = None
        if mask is not None:  # whether there is padding at all is not asked: a GPU would be waited for
            bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, -math.inf)[:, None, None]
        layers: Any = self.encoder.layer
        for layer in layers:
            x = layer(x, bias)
        out: Tensor = self.token_decoder(x)
        return out if mask is None else out * mask[:, :, None]


def betas_of(schedule: str, T: int) -> list[float]:
    """Their T betas, with the rounding of float32 that theirs have: where one is near 1, it changes 1 - beta by 1e-4.

    Raises:
        CheckpointError: an unknown schedule.
    """
    if schedule == "cosine":  # Nichol & Dhariwal 2021, Eq. 17, with bounds of their own
        u = torch.linspace(0, T, T + 1)
        f = torch.cos((u / T + 8e-3) / (1 + 8e-3) * torch.pi * 0.5) ** 2
        f = f / f[0]
        found = (1 - f[1:] / f[:-1]).clip(1e-4, 0.9999)
    elif schedule == "quadratic":
        found = torch.sigmoid(torch.linspace(-6, 6, T)) * (MOST - LEAST) + LEAST
    elif schedule == "linear":
        found = torch.linspace(LEAST, MOST, T)
    else:
        raise one_of(f"variance_schedule of {NAME}", schedule, ("linear", "cosine", "quadratic"), CheckpointError)
    return [float(b) for b in found]


class FoldingFormat:
    """Folders of `benchmarks/convert_pickle.py foldingdiff`: model.safetensors beside their own three files."""

    def recognises(self, folder: Path) -> bool:
        """By a BERT's config.json, and beside it the arguments of a training on angles."""
        try:
            if not all((folder / name).is_file() for name in (files.CONFIG, ARGUMENTS)):
                return False
            arguments = read_object(folder / ARGUMENTS)
            return read_object(folder / files.CONFIG).get("model_type") == "bert" and "angles_definitions" in arguments
        except CheckpointError:
            return False

    def wanted(self, names: Collection[str]) -> list[str] | None:
        """Which files of a repository are needed, by their names; None where they are not those of such a model.

        Raises:
            CheckpointError: its weights are pickles alone.
        """
        listed = set(names)
        if not {files.CONFIG, ARGUMENTS} <= listed:
            return None
        if files.WEIGHTS not in listed:
            if pickles := sorted(n for n in listed if n.endswith(PICKLES)):
                raise CheckpointError(f"the weights {pickles[0]} of this repository are a pickle, which can run code. {HOW}")
            return None
        return sorted(listed & {files.CONFIG, ARGUMENTS, MEANS, files.WEIGHTS, files.CARD})

    def load(self, folder: Path) -> Model:
        """The model of a folder.

        Raises:
            CheckpointError, ConfigError: an option that is missing, unknown or not supported; wrong weights or means.
        """
        if not (folder / files.WEIGHTS).exists() and (pickles := sorted((folder / "models").glob("*/*.ckpt"))):
            raise CheckpointError(f"{pickles[0]} is a pickle, which can run code: zoo never opens one. {HOW}")
        paths = weights_in(folder, "model", HOW)
        recipe = read_options(folder, shapes_in(paths), read_origin(folder))
        means = read_means(folder / MEANS)
        model = built(recipe, paths)
        state = dict(model.codec.state_dict())
        files.load_strict(model.codec, state | {"mean": means}, folder / MEANS)
        return model

    def card(self, folder: Path) -> str:
        """The text of a folder's own card."""
        return read_origin(folder).text


def read_means(path: Path) -> Tensor:
    """The means (6,) of the angles in radians, float32.

    Raises:
        CheckpointError: the file is missing, is no array, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: angles of {NAME} are around their means in the training data, and those are not known without "
            "it. Copy it from the folder that the model was trained in."
        )
    try:
        found = read_array(path, "the means of angles")
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if found.shape != (FEATURES,) or found.dtype.kind != "f":
        raise CheckpointError(f"{path} holds {found.dtype} {found.shape}; the means are {FEATURES} real numbers.")
    means = torch.tensor(found.tolist(), dtype=torch.float32)
    if not bool((means.abs() <= math.pi + 1e-6).all()):
        raise CheckpointError(f"{path}: {means.tolist()}; the means are angles in radians, between -pi and pi.")
    return means


def structure(shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Any]:
    """What the shapes of the weights say of the net.

    Raises:
        CheckpointError: they are not those of such a net.
    """
    try:
        size, features = shapes["inputs_to_hidden_dim.weight"]
        layers = [k.split(".")[2] for k in shapes if k.startswith("encoder.layer.")]
        distances = shapes.get("encoder.layer.0.attention.self.distance_embedding.weight")
        positions = shapes.get("embeddings.position_embeddings.weight")
        longest = positions[0] if positions is not None else (distances or (0, 0))[0] // 2 + 1
        return {
            "hidden_size": size,
            "features": features,
            "num_hidden_layers": len(set(layers)),
            "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
            "max_position_embeddings": longest,
            "num_attention_heads": None if distances is None else size // distances[1],
            "relative": distances is not None,
            "time_encoding": "gaussian_fourier" if "time_embed.W" in shapes else "sinusoidal",
            "decoder": "linear" if "token_decoder.weight" in shapes else "mlp",
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(
            f"{path} holds no net of {NAME}: its tensors are {', '.join(sorted(shapes)[:4]) or 'none'}, and those begin with "
            "inputs_to_hidden_dim, embeddings, encoder, token_decoder and time_embed."
        ) from None


def read_options(folder: Path, shapes: Mapping[str, tuple[int, ...]], origin: Origin) -> Recipe:
    """The recipe of a checkpoint.

    Args:
        shapes: of the weights.

    Raises:
        CheckpointError: an option that is missing, of another kind, unknown, not supported, or another than the tensors say.
    """
    path, other = folder / files.CONFIG, folder / ARGUMENTS
    o = Options(read_object(path), f"BERT of {NAME}", path)
    net = {key: o.needed(key) for key in NET}
    o.only("model_type", "bert")
    o.only("is_decoder", False)
    o.only("add_cross_attention", False)
    o.end(NET_WITHOUT_EFFECT)
    checked(net, NET, f"BERT of {NAME}", path)
    a = Options(read_object(other), f"training of {NAME}", other)
    trained = {key: a.needed(key) for key in TRAINED}
    also = {key: a.later(key, net[name]) for key, name in SAME.items()}
    a.only("zero_center", True)
    a.only("syn_noiser", "")
    a.only("single_angle_debug", -1)
    a.only("single_timestep_debug", False)
    a.end(TRAINED_WITHOUT_EFFECT)
    checked(trained, TRAINED, f"training of {NAME}", other)
    looked_up(trained["angles_definitions"], {SET: SET}, f"angles_definitions of the {NAME} in {other}")
    T, longest, shortest = trained["timesteps"], trained["max_seq_len"], max(trained["min_seq_len"], 1)
    if not 2 <= T <= MOST_TIMES:
        raise CheckpointError(f"{other}: timesteps={T} of a {NAME}; it must be a whole number from 2 to {MOST_TIMES:,}.")
    if not 8 <= longest <= MOST_LENGTH or shortest > longest:
        raise CheckpointError(
            f"{other}: min_seq_len={trained['min_seq_len']}, max_seq_len={longest} of a {NAME}; it must be a range of lengths, "
            f"the largest from 8 to {MOST_LENGTH:,}."
        )
    if trained["variance_scale"] != 1:
        raise CheckpointError(
            f"{other}: variance_scale={trained['variance_scale']} of a {NAME} is not supported: theirs trains with noise of "
            "that deviation, and samples with noise of 1. Supported: 1.0."
        )
    betas = betas_of(trained["variance_schedule"], T)
    for key, known in (("hidden_act", ACTIVATIONS), ("position_embedding_type", POSITIONS)):
        looked_up(net[key], dict.fromkeys(known), f"{key} of the BERT of {NAME} in {path}")
    for key, names in (("time_encoding", TIMES), ("decoder", DECODERS)):
        looked_up(trained[key], dict.fromkeys(names), f"{key} of the {NAME} in {other}")
    said = structure(shapes, folder)
    shared = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")
    facts = {k: (net[k], said[k]) for k in shared}
    facts["relative positions"] = (net["position_embedding_type"] != "absolute", said["relative"])
    if said["num_attention_heads"] is not None:
        facts["num_attention_heads"] = (net["num_attention_heads"], said["num_attention_heads"])
    agree(facts, path)
    same = {key: (value, SAME[key]) for key, value in also.items()} | {"max_seq_len": (longest, "max_position_embeddings")}
    if wrong := [f"{k}={v!r} where that has {name}={net[name]!r}" for k, (v, name) in same.items() if v != net[name]]:
        raise CheckpointError(f"{other} is not of the training that wrote {path.name}: {'; '.join(wrong)}. Correct it.")
    agree({"angles": (FEATURES, said["features"])} | {k: (trained[k], said[k]) for k in ("time_encoding", "decoder")}, other)
    low, high = SWEPT if shortest <= SWEPT[0] and SWEPT[1] <= longest else (max(shortest, 8), longest)
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "protein",
            "description": f"BERT of {NAME}: backbones as six angles a residue, up to {longest} residues; imported from "
            f"{origin.place}.",
            "licence": origin.licence,
            "data": origin.data,
            "paper": "Wu et al. 2024, Protein structure generation via folding diffusion.",
            "codec": {"kind": "angles", "min_length": shortest, "max_length": longest, "usual": [low, high]},
            "denoiser": NAME,
            "net": net | {k: trained[k] for k in ("time_encoding", "decoder")},
            "schedule": {"kind": "discrete", "T": T, "betas": betas},
            "diffusion": {"prediction": "eps"},
            "sampling": {"sampler": "ddpm", "steps": T, "options": {"variance": "small"}},
        }
    )


FORMAT = FoldingFormat()
