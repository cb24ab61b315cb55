"""Augmented views of a test image, by (seed, image index, view index) alone.

View 0 is CLIP's own preprocessing (short side to the image size, bicubic, centre crop). The others are TPT's (Shu et
al., arXiv 2209.07511; azshue/TPT, data/datautils.py): a random resized crop of the full image (scale range a setting,
ratio 3/4..4/3, bilinear), a horizontal flip with probability 1/2, and on request AugMix (Hendrycks et al., arXiv
1912.02781) with TPT's nine operations at severity 1.

The random numbers of a view come from a counter-based generator keyed by the seed and the image, row v for view v: the
batch size, the workers, the order of the images and the number of views change nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError

RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10  # torchvision's RandomResizedCrop tries ten boxes before it falls back to the largest central one


@dataclass(frozen=True)
class ViewConfig:
    """What the views of an image are.

    Attributes:
        size: Side of a view in pixels.
        n_views: Number of views V, the plain one included.
        scale: Range of the crops' area as a share of the image.
        augmix: Whether views 1.. also pass AugMix.
        seed: Seed of all randomness.
    """

    size: int
    n_views: int = 64
    scale: tuple[float, float] = (0.08, 1.0)
    augmix: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_views < 1:
            raise InputError(f"N_VIEWS must be at least 1 (the plain view), but got {self.n_views}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"CROP_SCALE must be (low, high) with 0 < low <= high <= 1, but got {tuple(self.scale)}")
        if self.seed < 0:
            raise InputError(f"the seed of the views must be >= 0, but got {self.seed}")


def make_views(image: Image.Image, index: int, config: ViewConfig) -> Tensor:
    """All views of one image.

    Args:
        image: RGB.
        index: Position of the image in its dataset.
        config: What to make.

    Returns:
        (V, 3, size, size): uint8, or float32 in 0..1 with AugMix, whose mixtures are not whole numbers.
    """
    views = [np.asarray(plain_view(image, config.size))]
    uniforms = view_uniforms(config.seed, index, config.n_views)
    for v in range(1, config.n_views):
        view = _random_crop(image, uniforms[v], config)
        if config.augmix:
            views.append(augmix(view, np.random.default_rng((config.seed, index, v))))
        else:
            views.append(np.asarray(view))
    if config.augmix:
        views[0] = views[0].astype(np.float32) / 255
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def plain_view(image: Image.Image, size: int) -> Image.Image:
    """CLIP's test preprocessing up to the tensor: short side to `size` (bicubic), then the centre crop."""
    width, height = image.size
    short = min(width, height)
    resized = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def view_uniforms(seed: int, index: int, n_views: int) -> np.ndarray:
    """Uniform numbers in [0, 1), (V, 4 * ATTEMPTS + 1): row v depends on (seed, index, v) alone."""
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    return generator.random((n_views, 4 * ATTEMPTS + 1))


def crop_box(uniforms: np.ndarray, width: int, height: int, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) of a random resized crop, distributed as torchvision's; 4 * ATTEMPTS numbers."""
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
    """The largest central box whose ratio is allowed: for images too long for any random one."""
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _random_crop(image: Image.Image, uniforms: np.ndarray, config: ViewConfig) -> Image.Image:
    box = crop_box(uniforms[:-1], image.width, image.height, config.scale)
    view = image.crop(box).resize((config.size, config.size), Image.Resampling.BILINEAR)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if uniforms[-1] < 0.5 else view


def augmix(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """AugMix at severity 1: m * x + (1 - m) * sum_i w_i * chain_i(x), (H, W, 3) float32 in 0..1.

    TPT mixes after normalisation; as the weights sum to 1 and normalisation is affine, the result is the same.
    """
    weights = rng.dirichlet((1.0, 1.0, 1.0))
    m = rng.beta(1.0, 1.0)
    mixed = np.zeros((image.height, image.width, 3), dtype=np.float32)
    for weight in weights:
        chain = image
        for _ in range(rng.integers(1, 4)):
            chain = AUGMIX_OPS[rng.integers(len(AUGMIX_OPS))](chain, rng)
        mixed += np.float32(weight / 255) * np.asarray(chain, dtype=np.float32)
    return np.float32(m / 255) * np.asarray(image, dtype=np.float32) + np.float32(1 - m) * mixed


def _level(rng: np.random.Generator) -> float:
    return rng.uniform(0.1, 1.0)  # severity 1


def _sign(rng: np.random.Generator) -> int:
    return -1 if rng.random() > 0.5 else 1


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.rotate(_sign(rng) * int(_level(rng) * 30 / 10), Image.Resampling.BILINEAR)


def _solarize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(_level(rng) * 256 / 10))


def _posterize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, 4 - int(_level(rng) * 4 / 10))


def _shear_x(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, _sign(rng) * _level(rng) * 0.3 / 10, 0, 0, 1, 0))


def _shear_y(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, _sign(rng) * _level(rng) * 0.3 / 10, 1, 0))


def _translate_x(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, _sign(rng) * int(_level(rng) * image.width / 3 / 10), 0, 1, 0))


def _translate_y(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _sign(rng) * int(_level(rng) * image.height / 3 / 10)))


AUGMIX_OPS = (
    lambda image, rng: ImageOps.autocontrast(image),
    lambda image, rng: ImageOps.equalize(image),
    _posterize,
    _rotate,
    _solarize,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
