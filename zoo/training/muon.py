"""Muon: momentum whose update of each hidden matrix is made orthogonal; everything else takes AdamW's step.

`benchmarks/compare.py` measures what it is worth on a recipe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo.nets.blocks import is_end

#: the quintic's coefficients (Jordan et al. 2024)
A, B, C = 3.4445, -4.7750, 2.0315
#: columns for each row of a matrix from which on its products with itself are the smaller part of the work
WIDE = 1.6


def orthogonal(g: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of g (n, rows, columns), roughly: singular values in 0.7 to 1.2.

    Newton-Schulz iteration with the quintic of Jordan et al. 2024 ("Muon: an optimizer for hidden layers").
    """
    x = g.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    if dtype is not torch.bfloat16 and x.shape[-1] > WIDE * x.shape[-2]:
        x = _factor(x @ x.mT, steps) @ x
    else:
        for _ in range(steps):  # three products, each with its sum inside: few kernels, as small nets need on a GPU
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x.mT if tall else x).to(g.dtype)


def _factor(gram: Tensor, steps: int) -> Tensor:
    """What the iteration multiplies x (n, rows, columns) by in all, from x x^T alone: matrices of rows x rows.

    A step multiplies x by p = A + B gram + C gram^2, and so gram by p from both sides; p is a polynomial of gram, as all that
    came before it. For the matrix of a 3 x 3 convolution this takes less than half of the arithmetic. A small singular value
    is squared here, which float32 bears and bf16 does not.
    """
    whole = p = _polynomial(gram)
    for _ in range(steps - 1):
        gram = p @ gram @ p
        p = _polynomial(gram)
        whole = p @ whole
    return whole


def _polynomial(gram: Tensor) -> Tensor:
    """A + B gram + C gram^2."""
    p = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
    p.diagonal(dim1=-2, dim2=-1).add_(A)
    return p


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of linear and convolution layers inside a net: no biases, norms, embeddings, nor what the net calls its ends.

    A net says by `zoo.nets.blocks.end` which layers are ends: their rows or columns are data, not features.
    """
    ends = {id(layer) for part in module.modules() if is_end(part) for layer in part.modules()}
    found = set()
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)) and id(part) not in ends:
            found.add(id(part.weight))
    return [p for p in module.parameters() if id(p) in found and p.requires_grad]


class Muon(torch.optim.AdamW):
    """AdamW that treats the hidden matrices of a net by Muon.

    Args:
        module: the net, of which the parameters that require a gradient are trained.
        lr: one learning rate for both: the update of a matrix is scaled to the size that AdamW's has
            (Liu et al. 2025, "Muon is scalable", Eq. 4: 0.2 sqrt(max(rows, columns))).
        momentum: of the matrices' gradient, with Nesterov's look-ahead.
        dtype: of the Newton-Schulz products; bf16 where the machine multiplies it in hardware.
        processes: how many train together; each makes a share of the updates orthogonal and gives it to the others.
        betas, weight_decay: AdamW's, of everything else.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        *,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
        processes: int = 1,
        **adamw: Any,
    ) -> None:
        matrices = hidden_matrices(module)
        chosen = {id(p) for p in matrices}
        others = [p for p in module.parameters() if id(p) not in chosen and p.requires_grad]
        groups = [{"params": self._held(matrices), "matrices": True}, {"params": self._held(others), "matrices": False}]
        super().__init__([g for g in groups if g["params"]], lr=lr, **adamw)
        self.momentum, self.dtype, self.processes = momentum, dtype, processes

    def _held(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """What this process has of the module's parameters, to take its steps on."""
        return parameters

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; the gradients of the matrices are used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["matrices"]:
                self._matrices(group)
        super().step()
        return loss

    def _matrices(self, group: dict[str, Any]) -> None:
        moved = [p for p in group["params"] if p.grad is not None]
        if not moved:
            return
        gradients = [p.grad for p in moved]
        for p in moved:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            p.grad = None  # AdamW's step leaves this one alone
        # all matrices in one call each: on a GPU a call for each of them takes longer than its arithmetic
        momenta = [self.state[p]["momentum"] for p in moved]
        torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
        torch._foreach_lerp_(gradients, momenta, self.momentum)
        updates = self._updates(moved, gradients, group["lr"])
        if group["weight_decay"]:
            torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(moved, updates)

    def _updates(self, moved: list[nn.Parameter], gradients: list[Tensor], lr: float) -> list[Tensor]:
        """What is added to each parameter, for the gradients with their momentum."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, p in enumerate(moved):
            alike[len(p), p.numel() // len(p)].append(i)
        stacks = [torch.stack([gradients[i].reshape(shape) for i in rows]) for shape, rows in alike.items()]
        updates: dict[int, Tensor] = {}
        for ((rows, columns), places), done in zip(alike.items(), self._orthogonal(stacks), strict=True):
            done = done * scale(lr, rows, columns)
            updates |= {i: update.view(moved[i].shape) for i, update in zip(places, done, strict=True)}
        return [updates[i] for i in range(len(moved))]

    def _orthogonal(self, stacks: list[Tensor]) -> list[Tensor]:
        """`orthogonal` of each stack. All processes have the same gradients, so each takes its turn at the matrices."""
        if self.processes == 1 or not stacks:
            return [orthogonal(stack, dtype=self.dtype) for stack in stacks]
        flat = stacks[0].new_zeros(sum(stack.numel() for stack in stacks), dtype=self.dtype)
        parts = [x.view(stack.shape) for x, stack in zip(flat.split([s.numel() for s in stacks]), stacks, strict=True)]
        turn = dist.get_rank()
        for part, stack in zip(parts, stacks, strict=True):
            mine = slice(turn % self.processes, None, self.processes)
            part[mine] = orthogonal(stack[mine], dtype=self.dtype).to(self.dtype)
            turn -= len(stack)
        dist.all_reduce(flat)  # of each matrix all but one process hold zeros
        return [part.to(stack.dtype) for part, stack in zip(parts, stacks, strict=True)]


def scale(lr: float, rows: int, columns: int) -> float:
    """What an orthogonal matrix is multiplied by: its update then has the size that AdamW's has."""
    return -lr * 0.2 * max(rows, columns) ** 0.5
