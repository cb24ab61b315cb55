"""Cost of a training step, images included: CoOp and SAPT here against CoOp with 77 tokens a prompt, by class number.

CoOp with 77 tokens runs OpenAI's own image encoder, as CoOp's code does.

The image encoder needs no gradient in any of them: CoOp freezes it, too. Where 77 tokens for all classes do not fit
into memory, smaller numbers of classes (--naive-classes) are measured and a line is drawn through them.

    python -m benchmarks.training --backbone ViT-B/16 --classes 100 1000
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.command_line import call
from tlla.sharpness import SharpnessStep, sharpness_step

from . import common
from .naive import FullLength, measure_or_fit

LAMBDAS = {"CoOp": 0.0, "SAPT": 1.0, "naive CoOp": 0.0}


class Step:
    """A step on a batch of images, the same in each run: the gradient of the context, and the context moved by it."""

    def __init__(self, what: str, n_classes: int, backbone: str, batch: int, device: str, precision: str):
        self.model = common.prompted_model(common.random_clip(backbone, device, precision), n_classes)
        self.ctx = self.model.prompt_learner.ctx.detach().clone()
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, 224, 224, generator=generator).to(memory_format=torch.channels_last)
        self.images, self.lam = images.to(device), LAMBDAS[what]
        self.labels = torch.randint(n_classes, (batch,), generator=generator).to(device)
        self.encode_text: Callable[[Tensor], Tensor] = self.model.encode_text
        self.encode_image: Callable[[Tensor], Tensor] = self.model.encode_image
        if what == "naive CoOp":
            naive = FullLength(self.model)
            self.encode_text, self.encode_image = lambda ctx: naive(ctx[None])[0], naive.encode_image
        self.autocast = functools.partial(common.in_precision, device, precision)
        self.scale = common.loss_scale(device, precision)

    def features(self) -> tuple[Tensor, Tensor]:
        """Of the images, (B, E), and of the classes, (K, E)."""
        with torch.no_grad(), self.autocast():
            return self.encode_image(self.images), self.encode_text(self.ctx)

    def __call__(self) -> SharpnessStep:
        with self.autocast():
            image_features = self.encode_image(self.images)

        def loss_fn(ctx: Tensor) -> Tensor:
            with self.autocast():
                text_features = self.encode_text(ctx)
            return F.cross_entropy(self.model.logits(image_features, text_features), self.labels)

        found = sharpness_step(loss_fn, self.ctx, 0.05, self.lam, self.scale)
        self.ctx.sub_(found.gradient, alpha=1e-3 / self.scale)
        return found


def cost(
    what: str, n_classes: int, backbone: str, batch: int, device: str, repeats: int, precision: str
) -> dict[str, Any]:
    """Seconds and peak memory of a step, and whether its numbers are finite, so that no pass was left out."""
    step = Step(what, n_classes, backbone, batch, device, precision)
    return common.measure(step, device, repeats) | {"finite": bool(step().finite)}


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--naive-classes", type=int, nargs="+", default=[50, 100, 200], help="of them 77 tokens fit")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()

    def found(what: str, n_classes: int) -> dict[str, Any]:
        settings = args.backbone, args.batch, args.device, args.repeats, args.precision
        return common.in_own_process(cost, what, n_classes, *settings)

    naive = measure_or_fit(lambda n_classes: found("naive CoOp", n_classes), args.naive_classes, args.classes)
    rows = []
    for n_classes in args.classes:
        costs = {what: found(what, n_classes) | {"how": "measured"} for what in ("CoOp", "SAPT")}
        rows += [
            {
                "backbone": args.backbone,
                "K": n_classes,
                "step": what,
                "s/step": found["median"],
                "peak MB": found["peak_mb"],
                "time / naive": found["median"] / naive[n_classes]["median"],
                "memory / naive": found["peak_mb"] / naive[n_classes]["peak_mb"],
                "how": found["how"],
            }
            for what, found in ({"naive CoOp": naive[n_classes]} | costs).items()
        ]
    common.write_report(f"training_{args.backbone.replace('/', '')}", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
