"""Checkpoint files: plain tensors and numbers, written whole or not at all, read without running code from them."""

import os
import re
import shutil
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .legacy import load_legacy
from .storage import CheckpointError, MissingCheckpointError, to_plain, write_atomically

BEST_MODEL = "model-best.pth.tar"
POINTER = "checkpoint"
_EPOCH_FILE = re.compile(r"model\.pth\.tar-(\d+)")


def epoch_file(epoch: int) -> str:
    """The file name of the checkpoint after ``epoch`` epochs (1-based)."""
    return f"model.pth.tar-{epoch}"


def list_epochs(directory: str) -> list[int]:
    """The epochs whose checkpoints lie in a model's directory, ascending; empty if there is no directory."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(int(match[1]) for name in names if (match := _EPOCH_FILE.fullmatch(name)))


def common_epochs(directory: str, names: Iterable[str]) -> list[int]:
    """The epochs that every model in ``names`` has a checkpoint of under ``directory``, ascending."""
    epochs = [set(list_epochs(os.path.join(directory, name))) for name in names]
    return sorted(set.intersection(*epochs)) if epochs else []


def save_checkpoint(state: dict[str, Any], save_dir: str, model_name: str = "") -> str:
    """Writes a checkpoint, without the "module." that DataParallel puts before the names of parameters.

    Args:
        state: Needs "state_dict" and "epoch" (1-based); tensors, numbers, strings, None, lists and dicts only.
        save_dir: The model's directory, created if missing.
        model_name: File name; empty means model.pth.tar-<epoch>.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: The state holds another kind of object.
    """
    os.makedirs(save_dir, exist_ok=True)
    path = os.path.join(save_dir, model_name or epoch_file(state["epoch"]))
    state = {key: to_plain(value, key) for key, value in state.items()}
    state["state_dict"] = {_strip(key): value for key, value in state["state_dict"].items()}
    write_atomically(path, lambda file: torch.save(state, file))
    print(f"Checkpoint saved to {path}")
    return path


def copy_best(source_dir: str, save_dir: str) -> None:
    """Copies the best model of a run, if it has one, to the directory of another run, which resumes from it."""
    source = os.path.join(source_dir, BEST_MODEL)
    if os.path.isfile(source):
        os.makedirs(save_dir, exist_ok=True)
        with open(source, "rb") as content:
            write_atomically(os.path.join(save_dir, BEST_MODEL), lambda file: shutil.copyfileobj(content, file))


def point_to(directory: str, name: str) -> None:
    """Names a checkpoint in the text file ``checkpoint`` of its directory."""
    write_atomically(os.path.join(directory, POINTER), lambda file: file.write(f"{name}\n".encode()))


def load_checkpoint(fpath: str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU. Code in a file is never run: only tensors and plain values are read.

    Raises:
        MissingCheckpointError: There is no such file.
        CheckpointError: The file is damaged, or holds something else than a dict of tensors and plain values.
    """
    if not fpath or not os.path.isfile(fpath):
        raise MissingCheckpointError(f'No checkpoint file at "{fpath}"{_neighbours(fpath)}')
    try:
        checkpoint = torch.load(fpath, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError ... by kind of damage
        checkpoint = _load_legacy(fpath, error)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'"{fpath}" holds a {type(checkpoint).__name__}; expected a dict with a "state_dict"')
    return checkpoint


def load_state(module: nn.Module, state_dict: dict[str, Tensor], fpath: str) -> None:
    """Loads weights into a module; all names and shapes must fit.

    Raises:
        CheckpointError: They do not; the message lists what differs.
    """
    try:
        module.load_state_dict({_strip(key): value for key, value in state_dict.items()})
    except RuntimeError as error:
        differences = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise CheckpointError(
            f'"{fpath}" does not fit {type(module).__name__}: {differences}. '
            "Was it trained with another backbone, class list or setting?"
        ) from error


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Loads those weights of a checkpoint that fit a model by name and shape; says which do not.

    Args:
        model: Changed in place.
        weight_path: A checkpoint of a run, or a plain state dict.

    Raises:
        CheckpointError: The file is missing or unreadable.
    """
    checkpoint = load_checkpoint(weight_path)
    weights = {_strip(key): value for key, value in checkpoint.get("state_dict", checkpoint).items()}
    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    model.load_state_dict(fitting, strict=False)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [k for k in weights if k not in fitting]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def restore(checkpoint: dict[str, Any], path: str, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """Puts a checkpoint's states back.

    Of the optimizer that is what it has gathered, such as momentum; its settings stay those of this run.
    """
    groups = optimizer.param_groups if optimizer is not None else []
    of_schedule = ("params", "lr", "initial_lr")  # the learning rate is the scheduler's
    settings = [{key: value for key, value in group.items() if key not in of_schedule} for group in groups]
    print(f'Loading checkpoint from "{path}"')
    load_state(model, checkpoint["state_dict"], path)
    print("Loaded model weights")
    for name, part in (("optimizer", optimizer), ("scheduler", scheduler)):
        if part is None or checkpoint.get(name) is None:
            continue
        try:
            part.load_state_dict(checkpoint[name])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'The {name} state in "{path}" does not fit this run: {error}') from error
        print(f"Loaded {name}")
    for group, own in zip(optimizer.param_groups if settings else (), settings, strict=True):
        group.update(own)
    print(f"Previous epoch: {checkpoint['epoch']}")


def _strip(key: str) -> str:
    return key[len("module.") :] if key.startswith("module.") else key


def _neighbours(fpath: str | None) -> str:
    """Lists the checkpoints that are there instead of a missing one."""
    directory = os.path.dirname(fpath or "")
    names = sorted(name for name in os.listdir(directory)) if os.path.isdir(directory) else []
    names = [name for name in names if name == BEST_MODEL or _EPOCH_FILE.fullmatch(name)]
    return f"; present: {', '.join(sorted(names, key=lambda name: (len(name), name)))}" if names else ""


def _load_legacy(fpath: str, error: Exception) -> dict[str, Any]:
    """Reads a file of Dassl 0.6; if it is none, says why it was refused in the first place."""
    try:
        checkpoint = to_plain(load_legacy(fpath), "checkpoint")
    except Exception:  # of any kind, as above
        raise CheckpointError(_explain(fpath, error)) from error
    print(f"Note: {fpath} is of Dassl 0.6; its schedule object is replaced by plain numbers")
    return checkpoint


def _explain(fpath: str, error: Exception) -> str:
    """One sentence on why a file was refused, and what to do."""
    size = os.path.getsize(fpath)
    if "weights only" in str(error).lower() or "weights_only" in str(error):
        found = re.search(r"(?:GLOBAL|[Uu]nsupported global:?|Unsupported class) `?([\w.]+(?: [\w.]+)?)", str(error))
        return (
            f'"{fpath}" holds Python objects{f" ({found[1]})" if found else ""}, not only tensors and plain values; '
            "reading them could run code, so the file is refused. If you trust its author, read it once with "
            "torch.load(..., weights_only=False), and save its state_dict and epoch alone"
        )
    return (
        f'"{fpath}" ({size:,} bytes) is not a whole checkpoint, which torch.save would have written '
        f"({type(error).__name__}); delete it to resume from an earlier epoch, or copy it again"
    )
