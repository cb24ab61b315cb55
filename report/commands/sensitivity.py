r"""How far a CLIP's class features, and the entropy of images, move when a prompt is perturbed at random.

    python -m report sensitivity "an icon of a {}." output/SAPT/seed1 --backbone EmojiCLIP --classes bird fruit building
    python -m report sensitivity "a photo of a {}." --backbone ViT-B/16 --classes-file names.txt --images photos/*.jpg

STSS's score of a view is its entropy plus the largest rise of the entropy under such perturbations (arXiv 2501.18864,
eq. 5): where the features hardly move, the score is the entropy. For each prompt and radius: the mean and the lowest
cosine of perturbed class features to the plain ones; with --images, also the mean entropy, the mean sharpness (the
largest rise over the perturbations) and their ratio, over all views.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from tlla.clip import image_size, load_clip, logit_scale
from tlla.errors import InputError
from tlla.files import write_text
from tlla.prompts.choose import make_classifier
from tlla.prompts.classifier import Classifier
from tlla.selection import score_views
from tlla.sharpness import check_sharpness, random_directions
from tlla.views.encode import ViewEncoder
from tlla.views.make import ViewConfig

RHOS = (0.1, 0.5, 1.0, 2.0, 4.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="a template with {}, or a run that trained one")
    parser.add_argument("--backbone", default="ViT-B/16", help="a CLIP by name or file (default: ViT-B/16)")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--classes", nargs="+", metavar="NAME", help="class names")
    classes.add_argument("--classes-file", type=Path, metavar="FILE", help="class names, one a line")
    parser.add_argument("--images", nargs="+", type=Path, default=[], metavar="FILE", help="images to take views of")
    parser.add_argument("--views", type=int, default=16, help="views of an image (default: 16)")
    parser.add_argument("--rho", type=float, nargs="+", default=list(RHOS), help="radii (default: %(default)s)")
    parser.add_argument("--relative", action="store_true", help="radii in norms of the prompt's context")
    parser.add_argument("--perturbations", type=int, default=8, help="perturbations at each radius (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of perturbations and views (default: 0)")


@torch.no_grad()
def run(args: argparse.Namespace) -> list[Path]:
    """Writes sensitivity.json with every number and sensitivity.md with the table."""
    for rho in args.rho:
        check_sharpness(rho, 1.0)
    if args.perturbations < 1:
        raise InputError(f"--perturbations must be at least 1, but got {args.perturbations}")
    model = load_clip(args.backbone)
    names = args.classes or args.classes_file.read_text(encoding="utf-8").splitlines()
    config = ViewConfig(image_size(model), args.views, seed=args.seed)
    views = ViewEncoder(model).images(args.images, config) if args.images else None  # (N, V, E)
    rows = []
    for prompt in args.prompts:
        classifier = make_classifier(model, names, prompt)
        if not classifier.tunable or classifier.conditional:
            raise InputError(f"{prompt!r} has no context vectors to perturb: give a template with words before {{}}")
        for rho in args.rho:
            radius = rho * float(classifier.ctx.norm()) if args.relative else rho
            rows.append({"prompt": prompt} | measure(classifier, radius, args, views, float(logit_scale(model))))
    settings = {k: vars(args)[k] for k in ("backbone", "views", "perturbations", "seed")} | {"images": len(args.images)}
    write_text(args.out / "sensitivity.json", json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
    write_text(
        args.out / "sensitivity.md", tabulate(rows, "keys", "github", floatfmt=".4g", disable_numparse=[0]) + "\n"
    )
    return [args.out / "sensitivity.json", args.out / "sensitivity.md"]


def measure(
    classifier: Classifier, rho: float, args: argparse.Namespace, views: Tensor | None, scale: float
) -> dict[str, Any]:
    """All numbers of one prompt and radius."""
    ctx = classifier.ctx
    directions = random_directions(tuple(ctx.shape), args.perturbations, rho, args.seed).to(ctx)
    text = classifier.encode(torch.cat([ctx[None], ctx + directions])).float()  # (R + 1, K, E)
    cosine = (text[1:] * text[0]).sum(dim=-1)  # (R, K)
    found: dict[str, Any] = {"rho'": rho, "rho' / norm": rho / float(ctx.norm())}
    found |= {"cosine": cosine.mean().item(), "lowest": cosine.min().item()}
    if views is not None:
        scores = score_views(views.float(), text, scale, 1.0)
        entropy, sharpness = scores.entropy.mean().item(), scores.sharpness.mean().item()
        found |= {"entropy": entropy, "sharpness": sharpness, "sharpness / entropy": sharpness / entropy}
    return found
