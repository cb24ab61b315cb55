"""What EmojiCLIP is made for, measured on source train and val only: plain pictures, scenes, views, contexts, cloth.

    python -m scripts.emoji.aims --work DIR --name run          # a checkpoint of a pre-training
    python -m scripts.emoji.aims                                # the weights in assets/

Zero-shot accuracy with the hand-written prompt; on val scenes one view against the mean of 64; CoOp, trained on at most
16 images a class, against the hand-written prompt; STSS's sharpness against the entropy, at a radius of the context's
norm; and CoOp on three kinds of cloth that pre-training knew neither in pictures nor by name.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from datasets.care.example import make_example
from datasets.cloth import CLOTH
from tlla.backbones.openai_package import build_model
from tlla.command_line import call
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.selection import score_views
from tlla.sharpness import random_directions

from .export import exported_model, openai_layout
from .tuning import BATCH, EPOCHS, SHOTS, accuracy, fit, source_parts, view_features

CTX_INIT = "an icon of a"
CROPS = (0.08, 1.0)
LRS = (0.02, 0.2)
CLOTH_EPOCHS = 50


class Pictures:
    """Labels and features of the centre crop and n_views - 1 crops of files: (N,) and (N, V, E)."""

    def __init__(self, model: PromptedCLIP, items: list[tuple[str, int]], n_views: int) -> None:
        self.labels = torch.tensor([label for _, label in items])
        self.features = view_features(model, [path for path, _ in items], CROPS, n_views, seed=0)


def prompted(clip_model: nn.Module, names: list[str]) -> PromptedCLIP:
    return PromptedCLIP(clip_model, PromptLearner(clip_model, names, ctx_init=CTX_INIT))


def few(labels: Tensor, seed: int) -> Tensor:
    """Numbers of at most 16 images of each class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == k][:SHOTS] for k in labels.unique()])


def tuned(model: PromptedCLIP, known: Pictures, asked: Pictures, seeds: int) -> dict[str, float]:
    """Accuracy of the hand-written prompt and of CoOp's, the mean over seeds, at the better of two learning rates."""
    with torch.no_grad():
        found = {"hand-written": accuracy(model.logits(asked.features[:, 0], model.encode_text()), asked.labels)}
    for lr in LRS:
        scores = []
        for seed in range(seeds):
            shots = few(known.labels, seed)
            if len(shots) < BATCH:
                raise ValueError(f"{len(shots)} training images do not fill a batch of {BATCH}")
            ctx = fit(model, known.features[shots, 1:], known.labels[shots], lr, 0.0, seed)
            with torch.no_grad():
                scores.append(accuracy(model.logits(asked.features[:, 0], model.encode_text(ctx)), asked.labels))
        found[f"CoOp, lr {lr:g}"] = sum(scores) / seeds
    return found


@torch.no_grad()
def views_and_sharpness(model: PromptedCLIP, asked: Pictures) -> dict[str, float]:
    """One view, the mean of all, the 6 and 16 of lowest entropy; entropy, and sharpness at the context's norm."""
    ctx = model.prompt_learner.ctx.detach()
    directions = random_directions(tuple(ctx.shape), 8, float(ctx.norm()), seed=0)
    text = model.encode_text(torch.cat([ctx[None], ctx + directions]))
    scores = score_views(asked.features, text, model.logit_scale, 1.0)
    chance, order = scores.logits.softmax(dim=-1), scores.entropy.argsort(dim=1)
    best = chance.gather(1, order[..., None].expand_as(chance))
    found = {
        "one view": accuracy(scores.logits[:, 0], asked.labels),
        "mean of all": accuracy(chance.mean(1), asked.labels),
    }
    found |= {f"entropy: {s}": accuracy(best[:, :s].mean(1), asked.labels) for s in (6, 16)}
    cosine = (text[1:] * text[0]).sum(-1).mean().item()
    found |= {"cosine": cosine, "entropy": scores.entropy.mean().item(), "sharpness": scores.sharpness.mean().item()}
    return found | {"sharpness / entropy": found["sharpness"] / found["entropy"]}


def source(name: str, share: int) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """Class names, and train and val of a dataset; of the scenes of an emoji only the first `share`."""
    names, *parts = source_parts(name)
    keep = [f"_{k}" for k in range(share)]
    chosen = {
        part: [(d.impath, d.label) for d in items if name == "Emoji" or Path(d.impath).stem[-2:] in keep]
        for part, items in zip(("train", "val"), parts, strict=True)
    }
    return names, chosen


def cloth(clip_model: nn.Module, seeds: int) -> dict[str, float]:
    """Accuracy on the cloth's test images."""
    model = prompted(clip_model, list(CLOTH))
    with tempfile.TemporaryDirectory() as folder:
        make_example(f"{folder}/cloth", cloth=True)
        parts = [
            [(str(p), k) for k, name in enumerate(CLOTH) for p in sorted(Path(folder, "cloth", part, name).iterdir())]
            for part in ("train", "test")
        ]
        known = Pictures(model, parts[0], CLOTH_EPOCHS + 1)  # of a single batch each
        asked = Pictures(model, parts[1], 1)
    return tuned(model, known, asked, seeds)


def main() -> None:
    """Prints one table for each kind of picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of a pre-training")
    parser.add_argument("--name", default="run")
    parser.add_argument("--scenes", type=int, default=3, help="scenes of each emoji, at most 3")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="of the prompts that are trained; 0: none")
    args = parser.parse_args()
    clip_model = exported_model()
    if args.work:
        checkpoint = torch.load(args.work / args.name / "weights.pt", weights_only=True)
        clip_model = build_model(openai_layout(checkpoint)).float().eval()
    clip_model.requires_grad_(False)
    for name in ("Emoji", "EmojiScenes"):
        names, parts = source(name, args.scenes)
        model = prompted(clip_model, names)
        asked = Pictures(model, parts["val"], args.views)
        print_numbers(name, views_and_sharpness(model, asked))
        if args.seeds:
            known = Pictures(model, parts["train"], EPOCHS + 1)
            print_numbers(f"{name}, tuned", tuned(model, known, asked, args.seeds))
    if args.seeds:
        print_numbers("cloth", cloth(clip_model, args.seeds))


def print_numbers(title: str, found: dict[str, float]) -> None:
    cells = [[title, *found.values()]]
    print(tabulate(cells, ["", *found], "github", floatfmt=".4g", disable_numparse=[0]), "\n", flush=True)


if __name__ == "__main__":
    sys.exit(call(main))
