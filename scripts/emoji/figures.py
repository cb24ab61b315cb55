"""Draw the pictures of docs/emoji.md: the styles side by side, and the training curve.

python -m scripts.emoji.figures --curve DIR/run/curve.jsonl
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from .assets import FOLDER, read_index
from .split import STYLES

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
NAMES = {
    "noto": "Noto (source)",
    "twemoji": "Twemoji",
    "openmoji": "OpenMoji",
    "openmoji_black": "OpenMoji black",
    "fluent_flat": "Fluent flat",
    "fluent_contrast": "Fluent contrast",
    "fluent_3d": "Fluent 3D",
}
SHOWN = "mammal bird fruit meal land_vehicle clothing sports_equipment household_item happy_face hand_gesture".split()


def styles_sheet(path: Path) -> None:
    """The first test emoji of ten classes, a row for each style."""
    index = read_index()
    figure, axes = plt.subplots(len(STYLES), len(SHOWN), figsize=(9.2, 6.6))
    for row, style in zip(axes, STYLES, strict=True):
        items = index["items"][style]["test"]
        for ax, slug in zip(row, SHOWN, strict=True):
            item = next(i for i in items if f"/{slug}/" in i[0])
            ax.imshow(np.asarray(Image.open(FOLDER / item[0]).convert("RGB")), interpolation="lanczos")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("0.85")
            if style == "noto":
                ax.set_title(slug.replace("_", "\n", 1), fontsize=8)
        row[0].set_ylabel(NAMES[style], rotation=0, ha="right", va="center", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    Image.open(path).convert("RGB").save(path, optimize=True)


def curve(log: Path, path: Path) -> None:
    """Zero-shot accuracy on the source's val split, and the logit scale, against images seen."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    seen = [line["samples"] / 1e6 for line in lines]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.plot(seen, [line["val"] for line in lines], color="C0")
    left.set(xlabel="images seen (millions)", ylabel="zero-shot accuracy, source val (%)", ylim=(0, None))
    right.plot(seen, [line["loss"] for line in lines], color="C3", label="loss")
    right.set(xlabel="images seen (millions)", ylabel="training loss", ylim=(0, None))
    scale = right.twinx()
    scale.plot(seen, [line["scale"] for line in lines], color="C2", linestyle="--", label="logit scale")
    scale.set(ylabel="logit scale", ylim=(0, None))
    right.legend(handles=right.lines + scale.lines, loc="lower left", fontsize=8)
    figure.tight_layout()
    for suffix in (".png", ".svg"):
        metadata = {"Software": None} if suffix == ".png" else {"Date": None}
        figure.savefig(path.with_suffix(suffix), dpi=110, metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curve", type=Path, help="curve.jsonl of a pre-training run")
    log = parser.parse_args().curve
    FIGURES.mkdir(parents=True, exist_ok=True)
    styles_sheet(FIGURES / "emoji_styles.png")
    if log:
        curve(log, FIGURES / "emoji_pretrain.png")


if __name__ == "__main__":
    main()
