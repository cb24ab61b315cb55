"""Learned prompts on disk: read safely, taken strictly.

Reads the files of Dassl's `save_model` (``<run>/prompt_learner/model.pth.tar-<epoch>``), ours and those that CoOp
published. The latter hold a scheduler and an optimizer object beside the tensors; those become inert stand-ins, whose
code never runs. Anything else but tensors and plain values is refused.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.weight_names import strip_wrappers
from ..errors import InputError
from .learner import FIXED_TOKENS, PromptLearner
from .saved import read_info

_TENSOR_GLOBALS = {
    "collections": ("OrderedDict", "defaultdict", "Counter"),
    "torch": ("Size", "device", "dtype", "float32", "float16", "bfloat16", "int64"),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
    "torch.storage": ("UntypedStorage", "TypedStorage"),
    "builtins": ("dict", "set"),
    "__builtin__": ("dict", "set"),
}
_INERT_PACKAGES = ("torch.optim.", "dassl.optim.")


class _Inert:
    """Stands for an object whose class is known and not wanted: keeps nothing, runs nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _TENSOR_GLOBALS.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and re.fullmatch(r"\w+Storage", name):
            return super().find_class(module, name)
        if f"{module}.".startswith(_INERT_PACKAGES):
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


class _SafePickle:
    """What torch.load needs of a pickle module."""

    Unpickler = _SafeUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _SafeUnpickler(file, **kwargs).load()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running code from it; names in its state dict lose what wrappers put before them.

    Raises:
        InputError: the file is missing, truncated, no checkpoint, or holds anything that could run code.

    >>> torch.save({"state_dict": {"ctx": torch.zeros(4, 512)}, "epoch": 50}, "model.pth.tar-50")
    >>> read_checkpoint(Path("model.pth.tar-50"))["epoch"]
    50
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}: check --model-dir and --load-epoch")
    _check_uncompressed(path)
    try:
        checkpoint = _load(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: {error}; a checkpoint may hold tensors and plain values only, because loading "
            "anything else can run code"
        ) from error
    except Exception as error:  # by the kind of damage RuntimeError, EOFError, KeyError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is not a readable checkpoint ({reason}): it may be truncated"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError(
            f"{path} is not a checkpoint: expected a dict with a 'state_dict', found {_describe(checkpoint)}"
        )
    if strange := [name for name in checkpoint["state_dict"] if not isinstance(name, str)]:
        raise InputError(f"{path} is not a checkpoint: its state_dict has the key {strange[0]!r}, expected names")
    return {**checkpoint, "state_dict": strip_wrappers(checkpoint["state_dict"])}


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of unusual pickles; what it cannot read, the caller says
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_SafePickle)


def _check_uncompressed(path: Path) -> None:
    """Raises InputError for a zip that holds more bytes than it has: torch compresses nothing, only a bomb does."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            held = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return  # torch says what is wrong with it
    if held > path.stat().st_size:
        raise InputError(
            f"{path} is refused: it has {path.stat().st_size:,} bytes and would unpack to {held:,}, but torch.save "
            "compresses nothing: get the file from elsewhere"
        )


def load_context(path: Path, learner: PromptLearner) -> int | None:
    """Puts a checkpoint's context vectors (and CoCoOp's meta-net, if `learner` has one) into `learner`.

    Class-specific contexts are sorted into their classes' places, if the file says which they are.

    Returns:
        The checkpoint's epoch.

    Raises:
        InputError: something is missing, is too much, or differs in shape, or the file says that it is for another CLIP
            or another place of the class name, or a class-specific context for other classes; the message names both
            sides.

    >>> learner = PromptLearner(model, ["cat", "dog"], n_ctx=4)
    >>> torch.save({"state_dict": learner.state_dict(), "epoch": 50}, "a.pt"); load_context(Path("a.pt"), learner)
    50
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    names = [k for k in state if k not in FIXED_TOKENS]
    expected = list(learner.state_dict())
    if sorted(names) != sorted(expected):
        wanted = "the context vectors of a prompt ('ctx') alone" if expected == ["ctx"] else str(expected)
        raise InputError(f"{path} holds {names or 'nothing'}, expected {wanted}{_whose(names)}")
    for name, own in learner.named_parameters():
        _check_tensor(path, name, state[name], own)
    info = read_info(path, checkpoint)
    info.check_fits(path, learner)
    info.note_unknown(path, by_class=learner.csc)
    state["ctx"] = info.arranged(path, state["ctx"], learner)
    with torch.no_grad():
        for name, own in learner.named_parameters():
            own.copy_(state[name].float())
    return _epoch(path, checkpoint.get("epoch"))


def _epoch(path: Path, epoch: Any) -> int | None:
    if epoch is not None and type(epoch) is not int:
        raise InputError(f"{path} holds {_describe(epoch)} as 'epoch', expected a whole number")
    return epoch


def _whose(names: list[str]) -> str:
    """Which trainer writes such a state, as the end of a message."""
    if names == ["ctx"]:
        return ": this is the prompt of CoOp, SAPT or TLLA, which has no meta-net"
    return ": this is CoCoOp's, whose prompt depends on the image" if "meta_net.linear1.weight" in names else ""


def _check_tensor(path: Path, name: str, found: Any, own: Tensor) -> None:
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.layout != torch.strided or found.is_meta:
        raise InputError(
            f"{path} holds {_describe(found)} as {name!r}, expected a tensor of real numbers, dense and in memory"
        )
    if found.shape != own.shape:
        raise InputError(
            f"{path} holds {_describe_weight(name, found)}, but this run is set to {_describe_weight(name, own)}: "
            "use the same N_CTX (or CTX_INIT), CSC, class set and backbone as in training"
        )
    if not torch.isfinite(found.float()).all():  # also what float32 cannot hold
        what = "the context vectors" if name == "ctx" else f"the weights {name!r}"
        raise InputError(f"{what} in {path} are not finite (NaN or infinite): train again")


def choose_checkpoint(folder: Path, epoch: int | None, best: bool) -> Path:
    """Path of the checkpoint to test.

    That of `epoch`; without one the best on val if `best` and there is one, else the newest.

    >>> Path("model.pth.tar-50").touch()
    >>> choose_checkpoint(Path(), epoch=None, best=False).name
    'model.pth.tar-50'
    """
    path = folder / "model-best.pth.tar"
    return path if epoch is None and best and path.is_file() else find_epoch(folder, epoch)


def epochs_in(folder: Path) -> dict[int, Path]:
    """The checkpoints that a run has kept, by epoch, in order; empty if there is no folder.

    >>> Path("model.pth.tar-50").touch()
    >>> list(epochs_in(Path()))
    [50]
    """
    found = {}
    for file in folder.glob("model.pth.tar-*"):
        if suffix := re.fullmatch(r"model\.pth\.tar-(\d+)", file.name):
            found[int(suffix[1])] = file
    return dict(sorted(found.items()))


def find_epoch(folder: Path, epoch: int | None = None) -> Path:
    """Path of a run's checkpoint of `epoch`, by default of the one that was saved last.

    >>> Path("model.pth.tar-50").touch()
    >>> find_epoch(Path()).name
    'model.pth.tar-50'
    """
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


def _describe_context(ctx: Tensor) -> str:
    sets = f"class-specific (CSC) context for {ctx.shape[0]} classes, " if ctx.dim() == 3 else "one shared context, "
    return f"{sets}N_CTX {ctx.shape[-2] if ctx.dim() > 1 else '?'}, width {ctx.shape[-1] if ctx.dim() else '?'}"


def _describe_weight(name: str, weight: Tensor) -> str:
    return _describe_context(weight) if name == "ctx" else f"{name} of shape {tuple(weight.shape)}"


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, {value.layout}, on {value.device}"
    return f"a dict with {sorted(map(str, value))[:5]}" if isinstance(value, dict) else type(value).__name__
