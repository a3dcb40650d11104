"""Other people's formats of models: what a package offers so that `zoo.load` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from zoo.extras import Registry


class Format(Protocol):
    """A format of model folders, offered as an entry point of the group `zoo.formats`, or registered in `FORMATS`."""

    def recognises(self, folder: Path) -> bool:
        """Whether the folder is of this format: by the names and plain content of its files, never by opening a pickle."""
        ...

    def load(self, folder: Path) -> Any:
        """The `zoo.Model` of the folder; a CheckpointError says what is missing.

        A format whose folders need not say on which noise a net was trained takes `diffusion`, too, see `zoo.load`.
        """
        ...

    # Two more that a format may have:
    #
    # def wanted(self, names: Collection[str]) -> list[str] | None
    #     Which files of a Hub repository are needed, by the names of all of them; None where it is not of this format.
    # def export(self, model: Model, folder: Path, **options) -> Path
    #     What `model.export(name, folder, **options)` writes.


FORMATS: Registry[Format] = Registry("format", "zoo.formats")
