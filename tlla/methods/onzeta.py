"""OnZeta: online zero-shot classification with a class prior and an image-side classifier (OnZeta, ECCV 2024).

Upstream: idstcv/OnZeta@befef06, main_online.py, the authors' code. As there, one crop is used, an image is predicted
before anything is learned from it, and the weight of the image-side classifier grows with the share of the test set
that has passed, so that the number of test images must be known. There the two temperatures are 0.01 and 0.04, here the
classifier's and a multiple of it; there exp(rho) is multiplied, here rho is added to the logits, which cannot overflow.
The mean over five orders that the code prints is what several seeds give here.

beta is 0.8 for ImageNet there; TomSheng21/tta-vlm@bcc735f uses 0.4 on the ten other datasets, and alpha 0 on Caltech101
(configs/trainers/OnZeta).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.errors import InputError

from .base import Method, check_at_least, check_share


@dataclass
class OnZeta(Method):
    """The prompt's prediction under a learned class prior, and that of a classifier learned from it, mixed."""

    online: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = True
    uses_views: ClassVar[bool] = False
    needs_dataset: ClassVar[str] = "the number of test images in advance"

    beta: float = 0.8  # weight of the image-side classifier after the last image
    alpha: float = 1.0  # how balanced the classes are taken to be: each has at least this share of 1 / K; 0: no prior
    lr: float = 0.5  # of the image-side classifier, divided by the root of the number of images
    prior_lr: float = 20.0  # of the class prior, divided likewise
    temperature: float = 4.0  # of the image-side classifier, as a multiple of the prompt's

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(beta=self.beta)
        check_at_least(1e-3, temperature=self.temperature)
        check_at_least(0, alpha=self.alpha, lr=self.lr, prior_lr=self.prior_lr)

    def reset(self) -> None:
        """Returns to the prompt's class features and no prior."""
        self.seen = 0
        self.proxies = self.classifier.text_features  # (K, E), of the image-side classifier
        self.prior = self.proxies.new_zeros(len(self.proxies))  # (K,), added to the prompt's logits

    def state(self) -> dict[str, Any]:
        """How many images have passed, the image-side classifier and the prior."""
        return {"seen": self.seen, "proxies": self.proxies, "prior": self.prior}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.seen = state["seen"]
        self.proxies, self.prior = (state[name].to(self.proxies) for name in ("proxies", "prior"))

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,); then learns from the image."""
        if self.n_images is None:
            raise InputError(f"OnZeta needs {self.needs_dataset}: set its n_images before it predicts")
        self.seen += 1
        image = features[0]
        by_text = (self.classifier.scale * text @ image + self.prior).softmax(dim=-1)
        scale = self.classifier.scale / self.temperature  # of the image-side classifier
        by_image = (scale * self.proxies @ image).softmax(dim=-1)
        share, root = self.beta * math.sqrt(self.seen / self.n_images), math.sqrt(self.seen)
        self.prior = (self.prior - self.prior_lr / root * (by_text - self.alpha / len(text))).clamp(min=0)
        step = self.lr / root * scale * torch.outer(by_image - by_text, image)
        self.proxies = F.normalize(self.proxies - step, dim=-1)
        return share * by_image + (1 - share) * by_text
