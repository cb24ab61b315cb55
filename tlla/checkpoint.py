"""Learned prompts on disk: read safely, taken strictly.

Reads the files of Dassl's `save_model` (``<run>/prompt_learner/model.pth.tar-<epoch>``), ours and those that CoOp
published. The latter hold a scheduler and an optimizer object beside the tensors; those become inert stand-ins, whose
code never runs. Anything else but tensors and plain values is refused.
"""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .prompt import PromptLearner

FIXED_TOKENS = ("token_prefix", "token_suffix")  # CoOp saves the class tokens too; ours come from the class names

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
    """Reads a checkpoint without running code from it.

    Raises:
        InputError: the file is missing, truncated, no checkpoint, or holds anything that could run code.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}: check --model-dir and --load-epoch")
    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            checkpoint = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_SafePickle)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: {error}; a checkpoint may hold tensors and plain values only, because loading "
            "anything else can run code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) is not a readable checkpoint ({reason}): it may be truncated"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError(
            f"{path} is not a checkpoint: expected a dict with a 'state_dict', found {_describe(checkpoint)}"
        )
    return checkpoint


def load_context(path: Path, learner: PromptLearner) -> int | None:
    """Puts the context vectors of a checkpoint, and nothing else, into `learner`; returns the checkpoint's epoch.

    Raises:
        InputError: no or other vectors in the file, or a shape that differs; the message names both sides.
    """
    checkpoint = read_checkpoint(path)
    state = {k.removeprefix("module."): v for k, v in checkpoint["state_dict"].items()}
    names = [k for k in state if k not in FIXED_TOKENS]
    if names != ["ctx"] or not isinstance(state["ctx"], Tensor):
        raise InputError(f"{path} holds {names or 'nothing'}, expected the context vectors of a prompt ('ctx') alone")
    ctx = state["ctx"].float()
    if ctx.shape != learner.ctx.shape:
        raise InputError(
            f"{path} holds {_describe_context(ctx)}, but this run is set to {_describe_context(learner.ctx)}: "
            "use the same N_CTX (or CTX_INIT), CSC, class set and backbone as in training"
        )
    if not torch.isfinite(ctx).all():
        raise InputError(f"the context vectors in {path} are not finite (NaN or infinite): train again")
    with torch.no_grad():
        learner.ctx.copy_(ctx)
    return checkpoint.get("epoch")


def find_epoch(folder: Path, epoch: int | None = None) -> Path:
    """Path of a run's checkpoint of `epoch`, by default of the newest epoch."""
    present = {}
    for file in folder.glob("model.pth.tar-*"):
        if suffix := re.fullmatch(r"model\.pth\.tar-(\d+)", file.name):
            present[int(suffix[1])] = file
    if not present:
        raise InputError(
            f"there is no checkpoint (model.pth.tar-<epoch>) in {folder}: --model-dir must be the --output-dir of a "
            "finished or running training"
        )
    if epoch is not None and epoch not in present:
        raise InputError(f"there is no epoch {epoch} in {folder}, only {sorted(present)}: choose one with --load-epoch")
    return present[max(present) if epoch is None else epoch]


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 of a tensor's values as little-endian float32, the same on every device."""
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def _describe_context(ctx: Tensor) -> str:
    sets = f"class-specific (CSC) context for {ctx.shape[0]} classes, " if ctx.dim() == 3 else "one shared context, "
    return f"{sets}N_CTX {ctx.shape[-2] if ctx.dim() > 1 else '?'}, width {ctx.shape[-1] if ctx.dim() else '?'}"


def _describe(value: Any) -> str:
    return f"a dict with {sorted(map(str, value))[:5]}" if isinstance(value, dict) else type(value).__name__
