"""DOTA: a Gaussian of each class, learned from the images' soft predictions (Han et al., arXiv 2409.19375).

Upstream: skylineeeeen/DOTA@bc67d44, dota.py and utils.py. As in that code: all means start at 0.001 in every entry, not
at the class features, as a comment there says; a covariance is updated with the old mean; an image is predicted before
it is learned from. There the inverse covariance and its scores are fp16, here fp32; the logit scale is 100, here the
classifier's. Its first inverse lacks epsilon, which changes nothing, as all means are equal then.

Needs K E^2 numbers, 1 GB for 1000 classes of ViT-B/16, and so does each saving of a test's results (TEST.SAVE_EVERY).

The authors tuned eta, rho and epsilon on each test set (configs/trainers/DOTA); the defaults are the one setting of
walawalagoose/TTABC@18dc51a.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Method, check_at_least, check_share

FIRST_MEAN = 1e-3  # in every entry


@dataclass
class DOTA(Method):
    """Logits of the confident views plus those of Gaussians with a common covariance, learned from earlier images."""

    online: ClassVar[bool] = True

    eta: float = 0.3  # largest weight of the Gaussians' logits
    rho: float = 0.02  # how fast that weight grows with the images of a class
    epsilon: float = 1e-4  # share of the identity in the covariance that is inverted
    sigma: float = 2e-3  # variance at the start
    top: float = 0.1  # fraction of the views that is used
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(epsilon=self.epsilon, sigma=self.sigma)
        check_at_least(0, eta=self.eta, rho=self.rho)

    def reset(self) -> None:
        """Forgets the images: equal means, the covariances sigma I, each of the weight of one image."""
        text = self.classifier.text_features
        n_classes, size = text.shape
        self.count = text.new_ones(n_classes)  # images of each class, by soft labels
        self.mean = text.new_full((n_classes, size), FIRST_MEAN)  # (K, E)
        first = self.sigma * torch.eye(size).to(text)
        self.scatter = first.repeat(n_classes, 1, 1)  # covariance times count, (K, E, E)

    def state(self) -> dict[str, Tensor]:
        """Counts, means and scatter matrices."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for name, own in self.state().items():
            own.copy_(state[name])

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,); then learns from the kept views."""
        logits = self.classifier.scale * features @ text.T
        kept = self.choose(features[None], logits[None])[0]
        views, logits = features[kept], logits[kept]  # (s, E), (s, K)
        weight = (self.rho * self.count.mean() / len(views)).clamp(max=self.eta)
        output = (logits.mean(dim=0) + weight * self._scores(views.mean(dim=0))).softmax(dim=-1)
        self._learn(views, logits.softmax(dim=-1))
        return output

    def _scores(self, feature: Tensor) -> Tensor:
        """Log density of each Gaussian at a feature (E,) but for what all share: (K,)."""
        n_classes, size = self.mean.shape
        covariance = (1 / (n_classes * self.count) @ self.scatter.flatten(1)).view(size, size)  # mean over classes
        covariance = (1 - self.epsilon) * covariance + self.epsilon * torch.eye(size).to(covariance)
        directions: Tensor = torch.linalg.solve(covariance, self.mean.T)  # (E, K)
        return feature @ directions - 0.5 * (self.mean.T * directions).sum(dim=0)

    def _learn(self, views: Tensor, soft: Tensor) -> None:
        """Adds views (s, E) with soft labels (s, K)."""
        offsets = views - self.mean[:, None]  # (K, s, E)
        self.scatter.baddbmm_((soft.T[..., None] * offsets).mT, offsets)
        weight = soft.sum(dim=0)  # (K,)
        self.mean = (self.count[:, None] * self.mean + soft.T @ views) / (self.count + weight)[:, None]
        self.count = self.count + weight
