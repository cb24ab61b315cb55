"""Scenes: an emoji at some place of a ground with or without clutter, in integer arithmetic alone.

A scene is drawn from a seed by sums, products, comparisons and divisions of integers, so that its pixels are the same
on every machine. EmojiCLIP was pre-trained on scenes of another generator (scripts/emoji/pictures.py).
"""

import math
import random
from collections.abc import Callable

import numpy as np

SIZE = 160
AREAS = (10, 13, 16, 20, 25, 32, 40, 50, 63, 80, 100)  # % of the picture's area that the drawing's square takes
Array = np.ndarray


class Dice:
    """Random integers by a text: Python promises `Random(text).random()` to be the same in every version."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        """From 0 to n - 1."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return low + self.below(high - low + 1)

    def colour(self, low: int = 60, high: int = 250) -> Array:
        """(3,) int64."""
        return np.array([self.between(low, high) for _ in range(3)])

    def numbers(self, low: int, high: int, *shape: int) -> Array:
        """Numbers from low to high of a shape, int64."""
        draws = np.array([self._random() for _ in range(math.prod(shape))])
        return low + (draws * (high - low + 1)).astype(np.int64).reshape(shape)


def compose_scene(drawing: Array, seed: str) -> Array:
    """A scene of a drawing.

    Args:
        drawing: (H, W, 3) uint8 on white.
        seed: Decides all but the drawing: two drawings of one seed stand at the same place of the same ground.

    Returns:
        (160, 160, 3) uint8.
    """
    dice = Dice(seed)
    picture = GROUNDS[dice.below(len(GROUNDS))](dice)
    if dice.below(2):
        for _ in range(dice.between(3, 9)):
            _add_shape(picture, dice)
    side = math.isqrt(SIZE * SIZE * AREAS[dice.below(len(AREAS))] // 100)
    x, y = dice.between(0, SIZE - side), dice.between(0, SIZE - side)
    alpha = _enlarge(255 * ~outside(drawing)[:, :, None].astype(bool), side)
    part = picture[y : y + side, x : x + side]
    part[:] = (_enlarge(drawing, side) * alpha + part * (255 - alpha) + 127) // 255
    return picture.astype(np.uint8)


def outside(drawing: Array) -> Array:
    """White pixels (at least 245) that are connected with the border: (H, W, 3) uint8 -> (H, W) bool."""
    white = drawing.min(axis=2) >= 245
    seen = white.copy()
    seen[1:-1, 1:-1] = False
    while True:
        before = seen.sum()
        for lines, open_lines in ((seen, white), (seen.T, white.T)):
            for k in range(1, len(lines)):
                lines[k] |= lines[k - 1] & open_lines[k]
                lines[-1 - k] |= lines[-k] & open_lines[-1 - k]
        if seen.sum() == before:
            return seen


def _enlarge(image: Array, side: int) -> Array:
    """Bilinear, between the centres of pixels: (H, W, C) -> (side, side, C) int64."""
    (top, bottom, down), (left, right, along) = (_neighbours(length, side) for length in image.shape[:2])
    image = image.astype(np.int64)
    rows = image[top] * (256 - down)[:, None, None] + image[bottom] * down[:, None, None]
    wide = rows[:, left] * (256 - along)[:, None] + rows[:, right] * along[:, None]
    return (wide + 32768) // 65536


def _neighbours(length: int, side: int) -> tuple[Array, Array, Array]:
    """For each of `side` places along `length` pixels: the pixel before, the one after, and how near, in 1/256."""
    at = np.clip((2 * np.arange(side) + 1) * length * 128 // side - 128, 0, (length - 1) * 256)
    return at // 256, np.minimum(at // 256 + 1, length - 1), at % 256


def _plane() -> tuple[Array, Array]:
    """Columns and rows: each (160, 160)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return x, y


def _cells(dice: Dice) -> Array:
    """Irregular cells, each of one colour: of the nearest of some points."""
    count = dice.between(6, 24)
    points = dice.numbers(0, SIZE - 1, count, 2)
    x, y = _plane()
    nearest = ((x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2).argmin(axis=2)
    tint = dice.colour(110, 230)
    return np.clip(tint + dice.numbers(-50, 50, count, 3), 0, 255)[nearest]


def _hills(dice: Dice) -> Array:
    """Layers with uneven upper edges, as hills under a sky."""
    picture = np.empty((SIZE, SIZE, 3), dtype=np.int64)
    picture[:] = dice.colour(150, 250)
    _, y = _plane()
    for k in range(dice.between(2, 4)):
        knots = dice.numbers(-18, 18, 9) + 60 + 28 * k
        at = np.arange(SIZE) * 8 * 256 // SIZE
        low, part = at // 256, at % 256
        edge = (knots[low] * (256 - part) + knots[low + 1] * part) // 256
        picture[y >= edge] = dice.colour(70, 220)
    return picture


def _bricks(dice: Dice) -> Array:
    """Bricks or tiles of two near colours with joints."""
    x, y = _plane()
    high = dice.between(12, 36)
    wide = high * dice.between(1, 3)
    row = y // high
    x = x + (row % 2) * (wide // 2) * dice.below(2)
    column, joint = x // wide, (x % wide < 2) | (y % high < 2)
    first = dice.colour(110, 240)
    second = np.clip(first + dice.numbers(-45, 45, 3), 60, 255)
    picture = np.where(((row + column) % 2 == 0)[..., None], first, second)
    picture[joint] = dice.colour(90, 255)
    return picture


def _clouds(dice: Dice) -> Array:
    """Cloudy: the sum of random grids of growing fineness, in each channel."""
    picture = np.zeros((SIZE, SIZE, 3), dtype=np.int64) + dice.colour(120, 220)
    for cells, depth in ((2, 40), (5, 24), (11, 14), (23, 8)):
        picture += _enlarge(dice.numbers(0, 2 * depth, cells, cells, 3), SIZE) - depth
    return np.clip(picture, 50, 255)


def _slope(dice: Dice) -> Array:
    """One colour that passes into another in some direction."""
    x, y = _plane()
    across = dice.between(-8, 8) * x + dice.between(-8, 8) * y
    across = (across - across.min()) * 256 // max(1, int(across.max() - across.min()))
    first, second = dice.colour(90, 255), dice.colour(90, 255)
    return (first * (256 - across[..., None]) + second * across[..., None]) // 256


def _rings(dice: Dice) -> Array:
    """Rings around a point of the picture."""
    x, y = _plane()
    far = (x - dice.between(0, SIZE)) ** 2 + (y - dice.between(0, SIZE)) ** 2
    colours = np.array([dice.colour(100, 245) for _ in range(3)])
    return colours[far // dice.between(900, 4000) % 3]


GROUNDS: tuple[Callable[[Dice], Array], ...] = (_cells, _hills, _bricks, _clouds, _slope, _rings)


def _add_shape(picture: Array, dice: Dice) -> None:
    """Clutter: a triangle, a cross, a ring, a zigzag or a half disc of any colour."""
    x, y = _plane()
    u, v, r = x - dice.below(SIZE), y - dice.below(SIZE), dice.between(6, 30)
    far, a, b = u * u + v * v, dice.between(-4, 4), dice.between(1, 5)
    kind = dice.below(5)
    if kind == 0:
        inside = (v < r) & (2 * abs(u) < v + r)
    elif kind == 1:
        inside = (np.minimum(abs(u), abs(v)) * 4 < r) & (np.maximum(abs(u), abs(v)) < r)
    elif kind == 2:
        inside = (far < r * r) & (far * 2 > r * r)
    elif kind == 3:
        inside = (abs(v - abs(u % (2 * b + 6) - b - 3)) < 3) & (abs(u) < 2 * r)
    else:
        inside = (far < r * r) & (a * u + b * v > 0)
    picture[inside] = dice.colour(20, 255)
