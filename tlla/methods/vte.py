"""VTE, vision-text-space ensemble: the mean feature of the most confident views (Döbler et al., arXiv 2405.14977).

Upstream: mariodoebler/test-time-adaptation@8b2ed63, classification/methods/vte.py. The text side of the ensemble, 80
templates (upstream's CLIP.PROMPT_MODE ensemble), is the classifier's. As upstream, the mean feature is not normalised
again, so that views which disagree flatten the distribution.
"""

from dataclasses import dataclass

from torch import Tensor

from tlla.selection import take_views

from .base import Method


@dataclass
class VTE(Method):
    """Softmax of the logits of the confident views' mean feature."""

    top: float = 0.1  # fraction of the views that is used
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        text = self.classifier.text(features)
        kept = self.choose(features, self.classifier.logits(features, text))  # (B, s)
        mean = take_views(features, kept).mean(dim=1, keepdim=True)  # (B, 1, E)
        return self.classifier.logits(mean, text).squeeze(1).softmax(dim=-1)
