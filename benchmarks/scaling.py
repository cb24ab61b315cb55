"""How costs grow: a test image under STSS with views V, classes K and perturbations R; a SAPT step with classes K,
context tokens L and images B of a batch. Each beside the image encoder on the same views or images.

Draws output/benchmarks/scaling.svg and .png: seconds after the encoding, and those of the encoding.

    python -m benchmarks.scaling
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from report import style
from report.style import plt
from tlla.clip import encode_images
from tlla.command_line import call
from tlla.selection import score_views, select_and_vote
from tlla.sharpness import sharpness_step

from . import common

VIEWS = (8, 16, 32, 64, 128, 256), (10, 30, 100, 300, 1000, 3000), (0, 1, 2, 4, 8, 16, 32)
STEPS = (10, 30, 100, 300), (1, 2, 4, 8, 16, 32), (1, 8, 32, 128)
# By the name of a row of panels: sizes that stay while another grows, the grid of each, and which the encoder is given.
ROWS = {
    "STSS: scores and vote": ({"V": 64, "K": 1000, "R": 8}, VIEWS, "V"),
    "SAPT's step: two text passes": ({"K": 100, "L": 4, "B": 32}, STEPS, "B"),
}


@torch.no_grad()
def stss_cost(n_views: int, n_classes: int, n_perturb: int, args: tuple) -> dict[str, float]:
    """Seconds and memory of the scores and the vote of one image, features at hand, E = 512."""
    _, device, repeats, _ = args
    features = F.normalize(torch.randn(1, n_views, 512, device=device), dim=-1)
    text = F.normalize(torch.randn(n_perturb + 1, n_classes, 512, device=device), dim=-1)
    keep = min(16, n_views)
    vote = lambda: select_and_vote(score_views(features, text, 100.0, 1.0), keep, "mean_prob")  # noqa: E731
    return common.measure(vote, device, max(repeats, 5))


def step_cost(n_classes: int, n_ctx: int, batch: int, args: tuple) -> dict[str, float]:
    """Seconds and memory of a step of SAPT, features of the images at hand."""
    backbone, device, repeats, precision = args
    clip_model = common.random_clip(backbone, device, precision)
    model = common.prompted_model(clip_model, n_classes, n_ctx)
    features = torch.randn(batch, clip_model.text_projection.shape[1], device=device)
    labels = torch.arange(batch, device=device) % n_classes

    def loss(ctx: torch.Tensor) -> torch.Tensor:
        with common.in_precision(device, precision):
            text = model.encode_text(ctx)
        return F.cross_entropy(model.logits(F.normalize(features, dim=-1), text), labels)

    ctx, scale = model.prompt_learner.ctx.detach(), common.loss_scale(device, precision)
    return common.measure(lambda: sharpness_step(loss, ctx, 0.05, 1.0, scale), device, repeats)


@torch.no_grad()
def encode_cost(n_images: int, args: tuple) -> dict[str, float]:
    """Seconds and memory of encoding images or views."""
    backbone, device, repeats, precision = args
    model = common.random_clip(backbone, device, precision)
    images = torch.randn(n_images, 3, 224, 224, device=device)
    with common.in_precision(device, precision):
        return common.measure(lambda: encode_images(model, images), device, repeats)


COSTS: tuple[Callable[..., dict[str, float]], ...] = stss_cost, step_cost


def draw(rows: list[dict[str, Any]], encoder: float, path: Any) -> None:
    """Seconds against each size, on logarithmic axes; the encoder's, `encoder` an image, as a line."""
    figure, axes = plt.subplots(len(ROWS), 3, figsize=(11, 6), sharey="row")
    for number, (what, (base, _, images)) in enumerate(ROWS.items()):
        for axis, name in zip(axes[number], base, strict=True):
            own = [row for row in rows if (row["what"], row["varied"]) == (what, name)]
            x = [row[name] for row in own]
            axis.plot(x, [row["seconds"] for row in own], **style.line(0), label="what is said on the left")
            lines = [encoder * (value if name == images else base[images]) for value in x]
            axis.plot(x, lines, **{**style.line(1), "marker": ""}, label="image encoder on the same views or images")
            axis.set_xscale("symlog" if name == "R" else "log")
            axis.set_yscale("log")
            fixed = ", ".join(f"{key} = {value}" for key, value in base.items() if key != name)
            axis.set_xlabel(f"{name}   ({fixed})")
        axes[number][0].set_ylabel(f"{what}, s")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    style.save(figure, path)


def main() -> None:
    """Measures, reports and draws."""
    args = common.parser(__doc__).parse_args()
    settings = args.backbone, args.device, args.repeats, args.precision
    encoded = common.in_own_process(encode_cost, 16, settings)
    rows = []
    for cost, (what, (base, grids, _)) in zip(COSTS, ROWS.items(), strict=True):
        for name, values in zip(base, grids, strict=True):
            for value in values:
                sizes = base | {name: value}
                found = common.in_own_process(cost, *sizes.values(), settings)
                row = {"what": what, "varied": name, **{key: sizes.get(key, "") for key in "VKRLB"}}
                rows.append(row | {"seconds": found["median"], "peak MB": found["peak_mb"]})
    common.write_report("scaling", rows, args)
    draw(rows, encoded["median"] / 16, args.output / "scaling")


if __name__ == "__main__":
    sys.exit(call(main))
