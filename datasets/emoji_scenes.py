"""Scenes of the embedded benchmark's emoji: photographs in small, where an object covers a part of the picture.

Drawn once from the benchmark's images (`datasets/scene_pictures.py`) and kept in a folder of the user's cache. A scene
has the same ground, place and size in every style, so that between styles the drawing differs and nothing else.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tlla.errors import InputError
from tlla.files import whole_file
from tlla.views.read_image import read_image

from .emoji import ADVICE, EmojiStyle, register_styles
from .items import Item, check_files
from .scene_pictures import compose_scene

VERSION = 1  # of the scenes' look; another one is drawn anew
SCENES = {"train": 3, "val": 3, "test": 2}  # scenes of each emoji: statistics have to take the emoji as the unit


def scenes_folder(folder: Path, index: dict[str, Any]) -> Path:
    """Where a benchmark's scenes are kept: below $TLLA_CACHE or ~/.cache/tlla, named by what they are drawn from."""
    digest = hashlib.sha256(str(VERSION).encode())
    for parts in index["items"].values():
        for rows in parts.values():
            check_files(folder, [path for path, *_ in rows], ADVICE)
            for path, label, _ in rows:
                digest.update(f"{path} {label}".encode() + (folder / path).read_bytes())
    cache = Path(os.environ.get("TLLA_CACHE", "~/.cache/tlla")).expanduser().resolve()
    return cache / f"emoji_scenes-{digest.hexdigest()[:12]}"


def scene(source: Path, number: int) -> np.ndarray:
    """One scene of an image of the benchmark, (160, 160, 3) uint8; its ground and place do not depend on the style."""
    part, emoji = source.parts[-3], source.stem
    return compose_scene(np.asarray(read_image(source)), f"{VERSION} {part} {emoji} {number}")


def write_scene(source: Path, target: Path, number: int) -> None:
    """Write one scene of an image, whole or not at all."""
    try:
        with whole_file(target) as part:
            Image.fromarray(scene(source, number)).save(part, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {target}: {error}; set TLLA_CACHE to a folder for scenes (100 MB)") from error


class EmojiScenesStyle(EmojiStyle):
    """Scenes of the source's train and val, and of the test emoji in one style."""

    def images_folder(self, folder: Path, index: dict[str, Any]) -> Path:
        """The scenes' folder in the cache."""
        return scenes_folder(folder, index)

    def _read(self, folder: Path, index: dict[str, Any], style: str, part: str) -> list[Item]:
        jobs, items = [], []
        for image in super()._read(folder, index, style, part):
            source = Path(image.path)
            for number in range(SCENES[part]):
                target = Path(self.dataset_dir, source.relative_to(folder).with_name(f"{source.stem}_{number}.png"))
                jobs.append((source, target, number))
                items.append(image._replace(path=str(target)))
        missing = [job for job in jobs if not job[1].is_file()]
        if missing:
            print(f"Drawing {len(missing)} scenes ({style}, {part}) into {self.dataset_dir}")
        for job in missing:
            write_scene(*job)
        return items


register_styles("EmojiScenes", EmojiScenesStyle)
