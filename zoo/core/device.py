"""Where tensors are: copies to a device that do not make the program wait, and arithmetic that is the same on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device | str) -> Tensor:
    """x on a device.

    To a GPU it goes through page-locked memory: a plain copy waits until the device has done all of its work, and then
    the device waits for the program.
    """
    if x.device.type == "cpu" and torch.device(device).type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def native_bf16(device: torch.device | str | None = None) -> bool:
    """Whether a device multiplies bf16 in hardware; elsewhere it is emulated, 10 to 50 times slower than fp32.

    Args:
        device: None for a GPU where there is one, else the CPU.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    found = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()) and found != "AVX2"


@contextmanager
def exact() -> Iterator[None]:
    """float32 convolutions in float32 inside the block, on a GPU as on a CPU.

    A GPU makes them in TF32 by default, which has 10 bits: samples would differ in the third digit. What mixed precision
    casts to bf16 stays so, and products of matrices are left as the program set them, by default in float32.
    """
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if convolutions is None:  # torch before 2.9
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before
        return
    found = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = found
