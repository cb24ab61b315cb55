"""Predictions as rows, one plain dict per image, and as JSON lines, CSV or a table."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from tlla.files import to_csv

Row = dict[str, Any]  # index, file, and either error, or prediction, probability, top, entropy, details, seconds
LONGEST = 44  # characters of a file name in a table


def rounded(value: float) -> float:
    """The value with six significant digits, enough for a float32 in a file.

    >>> rounded(0.123456789)
    0.123457
    """
    return float(f"{value:.6g}")


def json_line(row: Row) -> str:
    """A row as one line of JSON.

    >>> print(json_line({"index": 0, "file": "größer.png"}), end="")
    {"index": 0, "file": "größer.png"}
    """
    return json.dumps(row, ensure_ascii=False) + "\n" if _is_text(row) else json.dumps(row) + "\n"


def _is_text(row: Row) -> bool:
    """Whether UTF-8 can encode the row: a file name may hold other bytes."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def csv_text(rows: Sequence[Row]) -> str:
    """A header and one line per image, with the error of an unreadable image in the last column.

    >>> row = {"index": 0, "file": "a.png", "prediction": "cat", "probability": 0.9, "top": [["cat", 0.9]]}
    >>> print(csv_text([row]), end="")
    index,file,prediction,probability,error
    0,a.png,cat,0.9,
    """
    good = next((row for row in rows if "error" not in row), {})
    details = [key for key in good if key not in ("index", "file", "prediction", "probability", "top")]
    others = range(2, len(good.get("top", ())) + 1)
    ranks = [name for r in others for name in (f"prediction_{r}", f"probability_{r}")]
    keys = ["index", "file", "prediction", "probability", *details]
    table = [[*keys, *ranks, "error"]]
    for row in rows:
        lower = [cell for pair in row.get("top", ())[1:] for cell in pair] or [""] * len(ranks)
        table.append([*(row.get(key, "") for key in keys), *lower, row.get("error", "")])
    return to_csv(table)


def table_text(rows: Iterable[Row]) -> str:
    """A table for the terminal: file, most probable classes, entropy, agreement of the votes.

    >>> row = {"file": "a.png", "prediction": "cat", "probability": 0.9, "top": [["cat", 0.9], ["dog", 0.1]]}
    >>> print(table_text([row]))
    file    prediction       %  2.
    ------  ------------  ----  --------
    a.png   cat           90.0  dog 10.0
    """
    good = [row for row in rows if "error" not in row]
    if not good:
        return ""
    details = [key for key in ("entropy", "sharpness", "agreement") if key in good[0]]
    header = ["file", "prediction", "%", *(f"{rank}." for rank in range(2, len(good[0]["top"]) + 1)), *details]
    return tabulate([_cells(row, details) for row in good], header, disable_numparse=True, colalign=_align(header))


def _cells(row: Row, details: Sequence[str]) -> list[str]:
    others = [f"{printable(name)} {100 * p:.1f}" for name, p in row["top"][1:]]
    values = [f"{row[key]:.0%}" if key == "agreement" else f"{row[key]:.3f}" for key in details]
    return [_shortened(row["file"]), printable(row["prediction"]), f"{100 * row['probability']:.1f}", *others, *values]


def _align(header: Sequence[str]) -> list[str]:
    return ["right" if name in ("%", "entropy", "sharpness", "agreement") else "left" for name in header]


def printable(text: str) -> str:
    r"""A text that is safe to print: bytes that are not Unicode and control characters become escapes.

    >>> print(printable("a" + chr(27) + "[1m.png"))
    a\x1b[1m.png
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) == "Cc" else sign for sign in text)


def _shortened(name: str) -> str:
    """A file name that is safe to print; of a long name only the end."""
    name = printable(name)
    return name if len(name) <= LONGEST else "..." + name[3 - LONGEST :]
