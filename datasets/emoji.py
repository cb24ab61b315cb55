"""The embedded benchmark: emoji as images, one drawing style as the source and six others as shifted tests.

Every style holds the same test emoji; only the source (Noto) has train and val images. A dataset of a shifted style
has the source's train and val, so that a prompt trained in the same run is trained on the source.
How the images were made: docs/emoji.md. Whose drawings they are: assets/emoji/ATTRIBUTION.md.
"""

import json
from pathlib import Path
from typing import Any

from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

from tlla.clip import assets_dir
from tlla.errors import InputError

from .base import choose_template, registered


def find_folder(root: str) -> Path:
    """The benchmark's folder: `root`/emoji, or the embedded one when DATASET.ROOT is empty."""
    return Path(root).expanduser().resolve() / "emoji" if root else assets_dir() / "emoji"


def read_index(folder: Path) -> dict[str, Any]:
    """Classes and items of index.json."""
    path = folder / "index.json"
    advice = "leave DATASET.ROOT empty for the embedded copy, or write one with: python -m scripts.emoji.build"
    if not path.is_file():
        raise InputError(f"{folder} holds no emoji benchmark, index.json was expected in it; {advice}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        index["classes"], index["items"]["noto"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not the benchmark's index ({type(error).__name__}: {error}); {advice}") from error
    return index


def check_files(folder: Path, items: list[list[Any]]) -> None:
    """Every listed image has to be there: one clear sentence instead of a failure in the middle of a run."""
    missing = [path for path, *_ in items if not (folder / path).is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise InputError(f"{folder} lacks {len(missing)} of {len(items)} images of the emoji benchmark: {names}")


def keep_classes(items: list[Datum], kept: list[int]) -> list[Datum]:
    """The items of some classes, with labels numbered anew from 0."""
    number = {label: new for new, label in enumerate(kept)}
    return [Datum(d.impath, number[d.label], d.domain, d.classname) for d in items if d.label in number]


class EmojiStyle(DatasetBase):
    """Source train and val, and the test emoji in one style. Subclasses name the style."""

    style = ""
    template = "an icon of a {}."  # the best of eight hand-written prompts on the source's val split

    def __init__(self, cfg: CfgNode) -> None:
        self.template = choose_template(cfg.DATASET.get("TEMPLATE", ""), self.template)
        folder = find_folder(cfg.DATASET.ROOT)
        self.dataset_dir = str(folder)
        index = read_index(folder)
        train = self._read(folder, index, "noto", "train")
        val = self._read(folder, index, "noto", "val")
        test = self._read(folder, index, self.style, "test")
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            # In this order: both draw from Python's global generator, as CoOp's datasets do.
            train = self.generate_fewshot_dataset(train, num_shots=shots)
            val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4))
        kept = self._kept_labels(cfg, len(index["classes"]))
        super().__init__(**{k: keep_classes(v, kept) for k, v in (("train_x", train), ("val", val), ("test", test))})

    def _read(self, folder: Path, index: dict[str, Any], style: str, part: str) -> list[Datum]:
        items = index["items"].get(style, {}).get(part, [])
        if not items:
            raise InputError(f"{folder / 'index.json'} lists no {part} images of the style {style!r}; build it anew")
        check_files(folder, items)
        names = [c["name"] for c in index["classes"]]
        return [Datum(str(folder / path), label, 0, names[label]) for path, label, _ in items]

    @staticmethod
    def _kept_labels(cfg: CfgNode, count: int) -> list[int]:
        """Labels that DATASET.SUBSAMPLE_CLASSES keeps: all, the first half (base) or the second half (new)."""
        choice, half = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"), (count + 1) // 2
        kept = {"all": range(count), "base": range(half), "new": range(half, count)}
        if choice not in kept:
            raise InputError(f"DATASET.SUBSAMPLE_CLASSES must be one of {tuple(kept)}, but got {choice!r}")
        return list(kept[choice])


@registered
class Emoji(EmojiStyle):
    """The source: Google's Noto emoji."""

    style = "noto"


@registered
class EmojiTwemoji(EmojiStyle):
    """Twitter's emoji: flat and coloured, close to the source."""

    style = "twemoji"


@registered
class EmojiOpenMoji(EmojiStyle):
    """OpenMoji in colour, with black outlines."""

    style = "openmoji"


@registered
class EmojiOpenMojiBlack(EmojiStyle):
    """OpenMoji's black line drawings."""

    style = "openmoji_black"


@registered
class EmojiFluentFlat(EmojiStyle):
    """Microsoft's Fluent emoji, flat."""

    style = "fluent_flat"


@registered
class EmojiFluentContrast(EmojiStyle):
    """Microsoft's Fluent emoji in black and white."""

    style = "fluent_contrast"


@registered
class EmojiFluent3D(EmojiStyle):
    """Microsoft's Fluent emoji as rendered solids."""

    style = "fluent_3d"
