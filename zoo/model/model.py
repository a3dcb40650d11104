"""Model: binds recipe, diffusion, denoiser and codec. What `zoo.load` returns."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from zoo import files
from zoo.contract.codec import Codec
from zoo.contract.conditions import Condition
from zoo.contract.dataset import Batch
from zoo.contract.domain import Domain, Held
from zoo.contract.formats import FORMATS
from zoo.contract.recipe import Recipe, Sampling, Training
from zoo.contract.registry import get_domain
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.core.circle import around
from zoo.core.correction import Correction, Noised, Setting
from zoo.core.device import exact, native_bf16
from zoo.core.diffusion import Diffusion, dtype_of
from zoo.core.guidance import Guidance
from zoo.core.inpaint import OPTIONS, Method, Particles, Select, method_of
from zoo.core.inversion import Inverted, invert_ddim, slerp
from zoo.core.likelihood import (
    ENCODED,
    Draws,
    Likelihood,
    Trace,
    Units,
    drawn_times,
    exact_trace,
    flow_log_density,
    hutchinson,
    reach,
    variational_bound,
)
from zoo.core.predict import Memory, Network, Predict, Steering, assemble
from zoo.core.samplers import LEARNED, Step, get_sampler
from zoo.core.schedule import DiscreteSchedule, make_schedule
from zoo.core.seeds import ParticleRng
from zoo.core.steer import Blend, Hold, Place, Steer, bound, broadcasts, hold
from zoo.errors import CheckpointError, ConfigError, NumericsError, ShapeError, ZooError, memory_for, one_of
from zoo.model import checkpoint, golden, unfinished
from zoo.model.budget import limited
from zoo.model.first_stage import CHUNK, Latent, Staged
from zoo.model.own import OWN, check_diffusion, check_parts, own_domain, own_recipe
from zoo.model.place import DTYPES, device_named, dtype_named, precision_named
from zoo.model.plan import CHUNK as CHUNKED
from zoo.model.plan import TRACED, Chunk, Plan, check_names, make_plan, shard_of
from zoo.nets.once import Once
from zoo.values import known_arguments, several, whole

if TYPE_CHECKING:
    from os import PathLike

    from zoo.hub.push import Pushed

#: how a likelihood is computed, and the trace in its ODE
LIKELIHOODS, TRACES = ("ode", "bound"), ("hutchinson", "exact")
#: the stream of random numbers of a likelihood, never that of a sample's noise
DENSITY = 7


def make_diffusion(recipe: Recipe) -> Diffusion:
    """The diffusion that a recipe describes."""
    options = recipe.schedule.model_dump()
    return Diffusion(make_schedule(options.pop("kind"), options), **recipe.diffusion.model_dump())


def marked(item: Any, steer: Steering | None) -> Any:
    """A sample with what a steer knows of it."""
    return steer.marked(item) if isinstance(steer, Steer) else item


def listed(steer: Sequence[Steering] | Steering) -> list[Steering]:
    """Steers as a list; one alone is as good.

    Raises:
        ConfigError: what is no steer.
    """
    found = [steer] if callable(steer) else several(steer)
    if found is None or not all(callable(s) for s in found):
        odd = steer if found is None else next(s for s in found if not callable(s))
        raise ConfigError(f"steer: {odd!r}; give functions from a prediction to a prediction, see zoo.core.steer.")
    return found


def _fits(item: Any, codec: Codec) -> bool:
    """Whether this is a tensor of a codec's shape, apart from a size of its own."""
    if not isinstance(item, Tensor) or item.ndim != len(codec.shape) or not item.is_floating_point():
        return False
    free = None if codec.size_name is None else codec.size_axis
    return all(a == b or i == free for i, (a, b) in enumerate(zip(item.shape, codec.shape, strict=True)))


def _check_rounded(x: Tensor, units: Units) -> None:
    """Refuse an encoded sample whose numbers are not on the steps of its units."""
    if units.step is None:
        return
    low, high = units.ends
    steps = (x.double() - low) / units.step
    inside = bool((x >= low - 1e-4).all() and (x <= high + 1e-4).all())
    if not inside or bool((steps - steps.round()).abs().max() > 0.01):
        raise ConfigError(
            f"a likelihood in {units.name} is that of rounded numbers, and this encoded sample has others, from "
            f"{float(x.min()):.4g} to {float(x.max()):.4g}. Give the object itself, or units='encoded'."
        )


def _passing(start: list[Any] | None, end: list[Any] | None) -> list[Any]:
    """What the samples between two wishes were asked to be, in words."""
    count = len(start or end or [])
    pairs = zip(start or [None] * count, end or [None] * count, strict=True)
    return [a if a == b else f"{a or 'nothing'} to {b or 'nothing'}" for a, b in pairs]


def _placed(value: Any) -> Any:
    """An argument of `Model.to` without a name, as torch takes it; a tensor or a flag stays as it is."""
    if value is None or isinstance(value, (bool, Tensor)):
        return value
    is_dtype = isinstance(value, torch.dtype) or str(value).removeprefix("torch.") in DTYPES
    return dtype_named(value) if is_dtype else device_named(value)


class Model(nn.Module):
    """A diffusion model of any domain.

    Args:
        recipe: the validated description.
        domain: the plug-in that the recipe belongs to.
        denoiser, codec, diffusion: parts that replace those of the recipe, see `Model.of`.
        stage: the first stage that the recipe of a latent model names, which is copied; `zoo.create` and `zoo.load` find it.
        filled: whether it has its weights; else they are compared with what the recipe says once they are there.

    Attributes:
        recipe, domain: see above.
        diffusion: schedule, prediction and weighting.
        denoiser: the net.
        codec: between encoded samples and domain objects.
        folder: where the model was loaded from; None for a new one.
        progress: "step 120 of 4,812" of a model that is the checkpoint of a training run; else None.
    """

    def __init__(
        self,
        recipe: Recipe,
        domain: Domain,
        *,
        denoiser: nn.Module | None = None,
        codec: Codec | None = None,
        diffusion: Diffusion | None = None,
        stage: Staged | None = None,
        filled: bool = True,
    ) -> None:
        super().__init__()
        self.recipe, self.domain = recipe, domain
        self.folder: Path | None = None
        self.progress: str | None = None
        self.diffusion = make_diffusion(recipe) if diffusion is None else diffusion
        self.codec: Codec = self._codec(stage, filled) if codec is None else codec
        domain.augment(recipe.augment)  # a wrong name or number is told here, not by the first step
        check_names(recipe.conditions, self.codec)
        self.denoiser = domain.denoiser(recipe, self.codec.shape) if denoiser is None else denoiser
        own = {"net": denoiser, "codec": codec, "diffusion": diffusion}
        #: the parts that no recipe describes, which a folder cannot give back
        self.own_parts = {k: v for k, v in own.items() if v is not None} or None
        self.precision = "fp32"
        self.eval()

    def _codec(self, stage: Staged | None, filled: bool) -> Codec:
        """The recipe's codec; a first stage is put around that of objects, and the recipe then says which one it is."""
        found, spec = self.domain.codec(self.recipe.codec), self.recipe.stage
        if spec is None:
            return found
        if stage is None:
            raise ConfigError(
                f"{self.recipe.domain}/{self.recipe.name} works on the latents of a first stage, {spec.name}: build it with "
                "zoo.create(name) or zoo.model.loading.build(recipe), which open that one, or give stage=model."
            )
        found = Latent(found, stage, spec)
        if filled:
            found.seal()
        self.recipe = self.recipe.staged(found.spec)
        return found

    @classmethod
    def of(
        cls,
        diffusion: Diffusion,
        net: nn.Module,
        codec: Codec,
        *,
        name: str = "mine",
        conditions: Mapping[str, Condition] | None = None,
        domain: Domain | None = None,
        sampling: Sampling | None = None,
        training: Training | None = None,
    ) -> Model:
        """A model of your own parts.

        Args:
            diffusion: schedule, prediction and weighting.
            net: any module with the forward of `zoo.core.diffusion.Denoiser`.
            codec: between your objects and encoded samples; one of a domain's, or your own.
            name: of the model.
            conditions: what a sample can be asked to be; none for an unconditional model.
            domain: whose samples these are; default: the domain that has such a codec, else one without files of its own.
            sampling, training: defaults of `sample` and of the trainer.

        Saved, it is read again by `zoo.load(folder, net=..., codec=...)`: a folder never names code.
        """
        recipe, domain = own_recipe(diffusion, net, codec, name, conditions, domain, sampling, training)
        return cls(recipe, domain, denoiser=net, codec=codec, diffusion=diffusion)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU for a net without any."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; float32 for a net without any."""
        return dtype_of(self.denoiser) or torch.float32

    @property
    def wide(self) -> torch.dtype:
        """The dtype of a sampler's state: float32, or float64 where the weights have it, never less."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.denoiser.parameters()) / 1e6
        checkpoint = "" if self.progress is None else f", checkpoint of {self.progress}"
        return (
            f"Model({self.recipe.domain}/{self.recipe.name}, {self.recipe.denoiser}, {millions:.2f} M parameters{checkpoint})"
        )

    def __getattr__(self, name: str) -> Any:
        """The methods that the domain declares, beside the module's own attributes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            domain = self.__dict__.get("domain")
            methods = {} if domain is None else domain.methods
            if name not in methods:
                further = f" Its domain adds: {', '.join(methods)}." if methods else ""
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}.{further}") from None
        return functools.partial(methods[name], self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.domain.methods})

    def to(self, *args: Any, **options: Any) -> Model:
        """As of any module, and with the same names of devices and dtypes as `zoo.load`: to("cuda:1"), to("bf16").

        Raises:
            ConfigError: a device or dtype that is unknown, or that no net computes in.
            ResourceError: a device that this machine does not have.
        """
        named = {"device": device_named, "dtype": dtype_named}
        options = {k: named[k](v) if k in named else v for k, v in options.items()}
        return super().to(*map(_placed, args), **options)

    # ---------------------------------------------------------------- objects and what the net sees of them

    @torch.no_grad()
    def encode(self, items: Sequence[Any]) -> Tensor:
        """Objects as the net sees them (n,*S), on this device: of a first stage and of a latent model the latents.

        Latents of a first stage are the means of their posteriors; a latent model brings them to unit deviation.

        Args:
            items: objects of the domain.

        Raises:
            ConfigError: not a list of objects that the codec encodes, or a model whose samples have sizes of their own.
        """
        self._of_one_size("encode")
        if isinstance(items, str) or not isinstance(items, Sequence):  # of an array nobody knows whether it is one object
            raise ConfigError(f"a {type(items).__name__}: give a list of objects: [item], or list(items).")
        rows = [self.objects_encoded(item) for item in items]
        if not rows:
            return torch.zeros(0, *self._seen(), device=self.device, dtype=self.wide)
        with self._exact():
            return torch.cat([self._lift(torch.stack(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Samples:
        """What `encode` gave, or anything like it (n,*S), as samples of the domain.

        Raises:
            ShapeError: not a tensor (n,*S).
        """
        self._of_one_size("decode")
        shape = self._seen()
        if not isinstance(x0, Tensor) or not x0.is_floating_point() or tuple(x0.shape[1:]) != shape or not len(x0):
            found = f"{tuple(x0.shape)} {x0.dtype}" if isinstance(x0, Tensor) else f"a {type(x0).__name__}"
            raise ShapeError(f"decode: {found}; give a tensor (n, {', '.join(map(str, shape))}) as `encode` does.")
        items: list[Any] = []
        for part in x0.to(self.device, self.wide).split(CHUNK):
            items += self.codec.decode(self._lowered(part), {})
        return Samples.of(items, domain=self.domain)

    def reconstruct(self, items: Sequence[Any]) -> Samples:
        """Objects encoded and decoded again: what a first stage, or the codec, leaves of them."""
        return self.decode(self.encode(items))

    @property
    def is_first_stage(self) -> bool:
        """Whether this is an autoencoder, of which nothing is sampled."""
        return self.recipe.role == "first_stage"

    def _of_one_size(self, method: str) -> None:
        if self.codec.size_name is not None:
            raise ConfigError(
                f"{method}: samples of {self!r} have sizes of their own ({self.codec.size_name}), which one tensor does not "
                "hold: take model.encoded(item), one at a time."
            )

    def _seen(self) -> tuple[int, ...]:
        """The shape of what `encode` makes of an object."""
        net: Any = self.denoiser
        return tuple(net.latent_shape) if self.is_first_stage else self.codec.shape

    def _samples_nothing(self) -> None:
        """Refuse to sample from a first stage."""
        if self.is_first_stage:
            name = f"{self.recipe.domain}/{self.recipe.name}"
            raise ConfigError(
                f"{name} is a first stage: it turns objects into latents and back, and there is nothing to sample from it. Use "
                f"model.reconstruct(items), model.encode(items) and model.decode(latents), or train a latent model on it: "
                f"--set codec.stage={self.folder or name}."
            )

    def _exact(self) -> AbstractContextManager[None]:
        return exact() if self.device.type == "cuda" else nullcontext()

    def _lift(self, x: Tensor) -> Tensor:
        """Encoded objects (B,*I) as the net sees them, or as latents of a first stage."""
        if not self.is_first_stage:
            return self.codec.lift(x)
        mean: Tensor = self.denoiser.encode(x.to(self.dtype))[0]  # type: ignore[operator]  # the net of a first stage
        return mean.to(x.dtype)

    @torch.no_grad()
    def _lowered(self, x0: Tensor) -> Tensor:
        """What the net sees (B,*S) as the codec decodes it (B,*I).

        Raises:
            NumericsError: numbers that are not finite.
        """
        if not self.is_first_stage and self.codec.inner is self.codec:
            return x0
        with self._exact():
            if self.is_first_stage:
                out: Tensor = self.denoiser.decode(x0.to(self.dtype)).to(x0.dtype)  # type: ignore[operator]
            else:
                out = self.codec.lower(x0)
        if not torch.isfinite(out).all():
            raise NumericsError(f"{self!r}: its first stage made something that is not finite of the latents.")
        return out

    # ---------------------------------------------------------------- sampling

    def plan(self, n: int = 1, **arguments: Any) -> Plan:
        """What `sample` would do: every argument checked, every default filled in. Arguments as for `sample`."""
        self._samples_nothing()
        precision = self._precision(arguments.pop("precision", None))
        shard = shard_of(arguments.pop("shard", None))
        if shard is not None and arguments.get("seed") is None:
            raise ConfigError("shard: the processes that share a call draw from one seed. Give seed=, the same to all of them.")
        if shard is not None and arguments.get("batch_size") is None:  # all have something to do
            arguments["batch_size"] = min(CHUNKED, max(1, whole(n, "n", 1) // shard[1]))
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, arguments)
        plan = replace(plan, precision=precision, shard=shard)
        if plan.options.get("variance") == LEARNED:
            self._says_variance()
        if shard is not None and math.ceil(plan.n / plan.batch_size) < shard[1]:  # told to all of them: none waits for another
            raise ConfigError(
                f"shard={shard[0]}/{shard[1]}: {plan.n} samples in batches of {plan.batch_size} leave nothing for some of the "
                "processes. Give a smaller batch_size, or take fewer processes."
            )
        return plan

    def _says_variance(self) -> None:
        """Refuse the learned variance of a net that says none."""
        if not self.diffusion.learned_variance:
            raise ConfigError(
                f"variance='learned': the net of {self!r} says no variance. Give 'small' or 'large', or train one that does: "
                "--set diffusion.learned_variance=true --set training.objective=hybrid."
            )

    def _precision(self, asked: Any) -> str:
        """In what the net multiplies in a call that asks for it like this: "fp32" or "bf16"."""
        found = precision_named(self.precision if asked is None else asked)
        if found == "auto":
            fast = self.dtype == torch.float32 and native_bf16(self.device)
            return "bf16" if fast else "fp32"
        if found == "bf16" and self.dtype == torch.float64:
            raise ConfigError("precision='bf16': the weights are in float64, which is never rounded. Load them in float32.")
        return found

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
        precision: str | None = None,
        shard: tuple[int, int] | str | None = None,
        noise: Tensor | None = None,
        steer: Sequence[Steering] | Steering = (),
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **conditions: Any,
    ) -> Samples:
        """Generate n samples.

        Args:
            n: how many; they are made in chunks of `batch_size`, so memory does not grow with n.
            sampler, steps: "ddpm", "ddim", "dpmpp", "plms", "heun", "euler" and the number of steps; default: the recipe's.
            guidance_weight: w of Ho & Salimans 2022, Eq. 6; 0 is plain conditional. {condition: w} guides single
                conditions, each with its own weight.
            guidance_scale: the same as 1 + w. Give one of the two.
            seed: sample i of a seed is the same whatever n, batch size or device. None draws a fresh seed.
            precision: "fp32": the net multiplies in its weights' own dtype; "bf16": in bf16, faster where the machine does
                so in hardware, and a sample of a seed is then only about the same in other batches and on other machines;
                "auto": bf16 on such a machine, else fp32. Default: `model.precision`, which is what `zoo.load` was given.
            shard: (r, of) or "r/of": several processes share the call, and this one makes every `of`-th batch of the n samples,
                from batch r on, under the same numbers. All of them together make what one call makes, to the bit where its
                batch size is the same. It needs a seed.
            noise: (n,*S) of unit deviation that the samples start from, such as that of `invert`; None draws it from the seed.
            steer: what pushes the prediction, the first one innermost, see `zoo.core.steer`.
            progress: show a bar; default: only where sampling takes more than about two seconds.
            on_step: called with every `Step`.
            **conditions: the model's own, such as label="sneaker" (one for all, or a list of n), and the sampler's
                options: spacing, bounds, eta, variance, noise_scale, s_churn, step_scale, guess_below,
                guidance_interval, guidance_rescale, clip; and negative={condition: value}, what guidance leads away from.

        Raises:
            ConfigError: an argument that is unknown or invalid.
            NumericsError: the net gave values that are not finite.
            ResourceError: a chunk does not fit into memory.
        """
        plan = self.plan(
            n,
            sampler=sampler,
            steps=steps,
            guidance_weight=guidance_weight,
            guidance_scale=guidance_scale,
            seed=seed,
            batch_size=self._at_a_time(batch_size, n, shard, steer),
            precision=precision,
            shard=shard,
            **conditions,
        )
        state = None if noise is None else self._noise(noise, plan)
        return self._collect(plan, progress=progress, on_step=on_step, steer=steer, state=state)

    def _noise(self, noise: Tensor, plan: Plan) -> Tensor:
        """Noise of unit deviation (n,*S), checked, as the states from which the plan's samples start."""
        shape = list(self.codec.shape)
        if plan.sizes is not None:
            shape[self.codec.size_axis] = max(plan.sizes)
        want = (plan.n, *shape)
        if not isinstance(noise, Tensor) or not noise.is_floating_point() or tuple(noise.shape) != want:
            found = f"{tuple(noise.shape)} of {noise.dtype}" if isinstance(noise, Tensor) else f"a {type(noise).__name__}"
            raise ShapeError(f"noise: {found}; give a tensor {want} of floats, such as model.invert(items).noise.")
        if not torch.isfinite(noise).all():
            raise ConfigError("noise: NaN or infinity; every number of it must be finite.")
        return noise.to(self.device, self.wide) * self.diffusion.schedule.prior_std(plan.levels[0])

    @staticmethod
    def _at_a_time(
        batch_size: Any, n: Any, shard: Any, steer: Sequence[Steering] | Steering, method: Method | None = None
    ) -> Any:
        """The batch size that was asked for, or a smaller default where a graph of the net is kept, or a sample has copies."""
        method = method or Method()
        traces = method.gradients or any(getattr(s, "gradients", False) for s in listed(steer))
        if batch_size is not None or not (traces or method.copies > 1):
            return batch_size
        share = math.ceil(whole(n, "n", 1) / (1 if shard is None else (shard_of(shard) or (0, 1))[1]))
        return max(1, min(share, (TRACED if traces else CHUNKED) // method.copies))

    def sample_iter(
        self,
        n: int = 1,
        *,
        known: Any = None,
        where: Any = None,
        method: str = "replace",
        steer: Sequence[Steering] | Steering = (),
        **arguments: Any,
    ) -> Iterator[Step]:
        """The steps of one chunk of n samples in encoded units: each `Step` has level, x and x0 (n,*S).

        Args:
            known, where: encoded values and the bool mask of what is held fixed, broadcast to (n,*S) (in-painting), as
                tensors or arrays; known may also be a function that puts its parts into a predicted x0 (n,*S).
            method: how they are held, with arguments of its own, as of `inpaint`.
            steer, **arguments: as for `sample`.

        Raises:
            ConfigError, ShapeError: as `sample`, and known parts that do not fit.
        """
        if (known is None) != (where is None):
            raise ConfigError("known and where belong together: give both, or none.")
        if arguments.get("shard") is not None:
            raise ConfigError("shard: sample_iter makes one batch, which is not shared. Use sample(n, shard=...).")
        way = method_of(method, {k: arguments.pop(k) for k in OPTIONS if k in arguments})
        if known is None and way.name != "replace":
            raise ConfigError(f"method={method!r}: a way of holding known parts, and none are given. Leave it out.")
        plan = self.plan(n, **arguments)
        chunk, held = self._chunk(plan, range(plan.n)), None
        if known is not None:
            held, shape = hold(known, where), self._empty(chunk).shape
            for name, given in (("known", getattr(held, "values", None)), ("where", held.known)):
                if given is not None and not broadcasts(given.shape, shape):
                    raise ShapeError(f"{name} {tuple(given.shape)} does not broadcast to the samples {tuple(shape)}.")
        return self.run(plan, chunk, steer=steer, held=held, method=way)

    def inpaint(
        self,
        known: Any = None,
        where: Any = None,
        n: int = 1,
        *,
        method: str | None = None,
        steer: Sequence[Steering] | Steering = (),
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Samples that agree with a known object: it is kept exactly where `where` is True.

        What it costs is `samples.plan.cost`, in words: "250 evaluations of the net a sample, 750 calls backwards".

        Args:
            known: a domain object that the codec encodes, or an encoded tensor (*S).
            where: bool, broadcast to the encoded shape (*S). For an object of a latent model it is broadcast to the shape of
                what the codec of objects encodes, such as pixels (C, H, W): latents whose pixels are all known are held, and
                the known pixels are put back into the samples, exactly.
            method: how what is not known is drawn, see `zoo.core.inpaint`. "replace" puts the known parts into each prediction,
                which is not right as a conditional; "resample" also takes each step `times` (10) times, `jump` (10) steps
                together (RePaint); "posterior" moves x0 by the net's own covariance, with `products` (3) calls of it backwards
                a step; "particles" (TDS) weighs `particles` (16) samples for one, with the samplers "ddpm", which is taken
                where none is named, and "ddim" with eta above 0; "select" takes the best of `candidates` (4) where known parts
                say what is better, as a motif does. None: what the domain was measured to be best with, see
                `Domain.inpainting`: "posterior" with products=1 for pictures, but not in latents; "select" for a protein's
                motif; else "replace".
            steer: further steers, around that of the known parts; with particles, inside of it.
            n, **arguments: as for `sample`, those of the method; and those that the domain adds, see `Domain.hold` of the
                domain: a protein's `motif` and `start`, a point cloud's `keep`.

        Raises:
            ConfigError, ShapeError: nothing known, or a mask that does not fit; and as `sample`.
        """
        plan, held, way = self.inpaint_plan(known, where, n, method=method, steer=steer, **arguments)
        return self._collect(plan, progress=progress, on_step=on_step, steer=steer, held=held, method=way)

    def inpaint_plan(
        self,
        known: Any = None,
        where: Any = None,
        n: int = 1,
        *,
        method: str | None = None,
        steer: Sequence[Steering] | Steering = (),
        **arguments: Any,
    ) -> tuple[Plan, Held, Method]:
        """What `inpaint` does for the same arguments, checked and not yet done: for those who go step by step, see `run`.

        Returns:
            the plan, what is held, and the method.
        """
        asked = {k: arguments.pop(k) for k in OPTIONS if k in arguments}
        way = self._usual_method(asked) if method is None else method_of(method, asked)
        if isinstance(way, Particles) and arguments.get("sampler") is None:
            arguments["sampler"] = "ddpm"
        own = {k: arguments.pop(k) for k in self.domain.inpaint_options if k in arguments}
        held = self.domain.hold(self, known, where, arguments, **own)
        if method is None and not isinstance(held.steer, Hold) and not asked:
            # known parts that may lie anywhere
            way = Select() if isinstance(held.steer, Place) and held.steer.reward is not None else Method()
        way.steer(held.steer)  # a method that cannot hold it is told before anything is made
        arguments["batch_size"] = self._at_a_time(arguments.get("batch_size"), n, arguments.get("shard"), steer, way)
        plan = self.plan(n, **self._size_argument(held.size) | arguments)
        plan = replace(plan, method=way.settings, cost=way.cost(plan.calls))
        if held.size is not None:
            self._check_size(plan, held.size)
        return plan, held, way

    def _usual_method(self, asked: Mapping[str, Any]) -> Method:
        """The method of in-painting that the domain takes where nobody says one, with what is said of it."""
        usual = dict(self.domain.inpainting) if self.codec.inner is self.codec else {}
        name = usual.pop("method", "replace")
        return method_of(name, usual | dict(asked))

    def vary(
        self,
        item: Any,
        strength: float = 0.5,
        n: int = 1,
        *,
        inverted: bool | Mapping[str, Any] = False,
        steer: Sequence[Steering] | Steering = (),
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Variations of an object: noise is added to it, then taken away again (SDEdit, Meng et al. 2021, Algorithm 1).

        Args:
            item: a domain object that the codec encodes, or an encoded tensor (*S).
            strength: share of the sampling steps that are run, above 0 (close to the object) up to 1 (all new).
            inverted: nothing is drawn: the samples start from the noise that gives the object back, see `invert`, under the
                conditions {name: value} that describe it, or for True under those of the samples. With other conditions the
                object then changes into what they ask for (DDIM inversion). The sampler is "ddim" where none is asked for.
            n, steer, **arguments: as for `sample`.
        """
        x0 = self.encoded(item)
        size = None if self.codec.size_name is None else self.codec.size_of(x0)
        if not isinstance(inverted, bool | Mapping):
            raise ConfigError(f"inverted={inverted!r}: give True, False, or the conditions of the object, {{'label': 'bag'}}.")
        if inverted is not False and arguments.get("sampler") is None:
            arguments = {**arguments, "sampler": "ddim"}
        arguments["batch_size"] = self._at_a_time(arguments.get("batch_size"), n, arguments.get("shard"), steer)
        plan = self.plan(n, **self._size_argument(size) | arguments).after(strength)
        if size is not None:
            self._check_size(plan, size)
        if inverted is False:
            return self._collect(plan, progress=progress, on_step=on_step, steer=steer, start=x0)
        own = {k: v for k, v in arguments.items() if k in self.recipe.conditions} if inverted is True else dict(inverted)
        for name in own:
            if name not in self.recipe.conditions:
                raise one_of("condition of inverted", name, self.recipe.conditions)
        source = self._plan_of([x0] * n, seed=plan.seed, conditions=own, batch_size=plan.batch_size)
        source = replace(source, levels=plan.levels)
        state, _ = self._inverted(source, [x0] * n, progress)
        return self._collect(plan, progress=progress, on_step=on_step, steer=steer, state=state)

    @torch.no_grad()
    def invert(
        self,
        items: Sequence[Any] | Tensor,
        *,
        steps: int = 50,
        spacing: str | None = None,
        bounds: tuple[float, float] | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        **conditions: Any,
    ) -> Inverted:
        """The noise from which DDIM makes these objects: `sample(n, noise=found.noise, **found.settings, ...)` gives them back.

        Each step of the sampler is solved, see `zoo.core.inversion`, so that little more is lost than what the net does not
        believe of an object at the least noise. Guidance and clipping are off, in the settings as well.

        Args:
            items: objects of the domain, or a tensor of encoded ones (n,*S).
            steps, spacing, bounds: of the grid; the default is a Karras grid over all levels that the schedule has.
            batch_size: how many are computed at a time.
            **conditions: of the model, one for all or a list of one for each object; give the same to `sample`. One that each
                sample draws for itself, such as a speaker, must be given.

        Raises:
            ConfigError: guidance, or an unknown argument; and as `sample`.
            NumericsError: noise that is not finite.
        """
        self._samples_nothing()
        self._own_conditions(conditions, "guidance cannot be inverted: sample(noise=...) may have it.")
        encoded = self._all_encoded(items, "invert")
        if spacing is None and "karras" in self.diffusion.schedule.spacings:
            spacing, bounds = "karras", reach(self.diffusion.schedule) if bounds is None else bounds
        grid = {"steps": steps, "spacing": spacing, "bounds": bounds}
        plan = self._plan_of(encoded, seed=0, batch_size=batch_size, conditions=conditions, sampler="ddim", **grid)
        state, left = self._inverted(plan, encoded, progress)
        noise = state / self.diffusion.schedule.prior_std(plan.levels[0])
        settings = {k: v for k, v in plan.settings().items() if k != "guidance_weight" or self.recipe.conditions}
        settings = {k: v for k, v in settings.items() if k not in ("guidance_interval", "guidance_rescale")}
        return Inverted(noise, left, settings)

    def _no_angles(self, what: str, why: str) -> None:
        """Refuse what is not defined where the state of a sampler is wrapped."""
        if self.codec.period is not None:
            raise ConfigError(f"{what}: samples of {self!r} are angles, which are wrapped after each step, and {why}.")

    def _inverted(self, plan: Plan, encoded: Sequence[Tensor], progress: bool | None) -> tuple[Tensor, Tensor]:
        """(states (n,*S) at the plan's first level from which its steps make the samples, what is left (n,))."""
        self._no_angles("invert", "what a turn took away cannot be given back")
        if not (progress is None or isinstance(progress, bool)):
            raise ConfigError(f"progress={progress!r}: give True, False, or None for a bar where it takes long.")
        states, left = [], []
        most = None if plan.sizes is None else max(plan.sizes)
        total = len(list(plan.rows())) * plan.steps
        with tqdm(total=total, desc="inverting", unit="step", disable=progress is False, leave=False, delay=2) as bar:
            for rows in plan.rows():
                with memory_for(len(rows)), self._exact(), Once():
                    x0, chunk, mask, _ = self._rows(plan, encoded, [(i, 0) for i in rows])
                    predict = self.predictor(plan, chunk.cond, mask=mask)
                    x, worst = x0, torch.zeros(len(rows), dtype=torch.float64, device=x0.device)
                    for back in invert_ddim(predict, x0, plan.levels):
                        x, worst = back.x, torch.maximum(worst, back.left)
                        bar.update()
                if not torch.isfinite(x).all():
                    raise NumericsError(f"{self!r}: the noise of an object is not finite; the weights or settings are broken.")
                if most is not None and x.shape[1 + self.codec.size_axis] < most:
                    wide = list(x.shape)
                    wide[1 + self.codec.size_axis] = most
                    padded = x.new_zeros(wide)
                    padded.narrow(1 + self.codec.size_axis, 0, x.shape[1 + self.codec.size_axis]).copy_(x)
                    x = padded
                states.append(x)
                left.append(worst.cpu())
        return torch.cat(states), torch.cat(left)

    def interpolate(
        self,
        start: Any,
        end: Any,
        k: int = 5,
        *,
        seed: int | None = None,
        progress: bool | None = None,
        **arguments: Any,
    ) -> Samples:
        """k samples from one wish to another, or from one object to another.

        Between wishes all samples are of one noise, and the share of the second wish in them rises from 0 to 1: the
        predictions under the two are mixed, each with its own guidance, which is defined for conditions of every kind, in
        objects and in latents. The first sample and the last one are those that `sample(1, seed=seed, ...)` makes.

        Between objects the noises that give them back (`invert`) are mixed along the sphere (Song et al. 2020, section
        5.3), and DDIM makes samples of them. The first sample and the last one are the objects, as far as `invert` gives them
        back.

        Args:
            start, end: conditions, such as {"text": "cat"} and {"text": "dog"}; or two objects, or encoded tensors (*S).
            k: how many samples, 2 or more; between wishes they are made together.
            seed, progress, **arguments: as for `sample`: further conditions, which all samples have, and settings; between
                objects conditions, and `steps`, `spacing`, `bounds` and `batch_size` of `invert`; nothing is drawn there.

        Raises:
            ConfigError: what is not a wish, an unknown condition, or samples of several sizes; and as `sample`.
        """
        if arguments.get("shard") is not None:
            raise ConfigError("shard: the samples between two wishes are made together, in one process.")
        k, seed = whole(k, "k", 2), seeds.check_seed(seed)
        if not any(isinstance(wish, str | Mapping | None) for wish in (start, end)):
            return self._between(start, end, k, progress=progress, **arguments)
        for name, wish in (("start", start), ("end", end)):
            if not isinstance(wish, Mapping):
                raise ConfigError(f"{name}={wish!r}: give conditions, such as {{'text': 'cat'}}.")
            for key in wish:
                if key not in self.recipe.conditions:
                    raise one_of(f"condition of {name}", key, self.recipe.conditions)
                if key in arguments:
                    raise ConfigError(f"{key!r} is in {name} and beside it. Give it once.")
        size = self.codec.size_name
        if size is not None and arguments.get(size) is None:
            raise ConfigError(f"samples of one noise have one size: give {size}.")
        first, last = (self.plan(k, seed=seed, **{**arguments, **wish}) for wish in (start, end))
        rng = seeds.SampleRng(seed, [0] * k, first.sizes, first.size_axis)
        with memory_for(k):
            chunk, other = (replace(plan.chunk(range(k)), rng=rng) for plan in (first, last))
            away = self.predictor(last, other.cond, mask=self._mask(other), negative=other.negative)
        x, blend = None, Blend(away, torch.linspace(0, 1, k))
        with tqdm(total=first.steps, desc="sampling", unit="step", disable=progress is False, leave=False, delay=2) as bar:
            for step in self.run(first, chunk, steer=[blend]):
                x = step.x
                bar.update()
        if x is None or not torch.isfinite(x).all():
            raise NumericsError(f"{self!r}: a sample is not finite; the weights or the settings are broken.")
        with memory_for(k):
            items = self.decoded(x, chunk)
        shown = {name: _passing(first.names.get(name), last.names.get(name)) for name in {**first.names, **last.names}}
        return Samples.of(items, domain=self.domain, conditions=shown, plan=first)

    def _between(self, start: Any, end: Any, k: int, *, progress: bool | None, **arguments: Any) -> Samples:
        """k samples from one object to another, by their noises."""
        ends = [self.encoded(start), self.encoded(end)]
        if ends[0].shape != ends[1].shape:
            raise ShapeError(f"objects of the encoded shapes {tuple(ends[0].shape)} and {tuple(ends[1].shape)} must be alike.")
        found = self.invert(ends, progress=progress, **arguments)
        conditions = {name: v for name, v in arguments.items() if name in self.recipe.conditions}
        size = None if self.codec.size_name is None else self.codec.size_of(ends[0])
        noise = slerp(found.noise[0], found.noise[1], torch.linspace(0, 1, k))
        settings = {**found.settings, **self._size_argument(size), "batch_size": arguments.get("batch_size")}
        return self.sample(k, noise=noise, seed=0, progress=progress, **settings, **conditions)

    @torch.no_grad()
    def encoded(self, item: Any) -> Tensor:
        """A domain object, or an encoded tensor (*S), as an encoded tensor on this device: as the net sees it.

        Raises:
            ConfigError: not an object that the codec encodes, or one with NaN or infinity. ShapeError: of another shape.
        """
        if self.is_encoded(item):
            return self._finite(item).to(self.device, self.wide)
        x = self.objects_encoded(item)
        if self.codec.inner is self.codec:
            return x
        with self._exact():
            return self.codec.lift(x[None])[0]

    def objects_encoded(self, item: Any) -> Tensor:
        """A domain object as the codec of objects encodes it (*I), on this device. Errors as of `encoded`."""
        x = self._encode(item)
        if not _fits(x, self.codec.inner):
            found = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ShapeError(f"the codec made {found} of the object; samples of {self!r} are {self.codec.inner.shape}.")
        return self._finite(x).to(self.device, self.wide)

    @staticmethod
    def _finite(x: Tensor) -> Tensor:
        if not torch.isfinite(x).all():
            raise ConfigError("the object holds NaN or infinity; every number of it must be finite, also where it is not kept.")
        return x

    def _encode(self, item: Any) -> Tensor:
        """An object through the codec, which may be anybody's: what it cannot make sense of is told as such."""
        try:
            return self.codec.encode(item)
        except ZooError:
            raise
        except Exception as error:
            what = type(item).__name__
            if isinstance(item, str | PurePath):
                advice = f"; this is {str(item)!r}, the name of a file? Read the file first"
            elif isinstance(item, Sequence):
                advice = f"; this holds {len(item)} things: give one at a time"
            elif isinstance(item, Tensor) or hasattr(item, "shape"):
                advice = f" or an encoded tensor {self.codec.shape}; this has the shape {tuple(item.shape)}"
            else:
                advice = ""
            raise ConfigError(
                f"a {what} is not an object of the domain {self.domain.name!r}: give one such as model.sample makes{advice}. "
                f"(The codec: {type(error).__name__}: {error})"
            ) from error

    def is_encoded(self, item: Any) -> bool:
        """Whether this is a tensor of the codec's shape, apart from a size of its own."""
        return _fits(item, self.codec)

    def _size_argument(self, size: int | None) -> dict[str, Any]:
        """The argument that asks for samples of a size, where there is one."""
        return {} if size is None or self.codec.size_name is None else {self.codec.size_name: size}

    def _check_size(self, plan: Plan, size: int) -> None:
        """Refuse samples of another size than the object that they start from."""
        if plan.sizes is not None and set(plan.sizes) != {size}:
            name, found = self.codec.size_name, sorted(set(plan.sizes))
            raise ShapeError(f"the object has {size} elements, the samples {found}: give {name}={size}.")

    def _chunk(self, plan: Plan, rows: range) -> Chunk:
        """Samples `rows` of a plan; an end of memory is told as one of the chunk."""
        with memory_for(len(rows)):
            return plan.chunk(rows)

    def _collect(
        self,
        plan: Plan,
        *,
        progress: bool | None,
        on_step: Callable[[Step], None] | None,
        steer: Sequence[Steering] | Steering = (),
        held: Held | None = None,
        method: Method | None = None,
        start: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Samples:
        """Run a plan chunk by chunk and decode."""
        if not (progress is None or isinstance(progress, bool)):
            raise ConfigError(f"progress={progress!r}: give True, False, or None for a bar where sampling takes long.")
        if not (on_step is None or callable(on_step)):
            raise ConfigError(f"on_step={on_step!r}: give a function that is called with every Step.")
        items: list[Any] = []
        chunks = list(plan.rows())
        total = len(chunks) * (method or Method()).steps(plan.steps)
        hidden = progress is False
        with tqdm(total=total, desc="sampling", unit="step", disable=hidden, leave=False, delay=0 if progress else 2) as bar:
            for rows in chunks:
                chunk, step = self._chunk(plan, rows), None
                first = None if state is None else state[rows.start : rows.stop]
                holding = None if held is None else held.steer
                for step in self.run(plan, chunk, steer=steer, held=holding, method=method, start=start, state=first):
                    bar.update()
                    if on_step is not None:
                        on_step(step)
                if step is None:
                    raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
                if not torch.isfinite(step.x).all():
                    raise NumericsError(f"{self!r}: a sample is not finite; the weights or the settings are broken.")
                with memory_for(len(rows)):
                    items += self.finished(step.x, chunk, steer=steer, held=held)
        if plan.shard is None:
            return Samples.of(items, domain=self.domain, conditions=plan.names, plan=plan)
        own = [i for rows in chunks for i in rows]
        names = {k: [v[i] for i in own] for k, v in plan.names.items()}
        return Samples.of(items, domain=self.domain, conditions=names, plan=plan, rows=own)

    def decoded(self, x: Tensor, chunk: Chunk, put_back: Callable[[Tensor], Tensor] | None = None) -> list[Any]:
        """The samples of a chunk from their encoded values (B,*S), such as those of a `Step`, padding taken off.

        Args:
            put_back: what is known, laid over what the codec of objects decodes; see `Held.put_back`.
        """
        if chunk.sizes is None:
            x = self._lowered(x)
            return self.codec.decode(x if put_back is None else put_back(x), chunk.cond)
        items = []
        for i, size in enumerate(chunk.sizes):
            own = x[i : i + 1].narrow(1 + self.codec.size_axis, 0, size)
            items += self.codec.decode(own, {k: v[i : i + 1] for k, v in chunk.cond.items()})
        return items

    def finished(
        self, x: Tensor, chunk: Chunk, *, steer: Sequence[Steering] | Steering = (), held: Held | None = None
    ) -> list[Any]:
        """The samples of a chunk from the x (B,*S) of its last step: decoded, with what steers and known parts say of them."""
        holding, put_back = (None, None) if held is None else (held.steer, held.put_back)
        return [functools.reduce(marked, [holding, *listed(steer)], s) for s in self.decoded(x, chunk, put_back)]

    def run(
        self,
        plan: Plan,
        chunk: Chunk,
        *,
        steer: Sequence[Steering] | Steering = (),
        held: Steering | None = None,
        method: Method | None = None,
        start: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Iterator[Step]:
        """The sampling steps of one chunk, in encoded units: what `sample`, `inpaint` and `vary` are made of.

        Args:
            plan: sampler, levels, guidance and options; its own n, conditions and sizes are not looked at.
            chunk: conditions, noise and sizes of the B samples.
            steer: as for `sample`.
            held: the steer of known parts; None for none.
            method: how they are held; default: as the steer does.
            start: encoded (*S) or (B,*S) that is noised to the plan's first level; None starts from pure noise.
            state: (B,*S) at the plan's first level, in the place of drawn noise; its padding may be wider than the chunk's.

        Raises:
            ConfigError: known parts, or a sampler, that the method does not work with.
            ResourceError: the chunk does not fit into memory.
        """
        method, steers, sampler = method or Method(), listed(steer), get_sampler(plan.sampler)
        if self.codec.period is not None:
            sampler = around(sampler, self.codec.period)
        rows: Any = chunk.rng
        if isinstance(method, Particles):
            self._no_angles("method='particles'", "it weighs steps by Gaussian densities")
        if held is not None and method.steered:
            steers = [method.steer(held), *steers]
        if method.copies > 1:
            rows = ParticleRng(chunk.rng, method.copies)
            chunk = chunk.repeated(method.copies, rows.rows)
        with memory_for(len(chunk)):
            mask = self._mask(chunk)
            setting = self._setting(plan, mask)
            rng = Noised(rows, [bound(s, setting) for s in steers])
            project = functools.partial(self.codec.project, mask=mask)
            network = self._network(plan, chunk.cond, mask)
            predict = self._assembled(plan, network, steers, chunk.negative)
            first = plan.levels[0]
            eps = project(rng.normal(self._empty(chunk)))
            x = eps * self.diffusion.schedule.prior_std(first)
            if start is not None:
                x = first.alpha * start + first.sigma * eps
            if state is not None:
                x = project(state.narrow(1 + self.codec.size_axis, 0, x.shape[1 + self.codec.size_axis]).to(x))
            options = plan.options | ({"share": network.learned} if plan.options.get("variance") == LEARNED else {})
            steps = method.run(
                sampler, predict, x, plan.levels, rng, options, held=held, setting=setting, memory=network.memory
            )
            products = exact if self.device.type == "cuda" else nullcontext
            constant = Once()  # what the net makes of the conditions
            while True:
                # a steer that needs gradients asks for them, see `zoo.core.correction.traced`
                with torch.no_grad(), products(), constant:
                    step = next(steps, None)
                if step is None:
                    return
                yield step

    def predictor(
        self,
        plan: Plan,
        cond: Mapping[str, Tensor],
        *,
        mask: Tensor | None = None,
        steer: Sequence[Steering] | Steering = (),
        negative: Mapping[str, Tensor] | None = None,
    ) -> Predict:
        """The prediction that the plan's sampler sees: the net with its conditions, guidance, clip, projector and steers.

        Args:
            cond: {name: (B,...)}.
            mask: (B,N) bool, True for real elements; None for all.
            negative: {name: (B,...)} what guidance leads away from; None for nothing.
        """
        return self._assembled(plan, self._network(plan, cond, mask), listed(steer), negative or {})

    def _network(self, plan: Plan, cond: Mapping[str, Tensor], mask: Tensor | None) -> Network:
        """The net with the conditions of a batch."""
        conditions = {k: v.to(self.device) for k, v in cond.items()}
        real = self._real(mask)
        memory = Memory(below=plan.guess_below) if self.diffusion.self_condition else None
        half = torch.bfloat16 if plan.precision == "bf16" else None
        return Network(self.diffusion, self.denoiser, conditions, mask=mask, real=real, memory=memory, half=half)

    def _assembled(self, plan: Plan, network: Network, steers: Sequence[Steering], negative: Mapping[str, Tensor]) -> Predict:
        """What is around a net: guidance, clip, projector and steers, which are told of the samples."""
        away = {k: v.to(self.device) for k, v in negative.items()}
        project = functools.partial(self.codec.project, mask=network.mask)
        setting = self._setting(plan, network.mask)
        own = [bound(s, setting) for s in steers]
        for steer in own:
            if isinstance(steer, Correction) and steer.weight and not any(steer.acts(level) for level in plan.levels[:-1]):
                low, high = steer.interval
                warnings.warn(
                    f"{type(steer).__name__.lower()}: the steer acts at no step: none of the {plan.steps} has {low:g} < "
                    f"sigma / alpha <= {high:g}. Take more steps, or a wider interval.",
                    stacklevel=6,
                )
        return assemble(network, guidance=plan.guidance, negative=away, clip=plan.clip, project=project, steers=own)

    def _setting(self, plan: Plan, mask: Tensor | None) -> Setting:
        """What steers are told of the samples."""
        sizes = None if mask is None else [int(size) for size in mask.sum(1)]
        deviation = self.diffusion.sigma_data if self.diffusion.precondition else 1.0
        return Setting(self.codec.in_units, sizes, self.codec.size_axis, plan.clip, deviation, self.codec)

    def _empty(self, chunk: Chunk) -> Tensor:
        """Zeros (B,*S) for the samples of a chunk, padded to the largest size."""
        shape = list(self.codec.shape)
        if chunk.sizes is not None:
            shape[self.codec.size_axis] = max(chunk.sizes)
        return torch.zeros(len(chunk), *shape, device=self.device, dtype=self.wide)

    def _mask(self, chunk: Chunk) -> Tensor | None:
        """(B,N) bool, which elements are real; None where all samples have the codec's shape."""
        if chunk.sizes is None:
            return None
        sizes = torch.tensor(chunk.sizes, device=self.device)
        return torch.arange(max(chunk.sizes), device=self.device) < sizes[:, None]

    # ---------------------------------------------------------------- likelihood

    @torch.no_grad()
    def log_likelihood(
        self,
        items: Sequence[Any] | Tensor,
        *,
        method: str = "ode",
        trace: str = "hutchinson",
        probes: int = 4,
        steps: int | None = None,
        units: str | None = None,
        variance: str = "small",
        to_clean: bool | None = None,
        seed: int | None = 0,
        batch_size: int | None = None,
        progress: bool | None = None,
        **conditions: Any,
    ) -> Likelihood:
        """How likely objects are under the model, in bits per dimension and in nats; see `zoo.core.likelihood`.

        The units are those of the objects, by the codec's log-determinant: pictures count in steps of 8 bits, with noise of one
        step (uniform dequantisation), as in the literature. Guidance is not applied, nor clipping of the ODE: neither has a
        density. A net that conditions itself is told of no guess.

        Args:
            items: objects of the domain, or a tensor of encoded ones (n,*S).
            method: "ode": the density by the probability-flow ODE (Song et al. 2021, Eq. 39), on any schedule; "bound": the
                variational bound (Ho et al. 2020, Eq. 5) of ancestral sampling in all steps, for discrete schedules.
            trace: of the Jacobian in the ODE: "hutchinson" estimates it with random probes, "exact" takes as many products
                with the Jacobian as a sample has numbers.
            probes: random draws of probes, dequantisation and noise for each object, over which the standard error is taken;
                two or more, or there is none.
            steps: of the ODE's solver, four calls of the net each (default 30); of the bound: how many terms are drawn
                (default: all T).
            units: None for those of the objects; "encoded" for what the net sees, which every codec has.
            variance: of the bound's steps, "small", "large" or "learned", see `zoo.core.samplers.ddpm`.
            to_clean: whether the ODE goes on below the schedule's least level, or takes the object for the sample there. The
                default goes on, except for rounded numbers such as bytes: with their noise of a step published figures are
                those of the least level.
            seed: of the draws; those of item i are the same whatever else is measured.
            batch_size: rows (objects times probes) that are computed together.
            **conditions: of the model, one for all or a list of one for each object. Without them the density is that of the
                model without conditions; one that each sample draws for itself, such as a speaker, must be given.

        Raises:
            ConfigError: guidance, an unknown method, a codec without units, a picture that is not of 8 bits, the bound of a
                schedule that is not discrete; and as `sample`.
            NumericsError: a result that is not finite.
        """
        self._samples_nothing()
        self._no_angles("log_likelihood", "there is no density of theirs here")
        self._density_arguments(method, trace, units, conditions)
        for name, flag in (("to_clean", to_clean), ("progress", progress)):
            if not (flag is None or isinstance(flag, bool)):
                raise ConfigError(f"{name}={flag!r}: give True, False, or None for the default.")
        probes, seed = whole(probes, "probes", 1), seeds.check_seed(seed)
        encoded = self._all_encoded(items, "log_likelihood")
        found = [self.codec.density_units(x) if units is None else ENCODED for x in encoded]
        rounded = found[0].step is not None
        if rounded:
            for x, unit in zip(encoded, found, strict=True):
                _check_rounded(x, unit)
        to_clean = not rounded if to_clean is None else to_clean
        certain = method == "ode" and trace == "exact" and not rounded
        if certain:
            probes = 1  # nothing is random
        plan = self._plan_of(encoded, seed=seed, batch_size=batch_size, conditions=conditions)
        free = torch.tensor([self.codec.free(x) for x in encoded], dtype=torch.float64)
        rows = [(i, k) for k in range(probes) for i in range(len(encoded))]
        size = plan.batch_size if batch_size is not None else CHUNKED
        if method == "ode":
            count = whole(30 if steps is None else steps, "steps", 1)
            groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        else:  # the drawn terms of a batch are the same
            own = [rows[i : i + len(encoded)] for i in range(0, len(rows), len(encoded))]
            groups = [one[i : i + size] for one in own for i in range(0, len(encoded), size)]
            count = self._terms(steps)
        parts: list[dict[str, Tensor]] = []
        with tqdm(total=len(rows), desc="likelihood", unit="row", disable=progress is False, leave=False, delay=2) as bar:
            for group in groups:
                with memory_for(len(group)), self._exact():
                    units_of = [found[i] for i, _ in group]
                    if method == "ode":
                        parts.append(self._flow_density(plan, encoded, group, units_of, free, trace, count, to_clean))
                    else:
                        parts.append(self._bound(plan, encoded, group, units_of, free, variance, count))
                bar.update(len(group))
        values = {k: torch.cat([p[k].cpu() for p in parts]).reshape(probes, -1) for k in parts[0]}
        nats = values.pop("nats")
        if not torch.isfinite(nats).all():
            raise NumericsError(f"{self!r}: a likelihood is not finite; the weights are broken, or the object is far away.")
        error = nats.std(0) / math.sqrt(probes) if probes > 1 else torch.full_like(nats[0], math.nan)
        counted = self._counted(method, trace, probes, count, rounded, to_clean)
        return Likelihood(
            nats=nats.mean(0),
            nats_error=torch.zeros_like(nats[0]) if certain else error,
            free=free,
            unit=found[0].name,
            counted=counted,
            parts={k: v.mean(0) for k, v in values.items()},
        )

    def _density_arguments(self, method: str, trace: str, units: str | None, conditions: Mapping[str, Any]) -> None:
        """Refuse arguments of `log_likelihood` that nothing is known by."""
        if method not in LIKELIHOODS:
            raise one_of("method of a likelihood", method, LIKELIHOODS)
        if trace not in TRACES:
            raise one_of("trace", trace, TRACES)
        if units not in (None, "encoded"):
            raise ConfigError(f"units={units!r}: give None for those of the objects, or 'encoded'.")
        if method == "bound" and not isinstance(self.diffusion.schedule, DiscreteSchedule):
            raise ConfigError(
                f"method='bound': that of ancestral sampling in T steps, and a {type(self.diffusion.schedule).__name__} has no "
                "such steps. Use method='ode'."
            )
        self._own_conditions(conditions, "guidance has no density, a likelihood is that of the model alone. Leave it out.")

    def _own_conditions(self, conditions: Mapping[str, Any], guided: str) -> None:
        """Refuse what is not a condition of the model; of guidance it is said why."""
        for name in conditions:
            if name.startswith("guidance_") or name == "negative":
                raise ConfigError(f"{name}: {guided}")
            if name not in self.recipe.conditions:
                raise one_of(f"argument or condition of {self.recipe.domain}/{self.recipe.name}", name, self.recipe.conditions)
        for name, condition in self.recipe.conditions.items():
            given = conditions.get(name)
            if getattr(condition, "free", None) == "draw" and (given is None or None in (several(given) or ())):
                raise ConfigError(
                    f"{name}: a sample draws one where nobody says it, but these objects have theirs: give it, one for all or "
                    f"a list. Known: {', '.join((condition.classes or ())[:20])}."
                )

    def _all_encoded(self, items: Sequence[Any] | Tensor, method: str) -> list[Tensor]:
        """Objects, or a tensor of encoded samples, one encoded tensor (*S) each."""
        if isinstance(items, Tensor) and items.ndim == 1 + len(self.codec.shape) and items.is_floating_point():
            found: Sequence[Any] = list(items)
        elif isinstance(items, str | Mapping) or not isinstance(items, Sequence):
            raise ConfigError(f"{method}: a {type(items).__name__}; give a list of objects: [item], or list(items).")
        else:
            found = items
        if not len(found):
            raise ConfigError(f"{method}: no objects. Give one or more.")
        return [self.encoded(item) for item in found]

    def _plan_of(self, encoded: Sequence[Tensor], *, conditions: Mapping[str, Any], **settings: Any) -> Plan:
        """The plan of samples like these encoded ones: their sizes and conditions, without guidance, clipping and guesses."""
        sizes = None if self.codec.size_name is None else [self.codec.size_of(x) for x in encoded]
        given: dict[str, Any] = {} if sizes is None or self.codec.size_name is None else {self.codec.size_name: sizes}
        if self.recipe.conditions:
            given["guidance_weight"] = 0.0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="1 step: ")  # the grid of samples counts for nothing in a likelihood
            grid = {"steps": 1, "clip": None, "guess_below": 0.0, "precision": "fp32"}
            plan = self.plan(len(encoded), **{**grid, **settings, **given, **conditions})
        return replace(plan, guidance=Guidance(), sizes=sizes)

    def _rows(
        self, plan: Plan, encoded: Sequence[Tensor], group: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Chunk, Tensor | None, Draws]:
        """Rows (object, draw) together: (x0 (B,*S), their chunk, its mask, their random numbers)."""
        picked = [i for i, _ in group]
        sizes = None if plan.sizes is None else [plan.sizes[i] for i in picked]
        cond = {k: v[picked] for k, v in plan.cond.items()}
        chunk = Chunk(cond, seeds.SampleRng(plan.seed, picked, sizes, plan.size_axis), sizes)
        x0 = self._empty(chunk)
        for row, i in zip(x0, picked, strict=True):
            row.narrow(self.codec.size_axis, 0, encoded[i].shape[self.codec.size_axis]).copy_(encoded[i])
        draws = Draws([(plan.seed, i, DENSITY, k) for i, k in group], sizes, plan.size_axis)
        return x0, chunk, self._mask(chunk), draws

    def _real(self, mask: Tensor | None) -> Tensor | None:
        """A mask (B,n) of what is not padding, ready to broadcast to samples (B,*S)."""
        return None if mask is None else self.codec.spread(mask, 1 + len(self.codec.shape))

    def _flow_density(
        self,
        plan: Plan,
        encoded: Sequence[Tensor],
        group: Sequence[tuple[int, int]],
        units: Sequence[Units],
        free: Tensor,
        trace: str,
        steps: int,
        to_clean: bool,
    ) -> dict[str, Tensor]:
        """{"nats": (B,)} of rows by the ODE."""
        x0, chunk, mask, draws = self._rows(plan, encoded, group)
        log_det = torch.tensor([u.log_det for u in units], dtype=torch.float64)
        if units[0].step is not None:
            x0 = x0 + units[0].step * draws.uniform(x0)
        used: Trace = exact_trace
        if trace == "hutchinson":
            used = hutchinson(self.codec.project(draws.signs(x0), mask=mask))
        predict = self.predictor(plan, chunk.cond, mask=mask)
        own = free[[i for i, _ in group]].to(x0.device)
        found = flow_log_density(
            predict, x0, self.diffusion.schedule, used, free=own, real=self._real(mask), steps=steps, to_clean=to_clean
        )
        return {"nats": found.cpu() + log_det}

    def _bound(
        self,
        plan: Plan,
        encoded: Sequence[Tensor],
        group: Sequence[tuple[int, int]],
        units: Sequence[Units],
        free: Tensor,
        variance: str,
        terms: int,
    ) -> dict[str, Tensor]:
        """{"nats", "L_T", "L_t", "L_0": (B,)} of rows by the variational bound."""
        schedule = self.diffusion.schedule
        if not isinstance(schedule, DiscreteSchedule):
            raise ConfigError("the bound is that of a discrete schedule.")
        x0, chunk, mask, draws = self._rows(plan, encoded, group)
        times = None
        if terms < schedule.T - 1:
            times = drawn_times(schedule.T, terms, seeds.generator(plan.seed, DENSITY, group[0][1]))
        network = self._network(plan, chunk.cond, mask)
        found = variational_bound(
            self._assembled(plan, network, [], {}),
            x0,
            schedule,
            lambda like: self.codec.project(draws.normal(like), mask=mask),
            free=free[[i for i, _ in group]].to(x0.device),
            units=units[0],
            real=self._real(mask),
            variance=variance,
            times=times,
            share=network.learned if variance == LEARNED else None,
        )
        found = {k: v.cpu() for k, v in found.items()}
        log_det = torch.tensor([0.0 if u.step is not None else u.log_det for u in units], dtype=torch.float64)
        return {"nats": log_det - found["L_T"] - found["L_t"] - found["L_0"], **found}

    def _terms(self, steps: int | None) -> int:
        """How many terms of the bound's sum are computed."""
        schedule = self.diffusion.schedule
        total = schedule.T - 1 if isinstance(schedule, DiscreteSchedule) else 1
        return total if steps is None else min(whole(steps, "steps", 1, schedule.max_steps), total)

    def _counted(self, method: str, trace: str, probes: int, steps: int, rounded: bool, to_clean: bool) -> str:
        """What `log_likelihood` computed, in words."""
        if method == "bound":
            schedule = self.diffusion.schedule
            total = schedule.T - 1 if isinstance(schedule, DiscreteSchedule) else 1
            some = f"all {total} steps" if steps == total else f"{steps} of {total} steps"
            return f"variational bound, {some}, {probes} draws of noise"
        words = [f"probability-flow ODE in {steps} steps of order 4"]
        words.append("exact trace" if trace == "exact" else f"Hutchinson's trace with {probes} probes")
        if rounded:
            words.append(f"uniform dequantisation ({probes} draws)")
        if not to_clean:
            words.append("down to the schedule's least level")
        return ", ".join(words)

    # ---------------------------------------------------------------- training and files

    def batch(self, items: Sequence[tuple[Any, dict[str, Any]]], rng: torch.Generator | None = None) -> Batch:
        """Dataset items (object, conditions) as a batch for training; `rng` feeds augmentation."""
        return self.codec.batch(items, rng, self.recipe.conditions)

    @classmethod
    def first_stage_of(cls, recipe: Recipe) -> Model:
        """A first stage as the recipe of a latent model that was built before describes it, without its weights.

        Raises:
            CheckpointError: it does not describe one.
        """
        spec = recipe.stage
        if spec is None or spec.recipe is None:
            raise CheckpointError(f"{recipe.domain}/{recipe.name}: codec.stage does not describe a first stage.")
        own = Recipe.parse(spec.recipe)
        if own.stage is not None or own.role != "first_stage":
            raise CheckpointError(f"{recipe.domain}/{recipe.name}: codec.stage describes a model that is not a first stage.")
        return cls(own, get_domain(own.domain))

    def first_stage(self) -> Model:
        """The first stage of a latent model, as a model of its own.

        Raises:
            ConfigError: the model has none.
        """
        if not isinstance(self.codec, Latent):
            raise ConfigError(f"{self!r} has no first stage: its net sees what the codec makes of objects.")
        found = self.first_stage_of(self.recipe)
        found.denoiser.load_state_dict(self.codec.stage.state_dict())
        found.folder = self.folder
        return found.to(self.device, self.codec.mean.dtype)

    def verify(self, folder: str | PathLike[str] | None = None) -> float:
        """Recompute the stored output of the net; returns the largest difference, relative to the output's own size.

        Raises:
            CheckpointError: the difference is above 1e-3 (0.05 in half precision), or there is no golden file.
        """
        folder = folder or self.folder
        if folder is None:
            if self.progress is not None:
                raise CheckpointError(
                    f"these are the weights of a training run at {self.progress}: a golden file comes with the finished model."
                )
            raise CheckpointError(
                "this model was not loaded from a folder of zoo's: there is no golden file to verify against. One in another "
                "package's format is converted first: zoo convert FOLDER NEW, then zoo verify NEW."
            )
        return golden.difference(self, folder)

    def save_pretrained(
        self, folder: str | PathLike[str], *, half: bool = False, bits: int | None = None, card: str | None = None
    ) -> Path:
        """Write the model folder. The old files stay until the new ones are whole.

        Args:
            half: store the denoiser's weights as float16, in half the size. This model stays as it is; the golden output
                is that of the rounded weights.
            bits: of a stored weight: 16 is `half`; 8 stores large matrices as whole numbers with a scale for each row, and
                the rest in 16, see `zoo.model.eightbit`; None, as they are.
            card: text of README.md; the default is made from the recipe, below a text that was edited by hand only its
                metadata.
        """
        return checkpoint.save(self, files.path_of(folder, "folder"), half=half, bits=bits, card=card)

    def export(self, format: str, folder: str | PathLike[str], **options: Any) -> Path:
        """Write the model in another package's format, such as "diffusers", see docs/interop.md.

        Args:
            format: its name.
            folder: to write.
            **options: of the format.

        Raises:
            ConfigError: an unknown format, one that nothing is written in, or a model that it does not express.
        """
        if not isinstance(format, str):
            raise one_of("format", format, FORMATS)
        write = getattr(FORMATS[format], "export", None)
        if write is None:
            raise ConfigError(f"the format {format!r} is read by zoo, not written.")
        known_arguments(write, options, f"option of the format {format!r}", ("model", "folder"))
        found: Path = write(self, files.path_of(folder, "folder"), **options)
        return found

    def push_to_hub(
        self,
        repo: str,
        private: bool = False,
        token: str | bool | None = None,
        *,
        tag: str | None = None,
        samples: bool = True,
    ) -> Pushed:
        """Push to the Hub repository "owner/name" in one commit, with card and sample pictures; see `zoo.model.publish`."""
        from zoo.model.prepare import push_model

        return push_model(self, repo, private=private, token=token, tag=tag, samples=samples)

    @classmethod
    def from_folder(
        cls,
        folder: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        net: nn.Module | None = None,
        codec: Codec | None = None,
        diffusion: Diffusion | None = None,
    ) -> Model:
        """Read a model folder strictly: a missing or extra key, a wrong shape, a newer format are errors.

        While a training run is at work in the folder, or where one was killed, its newest checkpoint's averaged weights are
        read, unless a finished model is newer. A warning says of which step it is, and `progress` of the model.

        Args:
            device, dtype: where and in which dtype to put the weights, also by name: "cuda:0", "bf16".
            net, codec, diffusion: of a model that was made of its author's own parts, see `Model.of`.
        """
        folder, device, dtype = files.path_of(folder, "folder"), device_named(device), dtype_named(dtype)
        given = {"net": net, "codec": codec, "diffusion": diffusion}
        check_parts(**{k: v for k, v in given.items() if v is not None})

        def checked(recipe: Recipe) -> Domain:
            if recipe.denoiser == OWN and net is None:
                raise ConfigError(
                    f"{folder} holds a net of its author's own, and a folder never names code: give net=YourNet()."
                )
            if diffusion is not None:
                check_diffusion(recipe, diffusion)
            return own_domain() if recipe.domain == OWN else get_domain(recipe.domain)

        def empty(recipe: Recipe) -> Model | None:
            """The first stage of a latent model, to be filled with the weights that its folder holds."""
            return None if codec is not None or recipe.stage is None else cls.first_stage_of(recipe)

        def read() -> Model:
            config = checkpoint.read_config(folder)
            recipe = Recipe.parse(config["recipe"])
            domain = checked(recipe)
            shapes = files.load_shapes(folder / files.WEIGHTS)
            checkpoint.check_files(folder, config)
            with limited(shapes, folder):
                model = cls(recipe, domain, denoiser=net, codec=codec, diffusion=diffusion, stage=empty(recipe), filled=False)
            checkpoint.fill(model, folder)
            return model

        def read_checkpoint(path: Path) -> Model:
            found = unfinished.read(path)
            domain, weights = checked(found.recipe), found.averaged()
            shapes = {k: tuple(v.shape) for part in (weights, found.part("codec")) for k, v in part.items()}
            with limited(shapes, folder, config=path.name, weights=path.name):
                stage = empty(found.recipe)
                model = cls(found.recipe, domain, denoiser=net, codec=codec, diffusion=diffusion, stage=stage, filled=False)
            files.load_strict(model.denoiser, weights, path)
            files.load_strict(model.codec, found.part("codec"), path)
            if isinstance(model.codec, Latent):
                model.codec.seal()
            model.progress = found.facts.progress()
            warnings.warn(
                f"{folder} holds a training run that is not at its end: these are the averaged weights of its checkpoint of "
                f"{model.progress}.",
                unfinished.UnfinishedWarning,
                stacklevel=4,
            )
            return model

        if (running := unfinished.newest(folder)) is not None:
            model = read_checkpoint(running)
            return model if device is None and dtype is None else model.to(device=device, dtype=dtype)
        model = checkpoint.undisturbed(folder, read)
        model.folder = folder
        return model if device is None and dtype is None else model.to(device=device, dtype=dtype)
