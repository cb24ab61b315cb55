"""Cost of a test image: STSS (TLLA's test time) against encoding its 64 views alone, and against TPT.

"encode" is the image encoder on the 64 views, which all need; STSS then needs matrix products, TPT the text encoder
forward twice and backward once: ours with the text cut, and in the manner of its authors with 77 tokens and OpenAI's
own image encoder. Class features that serve all images are made before the clock starts.

    python -m benchmarks.tpt_and_tlla --classes 200 1000
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.clip import encode_images
from tlla.command_line import call
from tlla.methods import METHODS
from tlla.methods.base import tune
from tlla.prompts.classifier import PromptClassifier
from tlla.selection import confident, marginal_entropy

from . import common
from .naive import FullLength, measure_or_fit, openai_features

NAIVE = "TPT, 77 tokens"
ENCODERS = {"encode": encode_images, "encode by OpenAI's": openai_features}


@torch.no_grad()
def cost(what: str, n_classes: int, backbone: str, device: str, repeats: int, precision: str) -> dict[str, Any]:
    """Seconds and peak memory of one image's views under a method, or of encoding them."""
    model = common.random_clip(backbone, device, precision)
    views = torch.randn(1, 64, 3, 224, 224, device=device)
    if what in ENCODERS:
        with common.in_precision(device, precision):
            return common.measure(lambda: ENCODERS[what](model, views[0]), device, repeats)
    features = F.normalize(torch.randn(1, 64, model.text_projection.shape[1], device=device), dim=-1)
    predict = predict_by(what, n_classes, backbone, device, precision)
    return common.measure(lambda: predict(features, views), device, repeats)


def predict_by(
    what: str, n_classes: int, backbone: str, device: str, precision: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """A method that is ready for images: features (1, V, E) and pixels of an image's views -> class probabilities."""
    prompt = common.prompted_model(common.random_clip(backbone, device, precision), n_classes)
    scale, autocast = common.loss_scale(device, precision), lambda: common.in_precision(device, precision)
    if what == NAIVE:
        naive, ctx = FullLength(prompt), prompt.prompt_learner.ctx.detach()

        def encode(ctx: Tensor) -> Tensor:
            with autocast():
                return naive(ctx[None])[0]

        return lambda features, views: naive_tpt(encode, ctx, features[0], scale)
    method = METHODS[what]()
    method.start(PromptClassifier(prompt, autocast, scale))
    method.n_images = sys.maxsize
    return method.predict


def naive_tpt(encode: Callable[[Tensor], Tensor], ctx: Tensor, features: Tensor, scale: float) -> Tensor:
    """TPT as its authors run it: select by the untuned prompt in the pass that is tuned, one step, one more pass."""

    def loss(ctx: Tensor) -> Tensor:
        logits = 100 * features @ encode(ctx).t()  # (V, K)
        return marginal_entropy(logits[confident(logits[None], 0.1)[0]])

    (tuned,) = tune([ctx], loss, lr=5e-3, loss_scale=scale)
    return (100 * features[0] @ encode(tuned).t()).softmax(dim=-1)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--naive-classes", type=int, nargs="+", default=[50, 100, 200], help="of them 77 tokens fit")
    args = parser.parse_args()

    def found(what: str, n_classes: int) -> dict[str, Any]:
        settings = args.backbone, args.device, args.repeats, args.precision
        return common.in_own_process(cost, what, n_classes, *settings)

    ours, plain = (found(what, 0) for what in ENCODERS)
    naive = measure_or_fit(lambda n_classes: found(NAIVE, n_classes), args.naive_classes, args.classes)
    rows = []
    for n_classes in args.classes:
        costs = {what: found(what, n_classes) | {"how": "measured"} for what in ("STSS", "TPT")}
        stss = ours["median"] + costs["STSS"]["median"]
        for what, own in (costs | {NAIVE: naive[n_classes]}).items():
            encode = plain if what == NAIVE else ours
            seconds = encode["median"] + own["median"]
            row = {"K": n_classes, "method": what, "encode s": encode["median"], "own s": own["median"]}
            row |= {"s/image": seconds, "/ OpenAI's": seconds / plain["median"], "times STSS": seconds / stss}
            row |= {"own peak MB": own["peak_mb"], "encode peak MB": encode["peak_mb"], "how": own["how"]}
            rows.append(row)
    common.write_report(f"tpt_and_tlla_{args.backbone.replace('/', '')}", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
