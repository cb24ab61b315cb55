"""A folder of images to try `ImageFolder` on: some classes of the embedded benchmark."""

import shutil
from collections import Counter
from pathlib import Path

from tlla.errors import InputError
from tlla.files import whole_file

from .emoji import find_folder, read_index

CLASSES = ("bird", "fruit", "land vehicle", "building", "hand gesture")


def make_example(target: str, root: str = "") -> Counter:
    """Copies train, val and test images of a few classes to `target`/<part>/<class>/.

    Args:
        target: A folder that is empty or does not exist yet.
        root: Holds the benchmark; "": the embedded one.

    Returns:
        The number of images of each part.

    Raises:
        InputError: `target` is in use.
    """
    folder = Path(target).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name one that does not exist yet")
    source = find_folder(root)
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
