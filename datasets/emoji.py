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
from .fewshot import VAL_SHOTS
from .items import Item, check_files, subsample

STYLES = {  # name of a dataset after "Emoji": folder of its drawings
    "": "noto",  # Google's, the source
    "Twemoji": "twemoji",  # Twitter's: flat and coloured, close to the source
    "OpenMoji": "openmoji",  # in colour, with black outlines
    "OpenMojiBlack": "openmoji_black",  # black line drawings
    "FluentFlat": "fluent_flat",  # Microsoft's, flat
    "FluentContrast": "fluent_contrast",  # Microsoft's, in black and white
    "Fluent3D": "fluent_3d",  # Microsoft's, rendered solids
}
ADVICE = "leave DATASET.ROOT empty for the embedded copy, or write one with: python -m scripts.emoji.build"


def find_folder(root: str) -> Path:
    """The benchmark's folder: `root`/emoji, or the embedded one when DATASET.ROOT is empty."""
    return Path(root).expanduser().resolve() / "emoji" if root else assets_dir() / "emoji"


def read_index(folder: Path) -> dict[str, Any]:
    """Classes and items of index.json."""
    path = folder / "index.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no emoji benchmark, index.json was expected in it; {ADVICE}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        index["classes"], index["items"]["noto"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not the benchmark's index ({type(error).__name__}: {error}); {ADVICE}") from error
    return index


class EmojiStyle(DatasetBase):
    """Source train and val, and the test emoji in one style. Subclasses name the style."""

    style = ""
    template = "an icon of a {}."  # the best of eight hand-written prompts on the source's val split

    def __init__(self, cfg: CfgNode) -> None:
        self.template = choose_template(cfg.DATASET.get("TEMPLATE", ""), self.template)
        folder = find_folder(cfg.DATASET.ROOT)
        index = read_index(folder)
        self.dataset_dir = str(self.images_folder(folder, index))
        read = {"train": "noto", "val": "noto", "test": self.style}
        parts = {part: self._read(folder, index, style, part) for part, style in read.items()}
        if (shots := cfg.DATASET.NUM_SHOTS) >= 1:
            # In this order: both draw from Python's global generator, as CoOp's datasets do.
            for part, count in (("train", shots), ("val", min(shots, VAL_SHOTS))):
                parts[part] = self.generate_fewshot_dataset(parts[part], num_shots=count)
        parts = subsample(parts, cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"))
        train, val, test = ([Datum(i.path, i.label, 0, i.classname) for i in parts[part]] for part in read)
        super().__init__(train_x=train, val=val, test=test)

    def images_folder(self, folder: Path, index: dict[str, Any]) -> Path:
        """Where the images are, given the benchmark's folder."""
        return folder

    def _read(self, folder: Path, index: dict[str, Any], style: str, part: str) -> list[Item]:
        """The images of a part, with full paths."""
        items = index["items"].get(style, {}).get(part, [])
        if not items:
            raise InputError(f"{folder / 'index.json'} lists no {part} images of the style {style!r}; build it anew")
        check_files(folder, [path for path, *_ in items], ADVICE)
        names = [c["name"] for c in index["classes"]]
        return [Item(str(folder / path), label, names[label]) for path, label, _ in items]


def register_styles(prefix: str, base: type[EmojiStyle]) -> None:
    """Registers a dataset for each style, e.g. EmojiTwemoji."""
    for name, style in STYLES.items():
        registered(type(prefix + name, (base,), {"style": style, "__module__": base.__module__}))


register_styles("Emoji", EmojiStyle)
