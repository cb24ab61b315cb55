"""R-TPT: test-time prompt tuning view by view, and a vote of the views that have near neighbours (arXiv 2504.11195).

Upstream: TomSheng21/R-TPT, rtpt.py. Its attack on the test images is no part of this method. Differences to that code:
- To leave a view out of its own neighbours it drops all cosines >= 1. By rounding, a view's own cosine can be below 1,
  and then the view is its own nearest neighbour. Here the diagonal is dropped, and nothing else.
- It needs at least 20 views; here all others are neighbours if there are fewer, and a single view has weight 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlla.selection import confident, marginal_entropy

from .base import Method, check_at_least, check_share, tune_prompt

TEMPERATURE = 0.01  # of the weights, on mean cosines


@dataclass
class RTPT(Method):
    """Lowers the confident views' own entropies, then weighs the logits of all views by their nearness to others."""

    needs_backprop: ClassVar[bool] = True
    needs_text_encoder: ClassVar[bool] = True

    n_neighbours: int = 20  # other views, the most similar ones, that decide on a view's weight
    top: float = 0.1  # share of the views that tune, chosen once, by the untuned prompt
    lr: float = 5e-3  # AdamW's learning rate
    steps: int = 1  # AdamW's steps

    def __post_init__(self) -> None:
        check_at_least(1, n_neighbours=self.n_neighbours)
        check_share(top=self.top)
        check_at_least(0, lr=self.lr, steps=self.steps)

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,)."""
        logits = self.classifier.logits
        kept = features[confident(logits(features, text)[None], self.top)[0]]  # (s, E)

        def loss(text: Tensor) -> Tensor:
            # Each view on its own: unlike `entropy`, this has a finite gradient where a probability underflows to 0.
            return marginal_entropy(logits(kept, text)[:, None]).mean()

        tuned = tune_prompt(self.classifier, features, loss, self.lr, self.steps)
        return (self._weights(features) @ logits(features, tuned)).softmax(dim=-1)

    def _weights(self, features: Tensor) -> Tensor:
        """Weights of the views, (V, E) -> (V,), which sum to 1."""
        n_views = len(features)
        if n_views == 1:
            return torch.ones_like(features[:, 0])
        cosines = (features @ features.mT).fill_diagonal_(-torch.inf)  # (V, V)
        nearest = cosines.topk(min(self.n_neighbours, n_views - 1), dim=-1).values
        return (nearest.mean(dim=-1) / TEMPERATURE).softmax(dim=-1)
