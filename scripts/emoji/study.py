"""Studies on the embedded benchmark: prompts are trained on one drawing style, methods compared on all of them.

A study is a plan of runs of train.py, each with its folder below <output>/runs (log.txt, results.json, predictions).
Complete runs are skipped, interrupted ones resume, those of other settings are moved aside. The features of all views
are kept in <output>/features, so that studies that share an output folder encode no view twice. The views are the same
for all prompts: a seed is that of a training.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from datasets.emoji_scenes import SCENES
from sweeps.job import Job, check_jobs, ordered
from sweeps.processes import Here, Local, n_cores
from sweeps.runner import Sweep
from tlla.records.record import read_test
from tlla.records.store import read_rows

from . import split

WORDS = "hand-written"
LEARNED = ("CoOp", "SAPT")
PROMPTS = (WORDS, *LEARNED)
VIEWS_SEED = 1
MOST_AT_ONCE = 4  # runs on a CPU: each needs 1 GB of memory


@dataclass(frozen=True)
class Family:
    """Datasets that show the same emoji in the same way, in seven drawing styles."""

    name: str
    titles: dict[str, str]  # of the styles, by the name of the dataset's config; the source first

    @property
    def source(self) -> str:
        """On which prompts are trained."""
        return next(iter(self.titles))

    @property
    def shifted(self) -> list[str]:
        """The other styles."""
        return list(self.titles)[1:]

    def only(self, styles: Sequence[str]) -> "Family":
        """With the source and some of the shifted styles."""
        kept = {
            name: title for name, title in self.titles.items() if name == self.source or name.endswith(tuple(styles))
        }
        return Family(self.name, kept)


def _family(name: str, prefix: str) -> Family:
    roles = ((style, role, title) for style, (_, role, title) in split.STYLES.items())
    return Family(name, {prefix if role == "source" else f"{prefix}_{style}": title for style, role, title in roles})


FAMILIES = {"plain": _family("plain", "emoji"), "scenes": _family("scenes", "emoji_scenes")}


def add_family(parser: argparse.ArgumentParser) -> None:
    """The argument that says which pictures a study is about."""
    parser.add_argument("--scenes", action="store_true", help="the emoji in scenes instead of alone")


def study_parser(text: str, output: str) -> argparse.ArgumentParser:
    """The arguments of a study: the folder of its runs, the seeds of its trainings, which pictures it is about."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(output), help="folder of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the trainings")
    add_family(parser)
    return parser


def chosen_family(args: argparse.Namespace) -> Family:
    """What the argument says."""
    return FAMILIES["scenes" if args.scenes else "plain"]


def job(trainer: str, output: Path, seed: int, dataset: str, name: str = "", **more: Any) -> Job:
    """A run of a trainer on a dataset, given by the name of its config; `name` is the runs' folder."""
    configs = f"configs/trainers/{trainer}/emoji.yaml", f"configs/datasets/{dataset}.yaml"
    return Job(trainer, *configs, seed, output / "runs" / (name or trainer) / f"seed{seed}" / dataset, **more)


def training(trainer: str, output: Path, seed: int, family: Family, *opts: str) -> Job:
    """A training on the source; its test is on the source, too."""
    return job(trainer, output, seed, family.source, opts=opts)


def comparison(
    output: Path, seed: int, prompts: dict[str, Job | None], family: Family, *opts: str, name: str = ""
) -> list[Job]:
    """All methods, or those of `opts`, on some prompts (None: the hand-written one), in one pass over each style."""
    own = ("TRAINER.VIEWS.SEED", str(VIEWS_SEED), "TEST.FEATURES", str(output / "features"))
    more = {"prompts": tuple(prompts.items()), "opts": (*opts, *own)}
    return [job("Compare", output, seed, style, name, **more) for style in family.titles]


def only(methods: Sequence[str]) -> tuple[str, str]:
    """The key that says which methods are compared."""
    return "TRAINER.COMPARE.METHODS", repr(list(methods))


def prompts_of(output: Path, seed: int, family: Family, first: bool, *opts: str) -> dict[str, Job | None]:
    """The prompts that are trained with a seed, under `opts`; with the first one also the hand-written prompt."""
    words: dict[str, Job | None] = {WORDS: None} if first else {}
    return words | {name: training(name, output, seed, family, *opts) for name in LEARNED}


def study_plan(output: Path, seeds: Sequence[int], family: Family, *opts: str, name: str = "") -> list[Job]:
    """Trains the prompts, and compares methods on them and on the hand-written one, for each seed."""
    jobs = []
    for seed in seeds:
        prompts = prompts_of(output, seed, family, seed == seeds[0])
        jobs += comparison(output, seed, prompts, family, *opts, name=name)
    return jobs


def run(jobs: Sequence[Job]) -> bool:
    """Runs what is missing, one on each GPU or core; whether all is complete."""
    jobs = ordered(list(jobs))
    check_jobs(jobs)
    at_once = torch.cuda.device_count() or min(n_cores(), MOST_AT_ONCE)
    summary = Sweep(jobs, Local(at_once) if at_once > 1 else Here(), at_once, redo=True).run()
    print(summary.text())
    return summary.good


@dataclass
class StudyTest:
    """One method on one prompt, style and seed; `prompt` is "its own" of a trainer that tests what it has trained."""

    prompt: str
    method: str
    style: str
    seed: int
    folder: Path
    images_of_emoji: int = 1  # consecutive ones; scenes: several

    @cached_property
    def test(self) -> dict[str, Any]:
        """What results.json says of the test."""
        return dict(read_test(self.folder).test)

    @cached_property
    def correct(self) -> list[float]:
        """For each test emoji, in order, the share of its images that were classified correctly."""
        hits = [float(row["label"] == row["prediction"]) for row in read_rows(self.folder, "test")]
        n = self.images_of_emoji
        return [statistics.mean(hits[i : i + n]) for i in range(0, len(hits), n)]


def tested(jobs: Sequence[Job]) -> list[StudyTest]:
    """All that complete runs have tested."""
    found = []
    for one in jobs:
        parts = one.result()["splits"]["test"].get("parts")
        n = SCENES["test"] if "scenes" in one.dataset_config else 1
        for prompt, method in parts or [("its own", one.trainer)]:
            folder = one.folder / prompt / method if parts else one.folder
            found.append(StudyTest(prompt, method, one.folder.name, one.seed, folder, n))
    return found


def by_emoji(tests: Sequence[StudyTest]) -> list[float]:
    """For each emoji its share of correct images, averaged over tests.

    The emoji is the unit of all intervals: in another style or scene, or under another seed, it is no independent
    observation.
    """
    return [statistics.mean(values) for values in zip(*(test.correct for test in tests), strict=True)]


def interval(first: Sequence[float], second: Sequence[float]) -> str:
    """Mean difference in points with its 95 % interval, paired over emoji."""
    gains = [a - b for a, b in zip(first, second, strict=True)]
    mean, half = 100 * statistics.mean(gains), 196 * statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def mean_std(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, and with several values the standard deviation."""
    spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread}"
