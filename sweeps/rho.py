"""The rho of SAPT, or of a trainer like it, chosen on the source's validation images; the choice is in rho.json."""

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY

from tlla.errors import InputError
from tlla.files import write_text
from tlla.fingerprint import flat_config

from . import traits
from .flags import RHOS
from .job import Job
from .plans import PromptPlan, Settings, shots

RECORD = "rho.json"


def folder_of(s: Settings, cfg: str, trainer: str) -> Path:
    """Where the runs and the choice are."""
    return s.out / "rho_grid" / Path(s.source).stem / trainer / f"{Path(cfg).stem}_{s.shots}shots"


def plan(s: Settings, cfg: str, trainer: str, values: tuple[float, ...] = RHOS) -> list[Job]:
    """A training for each rho and seed, tested on val.

    Raises:
        InputError: The source has no val images of its own, or the trainer learns no prompt, or has no rho.
    """
    if not (traits.learns_prompt(trainer) and traits.rho_key(trainer)):
        raise InputError(f"--trainer {trainer} learns no prompt with a rho: choose one such as SAPT")
    if min(values, default=-1) < 0:
        raise InputError(f"--values must be numbers >= 0, but got {values}")
    folder = folder_of(s, cfg, trainer).relative_to(s.out)
    jobs = []
    for rho in values:
        point = dataclasses.replace(s, rho=rho)
        for seed in s.seeds:
            opts = (*shots(s), *PromptPlan(trainer, cfg).opts(), "TEST.SPLIT", "val")
            jobs.append(point.job(trainer, cfg, s.source, seed, f"{folder}/rho{rho:g}", *opts))
    name = jobs[0].config_values["DATASET"]["NAME"]
    if getattr(DATASET_REGISTRY.get(name), "val_is_test", False):
        raise InputError(
            f"{s.source} ({name}) has no validation images apart from its test images, so that rho cannot be chosen on "
            "it: give a value by --rho, or keep the config's"
        )
    return jobs


def choose(s: Settings, cfg: str, jobs: list[Job]) -> dict[str, Any]:
    """The rho of the highest mean accuracy on val, the smallest of equal ones; writes rho.json.

    Raises:
        InputError: A run is not complete, or its val images are its test images.
    """
    runs = []
    for job in jobs:
        record = job.result()
        if record is None:
            raise InputError(f"{job.folder} has no result on val: rho is not chosen")
        sha256 = record["split_sha256"]
        if "val" not in sha256 or sha256["val"] == sha256.get("test") or record.get("val_images_in_test"):
            raise InputError(f"{s.source} has no val images apart from its test images: rho cannot be chosen on it")
        runs.append(
            {
                "rho": flat_config(job.config_values)[traits.rho_key(job.trainer)],
                "seed": job.seed,
                "val_accuracy": record["splits"]["val"]["accuracy"],
                "val_sha256": sha256["val"],
                "command": ["python", "train.py", *job.argv],
            }
        )
    means = {
        rho: statistics.mean(run["val_accuracy"] for run in runs if run["rho"] == rho)
        for rho in sorted({run["rho"] for run in runs})
    }
    chosen = max(means, key=lambda rho: (round(means[rho], 9), -rho))
    content = {
        "rho": chosen,
        "source": Path(s.source).stem,
        "config": Path(cfg).stem,
        "shots": s.shots,
        "seeds": list(s.seeds),
        "chosen_by": "mean accuracy over the seeds on the source's val images; the smallest rho of equal ones",
        "mean_val_accuracy": {f"{rho:g}": mean for rho, mean in means.items()},
        "runs": runs,
    }
    write_text(folder_of(s, cfg, jobs[0].trainer) / RECORD, json.dumps(content, indent=2) + "\n")
    return content


def read_rho(value: str, source: str) -> float:
    """--rho: a number, or the rho.json of the same source."""
    if not value.endswith(".json"):
        try:
            return float(value)
        except ValueError as error:
            raise InputError(f"--rho must be a number or a rho.json, but got {value!r}") from error
    try:
        content = json.loads(Path(value).read_text(encoding="utf-8"))
        rho, of = float(content["rho"]), content["source"]
        if not 0 <= rho < math.inf:
            raise ValueError(f"its rho is {rho}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"--rho {value} is not a record of rho-grid: {error}") from error
    if of != Path(source).stem:
        raise InputError(f"--rho {value} was chosen on {of}, but the prompts are trained on {Path(source).stem}")
    return rho
