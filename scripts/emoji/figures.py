"""Draw the pictures of docs/emoji.md: the styles side by side, plain and in scenes, and the training curve.

python -m scripts.emoji.figures --curve DIR/run/curve.jsonl
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.emoji_scenes import scene
from report.style import line, plt, save
from tlla.command_line import call

from .assets import FOLDER, benchmark_index
from .split import STYLES

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
SHOWN = "mammal bird fruit meal land_vehicle clothing sports_equipment household_item happy_face hand_gesture".split()


def styles_sheet(path: Path, picture: Callable[[Path], np.ndarray], smooth: str) -> None:
    """The first test emoji of ten classes, a row for each style."""
    index = benchmark_index()
    figure, axes = plt.subplots(len(STYLES), len(SHOWN), figsize=(6.4, 4.6))
    for row, (style, (_, _, title)) in zip(axes, STYLES.items(), strict=True):
        items = index["items"][style]["test"]
        for ax, slug in zip(row, SHOWN, strict=True):
            item = next(i for i in items if f"/{slug}/" in i[0])
            ax.imshow(picture(FOLDER / item[0]), interpolation=smooth)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set(visible=True, color="0.85")
            if style == "noto":
                ax.set_title(slug.replace("_", "\n", 1), fontsize=6)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=6)
    save(figure, path)[0].unlink()  # an SVG of pictures has no use
    Image.open(path.with_suffix(".png")).convert("RGB").save(path.with_suffix(".png"), optimize=True)


def read_pixels(path: Path) -> np.ndarray:
    """An image of the benchmark."""
    return np.asarray(Image.open(path).convert("RGB"))


def pretraining_curve(log: Path, path: Path) -> None:
    """Zero-shot accuracy on the source's val split, and the logit scale, against images seen."""
    lines = [json.loads(entry) for entry in log.read_text(encoding="utf-8").splitlines()]
    seen = [entry["samples"] / 1e6 for entry in lines]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    look = [{**line(i), "marker": ""} for i in range(2)]
    left.plot(seen, [entry["val"] for entry in lines], **look[0])
    left.set(xlabel="images seen (millions)", ylabel="zero-shot accuracy, source val (%)", ylim=(0, None))
    right.plot(seen, [entry["loss"] for entry in lines], **look[0], label="loss")
    right.set(xlabel="images seen (millions)", ylabel="training loss", ylim=(0, None))
    scale = right.twinx()
    scale.plot(seen, [entry["scale"] for entry in lines], **look[1], label="logit scale")
    scale.set(ylabel="logit scale", ylim=(0, None))
    scale.grid(False)
    scale.spines["right"].set_visible(True)
    right.legend(handles=right.lines + scale.lines, loc="lower left", fontsize=8)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curve", type=Path, help="curve.jsonl of a pre-training run")
    log = parser.parse_args().curve
    styles_sheet(FIGURES / "emoji_styles", read_pixels, "lanczos")
    styles_sheet(FIGURES / "emoji_scenes", lambda path: scene(path, 0), "antialiased")
    if log:
        pretraining_curve(log, FIGURES / "emoji_pretrain")


if __name__ == "__main__":
    sys.exit(call(main))
