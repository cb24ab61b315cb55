"""A folder of images to try `ImageFolder` on: some classes of the embedded benchmark, or kinds of cloth."""

import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from tlla.errors import InputError
from tlla.files import whole_file

from ..cloth import CLOTH, weave
from ..emoji import find_folder, read_index

CLOTHS = {"train": 16, "val": 8, "test": 40}  # pictures of each kind of cloth
CLASSES = ("bird", "fruit", "land vehicle", "building", "hand gesture")


def make_example(target: str, root: str = "", cloth: bool = False) -> Counter:
    """Writes train, val and test images of a few classes to `target`/<part>/<class>/.

    Args:
        target: A folder that is empty or does not exist yet.
        root: Holds the benchmark; "": the embedded one.
        cloth: Three kinds of cloth, which EmojiCLIP does not know, instead of five classes of the benchmark.

    Returns:
        The number of images of each part.

    Raises:
        InputError: `target` is in use.
    """
    folder = Path(target).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name one that does not exist yet")
    return _weave_cloth(folder) if cloth else _copy_emoji(folder, find_folder(root))


def _copy_emoji(folder: Path, source: Path) -> Counter:
    index = read_index(source)
    names = [c["name"] for c in index["classes"]]
    counts = Counter()
    for part, rows in index["items"]["noto"].items():
        for path, label, _ in rows:
            if names[label] in CLASSES:
                with whole_file(folder / part / names[label] / Path(path).name) as copy:
                    shutil.copyfile(source / path, copy)
                counts[part] += 1
    return counts


def _weave_cloth(folder: Path) -> Counter:
    for part, count in CLOTHS.items():
        for name in CLOTH:
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(weave(name, f"{part} {k}")).save(folder / part / name / f"{k:02}.png")
    return Counter({part: count * len(CLOTH) for part, count in CLOTHS.items()})
