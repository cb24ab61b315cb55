"""What becomes of each command of the documentation: run on a stand-in, or parsed by the program's own parser.

The stand-in: a tiny CLIP for every backbone, the small benchmark for every published dataset, one epoch, few views.
"""

import argparse
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from benchmark import make_benchmark
from conftest import TINY_VIT, draw_nothing, make_clip
from dassl.engine import TRAINER_REGISTRY
from docs_blocks import REPO
from torch.distributed.run import parse_args as parse_torchrun

import datasets.__main__ as datasets_cli
import parse_test_res
import train
from benchmarks.__main__ import NAMES as BENCHMARKS
from datasets.catalog import CATALOG
from report import __main__ as report_cli
from sweeps import __main__ as sweeps_cli
from tlla.clip import EMBEDDED, PIXEL_MEAN, PIXEL_STD
from tlla.predict import command as predict

LINKED = "train.py predict.py parse_test_res.py scripts configs requirements.txt setup.py toolkit".split()
STYLES = ("twemoji", "openmoji", "openmoji_black", "fluent_flat", "fluent_contrast", "fluent_3d")
COUNTS = {"noto": {"train": 4, "val": 2, "test": 3}, **{style: {"test": 3} for style in STYLES}}
SMALL = """
    INPUT.SIZE (32,32)  DATALOADER.NUM_WORKERS 0  OPTIM.MAX_EPOCH 1  TEST.SAVE_EVERY 600.0  TRAINER.SAPT.N_CTX 4
    TRAINER.TIPADAPTER.AUGMENT_EPOCH 1  TRAINER.TIPADAPTERF.AUGMENT_EPOCH 1  TRAINER.VIEWS.N_VIEWS 4
    TRAINER.STSS.TOP_S 2  TRAINER.TLLA.N_VIEWS 4  TRAINER.TLLA.TOP_S 2  TRAINER.VIEWS.PROTOCOL common
    TRAINER.FPP.STEPS 2
""".split()
SMALL += ["INPUT.PIXEL_MEAN", str(list(PIXEL_MEAN)), "INPUT.PIXEL_STD", str(list(PIXEL_STD))]
FEW = {"sharpness": "--ascent 1 --iterations 2 --directions 2", "curves": "--directions 2", "landscape": "--steps 3"}
FEW["sensitivity"] = "--views 2 --perturbations 2"  # of python -m report


class Store:
    """What all pages share: weights, data, and trained prompts."""

    def __init__(self, folder: Path):
        self.data, self.weights, self.runs = folder / "data", folder / "clip.pt", folder / "runs"
        self.seen: set[str] = set()  # commands of the page without their seeds
        torch.save(make_clip(TINY_VIT).state_dict(), self.weights)
        with mock.patch("benchmark.COUNTS", COUNTS):
            make_benchmark(self.data)
        argv = "--trainer SAPT --config-file configs/trainers/SAPT/emoji.yaml --dataset-config-file".split()
        for seed in ("1", "2", "3"):
            output = ["configs/datasets/emoji.yaml", "--seed", seed, "--output-dir", str(self.runs / f"seed{seed}")]
            assert train.main(small(self, [*argv, *output])) == 0

    def put(self, folder: str, seeds: bool = False) -> None:
        """Copies a trained run, or one of each seed, to where no command of the page has trained one."""
        if not Path(folder).exists() or (seeds and not any(Path(folder).rglob("results.json"))):
            shutil.copytree(self.runs if seeds else self.runs / "seed1", folder, dirs_exist_ok=True)


class Place:
    """A folder that looks like the checkout, with a home that holds the data."""

    def __init__(self, folder: Path, store: Store):
        self.root, self.home, self.store = folder / "checkout", folder / "home", store
        store.seen.clear()
        (self.root / "output").mkdir(parents=True)
        self.home.mkdir()
        (self.home / "data").symlink_to(store.data)
        for name in LINKED:
            (self.root / name).symlink_to(REPO / name)


def small(store: Store, argv: list[str]) -> list[str]:
    """The arguments of train.py with the stand-in's data, weights and sizes."""
    args = train.parse_args(argv)
    cfg = train.build_cfg(args)  # as it is written: files, keys and names are known
    given = list(SMALL)
    if not Path(cfg.MODEL.BACKBONE.NAME).is_file():
        given += ["MODEL.BACKBONE.NAME", str(store.weights)]
    if cfg.TRAIN.CHECKPOINT_FREQ:  # a page that wants the prompts of several epochs
        given += ["OPTIM.MAX_EPOCH", "2"]
    if cfg.DATASET.NAME in CATALOG:
        trains = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "learned", "") and not args.eval_only
        assert CATALOG[cfg.DATASET.NAME].counts[0] or not trains, f"{cfg.DATASET.NAME} has no training images"
        given += ["DATASET.NAME", "Emoji"]
    if cfg.DATASET.NAME != "ImageFolder":
        given += ["DATASET.ROOT", str(store.data)]
    return [*argv, *given]


def run_train(args: list[str], store: Store) -> int:
    """Trains and tests on the stand-in; of what a page does for several seeds, the first."""
    if "..." in args:  # a sketch: the flags and the trainer's name are all there is
        trainer = train.parse_args(args).trainer
        return bool(trainer) and trainer not in TRAINER_REGISTRY.registered_names()
    argv, of_any_seed = small(store, args), re.sub(r"(?<=seed)\d|(?<=--seed )\d", "N", " ".join(args))
    if of_any_seed in store.seen:
        return 0
    store.seen.add(of_any_seed)
    for folder in re.findall(r"(?:--model-dir |=)(output/[^'\] ]+)", " ".join(args)):
        store.put(folder)
    return train.main(argv)


def run_predict(args: list[str], store: Store) -> int:
    """With few views, and the tiny CLIP in place of those that are not here."""
    parsed = predict.parse_args(args)
    learned = bool(parsed.prompt) and "{}" not in parsed.prompt
    if learned:
        store.put(parsed.prompt)
    if not (learned if parsed.backbone is None else parsed.backbone in EMBEDDED):
        args = [*args, "--backbone", str(store.weights)]
    if parsed.method == "tlla":
        args = [*args, "--set", *parsed.set, "top_s=2"]
    return predict.main([*args, "--views", "4"])


def run_sweep(args: list[str], store: Store) -> int:
    """Shows the commands of a sweep, which are not run: ImageNet and hours."""
    for folder in re.findall(r"--prompts \w+=(\S+)", " ".join(args)):
        store.put(folder, seeds=True)
    end = args.index("--opts") if "--opts" in args else len(args)
    return sweeps_cli.main([*args[:end], "--dry-run", *args[end:]])


def run_datasets(args: list[str], store: Store) -> int:
    """As it is written for folders of images; of published datasets, the arguments and the name."""
    name = getattr(datasets_cli.parse_args(args), "name", "ImageFolder")
    with mock.patch.dict("datasets.care.example.CLOTHS", dict.fromkeys(("train", "val", "test"), 4)):
        code = datasets_cli.main(args if name == "ImageFolder" else ["explain", name])
    for folder in Path(args[1]).glob("*/*") if args[0] == "example" else ():
        for path in sorted(folder.iterdir())[2:-2]:  # four images a class are enough
            path.unlink()
    return code


def run_table(args: list[str], store: Store) -> int:
    """On the runs that the page has made, or else on copies."""
    parsed = parse_test_res.parse_args(args)
    for folder in parsed.directory:
        store.put(folder, seeds=True)
    code = parse_test_res.main(args)
    return 0 if code == 1 and parsed.require_seeds else code  # the page trains one seed


def run_report(args: list[str], store: Store) -> int:
    """On the runs that the page has made, or else on copies; nothing is drawn."""
    args = [word for word in args if not re.fullmatch(r"\w+=output/.*/seed[2-9](/\w+)?", word)]
    for before, word in zip(args, args[1:], strict=False):
        folder = word.rpartition("=")[2]
        if folder.startswith("output/") and before != "--out":
            store.put(folder)
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        return report_cli.main([*args, *FEW.get(args[0], "").split()])


def check_pip(args: list[str], store: Store) -> int:
    """Files and extras that are named have to exist; nothing is installed."""
    missing = [x for flag, x in zip(args, args[1:], strict=False) if flag == "-r" and not Path(x).is_file()]
    extras = re.findall(r"(?:^| )(?:\.|tlla)\[([\w,]+)\]", " ".join(args))
    setup = (REPO / "setup.py").read_text()
    missing += [x for extra in extras for x in extra.split(",") if f'"{x}": [' not in setup]
    assert not missing, f"there is no {missing}"
    return 0


class ParsedError(Exception):
    pass


def parse_only(run: Callable, name: str, args: list[str]) -> int:
    """Starts a module or script and stops when its arguments have been parsed: the rest takes minutes to hours."""
    plain = argparse.ArgumentParser.parse_args

    def parse(self, *values, **named):
        plain(self, *values, **named)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        patch.setattr(sys, "argv", ["", *args])
        run(name, run_name="__main__")
    return 0


RUN: dict[str, Callable[[list[str], Store], int]] = {
    **{"train.py": run_train, "predict.py": run_predict, "parse_test_res.py": run_table},
    **{"sweeps": run_sweep, "datasets": run_datasets, "report": run_report},
    "torchrun": lambda args, store: run_train(parse_torchrun(args).training_script_args, store),
    "pip": check_pip,
    "benchmarks": lambda args, store: max(parse_only(runpy.run_module, f"benchmarks.{x}", args) for x in BENCHMARKS),
    **dict.fromkeys(("-c", "git", "head", "pytest", "venv"), lambda args, store: 0),  # not run
}


def follow(words: list[str], folder: Path, env: dict[str, str], place: Place) -> None:
    """Does what a command asks for; of any other module or script only the arguments are parsed.

    Raises:
        AssertionError: It fails.
    """
    start, (program, *args) = runpy.run_path, words[words[0].startswith("python") :]
    if program == "-m":
        start, (program, *args) = runpy.run_module, args
    known = RUN.get(program if start is runpy.run_module else program.rpartition("/")[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdin", open(place.home / "stdin"))
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            code = known(args, place.store) if known else parse_only(start, program, args)
        except SystemExit as error:  # of argparse, which has printed why
            code = error.code
    assert not code, f"{' '.join(words)} ends with exit code {code}"
