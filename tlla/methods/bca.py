"""BCA: class features and a class prior that follow the images (Zhou et al., arXiv 2503.09248).

The authors' repository (buerzlh/Bayesian-Test-Time-Adaptation-for-Vision-Language-Models) could not be read. Upstream
is a port, walawalagoose/TTABC@65eae15, ttabc/model_selection/bca.py, whose one setting is for all datasets. As there,
the mean feature of the views is not normalised (another state of that file, c5fbdad, normalises it), and an image is
predicted before it is learned from. There the class features are of the model's dtype, here they are fp32.

With 20000 images' weight for a class feature, what changes predictions is the prior.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.methods.cache import pool_views

from .base import Method, check_at_least


@dataclass
class BCA(Method):
    """Class features move to the images that they win, and each has a distribution over classes that is learned too."""

    online: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = True

    centre_threshold: float = 0.05  # an image above this probability moves the feature of its class
    centre_count: float = 20000.0  # how many images a class feature counts for at the start
    prior_threshold: float = 0.65  # an image above this probability changes the distribution of its class
    prior_count: float = 1.0  # how many images that distribution counts for at the start
    top: float = 0.1  # fraction of the views that is used
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("centre_threshold", "centre_count", "prior_threshold", "prior_count")
        check_at_least(0, **{name: getattr(self, name) for name in names})

    def reset(self) -> None:
        """Returns to the prompt's class features and to the prior that a feature is of its own class."""
        text = self.classifier.text_features
        self.centres = text.clone()  # (K, E)
        self.prior = torch.eye(len(text)).to(text)  # (K, K): row k is the distribution of feature k over classes
        self.counts = text.new_zeros(len(text), 2)  # images that have changed the feature, and the distribution

    def state(self) -> dict[str, Tensor]:
        """The class features, the prior, and how many images have changed each."""
        return {"centres": self.centres, "prior": self.prior, "counts": self.counts}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for name, own in self.state().items():
            own.copy_(state[name])

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,); then learns from the image."""
        feature, kept = pool_views(self, features, self.centres, self.centres - text)
        probability = kept.mean(dim=0).softmax(dim=-1) @ self.prior
        k = int(probability.argmax())
        learns = probability[k] > probability.new_tensor((self.centre_threshold, self.prior_threshold))
        seen = self.counts[k] + self.counts.new_tensor((self.centre_count, self.prior_count))
        centre = F.normalize((seen[0] * self.centres[k] + feature) / (seen[0] + 1), dim=-1)
        self.centres[k] = torch.where(learns[0], centre, self.centres[k])
        self.prior[k] = torch.where(learns[1], (seen[1] * self.prior[k] + probability) / (seen[1] + 1), self.prior[k])
        self.counts[k] += learns
        return probability
