"""The reader of images for training, tests, predict.py and the API: RGB as a viewer shows it.

A photograph is rotated by its EXIF orientation, transparent pixels become white, 16 bits per pixel are scaled to 8
rather than clipped, and of an animation the first frame is read. Colour profiles are not applied, as in CLIP's
training. CoOp uses a plain ``convert("RGB")``, which differs for rotated, transparent and 16-bit images only.
"""

import functools
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..arguments import check_image
from ..errors import InputError
from ..image_files import one_line

MAX_PIXELS = 178_956_970  # as in Pillow: larger images are treated as decompression bombs
MAX_RATIO = 2000  # long side to short side, as the short side is enlarged before the centre crop
ORIENTATION = 0x0112  # EXIF tag
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """Reads an image as RGB; its format is detected from the content, not from the file's name.

    Args:
        source: A path, or a Pillow image in any mode.

    Returns:
        RGB, 8 bits per channel, upright.

    Raises:
        InputError: the source is not a regular file or not an image, is damaged, too large or too long, or the
            brightness of its pixels is undefined.

    >>> image = read_image("fruit.png")
    >>> image.mode, image.size
    ('RGB', (64, 64))
    """
    check_image("the image", source)
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the image")
    path, name = Path(source), one_line(source)
    _check_regular(path, name)
    try:
        with Image.open(path, formats=_formats()) as image:
            return _upright_rgb(image, name)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is refused: it declares more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that Pillow can read: convert it to JPEG or PNG") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError and more
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be read as an image, it may be damaged: {reason}") from error


def has_decoder(path: str | os.PathLike[str]) -> bool:
    """Whether this Pillow decodes images with that suffix; HEIC, for example, needs a plug-in.

    >>> has_decoder("photo.jpg"), has_decoder("drawing.eps")
    (True, False)
    """
    return Image.registered_extensions().get(Path(path).suffix.lower()) in _formats()


@functools.cache
def _formats() -> tuple[str, ...]:
    """Formats that Pillow decodes by itself, without PostScript, for which it would start Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _check_regular(path: Path, name: str) -> None:
    """Refuses what could block or never end: a folder, a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"there is no image file {name!r} ({reason.lower()})") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise InputError(f"{name} is {kind}, not an image file")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image, name)
    turn = TURNS.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return rgb if turn is None else rgb.transpose(turn)


def _check_size(image: Image.Image, name: str) -> None:
    """Checks the size, which is in the header, before anything is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is refused: {width:,} x {height:,} is more than {MAX_PIXELS:,} pixels; make it smaller"
        )
    if min(width, height) < 1:
        raise InputError(f"{name} has no pixels: {width} x {height}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(
            f"{name} is refused: {width:,} x {height:,} is longer than {MAX_RATIO:,} times its short side; crop it"
        )


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # EXIF data that cannot be parsed are ignored
        return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image, name).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image, name: str) -> Image.Image:
    """Scales up to 16 bits per pixel to 8, according to the mode or format and not to the values that occur."""
    white, inverted = _white(image)
    if not white:
        raise InputError(
            f"{name} has pixels of mode {image.mode}{f' in a {image.format} file' if image.format else ''}, that is, "
            "numbers without a defined brightness: save it with 8 or 16 bits per channel"
        )
    values = np.asarray(image).astype(np.float32)
    grey = (values * (255 / white) + 0.5).clip(0, 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _white(image: Image.Image) -> tuple[int, bool]:
    """The value of white, 0 if undefined; and whether the scale is inverted, so that 0 is white."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, unsigned = tags.get(BITS, (1,))[0], tags.get(SAMPLE_FORMAT, (1,)) in (1, (1,))
        return ((1 << bits) - 1 if unsigned and bits <= 16 else 0), tags.get(PHOTOMETRIC) == 0
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return (65535 if deep else 0), False
