"""Cost of STSS's class features, those of R + 1 prompts for K classes: here against 77 tokens in one batch.

Where the batch does not fit into memory, smaller ones (--naive-prompts) are measured and a line is drawn through them.

    python -m benchmarks.class_set --classes 1000 --perturbations 8
"""

import sys
from typing import Any

import torch

from tlla.command_line import call

from . import common
from .naive import FullLength, measure_or_fit


@torch.no_grad()
def cost(
    what: str, n_classes: int, n_contexts: int, backbone: str, device: str, repeats: int, precision: str
) -> dict[str, Any]:
    """Seconds and peak memory of the class features under all contexts."""
    model = common.prompted_model(common.random_clip(backbone, device, precision), n_classes)
    contexts = model.prompt_learner.ctx + 0.01 * torch.randn(n_contexts, *model.prompt_learner.ctx.shape, device=device)
    encode = FullLength(model) if what == "naive" else model.encode_text
    with common.in_precision(device, precision):
        return common.measure(lambda: encode(contexts), device, repeats)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--perturbations", type=int, default=8)
    parser.add_argument("--naive-prompts", type=int, nargs="+", default=[100, 200, 400], help="at once, of 77 tokens")
    args = parser.parse_args()
    settings = args.backbone, args.device, args.repeats, args.precision
    total = (args.perturbations + 1) * args.classes
    ours = common.in_own_process(cost, "ours", args.classes, args.perturbations + 1, *settings)
    naive = measure_or_fit(
        lambda n: common.in_own_process(cost, "naive", n, 1, *settings), args.naive_prompts, [total]
    )[total]
    rows = [
        {
            "prompts": total,
            "text encoder": name,
            "s": found["median"],
            "peak MB": found["peak_mb"],
            "naive / this": naive["median"] / found["median"],
            "memory / naive": found["peak_mb"] / naive["peak_mb"],
            "how": found["how"],
        }
        for name, found in (("77 tokens, one batch", naive), ("ours", ours | {"how": "measured"}))
    ]
    common.write_report("class_set", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
