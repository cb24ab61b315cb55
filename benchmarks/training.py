"""Cost of a training step, images included: CoOp and SAPT here against CoOp with 77 tokens a prompt, by class number.

The image encoder needs no gradient in any of them: CoOp freezes it, too. Where 77 tokens for all classes do not fit
into memory, smaller numbers of classes (--naive-classes) are measured and a line is drawn through them.

    python -m benchmarks.training --backbone ViT-B/16 --classes 100 1000
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F

from tlla.command_line import call
from tlla.sharpness import sharpness_step

from . import common
from .naive import FullLength, measure_or_fit

LAMBDAS = {"CoOp": 0.0, "SAPT": 1.0, "naive CoOp": 0.0}


def cost(what: str, n_classes: int, backbone: str, batch: int, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of a step: gradient of the context, and the context moved by it."""
    model = common.prompted_model(common.random_clip(backbone, device), n_classes)
    images = torch.randn(batch, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(n_classes, (batch,), device=device)
    ctx = model.prompt_learner.ctx.detach()
    naive = FullLength(model)

    def step() -> None:
        image_features = model.encode_image(images)

        def loss_fn(ctx: torch.Tensor) -> torch.Tensor:
            text_features = naive(ctx[None])[0] if what == "naive CoOp" else model.encode_text(ctx)
            return F.cross_entropy(model.logits(image_features, text_features), labels)

        ctx.sub_(1e-3 * sharpness_step(loss_fn, ctx, 0.05, LAMBDAS[what]).gradient)

    return common.measure(step, device, repeats)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--naive-classes", type=int, nargs="+", default=[50, 100, 200], help="of them 77 tokens fit")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()

    def found(what: str, n_classes: int) -> dict[str, Any]:
        return common.in_own_process(cost, what, n_classes, args.backbone, args.batch, args.device, args.repeats)

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
