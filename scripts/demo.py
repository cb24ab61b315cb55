"""The paper's method on the embedded benchmark: trains CoOp and SAPT on one drawing style, tests on others.

Emoji in scenes, with --all also emoji alone. Each prompt is trained by a run of train.py; on each style one more tests
all prompts and methods on the same views. All have their own folders (log.txt, results.json, predictions). Complete
runs are skipped, interrupted ones resume. Writes table.md, results.csv and the figure.

    python scripts/demo.py                                              # one seed, the source and another style
    python scripts/demo.py --output output/emoji --all --seeds 1 2 3    # the results in docs/
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from report.style import HATCHES, plt, save  # noqa: E402
from scripts.emoji.study import (  # noqa: E402
    FAMILIES,
    LEARNED,
    WORDS,
    Family,
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
HEAD = ("method", "style", "seed", "accuracy")  # of results.csv
SHADES = ("#d9d9d9", "#9ecae1", "#3182bd", "#fdae6b", "#d94801")  # of the bars: pairs of one prompt
FEW = ("openmoji_black",)  # line drawings
PUBLISHED = ROOT / "docs" / "results.csv"


class DemoTable:
    """Accuracies of all rows on the styles of a family, and the paired difference of each to CoOp."""

    def __init__(self, tests: list[StudyTest], seeds: list[int], family: Family):
        self.seeds, self.family = seeds, family
        self.groups = {title: [style] for style, title in family.titles.items()}  # styles of each column
        if len(family.shifted) > 1:
            self.groups["mean of the shifted"] = family.shifted
        self.found = {(t.prompt, t.method, t.style, t.seed): t for t in tests}

    def of(self, row: str, styles: list[str], seed: int) -> list[StudyTest]:
        """The tests of a row on some styles."""
        return [self.found[(*ROWS[row], style, seed)] for style in styles]

    def seeds_of(self, row: str) -> list[int]:
        """All seeds, or one for the prompt that is not trained."""
        return self.seeds if ROWS[row][0] in LEARNED else self.seeds[:1]

    def accuracies(self, row: str, styles: list[str]) -> list[float]:
        """Accuracy in % of each seed, averaged over styles."""
        hits = [[t.correct for t in self.of(row, styles, seed)] for seed in self.seeds_of(row)]
        return [statistics.mean(100 * sum(h) / len(h) for h in of_seed) for of_seed in hits]

    def emoji(self, row: str, styles: list[str]) -> list[float]:
        """Of each emoji the share of correct images, over styles and seeds."""
        return by_emoji([t for seed in self.seeds_of(row) for t in self.of(row, styles, seed)])

    def accuracy_rows(self) -> list[list[str]]:
        """Accuracy of each row on each style and on the mean of the shifted ones."""
        return [[row, *(mean_std(self.accuracies(row, styles)) for styles in self.groups.values())] for row in ROWS]

    def difference_rows(self) -> list[list[str]]:
        """Difference of each row to CoOp, with its interval, in the same columns."""
        pairs = [(styles, self.emoji("CoOp", styles)) for styles in self.groups.values()]
        others = [row for row in ROWS if row != "CoOp"]
        return [[row, *(interval(self.emoji(row, styles), other) for styles, other in pairs)] for row in others]

    def cells(self) -> list[tuple[object, ...]]:
        """The rows of results.csv, without its head."""
        styles = list(self.family.titles)
        return [
            (row, t.style, seed, t.test["accuracy"])
            for row in ROWS
            for seed in self.seeds_of(row)
            for t in self.of(row, styles, seed)
        ]

    def tables(self) -> list[list[list[str]]]:
        """Accuracies and differences, each with its head."""
        return [
            [[f"{self.family.name}: top-1 accuracy, %", *self.groups], *self.accuracy_rows()],
            [[f"{self.family.name}: less CoOp, 95 % interval", *self.groups], *self.difference_rows()],
        ]


def draw(tables: list[DemoTable], path: Path) -> None:
    """Bars for each family: accuracy of each row on the source and on the mean of the shifted styles, then by style."""
    figure, axes = plt.subplots(len(tables), 1, figsize=(10, 0.6 + 3 * len(tables)), squeeze=False)
    for axis, table in zip(axes[:, 0], tables, strict=True):
        draw_family(axis, table)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ROWS))
    save(figure, path)


def draw_family(axis: Any, table: DemoTable) -> None:
    """The bars of one family."""
    groups = {title.replace(" ", "\n", 1): styles for title, styles in table.groups.items()}
    width = 0.8 / len(ROWS)
    for i, row in enumerate(ROWS):
        values = [table.accuracies(row, styles) for styles in groups.values()]
        errors = [statistics.stdev(v) if len(v) > 1 else 0 for v in values]
        places = [x + (i - len(ROWS) / 2 + 0.5) * width for x in range(len(groups))]
        look = {"color": SHADES[i], "edgecolor": "black", "linewidth": 0.5, "hatch": HATCHES[i]}
        axis.bar(places, list(map(statistics.mean, values)), width, yerr=errors, label=row, **look)
    axis.set_xticks(range(len(groups)), groups, fontsize=8)
    axis.set_ylabel(f"{table.family.name}: top-1 accuracy, %")
    axis.grid(axis="x", visible=False)


def write_tables(tables: list[DemoTable], output: Path) -> str:
    """Writes table.md, results.csv and the figure; returns the tables for the terminal."""
    found = [rows for table in tables for rows in table.tables()]
    pages = [tabulate(rows, "firstrow", tablefmt="github", disable_numparse=True) for rows in found]
    write_text(output / "table.md", "\n\n".join(pages) + "\n")
    write_text(output / "results.csv", to_csv([HEAD, *(row for table in tables for row in table.cells())]))
    draw(tables, output / "figure")
    narrow = [list(zip(*rows, strict=True)) for rows in found]  # a terminal is higher than wide
    return "\n\n".join(tabulate(rows, "firstrow", disable_numparse=True) for rows in narrow)


def compare_with(published: Path, cells: list[tuple[object, ...]]) -> str:
    """Says how many accuracies are those of docs/results.csv, and which are not."""
    known = {tuple(row[:3]): row[3] for row in csv.reader(read_text(published).splitlines())}
    ours = {tuple(map(str, row[:3])): str(row[3]) for row in cells}
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
    parser.add_argument("--all", action="store_true", help="scenes and plain pictures in all seven styles")
    args = parser.parse_args()
    families = list(FAMILIES.values()) if args.all else [FAMILIES["scenes"].only(FEW)]
    plans = [study_plan(args.output.resolve(), args.seeds, family, *only(METHODS)) for family in families]
    if not run([job for plan in plans for job in plan]):
        return 1
    tables = [DemoTable(tested(plan), args.seeds, family) for plan, family in zip(plans, families, strict=True)]
    print(f"\nSeeds {args.seeds}; the intervals are paired over emoji\n\n{write_tables(tables, args.output)}\n")
    print(compare_with(PUBLISHED, [row for table in tables for row in table.cells()]))
    print(f"Written to {args.output}: table.md, results.csv, figure.svg, figure.png; each run's log is under runs/")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
