"""Transforms that torchvision does not have."""

import random

import numpy as np
import torch
import torchvision.transforms.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode


class Random2DTranslation:
    """Resizes to 1.125 times the size and crops at random, or just resizes, with probability ``p`` each way."""

    def __init__(
        self, height: int, width: int, p: float = 0.5, interpolation: InterpolationMode = InterpolationMode.BILINEAR
    ):
        self.height, self.width, self.p, self.interpolation = height, width, p, interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        """Returns an image of the size (height, width)."""
        if random.uniform(0, 1) > self.p:
            return F.resize(img, [self.height, self.width], self.interpolation)
        height, width = round(self.height * 1.125), round(self.width * 1.125)
        resized = F.resize(img, [height, width], self.interpolation)
        left = round(random.uniform(0, width - self.width))
        top = round(random.uniform(0, height - self.height))
        return F.crop(resized, top, left, self.height, self.width)


class InstanceNormalization:
    """Gives each channel of an image (C, H, W) mean 0 and standard deviation 1."""

    def __init__(self, eps: float = 1e-8):
        self.eps = eps

    def __call__(self, img: Tensor) -> Tensor:
        """Returns the normalised image, (C, H, W)."""
        mean = img.mean((1, 2), keepdim=True)  # (C, 1, 1)
        std = img.std((1, 2), keepdim=True)  # (C, 1, 1)
        return (img - mean) / (std + self.eps)


class Cutout:
    """Sets ``n_holes`` random squares of side ``length`` to 0 in an image (C, H, W); the border may cut them.

    Paper: https://arxiv.org/abs/1708.04552
    """

    def __init__(self, n_holes: int = 1, length: int = 16):
        self.n_holes, self.length = n_holes, length

    def __call__(self, img: Tensor) -> Tensor:
        """Returns the image with its holes, (C, H, W)."""
        height, width = img.shape[1:]
        mask = torch.ones(height, width)  # (H, W)
        half = self.length // 2
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            mask[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        return img * mask


class GaussianNoise:
    """Adds normal noise to a tensor with probability ``p``."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5):
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, img: Tensor) -> Tensor:
        """Returns the tensor, with or without noise."""
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn(img.size()) * self.std + self.mean
