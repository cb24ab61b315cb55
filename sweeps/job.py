"""One run of train.py in a sweep: its command, and what its folder says about it."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dassl.config import get_cfg_default

import datasets
import train
import trainers
from tlla.errors import InputError
from tlla.files import read_dict, write_text
from tlla.fingerprint import differences, flat_config, tensor_sha256
from tlla.prompts.saved import Prompt
from tlla.records.store import peek
from trainers.harness.describe_run import plain
from trainers.harness.evaluation import VOLATILE

from . import traits

LOG, STARTED = "sweep.log", "sweep.json"
# Keys that may differ: of Compare's methods and rules, those that lack are added.
FREE = (*VOLATILE, "TRAINER.COMPARE.METHODS", "TRAINER.COMPARE.RULES")

COMPLETE, UNFINISHED, NEW, STALE, OTHER = "complete", "unfinished", "new", "stale", "other"


@dataclass(frozen=True)
class Job:
    """A run."""

    trainer: str  # name of the trainer
    config: str  # its YAML file
    dataset_config: str  # the dataset's YAML file
    seed: int  # --seed
    folder: Path  # --output-dir
    root: str = ""  # --root; "" leaves it to the config
    opts: tuple[str, ...] = ()  # keys and values in turn
    source: "Job | None" = None  # the run whose prompt is tested; None: the job trains, or needs no training
    # Of Compare: names, and the runs whose prompts are tested; None: the dataset's template.
    prompts: tuple[tuple[str, "Job | None"], ...] = ()
    given: bool = False  # whether the folder holds a prompt that is there, perhaps CoOp's own; then nothing is run

    @property
    def argv(self) -> list[str]:
        """Arguments of train.py, in CoOp's order."""
        words = ["--root", self.root] if self.root else []
        words += ["--seed", str(self.seed), "--trainer", self.trainer]
        words += ["--dataset-config-file", self.dataset_config, "--config-file", self.config]
        words += ["--output-dir", str(self.folder)]
        if self.source:
            words += ["--model-dir", str(self.source.folder), "--eval-only"]
        return [*words, *self.pairs]

    @property
    def pairs(self) -> tuple[str, ...]:
        """Keys and values in turn, with those of `prompts`."""
        listed = [f"{name}={run.folder if run else ''}" for name, run in self.prompts]
        return (*self.opts, *(("TRAINER.COMPARE.PROMPTS", repr(listed)) if listed else ()))

    @property
    def sources(self) -> dict[str, "Job"]:
        """The runs whose prompts are tested, by the names that Compare has for them; "" of `source`."""
        return {name: run for name, run in (("", self.source), *self.prompts) if run}

    @property
    def name(self) -> str:
        """For people: trainer, dataset, seed."""
        return f"{self.trainer} {Path(self.dataset_config).stem} seed {self.seed}"

    @functools.cached_property
    def config_values(self) -> dict[str, Any]:
        """The config that train.py will build from the arguments; InputError if it cannot."""
        words = ["--root", self.root] if self.root else []
        words += ["--trainer", self.trainer, "--dataset-config-file", self.dataset_config, "--config-file", self.config]
        own = {"SEED": self.seed, "OUTPUT_DIR": str(self.folder)}
        return _config((*words, *self.pairs)) | {k: v for k, v in own.items() if k not in self.opts}

    @property
    def split(self) -> str:
        """The split that the run is to test."""
        return self.config_values["TEST"]["SPLIT"]

    @property
    def trains(self) -> bool:
        """Whether the run trains; then a result on val before the training's end is no result."""
        return not self.sources and traits.trains(self.trainer)

    def result(self) -> dict[str, Any] | None:
        """results.json if the wanted split was tested to the end, under whatever settings."""
        record = peek(self.folder)
        try:
            test = record["splits"][self.split]
            parts = {name for _, name in test.get("parts", ())}
            tested = test["total"] > 0 and ("parts" not in test or set(traits.compared(self.config_values)) <= parts)
            return record if tested and (not self.trains or "train_seconds" in record) else None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def fingerprint(self, prompt: str = "") -> str:
        """Of the prompt, or Tip-Adapter's cache, that a complete run tested; of Compare's that of a name, or any."""
        if self.given:
            return tensor_sha256(torch.cat([value.flatten() for value in self.read_prompt().state.values()]))
        record = self.result()
        test = record["splits"][self.split]
        if "parts" in test:
            prompt, name = next((part for part in test["parts"] if prompt in ("", part[0])), ("", ""))
            test = (peek(self.folder / prompt / name) or {"splits": {}})["splits"].get(self.split, {})
        return test.get("cache_sha256") or test.get("prompt_sha256", "")

    def read_prompt(self) -> Prompt:
        """What a training has left in the folder. InputError if there is nothing, or if it is no prompt."""
        return Prompt.load(self.folder, best=self.config_values["TEST"]["FINAL_MODEL"] == "best_val")

    def differences(self) -> list[str]:
        """Settings in which the run that the folder holds differs from this job, as sentences."""
        found = peek(self.folder) or read_dict(self.folder / STARTED) or {}
        if not isinstance(found.get("config"), dict):
            return []
        drawn = ("SEED",) if self.config_values["SEED"] < 0 else ()  # then the record has the number that was drawn
        idle = traits.idle_nodes(self.config_values, found["config"]) if self.trainer == "Compare" else ()
        free = (*FREE, *drawn, *idle)
        here, there = flat_config(self.config_values, free), flat_config(found["config"], free)
        there = {key: value for key, value in there.items() if value or key in here}  # an older run's, switched off
        younger = {key: value for key, value in _defaults().items() if key in here}  # keys that older runs did not have
        return differences(younger | there, here)

    def state(self) -> str:
        """COMPLETE, NEW, UNFINISHED, STALE (the source has learned anew) or OTHER (other settings)."""
        if self.differences():
            return OTHER
        if self.result() is None:
            return UNFINISHED if self.folder.is_dir() and any(self.folder.iterdir()) else NEW
        for name, run in self.sources.items():
            if not (run.given or run.result()) or self.fingerprint(name) != run.fingerprint():
                return STALE
        return COMPLETE

    def note_start(self) -> None:
        """Writes down what is being run, so that another sweep does not resume it under other settings."""
        content = {"argv": self.argv, "config": self.config_values}
        write_text(self.folder / STARTED, json.dumps(content, indent=2) + "\n")

    def last_error(self) -> str:
        """The last line of the log that names an error."""
        try:
            lines = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        except OSError:
            return "it left no log"
        lines = [line.strip() for line in lines if line.strip()]
        named = [line for line in lines if line.startswith("error:") or "Error: " in line]
        said = f"it says no error, and last: {lines[-1]}" if lines else "its log is empty"
        return named[-1] if named else said


def check_jobs(jobs: list[Job]) -> None:
    """Builds all configs, so that a mistake is found before anything runs; no folder may be meant twice."""
    seen: dict[Path, Job] = {}
    for job in jobs:
        job.config_values  # noqa: B018
        other = seen.setdefault(job.folder, job)
        if other != job:
            raise InputError(f"two different runs would share the folder {job.folder}: {other.argv} and {job.argv}")


def ordered(jobs: list[Job]) -> list[Job]:
    """The jobs and all their sources that are to be run, each once, sources first."""
    found: dict[Job, None] = {}
    for job in jobs:
        found |= dict.fromkeys((*job.sources.values(), job))
    return sorted((job for job in found if not job.given), key=lambda job: bool(job.sources))


@functools.cache
def _config(argv: tuple[str, ...]) -> dict[str, Any]:
    """What all seeds share: building a config takes tens of milliseconds."""
    return plain(train.build_cfg(train.parse_args(list(argv))))


@functools.cache
def _defaults() -> dict[str, Any]:
    """The values of all keys where no config says anything."""
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    datasets.add_configs(cfg)
    return flat_config(plain(cfg), FREE)
