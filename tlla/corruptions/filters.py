"""Filters that several corruptions share. Images are (H, W, C) in double precision."""

import numpy as np


def correlate(x: np.ndarray, kernel: np.ndarray, border: str) -> np.ndarray:
    """Correlation with a kernel of odd sides, by FFT; `border` is a mode of `numpy.pad`.

    >>> correlate(np.eye(3)[..., None], np.ones((1, 3)), "edge")[0, :, 0].round(6).tolist()
    [2.0, 1.0, 0.0]
    """
    (height, width), (rows, columns) = x.shape[:2], (side // 2 for side in kernel.shape)
    padded = np.pad(x, ((rows, rows), (columns, columns), (0, 0)), border)  # type: ignore[call-overload]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, padded.shape[:2]).conj()[..., None]
    return np.fft.irfft2(spectrum, padded.shape[:2], axes=(0, 1))[:height, :width]


def gaussian(sigma: float, radius: int) -> np.ndarray:
    """Weights of a Gaussian at -radius ... radius, sum 1.

    >>> gaussian(1.0, 1).round(3).tolist()
    [0.274, 0.452, 0.274]
    """
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def smooth(x: np.ndarray, sigma: float, truncate: float = 4.0, border: str = "edge") -> np.ndarray:
    """Gaussian filter up to `truncate` sigma, as scipy.ndimage and scikit-image have it.

    >>> smooth(np.ones((3, 3, 1)), sigma=1.0).ravel().round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    weights = gaussian(sigma, int(truncate * sigma + 0.5))
    return correlate(correlate(x, weights[:, None], border), weights[None], border)


def magnify(x: np.ndarray, factor: float) -> np.ndarray:
    """Magnifies the middle by at least 1, bilinearly; the size stays.

    >>> magnify(np.arange(8.0)[:, None, None], 2.0)[:, 0, 0].round(2).tolist()
    [2.0, 2.43, 2.86, 3.29, 3.71, 4.14, 4.57, 5.0]
    """
    for axis in (0, 1):
        side = x.shape[axis]
        part = int(np.ceil(side / factor))
        whole = round(part * factor)
        step = (part - 1) / max(whole - 1, 1)
        places = (side - part) // 2 + (np.arange(side) + (whole - side) // 2) * step
        low = np.floor(places).astype(int)
        weight = np.expand_dims(places - low, tuple(set(range(x.ndim)) - {axis}))
        high = np.minimum(low + 1, side - 1)
        x = x.take(low, axis) * (1 - weight) + x.take(high, axis) * weight
    return x


def sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str) -> np.ndarray:
    """Bilinear values of x, (H, W, C), at places (H', W'): (H', W', C); beyond the border as `numpy.pad` mirrors it.

    Args:
        x: An image.
        rows: Vertical places, 0 at the middle of the first pixel.
        columns: Horizontal ones.
        border: "reflect" or "symmetric".

    >>> sample(np.arange(4.0)[None, :, None], np.zeros((1, 2)), np.array([[0.5, -1.0]]), "reflect")[..., 0].tolist()
    [[0.5, 1.0]]
    """
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    twice = border == "symmetric"  # the outermost pixels
    t, b = (_mirrored(top + i, x.shape[0], twice) for i in (0, 1))
    le, r = (_mirrored(left + i, x.shape[1], twice) for i in (0, 1))
    upper, lower = ((1 - right) * x[row, le] + right * x[row, r] for row in (t, b))
    return np.asarray((1 - down) * upper + down * lower)


def _mirrored(index: np.ndarray, side: int, twice: bool) -> np.ndarray:
    last = 2 * (side - 1) + twice
    index = index % max(last + twice, 1)
    return np.asarray(np.minimum(index, last - index))


def streak(x: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Motion blur to one side: half a Gaussian along a line, as ImageMagick draws it.

    MotionBlurImage of ImageMagick 6: 2 ceil(radius) + 1 weights, each at the whole pixel that is nearest to its place.

    Args:
        x: An image.
        radius: In pixels.
        sigma: In pixels.
        angle: In degrees, clockwise from the right.

    >>> streak(np.ones((2, 3, 1)), 1, 1.0, 0.0).ravel().round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    right, down = (np.ceil(steps * way(np.deg2rad(angle)) - 0.5).astype(int) for way in (np.cos, np.sin))
    rows, columns = (np.arange(side) for side in x.shape[:2])
    out = np.zeros_like(x)
    for weight, i, j in zip(weights / weights.sum(), down, right, strict=True):
        out += weight * x.take(rows + i, 0, mode="clip").take(columns + j, 1, mode="clip")
    return out


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Clouds in 0..1, (height, width): diamond-square on a torus whose side is a power of two.

    Args:
        height: In pixels.
        width: In pixels.
        decay: By how much the noise shrinks from one scale to the next.
        rng: Draws the noise.

    >>> plasma(3, 4, 2.0, np.random.default_rng(0)).shape
    (3, 4)
    """
    side = step = 2 << ((max(height, width) - 1) // 2).bit_length()
    field, spread = np.zeros((side, side)), 100.0
    while step > 1:
        half = step // 2

        def settle(total: np.ndarray, spread: float = spread) -> np.ndarray:
            return total / 4 + spread * rng.uniform(-spread, spread, total.shape)

        corners = field[::step, ::step]
        beside = corners + np.roll(corners, -1, 1)
        centres = settle(beside + np.roll(beside, -1, 0))
        field[half::step, half::step] = centres
        field[::step, half::step] = settle(centres + np.roll(centres, 1, 0) + beside)
        field[half::step, ::step] = settle(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, spread = half, spread / decay
    field -= field.min()
    return np.asarray(field[:height, :width] / field.max())
