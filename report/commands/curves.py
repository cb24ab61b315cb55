r"""Training curves: loss, sharpness and accuracy of each epoch's prompt, measured alike for all methods.

    python -m report curves {CoOp=output/CoOp,SAPT=output/SAPT}/seed{1,2,3}

Needs runs that were trained with TRAIN.CHECKPOINT_FREQ 1 (or n: each n-th epoch). For each kept epoch: cross entropy on
the training images without augmentation, by how much it rises within rho of the prompt (at SAM's first-order point, and
at the worst of random directions), and the accuracy on --split. Runs of one name are its seeds: thin lines, and their
mean as a thick one.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from tqdm import tqdm

from tlla.errors import InputError
from tlla.files import write_text
from tlla.landscape.flatness import random_rise
from tlla.prompts.checkpoint import epochs_in
from tlla.prompts.saved import Prompt
from tlla.sharpness import check_sharpness, sharpness_step

from .. import style
from ..prompt_runs import Images, PromptRun, add_run_arguments, open_runs
from ..style import plt

Curve = list[dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--rho", type=float, default=0.05, help="radius of the perturbations (default: 0.05)")
    parser.add_argument("--directions", type=int, default=32, help="random directions (default: 32)")
    parser.add_argument("--direction-seed", type=int, default=0, help="seed of the directions (default: 0)")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="of the accuracy (default: test)")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes curves.json with every number, and the picture."""
    check_sharpness(args.rho, 1.0)
    if args.rho == 0 or args.directions < 1:
        raise InputError(f"--rho and --directions must be greater than 0, but got {args.rho} and {args.directions}")
    runs = open_runs(args)
    files = [checkpoints(run) for run in runs]  # all of them before the first is measured
    rows = [run.origin | {"epochs": curve(run, own, args)} for run, own in zip(runs, files, strict=True)]
    settings = {name: vars(args)[name] for name in ("images", "rho", "directions", "direction_seed", "split")}
    write_text(args.out / "curves.json", json.dumps({"settings": settings, "runs": rows}, indent=1) + "\n")
    return [args.out / "curves.json", *draw(rows, args)]


def checkpoints(run: PromptRun) -> dict[int, Path]:
    """The checkpoints that a run has kept, by epoch. InputError if there are fewer than two."""
    found = epochs_in(run.folder / run.trainer.learned)
    if len(found) < 2:
        raise InputError(
            f"{run.folder} has kept the prompts of {len(found)} epochs, but a curve needs at least 2: train with "
            "TRAIN.CHECKPOINT_FREQ 1"
        )
    return found


def curve(run: PromptRun, files: Mapping[int, Path], args: argparse.Namespace) -> Curve:
    """The numbers of each epoch, in order."""
    training = run.training_images(args.images)
    items = getattr(run.trainer.dm.dataset, args.split)
    if not items:
        raise InputError(f"{run.trainer.cfg.DATASET.NAME} has no {args.split} images: choose the other --split")
    held_out = run.encode(items)
    points = []
    for epoch, path in tqdm(files.items(), unit="epoch", desc=f"{run.name} seed {run.seed}"):
        Prompt.load(path).put_into(run.trainer.model.prompt_learner)
        points.append({"epoch": epoch, **measure(run, training, held_out, args)})
    return points


def measure(run: PromptRun, training: Images, held_out: Images, args: argparse.Namespace) -> dict[str, float]:
    """The numbers of the prompt that is loaded."""
    loss, ctx = run.cross_entropy(training), run.ctx.clone()
    step = sharpness_step(lambda prompt: loss(prompt[None])[0], ctx, args.rho, 1.0)
    with torch.no_grad():
        predicted = run.logits(ctx[None], held_out.features)[0].argmax(dim=-1)
    return {
        "loss": float(step.loss),
        "gradient_norm": float(step.grad_norm),
        "first_order": float(step.sharpness),
        "random": float(random_rise(loss, ctx, args.rho, args.directions, args.direction_seed)),
        "accuracy": 100 * (predicted == held_out.labels).double().mean().item(),
    }


def draw(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> list[Path]:
    """Four panels over epochs."""
    rise = f"rise of the loss within {args.rho:g}:\n"
    panels = {
        "loss": "training loss",
        "accuracy": f"{args.split} accuracy, %",
        "first_order": rise + "SAM's first-order point",
        "random": f"{rise}worst of {args.directions} random directions",
    }
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.4), sharex=True)
    for axis, (key, label) in zip(axes.flat, panels.items(), strict=True):
        for i, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
            draw_lines(axis, [row["epochs"] for row in rows if row["name"] == name], key, style.line(i), name)
        if key in ("first_order", "random") and any(point[key] > 0 for row in rows for point in row["epochs"]):
            axis.set_yscale("log", nonpositive="mask")
        axis.set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return style.save(figure, args.out / "curves")


def draw_lines(axis: Axes, curves: Sequence[Curve], key: str, look: dict[str, Any], name: str) -> None:
    """The mean over the epochs that all seeds have kept, and each seed if there are several."""
    if len(curves) > 1:
        for points in curves:
            values = [point[key] for point in points]
            axis.plot([point["epoch"] for point in points], values, color=look["color"], linewidth=0.6, alpha=0.5)
    by_epoch = [{point["epoch"]: point[key] for point in points} for points in curves]
    epochs = [epoch for epoch in by_epoch[0] if all(epoch in values for values in by_epoch)]
    means = [sum(values[epoch] for values in by_epoch) / len(by_epoch) for epoch in epochs]
    axis.plot(epochs, means, label=name, markevery=max(1, len(epochs) // 8), **look)
