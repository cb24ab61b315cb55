"""Images, class names, CLIP and predictor from the arguments of predict.py."""

import argparse
import inspect
import os
import sys
from pathlib import Path

import torch

from ..clip import find_device, load_clip
from ..errors import InputError
from ..files import read_text
from ..methods.choice import build_method, find_method, parse_settings, refuse_unknown
from ..prompts.choose import find_prompt
from ..prompts.descriptions import Descriptions
from ..prompts.info import PromptInfo
from ..prompts.saved import Prompt
from ..prompts.templates import named_templates
from .paths import find_images
from .predictor import Predictor

TEMPLATE = "a photo of a {}."
BACKBONE = "ViT-B/16"


def read_inputs(args: argparse.Namespace) -> list[str]:
    """Paths of all images, in the order of the arguments; - stands for paths on the standard input.

    >>> read_inputs(argparse.Namespace(images=["fruit.png", "."]))
    ['fruit.png', 'fruit.png']
    """
    if args.images.count("-") > 1:
        raise InputError("- stands for the paths on the standard input, and can be given once")
    if "-" not in args.images:
        return find_images(args.images)
    at = args.images.index("-")
    before, after = args.images[:at], args.images[at + 1 :]
    given = _standard_input(b"\0" if args.null else b"\n")
    return [*(find_images(before) if before else []), *given, *(find_images(after) if after else [])]


def _standard_input(separator: bytes) -> list[str]:
    paths = [os.fsdecode(part.rstrip(b"\r")) for part in sys.stdin.buffer.read().split(separator)]
    found = [path for path in paths if path]
    if not found:
        raise InputError("there are no paths on the standard input: give one a line, or end each with NUL and add -0")
    return found


def build_predictor(args: argparse.Namespace) -> Predictor:
    """Loads what the arguments name. InputError if something does not exist or does not fit.

    >>> from tlla.predict.flags import parse_args
    >>> build_predictor(parse_args(["fruit.png", "--classes", "cat", "dog", "--method", "zero", "--explain", "out"]))
    Traceback (most recent call last):
    tlla.errors.InputError: --explain shows the views that a method keeps by their scores, as STSS does, but ...
    """
    prompt = find_prompt(args.prompt or TEMPLATE, args.load_epoch)
    info, path = (prompt.info, prompt.path) if isinstance(prompt, Prompt) else (PromptInfo(), None)
    if isinstance(prompt, Descriptions):
        info = PromptInfo(tuple(prompt.sentences))
    names = find_class_names(args, info)
    values = parse_settings(args.set)
    if own := sorted({name.lower() for name in values} & set(inspect.signature(Predictor).parameters)):
        raise InputError(f"--set has {own[0]}, which is not a setting of the method but a flag: see predict.py --help")
    refuse_unknown(build_method(args.method, values))
    if args.explain and not find_method(args.method).scores_views:
        raise InputError(
            "--explain shows the views that a method keeps by their scores, as STSS does, but --method is "
            f"{args.method}: leave one of them out"
        )
    if args.explain and args.margin:
        raise InputError("--explain shows how all views of an image vote: leave out --margin")
    try:
        model = load_clip(args.backbone or info.backbone or BACKBONE, _device(args.device))
    except InputError as error:
        if args.backbone or not info.backbone:
            raise
        raise InputError(
            f"{path} was learned for a CLIP that cannot be loaded; name it by --backbone: {error}"
        ) from error
    return Predictor(
        model,
        names,
        prompt,
        args.method,
        n_views=args.views,
        crop_scale=tuple(args.crop_scale),
        augmix=args.augmix,
        seed=args.seed,
        batch_views=args.batch_views,
        margin=args.margin,
        top_k=args.top_k,
        precision=args.precision,
        **values,
    )


def _device(name: str | None) -> torch.device:
    """The device of that name; by default a GPU if there is one."""
    return find_device(name or ("cuda" if torch.cuda.is_available() else "cpu"), "--device")


def find_class_names(args: argparse.Namespace, info: PromptInfo) -> list[str]:
    """The class names from the one source that was given, or those that a checkpoint was trained on.

    >>> find_class_names(argparse.Namespace(classes=["cat", "dog"]), PromptInfo())
    ['cat', 'dog']
    """
    if args.classes:
        return _distinct(args.classes, "--classes")
    if args.classes_file:
        return _distinct(_names_in(Path(args.classes_file)), args.classes_file)
    if args.classes_from:
        return _distinct(_subfolders(Path(args.classes_from)), args.classes_from)
    if info.class_names:
        return list(info.class_names)
    learned = args.prompt and not named_templates(args.prompt)
    where = f"the checkpoint {args.prompt} does not name the classes" if learned else "there are no class names"
    raise InputError(
        f"{where}: add --classes cat dog, --classes-file with one name per line, or --classes-from with a folder "
        "that has a subfolder for each class"
    )


def _names_in(path: Path) -> list[str]:
    try:
        text = read_text(path)
    except OSError as error:
        raise InputError(f"--classes-file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--classes-file {path} is not text in UTF-8 or UTF-16: {error.reason}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _subfolders(path: Path) -> list[str]:
    if not path.is_dir():
        raise InputError(f"--classes-from {path} is not a folder: give one that has a subfolder for each class")
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _distinct(names: list[str], source: str) -> list[str]:
    if not names:
        raise InputError(f"{source} has no class names: give at least one")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{source} names a class twice: {', '.join(map(repr, twice[:5]))}")
    return names
