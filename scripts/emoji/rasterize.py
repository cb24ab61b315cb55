"""Draw an icon (SVG text, SVG file or raster file) as 64 x 64 RGB on white."""

import io
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
Source = str | Path  # SVG text, or the path of an .svg or raster file


def iconify_svg(icons: dict, name: str) -> str:
    """Stand-alone square SVG of one icon of an Iconify set; monochrome icons become black."""
    icon = icons["icons"][name]
    w, h = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    side = max(w, h)
    left = icon.get("left", icons.get("left", 0)) - (side - w) / 2
    top = icon.get("top", icons.get("top", 0)) - (side - h) / 2
    body = icon["body"].replace("currentColor", "#000")
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="{left} {top} {side} {side}" width="{SIZE}" height="{SIZE}">{body}</svg>'


def _decode(source: Source) -> Image.Image:
    if isinstance(source, Path) and source.suffix != ".svg":
        return Image.open(source)
    import resvg_py  # here, as only those who draw the benchmark anew need it

    svg = source if isinstance(source, str) else source.read_text(encoding="utf-8")
    # System fonts would make the bytes depend on the machine.
    data = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, background="#ffffff", skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data)))


def draw(source: Source) -> np.ndarray:
    """(64, 64, 3) uint8 on white."""
    image = _decode(source).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    return np.asarray(white.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _try_draw(source: Source) -> np.ndarray | None:
    try:
        return draw(source)
    except (ValueError, OSError):  # resvg's word for an SVG it can't read, PIL's for a raster
        return None


def draw_all(sources: list[Source], workers: int = 2) -> list[np.ndarray | None]:
    """One image per source, in order; None where the drawing failed or is empty (all white)."""
    with Pool(workers) as pool:
        images = pool.map(_try_draw, sources, chunksize=64)
    return [x if x is not None and (x < 250).any() else None for x in images]
