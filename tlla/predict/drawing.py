"""Draws text on pictures, in a font with most alphabets."""

import io
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

INK = "#1a1a1a"


@cache
def _font_of(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and has most alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / name), size)


def fitted(text: str, size: int, width: int, bold: bool) -> str:
    """The text, shortened to at most `width` pixels.

    >>> fitted("a name that is much too long for its place", size=12, width=60, bold=False)[-1]
    '…'
    """
    font = _font_of(size, bold)
    text = text.encode("utf-8", "replace").decode().replace("\n", " ")
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def text_length(text: str, size: int, width: int, bold: bool) -> int:
    """Length in pixels of the text that `draw_text` draws.

    >>> text_length("fruit", 20, 300, bold=False) < text_length("fruit", 40, 300, bold=False)
    True
    """
    return round(_font_of(size, bold).getlength(fitted(text, size, width, bold)))


def draw_text(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    width: int,
    colour: str = INK,
    bold: bool = False,
    anchor: str = "la",
) -> None:
    """Draws a line of text.

    Args:
        pen: The picture's `ImageDraw`.
        place: Position of the anchor, in pixels.
        text: Text, which is shortened to fit.
        size: Font size, in pixels.
        width: Maximum width, in pixels.
        colour: Colour of the text.
        bold: Whether the text is bold.
        anchor: Anchor in Pillow's notation: "la" is the upper left corner, "ra" the upper right one.

    >>> canvas = Image.new("L", (80, 20), "white")
    >>> draw_text(ImageDraw.Draw(canvas), (2, 2), "fruit", 14, 70); canvas.getextrema()[0] < 128
    True
    """
    pen.text(place, fitted(text, size, width, bold), fill=colour, font=_font_of(size, bold), anchor=anchor)


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file.

    >>> png(image)[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
