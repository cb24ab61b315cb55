"""AugMix of one view (Hendrycks et al., arXiv 1912.02781), with TPT's nine operations at severity 1.

Follows azshue/TPT, data/augmix_ops.py. The pixels equal those of Pillow's operations. Shears and shifts compute them
faster than Pillow's bilinear affine transform, which would take more than half of the time.
"""

import numpy as np
from PIL import Image, ImageOps


def augmix(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """AugMix at severity 1: m * x + (1 - m) * sum_i w_i * chain_i(x), (H, W, 3) float32 in 0..1.

    TPT mixes after normalisation; as the weights sum to 1 and normalisation is affine, the result is the same.

    >>> augmix(image, np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    weights = rng.dirichlet((1.0, 1.0, 1.0))
    m = rng.beta(1.0, 1.0)
    mixed = np.zeros((image.height, image.width, 3), dtype=np.float32)
    term = np.empty_like(mixed)
    for weight in weights:
        chain = image
        for _ in range(rng.integers(1, 4)):
            chain = AUGMIX_OPS[rng.integers(len(AUGMIX_OPS))](chain, rng)
        mixed += np.multiply(np.asarray(chain), np.float32(weight / 255), out=term, dtype=np.float32)
    mixed *= np.float32(1 - m)
    mixed += np.multiply(np.asarray(image), np.float32(m / 255), out=term, dtype=np.float32)
    return mixed


def _level(rng: np.random.Generator) -> float:
    return rng.uniform(0.1, 1.0)  # severity 1


def _sign(rng: np.random.Generator) -> int:
    return -1 if rng.random() > 0.5 else 1


def _shear(pixels: np.ndarray, slope: float) -> np.ndarray:
    """Shifts line i of a square view left by slope * (i + 1/2): bilinear and black outside, as in Pillow."""
    lines, length, _ = pixels.shape
    shift = slope * (np.arange(lines) + 0.5)
    whole = np.floor(shift).astype(int)
    part = (shift - whole)[:, None, None]
    out = np.zeros_like(pixels)
    for k in np.unique(whole):
        of = whole == k
        of = slice(of.argmax(), lines - of[::-1].argmax())  # the shift is monotonic, so that the lines are adjacent
        start, stop = max(k, 0), min(length - 1, length + k)
        left, right = pixels[of, start:stop], pixels[of, start + 1 : stop + 1]
        mixed = np.subtract(right, left, dtype=np.float64)
        mixed *= part[of]
        mixed += left
        out[of, start - k : stop - k] = mixed  # truncates like Pillow
        # The outermost pixels extend by half a pixel.
        if k >= 0:
            out[of, length - 1 - k] = pixels[of, -1] * (part[of, 0] < 0.5)
        else:
            out[of, -1 - k] = pixels[of, 0] * (part[of, 0] >= 0.5)
    return out


def _rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.rotate(_sign(rng) * int(_level(rng) * 30 / 10), Image.Resampling.BILINEAR)


def _solarize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(_level(rng) * 256 / 10))


def _posterize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, 4 - int(_level(rng) * 4 / 10))


def _shear_x(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(_shear(np.asarray(image), _sign(rng) * _level(rng) * 0.3 / 10))


def _shear_y(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    turned = np.asarray(image).swapaxes(0, 1)
    return Image.fromarray(_shear(turned, _sign(rng) * _level(rng) * 0.3 / 10).swapaxes(0, 1))


def _shift(image: Image.Image, dx: int, dy: int) -> Image.Image:
    # Whole pixels need no interpolation, which takes over 30 times as long.
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy), Image.Resampling.NEAREST)


def _translate_x(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _shift(image, _sign(rng) * int(_level(rng) * image.width / 3 / 10), 0)


def _translate_y(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return _shift(image, 0, _sign(rng) * int(_level(rng) * image.height / 3 / 10))


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
