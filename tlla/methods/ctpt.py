"""C-TPT: test-time prompt tuning that keeps the class features apart, for calibration (Yoon et al., arXiv 2403.14119).

Upstream: hee-suk-yoon/C-TPT, tpt_classification.py and clip/custom_clip.py. Its option --two_step, a step for each term
in turn, is left out: no script of theirs sets it. What else differs from that code is as in TPT.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tlla.selection import confident, marginal_entropy

from .base import Method, check_at_least, check_share, tune_prompt


@dataclass
class CTPT(Method):
    """Lowers TPT's entropy minus lambda times the dispersion of the class features, in one joint step."""

    needs_backprop: ClassVar[bool] = True
    needs_text_encoder: ClassVar[bool] = True

    lam: float = dataclasses.field(
        default=20.0, metadata={"key": "LAMBDA"}
    )  # weight of the dispersion; 50: fine-grained
    top: float = 0.1  # share of the views that tune, chosen once, by the untuned prompt
    lr: float = 5e-3  # AdamW's learning rate
    steps: int = 1  # AdamW's steps

    def __post_init__(self) -> None:
        check_at_least(0, **{"lambda": self.lam}, lr=self.lr, steps=self.steps)
        check_share(top=self.top)

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,)."""
        logits = self.classifier.logits
        kept = features[confident(logits(features, text)[None], self.top)[0]]  # (s, E)

        def loss(text: Tensor) -> Tensor:
            return marginal_entropy(logits(kept, text)) - self.lam * _dispersion(text)

        tuned = tune_prompt(self.classifier, features, loss, self.lr, self.steps)
        return logits(features[0], tuned).softmax(dim=-1)


def _dispersion(text: Tensor) -> Tensor:
    """Mean distance of the normalised class features, (K, E), to their mean: the paper's ATFD, a scalar."""
    return (text - text.mean(dim=0)).norm(dim=-1).mean()
