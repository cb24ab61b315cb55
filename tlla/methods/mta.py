"""MTA: mean shift over the views' features, with a learned inlierness of each view (Zanella et al., arXiv 2405.02266).

Upstream: MaxZanella/MTA@cafafdf, mta.py; the numbers of iterations are that code's. Where its formulas give 0/0, ours
have a limit: a view has at least one neighbour (there: none with fewer than 5 views), a single view is its own mode,
and equal views get a bandwidth just above 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tlla.errors import InputError

from .base import Method, check_at_least

NEIGHBOURS = 0.3  # share of the other views that sets a view's bandwidth
ROUNDS = 5  # an inlierness step and a mode step each
ITERATIONS = 5  # at most so many in a step
TOLERANCE = 1e-6  # a step ends when its result moves by less
MIN_BANDWIDTH = 1e-9  # squared


@dataclass
class MTA(Method):
    """Class probabilities of the mode of the views' features."""

    lambda_q: float = 4.0  # weight of the affinity: views with similar predictions get similar inlierness
    lambda_y: float = 0.2  # weight of the entropy of the inlierness: higher values make the views more equal

    def __post_init__(self) -> None:
        check_at_least(0, lambda_q=self.lambda_q)
        if not 0 < self.lambda_y < float("inf"):
            raise InputError(f"LAMBDA_Y must be a finite number > 0, but got {self.lambda_y}")

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        text = self.classifier.text(features)
        mode = self._mode(features, self.classifier.logits(features, text).softmax(dim=-1))
        return self.classifier.logits(mode[:, None], text).squeeze(1).softmax(dim=-1)

    def _mode(self, features: Tensor, probability: Tensor) -> Tensor:
        """The normalised mode of the views, (B, E), from their features (B, V, E) and predictions (B, V, K)."""
        bandwidth = _squared_bandwidth(features)
        affinity = probability @ probability.mT  # (B, V, V)

        def log_density(mode: Tensor) -> Tensor:
            return -(features - mode[:, None]).square().sum(dim=-1) / (2 * bandwidth)  # (B, V)

        def reweigh(inlierness: Tensor, density: Tensor) -> Tensor:
            support = (affinity @ inlierness[..., None]).squeeze(-1)
            return ((density + self.lambda_q * support) / self.lambda_y).softmax(dim=-1)

        def shift(mode: Tensor, inlierness: Tensor) -> Tensor:
            # Weights are inlierness times density; as a softmax, they cannot all underflow.
            weight = (inlierness.log() + log_density(mode)).softmax(dim=-1)
            shifted: Tensor = (weight[..., None] * features).sum(dim=1)
            length: Tensor = shifted.norm(dim=-1, keepdim=True)
            return shifted / length

        inlierness = torch.full_like(features[..., 0], 1 / features.shape[1])  # (B, V)
        mode = features[:, 0]
        for _ in range(ROUNDS):
            inlierness = _iterate(reweigh, inlierness, log_density(mode).exp())
            mode = _iterate(shift, mode, inlierness)
        return mode


def _squared_bandwidth(features: Tensor) -> Tensor:
    """Half the mean squared distance of each view to its nearest neighbours: (B, V, E) -> (B, V)."""
    n_neighbours = max(1, int(NEIGHBOURS * (features.shape[1] - 1)))
    # By differences, as with dot products a view's distance to itself would not be 0.
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.square().sort(dim=-1).values[..., : n_neighbours + 1]  # the first is the view itself
    return (0.5 * nearest.sum(dim=-1) / n_neighbours).clamp(min=MIN_BANDWIDTH)


def _iterate(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, given: Tensor) -> Tensor:
    """Repeats x <- step(x, given) for each row of x, (B, N), until it converges."""
    moving = torch.ones_like(x[:, :1], dtype=torch.bool)
    for _ in range(ITERATIONS):
        new = torch.where(moving, step(x, given), x)
        moving = (new - x).norm(dim=-1, keepdim=True) >= TOLERANCE
        x = new
    return x
