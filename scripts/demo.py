"""The paper's method on the embedded benchmark: trains CoOp and SAPT on one drawing style, tests on all of them.

Every cell of the table is a run of train.py with its own folder (log.txt, results.json, predictions). Runs that are
complete are skipped, interrupted ones go on. Writes table.md, results.csv and the figure.

    python scripts/demo.py --output output/demo --seeds 1
    python scripts/demo.py --output output/demo_scenes --scenes
"""

import argparse
import contextlib
import csv
import io
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from datasets.emoji_scenes import SCENES  # noqa: E402
from report.style import HATCHES, plt, save  # noqa: E402
from tlla.command_line import call  # noqa: E402
from trainers.harness.results import plain  # noqa: E402

STYLES = {
    "emoji": "Noto (source)",
    "emoji_twemoji": "Twemoji",
    "emoji_openmoji": "OpenMoji",
    "emoji_openmoji_black": "OpenMoji black",
    "emoji_fluent_flat": "Fluent flat",
    "emoji_fluent_contrast": "Fluent contrast",
    "emoji_fluent_3d": "Fluent 3D",
}
SOURCE = "emoji"
SHADES = ("#d9d9d9", "#9ecae1", "#3182bd", "#fdae6b", "#d94801")  # of the bars: pairs of one prompt


@dataclass(frozen=True)
class Method:
    """A row of the table: a trainer, and the row whose prompt it tests, if it does not train its own."""

    name: str
    trainer: str
    prompt_of: str = ""
    seeded: bool = True


METHODS = (
    Method("CLIP", "ZeroshotCLIP", seeded=False),
    Method("CoOp", "CoOp"),
    Method("SAPT", "SAPT"),
    Method("CoOp + STSS", "TLLA", prompt_of="CoOp"),
    Method("TLLA (SAPT + STSS)", "TLLA", prompt_of="SAPT"),
)


@dataclass
class Run:
    """One call of train.py and where it leaves its record."""

    method: Method
    style: str
    seed: int
    folder: Path
    argv: list[str]
    source: "Run | None" = None  # the run whose prompt is tested
    images_of_emoji: int = 1  # consecutive ones; scenes: several

    def results(self) -> dict | None:
        """results.json of a complete run, else None."""
        try:
            results = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
            return results if results["splits"]["test"]["total"] > 0 else None
        except (OSError, ValueError, KeyError):
            return None

    def is_current(self) -> bool:
        """Whether the record on disk is of this very run: same settings, and the prompt that its source holds now."""
        results = self.results()
        if results is None or results["config"] != plain(train.build_cfg(train.parse_args(self.argv))):
            return False
        return self.source is None or prompt_of(results) == prompt_of(self.source.results())

    def accuracy(self) -> str:
        """Of the test, for the terminal; empty for a comparison of several methods."""
        accuracy = self.results()["splits"]["test"].get("accuracy")
        return "" if accuracy is None else f"{accuracy:5.1f} %"

    def correct(self) -> list[float]:
        """For each test emoji, in order, the share of its images that were classified correctly."""
        with (self.folder / "predictions_test.csv").open(encoding="utf-8") as file:
            hits = [float(row["label"] == row["prediction"]) for row in csv.DictReader(file)]
        n = self.images_of_emoji
        return [statistics.mean(hits[i : i + n]) for i in range(0, len(hits), n)]


def prompt_of(results: dict) -> str:
    """Fingerprint of the prompt that was tested."""
    return results["splits"]["test"]["prompt_sha256"]


def plan(output: Path, seeds: list[int], scenes: bool = False) -> list[Run]:
    """All runs in the order in which they need each other: a prompt is trained on the source first."""
    runs: dict[tuple[str, int], Run] = {}  # on the source
    planned = []
    for method in METHODS:
        for seed in seeds if method.seeded else seeds[:1]:
            for style in STYLES:
                source = runs.get((method.prompt_of or method.name, seed)) if method.seeded else None
                run = _run(method, style, seed, output, source, scenes)
                runs.setdefault((method.name, seed), run)
                planned.append(run)
    return planned


def _run(method: Method, style: str, seed: int, output: Path, source: Run | None, scenes: bool) -> Run:
    folder = output / "runs" / method.name.split(" (")[0].replace(" ", "") / f"seed{seed}" / style
    argv = ["--trainer", method.trainer, "--seed", str(seed), "--output-dir", str(folder)]
    argv += ["--config-file", f"configs/trainers/{method.trainer}/emoji.yaml"]
    dataset = style.replace("emoji", "emoji_scenes", 1) if scenes else style
    argv += ["--dataset-config-file", f"configs/datasets/{dataset}.yaml"]
    if source:
        argv += ["--eval-only", "--model-dir", str(source.folder)]
    return Run(method, style, seed, folder, argv, source, SCENES["test"] if scenes else 1)


def execute(run: Run, number: int, total: int) -> None:
    """Does one run unless it is complete; its output goes to its log.txt only."""
    head = f"[{number:2d}/{total}] {run.method.name:<20s} seed {run.seed}  {STYLES[run.style]:<16s}"
    if run.is_current():
        print(f"{head} {run.accuracy()}  (done before)")
        return
    if run.results():  # of other settings: kept, but out of the way, lest training resume from it
        run.folder.rename(f"{run.folder}-{time.strftime('%Y%m%d-%H%M%S')}")
    print(f"{head} ...", end="", flush=True)
    start, errors = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = train.main(run.argv)
    if code or not run.results():
        sys.exit(f"\n{errors.getvalue().strip().splitlines()[-1]}\nthe log is {run.folder / 'log.txt'}")
    print(f"\r{head} {run.accuracy()}  ({time.perf_counter() - start:.0f} s)")


class Table:
    """Accuracies of all runs, and the paired difference of each row to CoOp."""

    def __init__(self, runs: list[Run], seeds: list[int]):
        self.runs = {(r.method.name, r.style, r.seed): r for r in runs}
        self.seeds = seeds
        self.shifted = [style for style in STYLES if style != SOURCE]

    def of(self, method: Method, style: str, seed: int) -> Run:
        """The run of a cell; rows without randomness have one run for all seeds."""
        return self.runs[method.name, style, seed if method.seeded else self.seeds[0]]

    def accuracies(self, method: Method, styles: list[str]) -> list[float]:
        """Accuracy in % of each seed, averaged over styles."""
        hits = [[self.of(method, style, seed).correct() for style in styles] for seed in self.seeds]
        return [statistics.mean(100 * sum(h) / len(h) for h in row) for row in hits]

    def difference(self, method: Method, styles: list[str]) -> tuple[float, float]:
        """Mean difference to CoOp in points and the half width of its 95 % interval, paired over emoji.

        The unit is the emoji: its differences are averaged over seeds, styles and scenes first, because the same
        emoji in another style or scene, or under another seed, is no independent observation.
        """
        coop = next(m for m in METHODS if m.name == "CoOp")
        pairs = [(self.of(method, t, s).correct(), self.of(coop, t, s).correct()) for t in styles for s in self.seeds]
        columns = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
        per_image = [statistics.mean(values) for values in zip(*columns, strict=True)]
        error = statistics.stdev(per_image) / math.sqrt(len(per_image))
        return 100 * statistics.mean(per_image), 196 * error

    def accuracy_rows(self) -> list[list[str]]:
        """Accuracy of each method on each style and on the mean of the shifted ones."""
        groups = [*([style] for style in STYLES), self.shifted]
        return [[method.name, *(self._mean_std(method, styles) for styles in groups)] for method in METHODS]

    def difference_rows(self) -> list[list[str]]:
        """Difference of each method to CoOp, with its interval, in the same columns."""
        groups = [*([style] for style in STYLES), self.shifted]
        others = [method for method in METHODS if method.name != "CoOp"]
        return [[method.name, *(self._difference(method, styles) for styles in groups)] for method in others]

    @staticmethod
    def headers(first: str) -> list[str]:
        """The header of either table."""
        return [first, *STYLES.values(), "mean of the shifted"]

    def _mean_std(self, method: Method, styles: list[str]) -> str:
        values = self.accuracies(method, styles)
        if len(values) == 1 or not method.seeded:
            return f"{values[0]:.1f}"
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"

    def _difference(self, method: Method, styles: list[str]) -> str:
        mean, half = self.difference(method, styles)
        return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def draw(table: Table, path: Path) -> None:
    """Bars: accuracy of each method on the source and on the mean of the shifted styles, then by style."""
    groups = {"source": [SOURCE], "mean of the\nshifted": table.shifted} | {
        STYLES[style].replace(" ", "\n", 1): [style] for style in table.shifted
    }
    figure, axis = plt.subplots(figsize=(10, 3.8))
    width = 0.8 / len(METHODS)
    for i, method in enumerate(METHODS):
        values = [table.accuracies(method, styles) for styles in groups.values()]
        errors = [statistics.stdev(v) if len(v) > 1 else 0 for v in values]
        places = [x + (i - len(METHODS) / 2 + 0.5) * width + (x > 1) * 0.3 for x in range(len(groups))]
        look = {"color": SHADES[i], "edgecolor": "black", "linewidth": 0.5, "hatch": HATCHES[i]}
        axis.bar(places, list(map(statistics.mean, values)), width, yerr=errors, label=method.name, **look)
    axis.set_xticks([x + (x > 1) * 0.3 for x in range(len(groups))], groups, fontsize=8)
    axis.set_ylabel("top-1 accuracy, %")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(METHODS))
    save(figure, path)


def write(table: Table, output: Path) -> str:
    """Writes table.md, results.csv and the figure; returns the tables for the terminal."""
    tables = [
        [table.headers("top-1 accuracy, %"), *table.accuracy_rows()],
        [table.headers("less CoOp, 95 % interval"), *table.difference_rows()],
    ]
    pages = [tabulate(rows, "firstrow", tablefmt="github", disable_numparse=True) for rows in tables]
    (output / "table.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    with (output / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "style", "seed", "accuracy", "images_per_second", "peak_memory_mb"))
        for (name, style, seed), run in table.runs.items():
            test = run.results()["splits"]["test"]
            writer.writerow((name, style, seed, test["accuracy"], test["images_per_second"], test["peak_memory_mb"]))
    draw(table, output / "figure")
    narrow = [list(zip(*rows, strict=True)) for rows in tables]  # a terminal is higher than wide
    return "\n\n".join(tabulate(rows, "firstrow", disable_numparse=True) for rows in narrow)


def main() -> None:
    """Runs what is missing, then writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "output" / "demo", help="folder of the runs and the table"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of training, views and perturbations")
    parser.add_argument("--scenes", action="store_true", help="the emoji in scenes instead of alone")
    args = parser.parse_args()
    runs = list(plan(args.output.resolve(), args.seeds, args.scenes))
    for number, run in enumerate(runs, start=1):
        execute(run, number, len(runs))
    text = write(Table(runs, args.seeds), args.output)
    print(f"\nSeeds {args.seeds}; the intervals are paired over emoji\n\n{text}")
    print(f"\nWritten to {args.output}: table.md, results.csv, figure.svg, figure.png; each run's log is under runs/")


if __name__ == "__main__":
    sys.exit(call(main))
