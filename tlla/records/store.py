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
    """Writes results.json.

    >>> write_results(Path("run"), {"trainer": "SAPT"})
    >>> Path("run/results.json").is_file()
    True
    """
    write_text(folder / RESULTS, json.dumps(content, indent=2) + "\n")


def read_results(folder: Path) -> Any:
    """What is in results.json, unchecked; InputError, which does not name the folder, if it cannot be read.

    >>> write_results(Path("run"), {"trainer": "SAPT"})
    >>> read_results(Path("run"))
    {'trainer': 'SAPT'}
    """
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{RESULTS} cannot be read: {error}") from error


def peek(folder: Path) -> dict[str, Any] | None:
    """What is in results.json, unchecked; None if there is none that can be read.

    >>> write_results(Path("run"), {"trainer": "SAPT"})
    >>> peek(Path("run")), peek(Path("elsewhere"))
    ({'trainer': 'SAPT'}, None)
    """
    return read_dict(folder / RESULTS)


def predictions_file(folder: Path, split: str) -> Path:
    """The file with a row for each image of a split.

    >>> predictions_file(Path("run"), "test").name
    'predictions_test.csv'
    """
    return folder / f"predictions_{split}.csv"


def read_rows(folder: Path, split: str) -> list[dict[str, str]]:
    """The rows of a predictions file, one an image, with at least the columns NEEDED; InputError if it is not whole.

    >>> _ = Path("predictions_val.csv").write_text("index,label,prediction,confidence" + chr(10) + "0,1,1,0.9")
    >>> read_rows(Path(), "val")
    [{'index': '0', 'label': '1', 'prediction': '1', 'confidence': '0.9'}]
    """
    path = predictions_file(folder, split)
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): name the folder of a complete run") from error
    if not rows or any(row.get(name) is None for row in rows for name in NEEDED):
        raise InputError(f"{path} lacks {', '.join(NEEDED)} of some image: test the run again")
    return rows


def has_result(log: Path) -> bool:
    """Whether a log has the head of a result.

    >>> _ = Path("log.txt").write_text("=> result")
    >>> has_result(Path("log.txt"))
    True
    """
    return any(line.strip() in TESTED for line in read_text(log, errors="replace").splitlines())
