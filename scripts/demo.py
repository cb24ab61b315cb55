"""The paper's method on the embedded benchmark: trains CoOp and SAPT on one drawing style, tests on all of them.

Each prompt is trained by a run of train.py; on each style one more tests all prompts and methods on the same views. All
have their own folders (log.txt, results.json, predictions). Complete runs are skipped, interrupted ones resume. Writes
table.md, results.csv and the figure.

    python scripts/demo.py --output output/demo --seeds 1
    python scripts/demo.py --output output/demo_scenes --scenes
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from report.style import HATCHES, plt, save  # noqa: E402
from scripts.emoji.study import (  # noqa: E402
    SHIFTED,
    SOURCE,
    STYLES,
    WORDS,
    StudyTest,
    by_emoji,
    interval,
    mean_std,
    only,
    run,
    study_plan,
    tested,
)
from tlla.command_line import call  # noqa: E402
from tlla.files import read_text, to_csv, write_text  # noqa: E402

ROWS = {  # of the table: prompt and method
    "CLIP": (WORDS, "SingleView"),
    "CoOp": ("CoOp", "SingleView"),
    "SAPT": ("SAPT", "SingleView"),
    "CoOp + STSS": ("CoOp", "STSS"),
    "TLLA (SAPT + STSS)": ("SAPT", "STSS"),
}
METHODS = tuple(dict.fromkeys(method for _, method in ROWS.values()))
SHADES = ("#d9d9d9", "#9ecae1", "#3182bd", "#fdae6b", "#d94801")  # of the bars: pairs of one prompt
GROUPS = [*([style] for style in STYLES), SHIFTED]  # of the table's columns
PUBLISHED = ROOT / "docs" / "results.csv"


class DemoTable:
    """Accuracies of all rows, and the paired difference of each to CoOp."""

    def __init__(self, tests: list[StudyTest], seeds: list[int]):
        self.seeds = seeds
        self.found = {(t.prompt, t.method, t.style, t.seed): t for t in tests}

    def of(self, row: str, styles: list[str], seed: int) -> list[StudyTest]:
        """The tests of a row on some styles."""
        return [self.found[(*ROWS[row], style, seed)] for style in styles]

    def accuracies(self, row: str, styles: list[str]) -> list[float]:
        """Accuracy in % of each seed, averaged over styles; of the row without randomness of one seed."""
        seeds = self.seeds[:1] if row == "CLIP" else self.seeds
        hits = [[t.correct for t in self.of(row, styles, seed)] for seed in seeds]
        return [statistics.mean(100 * sum(h) / len(h) for h in of_seed) for of_seed in hits]

    def emoji(self, row: str, styles: list[str]) -> list[float]:
        """Of each emoji the share of correct images, over styles and seeds."""
        return by_emoji([t for seed in self.seeds for t in self.of(row, styles, seed)])

    def accuracy_rows(self) -> list[list[str]]:
        """Accuracy of each row on each style and on the mean of the shifted ones."""
        return [[row, *(mean_std(self.accuracies(row, styles)) for styles in GROUPS)] for row in ROWS]

    def difference_rows(self) -> list[list[str]]:
        """Difference of each row to CoOp, with its interval, in the same columns."""
        coop = [self.emoji("CoOp", styles) for styles in GROUPS]
        pairs = list(zip(GROUPS, coop, strict=True))
        others = [row for row in ROWS if row != "CoOp"]
        return [[row, *(interval(self.emoji(row, styles), other) for styles, other in pairs)] for row in others]

    def cells(self) -> list[tuple[object, ...]]:
        """The rows of results.csv."""
        head = ("method", "style", "seed", "accuracy", "images_per_second", "peak_memory_mb")
        cells: list[tuple[object, ...]] = [head]
        for row in ROWS:
            for seed in self.seeds[:1] if row == "CLIP" else self.seeds:
                cells += [(row, t.style, seed, *map(t.test.get, head[3:])) for t in self.of(row, list(STYLES), seed)]
        return cells


def draw(table: DemoTable, path: Path) -> None:
    """Bars: accuracy of each row on the source and on the mean of the shifted styles, then by style."""
    groups = {"source": [SOURCE], "mean of the\nshifted": SHIFTED} | {
        STYLES[style].replace(" ", "\n", 1): [style] for style in SHIFTED
    }
    figure, axis = plt.subplots(figsize=(10, 3.8))
    width = 0.8 / len(ROWS)
    for i, row in enumerate(ROWS):
        values = [table.accuracies(row, styles) for styles in groups.values()]
        errors = [statistics.stdev(v) if len(v) > 1 else 0 for v in values]
        places = [x + (i - len(ROWS) / 2 + 0.5) * width + (x > 1) * 0.3 for x in range(len(groups))]
        look = {"color": SHADES[i], "edgecolor": "black", "linewidth": 0.5, "hatch": HATCHES[i]}
        axis.bar(places, list(map(statistics.mean, values)), width, yerr=errors, label=row, **look)
    axis.set_xticks([x + (x > 1) * 0.3 for x in range(len(groups))], groups, fontsize=8)
    axis.set_ylabel("top-1 accuracy, %")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(ROWS))
    save(figure, path)


def write_tables(table: DemoTable, output: Path) -> str:
    """Writes table.md, results.csv and the figure; returns the tables for the terminal."""
    columns = [*STYLES.values(), "mean of the shifted"]
    tables = [
        [["top-1 accuracy, %", *columns], *table.accuracy_rows()],
        [["less CoOp, 95 % interval", *columns], *table.difference_rows()],
    ]
    pages = [tabulate(rows, "firstrow", tablefmt="github", disable_numparse=True) for rows in tables]
    write_text(output / "table.md", "\n\n".join(pages) + "\n")
    write_text(output / "results.csv", to_csv(table.cells()))
    draw(table, output / "figure")
    narrow = [list(zip(*rows, strict=True)) for rows in tables]  # a terminal is higher than wide
    return "\n\n".join(tabulate(rows, "firstrow", disable_numparse=True) for rows in narrow)


def compare_with(published: Path, cells: list[tuple[object, ...]]) -> str:
    """Says how many accuracies are those of docs/results.csv, and which are not."""
    known = {tuple(row[:3]): row[3] for row in csv.reader(read_text(published).splitlines())}
    ours = {tuple(map(str, row[:3])): str(row[3]) for row in cells[1:]}
    both = ours.keys() & known.keys()
    others = [
        f"{' '.join(key)}: {ours[key]}, not {known[key]}" for key in ours if ours[key] != known.get(key, ours[key])
    ]
    return "\n".join([f"{len(both) - len(others)} of {len(both)} accuracies are those of docs/results.csv", *others])


def main() -> int:
    """Runs what is missing, then writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "output" / "demo", help="folder of the runs and the table"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of training, views and perturbations")
    parser.add_argument("--scenes", action="store_true", help="the emoji in scenes instead of alone")
    args = parser.parse_args()
    jobs = study_plan(args.output.resolve(), args.seeds, *only(METHODS), scenes=args.scenes)
    if not run(jobs):
        return 1
    table = DemoTable(tested(jobs), args.seeds)
    print(f"\nSeeds {args.seeds}; the intervals are paired over emoji\n\n{write_tables(table, args.output)}\n")
    if not args.scenes:
        print(compare_with(PUBLISHED, table.cells()))
    print(f"Written to {args.output}: table.md, results.csv, figure.svg, figure.png; each run's log is under runs/")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
