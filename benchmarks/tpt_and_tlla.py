"""Cost of a test image: STSS (TLLA's test time) against encoding its 64 views alone, and against TPT.

"encode" is the image encoder on the 64 views, which all need; STSS then needs matrix products, TPT the text encoder
forward twice and backward once: ours with the text cut, and in the manner of its authors with 77 tokens. Class features
that serve all images are made before the clock starts.

    python -m benchmarks.tpt_and_tlla --classes 100 200 1000 --naive 50 100 200
"""

import argparse
from typing import Any

import torch
import torch.nn.functional as F

from tlla.classifier import PromptClassifier
from tlla.clip import encode_images
from tlla.methods import METHODS
from tlla.methods.base import tune
from tlla.selection import confident, marginal_entropy

from . import common

NAIVE = "TPT, 77 tokens"


@torch.no_grad()
def cost(what: str, n_classes: int, backbone: str, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of one image's views under a method, or of encoding them."""
    model = common.random_clip(backbone, device)
    if what == "encode":
        views = torch.randn(64, 3, 224, 224, device=device)
        return common.measure(lambda: encode_images(model, views), device, repeats)
    features = F.normalize(torch.randn(1, 64, model.text_projection.shape[1], device=device), dim=-1)
    if what == NAIVE:
        naive = common.NaivePrompt(model, n_classes)
        return common.measure(lambda: naive_tpt(naive, features[0]), device, repeats)
    method = METHODS[what]()
    method.start(PromptClassifier(common.prompted(model, n_classes)))
    return common.measure(lambda: method.predict(features), device, repeats)


def naive_tpt(prompt: common.NaivePrompt, features: torch.Tensor) -> torch.Tensor:
    """TPT as its authors run it: select by the untuned prompt in the pass that is tuned, one step, one more pass."""

    def loss(ctx: torch.Tensor) -> torch.Tensor:
        logits = 100 * features @ prompt(ctx).t()  # (V, K)
        return marginal_entropy(logits[confident(logits[None], 0.1)[0]])

    (ctx,) = tune([prompt.ctx], loss, lr=5e-3)
    return (100 * features[0] @ prompt(ctx).t()).softmax(dim=-1)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 200, 1000])
    parser.add_argument("--naive", type=int, nargs="*", default=[50, 100, 200], help="classes of TPT with 77 tokens")
    args: argparse.Namespace = parser.parse_args()
    settings = (args.backbone, args.device, args.repeats)
    encode = common.in_own_process(cost, "encode", 0, *settings)
    measured = {
        (what, k): common.in_own_process(cost, what, k, *settings) for k in args.classes for what in ("STSS", "TPT")
    }
    measured |= {(NAIVE, k): common.in_own_process(cost, NAIVE, k, *settings) for k in args.naive}
    rows = []
    for (what, k), own in sorted(measured.items(), key=lambda item: item[0][::-1]):
        seconds, peak = encode["median"] + own["median"], max(encode["peak_mb"], own["peak_mb"])
        row = {"K": k, "method": what, "encode s": encode["median"], "own s": own["median"], "s/image": seconds}
        row |= {"/ encode": seconds / encode["median"], "own peak MB": own["peak_mb"], "peak MB": peak}
        if stss := measured.get(("STSS", k)):
            row["times STSS"] = seconds / (encode["median"] + stss["median"])
            row["own memory / STSS"] = own["peak_mb"] / max(stss["peak_mb"], 1.0)
        rows.append(row)
    common.report("tpt_and_tlla", rows, args)


if __name__ == "__main__":
    main()
