"""Checks of the public API's arguments: each returns the value in one type, or raises one sentence."""

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import InputError, nearest

MOST = 2**63 - 1  # largest whole number, as for seeds


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of Python, NumPy or torch; True and False are not.

    >>> is_whole(np.int64(3)), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    if isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (bool, torch.bool):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError):
        return False
    return True


def whole(name: str, value: Any, least: int = 0, most: int = MOST) -> int:
    """The value as an int; InputError unless it is a whole number from `least` to `most`.

    >>> whole("top_s", 0, least=1)
    Traceback (most recent call last):
    tlla.errors.InputError: top_s must be a whole number, at least 1, but got 0
    """
    if not is_whole(value) or not least <= operator.index(value) <= most:
        limit = f"at least {least}" if most == MOST else f"from {least} to {most:,}"
        raise InputError(f"{name} must be a whole number, {limit}, but got {short(value)}")
    return operator.index(value)


def number(name: str, value: Any, least: float = 0.0) -> float:
    """The value as a float; InputError unless it is a single finite number, at least `least`.

    >>> number("rho", torch.tensor([0.5]))
    0.5
    """
    try:
        found = float(value) if not isinstance(value, (str, bytes, bool)) else float("nan")
    except (TypeError, ValueError, RuntimeError):  # torch raises the last for more than one element
        found = float("nan")
    if not least <= found < float("inf"):
        raise InputError(f"{name} must be a finite number >= {least:g}, but got {short(value)}")
    return found


def flag(name: str, value: Any) -> bool:
    """The value as a bool; InputError for anything else, as the text "False" would count as true.

    >>> flag("augmix", "False")
    Traceback (most recent call last):
    tlla.errors.InputError: augmix must be True or False, but got 'False'
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, but got {short(value)}")
    return bool(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Raises InputError unless the value is one of the known texts.

    >>> one_of("VOTE", "median", ("majority", "mean_prob"))
    Traceback (most recent call last):
    tlla.errors.InputError: VOTE must be one of ('majority', 'mean_prob'), but got 'median'
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be one of {known}, but got {value!r}")


def path(name: str, value: Any) -> Path:
    """The value as a path, with ~ expanded; InputError if it is neither a string nor a path.

    >>> path("folder", "~/runs") == Path.home() / "runs"
    True
    """
    if not is_path(value) or not os.fspath(value):
        raise InputError(f"{name} must be a path, but got {short(value)}")
    return Path(value).expanduser()


def file_path(name: str, value: Any) -> Path:
    """The value as the path of a file to write; InputError if it is not a path, or is a folder.

    >>> file_path("path", ".")
    Traceback (most recent call last):
    tlla.errors.InputError: path must be the name of a file, but . is a folder
    """
    found = path(name, value)
    if found.is_dir():
        raise InputError(f"{name} must be the name of a file, but {found} is a folder")
    return found


def folder_path(name: str, value: Any) -> Path:
    """The value as the path of a folder to write to; InputError if it is not a path, or is a file.

    >>> folder_path("folder", "fruit.png")
    Traceback (most recent call last):
    tlla.errors.InputError: folder must be a folder, but fruit.png is a file
    """
    found = path(name, value)
    if found.is_file():
        raise InputError(f"{name} must be a folder, but {found} is a file")
    return found


def is_path(value: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a value is a path, as a string or an object; bytes are not.

    >>> is_path("a.png"), is_path(Path("a.png")), is_path(b"a.png")
    (True, True, False)
    """
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)


def floats(name: str, value: Any) -> Tensor:
    """Real numbers as a float32 tensor, from any dtype or NumPy; InputError if any is not finite.

    >>> floats("view_features", np.array([1, 2]))
    tensor([1., 2.])
    """
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be a tensor or an array of numbers, but got {short(value)}") from error
    if found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"{name} must be real numbers, but got {found.dtype}")
    if not found.isfinite().all():
        raise InputError(f"{name} must be finite, but some values are NaN or infinite")
    return found.float()


def sequence(name: str, value: Any, what: str) -> list[Any]:
    """The value as a list; InputError for a single item in place of a list, and for a set or a dict.

    >>> sequence("images", "a.png", "paths")
    Traceback (most recent call last):
    tlla.errors.InputError: images must be a list of paths, but got 'a.png'
    """
    if isinstance(value, (str, bytes, dict, set, frozenset, os.PathLike)) or not hasattr(value, "__iter__"):
        raise InputError(f"{name} must be a list of {what}, but got {short(value)}")
    try:
        return list(value)
    except TypeError as error:  # a zero-dimensional array
        raise InputError(f"{name} must be a list of {what}, but got {short(value)}") from error


def pair(name: str, value: Any) -> tuple[float, float]:
    """The value as two floats, such as a range.

    >>> pair("crop_scale", [0.5, 1])
    (0.5, 1.0)
    """
    found = [number(name, one) for one in sequence(name, value, "two numbers")]
    if len(found) != 2:
        raise InputError(f"{name} must be two numbers, but got {short(value)}")
    return found[0], found[1]


def check_image(name: str, value: Any) -> None:
    """Raises InputError unless the value is a path or a Pillow image.

    >>> check_image("image 0", np.zeros((8, 8, 3)))
    Traceback (most recent call last):
    tlla.errors.InputError: image 0 is of type ndarray, expected a path or a Pillow image: convert an array by
    PIL.Image.fromarray
    """
    if not is_path(value) and not isinstance(value, Image.Image):
        raise InputError(
            f"{name} is of type {type(value).__name__}, expected a path or a Pillow image: "
            "convert an array by PIL.Image.fromarray"
        )


def labels(value: Any, class_names: Sequence[str]) -> list[int]:
    """Class numbers, 0 to K - 1, from numbers or class names.

    >>> labels(["dog", 0], ["cat", "dog"])
    [1, 0]
    """
    found = sequence("the labels", value.tolist() if hasattr(value, "tolist") else value, "class numbers or names")
    number_of = {name: label for label, name in enumerate(class_names)}
    return [_label(one, number_of) for one in found]


def _label(value: Any, number_of: dict[str, int]) -> int:
    if isinstance(value, str):
        if value not in number_of:
            raise InputError(f"the label {value!r} is not a class name: {nearest(value, list(number_of))}")
        return number_of[value]
    if not is_whole(value) or not 0 <= operator.index(value) < len(number_of):
        most = len(number_of) - 1
        raise InputError(f"labels must be whole numbers from 0 to {most}, or class names, but got {short(value)}")
    return operator.index(value)


def short(value: Any) -> str:
    """A value as a message shows it: arrays by type and shape, long texts cut.

    >>> short(torch.zeros(2, 3))
    'a Tensor of shape (2, 3), torch.float32'
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}, {value.dtype}"
    text = repr(value).replace("\n", " ")
    text = text if len(text) <= 80 else f"{text[:80]}..."
    return text if isinstance(value, (str, int, float, type(None))) else f"{text} ({type(value).__name__})"
