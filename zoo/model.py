"""Model: binds recipe, diffusion, denoiser and codec. What `zoo.load` returns."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from zoo import store
from zoo.core import rng as seeds
from zoo.core.diffusion import Diffusion
from zoo.core.guidance import constrain, null_like, predictor
from zoo.core.samplers import Step, get_sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Schedule
from zoo.domain import Batch, Codec, Domain, Samples
from zoo.errors import CheckpointError, ConfigError, NumericsError, ResourceError, ShapeError
from zoo.plan import Plan, make_plan
from zoo.recipe import Recipe

if TYPE_CHECKING:
    from os import PathLike

SCHEDULES: dict[str, type[Schedule]] = {"discrete": DiscreteSchedule, "edm": EDMSchedule, "flow": FlowSchedule}


def make_diffusion(recipe: Recipe) -> Diffusion:
    """The diffusion that a recipe describes."""
    options = recipe.schedule.model_dump()
    schedule = SCHEDULES[options.pop("kind")](**options)
    return Diffusion(schedule, **recipe.diffusion.model_dump())


class Model(nn.Module):
    """A diffusion model of any domain.

    Attributes:
        recipe: the validated description.
        diffusion: schedule, prediction and weighting.
        denoiser: the net.
        codec: between encoded samples and domain objects.
    """

    def __init__(self, recipe: Recipe, domain: Domain) -> None:
        super().__init__()
        self.recipe, self.domain = recipe, domain
        self.folder: Path | None = None
        self.diffusion = make_diffusion(recipe)
        self.codec: Codec = domain.codec(recipe.codec)
        self.denoiser = domain.denoiser(recipe, self.codec.shape)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of sampling."""
        return next(self.parameters()).dtype

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.denoiser.parameters()) / 1e6
        return f"Model({self.recipe.domain}/{self.recipe.name}, {self.recipe.denoiser}, {millions:.2f} M parameters)"

    # ---------------------------------------------------------------- sampling

    def sample(
        self,
        n: int = 1,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_weight: float | Mapping[str, float] | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **conditions: Any,
    ) -> Samples:
        """Generate n samples.

        Args:
            n: how many; they are made in chunks of `batch_size`, so memory does not grow with n.
            sampler, steps: "ddpm", "ddim", "dpmpp", "heun" and the number of steps; default: the recipe's.
            guidance_weight: w of Ho & Salimans 2022, Eq. 6; 0 is plain conditional. {condition: w} guides single
                conditions, each with its own weight.
            guidance_scale: the same as 1 + w. Give one of the two.
            seed: sample i of a seed is the same whatever n, batch size or device. None draws a fresh seed.
            progress: show a bar; default: only where sampling takes more than about two seconds.
            on_step: called with every `Step`.
            **conditions: the model's own, such as label="sneaker" (one for all, or a list of n), and the sampler's
                options: spacing, eta, variance, s_churn, guidance_interval, guidance_rescale, clip.

        Raises:
            ConfigError: any argument that cannot be.
            NumericsError: the net gave values that are not finite.
            ResourceError: a chunk does not fit into memory.
        """
        given = {
            "sampler": sampler,
            "steps": steps,
            "guidance_weight": guidance_weight,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "batch_size": batch_size,
            **conditions,
        }
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, given)
        return self._collect(plan, progress=progress, on_step=on_step)

    def sample_iter(
        self, n: int = 1, *, known: Tensor | None = None, where: Tensor | None = None, **arguments: Any
    ) -> Iterator[Step]:
        """The steps of one chunk of n samples in encoded units: each `Step` has level, x and x0 (n,*S).

        Args:
            known, where: encoded values and the bool mask of what is held fixed, broadcast to (n,*S) (in-painting).
            **arguments: as for `sample`.
        """
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, arguments)
        return self._run(plan, range(n), known=known, where=where)

    def inpaint(
        self,
        known: Any,
        where: Any,
        n: int = 1,
        *,
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Samples that agree with a known object: it is kept exactly where `where` is True.

        Args:
            known: a domain object that the codec encodes, or an encoded tensor (*S).
            where: bool, broadcast to the encoded shape (*S).
            n, **arguments: as for `sample`.
        """
        where = torch.as_tensor(where)
        try:
            torch.broadcast_shapes(where.shape, self.codec.shape)
        except RuntimeError:
            raise ShapeError(f"where {tuple(where.shape)} does not broadcast to {self.codec.shape}.") from None
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, arguments)
        x0 = self._encoded(known)
        return self._collect(plan, progress=progress, on_step=on_step, known=x0, where=where.to(self.device))

    def vary(
        self,
        item: Any,
        strength: float = 0.5,
        n: int = 1,
        *,
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Variations of an object: noise is added to it, then taken away again (SDEdit, Meng et al. 2021, Algorithm 1).

        Args:
            item: a domain object that the codec encodes, or an encoded tensor (*S).
            strength: share of the sampling steps that are run, above 0 (close to the object) up to 1 (all new).
            n, **arguments: as for `sample`.
        """
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, arguments).after(strength)
        return self._collect(plan, progress=progress, on_step=on_step, start=self._encoded(item))

    def _encoded(self, item: Any) -> Tensor:
        """A domain object, or an encoded tensor (*S), as an encoded tensor on this device."""
        x0 = item if isinstance(item, Tensor) and tuple(item.shape) == self.codec.shape else self.codec.encode(item)
        return x0.to(self.device, self.dtype)

    def _collect(
        self, plan: Plan, *, progress: bool | None, on_step: Callable[[Step], None] | None, **parts: Tensor
    ) -> Samples:
        """Run a plan chunk by chunk and decode; `parts` go to `_run`."""
        chunks, items = [], []
        total = -(-plan.n // plan.batch_size) * (len(plan.levels) - 1)
        with tqdm(
            total=total, desc="sampling", unit="step", disable=progress is False, leave=False, delay=0 if progress else 2
        ) as bar:
            for begin in range(0, plan.n, plan.batch_size):
                rows = range(begin, min(begin + plan.batch_size, plan.n))
                step = None
                for step in self._run(plan, rows, **parts):
                    bar.update()
                    if on_step is not None:
                        on_step(step)
                if step is None:
                    raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
                if not torch.isfinite(step.x).all():
                    raise NumericsError(f"{self!r}: a sample is not finite; the weights or the settings are broken.")
                decoded = self.codec.decode(step.x, {k: v[rows.start : rows.stop] for k, v in plan.cond.items()})
                items += decoded
                chunks.append(torch.stack([torch.as_tensor(item.numpy()) for item in decoded]))
        return Samples(items, torch.cat(chunks), domain=self.domain, conditions=plan.names)

    def _run(
        self,
        plan: Plan,
        rows: range,
        *,
        known: Tensor | None = None,
        where: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Iterator[Step]:
        """The steps of samples `rows` of a plan; they start from pure noise, or from `start` (*S) noised to the first level."""
        cond = {k: v[rows.start : rows.stop].to(self.device) for k, v in plan.cond.items()}
        source, first = seeds.SampleRng(plan.seed, rows), plan.levels[0]
        x = torch.zeros(len(rows), *self.codec.shape, device=self.device, dtype=self.dtype)
        eps = self.codec.project(source.normal(x))
        x = eps * self.diffusion.schedule.prior_std(first) if start is None else first.alpha * start + first.sigma * eps
        predict = predictor(
            self.diffusion, self.denoiser, cond, guidance=plan.guidance, clip=plan.clip, project=self.codec.project
        )
        if known is not None and where is not None:
            predict = constrain(predict, known, where)
        steps = get_sampler(plan.sampler)(predict, x, plan.levels, rng=source, **plan.options)
        try:
            while True:
                with torch.inference_mode():
                    step = next(steps, None)
                if step is None:
                    return
                yield step
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
                raise
            raise ResourceError(
                f"no memory for a chunk of {len(rows)} samples. Use a smaller batch_size, e.g. {max(1, len(rows) // 4)}."
            ) from error

    # ---------------------------------------------------------------- training and files

    def loss(self, batch: Batch, *, generator: torch.Generator | None = None, denoiser: Any = None) -> Tensor:
        """The training loss of a batch, a scalar. `denoiser` replaces the net, e.g. by its distributed wrapper.

        Conditions are dropped together at the rate `training.condition_dropout`; where there are several, each one also
        alone at `training.single_dropout`, so that every part of them may be left out in sampling.
        """
        options, cond = self.recipe.training, batch.cond
        rate = options.condition_dropout if self.recipe.conditions else 0.0
        if len(cond) > 1:
            alone = torch.rand(len(cond), len(batch.x0), generator=generator) < options.single_dropout
            cond = {
                k: torch.where(row.to(v.device).view(-1, *[1] * (v.ndim - 1)), null_like(v), v)
                for (k, v), row in zip(cond.items(), alone, strict=True)
            }
        return self.diffusion.loss(
            denoiser or self.denoiser,
            batch.x0,
            cond,
            generator=generator,
            drop_rate=rate,
            mask=batch.mask,
            project=self.codec.project,
        )

    def _golden_inputs(self) -> dict[str, Tensor]:
        """Inputs of the golden: two rows of noise, the second without its condition."""
        g = seeds.generator(0)
        x = torch.randn(2, *self.codec.shape, generator=g)
        t = self.diffusion.schedule.draw(2, g).t.float()
        cond = {f"cond.{k}": torch.arange(2) % len(c.values) for k, c in self.recipe.labels.items()}
        cond |= {f"cond.{k}": torch.randn(2, *c.shape, generator=g) for k, c in self.recipe.arrays.items()}
        return {"x_t": x, "t": t, "drop": torch.tensor([False, True]), **cond}

    @torch.no_grad()
    def _golden_output(self, inputs: Mapping[str, Tensor]) -> Tensor:
        moved = {k: v.to(self.device, self.dtype) if v.is_floating_point() else v.to(self.device) for k, v in inputs.items()}
        cond = {k[5:]: v for k, v in moved.items() if k.startswith("cond.")}
        return self.denoiser(moved["x_t"], moved["t"], cond, drop=moved["drop"]).float().cpu()

    def verify(self, folder: str | PathLike[str] | None = None) -> float:
        """Recompute the stored output of the net; returns the largest difference, relative to the output's own size.

        Raises:
            CheckpointError: the difference is above 1e-3 (0.05 in half precision), or there is no golden file.
        """
        folder = folder or self.folder
        if folder is None:
            raise CheckpointError("this model was not loaded from a folder: there is no golden file to verify against.")
        golden = store.load_tensors(Path(folder) / store.GOLDEN)
        missing = {"x_t", "t", "drop", "out", *(f"cond.{k}" for k in self.recipe.conditions)} - golden.keys()
        if missing:
            raise CheckpointError(f"{Path(folder) / store.GOLDEN} lacks {', '.join(sorted(missing))}.")
        expected = golden.pop("out")
        error = float((self._golden_output(golden) - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        limit = 1e-3 if self.dtype in (torch.float32, torch.float64) else 0.05
        if not error <= limit:
            raise CheckpointError(f"{folder}: the net differs from its golden output by {error:.1e} (allowed {limit:g}).")
        return error

    def save_pretrained(self, folder: str | PathLike[str], *, half: bool = False, card: str | None = None) -> Path:
        """Write the model folder. The old files stay until the new ones are whole.

        Args:
            half: store the denoiser's weights as float16: half the size, and this model is rounded the same way.
            card: text of README.md; the default is made from the recipe.
        """
        from zoo.card import model_card

        folder = Path(folder)
        if half:
            for p in self.denoiser.parameters():
                p.data = p.data.half().to(p.dtype)
        weights = {
            f"denoiser.{k}": v.half() if half and v.is_floating_point() else v for k, v in self.denoiser.state_dict().items()
        }
        weights |= {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        inputs = self._golden_inputs()
        config = {
            "format_version": store.FORMAT_VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
        }
        with store.new_folder(folder) as new:
            store.save_tensors(new / store.WEIGHTS, weights)
            store.save_tensors(new / store.GOLDEN, {**inputs, "out": self._golden_output(inputs)})
            store.write_atomic(new / store.CARD, (card or model_card(self.recipe)).encode())
            store.write_atomic(new / store.CONFIG, store.dump_json(config))
        return folder

    @classmethod
    def from_folder(cls, folder: str | PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None) -> Model:
        """Read a model folder strictly: a missing or extra key, a wrong shape, a newer format are errors."""
        from zoo.registry import get_domain

        folder = Path(folder)
        recipe = Recipe.parse(store.read_config(folder)["recipe"])
        model = cls(recipe, get_domain(recipe.domain))
        tensors = store.load_tensors(folder / store.WEIGHTS)
        for prefix, part in (("denoiser.", model.denoiser), ("codec.", model.codec)):
            own = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
            store.load_strict(part, own, folder / store.WEIGHTS)
        if tensors:
            raise CheckpointError(f"{folder / store.WEIGHTS} has foreign keys: {', '.join(sorted(tensors)[:5])}.")
        model.folder = folder
        return model.to(device=device, dtype=dtype)
