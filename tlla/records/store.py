"""The files of a run, read and written here alone: results.json and predictions_<split>.csv, beside log.txt."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlla.errors import InputError
from tlla.files import read_dict, read_text, write_text

RESULTS = "results.json"
NEEDED = ("index", "label", "prediction", "confidence")  # columns of a predictions file that every version has
TESTED = ("=> result",)  # the head of a result in a log


def write_results(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes results.json."""
    write_text(folder / RESULTS, json.dumps(content, indent=2) + "\n")


def read_results(folder: Path) -> Any:
    """What is in results.json, unchecked; InputError, which does not name the folder, if it cannot be read."""
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{RESULTS} cannot be read: {error}") from error


def peek(folder: Path) -> dict[str, Any] | None:
    """What is in results.json, unchecked; None if there is none that can be read."""
    return read_dict(folder / RESULTS)


def predictions_file(folder: Path, split: str) -> Path:
    """The file with a row for each image of a split."""
    return folder / f"predictions_{split}.csv"


def read_rows(folder: Path, split: str) -> list[dict[str, str]]:
    """The rows of a predictions file, one an image, with at least the columns NEEDED; InputError if it is not whole."""
    path = predictions_file(folder, split)
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): name the folder of a complete run") from error
    if not rows or any(row.get(name) is None for row in rows for name in NEEDED):
        raise InputError(f"{path} lacks {', '.join(NEEDED)} of some image: test the run again")
    return rows


def has_result(log: Path) -> bool:
    """Whether a log has the head of a result."""
    return any(line.strip() in TESTED for line in read_text(log, errors="replace").splitlines())
