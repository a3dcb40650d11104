"""What comes from outside: packages of the extras, and what other packages register under our names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from zoo.errors import ConfigError, one_of

T = TypeVar("T")


def need(module: str, extra: str) -> Any:
    """An imported module of a package that `extra` installs; where it is missing, a ConfigError that names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(f'{package} is needed ({error}): pip install "diffusion-zoo[{extra}]".') from None


class Registry(Mapping[str, T]):
    """Things by name: ours, those that a program registers, and those that other packages offer as entry points.

    An entry point is imported when it is first asked for. A name that nobody has is a ConfigError with the nearest ones.

    Args:
        what: what the things are called in messages, e.g. "sampler".
        group: the group of entry points, e.g. "zoo.samplers".
    """

    def __init__(self, what: str, group: str) -> None:
        self.what, self.group = what, group
        self._found: dict[str, T] = {}
        self._offered: dict[str, EntryPoint] | None = None

    def register(self, name: str, thing: T) -> T:
        """Add a thing; returns it.

        Raises:
            ConfigError: another thing has the name.
        """
        if self._found.get(name, thing) is not thing:
            raise ConfigError(f"the {self.what} {name!r} exists already. Give yours another name.")
        self._found[name] = thing
        return thing

    def remove(self, name: str) -> None:
        """Take a registered thing away again."""
        self._found.pop(name, None)

    @property
    def offered(self) -> Mapping[str, EntryPoint]:
        """The entry points of the group, read once."""
        if self._offered is None:
            self._offered = {e.name: e for e in entry_points(group=self.group)}
        return self._offered

    def __getitem__(self, name: str) -> T:
        if name in self._found:
            return self._found[name]
        if name not in self.offered:
            raise one_of(self.what, name, sorted(self))
        try:
            thing = self.offered[name].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"the {self.what} {name!r} of another package cannot be imported: {error}.") from error
        return self.register(name, thing)

    def get(self, name: str, default: Any = None) -> Any:
        """The thing of this name, or the default where nobody has it: the error of `[]` is no KeyError."""
        if name not in self:
            return default
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found or name in self.offered

    def __iter__(self) -> Iterator[str]:
        yield from self._found
        yield from (name for name in self.offered if name not in self._found)

    def __len__(self) -> int:
        return sum(1 for _ in self)
