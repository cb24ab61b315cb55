"""Draw the benchmark and write assets/emoji: PNG files and index.json. Two runs write the same bytes.

python -m scripts.emoji.build --work DIR
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tlla.command_line import call

from .assets import FOLDER
from .drawings import Catalog
from .rasterize import Source, draw_all
from .split import CLASSES, STYLES, Split, make_split

Row = list  # [path, label, name of the emoji]


def folder_name(name: str) -> str:
    """'sea animal' -> 'sea_animal', a folder's name."""
    return name.replace(" ", "_")


def compact(image: np.ndarray) -> Image.Image:
    """Grey where it is grey, else the nearest palette of 256 colours: exact when there are no more than that."""
    if np.ptp(image.astype(int), axis=2).max() == 0:
        return Image.fromarray(image[:, :, 0])
    # No dithering: flat areas stay flat, and the file stays small.
    return Image.fromarray(image).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def write_png(image: np.ndarray, path: Path) -> None:
    """Fixed settings, no metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compact(image).save(path, "PNG", optimize=True)


def write_style(style: str, drawings: dict[str, Source], split: Split, parts: list[str], catalog: Catalog) -> dict:
    """Draw and write one style; returns split -> rows for the index."""
    rows: dict[str, list[Row]] = {part: [] for part in parts}
    sources = []
    for part in parts:
        for label, (name, codes) in enumerate(split.items()):
            for code in codes[part]:
                rows[part].append([f"{style}/{part}/{folder_name(name)}/{code}.png", label, catalog.emoji[code].label])
                sources.append(drawings[code])
    paths = [row[0] for part in parts for row in rows[part]]
    for path, image in zip(paths, draw_all(sources), strict=True):
        if image is None:
            raise ValueError(f"{path}: the drawing is empty or unreadable; leave the emoji out of the split")
        write_png(image, FOLDER / path)
    return rows


def dump_index(index: dict) -> str:
    """JSON with one item a line: readable, and small differences stay small."""
    text = json.dumps({k: v for k, v in index.items() if k != "items"}, indent=1)[:-2]
    styles = []
    for style, parts in index["items"].items():
        blocks = [f'"{p}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for p, rows in parts.items()]
        styles.append(f'"{style}": {{\n' + ",\n".join(blocks) + "\n}")
    return text + ',\n "items": {\n' + ",\n".join(styles) + "\n}\n}\n"


def build_benchmark(work: Path) -> None:
    """Fetch, split, draw, write."""
    catalog = Catalog(work)
    drawings = {style: catalog.style(style) for style in STYLES}
    split = make_split(catalog, {style: set(found) for style, found in drawings.items()})
    for style in STYLES:
        shutil.rmtree(FOLDER / style, ignore_errors=True)
    index: dict = {
        "size": 64,
        "classes": [{"name": name, "slug": folder_name(name)} for name in CLASSES],
        "styles": [{"name": s, "dataset": d, "role": role} for s, (d, role, _) in STYLES.items()],
        "items": {},
    }
    for style, (_, role, _) in STYLES.items():
        parts = ["train", "val", "test"] if role == "source" else ["test"]
        index["items"][style] = write_style(style, drawings[style], split, parts, catalog)
    (FOLDER / "index.json").write_text(dump_index(index), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for downloaded packages (about 400 MB)")
    build_benchmark(parser.parse_args().work)
    files = list(FOLDER.rglob("*.png"))
    print(f"{len(files)} images, {sum(f.stat().st_size for f in files)} bytes in {FOLDER}")


if __name__ == "__main__":
    sys.exit(call(main))
