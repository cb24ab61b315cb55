"""Trainers of which one speaks for all that the harness cannot tell from it."""

from collections.abc import Iterable

from dassl.engine import TRAINER_REGISTRY

import trainers  # noqa: F401  # registers
from tlla.methods import METHODS
from tlla.methods.base import Method

FLAGS = [name for name, value in vars(Method).items() if isinstance(value, bool)]  # what a method says of itself
TRAINERS = sorted(TRAINER_REGISTRY.registered_names())
LEARN = [name for name in TRAINERS if getattr(TRAINER_REGISTRY.get(name), "learned", "")]


def kind_of(name: str) -> str | tuple[bool, ...]:
    """All that tells the trainer of a method from other methods' trainers, which share its code; else the name."""
    return tuple(getattr(METHODS[name], flag) for flag in FLAGS) if name in METHODS else name


def one_of_each_kind(names: Iterable[str] = TRAINERS) -> list[str]:
    """The first trainer or method of each kind."""
    return sorted({kind_of(name): name for name in reversed(list(names))}.values())


EACH = one_of_each_kind()
