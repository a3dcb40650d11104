"""Recipe: the validated description of a model. Its JSON is config.json.

Unknown keys are errors and numbers have bounds. Overrides use the same names from Python and from the command line:
dotted paths such as `training.batch_size=32` or `schedule.curve=linear`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveInt, Tag, ValidationError

from zoo.errors import ConfigError, one_of


class Part(BaseModel):
    """Base of all parts of a recipe: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Discrete(Part):
    """Variance-preserving process of T steps, see `zoo.core.schedule.DiscreteSchedule`."""

    kind: Literal["discrete"] = "discrete"
    curve: Literal["linear", "cosine", "sigmoid"] = "cosine"
    T: int = Field(1000, ge=2, le=100_000)
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    zero_terminal_snr: bool = False


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


class DiffusionPart(Part):
    """Prediction, weighting and preconditioning, see `zoo.core.diffusion.Diffusion`."""

    prediction: Literal["eps", "x0", "v", "flow"] = "v"
    weighting: Literal["simple", "min_snr", "edm"] = "simple"
    sigma_data: float = Field(0.5, gt=0)
    precondition: bool = False
    self_condition: bool = False


class Condition(Part):
    """A public condition: one of a list of labels.

    `free` says what a caller gets who leaves it out: "drop", the net's learned null, or "draw", a label that each sample
    draws for itself (for what every sample has but few care to name, such as a speaker).
    """

    kind: Literal["label"] = "label"
    values: tuple[str, ...] = Field(min_length=1)
    free: Literal["drop", "draw"] = "drop"

    def index(self, name: str, value: Any) -> int:
        """The class number of a label given by name or number; anything else raises with the list."""
        if isinstance(value, str) and value in self.values:
            return self.values.index(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.values):
            return value
        raise one_of(name, value, self.values)


class ArrayCondition(Part):
    """A public condition that is an array of numbers, such as what a robot observes; left out, it is the learned null.

    `shape` is that of one sample's value after the codec's `condition`, which takes the domain's own units.
    """

    kind: Literal["array"] = "array"
    shape: tuple[PositiveInt, ...] = Field(min_length=1)


def _kind(condition: Any) -> str:
    """The kind of a condition, or of its JSON, where labels need not say it."""
    return str(condition.get("kind", "label") if isinstance(condition, Mapping) else condition.kind)


AnyCondition = Annotated[Annotated[Condition, Tag("label")] | Annotated[ArrayCondition, Tag("array")], Discriminator(_kind)]


class Sampling(Part):
    """Defaults of `model.sample`."""

    sampler: str = "ddim"
    steps: int = Field(50, ge=1)
    spacing: str | None = None
    guidance_weight: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    clip: float | None = Field(None, gt=0)
    guess_below: float | None = Field(None, ge=0)  # sigma / alpha below which a net that conditions itself hears its guess
    options: dict[str, Any] = {}


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


class Recipe(Part):
    """Everything that defines a model but its weights."""

    name: str
    domain: str
    description: str = ""
    licence: str = ""
    data: str = ""
    paper: str = ""
    codec: dict[str, Any] = {}
    denoiser: str
    net: dict[str, Any] = {}
    conditions: dict[str, AnyCondition] = {}
    schedule: Annotated[Discrete | EDM | Flow, Field(discriminator="kind")] = Discrete()
    diffusion: DiffusionPart = DiffusionPart()
    sampling: Sampling = Sampling()
    training: Training = Training()

    @property
    def labels(self) -> dict[str, Condition]:
        """The conditions that are labels."""
        return {k: c for k, c in self.conditions.items() if isinstance(c, Condition)}

    @property
    def arrays(self) -> dict[str, ArrayCondition]:
        """The conditions that are arrays."""
        return {k: c for k, c in self.conditions.items() if isinstance(c, ArrayCondition)}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data; what is wrong is one ConfigError that names every bad key."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
            raise ConfigError("recipe: " + "; ".join(lines)) from None

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
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
