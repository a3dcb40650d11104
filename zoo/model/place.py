"""Where the weights of a model are, and in which dtype: names as users write them, checked before anything is read."""

from __future__ import annotations

from typing import Any

import torch

from zoo.errors import ConfigError, ResourceError, one_of

#: the dtypes that a model runs in, by every name that is in use
DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "float": torch.float32,
    "float64": torch.float64, "fp64": torch.float64, "double": torch.float64,
    "float16": torch.float16, "fp16": torch.float16, "half": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip
#: in what the net multiplies while it samples: in its weights' own dtype, in bf16 (the sampler's state and t stay float32),
#: or in bf16 where the device does so in hardware
PRECISIONS = ("fp32", "bf16", "auto")


def precision_named(precision: Any) -> str:
    """One of `PRECISIONS`.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise one_of("precision", precision, PRECISIONS)
    return str(precision)


def dtype_named(dtype: Any) -> torch.dtype | None:
    """The dtype itself, or the one of a name such as "bf16"; None stays None.

    Raises:
        ConfigError: another dtype than `DTYPES` has, such as whole numbers, in which no net computes.
    """
    if dtype is None:
        return None
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise one_of("dtype", str(dtype), DTYPES)
    return found


def device_named(device: Any) -> torch.device | None:
    """The device itself, or the one of a name such as "cuda:0"; None stays None.

    Raises:
        ConfigError: a name that torch does not know, or a device that holds no values.
        ResourceError: a device that this machine does not have.
    """
    if device is None:
        return None
    allowed = "give cpu, cuda, cuda:1, mps, or another device of torch"
    try:
        found = torch.device(device)
    except (TypeError, RuntimeError, ValueError):
        raise ConfigError(f"device={device!r}: {allowed}.") from None
    if found.type == "meta":
        raise ConfigError(f"device={device!r} holds no values, so that nothing can be sampled; {allowed}.")
    try:
        torch.empty(1, device=found)
    except (AssertionError, RuntimeError, NotImplementedError, ImportError) as error:
        count = torch.cuda.device_count()
        raise ResourceError(
            f"device={device!r}: this machine cannot use it ({_first_line(error)}); it has {count} CUDA devices. Give cpu."
        ) from None
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
