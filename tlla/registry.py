"""Registration that is safe to repeat: the same file can be imported as `trainers` and as `tlla.trainers`."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any


def register(registry: Any) -> Callable[[type], type]:
    """Class decorator that registers under the class's name in a registry of Dassl's kind.

    A second import of the same file replaces the first. A name that belongs to somebody else, such as the CoOp of a
    CoOp fork, is left to its owner, with a warning.

    >>> from dassl.utils import Registry
    >>> register(registry := Registry("TRAINER"))(type("CoOp", (), {})) is registry.get("CoOp")
    True
    """

    def decorate(cls: type) -> type:
        name = cls.__name__
        if name in registry.registered_names():
            owner = registry.get(name)
            if _source(owner) != _source(cls):
                warnings.warn(
                    f"{name} is already registered by {owner.__module__} ({_source(owner)}), which is kept; "
                    f"{cls.__module__}.{name} can still be imported",
                    stacklevel=2,
                )
                return cls
        registry.register(force=True)(cls)
        return cls

    return decorate


def _source(cls: type) -> str:
    try:
        return inspect.getfile(cls)
    except (OSError, TypeError):
        return cls.__module__
