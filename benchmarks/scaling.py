"""How the cost of STSS for a test image grows with views V, classes K and perturbations R, beside the image encoder.

Draws output/benchmarks/scaling.svg and .png: seconds after the encoding, and what encoding the same views costs.

    python -m benchmarks.scaling
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F

from report import style
from report.style import plt
from tlla.clip import encode_images
from tlla.command_line import call
from tlla.selection import score_views, select_and_vote

from . import common

BASE = {"V": 64, "K": 1000, "R": 8}
GRID = {"V": (8, 16, 32, 64, 128, 256), "K": (10, 30, 100, 300, 1000, 3000), "R": (0, 1, 2, 4, 8, 16, 32)}


@torch.no_grad()
def stss_cost(n_views: int, n_classes: int, n_perturb: int, device: str, repeats: int) -> dict[str, float]:
    """Seconds and memory of the scores and the vote of one image, features at hand, E = 512."""
    features = F.normalize(torch.randn(1, n_views, 512, device=device), dim=-1)
    text = F.normalize(torch.randn(n_perturb + 1, n_classes, 512, device=device), dim=-1)
    keep = min(16, n_views)
    vote = lambda: select_and_vote(score_views(features, text, 100.0, 1.0), keep, "mean_prob")  # noqa: E731
    return common.measure(vote, device, repeats)


@torch.no_grad()
def encode_cost(n_views: int, backbone: str, device: str, repeats: int, precision: str) -> dict[str, float]:
    """Seconds and memory of encoding the views of one image."""
    model = common.random_clip(backbone, device, precision)
    views = torch.randn(n_views, 3, 224, 224, device=device)
    with common.in_precision(device, precision):
        return common.measure(lambda: encode_images(model, views), device, repeats)


def draw(rows: list[dict[str, Any]], encoder: float, path: Any) -> None:
    """Seconds against V, K and R, on logarithmic axes with the encoder's share as a line."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True)
    for axis, name in zip(axes, GRID, strict=True):
        own = [row for row in rows if row["varied"] == name]
        x = [row[name] for row in own]
        axis.plot(x, [row["seconds"] for row in own], **style.line(0), label="STSS: scores and vote")
        lines = [encoder * (value if name == "V" else BASE["V"]) for value in x]
        axis.plot(x, lines, **{**style.line(1), "marker": ""}, label="image encoder on the views")
        axis.set_xscale("symlog" if name == "R" else "log")
        axis.set_yscale("log")
        fixed = ", ".join(f"{key} = {value}" for key, value in BASE.items() if key != name)
        axis.set_xlabel(f"{name}   ({fixed})")
    axes[0].set_ylabel("seconds for an image")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    style.save(figure, path)


def main() -> None:
    """Measures, reports and draws."""
    args = common.parser(__doc__).parse_args()
    encoded = common.in_own_process(encode_cost, 16, args.backbone, args.device, args.repeats, args.precision)
    rows = []
    for name, values in GRID.items():
        for value in values:
            sizes = BASE | {name: value}
            found = common.in_own_process(stss_cost, *sizes.values(), args.device, max(args.repeats, 5))
            rows.append({"varied": name, **sizes, "seconds": found["median"], "peak MB": found["peak_mb"]})
    common.write_report("scaling", rows, args)
    draw(rows, encoded["median"] / 16, args.output / "scaling")


if __name__ == "__main__":
    sys.exit(call(main))
