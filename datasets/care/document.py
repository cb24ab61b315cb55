"""The table of datasets as text: for the command line and for DATASETS.md, which is generated from it."""

import os
from typing import Any

from tabulate import tabulate

from ..catalog import CATALOG, Download, drive_url

INTRODUCTION = """# The datasets

This page is generated: `python -m datasets list --markdown > DATASETS.md`.

Names, folders, split files, class names and their order are CoOp's, so that data that lies ready for CoOp is used as it
is. All folders lie in one data root, which `--root` names. Numbers of images are those of CoOp's splits; ImageNet's
labelled val set serves for validation and test, its variants are test sets only. Of ImageNetC `DATASET.CORRUPTION` and
`DATASET.SEVERITY` choose a folder ([corruptions](docs/corruptions.md)).

```bash
python -m datasets explain OxfordPets                 # licence, expected tree, where it comes from
python -m datasets download OxfordPets --root $DATA   # what a program can get; resumes after an interruption
python -m datasets check OxfordPets --root $DATA      # what is missing, extra, in two parts; --deep: unreadable
python -m datasets fewshot OxfordPets --root $DATA --shots 16 --seed 1
```

Few-shot draws are stored as JSON in `split_fewshot/` in the dataset's folder. They are the ones that CoOp draws for the
seed from the same split; ImageNet's are drawn from sorted listings, where CoOp depends on the order of the file system.
CoOp's pickles are not read. Images are read upright and on white ground
([how](docs/how-to/own-data.md#how-images-are-read)), where CoOp's bare `convert("RGB")` leaves rotated and transparent
ones as they lie in the file.
"""


NUMBERS = ("label", "classes", "train", "val", "test")  # columns


def dataset_table(root: str | None = None) -> tuple[list[list[str]], list[str]]:
    """Rows and headers of the table; with a data root also what is there."""
    headers = ["name", "folder", "classes", "train", "val", "test", "licence", "size", "download"]
    rows = []
    for name, e in CATALOG.items():
        means = "images by hand" if e.by_hand else "by program"
        rows.append([name, f"{e.folder}/", str(e.classes), *map(_number, e.counts), e.licence, e.size, means])
    if root is not None:
        headers.append("in the root")
        for row, entry in zip(rows, CATALOG.values(), strict=True):
            row.append("yes" if os.path.isdir(os.path.join(os.path.expanduser(root), entry.folder)) else "no")
    return rows, headers


def text_table(rows: list[list[Any]], headers: list[str], form: str = "simple") -> str:
    """A table in which texts stay texts, such as the class names 001 and 1e3; NUMBERS are aligned to the right."""
    align = ["right" if header in NUMBERS else "left" for header in headers]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True, colalign=align)


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _origin(source: Download) -> str:
    checksum = f"MD5 {source.md5}" if source.md5 else "no published checksum"
    return f"{source.name}: {source.url or drive_url(source.drive)} ({checksum})"


def describe(name: str) -> str:
    """All that is known about a dataset, as Markdown that reads well in a terminal."""
    entry = CATALOG[name]
    width = max(len(path) for path, _ in entry.tree)
    tree = "\n".join(f"    {path:{width}}  # {what}" for path, what in entry.tree)
    train, val, test = map(_number, entry.counts)
    lines = [
        f"## {name}",
        "",
        f"{entry.classes} classes; train {train}, val {val}, test {test} images; {entry.size}.",
        f"Licence: {entry.licence}.",
        f"Home: <{entry.page}>.",
        "",
        "```",
        f"{entry.folder}/\n{tree}",
        "```",
        "",
    ]
    if entry.split_id:
        lines.append(f"- Split: {drive_url(entry.split_id)}")
    lines += [f"- {_origin(source)}" for source in entry.sources]
    if entry.by_hand:
        lines.append(f"- By hand: {entry.by_hand}.")
    return "\n".join(lines)


def document() -> str:
    """The text of DATASETS.md."""
    sections = [INTRODUCTION, text_table(*dataset_table(), "github") + "\n"]
    return "\n".join(sections + [describe(name) + "\n" for name in CATALOG])
