"""The net of backbones: residues as tokens, with what they see of each other as biases of the attention.

Coordinates go in and come out twice: in the global frame, where the fold is seen, and in each residue's own frame, where
bonds and turns look the same however the chain lies. What pairs of residues see (distance, direction, orientation) comes
from the net's last guess of the clean chain where it has one, else from the noisy chain smoothed along itself.
Frames come from cross products, so a chain and its mirror image are different things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.core.schedule import NetLevel
from zoo.errors import ConfigError, ShapeError
from zoo.nets.blocks import TimeEmbedding, check_mask, end, modulate, zero
from zoo.protein.codec import SCALE
from zoo.protein.geometry import frames, torsions
from zoo.protein.pairs import PairBias, PairBlock, windows
from zoo.protein.rigid import smooth

#: residues on each side whose atoms a token sees, and the 3 (2 REACH + 1) atoms' typical distance in one coordinate
REACH = 2
#: mean square step of the smoothing's random walk, from one backbone atom to the next, in one coordinate
STEP = 1.2
#: below this share alpha of the data nothing of a chain can be seen
FAINT = 1e-4
#: centres of the radial features of CA-CA distances
NEAR, FAR, RADII = 3.0, 25.0, 20
#: (atom, atom, distance) within one peptide: bonds and the ends of angles, numbered from a residue's N
COVALENT = ((0, 1, 1.458), (1, 2, 1.525), (2, 3, 1.329), (0, 2, 2.46), (1, 3, 2.43), (2, 4, 2.43), (1, 4, 3.8))
PAIR_FEATURES = RADII + 1 + 6 + 9
RESIDUE_FEATURES = 18 + 3 * 9 * (2 * REACH + 1) + len(COVALENT) + 6 + 2


class Views:
    """What residues and pairs of residues look like, in float32.

    Args:
        x: noisy atoms (B,N,3,3), angstrom, 0 in the padding.
        y: the clean chain as it is guessed.
        sigma: (B,) noise in angstrom.
        mask: (B,N) bool.
    """

    def __init__(self, x: Tensor, y: Tensor, sigma: Tensor, mask: Tensor) -> None:
        self.x, self.y, self.sigma, self.mask = x, y, sigma[:, None, None, None], mask
        self.rotation, self.centre = frames(y), y[:, :, 1]

    def residues(self) -> Tensor:
        """(B,N,RESIDUE_FEATURES), each of about unit size at every noise level."""
        B, N = self.mask.shape
        real = windows(self.mask[..., None, None].expand(B, N, 3, 3).float(), REACH)
        apart = (torch.arange(real.shape[2], device=real.device) - 3 * REACH - 1).abs().clamp(min=1).view(1, 1, -1, 1)
        size = apart**0.7
        around = (windows(self.x, REACH) - self.x[:, :, 1:2]) * real * torch.rsqrt(size**2 + 2 * self.sigma**2)
        guess = (windows(self.y, REACH) - self.centre[:, :, None]) * real / size
        turned = torch.cat([around, guess], 2) @ self.rotation.mT
        pairs = torch.stack([torch.linalg.vector_norm(self._atom(a) - self._atom(b), dim=-1) - d for a, b, d in COVALENT], -1)
        bonds = (pairs * torch.rsqrt(0.05**2 + 2 * self.sigma[..., 0] ** 2)).clamp(-4, 4)
        followed = F.pad(self.mask[:, 1:], (0, 1))[:, :, None]  # psi and omega need a next residue that is not padding
        angles = torsions(self.y).nan_to_num() * torch.cat([torch.ones_like(followed), followed, followed], 2)
        place = torch.arange(N, device=real.device)
        ends = torch.stack([place.expand(B, N), self.mask.sum(1, keepdim=True) - 1 - place], -1).clamp(min=0)
        noisy = self.x * torch.rsqrt(SCALE**2 + self.sigma**2)
        parts = [noisy, self.y / SCALE, around, turned, bonds, angles.sin(), angles.cos(), 1 / (1 + ends)]
        return torch.cat([p.flatten(2) for p in parts], 2)

    def _atom(self, k: int) -> Tensor:
        """Noisy atom k, counted from each residue's N on into the next one: (B,N,3)."""
        return F.pad(self.x[:, 1:, k - 3], (0, 0, 0, 1)) if k > 2 else self.x[:, :, k]

    def pairs(self) -> Tensor:
        """(B,N,N,PAIR_FEATURES): CA distance; where j is for i and i for j; how j's frame is turned in i's."""
        between = self.centre[:, None] - self.centre[:, :, None]
        distance = torch.linalg.vector_norm(between, dim=-1, keepdim=True)
        centres = torch.linspace(NEAR, FAR, RADII, device=distance.device)
        radial = torch.exp(-((distance - centres) * (RADII / (FAR - NEAR))).square().clamp(max=60))  # no denormal numbers
        direction = (between / (distance + 1.0)) @ self.rotation.mT
        B, N = self.mask.shape
        axes = self.rotation.reshape(B, 3 * N, 3)
        turn = (axes @ axes.mT).view(B, N, 3, N, 3).transpose(2, 3).reshape(B, N, N, 9)
        return torch.cat([radial, distance / FAR, direction, direction.transpose(1, 2), turn], 3)

    def points(self) -> Tensor:
        """What attention gathers (B,N,12): a residue's noisy atoms and guessed CA, in units of a chain."""
        return torch.cat([self.x * torch.rsqrt(1 + (self.sigma / SCALE) ** 2), self.centre[:, :, None]], 2).flatten(2) / SCALE

    def seen(self, gathered: Tensor) -> Tensor:
        """Points that heads gathered (B,N,heads,12) -> as each residue sees them, with their distances (B,N,16 heads)."""
        local = (gathered.unflatten(3, (4, 3)).flatten(2, 3) - self.centre[:, :, None] / SCALE) @ self.rotation.mT
        return torch.cat([local, torch.linalg.vector_norm(local, dim=-1, keepdim=True)], -1).flatten(2)


class BackboneNet(nn.Module):
    """Denoiser of encoded backbones (B,N,3,3), on any schedule: it asks for its level (see `zoo.core.diffusion.Denoiser`).

    Args:
        shape: (N, 3, 3), of which N is only the usual length.
        conditions: none.
        dim, depth, heads: width, blocks, attention heads.
        mlp_ratio: hidden width of the two-layer nets over dim.
        pair: hidden width of the pairs' net.
        dropout: probability of dropping a hidden channel in a chain.

    Raises:
        ConfigError: numbers that do not fit together.
        ShapeError: x_t, the last guess or mask of the wrong shape.
    """

    #: the options that say how wide it is, and their defaults, see `zoo.contract.domain.Domain.widths`
    widths: ClassVar[dict[str, int]] = {"dim": 256, "pair": 64}
    needs_level = True
    #: what steers may tell it beside its conditions, see `zoo.core.correction.Steer.told`
    hears = ("copies",)

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        dim: int = 256,
        depth: int = 6,
        heads: int = 8,
        mlp_ratio: float = 3.0,
        pair: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if tuple(shape[1:]) != (3, 3) or conditions:
            asked = ", ".join(conditions or {}) or "none"
            raise ConfigError(f"BackboneNet: samples {tuple(shape)}, conditions {asked}; give (N, 3, 3) and no conditions.")
        if depth < 1 or heads < 1 or dim % heads or not mlp_ratio > 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"BackboneNet dim={dim}, depth={depth}, heads={heads}, mlp_ratio={mlp_ratio}, dropout={dropout}: heads divide "
                "dim, depth is at least 1, mlp_ratio positive, dropout in [0, 1)."
            )
        self.time = TimeEmbedding(dim, scale=250.0)
        self.facts = nn.Linear(2, dim)
        self.entry = end(nn.Linear(RESIDUE_FEATURES, dim))
        self.known = nn.Parameter(torch.zeros(dim))
        self.pairs = PairBias(PAIR_FEATURES, dim, pair, depth, heads)
        self.shared = nn.Sequential(nn.SiLU(), zero(nn.Linear(dim, 6 * dim)))
        self.blocks = nn.ModuleList([PairBlock(dim, heads, mlp_ratio, 16 * heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final = nn.Sequential(nn.SiLU(), zero(nn.Linear(dim, 2 * dim)))
        self.exit = end(zero(nn.Linear(dim, 18)))

    def forward(
        self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None, level: NetLevel | None = None
    ) -> Tensor:
        """As `zoo.core.diffusion.Denoiser`; cond["x0"] (B,N,3,3) is the last guess, NaN in rows that have none.

        cond["known"] (B,N,3,3) bool marks the atoms of it that are given; a residue is known where all of it is.
        cond["copies"] (B,K,M) int64 are the residues of K chains, -1 for none: each is then seen by itself, around its mean.
        """
        B, N = x_t.shape[:2]
        if tuple(x_t.shape[2:]) != (3, 3):
            raise ShapeError(f"backbones {tuple(x_t.shape)} must be (batch, residues, 3, 3).")
        mask = torch.ones(B, N, dtype=torch.bool, device=x_t.device) if mask is None else check_mask(mask, B, N)
        if "copies" in cond and level is not None:
            return self._apart(x_t, t, cond, level)
        if level is None:
            raise ConfigError("BackboneNet receives its level: call it through `zoo.core.diffusion.Diffusion.ask`.")
        last = cond.get("x0")
        if last is not None and last.shape != x_t.shape:
            raise ShapeError(f"the last guess {tuple(last.shape)} must be shaped like x_t {tuple(x_t.shape)}.")
        with torch.autocast(x_t.device.type, enabled=False):  # coordinates to a hundredth of an angstrom need float32
            views, has = self.look(x_t.float(), level, last, mask)
            length = (mask.sum(1) / 64).clamp(min=0.01).log()
            weight = self.facts.weight.dtype
            emb = self.time(t) + self.facts(torch.stack([length, has.float()], 1).to(weight))
            h, pairs = self.entry(views.residues().to(weight)), views.pairs().to(weight)
        if "known" in cond:
            h = h + cond["known"].flatten(2).all(2, keepdim=True) * self.known
        shared, points = self.shared(emb), views.points()
        for block, bias in zip(self.blocks, self.pairs(pairs, emb, mask), strict=True):
            h = block(h, shared, bias, points, views.seen)
        h = modulate(self.norm(h), *self.final(emb).to(h.dtype).chunk(2, 1))
        with torch.autocast(x_t.device.type, enabled=False):
            whole, local = self.exit(h.to(weight)).float().view(B, N, 2, 3, 3).unbind(2)
            return (whole + local @ views.rotation).to(x_t.dtype)

    def _apart(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], level: NetLevel) -> Tensor:
        """What is said of each of several chains, where none sees the others; 0 for the mean of each."""
        B, K, M = cond["copies"].shape
        rows, mask = cond["copies"].flatten(1), (cond["copies"] >= 0).view(B * K, M)

        def cut(v: Tensor) -> Tensor:
            own = v.gather(1, rows.clamp(min=0)[:, :, None, None].expand(-1, -1, 3, 3))
            return own.view(B * K, M, 3, 3)

        def centred(v: Tensor) -> Tensor:
            keep = mask[:, :, None, None]
            v = torch.where(keep, v, 0.0)
            return torch.where(keep, v - v.sum((1, 2), keepdim=True) / (3 * keep.sum(1, keepdim=True)), 0.0)

        own = {k: cut(cond[k]) for k in ("x0", "known") if k in cond}
        if "x0" in own:
            own["x0"] = centred(own["x0"])
        each = NetLevel(*(v.repeat_interleave(K) for v in (level.t, level.alpha, level.sigma, level.gain)))
        out = self(centred(cut(x_t)), t.repeat_interleave(K), own, mask=mask, level=each)
        # what belongs to no residue goes into a row of its own, which is dropped
        there = torch.where(rows < 0, x_t.shape[1], rows)[:, :, None, None].expand(-1, -1, 3, 3)
        found = x_t.new_zeros(B, x_t.shape[1] + 1, 3, 3).scatter(1, there, centred(out).view(B, K * M, 3, 3))
        return found[:, :-1]

    def look(self, x_t: Tensor, level: NetLevel, last: Tensor | None, mask: Tensor) -> tuple[Views, Tensor]:
        """The views of noisy chains at a level of tensors (B,), and (B,) bool which rows have a last guess."""
        keep = mask[:, :, None, None]
        # where nothing of the data is left (alpha = 0, the first step of flow), the net looks at noise that is finite
        to_angstrom = (SCALE * level.gain / level.alpha.clamp(min=FAINT)).to(x_t)
        x = torch.where(keep, x_t * to_angstrom[:, None, None, None], 0.0)
        sigma = SCALE * level.ratio.clamp(max=1 / FAINT).to(x_t.dtype)
        y = smooth(x.flatten(1, 2), sigma, mask.repeat_interleave(3, 1), STEP).view_as(x)
        if last is None:
            return Views(x, y, sigma, mask), torch.zeros_like(mask[:, 0])
        has = ~last.isnan().flatten(1).any(1)
        y = torch.where(keep & has[:, None, None, None], SCALE * last.float(), y)
        return Views(x, y, sigma, mask), has
