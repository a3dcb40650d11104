"""Recipe: the validated description of a model. Its JSON is config.json.

Unknown keys are errors and numbers have bounds. Overrides use the same names from Python and from the command line:
dotted paths such as `training.batch_size=32` or `schedule.curve=linear`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, SerializeAsAny, Tag

from zoo.contract.conditions import Condition, parse_condition
from zoo.contract.part import Part
from zoo.contract.small import SmallSample
from zoo.contract.text import Text
from zoo.errors import ConfigError, one_of
from zoo.values import LARGEST, plain_data


class Discrete(Part):
    """Variance-preserving process of T steps, see `zoo.core.schedule.DiscreteSchedule`."""

    kind: Literal["discrete"] = "discrete"
    curve: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = "cosine"
    T: int = Field(1000, ge=2, le=100_000)
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    zero_terminal_snr: bool = False
    betas: tuple[float, ...] | None = None  # in place of a curve
    steps_offset: int = Field(0, ge=0)
    final: Literal["clean", "least"] = "clean"


class EDM(Part):
    """Continuous noise levels, see `zoo.core.schedule.EDMSchedule`."""

    kind: Literal["edm"]
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)
    P_mean: float = -1.2
    P_std: float = Field(1.2, gt=0)
    rho: float = Field(7.0, gt=0)


class Flow(Part):
    """Rectified flow, see `zoo.core.schedule.FlowSchedule`."""

    kind: Literal["flow"]
    logit_mean: float = 0.0
    logit_std: float = Field(0.0, ge=0)
    shift: float = Field(1.0, gt=0)
    t_min: float = Field(0.001, gt=0, lt=1)


class Cosine(Part):
    """The cosine process in continuous time, see `zoo.core.schedule.CosineSchedule`."""

    kind: Literal["cosine"]
    crash: bool = False


class DiffusionPart(Part):
    """Prediction, weighting and preconditioning, see `zoo.core.diffusion.Diffusion`."""

    prediction: Literal["eps", "x0", "v", "flow"] = "v"
    weighting: Literal["simple", "min_snr", "edm"] = "simple"
    sigma_data: float = Field(0.5, gt=0)
    precondition: bool = False
    self_condition: bool = False
    learned_variance: bool = False


class OtherSchedule(Part):
    """A schedule of another package, or one that a program registered: its kind, and options that it checks itself."""

    model_config = ConfigDict(extra="allow")

    kind: str


def _schedule_kind(value: Any) -> str:
    """Which of the classes describes a schedule, or its JSON, where the discrete one need not be named."""
    kind = value.get("kind", "discrete") if isinstance(value, Mapping) else getattr(value, "kind", "other")
    return kind if kind in ("discrete", "edm", "flow", "cosine") else "other"


AnySchedule = Annotated[
    Annotated[Discrete, Tag("discrete")]
    | Annotated[EDM, Tag("edm")]
    | Annotated[Flow, Tag("flow")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[OtherSchedule, Tag("other")],
    Discriminator(_schedule_kind),
]
#: kinds of conditions that are not in `zoo.contract.conditions` are known as soon as there are recipes
KINDS = (SmallSample, Text)
AnyCondition = Annotated[SerializeAsAny[Condition], BeforeValidator(parse_condition)]


class Few(Part):
    """What counts in place of the other defaults of `model.sample` where at most `steps` steps are asked for."""

    steps: int = Field(ge=1)
    sampler: str | None = None
    spacing: str | None = None
    bounds: tuple[float, float] | None = None
    guidance_weight: float | None = None
    guidance_interval: tuple[float, float] | None = None
    options: dict[str, Any] | None = None


class Sampling(Part):
    """Defaults of `model.sample`."""

    sampler: str = "ddim"
    steps: int = Field(50, ge=1)
    spacing: str | None = None
    bounds: tuple[float, float] | None = None  # of a Karras grid, in sigma / alpha
    guidance_weight: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    clip: float | None = Field(None, gt=0, le=LARGEST)
    guess_below: float | None = Field(None, ge=0)  # sigma / alpha below which a net is told its last guess
    options: dict[str, Any] = {}
    few: tuple[Few, ...] = ()  # the one of the least steps that are enough counts
    #: {"ddpm": 25, "ddpm variance=large": 100}: with fewer steps samples were measured to be poor, of which a call warns;
    #: None: with every number of steps that was measured
    least: dict[str, int | None] = {}

    def enough(self, sampler: str, options: Mapping[str, Any]) -> float:
        """The steps that a sampler with these options needs at least, as `least` says; 0 where it says nothing."""
        set_to = {sampler, *(f"{sampler} {k}={v}" for k, v in options.items())}
        return max((math.inf if steps is None else steps for name, steps in self.least.items() if name in set_to), default=0)

    def at(self, steps: int) -> Sampling:
        """The defaults of a call with this many steps."""
        enough = [few for few in self.few if few.steps >= steps]
        if not enough:
            return self
        chosen = min(enough, key=lambda few: few.steps).model_dump(exclude={"steps"}, exclude_none=True)
        if "spacing" in chosen:
            chosen.setdefault("bounds", None)  # those of the other spacing say nothing here
        return self.model_copy(update=chosen)


#: guidance weight of models of the user's own data: a packaged one's is that of a net which was trained for hours, and a net of
#: minutes needs more (`benchmarks/own_data.py`, then `zoo eval RUN --data DIR --guidance-weight 2`)
GUIDED = 3.0


class Training(Part):
    """How the trainer treats the model, see `zoo.training.trainer`."""

    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(200, ge=0)
    decay: float = Field(0.4, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    ema: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    accumulate: int = Field(1, ge=1)
    condition_dropout: float = Field(0.1, ge=0, le=1)  # of all conditions of a sample together
    single_dropout: float = Field(0.1, ge=0, le=1)  # of each one alone, where there are several
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    objective: str = "denoise"  # see `zoo.training.objective`
    objective_options: dict[str, Any] = {}  # of the objective, by name
    freeze: tuple[str, ...] = ()  # patterns of names of parameters or modules that are not trained, see `zoo.training.freeze`


class FirstStage(Part):
    """The trained autoencoder between whose latents and objects a model works, see `zoo.model.first_stage`.

    Attributes:
        name: where it comes from: a packaged model, a folder, or "hub:owner/name[@revision]".
        sha256: of its weights, as `zoo.model.first_stage.digest` takes it; None: whatever they are.
        recipe: its own recipe as plain data, by which it is built again; None before it was opened.
    """

    name: str
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    recipe: dict[str, Any] | None = None


class Recipe(Part):
    """Everything that defines a model but its weights."""

    name: str
    domain: str
    role: Literal["model", "first_stage"] = "model"  # a first stage is an autoencoder, of which nothing is sampled
    description: str = ""
    licence: str = ""
    data: str = ""
    paper: str = ""
    codec: dict[str, Any] = {}
    denoiser: str
    net: dict[str, Any] = {}
    conditions: dict[str, AnyCondition] = {}
    schedule: AnySchedule = Discrete()
    diffusion: DiffusionPart = DiffusionPart()
    sampling: Sampling = Sampling()
    training: Training = Training()
    augment: dict[str, Any] = {}  # what training does to objects, of the domain's own, see `zoo.contract.augment`

    @property
    def stage(self) -> FirstStage | None:
        """The first stage of a latent model: `codec.stage`, which is a name or a `FirstStage`; None for others."""
        found = self.codec.get("stage")
        if found is None:
            return None
        if isinstance(found, str):
            return FirstStage(name=found)
        if isinstance(found, Mapping):
            return FirstStage.model_validate(dict(found))
        raise ConfigError(
            f"codec.stage={found!r}: name an autoencoder: a packaged model, a folder (runs/autoencoder) or hub:owner/name."
        )

    def staged(self, stage: FirstStage | str | None) -> Recipe:
        """The recipe with another description of its first stage; None takes `stage` out of the codec's options."""
        codec = {k: v for k, v in self.codec.items() if k != "stage"}
        if stage is not None:
            codec["stage"] = stage if isinstance(stage, str) else stage.model_dump(mode="json")
        return self.model_copy(update={"codec": codec})

    def shown(self) -> Recipe:
        """The recipe for messages: a first stage in one line, its name and the start of its SHA-256."""
        if (stage := self.stage) is None:
            return self
        return self.staged(stage.name if stage.sha256 is None else f"{stage.name} (SHA-256 {stage.sha256[:16]}...)")

    def guided(self, chosen: Collection[str]) -> Recipe:
        """The recipe with the guidance of models of the user's own data, unless `chosen`, dotted paths, say how to sample."""
        if any(name.split(".")[0] == "sampling" for name in chosen):
            return self
        sampling = self.sampling.model_copy(update={"guidance_weight": GUIDED, "guidance_interval": None})
        return self.model_copy(update={"sampling": sampling})

    def classes(self, name: str) -> tuple[str, ...]:
        """The names of the values of a condition; none where the model has no such condition, or it has no list."""
        return self.conditions[name].classes if name in self.conditions else ()

    def showcase(self, n: int) -> dict[str, list[Any]]:
        """Conditions for n samples that show what the model can do; those that only real data have are left out."""
        found = {k: c.showcase(n) for k, c in self.conditions.items()}
        return {k: v for k, v in found.items() if v is not None}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data; what is wrong is one ConfigError that names every bad key."""
        return cls.model_validate(data)

    def override(self, overrides: Mapping[str, Any]) -> Recipe:
        """A copy with dotted paths replaced. Strings are read as JSON where they are JSON ("3", "true", "[1,2]")."""
        data = json.loads(self.model_dump_json())
        for path, value in overrides.items():
            *parents, last = path.split(".")
            node = data
            for key in parents:
                if not isinstance(node.get(key), dict):
                    raise one_of("recipe key", path, node)
                node = node[key]
            node[last] = _read(value)
        return Recipe.parse(data)


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return plain_data(value)
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
