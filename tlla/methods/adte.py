"""ADTE: views chosen by a Tsallis entropy whose exponents undo the classes' bias, ADTE (ICLR 2026).

Upstream: Jinx630/ADTE@b9e6085, ttas/zero.py and run.py with --use_adte. As in that code: **the whole test set is read
first**, for the class prior, where all views of an image count; the kept views' probabilities are averaged, and not
corrected by the prior. Differences to that code:
- It runs under fp16 autocast, which also rounds the logits that the prior is computed from; here all is fp32.
- It keeps the exponents in a file whose default name is ImageNet-A's, and takes them for another test set; here they
  are computed for each test.
- A class that the prior leaves without any probability, or no image with a clear lead, gives NaN there. Here the prior
  has a floor, and without such an image it is uniform.

With the same exponent for all classes it is EntropyMean with the rule tsallis(q=...).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.selection import lowest, take_views

from .base import Method, check_at_least, check_share

ROUNDS, TOLERANCE = 500, 1e-4  # of the iteration for the prior


@dataclass
class ADTE(Method):
    """Mean probability of the views of lowest Tsallis entropy, whose exponents come from the classes' prior."""

    reads_first: ClassVar[bool] = True
    needs_dataset: ClassVar[str] = "to read all test images before the first prediction"

    q_low: float = 0.01  # exponent of the rarest class in the prior
    q_high: float = 0.9  # exponent of the most frequent class
    lead: float = 1.0  # an image counts for the prior if its first logit leads by this
    capacity: int = 20  # images per class that count for the prior
    top: float = 0.1  # fraction of the views that is kept

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(q_low=self.q_low)
        check_at_least(0, lead=self.lead)
        check_at_least(1, capacity=self.capacity)
        if not self.q_low <= self.q_high < 1:
            raise InputError(f"Q_HIGH must lie between Q_LOW, {self.q_low}, and 1, but got {self.q_high}")

    def reset(self) -> None:
        """Forgets the test set."""
        text = self.classifier.text_features
        self.exponents: Tensor | None = None  # (K,), when the first image is predicted
        self.kept = text.new_zeros(len(text), self.capacity, len(text))  # probabilities of images, by predicted class
        self.leads = text.new_full((len(text), self.capacity), -1.0)  # of these images; -1: empty place

    def observe(self, features: Tensor) -> None:
        """Files images by class; in a full class the one of least lead is replaced."""
        for logits in self.classifier.logits(features).mean(dim=1):  # (K,), of each image
            first = logits.topk(min(2, len(logits))).values
            lead = first[0] - first[-1]
            if lead >= self.lead:
                label = int(logits.argmax())
                place = self.leads[label].argmin()
                self.kept[label, place], self.leads[label, place] = logits.softmax(dim=-1), lead

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        if self.exponents is None:
            self.exponents = self._exponents()
        log_prob = self.classifier.logits(features).log_softmax(dim=-1)  # (B, V, K)
        scores = ((self.exponents * log_prob).exp() / (1 - self.exponents)).sum(dim=-1)
        index = lowest(scores, max(1, int(self.top * features.shape[1])))
        return take_views(log_prob, index).exp().mean(dim=1)

    def _exponents(self) -> Tensor:
        """The logarithm of the prior, scaled to [q_low, q_high]."""
        log_prior = self._prior().clamp(min=torch.finfo(torch.float32).tiny).log()
        spread = log_prior.max() - log_prior.min()
        return self.q_low + (log_prior - log_prior.min()) / spread.clamp(min=1e-12) * (self.q_high - self.q_low)

    def _prior(self) -> Tensor:
        """The stationary distribution, of length 1, of how images of each predicted class spread over classes: (K,)."""
        filed = (self.leads >= 0).sum(dim=1)  # (K,)
        spread = (self.kept.sum(dim=1) / filed.clamp(min=1)[:, None]).T  # (K, K): column j is that of class j
        prior = spread.new_full((len(spread),), 1 / len(spread))
        if not filed.any():
            return prior
        for _ in range(ROUNDS):
            new = spread @ prior
            new = new / new.norm()
            if (new - prior).norm() < TOLERANCE:
                break
            prior = new
        return prior
