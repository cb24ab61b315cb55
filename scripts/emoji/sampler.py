"""Draws pre-training batches from the corpus."""

import random

import numpy as np
import torch
from torch import Tensor

from . import corpus
from .augment import augment
from .captions import caption


class Sampler:
    """Draws batches: augmented images, their captions, and the masks that multi-positive losses need."""

    def __init__(self, images: np.ndarray, items: list[corpus.Item], seed: int) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.items = items
        self.rng = random.Random(seed)
        self.weights = torch.from_numpy(corpus.sampling_weights(items))
        self.categories = sorted({i.category for i in items if i.category})
        number = {c: k for k, c in enumerate(self.categories)}
        self.category = torch.tensor([number.get(i.category, -1) for i in items])
        labels = {label: k for k, label in enumerate(sorted({i.label for i in items}))}
        self.label = torch.tensor([labels[i.label] for i in items])

    def draw(self, size: int) -> tuple[Tensor, list[str], Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W), U different texts, each image's text (B,), false negatives (B, U), categories (B,)."""
        index = torch.multinomial(self.weights, size)
        pairs = [caption(self.items[i], self.rng) for i in index.tolist()]
        texts = list(dict.fromkeys(text for text, _ in pairs))
        number = {text: k for k, text in enumerate(texts)}
        own = torch.tensor([number[text] for text, _ in pairs])
        category, label = self.category[index], self.label[index]
        text_category, text_label = torch.full((len(texts),), -2), torch.full((len(texts),), -2)
        general = torch.tensor([is_general for _, is_general in pairs])
        text_category[own[general]] = category[general]
        text_label[own[~general]] = label[~general]
        true_too = (category[:, None] == text_category) | (label[:, None] == text_label)
        true_too[torch.arange(size), own] = False
        return augment(self.images[index]), texts, own, true_too, category
