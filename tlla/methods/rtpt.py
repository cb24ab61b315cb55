"""R-TPT: test-time prompt tuning view by view, and a vote of the views that have near neighbours (arXiv 2504.11195).

Upstream: TomSheng21/R-TPT@e085f13, rtpt.py. Its attack on the test images is not part of this method. Differences:
- To leave a view out of its own neighbours it drops all cosines >= 1. By rounding, a view's own cosine can be below 1,
  and then the view is its own nearest neighbour. Here the diagonal is dropped, and nothing else.
- It needs at least 20 views; here all others are neighbours if there are fewer, and a single view has weight 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tlla.selection import entropy

from .base import PromptTuning, check_at_least

TEMPERATURE = 0.01  # of the weights, on mean cosines


@dataclass
class RTPT(PromptTuning):
    """Minimises the mean entropy of the confident views, then weights all views by their similarity to others."""

    n_neighbours: int = 20  # most similar other views, which determine a view's weight

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, n_neighbours=self.n_neighbours)

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """Mean of the views' entropies, (B,)."""
        return entropy(logits).mean(dim=-1)

    def output(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities of the weighted views, (B, K)."""
        logits = self.classifier.logits(features, text)  # (B, V, K)
        return (self._weights(features)[:, None] @ logits).squeeze(1).softmax(dim=-1)

    def _weights(self, features: Tensor) -> Tensor:
        """Weights of the views, which sum to 1: (B, V, E) -> (B, V)."""
        n_views = features.shape[1]
        if n_views == 1:
            return torch.ones_like(features[..., 0])
        itself = torch.eye(n_views, dtype=torch.bool, device=features.device)
        cosines = (features @ features.mT).masked_fill(itself, -torch.inf)  # (B, V, V)
        nearest = cosines.topk(min(self.n_neighbours, n_views - 1), dim=-1).values
        return (nearest.mean(dim=-1) / TEMPERATURE).softmax(dim=-1)
