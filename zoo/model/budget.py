"""A limit on what a config may build: what the weights file beside it holds, known from the file's header alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from zoo import files
from zoo.errors import CheckpointError, ZooError

#: what a net may have beside its weights: tables that follow from its options, modules without weights (elements, numbers)
MOST_ELEMENTS, MOST_TENSORS, MOST_MODULES = 16_000_000, 1_000, 20_000

#: functions that make a tensor of a size that is said in numbers
FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.eye, torch.arange,
    torch.linspace, torch.logspace, torch.tril_indices, torch.triu_indices,
}  # fmt: skip


#: functions that draw a parameter's first values
DRAWS = {
    Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_normal_,
    init.kaiming_uniform_, init.xavier_normal_, init.xavier_uniform_,
}  # fmt: skip


class _Sizes(TorchFunctionMode):
    """Refuses tensors of more than `most` elements, before they are made where their size can be told before.

    Parameters stay zeros: the file fills all of them, so that drawing their first values would only take time.
    """

    def __init__(self, most: int, refuse: Callable[[str], None]) -> None:
        super().__init__()
        self.most, self.refuse = most, refuse

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            if kwargs.get("steps") is not None or not self._small(args) or not self._small(kwargs.get("size", ())):
                like = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory", "generator", "out")}
                self.check(func(*args, **like, device="meta"))
        elif func in DRAWS and isinstance(drawn := args[0] if args else kwargs.get("tensor"), nn.Parameter):
            drawn.detach().zero_()
            return drawn
        elif len(args) > 1 and isinstance(args[1], Tensor) and isinstance(args[0], Tensor):
            self.check_pair(args[0], args[1])
        out = func(*args, **kwargs)
        self.check(out)
        return out

    def check_pair(self, a: Tensor, b: Tensor) -> None:
        """Refuse what two tensors would be together, where they are broadcast."""
        if a.shape != b.shape and a.numel() * b.numel() > self.most:
            try:
                shape = torch.broadcast_shapes(a.shape, b.shape)
            except RuntimeError:
                return  # the function takes them otherwise
            if math.prod(shape) > self.most:
                self.refuse(f"a tensor of shape {tuple(shape)}")

    def _small(self, numbers: Any) -> bool:
        """Whether no tensor of these sizes can be too large: whole numbers whose product is not."""
        flat = [
            v
            for n in (numbers if isinstance(numbers, (tuple, list)) else (numbers,))
            for v in (n if isinstance(n, (tuple, list)) else (n,))
        ]
        return all(isinstance(v, int) for v in flat) and abs(math.prod(v or 1 for v in flat)) <= self.most

    def check(self, out: Any) -> None:
        """Refuse a tensor that is too large."""
        if isinstance(out, Tensor) and out.numel() > self.most:
            self.refuse(f"a tensor of shape {tuple(out.shape)}")


@contextmanager
def limited(
    shapes: Mapping[str, tuple[int, ...]], folder: Path, *, config: str = files.CONFIG, weights: str = files.WEIGHTS
) -> Iterator[None]:
    """Refuse, while a model is built in the block, what is larger than a weights file with tensors of these shapes.

    Args:
        config, weights: names of the files, for the error.

    Raises:
        CheckpointError: more or larger tensors or more modules than the file can be for; and whatever error of another kind
            the building ends in, since it is the config that led to it.
    """
    elements = 2 * sum(math.prod(s) for s in shapes.values()) + MOST_ELEMENTS
    left = {"elements": elements, "tensors": 2 * len(shapes) + MOST_TENSORS, "modules": 20 * len(shapes) + MOST_MODULES}
    here = threading.get_ident()

    def refuse(what: str) -> None:
        raise CheckpointError(
            f"{folder / config} describes a net with {what}, and {weights} holds {len(shapes)} tensors of "
            f"{sum(math.prod(s) for s in shapes.values())} numbers: they do not belong together."
        )

    def spend(what: str, amount: int) -> None:
        if threading.get_ident() == here:  # hooks are of all threads
            left[what] -= amount
            if left[what] < 0:
                refuse(f"more {what} than that can be for")

    def tensor(module: nn.Module, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and not isinstance(value, nn.parameter.UninitializedParameter):
            spend("tensors", 1)
            spend("elements", value.numel())

    def part(module: nn.Module, name: str, value: Any) -> None:
        spend("modules", 1)

    handles = [
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(part),
    ]
    try:
        with _Sizes(elements, refuse):
            yield
    except ZooError:
        raise
    except Exception as error:  # a net that was written for other numbers may end in any
        raise CheckpointError(
            f"{folder / config} describes a model that cannot be built: {type(error).__name__}: {error}."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
