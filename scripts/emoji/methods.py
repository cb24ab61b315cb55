"""All test-time methods on the embedded benchmark: source and shifted styles, three prompts, several seeds.

Trains the prompts on the source, then runs Compare on each style. Runs that are complete are skipped, interrupted ones
go on. Writes docs/methods.md's tables (methods.md), methods.csv with every run, and the picture.

    python -m scripts.emoji.methods --output output/methods --seeds 1 2 3
"""

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from report.labels import name_points
from report.style import line, plt, save
from scripts.demo import SOURCE, STYLES, Run, execute
from scripts.demo import Method as Row
from tlla.command_line import call
from tlla.methods import METHODS

PROMPTS = ("hand-written", "CoOp", "SAPT")
RIVALS = ("CoCoOp", "TipAdapter", "TipAdapterF")  # trained on the source, tested on one view


def trained(name: str, seed: int, output: Path) -> Run:
    """A training on the source; its test is on the source, too."""
    return _run(name, name, SOURCE, seed, output)


def _run(name: str, trainer: str, style: str, seed: int, output: Path, *more: str, config: str = "") -> Run:
    folder = output / "runs" / name / f"seed{seed}" / style
    argv = ["--trainer", trainer, "--seed", str(seed), "--output-dir", str(folder)]
    argv += ["--config-file", f"configs/trainers/{config or trainer}/emoji.yaml"]
    argv += ["--dataset-config-file", f"configs/datasets/{style}.yaml", *more]
    return Run(Row(name, trainer), style, seed, folder, argv)


def plan(output: Path, seeds: list[int]) -> list[Run]:
    """All runs, trainings first."""
    runs = [trained(name, seed, output) for name in (*PROMPTS[1:], *RIVALS) for seed in seeds]
    for seed in seeds:
        prompts = ["hand-written=", *(f"{name}={trained(name, seed, output).folder}" for name in PROMPTS[1:])]
        for style in STYLES:
            listed = ("TRAINER.COMPARE.PROMPTS", repr(prompts))
            runs.append(_run("Compare", "Compare", style, seed, output, *listed))
        for name in RIVALS:
            load = ("--eval-only", "--model-dir", str(trained(name, seed, output).folder))
            runs += [_run(name, name, style, seed, output, *load) for style in STYLES if style != SOURCE]
    return runs


def collect(runs: list[Run]) -> list[dict]:
    """Prompt, method, style, seed and the test's record, for every method that was tested."""
    rows = []
    for run in runs:
        parts = run.results()["splits"]["test"].get("parts", [("its own", run.method.name)])
        for prompt, name in parts:
            folder = run.folder / prompt / name if run.method.name == "Compare" else run.folder
            if run.method.name in PROMPTS:
                continue  # Compare's SingleView is the same
            test = json.loads((folder / "results.json").read_text(encoding="utf-8"))["splits"]["test"]
            rows.append({"prompt": prompt, "method": name, "style": run.style, "seed": run.seed, **test})
    return rows


class Summary:
    """Means over styles, and over seeds mean and standard deviation."""

    def __init__(self, rows: list[dict]):
        self.rows = rows
        self.keys = sorted({(r["method"], r["prompt"]) for r in rows}, key=lambda key: self._place(*key))

    @staticmethod
    def _place(method: str, prompt: str) -> tuple:
        first = ("SingleView", "MeanViews", "EntropyMean", "STSS")
        known = [*first, *(name for name in METHODS if name not in first)]
        return known.index(method) if method in known else len(known), prompt

    def by_seed(self, method: str, prompt: str, key: str, shifted: bool) -> list[float]:
        """For each seed the mean of a figure, over the shifted styles or on the source."""
        values = defaultdict(list)
        for r in self.rows:
            if (r["method"], r["prompt"]) == (method, prompt) and (r["style"] != SOURCE) == shifted:
                values[r["seed"]].append(r[key])
        return [statistics.mean(v) for v in values.values()]

    def cell(self, method: str, prompt: str, key: str, shifted: bool, form: str = ".1f") -> str:
        """Mean and standard deviation over the seeds."""
        values = self.by_seed(method, prompt, key, shifted)
        spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
        return f"{statistics.mean(values):{form}}{spread}" if values else "-"

    def accuracy(self) -> str:
        """Accuracy of each method under each prompt, on the source and on the mean of the shifted styles."""
        methods = list(dict.fromkeys(method for method, _ in self.keys if method in METHODS))
        headers = [
            "top-1 accuracy, %",
            *(f"{p}: {where}" for p in PROMPTS for where in ("source", "shifted")),
            "s/image",
        ]
        rows = [
            [
                m,
                *(self.cell(m, p, "accuracy", s) for p in PROMPTS for s in (False, True)),
                f"{self.seconds(m, PROMPTS[0]):.3f}",
            ]
            for m in methods
        ]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def calibration(self) -> str:
        """ECE and NLL of each method under each prompt, on the shifted styles."""
        methods = list(dict.fromkeys(method for method, _ in self.keys if method in METHODS))
        headers = ["shifted styles", *(f"{p}: {what}" for p in PROMPTS for what in ("ECE, %", "NLL"))]
        kinds = (("ece", ".1f"), ("nll", ".2f"))
        rows = [[m, *(self.cell(m, p, key, True, form) for p in PROMPTS for key, form in kinds)] for m in methods]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def rivals(self) -> str:
        """The training rivals, on one view."""
        cells = ((False, "accuracy"), (True, "accuracy"), (True, "ece"))
        rows = [[m, *(self.cell(m, p, key, shifted) for shifted, key in cells)] for m, p in self.keys if m in RIVALS]
        headers = ["trained on the source, one view", "source, %", "shifted, %", "ECE, %"]
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)

    def seconds(self, method: str, prompt: str, key: str = "seconds_per_image") -> float:
        """Median over the runs of seconds per image."""
        return statistics.median(r[key] for r in self.rows if (r["method"], r["prompt"]) == (method, prompt))

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


def write_csv(rows: list[dict], path: Path) -> None:
    """Every run: one row for each prompt, method, style and seed."""
    columns = ("prompt", "method", "style", "seed", "accuracy", "top5", "macro_f1", "nll", "ece", "brier")
    columns += ("seconds_per_image", "method_seconds_per_image", "peak_memory_mb")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def main() -> None:
    """Runs what is missing, then writes and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/methods"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    runs = plan(args.output.resolve(), args.seeds)
    for number, run in enumerate(runs, start=1):
        execute(run, number, len(runs))
    summary = Summary(collect(runs))
    pages = "\n\n".join((summary.accuracy(), summary.calibration(), summary.rivals()))
    (args.output / "methods.md").write_text(pages + "\n", encoding="utf-8")
    write_csv(summary.rows, args.output / "methods.csv")
    summary.draw(args.output / "methods")
    print(f"\n{pages}\n\nWritten to {args.output}: methods.md, methods.csv, methods.svg, methods.png")


if __name__ == "__main__":
    sys.exit(call(main))
