"""Registration that may be repeated, as one file can be imported as `trainers` and as `tlla.trainers`."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any


def register(registry: Any) -> Callable[[type], type]:
    """Class decorator that registers a class under its name in a Dassl registry.

    A second import of the same file replaces the first. A name that another file has registered, such as CoOp in a
    fork of CoOp, is kept for that file, with a warning.

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
