"""O-TPT: test-time prompt tuning with orthogonal class features, for calibration (Sharifdeen et al., arXiv 2503.12096).

Upstream: YonseiML/fpp@bb9917f, fpp_classification.py, reg_loss, which is the authors' loss (the same lines are in
walawalagoose/TTABC@009fc22, otpt.py). With the Gram matrix G = T T^T that code reflects each row of G onto its own axis
by a Householder matrix, which needs K x K x K numbers, and takes the mean distance to the unit vectors e_k. The
reflection of row k is |G_k| e_k, so that the distance is | |G_k| - 1 |: that is computed here, and it is equal. The
other differences to that code are those of TPT.
"""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from tlla.selection import marginal_entropy

from .base import PromptTuning, check_at_least


@dataclass
class OTPT(PromptTuning):
    """Lowers TPT's entropy plus lambda times the class features' distance from orthogonality, in one joint step."""

    lam: float = dataclasses.field(default=2.0, metadata={"key": "LAMBDA"})  # of that distance; 18: fine-grained

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, **{"lambda": self.lam})

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """TPT's loss plus the distance: how far the norms of the Gram matrix's rows are from 1, in the mean."""
        distance: Tensor = ((text @ text.mT).norm(dim=-1) - 1).abs().mean(dim=1)
        return marginal_entropy(logits) + self.lam * distance
