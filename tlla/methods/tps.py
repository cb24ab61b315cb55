"""TPS: test-time prototype shifting, prompt tuning without a text encoder (Sui et al., arXiv 2403.12952).

Upstream: elaine-sui/TPS@556db0f, shift_classification.py, model/learnable_shift.py and model/shifter.py, with a shift
for each class (--per_label --do_shift). Its other prototypes, from templates and class descriptions, are the
classifier's task.
It runs under fp16 autocast; here the loss is fp32. At least one view is kept, as in TPT.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.selection import marginal_entropy

from .base import Tuning, tune


@dataclass
class TPS(Tuning):
    """Minimises TPT's entropy by shifting the class features, then predicts the centre crop with them.

    The views that tune are chosen again at each step.
    """

    rule: str = "entropy"  # which views tune, see docs/methods.md

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,)."""

        def logits(shift: Tensor) -> Tensor:
            return self.classifier.logits(features, F.normalize(text + shift, dim=-1))  # (V, K)

        def loss(shift: Tensor) -> Tensor:
            shifted = logits(shift)
            return marginal_entropy(shifted[self.choose(features[None], shifted[None], shift)[0]])

        (shift,) = tune([torch.zeros_like(text)], loss, self.lr, self.steps)
        return logits(shift)[0].softmax(dim=-1)
