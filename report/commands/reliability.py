r"""Reliability diagrams: how often a test is right against how sure it is, in the bins of the ECE.

    python -m report reliability CoOp=output/coop/seed1 CoOp=output/coop/seed2 TLLA=output/tlla/seed1

Reads predictions_<split>.csv. Runs of one name, say seeds, share a diagram: its bars are over all their images, its ECE
is the mean of theirs, with the standard deviation.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from report.tables.numbers import averaged
from tlla.errors import InputError
from tlla.files import to_csv, write_text
from tlla.metrics import calibration_bins, expected_calibration_error
from tlla.records.record import ECE_BINS, Record
from tlla.records.store import predictions_file, read_rows

from .. import style
from ..named import HELP, named_runs
from ..style import plt

ACROSS = 4  # diagrams in a row
RIGHT = "#0072B2"
GAPS = {"too sure by": ("#F5D58A", "////", 1), "not sure enough by": ("#A8DCF5", "....", -1)}


@dataclass(frozen=True)
class Confidences:
    """What a run says of its images: confidence (N,), float32; correct (N,), bool; ECE in %."""

    folder: Path
    confidence: Tensor
    correct: Tensor
    ece: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=HELP)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images (default: test)")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes reliability.csv, with every run's bins, and the picture; prints each ECE."""
    named = named_runs(args.runs).items()
    found = {name: [read_confidences(record, args.split) for record in records] for name, records in named}
    for name, tests in found.items():
        print(f"{name}: ECE {ece(tests)} % ({ECE_BINS} bins)")
    write_text(args.out / "reliability.csv", to_csv(bin_rows(found)))
    return [args.out / "reliability.csv", *draw(found, args.out / "reliability")]


def read_confidences(run: Record, split: str) -> Confidences:
    """A run's confidences.

    Raises:
        InputError: The run has not tested the split, or its predictions are not those of its results.json.
    """
    folder, record, path = run.folder, run.content["splits"].get(split), predictions_file(run.folder, split)
    if record is None:
        raise InputError(f"{folder} has no results of the {split} split: choose the other --split, or test it")
    rows = read_rows(folder, split)
    try:
        confidence = _on_edges(torch.tensor([float(row["confidence"]) for row in rows]))
    except ValueError as error:
        raise InputError(f"{path} is no table of predictions ({error}): test the run again") from error
    correct = torch.tensor([row["label"] == row["prediction"] for row in rows])
    found = 100 * expected_calibration_error(confidence, correct)
    tolerance = 200 / len(rows)  # of one image whose rounded confidence falls into the next bin
    same = (len(rows), int(correct.sum())) == (record["total"], record["correct"])
    if not same or abs(found - record["ece"]) > tolerance:
        raise InputError(
            f"{path} and results.json are of different tests: {int(correct.sum())} of {len(rows)} images are correct "
            f"with an ECE of {found:.2f} %, against {record['correct']} of {record['total']} and {record['ece']:.2f} %"
            ": test the run again"
        )
    return Confidences(folder, confidence, correct, record["ece"])


def _on_edges(confidence: Tensor) -> Tensor:
    """Puts the confidences of votes, such as 1/3, back on the bins' edges, off which six digits have moved them."""
    edges = torch.linspace(0, 1, ECE_BINS + 1)
    nearest = edges[(confidence[:, None] - edges).abs().argmin(dim=1)]
    return torch.where((confidence - nearest).abs() < 6e-7, nearest, confidence)


def ece(tests: Sequence[Confidences]) -> str:
    """Mean, and with several runs the standard deviation."""
    return str(averaged([test.ece for test in tests]))


def bins(tests: Sequence[Confidences]) -> list[tuple[float, float, int, float, float]]:
    """Of all images of some runs: each bin's low and high edge, images, accuracy and mean confidence (NaN if empty)."""
    confidence = torch.cat([test.confidence for test in tests])
    counted = calibration_bins(confidence, torch.cat([test.correct for test in tests]))
    rows = []
    for number, (images, right, sure) in enumerate(zip(*(x.tolist() for x in counted), strict=True)):
        low, high = number / ECE_BINS, min(1.0, (number + 1) / ECE_BINS)
        shares = (right / images, sure / images) if images else (float("nan"), float("nan"))
        rows.append((low, high, int(images), *shares))
    return rows


def bin_rows(found: Mapping[str, Sequence[Confidences]]) -> list[tuple[Any, ...]]:
    """A row for each run and bin; the last bin is a confidence of exactly 1."""
    head = ("name", "run", "ece", "low", "high", "images", "accuracy", "confidence")
    return [head, *((n, t.folder, t.ece, *row) for n, tests in found.items() for t in tests for row in bins([t]))]


def draw(found: Mapping[str, Sequence[Confidences]], path: Path) -> list[Path]:
    """A diagram for each name, above a histogram of the confidences."""
    across = min(len(found), ACROSS)
    down = -(-len(found) // across)
    figure, axes = plt.subplots(
        2 * down,
        across,
        figsize=(1 + 2.3 * across, 3.4 * down),
        squeeze=False,
        sharex=True,
        sharey="row",
        height_ratios=[3, 1] * down,
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for i, (name, tests) in enumerate(found.items()):
        row, column = divmod(i, across)
        pair = axes[2 * row, column], axes[2 * row + 1, column]
        _diagram(*pair, name, tests)
        if column == 0:
            pair[0].set_ylabel("accuracy")
            pair[1].set_ylabel("images, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return style.save(figure, path)


def _diagram(upper: Axes, lower: Axes, name: str, tests: Sequence[Confidences]) -> None:
    upper.set_visible(True)
    lower.set_visible(True)
    rows = [row for row in bins(tests) if row[2]]
    total = sum(images for _, _, images, _, _ in rows)
    # The bin of confidence 1 has no width: it is drawn as a thin bar at the right end.
    x, width = zip(*(((low + high) / 2, max(high - low, 0.008) * 0.92) for low, high, *_ in rows), strict=True)
    look = {"width": width, "edgecolor": "black", "linewidth": 0.6}
    right, sure = [row[3] for row in rows], [row[4] for row in rows]
    upper.bar(x, right, color=RIGHT, label="accuracy", **look)
    for label, (colour, hatch, sign) in GAPS.items():
        gaps = [max(0.0, sign * (a - b)) for a, b in zip(sure, right, strict=True)]
        upper.bar(x, gaps, bottom=list(map(min, sure, right)), color=colour, hatch=hatch, label=label, **look)
    upper.plot([0, 1], [0, 1], "--", color="0.3", linewidth=0.9, label="calibrated")
    upper.set(xlim=(0, 1.01), ylim=(0, 1), xticks=(0, 0.5, 1))
    upper.set_title(f"{name}\nECE {ece(tests)} % ({ECE_BINS} bins)", fontsize=9)
    lower.bar(x, [100 * row[2] / total for row in rows], color="0.6", **look)
    lower.set_xlabel("confidence")
