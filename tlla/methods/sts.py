"""STS: spectrum-aware test-time steering, one shift of all class features in few directions (arXiv 2511.09809).

The authors' code (kdafnis/STS) could not be read: this is the paper's formula, from a summary of it (papernotes.org),
and no number was compared. Taken from there: the first right singular vectors of the class features span the shift, as
many as Gavish & Donoho's hard threshold keeps; one AdamW step at 5e-3 on TPT's entropy; crops and flips, no AugMix.
Inferred: the class features are not centred first, the views are chosen once, and the centre crop is predicted, as in
TPS. The weight of the shift's norm in the loss is not known; at the first step it has no gradient, and it is left out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.prompts.classifier import Classifier
from tlla.selection import marginal_entropy

from .base import Tuning, tune


def steering_basis(text: Tensor) -> Tensor:
    """Right singular vectors of class features above the optimal hard threshold, at least one: (K, E) -> (k, E).

    The threshold for unknown noise is omega(ratio of sides) times the median singular value (Gavish & Donoho, arXiv
    1305.5870, eq. 4-5, with their cubic approximation of omega).

    >>> steering_basis(torch.tensor([[1.0, 0.0], [0.0, 0.1]])).abs()
    tensor([[1., 0.]])
    """
    _, values, vectors = torch.linalg.svd(text, full_matrices=False)
    ratio = min(text.shape) / max(text.shape)
    omega = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
    kept = int((values > omega * values.quantile(0.5)).sum())
    basis: Tensor = vectors[: max(1, kept)]
    return basis


@dataclass
class STS(Tuning):
    """Minimises TPT's entropy by one shift of all class features, then predicts the centre crop with them."""

    rule: str = "entropy"  # which views tune, see docs/methods.md

    def start(self, classifier: Classifier, seed: int = 0) -> None:
        """Finds the directions, unless the class features depend on the image."""
        super().start(classifier, seed)
        self.basis = None if classifier.conditional else steering_basis(classifier.text_features)

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,)."""
        basis = steering_basis(text) if self.basis is None else self.basis  # (k, E)

        def logits(views: Tensor, steer: Tensor) -> Tensor:
            return self.classifier.logits(views, F.normalize(text + steer @ basis, dim=-1))

        kept = features[self.choose(features[None], self.classifier.logits(features, text)[None])[0]]
        (steer,) = tune(
            [text.new_zeros(len(basis))], lambda steer: marginal_entropy(logits(kept, steer)), self.lr, self.steps
        )
        return logits(features[0], steer).softmax(dim=-1)
