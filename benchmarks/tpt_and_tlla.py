"""Cost of a test image: TPT against STSS (TLLA's test time), 64 views, by number of classes.

"encode" is the image encoder on the 64 views, which both need; then STSS needs matrix products, TPT the text encoder
forward twice and backward once. Text features that serve all images are made before the clock starts.

    python -m benchmarks.tpt_and_tlla --classes 200 1000
"""

import argparse
from typing import Any

import torch

from tlla.classifier import PromptClassifier
from tlla.clip import encode_images
from tlla.methods import METHODS

from . import common


@torch.no_grad()
def cost(what: str, n_classes: int, backbone: str, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of one image's views under a method, or of encoding them."""
    model = common.random_clip(backbone, device)
    views = torch.randn(64, 3, 224, 224, device=device)
    if what == "encode":
        return common.measure(lambda: encode_images(model, views), device, repeats)
    features = torch.nn.functional.normalize(torch.randn(1, 64, model.text_projection.shape[1], device=device), dim=-1)
    method = METHODS[what]()
    method.start(PromptClassifier(common.prompted(model, n_classes)))
    return common.measure(lambda: method.predict(features), device, repeats)


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[200, 1000])
    args: argparse.Namespace = parser.parse_args()
    settings = (args.backbone, args.device, args.repeats)
    encode = common.in_own_process(cost, "encode", 0, *settings)
    rows = []
    for n_classes in args.classes:
        totals = {}
        for what in ("STSS", "TPT"):
            own = common.in_own_process(cost, what, n_classes, *settings)
            totals[what] = encode["median"] + own["median"], max(encode["peak_mb"], own["peak_mb"])
            rows.append(
                {
                    "K": n_classes,
                    "method": what,
                    "encode s": encode["median"],
                    "own s": own["median"],
                    "s/image": totals[what][0],
                    "/ encode": totals[what][0] / encode["median"],
                    "own peak MB": own["peak_mb"],
                    "peak MB": totals[what][1],
                    "times STSS": totals[what][0] / totals["STSS"][0],
                    "memory / STSS": totals[what][1] / totals["STSS"][1],
                }
            )
    common.report("tpt_and_tlla", rows, args)


if __name__ == "__main__":
    main()
