"""RandAugment (https://arxiv.org/abs/1909.13719) and two relatives, on PIL images.

Random numbers are drawn in the order in which the Dassl of 2022 draws them: the same seed gives the same images.
"""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float], Image.Image]


def _signed(value: float) -> float:
    """The value with a random sign."""
    return -value if random.random() > 0.5 else value


def _affine(img: Image.Image, *matrix: float) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, matrix)


def _shear_x(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, _signed(v), 0, 0, 1, 0)


def _shear_y(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, 0, _signed(v), 1, 0)


def _translate_x(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, _signed(v) * img.size[0], 0, 1, 0)


def _translate_y(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, 0, 0, 1, _signed(v) * img.size[1])


def _translate_x_pixels(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, _signed(v), 0, 1, 0)


def _translate_y_pixels(img: Image.Image, v: float) -> Image.Image:
    return _affine(img, 1, 0, 0, 0, 1, _signed(v))


def _rotate(img: Image.Image, v: float) -> Image.Image:
    return img.rotate(_signed(v))


def _solarize_add(img: Image.Image, v: float) -> Image.Image:
    brighter = np.clip(np.asarray(img).astype(int) + v, 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), 128)


def _cutout_pixels(img: Image.Image, v: float) -> Image.Image:
    width, height = img.size
    left, top = np.random.uniform(width), np.random.uniform(height)
    left, top = int(max(0, left - v / 2)), int(max(0, top - v / 2))
    img = img.copy()
    ImageDraw.Draw(img).rectangle((left, top, min(width, left + v), min(height, top + v)), (125, 123, 114))
    return img


def _enhance(enhancer: type) -> Operation:
    return lambda img, v: enhancer(img).enhance(v)


_OPERATIONS: dict[str, Operation] = {
    "identity": lambda img, v: img,
    "autocontrast": lambda img, v: ImageOps.autocontrast(img),
    "equalize": lambda img, v: ImageOps.equalize(img),
    "invert": lambda img, v: ImageOps.invert(img),
    "rotate": _rotate,
    "posterize": lambda img, v: ImageOps.posterize(img, int(v)),
    "solarize": lambda img, v: ImageOps.solarize(img, v),
    "solarize_add": _solarize_add,
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "translate_x_pixels": _translate_x_pixels,
    "translate_y_pixels": _translate_y_pixels,
    "cutout_pixels": _cutout_pixels,
}

# (operation, value at the lowest and at the highest magnitude)
_RANDAUGMENT = (
    ("autocontrast", 0, 1),
    ("equalize", 0, 1),
    ("invert", 0, 1),
    ("rotate", 0, 30),
    ("posterize", 4, 8),
    ("solarize", 0, 256),
    ("solarize_add", 0, 110),
    ("color", 0.1, 1.9),
    ("contrast", 0.1, 1.9),
    ("brightness", 0.1, 1.9),
    ("sharpness", 0.1, 1.9),
    ("shear_x", 0.0, 0.3),
    ("shear_y", 0.0, 0.3),
    ("cutout_pixels", 0, 40),
    ("translate_x_pixels", 0.0, 100),
    ("translate_y_pixels", 0.0, 100),
)


def _uniform_table(low: float, high: float, invert: bool) -> tuple[tuple[str, float, float], ...]:
    """The table of the two relatives: enhancements in (low, high), with or without invert."""
    return (
        ("autocontrast", 0, 1),
        ("brightness", low, high),
        ("color", low, high),
        ("contrast", low, high),
        ("equalize", 0, 1),
        ("identity", 0, 1),
        *((("invert", 0, 1),) if invert else ()),
        ("posterize", 4, 8),
        ("rotate", -30, 30),
        ("sharpness", low, high),
        ("shear_x", -0.3, 0.3),
        ("shear_y", -0.3, 0.3),
        ("solarize", 0, 256),
        ("translate_x", -0.3, 0.3),
        ("translate_y", -0.3, 0.3),
    )


class RandAugment:
    """Applies ``n`` random operations at magnitude ``m`` of 30.

    Raises:
        ValueError: ``m`` is outside 0 ... 30.
    """

    def __init__(self, n: int = 2, m: float = 10):
        if not 0 <= m <= 30:
            raise ValueError(f"INPUT.RANDAUGMENT_M must lie in 0 ... 30, but got {m}")
        self.n, self.m = n, m

    def __call__(self, img: Image.Image) -> Image.Image:
        """Returns the augmented image, of the same size."""
        for name, low, high in random.choices(_RANDAUGMENT, k=self.n):
            img = _OPERATIONS[name](img, self.m / 30 * (high - low) + low)
        return img


class RandAugment2:
    """Applies each of ``n`` random operations with probability ``p``, at a random magnitude."""

    table = _uniform_table(0.1, 1.9, invert=True)

    def __init__(self, n: int = 2, p: float | None = 0.6):
        self.n, self.p = n, p

    def __call__(self, img: Image.Image) -> Image.Image:
        """Returns the augmented image, of the same size."""
        for name, low, high in random.choices(self.table, k=self.n):
            if self.p is not None and random.random() > self.p:
                continue
            img = _OPERATIONS[name](img, random.random() * (high - low) + low)
        return img


class RandAugmentFixMatch(RandAugment2):
    """FixMatch's strong augmentation (https://arxiv.org/abs/2001.07685): all ``n`` operations are applied."""

    table = _uniform_table(0.05, 0.95, invert=False)

    def __init__(self, n: int = 2):
        super().__init__(n, p=None)
