"""TDA: two caches of past images, for and against classes, correct the logits (Karmanov et al., arXiv 2403.18293).

Upstream: kdiAAA/TDA@e697fb0, tda_runner.py and utils.py. As in that code: an image enters the caches before it is
classified, so it sees itself; the entropy that decides about the second cache is in nats, but is divided by log2 K, so
that the ratio is at most ln 2; the mean feature of the views is not normalised. Upstream fixes the logit scale at 100,
ours is the classifier's; its caches are fp16, ours fp32.

The authors tuned alpha and beta on each test set (configs/trainers/TDA); the defaults are ImageNet's, for all sets.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from tlla.methods.cache import FeatureCache, pool_views
from tlla.selection import marginal_entropy

from .base import Method, check_at_least


class SeenByTDA(NamedTuple):
    """An image as the caches find it."""

    feature: Tensor  # mean of the kept views, (E,)
    logits: Tensor  # mean of theirs, (K,)
    label: int  # the predicted class without caches
    entropy: Tensor  # of the kept views' mean probability
    against: Tensor | None  # classes that an uncertain image counts against, (K,), bool; None: it is not uncertain


@dataclass
class TDA(Method):
    """Logits of the confident views plus similarities to confident images, minus similarities to uncertain images."""

    online: ClassVar[bool] = True

    pos_alpha: float = 2.0  # weight of the positive cache
    pos_beta: float = 5.0  # sharpness of its similarities
    pos_capacity: int = 3  # images per class; 0: no cache
    neg_alpha: float = 0.117  # weight of the negative cache
    neg_beta: float = 1.0  # sharpness of its similarities
    neg_capacity: int = 2  # images per class; 0: no cache
    entropy_low: float = 0.2  # an image is uncertain if its entropy / log2(K) lies between these
    entropy_high: float = 0.5  # upper end of that range
    mask_low: float = 0.03  # an uncertain image counts against classes with a probability between these
    mask_high: float = 1.0  # upper end of that range
    top: float = 0.1  # fraction of the views that is used
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, **{name: value for name, value in vars(self).items() if name not in ("top", "rule")})

    def reset(self) -> None:
        """Empties the caches."""
        text = self.classifier.text_features
        self.positive = FeatureCache(text, self.pos_capacity)
        self.negative = FeatureCache(text, self.neg_capacity, n_values=len(text))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of both caches."""
        return {"positive": vars(self.positive), "negative": vars(self.negative)}

    def load_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restores both caches."""
        self.positive.load(state["positive"])
        self.negative.load(state["negative"])

    def see(self, features: Tensor, text: Tensor) -> SeenByTDA:
        """All that the caches do not change."""
        feature, kept = pool_views(self, features, text)
        logits, entropy = kept.mean(dim=0), marginal_entropy(kept)
        unit, against = math.log2(len(text)), None
        if self.entropy_low * unit < entropy < self.entropy_high * unit:
            probability = kept.softmax(dim=-1).mean(dim=0)
            against = (probability > self.mask_low) & (probability < self.mask_high)
        return SeenByTDA(feature, logits, int(logits.argmax()), entropy, against)

    def step(self, seen: SeenByTDA) -> Tensor:
        """Class probabilities, (K,); adds the image to the caches."""
        self.positive.add(seen.label, seen.entropy, seen.feature)
        if seen.against is not None:
            self.negative.add(seen.label, seen.entropy, seen.feature, seen.against)

        pros = self.positive.affinity(seen.feature, self.pos_beta).sum(dim=1)
        weights = self.negative.affinity(seen.feature, self.neg_beta)  # (K, capacity)
        cons = weights.flatten() @ self.negative.values.flatten(0, 1)
        return (seen.logits + self.pos_alpha * pros - self.neg_alpha * cons).softmax(dim=-1)
