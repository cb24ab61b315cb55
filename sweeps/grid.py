"""A sweep from a YAML file: all combinations of `grid`, `datasets` and `seeds`, and tests of what they have learned.

    trainer: SAPT
    config: vit_b16_c4_ep50             # a name in configs/trainers/<trainer>, or a file
    datasets: [oxford_pets, dtd]        # names in configs/datasets, or files
    seeds: [1, 2, 3]                    # default: --seeds
    shots: 16                           # default: --shots
    name: radius                        # folder below the output root; default: the file's name
    grid: {TRAINER.SAPT.RHO: [0.05, 0.1]}
    opts: {OPTIM.MAX_EPOCH: 10}         # the same for all combinations
    then:                               # each is a test of every prompt; without seeds, shots, name and grid
      - {trainer: TLLA, config: vit_b16_c4_ep50, datasets: [food101], opts: {TRAINER.TLLA.TOP_S: 6}}

Only trainer, config and datasets are needed. A run's folder is <out>/<name>/<dataset>/<trainer>/<config>_<shots>shots/
<point of the grid>/seed<s>; beside it, in then<n>_<trainer>/<dataset>/seed<s>, are the tests of its prompt.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from tlla.errors import InputError, nearest
from trainers.config.yaml_files import load_yaml

from . import traits
from .job import Job, check_jobs
from .plans import Settings, shots

NEEDED = ("trainer", "config", "datasets")
THEN = (*NEEDED, "opts")
KINDS = {
    **{"trainer": str, "config": str, "datasets": list, "opts": dict},
    **{"seeds": list, "shots": int, "name": str, "grid": dict, "then": list},
}
NAMES = {str: "name", int: "whole number", list: "list", dict: "mapping"}


def grid(s: Settings, file: str) -> list[Job]:
    """The runs of a grid file, and the tests of what they have learned; InputError names the file and the key."""
    content = _load(file)
    try:
        jobs = _jobs(s, content, Path(file).stem)
        check_jobs(jobs)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return jobs


def _jobs(s: Settings, content: dict, name: str) -> list[Job]:
    _check(content)
    s = dataclasses.replace(s, seeds=tuple(content.get("seeds", s.seeds)), shots=content.get("shots", s.shots))
    base = Path(content.get("name", name))
    jobs = []
    for words, tag in _combinations(content.get("grid", {})):
        for dataset in content["datasets"]:
            trainer, cfg = content["trainer"], content["config"]
            folder = base / Path(dataset).stem / trainer / f"{Path(cfg).stem}_{s.shots}shots" / tag
            for seed in s.seeds:
                few = () if "DATASET.NUM_SHOTS" in words[::2] else shots(s)
                job = s.job(trainer, cfg, dataset, seed, str(folder), *few, *_opts(content), *words)
                jobs += [job, *_tests(s, content.get("then", []), job, folder, words)]
    return jobs


def _tests(s: Settings, then: list[dict], job: Job, folder: Path, words: tuple[str, ...]) -> Iterator[Job]:
    for number, entry in enumerate(then):
        trainer = entry["trainer"]
        prompts = traits.learns_prompt(job.trainer) and traits.tests_prompts(trainer)
        if not job.trains or not (prompts or trainer == job.trainer):
            raise InputError(f"then[{number}]: {trainer} cannot test what {job.trainer} learns")
        same = traits.node(trainer) == traits.node(job.trainer)  # then the point is its config, too
        for target in entry["datasets"]:
            place = str(folder / f"then{number}_{trainer}" / Path(target).stem)
            more = (*(words if same else ()), *_opts(entry))
            yield s.job(trainer, entry["config"], target, job.seed, place, *more, source=job)


def _opts(content: dict) -> tuple[str, ...]:
    return tuple(word for key, value in content.get("opts", {}).items() for word in (str(key), str(value)))


def _load(file: str) -> dict:
    content = load_yaml(Path(file))
    if not isinstance(content, dict):
        raise InputError(f"{file}: a grid must be a mapping with the keys {', '.join(KINDS)}")
    return content


def _check(content: dict) -> None:
    """Raises InputError for a key that is unknown, missing, or of the wrong kind."""
    _check_part(content, KINDS, "")
    if Path(name := content.get("name", "")).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"name must be a folder below the output root, but got {name!r}")
    for number, entry in enumerate(content.get("then", [])):
        if not isinstance(entry, dict):
            raise InputError(f"then[{number}] must be a mapping with {', '.join(THEN)}, but got {entry!r}")
        _check_part(entry, {key: KINDS[key] for key in THEN}, f"then[{number}].")
    for key, values in content.get("grid", {}).items():
        if key in content.get("opts", {}):
            raise InputError(f"{key} is in opts and in grid: leave it out of one of them")
        if not isinstance(values, list) or not values:
            raise InputError(f"grid.{key} must be a list of values, but got {values!r}")
        if len({_same(value) for value in values}) < len(values):
            raise InputError(f"grid.{key} has equal values: {values!r}; name each once")


def _same(value: object) -> str:
    """Equal for 0.05, 0.050 and 5e-2, which YAML takes for a text."""
    try:
        return str(value) if isinstance(value, bool) else repr(float(value))
    except (TypeError, ValueError):
        return str(value)


def _check_part(content: dict, kinds: dict[str, type], where: str) -> None:
    for key, value in content.items():
        if key not in kinds:
            raise InputError(f"{where}{key} is no key of a grid: {nearest(str(key), list(kinds))}")
        if type(value) is not kinds[key]:
            raise InputError(f"{where}{key} must be a {NAMES[kinds[key]]}, but got {value!r}")
    for key in NEEDED:
        if key not in content:
            raise InputError(f"{where}{key} is missing")
    for key, kind in (("seeds", int), ("datasets", str)):
        items = content.get(key)
        if items == [] or not all(type(item) is kind for item in items or ()):
            raise InputError(f"{where}{key} must be a list of {NAMES[kind]}s, but got {items!r}")


def _combinations(axes: dict) -> list[tuple[tuple[str, ...], str]]:
    """Keys and values of each point of the grid, and its folder's name."""
    points: list[tuple[tuple[str, ...], list[str]]] = [((), [])]
    for key, values in axes.items():
        points = [
            ((*words, str(key), str(v)), [*names, f"{str(key).rpartition('.')[2].lower()}{v}"])
            for words, names in points
            for v in values
        ]
    return [(words, "_".join(names).replace("/", "-") or ".") for words, names in points]
