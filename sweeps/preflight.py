"""What can be known to be missing before the first of many runs: data, split files, weights, room on the disk."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

import train
from tlla.backbones import BACKBONES
from tlla.backbones.openai_package import clip
from tlla.backbones.weights import find_weights, openai_file
from tlla.clip import OPEN_CLIP
from tlla.errors import InputError

from .job import COMPLETE, Job

ROOM = 20 << 20  # bytes that a run leaves at most, of the size of ImageNet's: checkpoints, predictions, logs


def missing(jobs: list[Job], out: Path, fetch: bool) -> list[str]:
    """A sentence for all that is missing; images are not looked for one by one.

    Args:
        jobs: Complete ones are not looked at.
        out: Folder of all runs.
        fetch: Whether weights of OpenAI's are downloaded if they are not here, and a new split may be written.
    """
    todo = [job for job in jobs if job.state() != COMPLETE]
    found = [*_data(todo, fetch), *_weights(todo, fetch), *(_room(len(todo), out) if todo else ())]
    return list(dict.fromkeys(found))


def _data(jobs: list[Job], fetch: bool) -> Iterator[str]:
    for job in {repr(job.config_values["DATASET"]): job for job in jobs}.values():
        cfg = train.build_cfg(train.parse_args(job.argv))
        if cfg.DATASET.get("ALLOW_NEW_SPLIT", False) and not fetch:
            continue
        cls = DATASET_REGISTRY.get(cfg.DATASET.NAME)
        try:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
                cls.__new__(cls).open(cfg.DATASET) if hasattr(cls, "open") else cls(cfg)
        except (InputError, OSError) as error:
            yield f"{Path(job.dataset_config).stem}: {error}"


def _weights(jobs: list[Job], fetch: bool) -> Iterator[str]:
    for name in {job.config_values["MODEL"]["BACKBONE"]["NAME"]: None for job in jobs}:
        if not name or name.partition(":")[0] in (OPEN_CLIP, *BACKBONES):
            continue
        try:
            if fetch or name not in clip._MODELS:
                find_weights(name, list(BACKBONES))
            elif not openai_file(name).is_file():
                yield f"the weights of {name} are not at {openai_file(name)}: the first run would download them"
        except InputError as error:
            yield str(error)


def _room(count: int, out: Path) -> Iterator[str]:
    place = next(path for path in (out, *out.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        yield f"{place} cannot be written to: choose another --out"
        return
    free = shutil.disk_usage(place).free
    if free < count * ROOM:
        yield f"{place} has {free >> 20:,} MB free, but {count} runs need up to {count * ROOM >> 20:,} MB"
