"""Training of a net that no device holds: weights, gradients, moments and averages are shared out over processes (FSDP).

Each process keeps some rows of every parameter (torch's `fully_shard`, Zhao et al. 2023, arXiv:2304.11277). A block's weights
are gathered when it runs, forward and backward, and dropped again; its gradients are averaged, and each process gets those
of its own rows. A pass of the net is therefore something that all processes do together.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_

from zoo import files
from zoo.contract.dataset import Batch
from zoo.errors import ConfigError
from zoo.model import checkpoint
from zoo.model.golden import golden_inputs, golden_outputs
from zoo.training.ema import EMA
from zoo.training.freeze import matching
from zoo.training.muon import Muon, orthogonal, scale
from zoo.training.trainer import Loss, Trainer

#: numbers of matrices that a process makes orthogonal at once, at most, where a single one has not more
AT_ONCE = 1 << 24


def check_sharded(loop: Mapping[str, Any]) -> None:
    """Refuse what does not go together with a net that is shared out, before anything is read or written.

    Args:
        loop: how the run is watched, see `Trainer.run`.

    Raises:
        ConfigError: one process, or `compile`.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        raise ConfigError(
            "fsdp=True (--fsdp) shares a net out over several processes, and here is one. Start them by torchrun or accelerate "
            "launch: torchrun --standalone --nproc_per_node 8 -m zoo train ... --fsdp; or leave it out."
        )
    if loop.get("compile"):
        raise ConfigError("fsdp=True and compile=True (--fsdp, --compile) do not go together: leave one of them out.")


# ---------------------------------------------------------------- what is shared out


@dataclass(frozen=True)
class Shard:
    """What this process has of a parameter.

    Attributes:
        whole: the parameter as the net has it; its shape is that of all of it.
        local: the own rows, in the same memory: what the optimizer sees. All of it, where it has no rows (a scalar).
        first: the first of the rows.
    """

    whole: nn.Parameter
    local: nn.Parameter
    first: int

    @property
    def scalar(self) -> bool:
        """Whether each process has all of it."""
        return self.whole.ndim == 0

    def of(self, value: Tensor) -> Tensor:
        """The own rows of a tensor that is shaped like the whole parameter."""
        return value if self.scalar else value.narrow(0, self.first, len(self.local))


def units(net: nn.Module) -> list[nn.Module]:
    """The parts of a net whose weights are gathered one part after the other, inner ones first.

    They are the elements of lists of modules, and of sequences those that have parts themselves. One that shares a parameter
    with the rest of the net is none.
    """
    owners: dict[int, set[int]] = defaultdict(set)
    for module in net.modules():
        for p in module.parameters(recurse=False):
            owners[id(p)].add(id(module))
    parts: dict[int, nn.Module] = {}
    for holder in net.modules():
        if isinstance(holder, (nn.ModuleList, nn.Sequential)):
            for part in holder:
                block = isinstance(holder, nn.ModuleList) or any(True for _ in part.children())
                if block and type(part).forward is not nn.Module.forward:
                    parts[id(part)] = part
    found, taken = list[nn.Module](), set[int]()
    for part in [m for m in net.modules() if id(m) in parts][::-1]:  # what is inside of a part comes after it
        own = {id(p) for p in part.parameters()} - taken
        inside = {id(m) for m in part.modules()}
        if own and all(owners[k] <= inside for k in own):
            found.append(part)
            taken |= own
    return found


class Shards:
    """A net that is shared out, by the names of its parameters.

    Args:
        net: whole, the same in all processes or not: the first one's weights are taken. It is changed.
        device: of this process.

    Raises:
        ConfigError: a net that cannot be shared out.
    """

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        self.net, self.device = net, device
        self.count, self.rank = dist.get_world_size(), dist.get_rank()
        check_net(net)
        for p in net.parameters():
            # a convolution's weights may have channels last, and rows of them are wanted
            p.data = p.data.contiguous()
        scalars = {p for p in net.parameters() if p.ndim == 0}
        mesh = init_device_mesh(device.type, (self.count,))
        parts = [*units(net), net]
        #: parameters of the largest part: so many are whole at a time
        self.largest = 0
        taken = set[int]()
        for part in parts:
            own = [p for p in part.parameters() if id(p) not in taken]
            taken |= {id(p) for p in own}
            self.largest = max(self.largest, sum(p.numel() for p in own))
            for p in own:
                p.data = p.data.to(device)
                dist.broadcast(p.data, 0)
            fully_shard(part, mesh=mesh, ignored_params=scalars)
            taken |= {id(p) for p in part.parameters()}  # they are other objects now
        self.parts = len(parts)
        for b in net.buffers():
            b.data = b.data.to(device)
            dist.broadcast(b.data, 0)
        self.shards = {name: self._shard(p) for name, p in net.named_parameters()}
        self.by_id = {id(s.whole): s for s in self.shards.values()}
        kept = net.state_dict().keys()
        #: what the net counts in training, as the statistics of a batch norm
        self.counted = [b for name, b in net.named_buffers() if name in kept]

    def _shard(self, p: nn.Parameter) -> Shard:
        if not isinstance(p.data, DTensor):
            return Shard(p, p, 0)
        local = nn.Parameter(p.data.to_local(), requires_grad=p.requires_grad)
        return Shard(p, local, min(self.rank * self.rows(len(p)), len(p)))

    def rows(self, length: int) -> int:
        """How many of a parameter's rows a process has; the last ones have fewer, or none."""
        return -(-length // self.count)

    def trained(self) -> list[Shard]:
        """What has a gradient."""
        return [s for s in self.shards.values() if s.local.requires_grad]

    def gather(self) -> None:
        """Make the weights whole that belong to no part: for a look at a net that is not called as a whole."""
        if isinstance(self.net, FSDPModule):
            self.net.unshard()

    def drop(self) -> None:
        """Leave each process with its own rows, as a pass without a backward pass does not."""
        for module in self.net.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def same_buffers(self) -> None:
        """What the net counts in training is what the first process counted."""
        for b in self.counted:
            dist.broadcast(b.data, 0)

    # ------------------------------------------------------------ gradients

    def take_gradients(self) -> None:
        """The gradients of the own rows, averaged over processes, to where the optimizer sees them."""
        for s in self.trained():
            gradient, s.whole.grad = s.whole.grad, None
            if isinstance(gradient, DTensor):
                gradient = gradient.to_local()
            elif gradient is not None:
                dist.all_reduce(gradient)
                gradient = gradient / self.count
            s.local.grad = gradient

    def clip(self, most: float) -> Tensor:
        """Make the gradients smaller where their norm, over all processes, is above `most`; returns the norm."""
        trained = [s for s in self.trained() if s.local.grad is not None]
        mine = [s.local.grad for s in trained if s.local.grad is not None and (self.rank == 0 or not s.scalar)]
        square = torch.zeros((), device=self.device)
        if mine:
            square += torch.stack(torch._foreach_norm(mine)).square().sum()
        dist.all_reduce(square)
        norm = square.sqrt()
        clip_grads_with_norm_([s.local for s in trained], most, norm)
        return norm

    # ------------------------------------------------------------ whole tensors

    def whole(self, value: Tensor, shape: torch.Size) -> Tensor:
        """All rows of a tensor, on the CPU of the first process; others have something without rows.

        All processes call it, in the same order.
        """
        size = self.rows(shape[0]) * math.prod(shape[1:])
        if not size:
            return value.new_zeros(shape).cpu()
        own = value.new_zeros(size)
        own[: value.numel()] = value.flatten()
        if self.rank:
            dist.gather(own, dst=0)
            return value.new_zeros(0)
        found = value.new_empty(self.count * size)
        dist.gather(own, list(found.chunk(self.count)), dst=0)
        return found[: math.prod(shape)].view(shape).cpu()


def check_net(net: nn.Module) -> None:
    """Refuse a net that cannot be shared out.

    Raises:
        ConfigError: it is compiled, or its numbers are of several kinds.
    """
    if any(name != files.plain_name(name) for name, _ in net.named_parameters()):
        raise ConfigError("fsdp=True: the net is compiled by torch.compile. Give the net itself.")
    kinds = sorted({str(p.dtype) for p in net.parameters()})
    if len(kinds) > 1 or not all(p.is_floating_point() for p in net.parameters()):
        raise ConfigError(f"fsdp=True: the net's parameters are {', '.join(kinds)}; make them of one kind: net.float().")


class ShardedEMA(EMA):
    """The average of each process's own rows."""

    def __init__(self, shards: Shards, decay: float) -> None:
        self.shards = shards
        super().__init__(shards.net, decay)

    def _named(self, module: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        return [(name, s.local) for name, s in self.shards.shards.items()]

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The net with averaged weights inside the block: weights and averages change places."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        self.shards.drop()
        for name, p in self._named(self.shards.net):
            own = p.detach().clone()
            p.copy_(self.shadow[name])
            self.shadow[name].copy_(own)


class ShardedMuon(Muon):
    """Muon on matrices of which each process has some rows.

    A matrix with its momentum goes to one process, which makes it orthogonal and sends each of the others its rows: of a
    matrix everything is sent twice, once to a process and once back, however many they are.
    """

    def __init__(self, shards: Shards, **options: Any) -> None:
        self.shards = shards
        self.shapes = {id(s.local): s.whole.shape for s in shards.shards.values()}
        super().__init__(shards.net, **options)

    def _held(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        found = [self.shards.by_id[id(p)] for p in parameters]
        return [s.local for s in found]

    def _updates(self, moved: list[nn.Parameter], gradients: list[Tensor], lr: float) -> list[Tensor]:
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, p in enumerate(moved):
            shape = self.shapes[id(p)]
            alike[shape[0], math.prod(shape[1:])].append(i)
        updates: dict[int, Tensor] = {}
        turn = 0
        for (rows, columns), places in alike.items():
            each = self.shards.count * max(1, AT_ONCE // (rows * columns))
            for first in range(0, len(places), each):
                some = places[first : first + each]
                done = self._exchanged([gradients[i].reshape(-1, columns) for i in some], rows, turn)
                updates |= {
                    i: update.to(moved[i].dtype).mul_(scale(lr, rows, columns)).view(moved[i].shape)
                    for i, update in zip(some, done, strict=True)
                }
                turn += len(some)
        return [updates[i] for i in range(len(moved))]

    def _exchanged(self, parts: list[Tensor], rows: int, turn: int) -> list[Tensor]:
        """The own rows of the orthogonal matrices, for the own rows (r, columns) of each of them.

        Args:
            rows: of a whole matrix. turn: the process that takes the first matrix; the next one takes the second, and so on.
        """
        count, rank = self.shards.count, self.shards.rank
        columns, most = parts[0].shape[1], self.shards.rows(rows)
        starts = [min(k * most, rows) for k in range(count + 1)]
        own = [end - start for start, end in pairwise(starts)]
        theirs = [list(range((k - turn) % count, len(parts), count)) for k in range(count)]
        taken = len(theirs[rank])
        sent = torch.cat([parts[i].to(self.dtype).flatten() for mine in theirs for i in mine])
        out, back = [len(mine) * own[rank] * columns for mine in theirs], [taken * n * columns for n in own]
        received = sent.new_empty(sum(back))
        dist.all_to_all_single(received, sent, back, out)
        blocks = [x.view(taken, n, columns) for x, n in zip(received.split(back), own, strict=True)]
        if taken:
            done = orthogonal(torch.cat(blocks, 1), dtype=self.dtype)
            received = torch.cat([x.flatten() for x in done.split(own, 1)])
        dist.all_to_all_single(sent, received, out, back)
        found: dict[int, Tensor] = {}
        for mine, x in zip(theirs, sent.split(out), strict=True):
            found |= dict(zip(mine, x.view(len(mine), own[rank], columns), strict=True))
        return [found[i] for i in range(len(parts))]


# ---------------------------------------------------------------- the trainer


class ShardedTrainer(Trainer):
    """The trainer of a net that is shared out over the processes. Its checkpoints are those of every trainer."""

    together = True

    def set_up(self) -> None:
        if self.accelerator.num_processes == 1:
            check_sharded({})
        net = self.model.denoiser
        for child in self.model.children():
            if child is not net:
                child.to(self.device)
        total = sum(p.numel() for p in net.parameters())
        self.shards = Shards(net, self.device)
        self.optimizer = self.make_optimizer()
        self.ema = ShardedEMA(self.shards, self.options.ema)
        self.net = Loss(self.model, self.objective)
        self.note(
            f"fsdp: {total / 1e6:.2f} M parameters are shared out over {self.shards.count} processes in {self.shards.parts} "
            f"parts, of which the largest has {self.shards.largest / 1e6:.2f} M: so many are whole at a time."
        )

    def _muon(self, **options: Any) -> torch.optim.Optimizer:
        return ShardedMuon(self.shards, **options)

    def train_step(self, batches: Iterator[Batch]) -> tuple[Tensor, Tensor]:
        self.shards.same_buffers()
        return super().train_step(batches)

    def _clip(self) -> Tensor:
        self.shards.take_gradients()
        return self.shards.clip(self.options.clip_norm)

    def trial(self, batch: Batch) -> None:
        try:
            super().trial(batch)
        except RuntimeError as error:
            if "DTensor" not in str(error):
                raise
            raise ConfigError(
                f"fsdp=True: {type(self.model.denoiser).__name__} uses the weights of an element of a list of modules "
                "otherwise than by calling it, so that nobody gathers them. Call the element, or keep it in a nn.ModuleDict."
            ) from error

    def _backward_alone(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)
        for s in self.shards.trained():
            s.whole.grad = None

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with uncached(), super()._autocast(), narrowed_again() if self.precision == "bf16" else nullcontext():
            yield

    # ------------------------------------------------------------ checkpoints

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, s.local) for name, s in self.shards.shards.items()]

    def _whole(self, name: str, value: Tensor) -> Tensor:
        if isinstance(value, DTensor):
            return self.shards.whole(value.to_local(), value.shape)
        shard = self.shards.shards.get(name)
        if shard is None or shard.scalar or value.ndim == 0:
            return value
        return self.shards.whole(value, shard.whole.shape)

    def _part(self, name: str, value: Tensor) -> Tensor:
        # a copy: the value lies in the file, which the next checkpoint takes the place of
        return (value if value.ndim == 0 else self.shards.shards[name].of(value)).clone()

    def _like(self, name: str, value: Tensor) -> Tensor:
        return torch.empty(self.shards.shards[name].whole.shape, dtype=value.dtype, device="meta")

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor], path: Path) -> None:
        own = files.state_of(self.model.denoiser)
        files.check_tensors(tensors, own, path, exact=True)
        files.check_finite(tensors, path)
        for name, mine in own.items():
            if isinstance(mine, DTensor):
                rows = self.shards.rows(len(mine))
                mine = mine.to_local()
                mine.copy_(tensors[name].narrow(0, min(self.shards.rank * rows, len(tensors[name])), len(mine)))
            else:
                mine.copy_(tensors[name])

    # ------------------------------------------------------------ a look at the net

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        with uncached(), super().evaluated():
            self.shards.gather()
            yield

    @torch.no_grad()
    def export(self) -> None:
        inputs = golden_inputs(self.model)
        with self.evaluated():
            golden = golden_outputs(self.model, inputs)
            self.shards.drop()
            state = {k: self._whole(k, v) for k, v in files.state_of(self.model.denoiser).items()}
            if self.main:
                self.keep_place()
                checkpoint.save(self.model, self.out, net=state, golden=golden)

    def finish(self) -> None:
        self.shards.drop()
        super().finish()
        shards = self.shards.shards
        for name in matching(list(shards), self.options.freeze):  # for the run
            shards[name].whole.requires_grad_(True)


@contextmanager
def uncached() -> Iterator[None]:
    """What autocast makes of weights does not outlive them inside the block: it would be half as large as the whole net."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def narrowed_again() -> AbstractContextManager[None]:
    """Keep no narrow copies of weights for the backward pass: they are made again, from weights that are gathered again."""
    return torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(x: Tensor) -> Any:
    base = x if x._base is None else x._base
    node = base.grad_fn
    if node is not None and node.name() == "ToCopyBackward0" and base.dtype != torch.float32:
        source = getattr(node.next_functions[0][0], "variable", None)
        if source is not None:
            return source, base.dtype, base.stride(), x.shape, x.stride(), x.storage_offset()
    return x.detach()


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    source, dtype, strides, shape, stride, offset = packed
    base = torch.empty_strided(source.shape, strides, dtype=dtype, device=source.device).copy_(source.detach())
    return base.as_strided(shape, stride, offset)
