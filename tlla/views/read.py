"""The one reader of images, of training, tests, predict.py and the API: RGB the way a viewer shows it.

A photograph is turned as its EXIF data say, transparent pixels become white, 16 bits a pixel are scaled to 8 rather
than cut off, and an animation gives its first frame. Colour profiles are not applied: CLIP was not trained so. CoOp
reads by a bare ``convert("RGB")``, which is the same for all but rotated, transparent and 16-bit images.
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

MAX_PIXELS = 178_956_970  # Pillow's limit, too: more is taken for a decompression bomb
MAX_RATIO = 2000  # long side to short side; the plain view enlarges the short side before it cuts the middle out
ORIENTATION = 0x0112  # EXIF's tag
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF's
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
    """Reads an image as RGB; a file's content decides what it is, not its name.

    Args:
        source: A path, or an image of Pillow's in any mode.

    Returns:
        RGB, 8 bits a channel, turned upright.

    Raises:
        InputError: not a regular file, not an image, damaged, too large, too long, or of undefined brightness.

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
    """Whether this Pillow decodes the kind of image that a file's name promises; of HEIC it does not, unless taught.

    >>> has_decoder("photo.jpg"), has_decoder("drawing.eps")
    (True, False)
    """
    return Image.registered_extensions().get(Path(path).suffix.lower()) in _formats()


@functools.cache
def _formats() -> tuple[str, ...]:
    """Formats that Pillow decodes by itself: for PostScript, whatever a file's name, it would start Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _check_regular(path: Path, name: str) -> None:
    """Refuses what could hang a reader or has no end: a folder, a pipe, a device."""
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
    """Before anything is decoded: the size is in the header."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is refused: {width:,} x {height:,} is more than {MAX_PIXELS:,} pixels; make it smaller"
        )
    if min(width, height) < 1:
        raise InputError(f"{name} has no pixels: {width} x {height}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(
            f"{name} is refused: {width:,} x {height:,} is longer than {MAX_RATIO:,} times its short side; cut it"
        )


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # EXIF data that cannot be parsed say nothing about the way up
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
    """Grey of up to 16 bits a pixel scaled to 8: by mode or format, not by the values that occur."""
    white, inverted = _white(image)
    if not white:
        raise InputError(
            f"{name} has pixels of mode {image.mode}{f' in a {image.format} file' if image.format else ''}, that is, "
            "numbers for which no brightness is agreed: save it with 8 or 16 bits a channel"
        )
    values = np.asarray(image).astype(np.float32)
    grey = (values * (255 / white) + 0.5).clip(0, 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _white(image: Image.Image) -> tuple[int, bool]:
    """The number that means white, 0 if none is agreed; and whether it is black's instead, and 0 is white."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, unsigned = tags.get(BITS, (1,))[0], tags.get(SAMPLE_FORMAT, (1,)) in (1, (1,))
        return ((1 << bits) - 1 if unsigned and bits <= 16 else 0), tags.get(PHOTOMETRIC) == 0
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return (65535 if deep else 0), False
