"""C-TPT: test-time prompt tuning that keeps the class features apart, for calibration (Yoon et al., arXiv 2403.14119).

Upstream: hee-suk-yoon/C-TPT@085e6c2, tpt_classification.py and clip/custom_clip.py. Its option --two_step, one step for
each term, is left out: none of its scripts sets it. The other differences to that code are those of TPT.
"""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from tlla.selection import marginal_entropy

from .base import PromptTuning, check_at_least


@dataclass
class CTPT(PromptTuning):
    """Lowers TPT's entropy minus lambda times the dispersion of the class features, in one joint step."""

    lam: float = dataclasses.field(default=20.0, metadata={"key": "LAMBDA"})  # of the dispersion; 50: fine-grained

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, **{"lambda": self.lam})

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """TPT's loss minus the dispersion (ATFD in the paper): the mean distance of class features to their mean."""
        dispersion: Tensor = (text - text.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)
        return marginal_entropy(logits) - self.lam * dispersion
