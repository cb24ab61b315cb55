"""What a training depends on: kept in its checkpoints, and compared before another process goes on from one."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from tlla import fingerprint
from tlla.errors import InputError
from tlla.fingerprint import flat_config, split_sha256, weights_sha256
from tlla.precision import choose_precision
from tlla.prompts.checkpoint import epochs_in, find_checkpoint, read_checkpoint
from tlla.prompts.learner import FIXED_TOKENS
from tlla.records.older import STEP

from . import distributed
from .corrupted import KEYS as CORRUPTION_KEYS

# No result of a training depends on these keys, or what they name is compared itself: images, classes, weights.
WITHOUT = (
    "OUTPUT_DIR",
    "RESUME",
    "VERBOSE",
    "VERSION",
    "USE_CUDA",
    "DATASET.ROOT",
    "DATASET.TITLE",
    "DATASET.SPLIT_FILE",
    "DATASET.ALLOW_NEW_SPLIT",
    *CORRUPTION_KEYS,  # of test images
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TRAIN_U",
    "DATALOADER.TEST",
    "MODEL",
    "TRAIN",
    "TEST",
)
NAME, BACKBONE, WEIGHTS, LAST = "TRAINER.NAME", "MODEL.BACKBONE.NAME", "weights_sha256", "OPTIM.MAX_EPOCH"
SHOWN = 4  # differences in a message


def training_identity(trainer: Any) -> dict[str, Any]:
    """All that the training of a ClipTrainer depends on, as a flat dict of plain values.

    TEST.FINAL_MODEL best_val chooses an epoch by the val images, as they are tested: then these, and the node of the
    trainer's name, count as well.
    """
    cfg, dataset = trainer.cfg, trainer.dm.dataset
    best = trainer.chooses_epoch
    nodes = {f"TRAINER.{trainer.config_node}", *([f"TRAINER.{cfg.TRAINER.NAME.upper()}"] if best else ())}
    unused = [f"TRAINER.{name}" for name in cfg.TRAINER if name != "NAME" and f"TRAINER.{name}" not in nodes]
    free = [f"{node}.{key}" for node in nodes for key in (*trainer.free_keys, "VIEW_BATCH")]
    splits = {"train_x": dataset.train_x or ()} if trainer.learns_from_images else {}
    splits |= {"val": dataset.val} if best and dataset.val else {}
    root, files = getattr(dataset, "dataset_dir", ""), trainer.split_files.sha256
    init = cfg.MODEL.INIT_WEIGHTS
    return {
        **flat_config(cfg, (*WITHOUT, *unused, *free)),
        f"TRAINER.{trainer.config_node}.PREC": trainer.precision,
        "TEST.FINAL_MODEL": "best_val" if best else "last_step",
        "MODEL.INIT_WEIGHTS": hashlib.sha256(find_checkpoint(init).read_bytes()).hexdigest()[:12] if init else "",
        BACKBONE: cfg.MODEL.BACKBONE.NAME,
        WEIGHTS: weights_sha256(trainer.clip_model)[:12],
        **{f"class {label}": name for label, name in enumerate(dataset.classnames)},
        **{f"split_sha256 of {name}": split_sha256(items, root)[:12] for name, items in splits.items()},
        **{f"size and time of {name}'s files": files[name][:12] for name in splits},
    }


def compare_settings(trainer: Any, directory: str, explicit: bool | None = None) -> list[dict[str, Any]]:
    """`compare_with_checkpoint` for the training of a ClipTrainer and another one in a folder, once for all processes.

    Returns:
        After which epochs the settings changed, for the record.
    """
    found = None
    if distributed.is_first():
        folder = Path(directory) / trainer.learned
        found = compare_with_checkpoint(trainer.identity, folder, explicit, trainer.device)
    history, notes = distributed.from_first(found)
    for line in notes:
        print(line)
    return history


def compare_with_checkpoint(
    identity: dict[str, Any], folder: Path, explicit: bool | None, device: torch.device
) -> tuple[list[dict[str, Any]], list[str]]:
    """Asks of the newest checkpoint whether a training with this identity may go on from it.

    Args:
        identity: What `training_identity` gives.
        folder: Of the checkpoints; perhaps empty or missing.
        explicit: Whether the user has asked to go on whatever the settings were (--resume); None: nobody can, as the
            training takes up nothing.
        device: Of the training.

    Returns:
        What is to be recorded of changes so far, ``{"epoch", "differences"}`` each, and what is to be printed.

    Raises:
        InputError: It was trained under other settings, and `explicit` is not set.
    """
    present = epochs_in(folder)
    if not present:
        return [], []
    epoch, path = max(present.items())
    newest = read_checkpoint(path)
    there, history = newest.trainer.get("identity"), newest.trainer.get("resumed", [])
    if there is None:
        note = f"{path} does not say with which settings it was trained"
        notes = [f"Note: {note}"]
        if not set(FIXED_TOKENS).isdisjoint(newest.state):
            notes.append(
                f"Note: {path} is CoOp's own checkpoint: its prompt and its schedule are taken as they are, but how it "
                "was trained is not in it, so the record has the settings of this run"
            )
        return [{"epoch": epoch, "differences": [note]}], notes
    if not isinstance(there, dict) or not all(isinstance(key, str) for key in there) or not isinstance(history, list):
        raise InputError(f"the note on the settings in {path} is damaged: choose another --output-dir and train anew")
    # Older versions note what was wanted: auto, amp.
    there = {k: choose_precision(v, device) if k.endswith(".PREC") else v for k, v in there.items()}
    if there.get(WEIGHTS) == identity[WEIGHTS]:
        there = {**there, BACKBONE: identity[BACKBONE]}  # a CLIP's name, or where its file lies, does not matter
    if there.get(NAME) != identity[NAME]:  # then nobody asks how their own settings differ
        there, identity = (
            {k: v for k, v in x.items() if k == NAME or not k.startswith("TRAINER.")} for x in (there, identity)
        )
    if not any(key.endswith(".VARIANT") for key in there):
        there = {key: STEP[name] for key in identity if (name := key.rpartition(".")[2]) in STEP} | there
    younger = [key for key in identity if key.isupper() and key not in there]  # keys of the config
    identity = {key: value for key, value in identity.items() if key not in younger}
    there = {key: value for key, value in there.items() if value or key in identity}  # an older version's, switched off
    found = fingerprint.differences(there, identity)
    longer = found and there.get(LAST) != identity[LAST] and epoch <= identity[LAST]
    serious = [line for line in found if not (longer and line.startswith(f"{LAST} "))]
    if serious and not explicit:
        more = f" and {len(serious) - SHOWN} more" if len(serious) > SHOWN else ""
        anyway = "" if explicit is None else f", or go on from it in spite of them by --resume {folder.parent}"
        raise InputError(
            f"{path} was trained with other settings: {'; '.join(serious[:SHOWN])}{more}: choose another --output-dir "
            f"or give the same settings{anyway}"
        )
    notes = [f"Note: {path} is of a version that had no {', '.join(younger)}"] if younger else []
    if not found:
        return history, notes
    notes += [f"Note: going on after epoch {epoch} of other settings:", *(f"  {line}" for line in found)]
    return [*history, {"epoch": epoch, "differences": found}], notes
