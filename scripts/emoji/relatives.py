"""SAPT's relatives on the embedded benchmark, at equal numbers of text passes: accuracy, sharpness, seconds.

Trains CoOp's prompt by each sharpness-aware step on the source, tests it on one view of every style, and measures how
flat the minima are (python -m report sharpness). A step that asks the text encoder once has twice SAPT's epochs. Runs
that are complete are skipped, interrupted ones resume. Writes <output>/<family>/variants.md and sharpness.md.

    python -m scripts.emoji.relatives --output output/variants --seeds 1 2 3
    python -m scripts.emoji.relatives --output output/variants --seeds 1 2 3 --scenes
"""

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from report.__main__ import main as report
from sweeps.job import Job
from tlla.command_line import call
from tlla.files import write_text

from .study import Family, StudyTest, by_emoji, chosen_family, interval, job, mean_std, run, study_parser, tested

COOP, SAPT = "CoOp", "sam"  # the rows that the others are compared with
PASSES = {COOP: 1.0, "msam": 1.0, "random": 1.0, "looksam": 1.2, SAPT: 2.0, "asam": 2.0, "fsam": 2.0, "gsam": 2.0}
# Else the config's, 0.05. asam's is in units of the prompt's numbers, here some 0.03; msam's is 15 times sam's, as in
# its README. None was chosen on images.
RHO = {"asam": 1.0, "msam": 0.75}


def step_training(name: str, output: Path, seed: int, family: Family) -> Job:
    """A training of a row on the source, with the text passes of SAPT's config."""
    trainer = COOP if name == COOP else "SAPT"
    one = job(trainer, output, seed, family.source, name)
    epochs = one.config_values["OPTIM"]["MAX_EPOCH"] * PASSES[SAPT] / PASSES[name]
    opts = ["OPTIM.MAX_EPOCH", str(round(epochs))]
    if trainer == "SAPT":
        opts += ["TRAINER.SAPT.VARIANT", name]
        opts += ["TRAINER.SAPT.RHO", str(RHO[name])] if name in RHO else []
    return dataclasses.replace(one, opts=tuple(opts))


def step_plan(output: Path, seeds: Sequence[int], family: Family) -> dict[str, list[Job]]:
    """For each row its trainings, which test the source, and its tests on the shifted styles."""
    jobs: dict[str, list[Job]] = {}
    for name in PASSES:
        jobs[name] = []
        for seed in seeds:
            own = step_training(name, output, seed, family)
            jobs[name].append(own)
            jobs[name] += [job(own.trainer, output, seed, style, name, source=own) for style in family.shifted]
    return jobs


def row(name: str, tests: dict[str, list[StudyTest]], jobs: Sequence[Job], family: Family) -> list[str]:
    """A row of the table: accuracies, differences paired over emoji, seconds."""
    cells = [name, f"{PASSES[name]:g}"]
    for shifted in (False, True):
        here = {key: [t for t in found if (t.style != family.source) == shifted] for key, found in tests.items()}
        seeds = sorted({t.seed for t in here[name]})
        means = [statistics.mean(t.test["accuracy"] for t in here[name] if t.seed == seed) for seed in seeds]
        less = [
            interval(by_emoji(here[name]), by_emoji(here[other])) if other != name else "-" for other in (COOP, SAPT)
        ]
        cells += [mean_std(means), *less]
    seconds = [one.result()["train_seconds"] for one in jobs if one.trains]
    return [*cells, mean_std(seconds, ".0f")]


def main() -> int:
    """Runs what is missing, then writes and prints the tables."""
    args = study_parser(__doc__, "output/variants").parse_args()
    family = chosen_family(args)
    jobs = step_plan(args.output.resolve(), args.seeds, family)
    if not run([one for found in jobs.values() for one in found]):
        return 1
    tests = {name: tested(found) for name, found in jobs.items()}
    columns = [
        f"{where}{less}" for where in ("source", "shifted") for less in (", %", f" less {COOP}", f" less {SAPT}")
    ]
    headers = ["step", "text passes", *columns, "training, s"]
    rows = [row(name, tests, found, family) for name, found in jobs.items()]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    here = args.output / family.name
    write_text(here / "variants.md", table + "\n")
    named = [f"{name}={one.folder}" for name, found in jobs.items() for one in found if one.trains]
    code = report(["sharpness", *named, "--images", "0", "--ascent", "100", "--out", str(here)])
    print(f"\n{table}\n\nWritten to {here}: variants.md, sharpness.md, sharpness.json")
    return code


if __name__ == "__main__":
    sys.exit(call(main))
