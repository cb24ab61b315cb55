"""Corruptions of test images, drawn when an image is read: the fifteen of ImageNet-C in five severities.

As upstream has it, a picture is brought to 224 x 224 (short side to 256, centre crop) and then corrupted. A picture
whose short side is below 224 keeps its size: lengths in pixels shrink with the short side; noise is of the picture's
own pixels, as are JPEG's blocks. Upstream stores its pictures as JPEG of quality 85; here they are passed on as they
are.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..arguments import one_of
from ..errors import InputError
from .fifteen import FIFTEEN, SEVERITIES

SIDE, BEFORE_CROP = 224, 256  # pixels


@dataclass(frozen=True)
class Corruption:
    """One of ImageNet-C's corruptions.

    Attributes:
        name: In lower case, as ImageNet-C's folders have it: gaussian_noise, fog, ...
        severity: 1 to 5.

    Raises:
        InputError: There is no such corruption or severity; it names the keys of the config.
    """

    name: str
    severity: int

    def __post_init__(self) -> None:
        one_of("DATASET.CORRUPTION", self.name, tuple(FIFTEEN))
        if self.severity not in range(1, SEVERITIES + 1):
            raise InputError(
                f"DATASET.CORRUPTION {self.name} needs a DATASET.SEVERITY of 1 to {SEVERITIES}, but got {self.severity}"
            )

    def draw(self, image: Image.Image, seed: int, index: int) -> Image.Image:
        """The corrupted picture, RGB.

        Args:
            image: RGB.
            seed: Of the run.
            index: Place of the image in its split; a draw depends on the name, the seed and the index alone.
        """
        x = np.asarray(_like_imagenet(image)) / 255
        corrupt, settings = FIFTEEN[self.name]
        rng = np.random.default_rng((seed, index, zlib.crc32(self.name.encode())))
        found = corrupt(x, settings[self.severity - 1], rng, min(1.0, min(x.shape[:2]) / SIDE))
        return Image.fromarray((np.clip(found, 0, 1) * 255).astype(np.uint8))


def _like_imagenet(image: Image.Image) -> Image.Image:
    """Resized and cropped to 224 x 224, unless the short side is less."""
    short = min(image.size)
    if short < SIDE:
        return image
    width, height = (int(BEFORE_CROP * side / short) for side in image.size)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + SIDE, top + SIDE))
