"""Checkpoints on disk: which file of a run is meant, and what is in it, read without running code.

Reads the files of Dassl's `save_model` (``<run>/prompt_learner/model.pth.tar-<epoch>``), ours and those that CoOp
published. The latter hold a scheduler and an optimizer object beside the tensors: `torch.load` builds inert stand-ins
for these, and refuses anything else but tensors and plain values.
"""

import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..arguments import path as path_of
from ..arguments import whole
from ..backbones.weight_names import strip_wrappers
from ..errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, apart from what only its training needs.

    Attributes:
        path: The file.
        state: The state dict of the learned module; names lack what wrappers put before them.
        epoch: 1-based; None if the file does not say.
        trainer: The trainer's notes: by whom, for which CLIP and classes, with which settings. Empty in CoOp's files.
    """

    path: Path
    state: dict[str, Any]
    epoch: int | None = None
    trainer: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_by(self) -> dict[str, str]:
        """The ``name`` of the training and its ``dataset``; empty if the file does not say both."""
        said = self.trainer.get("training")
        known = isinstance(said, dict) and all(isinstance(said.get(key), str) for key in ("name", "dataset"))
        return dict(said) if known else {}  # type: ignore[arg-type]


def epochs_in(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder, by epoch, in order; empty if there is no folder.

    >>> Path("model.pth.tar-50").touch()
    >>> list(epochs_in(Path()))
    [50]
    """
    found = {}
    for file in folder.glob("model.pth.tar-*"):
        if suffix := re.fullmatch(r"model\.pth\.tar-(\d+)", file.name):
            found[int(suffix[1])] = file
    return dict(sorted(found.items()))


def find_checkpoint(
    place: str | PathLike[str], epoch: int | None = None, best: bool = False, learned: str = "prompt_learner"
) -> Path:
    """The file that is meant by a file, by a run's folder, or by the folder of its checkpoints.

    Args:
        place: That file or folder.
        epoch: Of a folder's files. Default: the one that was saved last.
        best: Whether the epoch that was best on val is preferred, if there is one and no `epoch` is named.
        learned: The folder of the checkpoints within a run's.

    Raises:
        InputError: there is none.

    >>> Path("model.pth.tar-50").touch()
    >>> find_checkpoint(".").name
    'model.pth.tar-50'
    """
    path, epoch = path_of("the place of a checkpoint", place), None if epoch is None else whole("epoch", epoch)
    if path.is_file() and epoch is not None:
        raise InputError(f"{path} is one checkpoint, whose epoch cannot be chosen: give the run's folder, or no epoch")
    if path.is_file():
        return path
    folder = path / learned if (path / learned).is_dir() else path
    if epoch is None and best and (folder / "model-best.pth.tar").is_file():
        return folder / "model-best.pth.tar"
    present = epochs_in(folder)
    if not present:
        raise InputError(
            f"there is no checkpoint (model.pth.tar-<epoch>) in {folder}: --model-dir must be the --output-dir of a "
            "finished or running training"
        )
    if epoch is not None and epoch not in present:
        raise InputError(f"there is no epoch {epoch} in {folder}, only {sorted(present)}: choose one with --load-epoch")
    if epoch is not None:
        return present[epoch]
    last = folder / _saved_last(folder)
    return last if last in present.values() else present[max(present)]


def _saved_last(folder: Path) -> str:
    """The name in Dassl's text file ``checkpoint``; "" if there is none that can be read."""
    try:
        return (folder / "checkpoint").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint without running code from it.

    Raises:
        InputError: the file is missing, truncated, no checkpoint, or holds anything that could run code.

    >>> torch.save({"state_dict": {"ctx": torch.zeros(4, 512)}, "epoch": 50}, "model.pth.tar-50")
    >>> checkpoint = read_checkpoint(Path("model.pth.tar-50")); checkpoint.epoch, list(checkpoint.state)
    (50, ['ctx'])
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}: check --model-dir and --load-epoch")
    try:
        with path.open("rb") as file:
            _check_uncompressed(path, file)
            content = _load(file)
    except InputError:
        raise
    except Exception as error:  # by the kind of damage UnpicklingError, RuntimeError, EOFError, KeyError, ...
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} is refused: it asks for {asked[1]}; a checkpoint may hold tensors and plain values only, "
                "because loading anything else can run code"
            ) from error
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is not a readable checkpoint ({_reason(error)}): it may be "
            "truncated, or hold more than tensors and plain values"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(
            f"{path} is not a checkpoint: expected a dict with a 'state_dict', found {describe_content(content)}"
        )
    if strange := [name for name in content["state_dict"] if not isinstance(name, str)]:
        raise InputError(f"{path} is not a checkpoint: its state_dict has the key {strange[0]!r}, expected names")
    epoch, trainer = content.get("epoch"), content.get("trainer")
    if epoch is not None and (type(epoch) is not int or epoch < 0):
        raise InputError(f"{path} holds {describe_content(epoch)} as 'epoch', expected a whole number")
    return Checkpoint(path, strip_wrappers(content["state_dict"]), epoch, trainer if isinstance(trainer, dict) else {})


def _load(file: BinaryIO) -> Any:
    with warnings.catch_warnings(), _stand_ins():
        warnings.simplefilter("ignore")  # torch warns of unusual pickles; what it cannot read, the caller says
        return torch.load(file, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    inner = re.search(r"WeightsUnpickler error: *(\S.*)", str(error))
    text = inner[1] if inner else str(error).partition("\n")[0]
    return text.strip()[:200] or type(error).__name__


class _Inert:
    """Stands for an object whose class is known and not wanted: keeps nothing, runs nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*args: Any) -> dict[Any, Any]:
    """Stands for defaultdict, in which an optimizer object holds its state."""
    return {}


_plain_dict.__module__, _plain_dict.__name__, _plain_dict.__qualname__ = "collections", "defaultdict", "defaultdict"
_TORCH = {
    (kind.__module__, kind.__name__)
    for module in (torch.optim, torch.optim.lr_scheduler)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__.startswith("torch.optim.")
}
_DASSL = {
    *(("dassl.optim.lr_scheduler", f"{name}WarmupScheduler") for name in ("_Base", "Constant", "Linear")),
    *(("dassl.optim.radam", name) for name in ("RAdam", "PlainRAdam", "AdamW")),
}
# torch finds what a file asks for by module and name.
_STAND_INS: list[Any] = [
    *(type(name, (_Inert,), {"__module__": module}) for module, name in sorted(_TORCH | _DASSL)),
    _plain_dict,
    dict,
]
_lock = threading.Lock()  # torch has one list of safe names for all threads


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Meanwhile `torch.load` builds stand-ins for optimizers and schedulers, and nothing else that it would refuse."""
    with _lock:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(_STAND_INS)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _check_uncompressed(path: Path, file: BinaryIO) -> None:
    """Raises InputError for a zip that holds more bytes than it has: torch compresses nothing, only a bomb does."""
    try:
        held = sum(member.file_size for member in zipfile.ZipFile(file).infolist()) if zipfile.is_zipfile(file) else 0
    except (zipfile.BadZipFile, ValueError, OSError):
        held = 0  # torch says what is wrong with it
    file.seek(0)
    if held > path.stat().st_size:
        raise InputError(
            f"{path} is refused: it has {path.stat().st_size:,} bytes and would unpack to {held:,}, but torch.save "
            "compresses nothing: get the file from elsewhere"
        )


def describe_content(value: Any) -> str:
    """What a value is, for a message.

    >>> describe_content(torch.zeros(2)), describe_content({"ctx": 1}), describe_content(50)
    ('a tensor of torch.float32, torch.strided, on cpu', "a dict with ['ctx']", 'int')
    """
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, {value.layout}, on {value.device}"
    return f"a dict with {sorted(map(str, value))[:5]}" if isinstance(value, dict) else type(value).__name__
