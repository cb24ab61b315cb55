"""Plain CLIP: the centre crop alone (Radford et al., arXiv 2103.00020).

Upstream: openai/CLIP@d05afc4, clip/model.py, CLIP.forward.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method


@dataclass
class SingleView(Method):
    """Softmax of the centre crop's logits: zero-shot CLIP, or the usual test of CoOp and SAPT."""

    uses_views: ClassVar[bool] = False

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        return self.classifier.logits(features[:, :1]).squeeze(1).softmax(dim=-1)
