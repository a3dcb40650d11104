"""Chains around a motif that may lie anywhere in space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.contract.domain import Generator
from zoo.core.steer import Place
from zoo.errors import ConfigError
from zoo.protein.backbone import Backbone
from zoo.protein.codec import FOLLOW
from zoo.protein.data import read_motif
from zoo.protein.rigid import lay
from zoo.values import plain, whole


def scaffold(model: Generator, motif: Backbone | str, length: Any, start: Any = None) -> Place:
    """The steer of a motif, whose backbone comes out as it went in, turned and shifted as a whole.

    At each step the motif is superposed on the prediction and takes its place; the net is told so, and the last step of
    every sampler returns it.

    Args:
        motif: residues of a file, "1abc.pdb:A20-35", or a `Backbone`.
        length: residues of the whole chain.
        start: number of the motif's first residue in the chain, from 1; None: in the middle.

    Raises:
        ConfigError: no length, or a motif that does not fit into it. DataError: a motif that cannot be read.
    """
    held = read_motif(motif) if isinstance(motif, str) else motif
    total, size = plain(length), len(held)
    if isinstance(total, bool) or not isinstance(total, int):
        raise ConfigError(f"length={length!r}: a chain around a motif needs one length, a whole number.")
    first = (total - size) // 2 if start is None else whole(start, "start") - 1
    if not 0 <= first <= total - size:
        place = "" if start is None else f" from residue {start} on"
        raise ConfigError(f"a motif of {size} residues{place} does not fit into length={total}.")
    codec, encoded = model.codec, model.encoded(held)
    fixed = encoded.flatten(0, 1)
    where = torch.zeros(total, 1, 1, dtype=torch.bool, device=encoded.device)
    where[first : first + size] = True

    def laid(x0: Tensor) -> Tensor:
        return codec.project(lay(fixed, x0.flatten(1, 2), 3 * first, FOLLOW).view_as(x0))

    return Place(laid, where)
