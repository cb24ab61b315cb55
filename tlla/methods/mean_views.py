"""The mean over all views: what augmentation alone gives, without selection.

No upstream code: a reference for the other methods.
"""

from dataclasses import dataclass

from torch import Tensor

from .base import Method


@dataclass
class MeanViews(Method):
    """Mean probability over all views."""

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        return self.classifier.logits(features).softmax(dim=-1).mean(dim=1)
