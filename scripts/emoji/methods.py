"""All test-time methods on the embedded benchmark: source and shifted styles, three prompts, several seeds.

Trains the prompts on the source, then runs Compare on each style. Runs that are complete are skipped, interrupted ones
resume, those of scripts/demo.py in the same folder are added to. Writes docs/methods.md's tables (methods.md),
methods.csv with every run, and the picture, to <output>/plain or <output>/scenes.

    python -m scripts.emoji.methods --output output/emoji --seeds 1 2 3
    python -m scripts.emoji.methods --output output/emoji --seeds 1 2 3 --scenes --without SAR CoCoOp
"""

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from report.labels import name_points
from report.style import line, plt, save
from sweeps.job import Job
from tlla.command_line import call
from tlla.files import to_csv, write_text
from tlla.methods import METHODS
from tlla.records.record import ECE_BINS

from .study import (
    PROMPTS,
    Family,
    StudyTest,
    chosen_family,
    job,
    mean_std,
    only,
    run,
    study_parser,
    study_plan,
    tested,
    training,
)

RIVALS = ("CoCoOp", "TipAdapter", "TipAdapterF")  # trained on the source, tested on one view
COLUMNS = ("accuracy", "top5", "macro_f1", "nll", "ece", "brier")
COLUMNS += ("seconds_per_image", "method_seconds_per_image", "peak_memory_mb")
ECE = f"ECE ({ECE_BINS} bins), %"


def plan_all(output: Path, seeds: Sequence[int], family: Family, without: Sequence[str] = ()) -> list[Job]:
    """The trainings of the rivals, which test the source, too; then by seed all methods, and the rivals elsewhere."""
    rivals, methods = ([name for name in names if name not in without] for names in (RIVALS, METHODS))
    jobs = [training(name, output, seed, family) for name in rivals for seed in seeds]
    jobs += study_plan(output, seeds, family, *only(methods))
    for seed in seeds:
        for name in rivals:
            own = training(name, output, seed, family)
            jobs += [job(name, output, seed, style, source=own) for style in family.shifted]
    return jobs


class MethodSummary:
    """Means over styles, and over seeds mean and standard deviation."""

    def __init__(self, tests: list[StudyTest], family: Family):
        self.tests, self.family = tests, family
        self.keys = sorted({(t.method, t.prompt) for t in tests}, key=lambda key: self._place(*key))
        self.methods = list(dict.fromkeys(method for method, _ in self.keys if method in METHODS))

    @staticmethod
    def _place(method: str, prompt: str) -> tuple:
        first = ("SingleView", "MeanViews", "EntropyMean", "STSS")
        known = [*first, *(name for name in METHODS if name not in first)]
        return known.index(method) if method in known else len(known), prompt

    def by_seed(self, method: str, prompt: str, key: str, shifted: bool) -> list[float]:
        """For each seed the mean of a figure, over the shifted styles or on the source."""
        values = defaultdict(list)
        for t in self.tests:
            if (t.method, t.prompt) == (method, prompt) and (t.style != self.family.source) == shifted:
                values[t.seed].append(t.test[key])
        return [statistics.mean(v) for v in values.values()]

    def cell(self, method: str, prompt: str, key: str, shifted: bool, form: str = ".1f") -> str:
        """Mean and standard deviation over the seeds."""
        values = self.by_seed(method, prompt, key, shifted)
        return mean_std(values, form) if values else "-"

    def accuracy(self) -> str:
        """Accuracy of each method under each prompt, on the source and the mean of the shifted styles; its own time."""
        places = {"source": False, "shifted": True}
        headers = ["top-1 accuracy, %", *(f"{p}: {where}" for p in PROMPTS for where in places), "own ms/image"]
        rows = []
        for m in self.methods:
            cells = [self.cell(m, p, "accuracy", shifted) for p in PROMPTS for shifted in places.values()]
            rows.append([m, *cells, f"{1000 * self.seconds(m, PROMPTS[0], 'method_seconds_per_image'):.1f}"])
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def calibration(self) -> str:
        """ECE and NLL of each method under each prompt, on the shifted styles."""
        headers = ["shifted styles", *(f"{p}: {what}" for p in PROMPTS for what in (ECE, "NLL"))]
        kinds = (("ece", ".1f"), ("nll", ".2f"))
        rows = [[m, *(self.cell(m, p, key, True, form) for p in PROMPTS for key, form in kinds)] for m in self.methods]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def rivals(self) -> str:
        """The training rivals, on one view; "" without them."""
        cells = ((False, "accuracy"), (True, "accuracy"), (True, "ece"))
        rows = [[m, *(self.cell(m, p, key, shifted) for shifted, key in cells)] for m, p in self.keys if m in RIVALS]
        headers = ["trained on the source, one view", "source, %", "shifted, %", ECE]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True) if rows else ""

    def seconds(self, method: str, prompt: str, key: str = "seconds_per_image") -> float:
        """Median over the runs of seconds per image."""
        return statistics.median(t.test[key] for t in self.tests if (t.method, t.prompt) == (method, prompt))

    def draw(self, path: Path) -> None:
        """For each prompt, accuracy on the shifted styles against the seconds that a method adds to the encoding."""
        figure, axes = plt.subplots(1, len(PROMPTS), figsize=(12, 4.2), sharex=True, sharey=True)
        encoding = self.seconds("MeanViews", PROMPTS[0], "seconds_per_image")
        points: dict[str, list[tuple[float, float, str]]] = {prompt: [] for prompt in PROMPTS}
        for axis, prompt in zip(axes, PROMPTS, strict=True):
            for method in (m for m, p in self.keys if p == prompt and m in METHODS):
                x = self.seconds(method, prompt, "method_seconds_per_image")
                y = statistics.mean(self.by_seed(method, prompt, "accuracy", shifted=True))
                axis.plot(x, y, **_look(METHODS[method].needs_backprop))
                points[prompt].append((x, y, method))
            axis.axvline(encoding, color="0.5", linestyle="--", linewidth=0.8)
            axis.set_xscale("log")
            axis.set_title(f"{prompt} prompt", fontsize=10)
            axis.set_xlabel("seconds per image, beside the encoding")
        axes[0].set_ylabel("top-1 accuracy on the shifted styles, %")
        handles = [axes[0].plot([], [], **_look(backprop))[0] for backprop in (False, True)]
        handles += axes[0].plot([], [], "--", color="0.5", linewidth=0.8)
        labels = ("without backprop", "with backprop", f"encoding 64 views: {encoding:.2f} s")
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.canvas.draw()  # the names need the axes in their places
        for axis, prompt in zip(axes, PROMPTS, strict=True):
            name_points(axis, points[prompt])
        save(figure, path)


def _look(backprop: bool) -> dict[str, object]:
    return {**line(2 if backprop else 1), "marker": "s" if backprop else "o", "linestyle": "none"}


def cells(tests: list[StudyTest]) -> list[list[object]]:
    """A row for each prompt, method, style and seed."""
    rows: list[list[object]] = [["prompt", "method", "style", "seed", *COLUMNS]]
    for t in tests:
        values = [t.test[key] for key in COLUMNS]
        rounded = [round(value, 4) if isinstance(value, float) else value for value in values]
        rows.append([t.prompt, t.method, t.style, t.seed, *rounded])
    return rows


def main() -> int:
    """Runs what is missing, then writes and prints the tables."""
    parser = study_parser(__doc__, "output/emoji")
    names = (*METHODS, *RIVALS)
    parser.add_argument("--without", nargs="+", choices=names, default=[], metavar="METHOD", help="leave these out")
    args = parser.parse_args()
    family = chosen_family(args)
    jobs = plan_all(args.output.resolve(), args.seeds, family, args.without)
    if not run(jobs):
        return 1
    summary, folder = MethodSummary(tested(jobs), family), args.output / family.name
    pages = "\n\n".join(filter(None, (summary.accuracy(), summary.calibration(), summary.rivals())))
    write_text(folder / "methods.md", pages + "\n")
    write_text(folder / "methods.csv", to_csv(cells(summary.tests)))
    summary.draw(folder / "methods")
    print(f"\n{pages}\n\nWritten to {folder}: methods.md, methods.csv, methods.svg, methods.png")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
