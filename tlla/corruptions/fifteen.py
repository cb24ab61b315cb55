"""The fifteen corruptions of ImageNet-C, by the published definitions (Hendrycks & Dietterich, arXiv 1903.12261).

Upstream: hendrycks/robustness@8190fe3, ImageNet-C/create_c/make_imagenet_c.py, whose random numbers come from NumPy's
global generator. The same numbers give the same pictures to a grey level (docs/corruptions.md), but for frost: upstream
lays photographs of frost over the picture, which are not here; ours are drawn.

Each function takes x, (H, W, 3) in 0..1, the setting of its severity, a generator, and how long a pixel of a picture of
224 is in this one; it returns (H, W, 3), to be clipped to 0..1.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from .filters import correlate, gaussian, magnify, plasma, sample, smooth, streak

SEVERITIES = 5
OURS = ("frost",)  # no pictures of the published program

Corrupt = Callable[[np.ndarray, Any, Generator, float], Any]  # NumPy's types are lost in arithmetic
FIFTEEN: dict[str, tuple[Corrupt, tuple[Any, ...]]] = {}  # name -> its function, and the settings by severity


def _by_severity(*settings: Any) -> Callable[[Corrupt], Corrupt]:
    """Lists a function under its name."""

    def enter(function: Corrupt) -> Corrupt:
        FIFTEEN[function.__name__.removeprefix("_")] = function, settings
        return function

    return enter


@_by_severity(0.08, 0.12, 0.18, 0.26, 0.38)
def _gaussian_noise(x: np.ndarray, scale: Any, rng: Generator, unit: float) -> Any:
    return x + rng.normal(size=x.shape, scale=scale)


@_by_severity(60, 25, 12, 5, 3)
def _shot_noise(x: np.ndarray, photons: Any, rng: Generator, unit: float) -> Any:
    return rng.poisson(x * photons) / photons


@_by_severity(0.03, 0.06, 0.09, 0.17, 0.27)
def _impulse_noise(x: np.ndarray, share: Any, rng: Generator, unit: float) -> Any:
    replaced, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(replaced, white, x)


@_by_severity((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
def _defocus_blur(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    radius, edge = setting
    half = max(8, radius)
    places = np.arange(-half, half + 1)
    disk = (places[:, None] ** 2 + places**2 <= (radius * unit) ** 2).astype(float)[..., None]
    weights = gaussian(edge, 1 if radius <= 8 else 2)
    disk = correlate(correlate(disk / disk.sum(), weights[:, None], "reflect"), weights[None], "reflect")
    return correlate(x, disk[..., 0], "reflect")


@_by_severity((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
def _glass_blur(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    """Pixels are copied, where the authors' swap of two views of one array meant to exchange them."""
    sigma, far, rounds = setting[0] * unit, max(1, round(setting[1] * unit)), setting[2]
    x = (smooth(x, sigma) * 255).astype(np.uint8) / 255
    (height, width), place = x.shape[:2], list(range(x.shape[0] * x.shape[1]))
    grid = np.arange(len(place)).reshape(height, width)[height - far : far : -1, width - far : far : -1].ravel()
    for _ in range(rounds):
        right, down = rng.integers(-far, far, (len(grid), 2)).T
        for here, there in zip(grid.tolist(), (grid + down * width + right).tolist(), strict=True):
            place[here] = place[there]
    return smooth(x.reshape(-1, 3)[place].reshape(x.shape), sigma)


@_by_severity((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
def _motion_blur(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    return streak(x, setting[0] * unit, setting[1] * unit, rng.uniform(-45, 45))


@_by_severity((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
def _zoom_blur(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    factors = np.arange(1, *setting)
    return (x + sum(magnify(x, factor) for factor in factors)) / (len(factors) + 1)


@_by_severity(
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
def _snow(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    mean, spread, flake, least, radius, sigma, kept = setting
    layer = magnify(rng.normal(mean, spread, (*x.shape[:2], 1)), max(1.0, flake * unit))
    layer = (np.where(layer < least, 0, layer).clip(0, 1) * 255).astype(np.uint8) / 255
    layer = streak(layer, radius * unit, sigma * unit, rng.uniform(-135, -45))
    layer = np.floor(layer * 255 + 1e-6) / 255  # ImageMagick's grey values
    grey = (x * [0.299, 0.587, 0.114]).sum(axis=2, keepdims=True)
    return kept * x + (1 - kept) * np.maximum(x, grey * 1.5 + 0.5) + layer + np.rot90(layer, 2)


@_by_severity((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
def _frost(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    return setting[0] * x + setting[1] * _draw_frost(x.shape[0], x.shape[1], rng)


@_by_severity((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
def _fog(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    thick, decay = setting
    clouds = plasma(x.shape[0], x.shape[1], decay, rng)[..., None]
    return (x + thick * clouds) * x.max() / (x.max() + thick)


@_by_severity(0.1, 0.2, 0.3, 0.4, 0.5)
def _brightness(x: np.ndarray, more: Any, rng: Generator, unit: float) -> Any:
    """More of HSV's V, the largest of a pixel's values; hue and saturation are the ratios of the values."""
    value = x.max(axis=2, keepdims=True)
    return np.where(value > 0, x / np.maximum(value, 1e-9), 1) * np.minimum(value + more, 1)


@_by_severity(0.4, 0.3, 0.2, 0.1, 0.05)
def _contrast(x: np.ndarray, share: Any, rng: Generator, unit: float) -> Any:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * share + mean


@_by_severity((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88))
def _elastic_transform(x: np.ndarray, setting: Any, rng: Generator, unit: float) -> Any:
    strength, sigma, corner = (value * unit for value in setting)
    height, width = x.shape[:2]
    middle, third = np.array([width, height]) // 2, min(height, width) // 3
    before = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + rng.uniform(-corner, corner, (3, 2))
    affine = np.linalg.solve(np.hstack([after, np.ones((3, 1))]), before)  # from the result to the image
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    across, down = (columns * a + rows * b + c for a, b, c in affine.T)
    x = sample(x, down, across, "reflect")
    right, down = (
        strength * smooth(rng.uniform(-1, 1, (height, width, 1)), sigma, 3, "symmetric")[..., 0] for _ in range(2)
    )
    return sample(x, rows + down, columns + right, "symmetric")


@_by_severity(0.6, 0.5, 0.4, 0.3, 0.25)
def _pixelate(x: np.ndarray, share: Any, rng: Generator, unit: float) -> Any:
    image, box = _as_image(x), Image.Resampling.BOX
    small = image.resize(tuple(max(1, int(side * share)) for side in image.size), box)  # type: ignore[arg-type]
    return np.asarray(small.resize(image.size, box)) / 255


@_by_severity(25, 18, 15, 10, 7)
def _jpeg_compression(x: np.ndarray, quality: Any, rng: Generator, unit: float) -> Any:
    buffer = io.BytesIO()
    _as_image(x).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)) / 255


def _as_image(x: np.ndarray) -> Image.Image:
    return Image.fromarray((x * 255).round().astype(np.uint8))


def _draw_frost(height: int, width: int, rng: Generator) -> Any:
    """A frozen window, (H, W, 3): crystals of a spine with branches at 60 degrees, on bluish clouds."""
    canvas, short = Image.new("L", (width, height)), min(height, width)
    draw = ImageDraw.Draw(canvas)
    for left, top, turn, size, light in rng.random((70, 5)):
        start = np.array([left * width, top * height])
        spine, length, fill = 2 * np.pi * turn, short * (0.1 + 0.4 * size), int(90 + 165 * light)
        for part in np.linspace(0, 1, 16):
            foot = start + part * length * np.array([np.cos(spine), np.sin(spine)])
            for side in (-1, 1):
                branch = spine + side * np.pi / 3
                tip = foot + 0.4 * (1 - part) * length * np.array([np.cos(branch), np.sin(branch)])
                draw.line((*foot, *tip), fill)
        draw.line((*start, *(start + length * np.array([np.cos(spine), np.sin(spine)]))), fill)
    crystals = smooth(np.asarray(canvas)[..., None] / 255, 0.6)
    clouds = plasma(height, width, 1.7, rng)[..., None]
    return (0.25 + 0.45 * clouds + 0.5 * crystals) * np.array([0.92, 0.97, 1.0])
