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
from zoo.contract.domain import Domain
from zoo.contract.recipe import Recipe, Sampling, Training
from zoo.contract.registry import get_domain
from zoo.contract.samples import Samples
from zoo.core import seeds
from zoo.core.device import exact, native_bf16
from zoo.core.diffusion import Diffusion, dtype_of
from zoo.core.predict import Memory, Network, Predict, Steering, assemble
from zoo.core.samplers import Step, get_sampler
from zoo.core.schedule import make_schedule
from zoo.core.steer import Blend, broadcasts, hold
from zoo.errors import CheckpointError, ConfigError, NumericsError, ShapeError, ZooError, memory_for, one_of
from zoo.model import checkpoint, golden, unfinished
from zoo.model.budget import limited
from zoo.model.first_stage import CHUNK, Latent, Staged
from zoo.model.own import OWN, check_diffusion, check_parts, own_domain, own_recipe
from zoo.model.place import DTYPES, device_named, dtype_named, precision_named
from zoo.model.plan import CHUNK as CHUNKED
from zoo.model.plan import Chunk, Plan, check_names, make_plan, shard_of
from zoo.nets.once import Once
from zoo.values import several, whole

if TYPE_CHECKING:
    from os import PathLike

    from zoo.hub.push import Pushed

#: how in-painting holds what is known
METHODS = ("replace",)


def make_diffusion(recipe: Recipe) -> Diffusion:
    """The diffusion that a recipe describes."""
    options = recipe.schedule.model_dump()
    return Diffusion(make_schedule(options.pop("kind"), options), **recipe.diffusion.model_dump())


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
        if shard is not None and math.ceil(plan.n / plan.batch_size) < shard[1]:  # told to all of them: none waits for another
            raise ConfigError(
                f"shard={shard[0]}/{shard[1]}: {plan.n} samples in batches of {plan.batch_size} leave nothing for some of the "
                "processes. Give a smaller batch_size, or take fewer processes."
            )
        return plan

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
        steer: Sequence[Steering] | Steering = (),
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
            precision: "fp32": the net multiplies in its weights' own dtype; "bf16": in bf16, faster where the machine does
                so in hardware, and a sample of a seed is then only about the same in other batches and on other machines;
                "auto": bf16 on such a machine, else fp32. Default: `model.precision`, which is what `zoo.load` was given.
            shard: (r, of) or "r/of": several processes share the call, and this one makes every `of`-th batch of the n samples,
                from batch r on, under the same numbers. All of them together make what one call makes, to the bit where its
                batch size is the same. It needs a seed.
            steer: what pushes the prediction, the first one innermost, see `zoo.core.steer`.
            progress: show a bar; default: only where sampling takes more than about two seconds.
            on_step: called with every `Step`.
            **conditions: the model's own, such as label="sneaker" (one for all, or a list of n), and the sampler's
                options: spacing, bounds, eta, variance, s_churn, step_scale, guess_below, guidance_interval,
                guidance_rescale, clip; and negative={condition: value}, what guidance leads away from.

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
            batch_size=batch_size,
            precision=precision,
            shard=shard,
            **conditions,
        )
        return self._collect(plan, progress=progress, on_step=on_step, steer=steer)

    def sample_iter(
        self,
        n: int = 1,
        *,
        known: Any = None,
        where: Any = None,
        steer: Sequence[Steering] | Steering = (),
        **arguments: Any,
    ) -> Iterator[Step]:
        """The steps of one chunk of n samples in encoded units: each `Step` has level, x and x0 (n,*S).

        Args:
            known, where: encoded values and the bool mask of what is held fixed, broadcast to (n,*S) (in-painting), as
                tensors or arrays; known may also be a function that puts its parts into a predicted x0 (n,*S).
            steer, **arguments: as for `sample`.

        Raises:
            ConfigError, ShapeError: as `sample`, and known parts that do not fit.
        """
        if (known is None) != (where is None):
            raise ConfigError("known and where belong together: give both, or none.")
        if arguments.get("shard") is not None:
            raise ConfigError("shard: sample_iter makes one batch, which is not shared. Use sample(n, shard=...).")
        plan = self.plan(n, **arguments)
        chunk = self._chunk(plan, range(plan.n))
        if known is not None:
            held, shape = hold(known, where), self._empty(chunk).shape
            for name, given in (("known", getattr(held, "values", None)), ("where", held.known)):
                if given is not None and not broadcasts(given.shape, shape):
                    raise ShapeError(f"{name} {tuple(given.shape)} does not broadcast to the samples {tuple(shape)}.")
            steer = [held, *listed(steer)]
        return self.run(plan, chunk, steer=steer)

    def inpaint(
        self,
        known: Any = None,
        where: Any = None,
        n: int = 1,
        *,
        method: str = "replace",
        steer: Sequence[Steering] | Steering = (),
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Samples that agree with a known object: it is kept exactly where `where` is True.

        Args:
            known: a domain object that the codec encodes, or an encoded tensor (*S).
            where: bool, broadcast to the encoded shape (*S). For an object of a latent model it is broadcast to the shape of
                what the codec of objects encodes, such as pixels (C, H, W): latents whose pixels are all known are held, and
                the known pixels are put back into the samples, exactly.
            method: how: "replace" puts the known parts into each prediction.
            steer: further steers, around that of the known parts.
            n, **arguments: as for `sample`; and those that the domain adds, see `Domain.hold` of the domain: a protein's
                `motif` and `start`, a point cloud's `keep`.

        Raises:
            ConfigError, ShapeError: nothing known, or a mask that does not fit; and as `sample`.
        """
        if method not in METHODS:
            raise one_of("method of in-painting", method, METHODS)
        own = {k: arguments.pop(k) for k in self.domain.inpaint_options if k in arguments}
        held = self.domain.hold(self, known, where, arguments, **own)
        plan = self.plan(n, **self._size_argument(held.size) | arguments)
        if held.size is not None:
            self._check_size(plan, held.size)
        steers = [held.steer, *listed(steer)]
        return self._collect(plan, progress=progress, on_step=on_step, steer=steers, put_back=held.put_back)

    def vary(
        self,
        item: Any,
        strength: float = 0.5,
        n: int = 1,
        *,
        steer: Sequence[Steering] | Steering = (),
        progress: bool | None = None,
        on_step: Callable[[Step], None] | None = None,
        **arguments: Any,
    ) -> Samples:
        """Variations of an object: noise is added to it, then taken away again (SDEdit, Meng et al. 2021, Algorithm 1).

        Args:
            item: a domain object that the codec encodes, or an encoded tensor (*S).
            strength: share of the sampling steps that are run, above 0 (close to the object) up to 1 (all new).
            n, steer, **arguments: as for `sample`.
        """
        x0 = self.encoded(item)
        size = None if self.codec.size_name is None else self.codec.size_of(x0)
        plan = self.plan(n, **self._size_argument(size) | arguments).after(strength)
        if size is not None:
            self._check_size(plan, size)
        return self._collect(plan, progress=progress, on_step=on_step, steer=steer, start=x0)

    def interpolate(
        self,
        start: Mapping[str, Any],
        end: Mapping[str, Any],
        k: int = 5,
        *,
        seed: int | None = None,
        progress: bool | None = None,
        **arguments: Any,
    ) -> Samples:
        """k samples from one wish to another: all of one noise, the share of the second wish in them rising from 0 to 1.

        The predictions under the two are mixed, each with its own guidance: that is defined for conditions of every kind, in
        objects and in latents. The first sample and the last one are those that `sample(1, seed=seed, ...)` makes.

        Args:
            start, end: conditions, such as {"text": "cat"} and {"text": "dog"}.
            k: how many samples, 2 or more; they are made together.
            seed, progress, **arguments: as for `sample`: further conditions, which all samples have, and settings.

        Raises:
            ConfigError: what is not a wish, an unknown condition, or samples of several sizes; and as `sample`.
        """
        if arguments.get("shard") is not None:
            raise ConfigError("shard: the samples between two wishes are made together, in one process.")
        k, seed = whole(k, "k", 2), seeds.check_seed(seed)
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
            items = self._decode(x, chunk)
        shown = {name: _passing(first.names.get(name), last.names.get(name)) for name in {**first.names, **last.names}}
        return Samples.of(items, domain=self.domain, conditions=shown, plan=first)

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
        start: Tensor | None = None,
        put_back: Callable[[Tensor], Tensor] | None = None,
    ) -> Samples:
        """Run a plan chunk by chunk and decode."""
        if not (progress is None or isinstance(progress, bool)):
            raise ConfigError(f"progress={progress!r}: give True, False, or None for a bar where sampling takes long.")
        if not (on_step is None or callable(on_step)):
            raise ConfigError(f"on_step={on_step!r}: give a function that is called with every Step.")
        items: list[Any] = []
        chunks = list(plan.rows())
        total = len(chunks) * plan.steps
        hidden = progress is False
        with tqdm(total=total, desc="sampling", unit="step", disable=hidden, leave=False, delay=0 if progress else 2) as bar:
            for rows in chunks:
                chunk, step = self._chunk(plan, rows), None
                for step in self.run(plan, chunk, steer=steer, start=start):
                    bar.update()
                    if on_step is not None:
                        on_step(step)
                if step is None:
                    raise ConfigError(f"the sampler {plan.sampler!r} made no step.")
                if not torch.isfinite(step.x).all():
                    raise NumericsError(f"{self!r}: a sample is not finite; the weights or the settings are broken.")
                with memory_for(len(rows)):
                    items += self._decode(step.x, chunk, put_back)
        if plan.shard is None:
            return Samples.of(items, domain=self.domain, conditions=plan.names, plan=plan)
        own = [i for rows in chunks for i in rows]
        names = {k: [v[i] for i in own] for k, v in plan.names.items()}
        return Samples.of(items, domain=self.domain, conditions=names, plan=plan, rows=own)

    def _decode(self, x: Tensor, chunk: Chunk, put_back: Callable[[Tensor], Tensor] | None = None) -> list[Any]:
        """The samples of a chunk from their encoded values (B,*S), padding taken off."""
        if chunk.sizes is None:
            x = self._lowered(x)
            return self.codec.decode(x if put_back is None else put_back(x), chunk.cond)
        items = []
        for i, size in enumerate(chunk.sizes):
            own = x[i : i + 1].narrow(1 + self.codec.size_axis, 0, size)
            items += self.codec.decode(own, {k: v[i : i + 1] for k, v in chunk.cond.items()})
        return items

    def run(
        self, plan: Plan, chunk: Chunk, *, steer: Sequence[Steering] | Steering = (), start: Tensor | None = None
    ) -> Iterator[Step]:
        """The sampling steps of one chunk, in encoded units: what `sample`, `inpaint` and `vary` are made of.

        Args:
            plan: sampler, levels, guidance and options; its own n, conditions and sizes are not looked at.
            chunk: conditions, noise and sizes of the B samples.
            steer: as for `sample`.
            start: encoded (*S) or (B,*S) that is noised to the plan's first level; None starts from pure noise.

        Raises:
            ResourceError: the chunk does not fit into memory.
        """
        with memory_for(len(chunk)):
            mask = self._mask(chunk)
            project = functools.partial(self.codec.project, mask=mask)
            predict = self.predictor(plan, chunk.cond, mask=mask, steer=steer, negative=chunk.negative)
            first = plan.levels[0]
            eps = project(chunk.rng.normal(self._empty(chunk)))
            x = eps * self.diffusion.schedule.prior_std(first)
            if start is not None:
                x = first.alpha * start + first.sigma * eps
            steps = get_sampler(plan.sampler)(predict, x, plan.levels, rng=chunk.rng, **plan.options)
            products = exact if self.device.type == "cuda" else nullcontext
            constant = Once()  # what the net makes of the conditions
            while True:
                # a steer that needs gradients asks for them, see `zoo.core.steer.traced`
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
        conditions = {k: v.to(self.device) for k, v in cond.items()}
        away = {k: v.to(self.device) for k, v in (negative or {}).items()}
        real = None if mask is None else self.codec.spread(mask, 1 + len(self.codec.shape))
        memory = Memory(below=plan.guess_below) if self.diffusion.self_condition else None
        half = torch.bfloat16 if plan.precision == "bf16" else None
        network = Network(self.diffusion, self.denoiser, conditions, mask=mask, real=real, memory=memory, half=half)
        project = functools.partial(self.codec.project, mask=mask)
        return assemble(network, guidance=plan.guidance, negative=away, clip=plan.clip, project=project, steers=listed(steer))

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
            raise CheckpointError("this model was not loaded from a folder: there is no golden file to verify against.")
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
