"""A-TPT: test-time prompt tuning that widens the angles between class features, for calibration (A-TPT, ICLR 2026).

The authors' code could not be read. Upstream is a port: walawalagoose/TTABC@3b518df, ttabc/model_selection/atpt.py; its
lambda, 80, is for all datasets. Its option two_step, off there, is left out. The other differences to that code are
those of TPT.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from tlla.selection import marginal_entropy

from .base import PromptTuning, check_at_least

LARGEST = 1 - 1e-7  # of a cosine's size: at 1 the angle has no finite gradient


@dataclass
class ATPT(PromptTuning):
    """Lowers TPT's entropy minus lambda times the mean angle of a class feature to its nearest, in one joint step."""

    lam: float = dataclasses.field(default=80.0, metadata={"key": "LAMBDA"})  # of the angles, in radians

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, **{"lambda": self.lam})

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """TPT's loss minus the mean over classes of the smallest angle to another class; of one class TPT's."""
        if text.shape[1] == 1:
            return marginal_entropy(logits)
        cosine = (text @ text.mT).clamp(-LARGEST, LARGEST)  # (B, K, K)
        own = torch.eye(text.shape[1], dtype=torch.bool, device=text.device)
        nearest: Tensor = cosine.masked_fill(own, -1.0).max(dim=-1).values.acos().mean(dim=1)
        return marginal_entropy(logits) - self.lam * nearest
