"""A learned prompt: its context vectors, and for which CLIP, which classes and which place of the class name they are.

What it is for lies in ``checkpoint["trainer"]["prompt"]``, beside what CoOp and TPT read; older files and CoOp's own
lack it.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import folder_path, number, sequence, short, whole
from ..errors import InputError
from ..files import write_bytes, write_text
from ..fingerprint import are_weights, class_order
from .learner import CLASS_TOKEN_POSITIONS, PromptLearner


@dataclass(frozen=True)
class PromptInfo:
    """What is known of a prompt; empty is unknown.

    Attributes:
        class_names: Of the training.
        backbone: Name or path under which CLIP was loaded.
        weights_sha256: `weights_sha256` of that CLIP.
        class_token_position: "end", "middle" or "front".
    """

    class_names: tuple[str, ...] = ()
    backbone: str = ""
    weights_sha256: str = ""
    class_token_position: str = ""

    def as_entry(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**vars(self), "class_names": list(self.class_names)}

    def check_fits(self, name: Path | str, learner: PromptLearner) -> None:
        """Raises InputError if the prompt is for another CLIP, or has the class name in another place.

        Args:
            name: Of the file, for the message.
            learner: That is to take the context vectors.
        """
        self.check_weights(name, learner._clip[0])
        position = learner.class_token_position
        if self.class_token_position and self.class_token_position != position:
            raise InputError(
                f"{name} was learned with the class name at the place {self.class_token_position!r}, but this run is "
                f"set to {position!r}: set CLASS_TOKEN_POSITION {self.class_token_position}"
            )

    def check_weights(self, name: Path | str, clip_model: nn.Module) -> None:
        """Raises InputError if what was learned is for another CLIP."""
        if self.weights_sha256 and not are_weights(self.weights_sha256, clip_model):
            known = f"load that backbone (--backbone {self.backbone})" if self.backbone else "load that one"
            raise InputError(
                f"{name} was learned for the backbone {self.backbone or 'unnamed'!r}, but the CLIP in use has other "
                f"weights: {known}, or train a prompt for this one"
            )

    def note_unknown(self, name: Path | str, by_class: bool = False) -> None:
        """Warns if the file does not say for which CLIP, or if it matters, for which classes it is."""
        lacks = ["CLIP"] * (not self.weights_sha256) + ["classes"] * (by_class and not self.class_names)
        if lacks:
            warnings.warn(
                f"{name} does not say for which {' and '.join(lacks)} it was learned: it is taken for those in use",
                stacklevel=3,
            )

    def arranged(self, name: Path | str, ctx: Tensor, learner: PromptLearner) -> Tensor:
        """Context vectors in the order of the learner's classes; a shared context, (L, D), serves any classes.

        Raises:
            InputError: A class-specific context, (K, L, D), is of other classes.
        """
        if ctx.dim() == 2 or not self.class_names:
            return ctx
        order = class_order(f"the class-specific context (CSC) in {name}", self.class_names, learner.classnames)
        if len(order) != len(ctx):
            raise InputError(f"{name} has contexts for {len(ctx)} classes, but names {len(order)}: train again")
        return ctx[order]


def describe(learner: PromptLearner, backbone: str) -> PromptInfo:
    """What there is to say about a learner's prompt.

    >>> describe(PromptLearner(model, ["cat", "dog"]), "EmojiCLIP").class_names
    ('cat', 'dog')
    """
    return PromptInfo(tuple(learner.classnames), backbone, learner.clip_sha256, learner.class_token_position)


def read_info(path: Path, checkpoint: Mapping[str, Any]) -> PromptInfo:
    """What a checkpoint that was read from `path` says. InputError if that is not what `describe` has written.

    >>> entry = {"class_names": ["cat", "dog"], "backbone": "RN50"}
    >>> read_info(Path("a.pt"), {"trainer": {"prompt": entry}}).backbone
    'RN50'
    """
    trainer = checkpoint.get("trainer")
    entry = trainer.get("prompt") if isinstance(trainer, dict) else None
    if entry is None:
        return PromptInfo()
    names = entry.get("class_names") if isinstance(entry, dict) else None
    texts = [entry.get(k, "") for k in ("backbone", "weights_sha256", "class_token_position")] if names else []
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(x, str) for x in (*names, *texts)):
        raise InputError(f"the note on the prompt in {path} is damaged: train again, or remove its entry 'prompt'")
    backbone, sha256, position = texts
    if position and position not in CLASS_TOKEN_POSITIONS:
        raise InputError(f"{path} says that the class name stands at {position!r}, not one of {CLASS_TOKEN_POSITIONS}")
    return PromptInfo(tuple(names), backbone, sha256, position)


@dataclass(frozen=True)
class Prompt:
    """Context vectors that stand around class names.

    Attributes:
        ctx: (L, D) floats, or (K, L, D) by class; an array of NumPy's becomes a tensor.
        info: For which CLIP, which classes and which place of the class name it was learned.
        epochs: Of the training.
        losses: Mean loss of each epoch.

    Raises:
        InputError: something of this is of another kind; the message says which.
    """

    ctx: Tensor
    info: PromptInfo = PromptInfo()
    epochs: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        ctx = torch.as_tensor(self.ctx) if isinstance(self.ctx, np.ndarray) else self.ctx
        if not isinstance(ctx, Tensor):
            raise InputError(f"context vectors must be a tensor of floats, but got {short(ctx)}")
        if ctx.dim() not in (2, 3) or not ctx.is_floating_point() or not ctx.isfinite().all():
            raise InputError(
                "context vectors must be finite floats of shape (L, D) or (K, L, D), but got "
                f"{tuple(ctx.shape)}, {ctx.dtype}"
            )
        if not isinstance(self.info, PromptInfo):
            raise InputError(f"info must be a PromptInfo, but got {short(self.info)}")
        object.__setattr__(self, "ctx", ctx)
        object.__setattr__(self, "epochs", whole("epochs", self.epochs))
        losses = [number("a loss", loss) for loss in sequence("losses", self.losses, "numbers")]
        object.__setattr__(self, "losses", losses)

    @property
    def position(self) -> str:
        """Where the class name stands: "end", "middle" or "front"."""
        return self.info.class_token_position or "end"

    def save(self, folder: str | Path) -> Path:
        """Writes ``<folder>/prompt_learner/model.pth.tar-<epochs>``, whole or not at all, and returns its path.

        The folder is then a run's: ``train.py --eval-only --model-dir <folder>`` tests it; CoOp, TPT and Dassl read
        the file.

        Raises:
            InputError: `folder` is no path, or is a file.
        """
        state = {
            "state_dict": {"ctx": self.ctx.detach().cpu().contiguous().clone()},
            "epoch": self.epochs,
            "optimizer": None,
            "scheduler": None,
            "val_result": None,
            "trainer": {"prompt": self.info.as_entry()} if self.info.class_names else {},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path = folder_path("folder", folder) / "prompt_learner" / f"model.pth.tar-{self.epochs}"
        write_bytes(path, buffer.getvalue())
        write_text(path.parent / "checkpoint", f"{path.name}\n")  # Dassl reads there which epoch is the newest
        return path
