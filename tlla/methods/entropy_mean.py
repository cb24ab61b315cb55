"""TPT's confidence filter without tuning (Shu et al., arXiv 2209.07511, eq. 3).

Upstream: azshue/TPT@63ecbac, tpt_classification.py, select_confident_samples.
"""

from dataclasses import dataclass

from torch import Tensor

from tlla.selection import take_views

from .base import Method


@dataclass
class EntropyMean(Method):
    """Mean probability over the confident views."""

    top: float = 0.1  # fraction of the views that is used
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        logits = self.classifier.logits(features)  # (B, V, K)
        return take_views(logits, self.choose(features, logits)).softmax(dim=-1).mean(dim=1)
