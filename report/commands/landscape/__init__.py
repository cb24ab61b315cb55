r"""Loss surfaces around prompts, side by side: of a training batch, and of single views of test images.

    python -m report landscape CoOp=output/CoOp/seed1 SAPT=output/SAPT/seed1 --image 0 --out output/report

The paper's figures 4 and 5 (arXiv 2501.18864). The planes are spanned by two random directions, orthogonal and
filter-normalised (Li et al., arXiv 1712.09913): each context vector of a direction is as long as the prompt's own. So 1
on an axis is the prompt's norm, --span is how far the axes reach, and the directions of all runs point the same way.
The circle has radius --rho. Of each test image two views are shown, those whose STSS score (TRAINER.TLLA, averaged over
the runs) is the lowest and the highest.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.files import write_text
from tlla.landscape.planes import Surface, filter_normalised_plane, surface
from tlla.selection import entropy
from tlla.sharpness import check_sharpness

from ...prompt_runs import Images, PromptRun, add_run_arguments, mean_cross_entropy, open_runs
from .picture import PictureRow, draw
from .single_views import View, lowest_and_highest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--image", type=int, nargs="+", default=[0], help="numbers of the test images (default: 0)")
    parser.add_argument("--span", type=float, default=1.0, help="reach of the axes in norms of the prompt (default: 1)")
    parser.add_argument("--steps", type=int, default=31, help="points along each axis, odd (default: 31)")
    parser.add_argument("--rho", type=float, default=0.5, help="radius of the circle (default: 0.5)")
    parser.add_argument("--direction-seed", type=int, default=0, help="seed of the directions (default: 0)")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes landscape.json with every number, and the pictures of the training batch and of the views."""
    check_sharpness(args.rho, 1.0)
    runs = open_runs(args)
    check_same(runs)
    training = runs[0].training_images(args.images)
    views = [view for index in args.image for view in lowest_and_highest(runs, index)]
    norms = {run.name: float(run.ctx.norm()) for run in runs}
    found = {run.name: surfaces(run, training, views, args) for run in runs}
    settings = {name: vars(args)[name] for name in ("image", "span", "steps", "rho", "direction_seed")}
    content = {
        "settings": {"images": len(training.labels), **settings},
        "axis": found[runs[0].name][0].alphas.tolist(),
        "runs": [{**run.origin, "prompt_norm": norms[run.name], **numbers(found[run.name])} for run in runs],
        "views": [view.describe() for view in views],
    }
    write_text(args.out / "landscape.json", json.dumps(content) + "\n")
    return [args.out / "landscape.json", *pictures(norms, found, views, args)]


def check_same(runs: Sequence[PromptRun]) -> None:
    """Raises InputError unless the runs have names of their own and were trained on the same images."""
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} runs are named {name}: name one run each, of one seed")
    for run in runs:
        if run.training_sha256 != runs[0].training_sha256:
            raise InputError(
                f"{run.folder} (seed {run.seed}) was trained on other images than {runs[0].folder} "
                f"(seed {runs[0].seed}): their surfaces cannot be compared; name runs of one seed"
            )


def surfaces(run: PromptRun, training: Images, views: Sequence[View], args: argparse.Namespace) -> list[Surface]:
    """The training batch's cross entropy, then each view's entropy, over the plane through a run's prompt."""
    features = torch.cat([training.features, *(view.features[None] for view in views)])
    n = len(training.labels)

    def losses(contexts: Tensor) -> Tensor:
        logits = run.logits(contexts, features)  # (n, B + views, K)
        cross_entropy = mean_cross_entropy(logits[:, :n], training.labels)
        return torch.cat([cross_entropy[:, None], entropy(logits[:, n:])], dim=1)  # (n, 1 + views)

    plane = filter_normalised_plane(run.ctx, args.direction_seed)
    found = surface(losses, run.ctx, *plane, args.span, args.steps, title=run.name)
    return [Surface(found.alphas, found.betas, values) for values in found.losses.unbind(dim=-1)]


def numbers(found: Sequence[Surface]) -> dict[str, Any]:
    """Losses by alpha, then beta."""
    training, *views = (surface.losses.tolist() for surface in found)
    return {"training_loss": training, "entropy_of_views": views}


def pictures(
    norms: dict[str, float], found: dict[str, list[Surface]], views: Sequence[View], args: argparse.Namespace
) -> list[Path]:
    """Draws both."""
    loss = PictureRow("", {name: own[0] for name, own in found.items()})
    rows = [
        PictureRow(view.label, {name: own[1 + i] for name, own in found.items()}, view.pixels)
        for i, view in enumerate(views)
    ]
    return [
        *draw([loss], "training loss", args.rho, norms, args.out / "landscape"),
        *draw(rows, "change of entropy", args.rho, norms, args.out / "landscape_views", relative=True),
    ]
