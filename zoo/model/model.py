"""Model: binds recipe, diffusion, denoiser and codec. What `zoo.load` returns."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.domain import Batch, Codec, Domain, Samples
from zoo.contract.recipe import Recipe
from zoo.core import seeds
from zoo.core.diffusion import Diffusion
from zoo.core.guidance import Known, null_like, predictor
from zoo.core.samplers import Step, get_sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Schedule
from zoo.errors import CheckpointError, ConfigError, NumericsError, ShapeError, memory_for
from zoo.model.golden import difference, golden_inputs, golden_output
from zoo.model.plan import Plan, make_plan

if TYPE_CHECKING:
    from os import PathLike

    from zoo.hub.push import Pushed

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
            sampler, steps: "ddpm", "ddim", "dpmpp", "heun", "euler" and the number of steps; default: the recipe's.
            guidance_weight: w of Ho & Salimans 2022, Eq. 6; 0 is plain conditional. {condition: w} guides single
                conditions, each with its own weight.
            guidance_scale: the same as 1 + w. Give one of the two.
            seed: sample i of a seed is the same whatever n, batch size or device. None draws a fresh seed.
            progress: show a bar; default: only where sampling takes more than about two seconds.
            on_step: called with every `Step`.
            **conditions: the model's own, such as label="sneaker" (one for all, or a list of n), and the sampler's
                options: spacing, eta, variance, s_churn, step_scale, guess_below, guidance_interval, guidance_rescale, clip.

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
        self, n: int = 1, *, known: Known | None = None, where: Tensor | None = None, **arguments: Any
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
        where, x0 = torch.as_tensor(where), self._encoded(known)
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, self._sized(x0) | arguments)
        try:
            fits = torch.broadcast_shapes(where.shape, x0.shape) == x0.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ShapeError(f"where {tuple(where.shape)} does not broadcast to {tuple(x0.shape)}.")
        self._check_size(plan, x0)
        where = where.to(self.device)
        return self._collect(plan, progress=progress, on_step=on_step, known=self.codec.held(x0, where), where=where)

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
        x0 = self._encoded(item)
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, self._sized(x0) | arguments).after(strength)
        self._check_size(plan, x0)
        return self._collect(plan, progress=progress, on_step=on_step, start=x0)

    def _encoded(self, item: Any) -> Tensor:
        """A domain object, or an encoded tensor (*S), as an encoded tensor on this device."""
        free = 0 if self.codec.size_name is None else 1
        known = isinstance(item, Tensor) and item.ndim == len(self.codec.shape) and item.shape[free:] == self.codec.shape[free:]
        x0: Tensor = item if known else self.codec.encode(item)
        return x0.to(self.device, self.dtype)

    def _sized(self, x0: Tensor) -> dict[str, Any]:
        """The argument that asks for samples of the size of an object, where there is one."""
        return {} if self.codec.size_name is None else {self.codec.size_name: len(x0)}

    def _check_size(self, plan: Plan, x0: Tensor) -> None:
        """Refuse samples of another size than the object that they start from."""
        if plan.sizes is not None and set(plan.sizes) != {len(x0)}:
            name, found = self.codec.size_name, sorted(set(plan.sizes))
            raise ShapeError(f"the object has {len(x0)} elements, the samples {found}: give {name}={len(x0)}.")

    def _collect(self, plan: Plan, *, progress: bool | None, on_step: Callable[[Step], None] | None, **parts: Any) -> Samples:
        """Run a plan chunk by chunk and decode; `parts` go to `_run`."""
        items: list[Any] = []
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
                with memory_for(len(rows)):
                    items += self._decode(step.x, plan, rows)
        return Samples.of(items, domain=self.domain, conditions=plan.names)

    def _decode(self, x: Tensor, plan: Plan, rows: range) -> list[Any]:
        """Samples `rows` of a plan from their encoded values (B,*S), padding taken off."""
        cond = {k: v[rows.start : rows.stop] for k, v in plan.cond.items()}
        if plan.sizes is None:
            return self.codec.decode(x, cond)
        sizes = plan.sizes[rows.start : rows.stop]
        return [
            self.codec.decode(x[i : i + 1, :size], {k: v[i : i + 1] for k, v in cond.items()})[0]
            for i, size in enumerate(sizes)
        ]

    def _run(
        self,
        plan: Plan,
        rows: range,
        *,
        known: Known | None = None,
        where: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Iterator[Step]:
        """The steps of samples `rows` of a plan."""
        cond = {k: v[rows.start : rows.stop] for k, v in plan.cond.items()}
        sizes = None if plan.sizes is None else plan.sizes[rows.start : rows.stop]
        with memory_for(len(rows)):
            source = seeds.SampleRng(plan.seed, rows, sizes)
        return self.run(plan, cond, source, known=known, where=where, start=start)

    def run(
        self,
        plan: Plan,
        cond: Mapping[str, Tensor],
        source: seeds.SampleRng,
        *,
        known: Known | None = None,
        where: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Iterator[Step]:
        """The sampling steps of one chunk, in encoded units: what `sample`, `inpaint` and `vary` are made of.

        Args:
            plan: sampler, levels, guidance and options; its own n, conditions and sizes are not looked at.
            cond: {name: (B,...)} what the net is told.
            source: one generator, and where samples have sizes of their own the size, for each of the B samples.
            known, where: as for `sample_iter`.
            start: encoded (*S) or (B,*S) that is noised to the plan's first level; None starts from pure noise.

        Raises:
            ResourceError: the chunk does not fit into memory.
        """
        rows, first, shape, mask = len(source.generators), plan.levels[0], self.codec.shape, None
        if source.sizes is not None:
            shape = (max(source.sizes), *shape[1:])
            mask = torch.arange(shape[0], device=self.device) < torch.tensor(source.sizes, device=self.device)[:, None]
        with memory_for(rows):
            cond = {k: v.to(self.device) for k, v in cond.items()}
            x = torch.zeros(rows, *shape, device=self.device, dtype=self.dtype)
            project = self.codec.project if mask is None else functools.partial(self.codec.project, mask=mask)
            eps = project(source.normal(x))
            x = eps * self.diffusion.schedule.prior_std(first) if start is None else first.alpha * start + first.sigma * eps
            how: dict[str, Any] = {"guidance": plan.guidance, "clip": plan.clip, "guess_below": plan.guess_below}
            how |= {"known": known, "where": where}
            predict = predictor(self.diffusion, self.denoiser, cond, mask=mask, project=self.codec.project, **how)
            steps = get_sampler(plan.sampler)(predict, x, plan.levels, rng=source, **plan.options)
            while True:
                with torch.inference_mode():
                    step = next(steps, None)
                if step is None:
                    return
                yield step

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
            auxiliary=self.codec.auxiliary,
            hint=self.codec.hint,
        )

    def verify(self, folder: str | PathLike[str] | None = None) -> float:
        """Recompute the stored output of the net; returns the largest difference, relative to the output's own size.

        Raises:
            CheckpointError: the difference is above 1e-3 (0.05 in half precision), or there is no golden file.
        """
        folder = folder or self.folder
        if folder is None:
            raise CheckpointError("this model was not loaded from a folder: there is no golden file to verify against.")
        return difference(self, folder)

    def save_pretrained(self, folder: str | PathLike[str], *, half: bool = False, card: str | None = None) -> Path:
        """Write the model folder. The old files stay until the new ones are whole.

        Args:
            half: store the denoiser's weights as float16: half the size, and this model is rounded the same way.
            card: text of README.md; the default is made from the recipe, below a text that was edited by hand only its
                metadata.
        """
        from zoo.hub.card import model_card, renew

        folder = Path(folder)
        old = folder / files.CARD
        if card is None:  # a text that somebody wrote stays
            card = renew(old.read_bytes().decode() if old.is_file() else "", model_card(self.recipe))
        if half:
            for p in self.denoiser.parameters():
                p.data = p.data.half().to(p.dtype)
        weights = {
            f"denoiser.{k}": v.half() if half and v.is_floating_point() else v for k, v in self.denoiser.state_dict().items()
        }
        weights |= {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        inputs = golden_inputs(self)
        config = {
            "format_version": files.FORMAT_VERSION,
            "recipe": self.recipe.model_dump(mode="json"),
            "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
        }
        with files.new_folder(folder) as new:
            files.save_tensors(new / files.WEIGHTS, weights)
            files.save_tensors(new / files.GOLDEN, {**inputs, "out": golden_output(self, inputs)})
            files.write_atomic(new / files.CARD, card.encode())
            files.write_atomic(new / files.CONFIG, files.dump_json(config))
        return folder

    def push_to_hub(
        self,
        repo: str,
        private: bool = False,
        token: str | bool | None = None,
        *,
        tag: str | None = None,
        samples: bool = True,
    ) -> Pushed:
        """Push to the Hub repository "owner/name" in one commit, with card and sample pictures; see `zoo.hub.push.push`."""
        from zoo.hub.push import push

        return push(self, repo, private=private, token=token, tag=tag, samples=samples)

    @classmethod
    def from_folder(cls, folder: str | PathLike[str], *, device: Any = None, dtype: torch.dtype | None = None) -> Model:
        """Read a model folder strictly: a missing or extra key, a wrong shape, a newer format are errors."""
        from zoo.contract.registry import get_domain

        folder = Path(folder)
        recipe = Recipe.parse(files.read_config(folder)["recipe"])
        model = get_domain(recipe.domain).model(recipe)
        tensors = files.load_tensors(folder / files.WEIGHTS)
        for prefix, part in (("denoiser.", model.denoiser), ("codec.", model.codec)):
            own = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
            files.load_strict(part, own, folder / files.WEIGHTS)
        if tensors:
            raise CheckpointError(f"{folder / files.WEIGHTS} has foreign keys: {', '.join(sorted(tensors)[:5])}.")
        model.folder = folder
        return model.to(device=device, dtype=dtype)
