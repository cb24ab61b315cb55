"""The picture of `report settings`: a panel for each of STSS's settings (the paper's figure 3 has rho' and s)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from report.tables.numbers import Summary, averaged
from tlla.errors import InputError

from ... import style
from ...style import plt

REFERENCES = {"one view": ":", "mean of all views": "--", "entropy selection": "-."}
PANELS = {
    "RHO": "radius of the perturbations, ρ′",
    "LAMBDA": "weight of the sharpness, λ",
    "N_PERTURB": "perturbations, R",
    "TOP_S": "views that vote, s",
    "N_VIEWS": "views, V (the same share votes)",
    "VOTE": "vote",
    "RULE": "selection rule",
}
WORDS = ("VOTE", "RULE")  # not numbers
LABELS = "used labels"  # in the name of a rule that has


class Curves:
    """Rows of `report settings`, averaged.

    Attributes:
        names: In the order of the command line.
        datasets: Over which each seed is averaged.
        points: (name, what is varied) -> value -> accuracy in % over seeds; the value of a reference is "".

    Raises:
        InputError: Two runs of a name share dataset and seed, or a seed lacks a dataset.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self.names = list(dict.fromkeys(row["name"] for row in rows))
        self.datasets = list(dict.fromkeys(row["dataset"] for row in rows))
        self.split = rows[0]["split"]
        for name in self.names:
            _check_runs(name, {(row["run"], row["dataset"], row["seed"]) for row in rows if row["name"] == name})
        values: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for row in rows:
            value = row.get(row["varied"], "")
            values[row["name"], row["varied"]][value][row["seed"]].append(row["accuracy"])
        self.points = {key: {v: _over_seeds(seeds) for v, seeds in curve.items()} for key, curve in values.items()}
        self.own = {row["name"]: row for row in rows if row["varied"] == "own"}


def _check_runs(name: str, runs: set[tuple[str, str, int]]) -> None:
    seeds: dict[int, list[str]] = defaultdict(list)
    for _, dataset, seed in runs:
        seeds[seed].append(dataset)
    present = {dataset for datasets in seeds.values() for dataset in datasets}
    for seed, datasets in seeds.items():
        twice = sorted({dataset for dataset in datasets if datasets.count(dataset) > 1})
        if twice:
            raise InputError(f"two runs of {name} have dataset {twice[0]} and seed {seed}: give one another name")
        if missing := sorted(present - set(datasets)):
            raise InputError(f"{name} has no run of seed {seed} on {missing[0]}, as other seeds do: add it")


def _over_seeds(seeds: Mapping[int, Sequence[float]]) -> Summary:
    return averaged([averaged(accuracies).mean for accuracies in seeds.values()])


def draw(curves: Curves, path: Path) -> list[Path]:
    """Accuracy against each setting; bands are one standard deviation over seeds. Returns the files."""
    figure, axes = plt.subplots(2, 4, figsize=(12.5, 5.4), sharey=True)
    axes[-1, -1].axis("off")
    for axis, (what, label) in zip(axes.flat, PANELS.items(), strict=False):
        for i, name in enumerate(curves.names):
            _references(axis, curves, name, i)
            (_words if what in WORDS else _curve)(axis, curves.points[name, what], name, i, curves.own[name][what])
        axis.set_xlabel(label)
        if what not in WORDS:
            _log2(axis, [value for name in curves.names for value in curves.points[name, what]])
    for axis in axes[:, 0]:
        axis.set_ylabel("top-1 accuracy, %")
    shown = curves.datasets[0] if len(curves.datasets) == 1 else f"mean of {len(curves.datasets)} datasets"
    figure.suptitle(f"{shown}, {curves.split} images", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles += [Line2D([], [], color="0.3", linestyle=dash, linewidth=1) for dash in REFERENCES.values()]
    figure.legend(handles, [*labels, *REFERENCES], loc="outside lower center", ncols=len(handles))
    return style.save(figure, path)


def _curve(axis: Axes, points: Mapping[float, Summary], name: str, i: int, own: float) -> None:
    look = style.line(i)
    x, means, stds = list(points), *_means_and_stds(points)
    axis.fill_between(x, means - stds, means + stds, color=look["color"], alpha=0.15, linewidth=0)
    axis.plot(x, means, **{**look, "linestyle": "-"}, label=name)
    axis.plot(own, points[own].mean, look["marker"], color=look["color"], markersize=9, fillstyle="none")


def _means_and_stds(points: Mapping[Any, Summary]) -> np.ndarray:
    return np.array([(point.mean, point.std or 0.0) for point in points.values()]).T


def _words(axis: Axes, points: Mapping[str, Summary], name: str, i: int, own: str) -> None:
    look = style.line(i)
    # What used labels is far above all others, which could not be told apart beside it: its number, in the empty place.
    above = {how: point for how, point in points.items() if LABELS in how and how != own}
    points = {how: point for how, point in points.items() if how not in above}
    for how, point in above.items():
        said = f"{how}: {point.mean:.1f}"
        text = axis.text(1.08, 0.98 - 0.1 * i, said, color=look["color"], transform=axis.transAxes, va="top")
        text.set_in_layout(False)  # or the column would make room for it
    x = [place + 0.12 * i for place in range(len(points))]
    axis.errorbar(x, *_means_and_stds(points), **{**look, "linestyle": "none"}, capsize=2)
    axis.plot(
        x[list(points).index(own)], points[own].mean, look["marker"], color=look["color"], markersize=9, mfc="none"
    )
    turn = {"rotation": 30, "ha": "right"} if len(points) > 4 else {}
    axis.set_xticks(range(len(points)), [how.replace("_", " ") for how in points], **turn)
    axis.set_xlim(-0.5, len(points) - 0.5)


def _references(axis: Axes, curves: Curves, name: str, i: int) -> None:
    """Lines across the panel, with the name's marker at their right end."""
    look = style.line(i)
    for what, dash in REFERENCES.items():
        y = curves.points[name, what][""].mean
        axis.plot(
            [0, 1],
            [y, y],
            transform=axis.get_yaxis_transform(),
            **{**look, "linestyle": dash, "linewidth": 0.8, "markersize": 3},
            markevery=[1],
            clip_on=False,
            zorder=1,
        )


def _log2(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis, with a place for 0 if it is among the values, whose ticks are powers of two."""
    positive = [value for value in values if value > 0]
    if 0 in values:
        axis.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.7)
        axis.set_xlim(-0.2 * min(positive), max(positive) * 1.2)
    else:
        axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
