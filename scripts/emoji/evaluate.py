"""Measure EmojiCLIP as users get it: hand-written templates on the source's val split, or, once, every test set.

python -m scripts.emoji.evaluate --templates
python -m scripts.emoji.evaluate --tests
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlla.backbones.openai_package import clip
from tlla.command_line import call

from .assets import WEIGHTS, benchmark_index, load_images
from .export import exported_model
from .pictures import normalize_pixels
from .split import STYLES

TEMPLATES = (
    "{}.",
    "a photo of a {}.",
    "an icon of a {}.",
    "a picture of a {}.",
    "an emoji of a {}.",
    "a drawing of a {}.",
    "an icon of {}.",
    "a symbol of {}.",
)
CHOSEN = "an icon of a {}."


@torch.no_grad()
def image_features(model: nn.Module, images: Tensor) -> Tensor:
    """Unit features (N, D) of one view an image."""
    return F.normalize(torch.cat([model.encode_image(b) for b in normalize_pixels(images).split(256)]), dim=-1)


@torch.no_grad()
def text_features(model: nn.Module, template: str, names: list[str]) -> Tensor:
    """Unit features (K, D) of the classes' prompts."""
    return F.normalize(model.encode_text(clip.tokenize([template.format(n) for n in names])), dim=-1)


def measure(chances: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, mean confidence, and the share of confident (at least 0.9) predictions, in %."""
    top = chances.max(1)
    return {
        "accuracy": 100 * (top.indices == labels).float().mean().item(),
        "confidence": 100 * top.values.mean().item(),
        "sure": 100 * (top.values >= 0.9).float().mean().item(),
    }


def run(model: nn.Module, style: str, part: str, templates: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Template -> measures, on one split of one style."""
    index = benchmark_index()
    names = [c["name"] for c in index["classes"]]
    images, labels = load_images(index, style, part)
    image, scale = image_features(model, images), model.logit_scale.exp()
    return {t: measure((scale * image @ text_features(model, t, names).t()).softmax(1), labels) for t in templates}


def print_row(name: str, result: dict[str, float]) -> None:
    """One row of a Markdown table."""
    print(f"| {name} | " + " | ".join(f"{result[k]:.1f}" for k in ("accuracy", "confidence", "sure")) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--templates", action="store_true", help="compare templates on the source's val split")
    parser.add_argument("--tests", action="store_true", help="every style's test split; not for choosing anything")
    args = parser.parse_args()
    model = exported_model(args.weights)
    print(f"logit scale {model.logit_scale.exp():.1f}\n| | accuracy | confidence | sure |\n|---|--:|--:|--:|")
    if args.templates:
        for template, result in run(model, "noto", "val", TEMPLATES).items():
            print_row(f"`{template}`", result)
    if args.tests:
        print_row("noto val", run(model, "noto", "val", (CHOSEN,))[CHOSEN])
        for style in STYLES:
            print_row(f"{style} test", run(model, style, "test", (CHOSEN,))[CHOSEN])


if __name__ == "__main__":
    sys.exit(call(main))
