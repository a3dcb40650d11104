"""Model: binds recipe, diffusion, denoiser and codec. What `zoo.load` returns."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from zoo import store
from zoo.core import rng as seeds
from zoo.core.diffusion import Diffusion
from zoo.core.guidance import Guidance, constrain, predictor
from zoo.core.samplers import Step, churn, get_sampler
from zoo.core.schedule import DiscreteSchedule, EDMSchedule, FlowSchedule, Level, Schedule
from zoo.domain import Batch, Codec, Domain, Samples
from zoo.errors import CheckpointError, ConfigError, NumericsError, ResourceError, ShapeError, one_of
from zoo.recipe import Recipe

if TYPE_CHECKING:
    from os import PathLike

    from zoo.publish import Pushed

SCHEDULES: dict[str, type[Schedule]] = {"discrete": DiscreteSchedule, "edm": EDMSchedule, "flow": FlowSchedule}


def make_diffusion(recipe: Recipe) -> Diffusion:
    """The diffusion that a recipe describes."""
    options = recipe.schedule.model_dump()
    schedule = SCHEDULES[options.pop("kind")](**options)
    return Diffusion(schedule, **recipe.diffusion.model_dump())


@dataclass(frozen=True)
class Plan:
    """One call of `sample`, every argument checked and every default filled in."""

    n: int
    seed: int
    batch_size: int
    sampler: str
    levels: list[Level]
    guidance: Guidance
    clip: float | None
    options: dict[str, Any]
    cond: dict[str, Tensor]
    names: dict[str, list[Any]]


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
        classes = {name: len(c.values) for name, c in recipe.conditions.items()}
        self.denoiser = domain.denoiser(recipe.denoiser, self.codec.shape, classes, recipe.net)
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
        guidance_weight: float | None = None,
        guidance_scale: float | None = None,
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
            guidance_weight: w of Ho & Salimans 2022, Eq. 6; 0 is plain conditional.
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
        plan = self._plan(n, sampler, steps, guidance_weight, guidance_scale, seed, batch_size, conditions)
        chunks, items = [], []
        total = -(-plan.n // plan.batch_size) * (len(plan.levels) - 1)
        with tqdm(
            total=total, desc="sampling", unit="step", disable=progress is False, leave=False, delay=0 if progress else 2
        ) as bar:
            for start in range(0, plan.n, plan.batch_size):
                rows = range(start, min(start + plan.batch_size, plan.n))
                step = None
                for step in self._run(plan, rows):
                    bar.update()
                    if on_step is not None:
                        on_step(step)
                if step is None:
                    raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
                if not torch.isfinite(step.x).all():
                    raise NumericsError(f"{self!r}: a sample is not finite; the weights or the settings are broken.")
                decoded = self.codec.decode(step.x, {k: v[rows.start : rows.stop] for k, v in plan.cond.items()})
                items += decoded
                chunks.append(self._stack(decoded))
        return Samples(items, torch.cat(chunks), domain=self.domain, conditions=plan.names)

    @staticmethod
    def _stack(items: Sequence[Any]) -> Tensor:
        return torch.stack([torch.as_tensor(item.numpy()) for item in items])

    def sample_iter(
        self, n: int = 1, *, known: Tensor | None = None, where: Tensor | None = None, **arguments: Any
    ) -> Iterator[Step]:
        """The steps of one chunk of n samples in encoded units: each `Step` has level, x and x0 (n,*S).

        Args:
            known, where: encoded values and the bool mask of what is held fixed, broadcast to (n,*S) (in-painting).
            **arguments: as for `sample`.
        """
        sampler, steps, weight, scale, seed = (
            arguments.pop(k, None) for k in ("sampler", "steps", "guidance_weight", "guidance_scale", "seed")
        )
        plan = self._plan(n, sampler, steps, weight, scale, seed, n, arguments)
        return self._run(plan, range(n), known, where)

    def inpaint(self, known: Any, where: Any, n: int = 1, **arguments: Any) -> Samples:
        """Samples that agree with a known object: it is kept exactly where `where` is True.

        Args:
            known: a domain object that the codec encodes, or an encoded tensor (*S).
            where: bool, broadcast to the encoded shape (*S).
            n, **arguments: as for `sample`.
        """
        x0 = known if isinstance(known, Tensor) and tuple(known.shape) == self.codec.shape else self.codec.encode(known)
        where = torch.as_tensor(where)
        try:
            torch.broadcast_shapes(where.shape, self.codec.shape)
        except RuntimeError:
            raise ShapeError(f"where {tuple(where.shape)} does not broadcast to {self.codec.shape}.") from None
        *_, last = self.sample_iter(n, known=x0.to(self.device, self.dtype), where=where.to(self.device), **arguments)
        items = self.codec.decode(last.x, {})
        return Samples(items, self._stack(items), domain=self.domain)

    def _plan(
        self,
        n: int,
        sampler: str | None,
        steps: int | None,
        weight: float | None,
        scale: float | None,
        seed: int | None,
        batch_size: int | None,
        extra: Mapping[str, Any],
    ) -> Plan:
        default, extra = self.recipe.sampling, dict(extra)
        for what, value in (("n", n), ("batch_size", 1 if batch_size is None else batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{what}={value!r}: give a whole number of at least 1.")
        name = sampler or default.sampler
        chosen = get_sampler(name)
        guided = [k for k, v in (("guidance_weight", weight), ("guidance_scale", scale)) if v is not None]
        if guided and not self.recipe.conditions:
            raise ConfigError(f"{' and '.join(guided)}: this model is unconditional, there is nothing to guide. Leave it out.")
        names = {k: self._labels(k, extra.pop(k, None), n) for k in self.recipe.conditions}
        guidance = Guidance(
            Guidance.from_public(weight, scale, default.guidance_weight),
            tuple(extra.pop("guidance_interval", None) or default.guidance_interval or (0.0, float("inf"))),
            extra.pop("guidance_rescale", default.guidance_rescale),
        )
        levels = self.diffusion.schedule.levels(
            default.steps if steps is None else steps, extra.pop("spacing", default.spacing)
        )
        clip = extra.pop("clip", default.clip)
        if clip is not None and not clip > 0:
            raise ConfigError(f"clip={clip!r}: give a positive bound of x0, or None for no clipping.")
        options = dict(default.options) if name == default.sampler else {}
        s_churn = extra.pop("s_churn", options.pop("s_churn", 0.0)) if name == "heun" else 0.0
        for key in extra:
            if key not in chosen.options:
                known = ["spacing", "guidance_interval", "guidance_rescale", "clip", *chosen.options, *self.recipe.conditions]
                raise one_of(f"argument or condition of {self.recipe.domain}/{self.recipe.name}", key, sorted(known))
        options |= extra
        if s_churn:
            options["churned"] = churn(self.diffusion.schedule, levels, s_churn)
        cond = {
            k: torch.tensor([-1 if v is None else self.recipe.conditions[k].index(k, v) for v in values])
            for k, values in names.items()
        }
        if all((c < 0).all() for c in cond.values()):
            guidance = Guidance(0.0)  # nothing is asked for: the null rows would be guided away from themselves
        return Plan(n, seeds.check_seed(seed), batch_size or min(n, 64), name, levels, guidance, clip, options, cond, names)

    def _labels(self, name: str, value: Any, n: int) -> list[Any]:
        """A condition as n label names: one for all, a list of n, or None for a free choice of the model."""
        values = list(value) if isinstance(value, (list, tuple)) else [value] * n
        if len(values) != n:
            raise ConfigError(f"{name}: {len(values)} values for n={n} samples; give one, or a list of {n}.")
        spec = self.recipe.conditions[name]
        return [None if v is None else spec.values[spec.index(name, v)] for v in values]

    def _run(self, plan: Plan, rows: range, known: Tensor | None = None, where: Tensor | None = None) -> Iterator[Step]:
        cond = {k: v[rows.start : rows.stop].to(self.device) for k, v in plan.cond.items()}
        source = seeds.SampleRng(plan.seed, rows)
        x = torch.zeros(len(rows), *self.codec.shape, device=self.device, dtype=self.dtype)
        x = self.codec.project(source.normal(x)) * self.diffusion.schedule.prior_std(plan.levels[0])
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
        """The training loss of a batch, a scalar. `denoiser` replaces the net, e.g. by its distributed wrapper."""
        rate = self.recipe.training.condition_dropout if self.recipe.conditions else 0.0
        return self.diffusion.loss(
            denoiser or self.denoiser,
            batch.x0,
            batch.cond,
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
        cond = {f"cond.{k}": torch.arange(2) % len(c.values) for k, c in self.recipe.conditions.items()}
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
            card: text of README.md; the default is made from the recipe, below a text that was edited by hand only its
                metadata.
        """
        from zoo.card import model_card, renew

        folder = Path(folder)
        old = folder / store.CARD
        if card is None:  # a text that somebody wrote stays
            card = renew(old.read_bytes().decode() if old.is_file() else "", model_card(self.recipe))
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
            store.write_atomic(new / store.CARD, card.encode())
            store.write_atomic(new / store.CONFIG, store.dump_json(config))
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
        """Push to the Hub repository "owner/name" in one commit, with card and sample pictures; see `zoo.publish.push`."""
        from zoo.publish import push

        return push(self, repo, private=private, token=token, tag=tag, samples=samples)

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
