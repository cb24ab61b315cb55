"""What every config must keep to, whatever the trainer: found before anything is loaded, and named by its key."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from tlla.errors import InputError
from tlla.fingerprint import config_leaves

LARGEST = 2**31 - 1
LARGEST_SEED = 2**32 - 1  # numpy's
LONGEST_PATH = 4096

Rule = tuple[Callable[[Any], bool], str]

_at_least_0: Rule = (lambda value: value >= 0, "at least 0")
_at_least_1: Rule = (lambda value: value >= 1, "at least 1")
_path: Rule = (lambda value: "\0" not in value and len(value) < LONGEST_PATH, "a path")
RULES: Mapping[str, Rule] = {
    "OUTPUT_DIR": _path,
    "RESUME": _path,
    "DATASET.ROOT": _path,
    "MODEL.BACKBONE.NAME": _path,
    "MODEL.INIT_WEIGHTS": _path,
    "OPTIM.LR": _at_least_0,
    "OPTIM.WEIGHT_DECAY": _at_least_0,
    "OPTIM.MOMENTUM": _at_least_0,
    "OPTIM.MAX_EPOCH": _at_least_0,
    "DATALOADER.NUM_WORKERS": _at_least_0,
    "DATALOADER.TRAIN_X.BATCH_SIZE": _at_least_1,
    "DATALOADER.TRAIN_U.BATCH_SIZE": _at_least_1,
    "DATALOADER.TEST.BATCH_SIZE": _at_least_1,
    "INPUT.PIXEL_MEAN": (lambda value: len(value) == 3, "three numbers"),
    "INPUT.PIXEL_STD": (lambda value: len(value) == 3 and min(value) > 0, "three numbers above 0"),
    "INPUT.RRCROP_SCALE": (
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1,
        "(low, high) with 0 < low <= high <= 1",
    ),
    "TEST.SPLIT": (lambda value: value in ("val", "test"), "val or test"),
    "TEST.SAVE_EVERY": _at_least_0,
}


def check_limits(cfg: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises InputError for a value that no trainer can work with.

    Args:
        cfg: The config.
        defaults: By key, as `config_leaves` has them; they say what kind a value is of.
    """
    for key, value in config_leaves(cfg):
        _check_kind(key, value, defaults.get(key))
        fits, wanted = RULES.get(key, (None, ""))
        if fits and not fits(value):
            raise InputError(f"{key} must be {wanted}, but got {_shown(value)}")


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuses what yacs takes: it lets an empty value in the place of any other, and looks into no list."""
    if value is None and default is not None:
        raise InputError(f"{key} is empty (null), but a value such as {default!r} is needed")
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    if value is not None and None in numbers:
        raise InputError(f"{key} has an empty entry (null): {_shown(value)}")
    if isinstance(default, (list, tuple)) and default and all(map(_is_number, default)):
        if not all(map(_is_number, numbers)):
            raise InputError(f"{key} must hold numbers, as {default!r} does, but got {_shown(value)}")
    most = LARGEST_SEED if key.rpartition(".")[2] == "SEED" else LARGEST
    for number in filter(_is_number, numbers):
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{key} must be a finite number, but got {value!r}")
        if isinstance(number, int) and abs(number) > most:
            raise InputError(f"{key} must be a whole number of at most {most:,}, but got {_shown(value)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
