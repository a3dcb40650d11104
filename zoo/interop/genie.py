"""Checkpoints of Genie: chains of CA by a net of frames and invariant point attention, under the names of its weights.

Lin & AlQuraishi 2023, "Generating novel, designable, and diverse protein structures by equivariantly diffusing oriented residue
clouds" (aqlaboratory/genie). Its checkpoints are those of Lightning, which are pickles, and zoo opens none:
`benchmarks/convert_pickle.py genie` makes a folder of safetensors with all options of the configuration in a config.json, and
that is what is read here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.contract.recipe import Recipe
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.converted import ConvertedFormat, agree
from zoo.interop.origin import Origin
from zoo.interop.reading import Options, checked, looked_up
from zoo.nets.blocks import end

#: the name of the format, which config.json says, and of the denoiser in recipes
NAME = "genie"
HOW = f"Where you trust it: python benchmarks/convert_pickle.py {NAME} RUN FOLDER (of zoo's sources)."
#: of the configuration, what makes the net: {its name there: (that in their code and here, kind, see `checked`)}
NET = {
    "maximumNumResidues": ("max_n_res", "whole"),
    "numTimesteps": ("n_timestep", "whole"),
    "singleFeatureDimension": ("c_s", "whole"),
    "pairFeatureDimension": ("c_p", "whole"),
    "positionalEmbeddingDimension": ("c_pos_emb", "whole"),
    "timestepEmbeddingDimension": ("c_timestep_emb", "whole"),
    "relativePositionK": ("relpos_k", "count"),
    "templateType": ("template_type", "text"),
    "numPairTransformLayers": ("n_pair_transform_layer", "count"),
    "includeTriangularMultiplicativeUpdate": ("include_mul_update", "flag"),
    "includeTriangularAttention": ("include_tri_att", "flag"),
    "triangularMultiplicativeHiddenDimension": ("c_hidden_mul", "whole"),
    "triangularAttentionHiddenDimension": ("c_hidden_tri_att", "whole"),
    "triangularAttentionNumHeads": ("n_head_tri", "whole"),
    "triangularDropout": ("tri_dropout", "number"),
    "pairTransitionN": ("pair_transition_n", "whole"),
    "numStructureLayers": ("n_structure_layer", "whole"),
    "numStructureBlocks": ("n_structure_block", "whole"),
    "ipaHiddenDimension": ("c_hidden_ipa", "whole"),
    "ipaNumHeads": ("n_head_ipa", "whole"),
    "ipaNumQkPoints": ("n_qk_point", "whole"),
    "ipaNumVPoints": ("n_v_point", "whole"),
    "ipaDropout": ("ipa_dropout", "number"),
    "numStructureTransitionLayers": ("n_structure_transition_layer", "count"),
    "structureTransitionDropout": ("structure_transition_dropout", "number"),
}
#: and what makes the process and its lengths
FURTHER = {"schedule": "text", "minimumNumResidues": "count?"}
KINDS = {k: kind for k, (_, kind) in NET.items()} | FURTHER
#: options of a training, and of its data
WITHOUT_EFFECT = (
    "name", "logDirectory", "dataDirectory", "datasetNames", "datasetSize", "datasetClasses", "seed", "numEpoches", "batchSize",
    "logEverySteps", "checkpointEveryEpoches", "learningRate",
)  # fmt: skip
#: what pairs of residues are told of the noisy chain: the distances of CA
TEMPLATES = ("v1",)
DROPOUTS = ("tri_dropout", "ipa_dropout", "structure_transition_dropout")
MOST_TIMES, MOST_LENGTH, SHORTEST = 100_000, 4096, 8
#: lengths of which their script makes as many each, where a model takes them; and its scale of noise
SWEPT, NOISE_SCALE = (50, 128), 0.6
#: the ends of their linear betas, and the most that a cosine one is
LEAST, MOST, CAP = 1e-4, 0.02, 0.999
#: what stands for minus infinity in attention: rows of padding alone stay finite
FAR = 1e5


def encoding(v: Tensor, count: int, size: int) -> Tensor:
    """v (...) -> (..., size) float32: cosines and sines in turn, of wavelengths from 2 to 2 `count`.

    In float32 and in the order of theirs: phases reach pi times the number of steps, and their digits count.
    """
    k = torch.arange(1, size + 1, device=v.device)
    phase = v[..., None].float() * math.pi
    sines, cosines = torch.sin(phase / count ** (2 * k / size)), torch.cos(phase / count ** (2 * (k - 1) / size))
    return torch.where(k % 2 == 1, cosines, sines)


def turned(frames: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) by the matrices (..., 3, 3), with sums that mixed precision does not round."""
    return (frames * points[..., None, :]).sum(-1)


def frenet(x: Tensor, mask: Tensor) -> Tensor:
    """The frames (B,N,3,3) of CA (B,N,3): as columns the step from a residue, the normal of the steps there, their product.

    The frames of inner residues are those of the two steps around them; the first and the last residue have their neighbours'.
    They are left-handed: the third column is the binormal times the tangent. A mirrored chain has other frames, so the net
    knows its hand.

    Args:
        mask: (B,N) bool, real residues; a row has 3 or more.
    """
    step = x.diff(dim=1)
    step = step / (step.square().sum(-1, keepdim=True) + 1e-10).sqrt()
    binormal = torch.linalg.cross(step[:, :-1], step[:, 1:])
    binormal = binormal / (binormal.square().sum(-1, keepdim=True) + 1e-10).sqrt()
    frames = torch.stack([step[:, 1:], binormal, torch.linalg.cross(binormal, step[:, 1:])], -1)
    place = torch.arange(x.shape[1], device=x.device)
    inner = torch.minimum(place, mask.sum(1)[:, None] - 2).clamp(min=1) - 1
    return frames.gather(1, inner[:, :, None, None].expand(-1, -1, 3, 3))


def rotation(bcd: Tensor) -> Tensor:
    """The rotations (..., 3, 3) of quaternions (1, b, c, d), brought to length 1 (Jumper et al. 2021, Algorithm 23)."""
    a = (bcd.square().sum(-1) + 1).rsqrt()
    b, c, d = (bcd * a[..., None]).unbind(-1)
    rows = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


class Shared(nn.Module):
    """Dropout of pairs (B,N,N,C) of which all along one axis are dropped together."""

    def __init__(self, share: float, axis: int) -> None:
        super().__init__()
        self.drop, self.axis = nn.Dropout(share), axis

    def forward(self, x: Tensor) -> Tensor:
        """x (B,N,N,C) -> the same shape."""
        if not self.training:
            return x
        out: Tensor = x * self.drop(torch.ones_like(x.narrow(self.axis, 0, 1)))
        return out


class SingleFeatures(nn.Module):
    """Features (B,N,c_s) of each residue's place and of the time."""

    def __init__(self, net: GenieNet, c_s: int, c_pos_emb: int, c_timestep_emb: int) -> None:
        super().__init__()
        self.places, self.times, self.sizes = net.longest, net.times, (c_pos_emb, c_timestep_emb)
        self.linear = end(nn.Linear(c_pos_emb + c_timestep_emb, c_s))

    def forward(self, t: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """t (B,) steps, mask (B,N) -> (B,N,c_s)."""
        place = encoding(torch.arange(mask.shape[1], device=t.device), self.places, self.sizes[0])
        time = encoding(t, self.times, self.sizes[1])
        B, N = mask.shape
        both = torch.cat([place.expand(B, -1, -1), time[:, None].expand(-1, N, -1)], -1) * mask[:, :, None]
        out: Tensor = self.linear(both.to(dtype))
        return out


class PairFeatures(nn.Module):
    """Features (B,N,N,c_p) of two residues: their own, their separation, and the distance of their CA."""

    def __init__(self, c_s: int, c_p: int, relpos_k: int) -> None:
        super().__init__()
        self.reach = relpos_k
        self.linear_s_p_i, self.linear_s_p_j = nn.Linear(c_s, c_p), nn.Linear(c_s, c_p)
        self.linear_relpos = end(nn.Linear(2 * relpos_k + 1, c_p))
        self.linear_template = end(nn.Linear(1, c_p))

    def forward(self, s: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        """s (B,N,c_s), x (B,N,3) in angstrom, pairs (B,N,N) that are real -> (B,N,N,c_p)."""
        place = torch.arange(x.shape[1], device=x.device)
        apart = (place[:, None] - place).clamp(-self.reach, self.reach) + self.reach
        between = ((x[:, :, None] - x[:, None]).square().sum(-1, keepdim=True) + 1e-10).sqrt()
        p = self.linear_s_p_i(s)[:, :, None] + self.linear_s_p_j(s)[:, None]
        p = p + self.linear_relpos(F.one_hot(apart, 2 * self.reach + 1).to(s.dtype))
        p = p + self.linear_template(between.to(s.dtype))
        out: Tensor = p * pairs[..., None]
        return out


class TriangleProduct(nn.Module):
    """The triangle multiplicative update of pairs (Jumper et al. 2021, Algorithms 11 and 12)."""

    def __init__(self, c_p: int, hidden: int, outgoing: bool) -> None:
        super().__init__()
        self.rule = "bikc,bjkc->bijc" if outgoing else "bkic,bkjc->bijc"
        self.linear_a_p, self.linear_a_g = nn.Linear(c_p, hidden), nn.Linear(c_p, hidden)
        self.linear_b_p, self.linear_b_g = nn.Linear(c_p, hidden), nn.Linear(c_p, hidden)
        self.linear_g, self.linear_z = nn.Linear(c_p, c_p), nn.Linear(hidden, c_p)
        self.layer_norm_in, self.layer_norm_out = nn.LayerNorm(c_p), nn.LayerNorm(hidden)

    def forward(self, p: Tensor, pairs: Tensor) -> Tensor:
        """p (B,N,N,c_p), pairs (B,N,N) -> like p."""
        z, real = self.layer_norm_in(p), pairs[..., None]
        a = self.linear_a_p(z) * torch.sigmoid(self.linear_a_g(z)) * real
        b = self.linear_b_p(z) * torch.sigmoid(self.linear_b_g(z)) * real
        made = self.linear_z(self.layer_norm_out(torch.einsum(self.rule, a, b)))
        out: Tensor = made * torch.sigmoid(self.linear_g(z))
        return out


class Gated(nn.Module):
    """Attention with gates, as of `TriangleAttention`."""

    def __init__(self, c_p: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(c_p, hidden * heads, bias=False) for _ in range(3))
        self.linear_o, self.linear_g = nn.Linear(hidden * heads, c_p), nn.Linear(c_p, hidden * heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (B,I,J,c_p), each row by itself; bias broadcast to (B,I,heads,J,J) -> like x."""
        linears = (self.linear_q, self.linear_k, self.linear_v)
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for linear in linears)
        share = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]) + bias, -1)
        gate = torch.sigmoid(self.linear_g(x))
        out: Tensor = self.linear_o((share @ v).transpose(-2, -3).flatten(-2) * gate)
        return out


class TriangleAttention(nn.Module):
    """Attention of pairs around their starting or ending residue (Jumper et al. 2021, Algorithms 13 and 14)."""

    def __init__(self, c_p: int, hidden: int, heads: int, starting: bool) -> None:
        super().__init__()
        self.starting, self.layer_norm = starting, nn.LayerNorm(c_p)
        self.linear, self.mha = nn.Linear(c_p, heads, bias=False), Gated(c_p, hidden, heads)

    def forward(self, p: Tensor, pairs: Tensor) -> Tensor:
        """p (B,N,N,c_p), pairs (B,N,N) -> like p."""
        p = self.layer_norm(p if self.starting else p.transpose(1, 2))  # pairs are symmetric
        unreal = (~pairs)[:, :, None, None] * -FAR
        out: Tensor = self.mha(p, self.linear(p).permute(0, 3, 1, 2)[:, None] + unreal)
        return out if self.starting else out.transpose(1, 2)


class PairTransition(nn.Module):
    """Two layers for each pair by itself (Jumper et al. 2021, Algorithm 15)."""

    def __init__(self, c_p: int, n: int) -> None:
        super().__init__()
        self.layer_norm, self.linear_1, self.linear_2 = nn.LayerNorm(c_p), nn.Linear(c_p, n * c_p), nn.Linear(n * c_p, c_p)

    def forward(self, p: Tensor) -> Tensor:
        """p (B,N,N,c_p) -> like p."""
        out: Tensor = self.linear_2(F.relu(self.linear_1(self.layer_norm(p))))
        return out


class PairLayer(nn.Module):
    """A layer of the pair transform."""

    def __init__(self, c_p: int, mul: int, att: int, heads: int, dropout: float, n: int) -> None:
        super().__init__()
        if mul:
            self.tri_mul_out, self.tri_mul_in = TriangleProduct(c_p, mul, True), TriangleProduct(c_p, mul, False)
        if att:
            self.tri_att_start = TriangleAttention(c_p, att, heads, True)
            self.tri_att_end = TriangleAttention(c_p, att, heads, False)
        self.mul, self.att = bool(mul), bool(att)
        self.pair_transition = PairTransition(c_p, n)
        self.rows, self.columns = Shared(dropout, 1), Shared(dropout, 2)

    def forward(self, p: Tensor, pairs: Tensor) -> Tensor:
        """p (B,N,N,c_p), pairs (B,N,N) -> like p, 0 where a pair is not real."""
        if self.mul:
            p = p + self.rows(self.tri_mul_out(p, pairs))
            p = p + self.rows(self.tri_mul_in(p, pairs))
        if self.att:
            p = p + self.rows(self.tri_att_start(p, pairs))
            p = p + self.columns(self.tri_att_end(p, pairs))
        return (p + self.pair_transition(p)) * pairs[..., None]


class PointAttention(nn.Module):
    """Invariant point attention (Jumper et al. 2021, Algorithm 22)."""

    def __init__(self, c_s: int, c_p: int, hidden: int, heads: int, qk: int, v: int) -> None:
        super().__init__()
        self.heads, self.hidden, self.qk, self.v = heads, hidden, qk, v
        self.linear_q, self.linear_kv = nn.Linear(c_s, hidden * heads), nn.Linear(c_s, 2 * hidden * heads)
        self.linear_q_points = nn.Linear(c_s, heads * qk * 3)
        self.linear_kv_points = nn.Linear(c_s, heads * (qk + v) * 3)
        self.linear_b = nn.Linear(c_p, heads)
        self.head_weights = nn.Parameter(torch.full((heads,), math.log(math.e - 1)))  # whose softplus is 1
        self.linear_out = nn.Linear(heads * (c_p + hidden + 4 * v), c_s)

    def forward(self, s: Tensor, p: Tensor, frames: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        """s (B,N,c_s), p (B,N,N,c_p), frames (B,N,3,3), x (B,N,3), pairs (B,N,N) -> like s."""
        q = self.linear_q(s).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.linear_kv(s).unflatten(-1, (self.heads, -1)).transpose(1, 2).split(self.hidden, -1)
        q_points, kv_points = (self._placed(linear(s), frames, x) for linear in (self.linear_q_points, self.linear_kv_points))
        k_points, v_points = kv_points.split((self.qk, self.v), -2)
        away = (q_points[:, :, None] - k_points[:, None]).square().sum(-1)  # (B,N,N,heads,qk)
        weight = F.softplus(self.head_weights).to(away) * math.sqrt(1 / (3 * (self.qk * 9 / 2)))
        near = (away * weight[:, None]).sum(-1).permute(0, 3, 1, 2) * -0.5
        scores = (q @ k.mT).to(near) * math.sqrt(1 / (3 * self.hidden))
        scores = scores + math.sqrt(1 / 3) * self.linear_b(p).permute(0, 3, 1, 2).to(near) + near
        share = torch.softmax(scores.masked_fill(~pairs[:, None], -FAR), -1)
        with torch.autocast(x.device.type, enabled=False):  # which would round angstroms to tenths
            seen = share @ v_points.transpose(1, 2).flatten(-2)
        points = seen.unflatten(-1, (self.v, 3)).transpose(1, 2)
        points = turned(frames.mT[:, :, None, None], points - x[:, :, None, None])
        far = (points.square().sum(-1) + 1e-8).sqrt()
        share = share.to(s.dtype)
        own = (share @ v).transpose(1, 2).flatten(2)
        told = (share.transpose(1, 2) @ p).flatten(2)
        places = points.flatten(2, 3).unbind(-1)
        out: Tensor = self.linear_out(torch.cat([own, *(a.to(s.dtype) for a in (*places, far.flatten(2))), told], -1))
        return out

    def _placed(self, said: Tensor, frames: Tensor, x: Tensor) -> Tensor:
        """Points (B,N,heads,points,3) in space, of numbers (B,N,3 * heads * points): all first coordinates come first."""
        local = said.to(x).unflatten(-1, (3, self.heads, -1)).movedim(2, -1)
        return turned(frames[:, :, None, None], local) + x[:, :, None, None]


class TransitionLayer(nn.Module):
    """Three layers for each residue by itself, plus the input."""

    def __init__(self, c_s: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.linear_3 = (nn.Linear(c_s, c_s) for _ in range(3))

    def forward(self, s: Tensor) -> Tensor:
        """s (B,N,c_s) -> like s."""
        out: Tensor = self.linear_3(F.relu(self.linear_2(F.relu(self.linear_1(s))))) + s
        return out


class Transition(nn.Module):
    """Layers for each residue by itself, dropout, norm."""

    def __init__(self, c_s: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransitionLayer(c_s) for _ in range(layers))
        self.dropout, self.layer_norm = nn.Dropout(dropout), nn.LayerNorm(c_s)

    def forward(self, s: Tensor) -> Tensor:
        """s (B,N,c_s) -> like s."""
        for layer in self.layers:
            s = layer(s)
        out: Tensor = self.layer_norm(self.dropout(s))
        return out


class StructureLayer(nn.Module):
    """A layer of the structure net: point attention, transition, and a move of each frame within itself."""

    def __init__(self, c_s: int, ipa: PointAttention, ipa_dropout: float, layers: int, dropout: float) -> None:
        super().__init__()
        self.ipa, self.ipa_dropout, self.ipa_layer_norm = ipa, nn.Dropout(ipa_dropout), nn.LayerNorm(c_s)
        self.transition = Transition(c_s, layers, dropout)
        self.bb_update = nn.Module()
        self.bb_update.linear = end(nn.Linear(c_s, 6))

    def forward(self, s: Tensor, p: Tensor, frames: Tensor, x: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s (B,N,c_s), p (B,N,N,c_p), frames (B,N,3,3), x (B,N,3), pairs (B,N,N) -> s, frames, x."""
        s = self.transition(self.ipa_layer_norm(self.ipa_dropout(s + self.ipa(s, p, frames, x, pairs))))
        own: Any = self.bb_update
        turn, move = own.linear(s).to(x).split(3, -1)
        x = turned(frames, move) + x
        return s, turned(frames[..., None, :, :], rotation(turn).mT).mT, x


class GenieNet(nn.Module):
    """Genie's net on CA x_t (B,N,3) in angstrom, without conditions: the noise is how far frames of the noisy chain are moved.

    Args:
        shape: of a sample (N,3), of which N may be another.
        conditions: none.
        max_n_res: the longest chain; places along a chain are encoded as shares of it.
        n_timestep: the steps of the process.
        c_s, c_p: features of a residue and of a pair. c_pos_emb, c_timestep_emb: of the encodings of places and times.
        relpos_k: separation along the chain beyond which all are alike.
        template_type: "v1": pairs are told the distance of their CA.
        n_pair_transform_layer: layers of the pair transform, which may have none.
        include_mul_update, include_tri_att: whether each has triangular products and triangular attention.
        c_hidden_mul, c_hidden_tri_att, n_head_tri, pair_transition_n: of these, and of the transition behind them.
        n_structure_layer, n_structure_block: layers of the structure net, and how often all of them act.
        c_hidden_ipa, n_head_ipa, n_qk_point, n_v_point: of invariant point attention.
        n_structure_transition_layer: layers behind each attention.
        tri_dropout, ipa_dropout, structure_transition_dropout: of training.

    Raises:
        ConfigError: numbers that do not fit together, an unknown template, conditions, or other samples.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        max_n_res: int,
        n_timestep: int,
        c_s: int,
        c_p: int,
        c_pos_emb: int,
        c_timestep_emb: int,
        relpos_k: int,
        template_type: str,
        n_pair_transform_layer: int,
        include_mul_update: bool,
        include_tri_att: bool,
        c_hidden_mul: int,
        c_hidden_tri_att: int,
        n_head_tri: int,
        tri_dropout: float,
        pair_transition_n: int,
        n_structure_layer: int,
        n_structure_block: int,
        c_hidden_ipa: int,
        n_head_ipa: int,
        n_qk_point: int,
        n_v_point: int,
        ipa_dropout: float,
        n_structure_transition_layer: int,
        structure_transition_dropout: float,
    ) -> None:
        super().__init__()
        if template_type not in TEMPLATES:
            raise ConfigError(f"{NAME}: unknown template_type {template_type!r}; there is {', '.join(TEMPLATES)}.")
        if conditions or len(shape) != 2 or shape[1] != 3:
            raise ConfigError(f"{NAME}: the net takes (N, 3) coordinates of CA and is told nothing; samples are {shape}.")
        counts = {
            "max_n_res": max_n_res, "n_timestep": n_timestep, "c_s": c_s, "c_p": c_p, "c_pos_emb": c_pos_emb,
            "c_timestep_emb": c_timestep_emb, "c_hidden_mul": c_hidden_mul, "c_hidden_tri_att": c_hidden_tri_att,
            "n_head_tri": n_head_tri, "pair_transition_n": pair_transition_n, "n_structure_layer": n_structure_layer,
            "n_structure_block": n_structure_block, "c_hidden_ipa": c_hidden_ipa, "n_head_ipa": n_head_ipa,
            "n_qk_point": n_qk_point, "n_v_point": n_v_point,
        }  # fmt: skip
        none = {"relpos_k": relpos_k, "n_pair_transform_layer": n_pair_transform_layer}
        none["n_structure_transition_layer"] = n_structure_transition_layer
        for what, number in (counts | none).items():
            if isinstance(number, bool) or not isinstance(number, int) or number < (what in counts):
                raise ConfigError(f"{NAME}: {what}={number!r}; give a whole number of at least {int(what in counts)}.")
        for what, share in zip(DROPOUTS, (tri_dropout, ipa_dropout, structure_transition_dropout), strict=True):
            if not 0 <= share < 1:
                raise ConfigError(f"{NAME}: {what}={share}; give a probability below 1.")
        self.longest, self.times, self.blocks = max_n_res, n_timestep, n_structure_block
        self.single_feature_net = SingleFeatures(self, c_s, c_pos_emb, c_timestep_emb)
        self.pair_feature_net = PairFeatures(c_s, c_p, relpos_k)
        mul, att = c_hidden_mul if include_mul_update else 0, c_hidden_tri_att if include_tri_att else 0
        self.pair_transform_net = nn.Module()
        self.pair_transform_net.net = nn.ModuleList(
            PairLayer(c_p, mul, att, n_head_tri, tri_dropout, pair_transition_n) for _ in range(n_pair_transform_layer)
        )
        self.structure_net = nn.Module()
        self.structure_net.net = nn.ModuleList(
            StructureLayer(
                c_s,
                PointAttention(c_s, c_p, c_hidden_ipa, n_head_ipa, n_qk_point, n_v_point),
                ipa_dropout,
                n_structure_transition_layer,
                structure_transition_dropout,
            )
            for _ in range(n_structure_layer)
        )

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B,N,3), t (B,) steps, mask (B,N) -> the noise (B,N,3), 0 in the padding.

        Raises:
            ConfigError: chains that are longer than its places, or of fewer than 3 residues.
        """
        if not 3 <= x_t.shape[1] <= self.longest:
            raise ConfigError(f"{NAME}: chains of {x_t.shape[1]} residues; this net takes 3 to {self.longest}.")
        mask = torch.ones(x_t.shape[:2], dtype=torch.bool, device=x_t.device) if mask is None else mask
        pairs = mask[:, :, None] & mask[:, None]
        start = x_t if x_t.dtype == torch.float64 else x_t.float()  # half precision would round angstroms to tenths
        s = self.single_feature_net(t, mask, x_t.dtype)
        p = self.pair_feature_net(s, start, pairs)
        transform: Any = self.pair_transform_net.net
        for layer in transform:
            p = layer(p, pairs)
        frames, x = frenet(start, mask), start
        moving: Any = self.structure_net.net
        for _ in range(self.blocks):
            for layer in moving:
                s, frames, x = layer(s, p, frames, x, pairs)
        return ((start - x) * mask[:, :, None]).to(x_t.dtype)


def betas_of(schedule: str, T: int) -> list[float]:
    """Their T betas, with the rounding of float32 that theirs have.

    Raises:
        CheckpointError: an unknown schedule, or so many steps that the first one is 0 in float32.
    """
    if schedule == "cosine":  # Nichol & Dhariwal 2021, Eq. 17, without their offset, and less its last of T + 1 steps
        u = torch.linspace(0, T, T + 1)
        bar = torch.cos(u / (T + 1) * math.pi * 0.5) ** 2
        bar = bar / bar[0]
        found = (1 - bar[1:] / bar[:-1]).clip(0, CAP)
    elif schedule == "linear":
        found = torch.linspace(LEAST, MOST, T)
    else:
        looked_up(schedule, dict.fromkeys(("cosine", "linear")), f"schedule of {NAME}")
    if not bool((found > 0).all()):
        raise CheckpointError(f"a cosine schedule of {NAME} with {T:,} steps has steps without noise in float32; give fewer.")
    return [float(b) for b in found]


def structure(shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, Any]:
    """What the shapes of the weights say of the net, by the names of the configuration.

    Raises:
        CheckpointError: they are not those of such a net.
    """
    try:
        c_s, told = shapes["single_feature_net.linear.weight"]
        c_p, bins = shapes["pair_feature_net.linear_relpos.weight"]
        (heads,) = shapes["structure_net.net.0.ipa.head_weights"]
        points = shapes["structure_net.net.0.ipa.linear_q_points.weight"][0] // (3 * heads)
        all_points = shapes["structure_net.net.0.ipa.linear_kv_points.weight"][0] // (3 * heads)
        pair, struct = (
            {k.split(".")[2] for k in shapes if k.startswith(f"{part}.net.")}
            for part in ("pair_transform_net", "structure_net")
        )
        layers = {k.split(".")[5] for k in shapes if k.startswith("structure_net.net.0.transition.layers.")}
        known = {
            "singleFeatureDimension": c_s,
            "encodings": told,
            "pairFeatureDimension": c_p,
            "relativePositionK": (bins - 1) // 2,
            "numPairTransformLayers": len(pair),
            "numStructureLayers": len(struct),
            "numStructureTransitionLayers": len(layers),
            "ipaNumHeads": heads,
            "ipaHiddenDimension": shapes["structure_net.net.0.ipa.linear_q.weight"][0] // heads,
            "ipaNumQkPoints": points,
            "ipaNumVPoints": all_points - points,
        }
        if pair:
            first = "pair_transform_net.net.0"
            mul, att = shapes.get(f"{first}.tri_mul_out.linear_z.weight"), shapes.get(f"{first}.tri_att_start.linear.weight")
            known["pairTransitionN"] = shapes[f"{first}.pair_transition.linear_1.weight"][0] // c_p
            known["includeTriangularMultiplicativeUpdate"] = mul is not None
            known["includeTriangularAttention"] = att is not None
            if mul is not None:
                known["triangularMultiplicativeHiddenDimension"] = mul[1]
            if att is not None:
                known["triangularAttentionNumHeads"] = att[0]
                wide = shapes[f"{first}.tri_att_start.mha.linear_q.weight"][0]
                known["triangularAttentionHiddenDimension"] = wide // att[0]
        return known
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(
            f"{path} holds no net of {NAME}: its tensors are {', '.join(sorted(shapes)[:4]) or 'none'}, and those begin with "
            "single_feature_net, pair_feature_net, pair_transform_net and structure_net."
        ) from None


def read_options(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path, origin: Origin) -> Recipe:
    """The recipe of a checkpoint.

    Args:
        given: the options by the names of the configuration, all of them.
        shapes: of the weights.
        path: of the options, for messages.

    Raises:
        CheckpointError: an option that is missing, of another kind, unknown, not supported, or another than the tensors say.
    """
    o = Options(given, NAME, path)
    options = {key: o.needed(key) for key in KINDS}
    o.end(WITHOUT_EFFECT)
    checked(options, KINDS, NAME, path)
    for key, known in (("templateType", TEMPLATES), ("schedule", ("cosine", "linear"))):
        looked_up(options[key], dict.fromkeys(known), f"{key} of the {NAME} in {path}")
    for key in (k for k, (name, _) in NET.items() if name in DROPOUTS):
        if not 0 <= options[key] < 1:
            raise CheckpointError(f"{path}: {key}={options[key]} of a {NAME}; it must be a probability below 1.")
    T, longest, shortest = options["numTimesteps"], options["maximumNumResidues"], max(options["minimumNumResidues"] or 0, 1)
    if not 2 <= T <= MOST_TIMES:
        raise CheckpointError(f"{path}: numTimesteps={T} of a {NAME}; it must be a whole number from 2 to {MOST_TIMES:,}.")
    if not SHORTEST <= longest <= MOST_LENGTH or shortest > longest:
        raise CheckpointError(
            f"{path}: minimumNumResidues={options['minimumNumResidues']}, maximumNumResidues={longest} of a {NAME}; it must be "
            f"a range of lengths, the largest from {SHORTEST} to {MOST_LENGTH:,}."
        )
    said = structure(shapes, path.parent)
    told = options["positionalEmbeddingDimension"] + options["timestepEmbeddingDimension"]
    facts = {k: (options[k], v) for k, v in said.items() if k in options}
    agree(facts | {"positionalEmbeddingDimension + timestepEmbeddingDimension": (told, said["encodings"])}, path)
    low, high = SWEPT if shortest <= SWEPT[0] and SWEPT[1] <= longest else (max(shortest, SHORTEST), longest)
    return Recipe.parse(
        {
            "name": origin.name,
            "domain": "protein",
            "description": f"Net of {NAME}: chains of CA up to {longest} residues; imported from {origin.place}.",
            "licence": origin.licence,
            "data": origin.data,
            "paper": "Lin & AlQuraishi 2023, Generating novel, designable, and diverse protein structures by equivariantly "
            "diffusing oriented residue clouds.",
            "codec": {"kind": "trace", "min_length": shortest, "max_length": longest, "usual": [low, high]},
            "denoiser": NAME,
            "net": {name: options[key] for key, (name, _) in NET.items()},
            "schedule": {"kind": "discrete", "T": T, "betas": betas_of(options["schedule"], T)},
            "diffusion": {"prediction": "eps"},
            "sampling": {
                "sampler": "ddpm",
                "steps": T,
                "options": {"variance": "large", "noise_scale": NOISE_SCALE},
            },
        }
    )


FORMAT = ConvertedFormat(NAME, HOW, read_options)
