"""What becomes of each command of the documentation: run on a stand-in, or as far as it can be here.

The stand-in: a tiny CLIP for every backbone, small trees of CoOp's datasets and of the benchmark, one epoch, few views.
"""

import argparse
import contextlib
import io
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import zoo_trees
from benchmark import make_benchmark
from conftest import TINY_VIT, make_clip
from dassl.engine import TRAINER_REGISTRY
from docs_blocks import REPO, Call
from PIL import Image
from torch.distributed.run import parse_args as parse_torchrun

import datasets.__main__ as datasets_cli
import parse_test_res
import train
from report import __main__ as report_cli
from sweeps import __main__ as sweeps_cli
from tlla.clip import EMBEDDED, PIXEL_MEAN, PIXEL_STD
from tlla.predict import command as predict

LINKED = (
    "train.py",
    "parse_test_res.py",
    "predict.py",
    "scripts",
    "configs",
    "requirements.txt",
    "setup.py",
    "toolkit",
)
STYLES = ("twemoji", "openmoji", "openmoji_black", "fluent_flat", "fluent_contrast", "fluent_3d")
COUNTS = {"noto": {"train": 8, "val": 4, "test": 5}, **{style: {"test": 5} for style in STYLES}}
SMALL = {
    "INPUT.SIZE": "(32, 32)",
    "INPUT.PIXEL_MEAN": str(list(PIXEL_MEAN)),
    "INPUT.PIXEL_STD": str(list(PIXEL_STD)),
    "DATALOADER.NUM_WORKERS": "0",
    "OPTIM.MAX_EPOCH": "1",
    "TEST.SAVE_EVERY": "600.0",
    "TRAINER.SAPT.N_CTX": "4",
    "TRAINER.TIPADAPTER.AUGMENT_EPOCH": "1",
    "TRAINER.TIPADAPTERF.AUGMENT_EPOCH": "1",
    "TRAINER.VIEWS.N_VIEWS": "4",
    "TRAINER.STSS.TOP_S": "2",
    "TRAINER.TLLA.N_VIEWS": "4",
    "TRAINER.TLLA.TOP_S": "2",
}
FEW = {  # of python -m report
    "sharpness": ("--ascent", "2", "--iterations", "5", "--directions", "4"),
    "curves": ("--directions", "2"),
    "landscape": ("--steps", "5"),
    "sensitivity": ("--views", "2", "--perturbations", "2"),
}


class Place:
    """A folder that looks like the checkout, with a home that holds the data."""

    def __init__(self, folder: Path, store: "Store"):
        self.root, self.home, self.store = folder / "checkout", folder / "home", store
        for path in (self.root / "output", self.home / "venv" / "bin"):
            path.mkdir(parents=True)
        (self.home / "venv/bin/activate").touch()
        for name in LINKED:
            if (REPO / name).exists():
                (self.root / name).symlink_to(REPO / name)
        (self.home / "data").symlink_to(store.data)


class Store:
    """What all pages share: weights, data, and a trained prompt."""

    def __init__(self, folder: Path):
        self.data, self.weights, self.runs = folder / "data", folder / "clip.pt", folder / "runs"
        state = make_clip(TINY_VIT).state_dict()
        torch.save(state, self.weights)
        with mock.patch("benchmark.COUNTS", COUNTS):
            make_benchmark(self.data)
        few = zoo_trees.synsets()[:4]
        with (
            mock.patch("zoo_trees.synsets", lambda file="": few),
            mock.patch("zoo_trees.sizes", lambda count: [7] * count),
        ):
            zoo_trees.make_trees(self.data)
        separate_parts(self.data / "oxford_pets")
        picture = io.BytesIO()
        Image.effect_noise((40, 36), 60).convert("RGB").save(picture, "JPEG")
        for path in self.data.rglob("*"):
            if path.is_file() and path.read_bytes() == path.name.encode():  # of zoo_trees.touch
                path.write_bytes(picture.getvalue())
        argv = ["--trainer", "SAPT", "--config-file", "configs/trainers/SAPT/emoji.yaml"]
        argv += ["--dataset-config-file", "configs/datasets/emoji.yaml"]
        for seed in ("1", "2", "3"):
            output = str(self.runs / f"seed{seed}")
            code, text = quiet(train.main, small(self, [*argv, "--seed", seed, "--output-dir", output]))
            assert code == 0, text


def separate_parts(folder: Path) -> None:
    """Gives each part of a made split images of its own: a small class has the same one in several."""
    path = folder / "split_zhou_OxfordPets.json"
    parts, seen = json.loads(path.read_text()), set()
    for part, rows in parts.items():
        for row in rows:
            if row[0] in seen:
                zoo_trees.touch(folder / "images" / f"{part}_{row[0]}")
                row[0] = f"{part}_{row[0]}"
            seen.add(row[0])
    path.write_text(json.dumps(parts))


def quiet(function: Callable, *args) -> tuple[int, str]:
    """Exit code and all that is printed, with what SystemExit says."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = function(*args)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    return code or 0, out.getvalue()


def small(store: Store, argv: list[str]) -> list[str]:
    """The arguments of train.py with the stand-in's data, weights and sizes."""
    args = train.parse_args(argv)
    cfg = train.build_cfg(args)  # as it is written: files, keys and names are known
    given = dict(SMALL)
    if not Path(cfg.MODEL.BACKBONE.NAME).is_file():
        given["MODEL.BACKBONE.NAME"] = str(store.weights)
    if cfg.TRAIN.CHECKPOINT_FREQ:  # a page that wants the prompts of several epochs
        given["OPTIM.MAX_EPOCH"] = "2"
    if cfg.DATASET.NAME.startswith("Emoji"):
        given["DATASET.ROOT"] = str(store.data)
    return [*argv, *(x for pair in given.items() for x in pair)]


def run_train(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """Trains and tests on the stand-in; a prompt that no command of the page has trained is put there."""
    if "..." in args:  # a sketch: the flags and the trainer's name are all there is
        sketch = train.parse_args(args)
        known = TRAINER_REGISTRY.registered_names()
        return int(bool(sketch.trainer) and sketch.trainer not in known), ""
    argv = small(place.store, args)
    parsed = train.parse_args(argv)
    named = [parsed.model_dir, *re.findall(r"=(output/[^'\]]+)", " ".join(parsed.opts))]
    for folder in filter(None, named):
        if not Path(folder).exists():
            shutil.copytree(place.store.runs / "seed1", folder)
    return quiet(train.main, argv)


def run_predict(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """With few views, and the tiny CLIP in the place of those that are not here."""
    parsed = predict.parse_args(args)
    learned = bool(parsed.prompt) and "{}" not in parsed.prompt
    if learned and not Path(parsed.prompt).exists():
        shutil.copytree(place.store.runs / "seed1", parsed.prompt)
    if not (learned if parsed.backbone is None else parsed.backbone in EMBEDDED):
        args = [*args, "--backbone", str(place.store.weights)]
    if parsed.method == "tlla":
        args = [*args, "--set", *parsed.set, "top_s=2"]
    return quiet(predict.main, [*args, "--views", "4"])


def run_sweep(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """Shows the commands of a sweep, each of which is checked; given prompts are put there."""
    for folder in re.findall(r"--prompts \w+=(\S+)", " ".join(args)):
        shutil.copytree(place.store.runs, folder)
    rest = args[args.index("--opts") :] if "--opts" in args else []
    args = args[: len(args) - len(rest)]
    return quiet(sweeps_cli.main, [*args, *(() if "--dry-run" in args else ("--dry-run",)), *rest])


def run_datasets(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """On the small trees; nothing is downloaded."""
    got = []
    with mock.patch.object(datasets_cli, "download", lambda name, root, split_only: got.append(name)):
        code, text = quiet(datasets_cli.main, args)
    for folder in Path(args[1]).glob("*/*") if args[0] == "example" else ():
        for path in sorted(folder.iterdir())[2:-2]:  # four images a class are enough
            path.unlink()
    faults = re.findall("FAULT.*", text)
    if args[0] == "check" and all(
        "were expected" in fault or "both in" in fault for fault in faults
    ):  # the trees are small
        code = 0
    return (code if args[0] != "download" or got else 1), text


def run_table(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """On the runs that the page has made, or else on copies of one."""
    parsed = parse_test_res.parse_args(args)
    for folder in map(Path, parsed.directory):
        if not folder.exists() or not any(folder.rglob("results.json")):
            shutil.copytree(place.store.runs, folder, dirs_exist_ok=True)
    code, text = quiet(parse_test_res.main, args)
    return (0 if code == 1 and parsed.require_seeds else code), text  # the page trains one seed


class _ParsedError(Exception):
    pass


def parse_only(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """Starts a module or script and stops when its arguments have been parsed."""
    plain = argparse.ArgumentParser.parse_args

    def parse(self, *values, **named):
        plain(self, *values, **named)
        raise _ParsedError

    def start() -> int:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", parse),
            mock.patch.object(sys, "argv", ["", *(args[2:] if args[0] == "-m" else args[1:])]),
        ):
            try:
                if args[0] == "-m":
                    runpy.run_module(args[1], run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(str(call.folder / args[0]), run_name="__main__")
            except _ParsedError:
                return 0
        return 1

    return quiet(start)


def run_benchmarks(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """All benchmarks, as far as their arguments."""
    from benchmarks.__main__ import NAMES

    results = [parse_only(call, place, ["-m", f"benchmarks.{name}", *args[2:]]) for name in NAMES]
    return max(code for code, _ in results), "".join(text for _, text in results)


def run_report(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """On the runs that the page has made, or else on copies of one."""
    for word in args:
        if word.startswith("output/") and args[args.index(word) - 1] != "--out" and not Path(word).exists():
            shutil.copytree(place.store.runs / "seed1", word)
    return quiet(report_cli.main, [*args, *FEW.get(args[0], ())])


def run_code(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """python -c."""
    with mock.patch.object(sys, "argv", ["-c", *args[2:]]):
        return quiet(exec, args[1], {"__name__": "__main__"})


def run_torchrun(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """torchrun's own arguments, then train.py's; in one process."""
    words = [word.replace("HOST", "localhost") for word in args]
    parsed = parse_torchrun(words)
    assert Path(parsed.training_script).name == "train.py"
    return run_train(call, place, list(parsed.training_script_args))


def run_venv(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """An environment with nothing in it."""
    (call.folder / args[2] / "bin").mkdir(parents=True)
    (call.folder / args[2] / "bin/activate").touch()
    return 0, ""


def run_pip(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """Files and extras that are named have to exist."""
    args = args[2:] if args[:2] == ["-m", "pip"] else args
    setup = (REPO / "setup.py").read_text()
    for flag, value in zip(args, args[1:], strict=False):
        if flag == "-r" and not (call.folder / value).is_file():
            return 1, f"there is no {value}"
    extras = [e for word in args for e in re.findall(r"^(?:\.|tlla)\[([\w,]+)\]$", word)]
    unknown = [e for extra in extras for e in extra.split(",") if f'"{e}": [' not in setup]
    return int(bool(unknown)), f"setup.py has no extra {unknown}"


def nothing(call: Call, place: Place, args: list[str]) -> tuple[int, str]:
    """Not run."""
    return 0, ""


@dataclass(frozen=True)
class Rule:
    """A command that fits the pattern is given to `run`; `why` says why it is not run as it is written."""

    pattern: str
    run: Callable[[Call, Place, list[str]], tuple[int, str]]
    why: str = ""


PYTHON = r"python3? "
RULES = (
    Rule(PYTHON + r"\S*train\.py .*", run_train),
    Rule(PYTHON + r"-m sweeps .*", run_sweep, "the commands are shown, not run: ImageNet and hours"),
    Rule(PYTHON + r"-m datasets .*", run_datasets),
    Rule(PYTHON + r"parse_test_res\.py .*", run_table),
    Rule(PYTHON + r"predict\.py .*", run_predict),
    Rule(PYTHON + r"-m report .*", run_report),
    Rule(PYTHON + r"-c .*", run_code),
    Rule(PYTHON + r"-m benchmarks( .*)?", run_benchmarks, "arguments only: they take an hour"),
    Rule(PYTHON + r"-m benchmarks\.\w+.*", parse_only, "arguments only: they take minutes"),
    Rule(PYTHON + r"-m scripts\.emoji\.\w+.*", parse_only, "arguments only: they take minutes to hours"),
    Rule(PYTHON + r"scripts/demo\.py.*", parse_only, "arguments only: it takes minutes"),
    Rule(PYTHON + r"-m pytest.*", nothing, "the suite that this test is part of"),
    Rule(PYTHON + r"-m venv \S+", run_venv, "an empty environment stands in"),
    Rule(
        rf"({PYTHON}-m )?pip install .*",
        run_pip,
        "the package index may be out of reach; files and extras are looked up",
    ),
    Rule(r"git clone .*", nothing, "upstream's repository is out of reach"),
    Rule(r"torchrun .*", run_torchrun, "arguments only: several machines and GPUs"),
)


def answer(call: Call, place: Place, used: set[Rule]) -> tuple[int, str]:
    """Finds the rule of a command and follows it, in the command's folder and environment."""
    rule = next((r for r in RULES if re.fullmatch(r.pattern, str(call), re.S)), None)
    if rule is None:
        return 127, f"no rule in tests/docs_rules.py fits the command: {call}"
    used.add(rule)
    args = list(call.args)
    if rule.run in (run_train, run_table, run_predict):
        args = args[1:]
    elif rule.run in (run_sweep, run_datasets, run_report):
        args = args[2:]
    before = Path.cwd()
    os.chdir(call.folder)
    try:
        with mock.patch.dict(os.environ, call.env), mock.patch.object(sys, "stdin", io.TextIOWrapper(call.input)):
            return rule.run(call, place, args)
    except SystemExit:  # argparse has printed why
        return 2, "the arguments are refused"
    except Exception as error:  # the page's author wants to see it beside the command
        return 1, f"{type(error).__name__}: {error}"
    finally:
        os.chdir(before)
