"""What the project does on one CUDA GPU of the H100's class: seven parts, and the aims beside what was found.

    python -m benchmarks.gpu --minutes 8 --out gpu.json

The file is written after every row of figures. A part that raises an error is recorded, and the next one runs; what the
minutes do not suffice for is left out and named. Weights are random, nothing is downloaded. A rehearsal on a CPU, whose
figures mean nothing:

    python -m benchmarks.gpu --device cpu --tiny --out gpu.json
"""

import argparse
import gc
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from tlla.command_line import call
from tlla.errors import InputError
from tlla.files import write_text
from tlla.precision import keep_bits

from .sizes import TINY, Sizes

PARTS = {  # name: module, and the share of the time that the parts before it leave to it
    "env": ("card", 25),
    "correct": ("agreement", 90),
    "encoder": ("image_encoder", 90),
    "feed": ("feed", 30),
    "text": ("text_encoder", 70),
    "testtime": ("one_image", 75),
    "end_to_end": ("end_to_end", 100),
}
Content = dict[str, Any]


def run(names: list[str], sizes: Sizes, minutes: float, save: Callable[[Content], None]) -> Content:
    """Measures the parts; `save` gets all that was found, again and again."""
    end = time.monotonic() + 60 * minutes
    content: Content = {"sizes": vars(sizes), "minutes": minutes, "parts": {}}
    whole = sum(PARTS[name][1] for name in names)
    for number, name in enumerate(names):
        later = sum(PARTS[other][1] for other in names[number + 1 :])
        part = content["parts"][name] = {"rows": []}
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        try:
            run_part(part, PARTS[name][0], sizes, end - 60 * minutes * later / whole, lambda: save(content))
        except Exception as error:
            part["error"] = describe_error(error)
            print(f"error: {part['error']}")
        part["seconds"] = round(time.monotonic() - start, 1)
        save(content)
    return content


def run_part(part: Content, module: str, sizes: Sizes, until: float, save: Callable[[], None]) -> None:
    """Adds the figures of a part to it, row by row, until its time is over."""
    rows = importlib.import_module(f"{__package__}.{module}").measure(sizes) if time.monotonic() < until else [None]
    for row in rows:
        if time.monotonic() >= until:
            part["skipped"] = f"the minutes were used up after {len(part['rows'])} rows"
            print(f"skipped: {part['skipped']}")
            return
        label, find, *args = row
        try:
            figures = find(*args)
        except Exception as error:
            figures = {"error": describe_error(error)}
        if "median" in figures:  # of common.measure
            figures = {"ms": 1000 * figures.pop("median"), **figures}
        part["rows"].append({**label, **figures})
        print(", ".join(f"{key} {shorten(value)}" for key, value in part["rows"][-1].items()), flush=True)
        save()
        if torch.cuda.is_available():  # a row shall meet no memory of the one before
            gc.collect()
            torch.cuda.empty_cache()


def describe_error(error: Exception) -> str:
    """The error and where it was raised, without a reference to its frames."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:600]} ({places})"


def shorten(value: Any) -> str:
    """A figure for the terminal."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:300]


def compare_with_aims(content: Content) -> list[list[Any]]:
    """What was to be reached, and what was found: text, aim, figure, whether it is reached."""

    def value(part: str, key: str, **label: Any) -> float:
        rows = content["parts"].get(part, {}).get("rows", [])
        return next((row[key] for row in rows if label.items() <= row.items() and key in row), float("nan"))

    def ratio(part: str, key: str, field: str, over: str, under: str, **label: Any) -> float:
        return value(part, key, **{field: over}, **label) / value(part, key, **{field: under}, **label)

    found: list[tuple[str, str, float, float]] = []
    for workers, least in ((16, 150), (4, 120)):
        for place, flag in (("CPU", False), ("GPU", True)):
            rate = value("end_to_end", "images/s", workers=workers, ON_DEVICE=flag)
            found.append((f"TLLA, images/s, {workers} workers, views on the {place}", ">=", least, rate))
    for n in (512, 64):
        faster = ratio("encoder", "ms", "forward", "OpenAI's", "ours", views=n, precision="fp16")
        found.append((f"image encoder, {n} views, fp16: times as fast as OpenAI's", ">=", 1.6, faster))
    one = {"K": 1000, "encoding": True}
    faster = ratio("testtime", "ms", "method", "TPT, 77 tokens", "STSS", **one)
    found.append(("TLLA, an image, K = 1000: times as fast as TPT's authors", ">=", 20, faster))
    share = ratio("testtime", "peak_mb", "method", "STSS", "TPT, 77 tokens", **one)
    found.append(("TLLA, an image, K = 1000: share of their memory", "<=", 0.05, share))
    step = value("text", "ms", step="SAPT", K=1000, precision="amp")
    found.append(("SAPT step, K = 1000, batch 32, amp: ms", "<=", 35, step))
    table: list[list[Any]] = []
    for what, sign, aim, x in found:
        reached = "yes" if (x >= aim if sign == ">=" else x <= aim) else "not measured" if x != x else "NO"
        table.append([what, f"{sign} {aim:g}", None if x != x else x, reached])
    return table


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8, help="after which no further row is begun")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all figures")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal in tiny sizes: its figures mean nothing")
    args = parser.parse_args()
    if not 0 < args.minutes < math.inf:
        raise InputError(f"--minutes must be a finite number > 0, but got {args.minutes}")
    if args.out.exists():
        raise InputError(f"--out {args.out} exists: name another file, or remove it")
    if args.device == "cpu" and not args.tiny:
        raise InputError("--device cpu is for a rehearsal only: add --tiny")
    if args.device != "cpu":
        if not torch.cuda.is_available():
            raise InputError(
                "a CUDA GPU is needed, and torch finds none: --device cpu --tiny is a rehearsal without one"
            )
        keep_bits()  # as train.py does
        gc.freeze()  # what is imported need not be looked through after each row
    sizes = Sizes(args.device, **(TINY if args.tiny else {}))

    def save(content: Content) -> None:
        write_text(args.out, json.dumps(content, indent=1, default=str) + "\n")

    save({})  # an error here costs no figure
    content = run(args.parts, sizes, args.minutes, save)
    table = content["aims"] = compare_with_aims(content)
    save(content)
    headers = ["what", "aim", "found", "reached"]
    print("\n" + tabulate(table, headers, tablefmt="github", floatfmt=".4g", disable_numparse=[0]))
    for name, part in content["parts"].items():
        errors = [part["error"]] if "error" in part else [row["error"] for row in part["rows"] if "error" in row]
        for problem in (*filter(None, [part.get("skipped")]), *errors):
            print(f"{name}: {problem}")


if __name__ == "__main__":
    sys.exit(call(main, stopped="stopped: --out has what was measured"))
