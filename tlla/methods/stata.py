"""StatA: batches of images, clustered around the class features (Zanella et al., arXiv 2501.03729).

Upstream: MaxZanella/StatA@eea8637, solvers/StatA.py; its settings are one for all datasets. Which images make a batch
changes the result, so that BATCH is a setting of the method: the images are taken in the test's order, BATCH at a time,
whatever VIEW_BATCH is; the last batch may be smaller. Differences to that code:
- It draws batches of a few classes, or streams, by the true labels; here the order is the test's.
- It divides the first covariance by the number of images once for each chunk of 2500 images; here once.
- Its first neighbour of an image is dropped as the image itself, which need not hold for equal images; here the image
  itself is left out. Class features without any image are 0 / 0 there.
- It computes in fp32, here in double precision; its logit scale is 100, here the classifier's.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Method, check_at_least

ROUNDS, STEPS = 10, 5  # of means and covariances, and of assignments within each
NEIGHBOURS = 3
SHARPNESS = 50.0  # likelihoods are divided by this


@dataclass
class StatA(Method):
    """Class probabilities of a batch from Gaussians that stay near the class features, and from neighbouring images."""

    online: ClassVar[bool] = True
    in_batches: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = True
    uses_views: ClassVar[bool] = False
    needs_dataset: ClassVar[str] = "batches of images that are predicted together"

    batch: int = 64  # images that are predicted together
    alpha: float = 1.0  # how many images a class feature weighs against those of its class
    laplacian: float = 1.0  # weight of the neighbours

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, batch=self.batch)
        check_at_least(0, alpha=self.alpha, laplacian=self.laplacian)

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities of all images, (B, K), as one batch."""
        x, text = features[:, 0].double(), self.classifier.text_features.double()  # (B, E), (K, E)
        first = self.classifier.logits(features[:, :1]).squeeze(1).double().softmax(dim=-1)  # (B, K)
        affinity = self._affinity(x)
        mean, assigned = text, first
        anchor = _spread(x, first, text).sum(dim=0) / len(x)  # (E,), the first covariance of all classes
        covariance = anchor.expand_as(text)
        for _ in range(ROUNDS):
            assigned = self._assign(x, first, assigned, affinity, mean, covariance)
            count = assigned.argmax(dim=1).bincount(minlength=len(text)).double()
            trust = (count / (self.alpha + count + 1e-12))[:, None]  # (K, 1)
            mass = assigned.sum(dim=0).clamp(min=torch.finfo(x.dtype).tiny)[:, None]
            own = F.normalize(assigned.T @ x / mass, dim=-1)
            mean = F.normalize(trust * own + (1 - trust) * text, dim=-1)
            own = _spread(x, assigned, mean) / mass
            covariance = trust * own + (1 - trust) * (anchor + (text - mean).square())
        return self._assign(x, first, assigned, affinity, mean, covariance).float()

    def _affinity(self, x: Tensor) -> Tensor:
        """Cosines of each image to its nearest ones, 0 elsewhere, plus the transpose: (B, B)."""
        cosine = (x @ x.T).fill_diagonal_(-torch.inf)
        near = cosine.topk(min(NEIGHBOURS, len(x) - 1), dim=1)
        weights = torch.zeros_like(cosine).scatter(1, near.indices, near.values)
        return weights + weights.T

    def _assign(
        self, x: Tensor, first: Tensor, assigned: Tensor, affinity: Tensor, mean: Tensor, covariance: Tensor
    ) -> Tensor:
        """Assignments of images to classes, (B, K), from those before, means and covariances (K, E)."""
        precision = 1 / covariance
        distance = x.square() @ precision.T - 2 * x @ (mean * precision).T + (mean.square() * precision).sum(dim=1)
        likelihood = -0.5 * distance - 0.5 * covariance.log().sum(dim=1)
        for _ in range(STEPS):
            score = likelihood + self.laplacian * SHARPNESS / (2 * NEIGHBOURS) * (affinity @ assigned)
            assigned = first * ((score - score.amax(dim=1, keepdim=True)) / SHARPNESS).exp()
            assigned = assigned / assigned.sum(dim=1, keepdim=True)
        return assigned


def _spread(x: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """sum_i w_ik (x_i - mean_k)^2 by class and axis: (B, E), (B, K), (K, E) -> (K, E)."""
    squares = weight.T @ x.square() - 2 * mean * (weight.T @ x) + weight.sum(dim=0)[:, None] * mean.square()
    return squares.clamp(min=0)
