"""From base to new classes on the embedded benchmark: prompts learn 13 of the 26 classes and are tested on each half.

The protocol of CoCoOp's paper: accuracy among the base classes, among the new ones, and their harmonic mean H, on the
drawing style of the training. CLIP has the hand-written prompt. Runs that are complete are skipped, interrupted ones
resume. Writes <output>/<family>/base_to_new.md.

    python -m scripts.emoji.base_to_new --output output/base_to_new --seeds 1 2 3
    python -m scripts.emoji.base_to_new --output output/base_to_new --seeds 1 2 3 --scenes
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from sweeps.job import Job
from tlla.command_line import call
from tlla.files import write_text

from .study import (
    WORDS,
    Family,
    StudyTest,
    by_emoji,
    chosen_family,
    comparison,
    interval,
    job,
    mean_std,
    only,
    prompts_of,
    run,
    study_parser,
    tested,
    training,
)

HALVES = ("base", "new")
RIVAL = "CoCoOp"  # whose prompt depends on the image: it is tested by its own trainer
ROWS = {  # of the table: prompt and method
    "CLIP": (WORDS, "SingleView"),
    "CoOp": ("CoOp", "SingleView"),
    RIVAL: ("its own", RIVAL),
    "SAPT": ("SAPT", "SingleView"),
    "CLIP + STSS": (WORDS, "STSS"),
    "CoOp + STSS": ("CoOp", "STSS"),
    "TLLA (SAPT + STSS)": ("SAPT", "STSS"),
}


def half_plan(output: Path, seeds: Sequence[int], family: Family) -> dict[str, list[Job]]:
    """For each half of the classes the runs that test it; the trainings of the prompts test the base classes."""
    key = "DATASET.SUBSAMPLE_CLASSES"
    source = Family(family.name, {family.source: family.titles[family.source]})
    jobs: dict[str, list[Job]] = {half: [] for half in HALVES}
    for seed in seeds:
        rival = training(RIVAL, output, seed, family, key, "base")
        jobs["base"].append(rival)
        jobs["new"].append(job(RIVAL, output, seed, family.source, f"{RIVAL}_new", source=rival, opts=(key, "new")))
        prompts = prompts_of(output, seed, family, seed == seeds[0], key, "base")
        methods = only(("SingleView", "STSS"))
        for half, found in jobs.items():
            found += comparison(output, seed, prompts, source, *methods, key, half, name=f"Compare_{half}")
    return jobs


def harmonic(base: float, new: float) -> float:
    """The harmonic mean of two accuracies, 0 if both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def half_row(name: str, tests: dict[str, list[StudyTest]]) -> list[str]:
    """Accuracy on each half and H, over the seeds; the difference to CoOp on each half, paired over emoji."""

    def own(row: str, half: str) -> list[StudyTest]:
        return sorted((t for t in tests[half] if (t.prompt, t.method) == ROWS[row]), key=lambda t: t.seed)

    halves = [[statistics.mean(t.correct) * 100 for t in own(name, half)] for half in HALVES]
    cells = [mean_std(values) for values in halves]
    cells.append(mean_std([harmonic(*pair) for pair in zip(*halves, strict=True)]))
    less = [interval(by_emoji(own(name, half)), by_emoji(own("CoOp", half))) for half in HALVES]
    return [name, *cells, *(("-", "-") if name == "CoOp" else less)]


def main() -> int:
    """Runs what is missing, then writes and prints the table."""
    args = study_parser(__doc__, "output/base_to_new").parse_args()
    family = chosen_family(args)
    jobs = half_plan(args.output.resolve(), args.seeds, family)
    if not run([one for found in jobs.values() for one in found]):
        return 1
    tests = {half: tested(found) for half, found in jobs.items()}
    headers = [f"{family.name}: top-1, %", "base", "new", "H", "base, less CoOp", "new, less CoOp"]
    table = tabulate([half_row(name, tests) for name in ROWS], headers, tablefmt="github", disable_numparse=True)
    write_text(args.output / family.name / "base_to_new.md", table + "\n")
    print(f"\n{table}\n\nWritten to {args.output / family.name}: base_to_new.md")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
