"""A learned prompt as an object: context vectors and what is known of them, on disk as a run of train.py leaves it."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .files import write_bytes, write_text
from .prompt_info import PromptInfo


@dataclass(frozen=True)
class Prompt:
    """Context vectors that stand around class names.

    Attributes:
        ctx: (L, D) float32, or (K, L, D) by class.
        info: For which CLIP, which classes and which place of the class name it was learned.
        epochs: Of the training.
        losses: Mean loss of each epoch.
    """

    ctx: Tensor
    info: PromptInfo = PromptInfo()
    epochs: int = 0
    losses: list[float] = field(default_factory=list)

    @property
    def position(self) -> str:
        """Where the class name stands: "end", "middle" or "front"."""
        return self.info.class_token_position or "end"

    def save(self, folder: str | Path) -> Path:
        """Writes ``<folder>/prompt_learner/model.pth.tar-<epochs>``, whole or not at all, and returns its path.

        The folder is then a run's: ``train.py --eval-only --model-dir <folder>`` tests it; CoOp, TPT and Dassl read
        the file.
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
        path = Path(folder).expanduser() / "prompt_learner" / f"model.pth.tar-{self.epochs}"
        write_bytes(path, buffer.getvalue())
        write_text(path.parent / "checkpoint", f"{path.name}\n")  # Dassl reads there which epoch is the newest
        return path
