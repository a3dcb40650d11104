"""A model of backbones, which also builds around a motif."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.contract.domain import Samples
from zoo.errors import ConfigError
from zoo.model.model import Model
from zoo.model.plan import make_plan
from zoo.protein.backbone import Backbone
from zoo.protein.codec import FOLLOW
from zoo.protein.data import read_motif
from zoo.protein.rigid import lay


class BackboneModel(Model):
    """A model whose in-painting takes a motif that may lie anywhere in space."""

    def inpaint(
        self,
        known: Any = None,
        where: Any = None,
        n: int = 1,
        *,
        motif: Backbone | str | None = None,
        start: int | None = None,
        progress: bool | None = None,
        on_step: Any = None,
        **arguments: Any,
    ) -> Samples:
        """Chains around a motif, whose backbone comes out as it went in, turned and shifted as a whole.

        At each step the motif is superposed on the prediction and takes its place; the net hears that, and the last step
        of every sampler returns it.

        Args:
            motif: residues of a file, "1abc.pdb:A20-35", or a `Backbone`; None in-paints `known` as other models do.
            start: number of the motif's first residue in the chain, from 1; default: in the middle.
            n, **arguments: as for `sample`; length is needed.

        Raises:
            ConfigError: no length, or a motif that does not fit into it. DataError: a motif that cannot be read.
        """
        shown: dict[str, Any] = {"progress": progress, "on_step": on_step}
        if motif is None:
            if known is None or where is None:
                raise ConfigError('inpaint: give motif="file.pdb:A20-35" and a length, or known and where.')
            return super().inpaint(known, where, n, **shown, **arguments)
        held = read_motif(motif) if isinstance(motif, str) else motif
        length, size = arguments.get("length"), len(held)
        if isinstance(length, bool) or not isinstance(length, int):
            raise ConfigError(f"length={length!r}: a chain around a motif needs one length, a whole number.")
        first = (length - size) // 2 if start is None else start - 1
        if not 0 <= first <= length - size:
            place = "" if start is None else f" from residue {start} on"
            raise ConfigError(f"a motif of {size} residues{place} does not fit into length={length}.")
        plan = make_plan(self.recipe, self.diffusion.schedule, self.codec, n, arguments)
        fixed = self.codec.encode(held).to(self.device, self.dtype).flatten(0, 1)
        where = torch.zeros(length, 1, 1, dtype=torch.bool, device=self.device)
        where[first : first + size] = True

        def laid(x0: Tensor) -> Tensor:
            return self.codec.project(lay(fixed, x0.flatten(1, 2), 3 * first, FOLLOW).view_as(x0))

        return self._collect(plan, **shown, known=laid, where=where)
