"""TPT: test-time prompt tuning (Shu et al., arXiv 2209.07511, eq. 3-4).

Upstream: azshue/TPT, tpt_classification.py. Differences to that code:
- It runs under fp16 autocast; here the trainer's precision decides, and the loss is always fp32.
- With fewer than 1 / top views it would keep none; here at least one is kept.
- With CoCoOp it feeds the meta net features that are not normalised, though the net was trained on normalised ones.
  Here it gets normalised ones.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tlla.selection import confident, marginal_entropy

from .base import Method, check_at_least, check_share, tune_prompt


@dataclass
class TPT(Method):
    """Lowers the entropy of the confident views' mean prediction, then predicts the plain view."""

    needs_backprop: ClassVar[bool] = True
    needs_text_encoder: ClassVar[bool] = True

    top: float = 0.1  # share of the views that tune, chosen once, by the untuned prompt
    lr: float = 5e-3  # AdamW's learning rate
    steps: int = 1  # AdamW's steps

    def __post_init__(self) -> None:
        check_share(top=self.top)
        check_at_least(0, lr=self.lr, steps=self.steps)

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,)."""
        logits = self.classifier.logits
        kept = features[confident(logits(features, text)[None], self.top)[0]]  # (s, E)
        tuned = tune_prompt(
            self.classifier, features, lambda text: marginal_entropy(logits(kept, text)), self.lr, self.steps
        )
        return logits(features[0], tuned).softmax(dim=-1)
