"""The U-Net of lerobot's diffusion policy as a net of ours: it is loaded, run and trained without that package.

It is the conditional 1-D U-Net of Chi et al. 2023 (section 4.1, appendix A.3). Its tensors have the names that they have in
lerobot. What is different from `zoo.nets.unet.UNet`: a block norms after its convolutions, with Mish; FiLM scales by what it is
given, not by one more; the observations enter FiLM as they are; a transposed convolution doubles; and levels are joined once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.contract.conditions import Views
from zoo.errors import ConfigError, ShapeError, brief
from zoo.interop.lerobot.vision import SEPARATE, Eye, vision_options
from zoo.nets.once import once

#: groups of the last norm, which no option of lerobot's changes
LAST_GROUPS = 8
#: lerobot's features of an observation, in the order in which its net is told them
STATE, ENVIRONMENT = "observation.state", "observation.environment_state"


class Sinusoid(nn.Module):
    """t (B,) -> (B, dim): sines, then cosines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pairs = dim // 2

    def forward(self, t: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(self.pairs, device=t.device) * -(math.log(10_000) / (self.pairs - 1)))
        angles = t[:, None].float() * rates[None]
        return torch.cat([angles.sin(), angles.cos()], 1)


class Block(nn.Module):
    """Convolution, group norm, Mish."""

    def __init__(self, cin: int, cout: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv1d(cin, cout, kernel, padding=kernel // 2), nn.GroupNorm(groups, cout), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class Residual(nn.Module):
    """Two blocks with FiLM (Perez et al. 2018) between them, plus the input."""

    def __init__(self, cin: int, cout: int, told: int, kernel: int, groups: int, film: bool) -> None:
        super().__init__()
        self.film = film
        self.conv1 = Block(cin, cout, kernel, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(told, 2 * cout if film else cout))
        self.conv2 = Block(cout, cout, kernel, groups)
        self.residual_conv = nn.Conv1d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (B,cin,L), told (B,told) -> (B,cout,L)."""
        h, said = self.conv1(x), self.cond_encoder(told)[..., None]
        if self.film:
            scale, shift = said.chunk(2, 1)
            h = scale * h + shift
        else:
            h = h + said
        out: Tensor = self.conv2(h) + self.residual_conv(x)
        return out


class ConditionalUNet1D(nn.Module):
    """lerobot's U-Net on x_t (B, horizon, Da), which is told `cond["observation"]` (B, n_obs, D).

    Where the condition has cameras, the pictures of its rows go through eyes, once in a sampling run.

    A window that is not given is zeros: the net was never told of a null. Trained from the start with
    condition_dropout above 0, it knows zeros as one.

    Args:
        shape: of a chunk, (horizon, Da); the horizon divides by 2^(levels - 1).
        conditions: "observation" alone.
        down_dims: channels of each level.
        kernel_size, n_groups: of the convolutions and of their norms; the last norm has 8 groups in any case.
        diffusion_step_embed_dim: size of the embedding of the time, even.
        use_film_scale_modulation: whether the observations scale channels, too, not only move them.
        parts: [name, size] of lerobot's features in the order in which the observation holds them; the net is told the state
            first, then what the eyes say. Default: all of it is "observation.state".
        vision: the options of the eyes, see `zoo.interop.lerobot.vision.vision_options`; for pictures alone.

    Raises:
        ConfigError: numbers that do not fit together, or other conditions. ShapeError: a horizon that it cannot halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conditions: Mapping[str, Any] | None = None,
        *,
        down_dims: Sequence[int] = (512, 1024, 2048),
        kernel_size: int = 5,
        n_groups: int = 8,
        diffusion_step_embed_dim: int = 128,
        use_film_scale_modulation: bool = True,
        parts: Sequence[Sequence[Any]] = (),
        vision: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        horizon, size = shape
        seen = tuple(getattr((conditions or {}).get("observation"), "shape", ()))
        if len(seen) != 2 or len(conditions or {}) != 1:
            raise ConfigError(
                "lerobot-unet1d: the net is told windows of observations and nothing else: its recipe needs the condition "
                '"observation" alone, of the shape (n_obs, numbers).'
            )
        dims = list(down_dims)
        numbers = (kernel_size, n_groups, diffusion_step_embed_dim, *dims)
        if not dims or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers):
            raise ConfigError(
                f"lerobot-unet1d: down_dims={brief(dims)}, kernel_size={kernel_size}, n_groups={n_groups}, "
                f"diffusion_step_embed_dim={diffusion_step_embed_dim}: give positive whole numbers."
            )
        if any(d % n_groups for d in dims) or dims[0] % LAST_GROUPS or not kernel_size % 2 or diffusion_step_embed_dim % 2:
            raise ConfigError(
                f"lerobot-unet1d: down_dims={brief(dims)}, kernel_size={kernel_size}, n_groups={n_groups}, "
                f"diffusion_step_embed_dim={diffusion_step_embed_dim}: give widths that divide by n_groups, the first of them "
                f"also by {LAST_GROUPS}, an odd kernel and an even embedding."
            )
        if diffusion_step_embed_dim < 4:
            raise ConfigError(f"lerobot-unet1d: diffusion_step_embed_dim={diffusion_step_embed_dim}; give 4 or more.")
        if horizon % 2 ** (len(dims) - 1):
            raise ShapeError(
                f"lerobot-unet1d: a horizon of {horizon} steps; give one that divides by {2 ** (len(dims) - 1)}, as "
                f"{len(dims)} levels halve it."
            )
        self.told = (seen[0], seen[1])
        self.pictures = _sizes((conditions or {}).get("observation"), vision)
        self.numbers = seen[1] - sum(3 * height * width for height, width in self.pictures)
        places = _places(parts, self.numbers)
        self.state, self.environment = places[STATE], places.get(ENVIRONMENT, slice(0))
        features = self.numbers
        if vision is not None:
            options = vision_options(vision)
            eyes = [Eye(size, options) for size in (self.pictures if options[SEPARATE] else self.pictures[:1])]
            self.rgb_encoder = nn.ModuleList(eyes) if options[SEPARATE] else eyes[0]
            features += eyes[0].features * len(self.pictures)
        embed = diffusion_step_embed_dim
        told = embed + seen[0] * features
        self.diffusion_step_encoder = nn.Sequential(
            Sinusoid(embed), nn.Linear(embed, 4 * embed), nn.Mish(), nn.Linear(4 * embed, embed)
        )

        def res(cin: int, cout: int) -> nn.Module:
            return Residual(cin, cout, told, kernel_size, n_groups, bool(use_film_scale_modulation))

        pairs = list(zip([size, *dims[:-1]], dims, strict=True))
        down: list[nn.Module] = []
        for i, (cin, cout) in enumerate(pairs):
            smaller = nn.Conv1d(cout, cout, 3, 2, 1) if i < len(pairs) - 1 else nn.Identity()
            down.append(nn.ModuleList([res(cin, cout), res(cout, cout), smaller]))
        self.down_modules = nn.ModuleList(down)
        self.mid_modules = nn.ModuleList([res(dims[-1], dims[-1]), res(dims[-1], dims[-1])])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([res(2 * cout, cin), res(cin, cin), nn.ConvTranspose1d(cin, cin, 4, 2, 1)])
            for cin, cout in reversed(pairs[1:])
        )
        self.final_conv = nn.Sequential(Block(dims[0], dims[0], kernel_size, LAST_GROUPS), nn.Conv1d(dims[0], size, 1))

    def forward(self, x_t: Tensor, t: Tensor, cond: dict[str, Tensor], *, mask: Tensor | None = None) -> Tensor:
        """x_t (B, horizon, Da), t (B,) the number of the step -> the prediction (B, horizon, Da)."""
        given = cond.get("observation"), x_t.shape[0], x_t.dtype, x_t.device
        seen = once(self, functools.partial(self.seen, *given), *given)
        time = self.diffusion_step_encoder[0](t).to(x_t.dtype)
        told = torch.cat([self.diffusion_step_encoder[1:](time), seen.flatten(1)], 1)
        x, kept = x_t.transpose(1, 2), []
        for level in self.down_modules:
            first, second, smaller = cast(nn.ModuleList, level)
            x = second(first(x, told), told)
            kept.append(x)
            x = smaller(x)
        for block in self.mid_modules:
            x = block(x, told)
        for level in self.up_modules:
            first, second, larger = cast(nn.ModuleList, level)
            x = larger(second(first(torch.cat([x, kept.pop()], 1), told), told))
        out: Tensor = self.final_conv(x).transpose(1, 2)
        return out

    def seen(self, rows: Tensor | None, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What is told of rows (B, n_obs, D), or of none for n samples: the state, what eyes say, the environment."""
        if rows is None:
            rows = torch.zeros(n, *self.told, device=device)
        rows = torch.where(rows.isnan(), 0.0, rows).to(dtype)
        return torch.cat([rows[..., self.state], *self._look(rows), rows[..., self.environment]], -1)

    def _look(self, rows: Tensor) -> list[Tensor]:
        """What the eyes say (B, n_obs, features) of each camera's pictures, which lie flat at the end of rows."""
        if not self.pictures:
            return []
        shape = len(self.pictures), 3, *self.pictures[0]
        found = rows[..., self.numbers :].unflatten(-1, shape)
        eyes = list(self.rgb_encoder) if isinstance(self.rgb_encoder, nn.ModuleList) else [self.rgb_encoder] * shape[0]
        return [eye(found[:, :, i].flatten(0, 1)).unflatten(0, rows.shape[:2]) for i, eye in enumerate(eyes)]


def _sizes(observation: Any, vision: Mapping[str, Any] | None) -> list[tuple[int, int]]:
    """(height, width) of the pictures of each camera that a condition has; [] for numbers alone.

    Raises:
        ConfigError: pictures without options of eyes or the other way round, or of several sizes.
    """
    cameras = observation.cameras if isinstance(observation, Views) else ()
    if bool(cameras) != (vision is not None):
        wrong = "sees pictures, and has no options for them: give vision" if cameras else "has vision, and sees no pictures"
        raise ConfigError(f"lerobot-unet1d: the net {wrong}.")
    sizes = [(height, width) for _, height, width in cameras]
    if len(set(sizes)) > 1:
        found = ", ".join(f"{name} {(height, width)}" for name, height, width in cameras)
        raise ConfigError(f"lerobot-unet1d: the pictures are {found}; those of all cameras must have the same size.")
    return sizes


def sizes_of(parts: Sequence[Sequence[Any]], count: int) -> list[tuple[str, int]]:
    """lerobot's features of an observation of `count` numbers, in the observation's order.

    Raises:
        ConfigError: other names than lerobot's, one of them twice, no state, or sizes of another sum.
    """
    found = [(str(part[0]), part[1]) for part in parts if len(part) == 2] if parts else [(STATE, count)]
    names = [name for name, _ in found]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for _, n in found)
    fits = whole and len(found) == (len(parts) or 1) and sum(n for _, n in found) == count
    if not fits or STATE not in names or len(set(names)) < len(names) or set(names) - {STATE, ENVIRONMENT}:
        raise ConfigError(
            f"lerobot-unet1d: parts={brief([list(p) for p in parts])}; give [name, size] of {STATE} and, where there is one, "
            f"{ENVIRONMENT}, {count} numbers together."
        )
    return found


def _places(parts: Sequence[Sequence[Any]], count: int) -> dict[str, slice]:
    """{feature: where it lies} in an observation of `count` numbers."""
    found, first = {}, 0
    for name, size in sizes_of(parts, count):
        found[name] = slice(first, first + size)
        first += size
    return found
