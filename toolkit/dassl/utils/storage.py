"""What may be in a checkpoint, and how its file comes into being."""

import os
import uuid
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_TEMPORARY = ".partial"


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read, or used; the message names the file and says what to do."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A checkpoint file is not there."""


def to_plain(value: Any, where: str) -> Any:
    """Copies a nested state with only what ``torch.load(weights_only=True)`` reads."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # torch.save writes a tensor's whole storage: a slice of a big one must not take it along.
        return value.clone() if value.untyped_storage().nbytes() > value.numel() * value.element_size() else value
    if isinstance(value, np.generic):  # before float, which np.float64 is, too
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {to_plain(key, where): to_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        items = [to_plain(item, where) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise CheckpointError(
        f"{where} holds a {type(value).__module__}.{type(value).__qualname__}; a checkpoint takes tensors, numbers, "
        "strings, None, lists and dicts only: give its owner a state_dict() of such values"
    )


def write_atomically(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Writes to a temporary file beside ``path`` and moves it there: at any moment the old or the new file is whole."""
    temporary = f"{path}.{uuid.uuid4().hex[:12]}{_TEMPORARY}"  # another process may be writing the same file
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, f"{error.strerror or error}: it cannot be written", path) from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def remove_partial_files(directory: str) -> None:
    """Removes what a run that was killed while writing has left in a model's directory."""
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name.endswith(_TEMPORARY):
            os.remove(os.path.join(directory, name))
