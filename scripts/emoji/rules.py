"""Compares rules of selecting views on the test images, for the prompts that scripts/demo.py has trained.

Reports only; nothing is chosen here. Views (of seed 0) are encoded once for each style and serve every rule and prompt;
s, R, rho' and the vote are the trainer's defaults.

    python -m scripts.emoji.rules --runs output/demo --seeds 1 2 3
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

import train
from tlla.clip import load_clip
from tlla.command_line import call
from tlla.prompts.checkpoint import find_epoch, load_context
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.selection import score_views, select_and_vote
from tlla.sharpness import random_directions

from .assets import read_index
from .tuning import view_features

CONFIG = ("--trainer", "TLLA", "--config-file", "configs/trainers/TLLA/emoji.yaml")
DATASET = ("--dataset-config-file", "configs/datasets/emoji.yaml")
RULES = ("one view", "mean of all views", "entropy selection", "STSS")


@torch.no_grad()
def hits(model: PromptedCLIP, ctx: Tensor, features: Tensor, labels: Tensor, node: CfgNode) -> dict[str, Tensor]:
    """For each rule, whether each image is classified correctly: (N,) float."""
    directions = random_directions(tuple(ctx.shape), node.N_PERTURB, node.RHO, seed=0)
    text = model.encode_text(torch.cat([ctx[None], ctx + directions]))
    scores = score_views(features, text, model.logit_scale, node.LAMBDA)
    entropy = score_views(features, text[:1], model.logit_scale, 0.0)
    outputs = (
        scores.logits[:, 0],
        scores.logits.softmax(dim=-1).mean(dim=1),
        select_and_vote(entropy, node.TOP_S, node.VOTE),
        select_and_vote(scores, node.TOP_S, node.VOTE),
    )
    return {rule: (out.argmax(dim=-1) == labels).float() for rule, out in zip(RULES, outputs, strict=True)}


def contexts(model: PromptedCLIP, runs: Path, seeds: list[int]) -> dict[str, list[Tensor]]:
    """The hand-written prompt, and the trained ones of each seed."""
    learner = model.prompt_learner
    found = {"hand-written": [learner.ctx.detach().clone()]}
    for name in ("CoOp", "SAPT"):
        for seed in seeds:
            load_context(find_epoch(runs / "runs" / name / f"seed{seed}" / "emoji" / "prompt_learner"), learner)
            found.setdefault(name, []).append(learner.ctx.detach().clone())
    return found


def measure(model: PromptedCLIP, prompts: dict[str, list[Tensor]], node: CfgNode) -> dict[str, dict[str, Tensor]]:
    """Style -> "prompt, rule" -> hits of each image, averaged over the prompt's seeds: (N,)."""
    measured: dict[str, dict[str, Tensor]] = {}
    for style, parts in tqdm(read_index()["items"].items(), desc="styles"):
        labels = torch.tensor([label for _, label, _ in parts["test"]])
        paths = [path for path, _, _ in parts["test"]]
        features = view_features(model, paths, tuple(node.CROP_SCALE), node.N_VIEWS, seed=0)
        measured[style] = {}
        for name, own in prompts.items():
            each = [hits(model, ctx, features, labels, node) for ctx in own]
            measured[style] |= {f"{name}, {r}": torch.stack([h[r] for h in each]).mean(0) for r in RULES}
    return measured


def interval(a: Tensor, b: Tensor) -> str:
    """Mean difference in points with its 95 % interval, paired over images."""
    gain = 100 * (a - b)
    half = 1.96 * gain.std().item() / math.sqrt(len(gain))
    return f"{gain.mean():+.1f} [{gain.mean() - half:+.1f}, {gain.mean() + half:+.1f}]"


def table(measured: dict[str, dict[str, Tensor]]) -> str:
    """Accuracy on the source and on the mean of the shifted styles, and STSS against the other rules there."""
    shifted = [style for style in measured if style != "noto"]
    rows = []
    for key in measured["noto"]:
        # An emoji is one image in six styles: the mean over the styles first, then statistics over emoji.
        over_styles = torch.stack([measured[style][key] for style in shifted]).mean(0)
        stss = key.split(", ")[0] + ", STSS"
        best = torch.stack([measured[style][stss] for style in shifted]).mean(0)
        gain = "-" if key == stss else interval(best, over_styles)
        source_gain = "-" if key == stss else interval(measured["noto"][stss], measured["noto"][key])
        rows.append([*key.split(", "), 100 * measured["noto"][key].mean(), source_gain, 100 * over_styles.mean(), gain])
    headers = ["prompt", "rule", "source", "STSS less this rule", "mean of the shifted", "STSS less this rule"]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".1f", disable_numparse=[0, 1, 3, 5])


def main() -> None:
    """Measures all rules and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("output/demo"), help="--output of scripts/demo.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    cfg = train.build_cfg(train.parse_args([*CONFIG, *DATASET]))
    clip_model = load_clip("EmojiCLIP")
    names = [c["name"] for c in read_index()["classes"]]
    model = PromptedCLIP(clip_model, PromptLearner(clip_model, names, ctx_init=cfg.TRAINER.SAPT.CTX_INIT))
    print(table(measure(model, contexts(model, args.runs, args.seeds), cfg.TRAINER.TLLA)))


if __name__ == "__main__":
    sys.exit(call(main))
