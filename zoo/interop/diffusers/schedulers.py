"""Schedulers of diffusers as our schedules, samplers and defaults, and ours as theirs.

Each option of a scheduler's file is read. One that came with a later version and is not there means what was so before it:
that no longer moves. One that no version could do without must be there. One that we do not know is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from zoo.core.schedule import DiscreteSchedule
from zoo.errors import CheckpointError
from zoo.interop.reading import Options, looked_up, read_object

#: the file of a scheduler
SCHEDULER = "scheduler_config.json"
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
CURVES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
#: values of options of the first versions that never did anything
DEAD = {"tensor_format": (None, "pt", "np"), "timestep_values": (None,), "predict_epsilon": (None, True)}
#: options that stay in a file when one scheduler with betas is made of another's, whose class then looks at none of them
LEFT = (
    "clip_sample", "clip_sample_range", "set_alpha_to_one", "skip_prk_steps", "use_karras_sigmas",
    "interpolation_type", "algorithm_type", "solver_order", "solver_type", "lower_order_final",
)  # fmt: skip
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
#: the second half of a net's output says where the variance of a step lies between the small and the large one, as ours does
RANGE = "learned_range"
#: of Dance Diffusion
IPNDM = "IPNDMScheduler"
#: training steps that a schedule may have: no net has more, and a table of that many is made
MOST_TIMES = 1_000_000


@dataclass(frozen=True)
class Process:
    """What a scheduler says, in our words.

    Attributes:
        schedule, diffusion, sampling: parts of a recipe as plain data.
        time_scale, sign: what the net is given and how its output is read, see `zoo.interop.diffusers.unet.UNet2D`.
        ranged: the second half of the net's output, where it has one, is a variance as in `RANGE`.
    """

    schedule: dict[str, Any]
    diffusion: dict[str, Any]
    sampling: dict[str, Any]
    time_scale: float = 1.0
    sign: int = 1
    notes: tuple[str, ...] = field(default=())
    ranged: bool = False

    def of_net(self, channels: int, out_channels: int, path: Path) -> dict[str, Any]:
        """The recipe's part `diffusion` for a net of these channels.

        Args:
            path: of the net's config, for messages.

        Raises:
            CheckpointError: samples need a variance, and the net says none.
        """
        says = self.ranged and out_channels == 2 * channels
        if not says and self.sampling.get("options", {}).get("variance") == "learned":
            raise CheckpointError(
                f"{path}: out_channels={out_channels} for {channels} channels, and its scheduler has variance_type={RANGE!r}, "
                f"whose nets give {2 * channels}: the prediction, and then the variance. Make the two fit."
            )
        return self.diffusion | ({"learned_variance": True} if says else {})


def read_scheduler(path: Path, said: str | None = None) -> Process:
    """A scheduler's file.

    Args:
        said: the class that the index of the pipeline names, which is the one that diffusers builds.

    Raises:
        CheckpointError: a class or an option that we do not know, or a key that is missing; the message names it.
    """
    data = read_object(path)
    name = data.get("_class_name", said)
    if said is not None and name != said:
        raise CheckpointError(
            f"{path} is that of a {name}, and the index of the pipeline says {said}: which of the two samples is not known. "
            "Make them one."
        )
    return read_said(data, str(name), path)


def read_said(data: Mapping[str, Any], name: str, path: Path) -> Process:
    """What a scheduler of this class says in its options.

    Args:
        path: the file that they are from, for messages.

    Raises:
        CheckpointError: as `read_scheduler`.
    """
    reader = looked_up(name, READERS, f"scheduler of diffusers in {path}")
    found: Process = reader(Options(data, name, path))
    return found


def _times(o: Options) -> int:
    """The number of training steps."""
    T = o.needed("num_train_timesteps")
    if isinstance(T, bool) or not isinstance(T, int) or not 2 <= T <= MOST_TIMES:
        raise CheckpointError(
            f"{o.path}: num_train_timesteps={T!r} of a {o.what}; it must be a whole number from 2 to {MOST_TIMES:,}."
        )
    return T


def _betas(o: Options) -> dict[str, Any]:
    """The noise of the schedulers with betas."""
    T = _times(o)
    betas, zero = o.later("trained_betas", None), o.flag("rescale_betas_zero_snr", before=False)
    schedule: dict[str, Any] = {"kind": "discrete", "T": T, "zero_terminal_snr": zero}
    if betas is not None:
        for key in ("beta_start", "beta_end", "beta_schedule"):  # of no effect beside them
            o.later(key, None)
        return schedule | {"curve": "linear", "betas": betas}
    ends = {"beta_start": o.number("beta_start"), "beta_end": o.number("beta_end")}
    curve = o.needed("beta_schedule")
    if curve == "sigmoid" and o.what == "DDPMScheduler":
        rise = torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64))
        return schedule | {"betas": (rise * (ends["beta_end"] - ends["beta_start"]) + ends["beta_start"]).tolist()}
    return schedule | ends | {"curve": looked_up(curve, CURVES, f"beta_schedule of the {o.what} in {o.path}")}


def _clip(o: Options) -> float | None:
    """The bound of x0; None for none."""
    clip, bound = o.flag("clip_sample"), o.number("clip_sample_range", before=1.0)
    return float(bound) if clip else None


def _no_threshold(o: Options) -> None:
    """Dynamic thresholds (Saharia et al. 2022) are not ours; its numbers have no effect without it."""
    o.only("thresholding", False, None)
    o.later("dynamic_thresholding_ratio", None)
    o.later("sample_max_value", None)


def _discrete(o: Options, sampling: dict[str, Any], schedule: dict[str, Any], spacings: dict[str, str], before: str) -> Process:
    """What all schedulers with betas have, and the end."""
    diffusion = {"prediction": o.choice("prediction_type", PREDICTIONS, before="epsilon"), "weighting": "simple"}
    _no_threshold(o)
    spacing = o.choice("timestep_spacing", spacings, before=before)
    schedule = schedule | {"steps_offset": o.later("steps_offset", 0)}
    # of all but DDPM it is left from another: those drop the second half, but it means what it meant
    ranged = sampling.get("options", {}).get("variance") == "learned" or o.later("variance_type", None) == RANGE
    for key, values in DEAD.items():
        if key in o:
            o.only(key, *values)
    o.end(LEFT)
    return Process(schedule, diffusion, {"spacing": spacing} | sampling, ranged=ranged)


def _ddpm(o: Options) -> Process:
    schedule = _betas(o)
    kind = o.needed("variance_type")
    if kind == "learned":
        raise CheckpointError(
            f"{o.path}: variance_type='learned': there the second half of the net's output is the variance itself, which "
            "nothing keeps above 0; in zoo it says where the variance lies between the small and the large one, as in "
            f"{RANGE!r}. Where the net was trained for that, write {RANGE!r}; else make the file that of a DDIMScheduler, "
            "which takes no variance."
        )
    variance = looked_up(kind, VARIANCES, f"variance_type of the {o.what} in {o.path}")
    sampling = {"sampler": "ddpm", "steps": schedule["T"], "clip": _clip(o), "options": {"variance": variance}}
    return _discrete(o, sampling, schedule, _SAME, "leading")


_SAME = {"leading": "leading", "trailing": "trailing", "linspace": "linspace"}


def _ddim(o: Options) -> Process:
    schedule = _betas(o) | {"final": "clean" if o.flag("set_alpha_to_one") else "least"}
    sampling = {"sampler": "ddim", "steps": min(50, schedule["T"]), "clip": _clip(o), "options": {"eta": 0.0}}
    return _discrete(o, sampling, schedule, _SAME, "leading")


def _dpm(o: Options) -> Process:
    schedule = _betas(o)
    o.only("algorithm_type", "dpmsolver++", "deis")  # which theirs takes for it
    o.only("solver_order", 2)
    o.only("solver_type", "midpoint", "logrho", "bh1", "bh2")  # which theirs takes for it
    for key in ("use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"):
        o.only(key, False, None)
    o.only("lambda_min_clipped", float("-inf"), None)
    o.later("flow_shift", None)
    o.later("time_shift_type", None)
    karras = o.choice("use_karras_sigmas", {None: False, False: False, True: True}, before=False)
    # before there was a choice, the last level was the least noisy one of training
    ends = {"zero": "clean", "sigma_min": "least"}
    schedule |= {"final": o.choice("final_sigmas_type", ends, before="sigma_min")}
    if o.later("euler_at_final", False) and schedule["final"] == "least":  # a step to no noise is of first order in any case
        raise CheckpointError(f"{o.path}: euler_at_final with final_sigmas_type='sigma_min' is not supported.")
    sampling: dict[str, Any] = {
        "sampler": "dpmpp",
        "steps": min(20, schedule["T"] - 1),
        "options": {"lower_order_final": o.flag("lower_order_final", before=True)},
    }
    # leading and linspace grids are made for one step more, and the last one is left out
    spacings = {"leading": "open-leading", "linspace": "open-linspace", "trailing": "trailing"}
    found = _discrete(o, sampling, schedule, spacings, "linspace")
    if not karras:
        return found
    if schedule["zero_terminal_snr"]:
        raise CheckpointError(f"{o.path}: use_karras_sigmas with rescale_betas_zero_snr: such a grid starts at infinity.")
    options = {k: v for k, v in found.schedule.items() if k != "kind"}
    table = DiscreteSchedule(**options)
    bounds = (table.level(0).ratio, table.level(table.T - 1).ratio)
    note = "steps of a Karras grid are not rounded to whole ones, as theirs are"
    return replace(found, sampling=found.sampling | {"spacing": "karras", "bounds": bounds}, notes=(note,))


def _pndm(o: Options) -> Process:
    """PNDM without its Runge-Kutta steps, which is PLMS."""
    o.choice("skip_prk_steps", {True: True}, needed=True)  # theirs takes these steps where nobody says
    schedule = _betas(o) | {"final": "clean" if o.flag("set_alpha_to_one") else "least"}
    # alone of its kind it looks at none of the others' options
    found = _discrete(o, {"sampler": "plms", "steps": min(50, schedule["T"])}, schedule, _SAME, "leading")
    notes = []
    if schedule["final"] == "clean":
        notes.append("plms takes the last x0 at the end, where theirs steps along the sum of its last guesses once more")
    if found.diffusion["prediction"] == "v":
        notes.append("plms adds up guesses of the noise, where theirs adds up those of v")
    return replace(found, notes=tuple(notes))


def _euler(o: Options) -> Process:
    """Euler's steps in sigma / alpha, which are those of DDIM; with noise between them, those of DDPM."""
    schedule = _betas(o)
    ancestral = o.what == "EulerAncestralDiscreteScheduler"
    if not ancestral:
        o.only("interpolation_type", "linear")
        for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
            o.only(key, False, None)
        for key in ("sigma_min", "sigma_max"):
            o.only(key, None)
        o.only("timestep_type", "discrete")
        o.only("final_sigmas_type", "zero")
    found = _discrete(
        o, {"sampler": "ddpm" if ancestral else "ddim", "steps": min(50, schedule["T"])}, schedule, _SAME, "linspace"
    )
    notes = []
    if found.sampling["spacing"] == "linspace":
        notes.append("steps of a linspace grid are whole ones, where theirs lie between two of training")
    if found.sampling["spacing"] != "leading":
        notes.append(
            "sampling starts from noise of deviation 1 at the first step, theirs from that of its sigma / alpha, a little less"
        )
    return replace(found, notes=tuple(notes))


def _edm(o: Options) -> Process:
    schedule = {"kind": "edm", **{key: o.number(key) for key in ("sigma_min", "sigma_max", "rho")}}
    data = o.number("sigma_data")
    o.later("num_train_timesteps", None)  # has no effect on its grids
    sign = o.choice("prediction_type", {"epsilon": 1, "v_prediction": -1}, needed=True)
    spacing = o.choice("sigma_schedule", {"karras": "karras", "exponential": "linspace"}, before="karras")
    o.only("final_sigmas_type", "zero")
    o.end()
    diffusion = {"prediction": "x0", "weighting": "edm", "sigma_data": data, "precondition": True}
    return Process(schedule, diffusion, {"sampler": "euler", "steps": 50, "spacing": spacing}, sign=sign)


def _flow(o: Options) -> Process:
    T, shift = _times(o), o.number("shift")
    flags = ("use_dynamic_shifting", "invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    for key in (*flags, "stochastic_sampling"):
        o.only(key, False, None)
    o.only("shift_terminal", None, 0)
    for key in ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"):
        o.later(key, None)  # of dynamic shifting
    o.end()
    if not 0 < shift < math.inf:
        raise CheckpointError(f"{o.path}: shift={shift!r}; it must be a finite number above 0.")
    least = shift / T / (1 + (shift - 1) / T)  # theirs moves the least time here, and the whole grid once more
    schedule = {"kind": "flow", "shift": shift, "t_min": least}
    return Process(
        schedule, {"prediction": "flow", "weighting": "simple"}, {"sampler": "euler", "steps": 50, "spacing": "linspace"}, T
    )


def _ipndm(o: Options) -> Process:
    """iPNDM on the times of Dance Diffusion, whose nets predict v; the number of training steps has no effect there."""
    _times(o)
    o.only("trained_betas", None)
    o.end(LEFT)
    sampling = {"sampler": "plms", "steps": 100, "spacing": "trailing", "options": {"start": "zero"}}
    note = "plms takes the last x0 at the end, where theirs goes along the sum of its last guesses (end='sum')"
    return Process({"kind": "cosine", "crash": True}, {"prediction": "v", "weighting": "simple"}, sampling, notes=(note,))


READERS: dict[str, Callable[[Options], Process]] = {
    "DDPMScheduler": _ddpm,
    "DDIMScheduler": _ddim,
    "DPMSolverMultistepScheduler": _dpm,
    "PNDMScheduler": _pndm,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler,
    "EDMEulerScheduler": _edm,
    "FlowMatchEulerDiscreteScheduler": _flow,
    IPNDM: _ipndm,
}
