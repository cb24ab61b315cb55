"""TPT: test-time prompt tuning (Shu et al., arXiv 2209.07511, eq. 3-4).

Upstream: azshue/TPT@63ecbac, tpt_classification.py. Differences to that code:
- It runs under fp16 autocast; here the trainer's precision decides, and the loss is always fp32.
- With fewer than 1 / top views it would keep none; here at least one is kept.
- With CoCoOp it feeds the meta net features that are not normalised, though the net was trained on normalised ones.
  Here it gets normalised ones.
"""

from dataclasses import dataclass

from torch import Tensor

from tlla.selection import marginal_entropy

from .base import PromptTuning


@dataclass
class TPT(PromptTuning):
    """Minimises the entropy of the confident views' mean prediction, then predicts the centre crop with that prompt."""

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """Entropy of the mean prediction, (B,)."""
        return marginal_entropy(logits)
