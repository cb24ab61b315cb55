"""Cost of a test image: STSS (TLLA's test time) against encoding its 64 views alone, and against TPT.

"encode" is the image encoder on the 64 views, which all need; STSS then needs matrix products, TPT the text encoder
forward twice and backward once: ours with the text cut, and in the manner of its authors with 77 tokens. Class features
that serve all images are made before the clock starts.

    python -m benchmarks.tpt_and_tlla --classes 200 1000
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F

from tlla.clip import encode_images
from tlla.command_line import call
from tlla.methods import METHODS
from tlla.methods.base import tune
from tlla.prompts.classifier import PromptClassifier
from tlla.selection import confident, marginal_entropy

from . import common
from .naive import FullLength, measure_or_fit

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
        prompt = common.prompted_model(model, n_classes)
        naive, ctx = FullLength(prompt), prompt.prompt_learner.ctx.detach()
        return common.measure(lambda: naive_tpt(naive, ctx, features[0]), device, repeats)
    method = METHODS[what]()
    method.start(PromptClassifier(common.prompted_model(model, n_classes)))
    return common.measure(lambda: method.predict(features), device, repeats)


def naive_tpt(encode: FullLength, ctx: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """TPT as its authors run it: select by the untuned prompt in the pass that is tuned, one step, one more pass."""

    def loss(ctx: torch.Tensor) -> torch.Tensor:
        logits = 100 * features @ encode(ctx[None])[0].t()  # (V, K)
        return marginal_entropy(logits[confident(logits[None], 0.1)[0]])

    (tuned,) = tune([ctx], loss, lr=5e-3)
    return (100 * features[0] @ encode(tuned[None])[0].t()).softmax(dim=-1)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--naive-classes", type=int, nargs="+", default=[50, 100, 200], help="of them 77 tokens fit")
    args = parser.parse_args()

    def found(what: str, n_classes: int) -> dict[str, Any]:
        return common.in_own_process(cost, what, n_classes, args.backbone, args.device, args.repeats)

    encode = found("encode", 0)
    naive = measure_or_fit(lambda n_classes: found(NAIVE, n_classes), args.naive_classes, args.classes)
    rows = []
    for n_classes in args.classes:
        costs = {what: found(what, n_classes) | {"how": "measured"} for what in ("STSS", "TPT")}
        stss = encode["median"] + costs["STSS"]["median"]
        for what, own in (costs | {NAIVE: naive[n_classes]}).items():
            seconds = encode["median"] + own["median"]
            row = {"K": n_classes, "method": what, "encode s": encode["median"], "own s": own["median"]}
            row |= {"s/image": seconds, "/ encode": seconds / encode["median"], "times STSS": seconds / stss}
            row |= {"own peak MB": own["peak_mb"], "encode peak MB": encode["peak_mb"], "how": own["how"]}
            rows.append(row)
    common.write_report(f"tpt_and_tlla_{args.backbone.replace('/', '')}", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
