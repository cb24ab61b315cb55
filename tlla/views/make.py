"""Augmented views of a test image, which depend only on (seed, image index, view index).

View 0 is the centre crop, CLIP's own preprocessing (short side to the image size, bicubic). The others are TPT's (Shu
et al., arXiv 2209.07511; azshue/TPT, data/datautils.py): a random resized crop of the full image (scale from the
config, ratio 3/4..4/3, bilinear), a horizontal flip with probability 1/2, and optionally AugMix.

The random numbers of a view come from a counter-based generator keyed by the seed and the image, row v for view v, so
that they do not depend on the batch size, the workers, the order of the images or the number of views.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from .augmix import augmix

RATIO = (3 / 4, 4 / 3)
MOST_VIEWS = 65_536
ATTEMPTS = 10  # torchvision's RandomResizedCrop tries ten boxes before it falls back to the largest central one


@dataclass(frozen=True)
class ViewConfig:
    """Settings of an image's views.

    Attributes:
        size: Side of a view in pixels.
        n_views: Number of views V, including the centre crop.
        scale: Range of the crops' area as a fraction of the image.
        augmix: Whether AugMix is applied to views 1 to V - 1.
        seed: Seed of all random numbers.
    """

    size: int
    n_views: int = 64
    scale: tuple[float, float] = (0.08, 1.0)
    augmix: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_views < 1:
            raise InputError(f"N_VIEWS must be at least 1 (the centre crop), but got {self.n_views}")
        if self.n_views > MOST_VIEWS:
            raise InputError(f"N_VIEWS must be at most {MOST_VIEWS:,}, but got {self.n_views}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"CROP_SCALE must be (low, high) with 0 < low <= high <= 1, but got {tuple(self.scale)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed of the views must be >= 0 and below 2^63, but got {self.seed}")


def make_views(image: Image.Image, index: int, config: ViewConfig) -> Tensor:
    """All views of one image.

    Args:
        image: An RGB image.
        index: Index of the image in its dataset.
        config: Settings of the views.

    Returns:
        (V, 3, size, size), uint8; float32 in 0..1 with AugMix, whose mixtures are not whole numbers.

    >>> make_views(image, 0, ViewConfig(size=32, n_views=8)).shape
    torch.Size([8, 3, 32, 32])
    """
    views = np.empty((config.n_views, config.size, config.size, 3), np.float32 if config.augmix else np.uint8)
    views[0] = np.asarray(centre_crop(image, config.size))
    if config.augmix:
        views[0] /= 255
    for v, (*box, flip) in enumerate(draw_crops(*image.size, index, config).tolist(), start=1):
        # Not resize(box=...): its filter would use pixels outside the crop.
        view = image.crop(box).resize((config.size, config.size), Image.Resampling.BILINEAR)
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view
        if config.augmix:
            views[v] = augmix(view, np.random.default_rng((config.seed, index, v)))
        else:
            views[v] = np.asarray(view)
    return torch.from_numpy(views).permute(0, 3, 1, 2)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """CLIP's test preprocessing as an image: short side resized to `size` (bicubic), then the centre crop.

    >>> centre_crop(image.resize((96, 64)), 32).size
    (32, 32)
    """
    resized, (left, top) = centre_crop_geometry(*image.size, size)
    return image.resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


def centre_crop_geometry(width: int, height: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of the image resized for the centre crop, and (left, top) of the crop in it.

    >>> centre_crop_geometry(96, 64, 32)
    ((48, 32), (8, 0))
    """
    short = min(width, height)
    width, height = int(size * width / short), int(size * height / short)
    return (width, height), (round((width - size) / 2), round((height - size) / 2))


def draw_crops(width: int, height: int, index: int, config: ViewConfig) -> np.ndarray:
    """Boxes and flips of views 1 to V - 1: (V - 1, 5) int64 with left, top, right, bottom, flip.

    >>> draw_crops(96, 64, index=0, config=ViewConfig(size=32, n_views=3))
    array([[19, 13, 82, 61,  0],
           [44,  1, 94, 40,  0]])
    """
    uniforms = _view_uniforms(config.seed, index, config.n_views)[1:]
    crops = [(*_crop_box(u[:-1], width, height, config.scale), u[-1] < 0.5) for u in uniforms]
    return np.array(crops, dtype=np.int64).reshape(-1, 5)


def _view_uniforms(seed: int, index: int, n_views: int) -> np.ndarray:
    """Uniform numbers in [0, 1), (V, 4 * ATTEMPTS + 1); row v depends only on (seed, index, v)."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    return generator.random((n_views, 4 * ATTEMPTS + 1))


def _crop_box(uniforms: np.ndarray, width: int, height: int, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of a random resized crop as in torchvision, from 4 * ATTEMPTS numbers."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for u_area, u_ratio, u_left, u_top in uniforms.reshape(ATTEMPTS, 4):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * u_area)
        ratio = math.exp(low + (high - low) * u_ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(u_left * (width - w + 1)), int(u_top * (height - h + 1))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> tuple[int, int, int, int]:
    """The largest central box with an allowed ratio, for images that are too long for the random boxes."""
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
