r"""Accuracy against the mean number of views, if images whose vote leads by a margin need no more views.

    python -m report margin output/tlla/seed1 output/tlla/seed2 --split val --out output/report/margin

RUN is a run of a test-time method, or of Compare. The views are encoded once and kept in <out>/features. Prints for
each method the smallest margin from which on the accuracy is within --tolerance of that of all views: the value for
TRAINER.VIEWS.MARGIN or TRAINER.TLLA.MARGIN. Choose it on other images than those of the results: --split val.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from report.tables.render import escaped
from tlla.arguments import number
from tlla.errors import InputError
from tlla.files import to_csv, write_text
from tlla.methods import Method
from tlla.records.record import Record
from tlla.selection import lead
from tlla.views.rounds import round_sizes

from .. import style
from ..named import HELP, add_set_argument, named_runs
from ..reopen import open_run, tested_entries
from ..style import plt
from .settings.bank import ViewBank, view_bank

MARGINS = [round(0.05 * step, 2) for step in range(1, 21)]
NAMED = (0.1, 0.3, 0.5, "all")  # in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=HELP)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="images (default: val)")
    parser.add_argument("--tolerance", type=float, default=0.3, help="points of accuracy to lose (default: 0.3)")
    add_set_argument(parser)


def run(args: argparse.Namespace) -> list[Path]:
    """Writes margin.csv with every number, margin.md with the means, and the picture; prints the margins."""
    number("--tolerance", args.tolerance)
    rows = [
        row
        for name, records in named_runs(args.runs).items()
        for record in records
        for row in measure(name, record, args.split, args.out / "features", args.set)
    ]
    write_text(args.out / "margin.csv", to_csv([rows[0], *(row.values() for row in rows)]))
    curves = means(rows)
    for name, curve in curves.items():
        images = max(row["images"] for row in rows if row["name"] == name)
        print(f"{name}: MARGIN {smallest_margin(curve, args.tolerance)} (by {images} {args.split} images)")
    table = [
        (escaped(name, "markdown"), margin, f"{views:.1f}", f"{accuracy:.2f}")
        for name, curve in curves.items()
        for margin, views, accuracy in curve
    ]
    headers = ("method", "margin", "mean views", "accuracy, %")
    write_text(args.out / "margin.md", tabulate(table, headers, "github", disable_numparse=True) + "\n")
    return [args.out / "margin.csv", args.out / "margin.md", *draw(curves, args.out / "margin")]


def measure(name: str, record: Record, split: str, kept: Path, opts: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each method of a run and each margin; that of all views comes last, under the margin "all"."""
    trainer, folder = open_run(record, *opts), record.folder
    if trainer.kind != "views":
        raise InputError(f"{folder} is a run of {type(trainer).__name__}: name one of a test-time method, such as TLLA")
    bank, rows = view_bank(trainer, split, kept), []
    entries = tested_entries(record, trainer)
    for entry in entries:
        if not entry.method.stops_early:
            continue
        leads, right = rounds(entry.method, bank, trainer.device)
        sizes = torch.tensor(round_sizes(bank.features.shape[1]))
        for margin in (*MARGINS, "all"):
            done = leads >= (math.inf if margin == "all" else margin)
            done[-1] = True
            last = done.int().argmax(dim=0)  # (N,): the first round in which an image is done
            rows.append(
                {
                    "name": f"{name} {entry.title}".strip() if len(entries) > 1 else name,
                    "run": str(folder),
                    "split": split,
                    "images": len(bank.labels),
                    "margin": margin,
                    "views": sizes[last].double().mean().item(),
                    "accuracy": 100 * right.gather(0, last[None]).double().mean().item(),
                }
            )
    if not rows:
        raise InputError(f"{folder} tests no method that can stop early: name a run of TLLA, ZERO, EntropyMean ...")
    return rows


@torch.no_grad()
def rounds(method: Method, bank: ViewBank, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of all images after each round: the lead of the vote, and whether it is right; (rounds, N) each."""
    n_views = bank.features.shape[1]
    leads, right = [], []
    for features, known in bank.batches():
        features, found = features.to(device), []
        for n in round_sizes(n_views):
            part = method.with_views(n, n_views)
            part.known = known
            found.append(part.predict(features[:, :n]).cpu())
        leads.append(torch.stack([lead(probability) for probability in found]))
        right.append(torch.stack([probability.argmax(dim=1) == known.label for probability in found]))
    return torch.cat(leads, dim=1), torch.cat(right, dim=1)


Curve = list[tuple[float | str, float, float]]


def means(rows: Sequence[dict[str, Any]]) -> dict[str, Curve]:
    """Margin, mean views and accuracy of each name, over its runs."""
    curves: dict[str, Curve] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        for margin in (*MARGINS, "all"):
            own = [row for row in rows if (row["name"], row["margin"]) == (name, margin)]
            means = (fmean(row[key] for row in own) for key in ("views", "accuracy"))
            curves.setdefault(name, []).append((margin, *means))
    return curves


def smallest_margin(curve: Curve, tolerance: float) -> float | str:
    """The smallest margin from which on no accuracy is more than `tolerance` points below that of all views."""
    *margins, (_, _, whole) = curve
    bad = [i for i, (_, _, accuracy) in enumerate(margins) if accuracy < whole - tolerance]
    first = bad[-1] + 1 if bad else 0
    return margins[first][0] if first < len(margins) else 0.0


def draw(curves: dict[str, Curve], path: Path) -> list[Path]:
    """A line for each name; its last point is that of all views."""
    figure, axis = plt.subplots(figsize=(5.2, 3.4))
    for i, (name, curve) in enumerate(curves.items()):
        _, views, accuracy = zip(*curve, strict=True)
        look = style.line(i)
        axis.plot(views, accuracy, label=name, **look)
        place = {"xytext": (0, -11 if i % 2 else 5), "textcoords": "offset points", "ha": "center"}
        for margin, x, y in curve:
            if margin in NAMED:
                axis.annotate(f"{margin}", (x, y), fontsize=7, color=look["color"], **place)
    axis.margins(y=0.1)
    axis.set_xlabel("mean views of an image (numbers: margin)")
    axis.set_ylabel("top-1 accuracy, %")
    axis.legend()
    return style.save(figure, path)
