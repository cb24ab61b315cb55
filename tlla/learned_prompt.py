"""A learned prompt as an object: context vectors and what is known of them, on disk as a run of train.py leaves it."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .arguments import folder_path, number, sequence, short, whole
from .errors import InputError
from .files import write_bytes, write_text
from .prompt_info import PromptInfo


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
