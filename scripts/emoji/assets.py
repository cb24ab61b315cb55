"""Read the embedded benchmark: assets/emoji/index.json and the images that it lists."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.emoji import read_index

from .split import Split

FOLDER = Path(__file__).parents[2] / "assets" / "emoji"
WEIGHTS = FOLDER.with_name("emoji_clip.pt.gz")


def benchmark_index(folder: Path = FOLDER) -> dict[str, Any]:
    """The benchmark's classes, styles and items."""
    return read_index(folder)


def split_of(index: dict[str, Any]) -> Split:
    """Class -> split -> code points of the benchmark's emoji, read back from the source's paths."""
    split: Split = {c["name"]: {"train": [], "val": [], "test": []} for c in index["classes"]}
    for part, items in index["items"]["noto"].items():
        for path, label, _ in items:
            split[index["classes"][label]["name"]][part].append(Path(path).stem)
    return split


def load_images(index: dict[str, Any], style: str, part: str, folder: Path = FOLDER) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 64, 64) uint8 and labels (N,) of one style's split."""
    items = index["items"][style][part]
    images = [np.asarray(Image.open(folder / path).convert("RGB")) for path, _, _ in items]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor([y for _, y, _ in items])
