r"""Accuracy against seconds and against memory for an image: one point for each method, with its name.

    python -m report cost output/methods/runs --only "*+SAPT" TLLA --out output/report/cost

Takes folders with runs at any depth, as parse_test_res.py --table does. A point is the mean accuracy over seeds and
datasets, the median of the seconds and of the peak memory. Memory has a panel unless it is the same for all, as on a
CPU, where it is that of the whole process. Runs of several devices are refused: --device says which. Two machines
without GPU are both called cpu: only you know whether they are the same.
"""

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from report.tables.runs import Run, make_runs
from tlla.errors import InputError
from tlla.files import to_csv, write_text
from tlla.methods import METHODS
from tlla.records.record import Record, read_records

from .. import style
from ..labels import name_points
from ..style import plt

PANELS = {
    "seconds": "seconds for an image",
    "own_seconds": "seconds for an image, beside the encoding",
    "memory_mb": "peak memory, MB",
}
KINDS = {"no backprop at test time": ("o", "#0072B2"), "backprop at test time": ("s", "#D55E00")}
FRONT = {
    "color": "0.6",
    "linewidth": 0.9,
    "drawstyle": "steps-post",
    "zorder": 1,
    "label": "no method beats it in both",
}


@dataclass(frozen=True)
class Cost:
    """A method's point: accuracy in %, seconds for an image, those without making and encoding views, peak in MB."""

    method: str
    accuracy: float
    seconds: float
    own_seconds: float
    memory_mb: float
    backprop: bool
    runs: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("folders", nargs="+", metavar="RUN", help="folder of a run, or of several at any depth")
    parser.add_argument(
        "--only", nargs="+", metavar="METHOD", help="methods as the tables name them; * for any letters"
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="datasets (default: all that occur)")
    parser.add_argument("--device", help="take the runs of this device alone")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes cost.csv and the picture."""
    records, defects = read_records(args.folders)
    for defect in defects:
        print(f"left out: {defect}", file=sys.stderr)
    found = list(zip(records, make_runs(records), strict=True))
    found = [(a, b) for a, b in found if any(fnmatchcase(b.method, p) for p in args.only or ["*"])]
    found = [(a, b) for a, b in found if not args.datasets or b.dataset in args.datasets]
    found = one_device(found, args.device)
    datasets = sorted({run.dataset for _, run in found})
    costs = sorted(points(found, datasets), key=lambda cost: cost.seconds)
    rows = [[field.name for field in fields(Cost)], *map(astuple, costs)]  # the fastest first
    write_text(args.out / "cost.csv", to_csv(rows))
    return [args.out / "cost.csv", *draw(costs, datasets, args.out / "cost")]


def one_device(found: Sequence[tuple[Record, Run]], wanted: str | None) -> list[tuple[Record, Run]]:
    """The runs of one device; InputError if there are several and none is wanted, or no run is left."""
    devices = Counter(record.content["versions"].get("device", "unknown") for record, _ in found)
    if len(devices) > 1 and not wanted:
        names = ", ".join(f"{name!r} ({count} runs)" for name, count in sorted(devices.items()))
        raise InputError(f"the seconds of several devices cannot be compared: choose one of {names} with --device")
    kept = [(record, run) for record, run in found if not wanted or record.content["versions"]["device"] == wanted]
    if not kept:
        raise InputError(f"no complete run is left: check the folders, --only, --datasets and --device {wanted or ''}")
    return kept


def points(found: Sequence[tuple[Record, Run]], datasets: Sequence[str]) -> list[Cost]:
    """The point of each method, which must have every dataset, as often as each other one; else it is left out."""
    members: dict[str, list[tuple[Record, Run]]] = {}
    for record, run in found:
        members.setdefault(run.title, []).append((record, run))
    costs = []
    for method, own in members.items():
        if reason := _why_not(own, datasets):
            print(f"left out: {method} {reason}", file=sys.stderr)
        else:
            costs.append(_cost(method, own))
    if not costs:
        raise InputError("no method has runs of all datasets: name fewer with --datasets")
    return costs


def _why_not(own: Sequence[tuple[Record, Run]], datasets: Sequence[str]) -> str:
    seeds = {name: sorted(run.seed for _, run in own if run.dataset == name) for name in datasets}
    missing = [name for name in datasets if not seeds[name]]
    if missing:
        return f"has no run on {', '.join(missing)}"
    if any(len(set(own)) < len(own) for own in seeds.values()):
        return "has several runs of one seed: name one of their folders"
    if any(run.settings != own[0][1].settings for _, run in own):
        return "has runs of several settings: name the folders of one"
    uneven = [name for name in datasets if seeds[name] != seeds[datasets[0]]]
    return f"has other seeds on {uneven[0]} than on {datasets[0]}" if uneven else ""


def _cost(method: str, own: Sequence[tuple[Record, Run]]) -> Cost:
    def median(name: str) -> float:
        return statistics.median(run.metrics[name] for _, run in own)

    name = own[0][0].method["name"]
    backprop = name in METHODS and METHODS[name].needs_backprop
    accuracy = statistics.fmean(run.metrics["accuracy"] for _, run in own)
    costs = map(median, ("seconds_per_image", "method_seconds_per_image", "peak_memory_mb"))
    return Cost(method, accuracy, *costs, backprop, len(own))


def draw(costs: Sequence[Cost], datasets: Sequence[str], path: Path) -> list[Path]:
    """A panel for each cost in which the methods differ; a line joins the methods that none beats in both."""
    panels = [what for what in PANELS if _differ([getattr(cost, what) for cost in costs])] or ["seconds"]
    size = (1 + 4.2 * len(panels), max(3.4, 0.8 + 0.16 * len(costs)))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, what in zip(axes[0], panels, strict=True):
        _panel(axis, costs, what)
    shown = datasets[0] if len(datasets) == 1 else f"mean of {len(datasets)} datasets"
    axes[0, 0].set_ylabel(f"top-1 accuracy, %\n({shown})")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.canvas.draw()  # the names need the axes in their places
    for axis, what in zip(axes[0], panels, strict=True):
        name_points(axis, [(getattr(cost, what), cost.accuracy, cost.method) for cost in costs])
    return style.save(figure, path)


def _differ(values: Sequence[float]) -> bool:
    return max(values) > 1.05 * min(values)


def _panel(axis: Axes, costs: Sequence[Cost], what: str) -> None:
    for kind, (marker, colour) in KINDS.items():
        own = [cost for cost in costs if cost.backprop == (marker == "s")]
        x, y = [getattr(cost, what) for cost in own], [cost.accuracy for cost in own]
        axis.plot(x, y, marker, color=colour, markersize=5, label=kind)
    axis.plot(*zip(*front([(getattr(cost, what), cost.accuracy) for cost in costs]), strict=True), **FRONT)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_xlabel(PANELS[what])
    axis.margins(y=0.1)


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy) those that no other beats in both, the cheapest first."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(places, key=lambda place: (place[0], -place[1])):
        if not kept or y > kept[-1][1]:
            kept.append((x, y))
    return kept
