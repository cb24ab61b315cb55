"""A table from names to classes or functions, filled by a decorator."""

import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


class RegistryError(KeyError, ValueError):
    """A name is unknown to a registry, or taken by something else."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class Registry:
    """Maps names to objects.

    Example:
        >>> TRAINERS = Registry("TRAINER")
        >>> @TRAINERS.register()
        ... class Mine: ...
        >>> TRAINERS.get("Mine") is Mine
        True
    """

    def __init__(self, name: str):
        self._name = name
        self._obj_map: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Callable:
        """Adds an object under its ``__name__``: ``@REGISTRY.register()`` or ``REGISTRY.register(obj)``.

        The same object from the same source file may come again, as when one file is imported under two names:
        the newer one takes the place.

        Args:
            obj: A class or function, or None when used as a decorator with brackets.
            force: Replace another object of the same name.

        Raises:
            RegistryError: Another object has the name, and ``force`` is not set.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        present = self._obj_map.get(obj.__name__)
        if present is not None and not force and _origin(present) != _origin(obj):
            raise RegistryError(
                f'An object named "{obj.__name__}" was already registered in "{self._name}" registry, from '
                f"{_origin(present)[0]}; rename the one in {_origin(obj)[0]}, or register it with force=True"
            )
        self._obj_map[obj.__name__] = obj
        return obj

    def get(self, name: str) -> Any:
        """Returns the object of that name.

        Raises:
            RegistryError: Nothing has that name; the message holds the nearest names.
        """
        if name not in self._obj_map:
            raise RegistryError(
                f'Object name "{name}" does not exist in "{self._name}" registry{_suggestion(name, self._obj_map)}'
            )
        return self._obj_map[name]

    def build(self, name: str, cfg: Any, **kwargs: Any) -> Any:
        """Builds what a name of the configuration stands for.

        Raises:
            ValueError: Nothing has that name; the message holds all names and the nearest.
        """
        check_availability(name, self._obj_map)
        if cfg.VERBOSE:
            print(f"Loading {self._name.lower()}: {name}")
        return self._obj_map[name](cfg, **kwargs)

    def registered_names(self) -> list[str]:
        """Returns all names, in order of registration."""
        return list(self._obj_map)


def check_availability(requested: str, available: Iterable[str]) -> None:
    """Checks that a name is one of those available.

    Raises:
        ValueError: It is not; the message holds all names and the nearest.
    """
    names = list(available)
    if requested not in names:
        raise ValueError(
            f"The requested one is expected to belong to {names}, but got [{requested}]{_suggestion(requested, names)}"
        )


def _suggestion(name: str, names: Iterable[str]) -> str:
    """Says which names are near ``name``, or that the module which registers it may not be imported."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)
    if near:
        return f" (do you mean {' or '.join(f'[{by_lower[key]}]' for key in near)}?)"
    return " (is the module that registers it imported?)"


def _origin(obj: Any) -> tuple[str, str]:
    """The source file (or the module, where there is no file) and the qualified name of an object."""
    module = sys.modules.get(obj.__module__)
    file = getattr(module, "__file__", None)
    return (os.path.realpath(file) if file else obj.__module__, obj.__qualname__)
