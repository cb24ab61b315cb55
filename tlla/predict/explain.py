"""Draws STSS's selection for an image: the views that voted, their votes, and the views that were dropped."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..views.make import ViewConfig, draw_crops
from .drawing import INK, draw_text, text_length
from .predictor import Batch

# Blue and vermilion of Okabe and Ito, distinct for colour-blind readers; never the only difference.
AGREES, DIFFERS, GREY, LINE = "#0072B2", "#D55E00", "#757575", "#dddddd"
MARGIN, GAP, LEFT = 32, 12, 340
KEPT_SIDE, DROPPED_SIDE, CAPTION = 108, 68, 44
RIGHT = 8 * (KEPT_SIDE + GAP) - GAP
WIDTH = MARGIN + LEFT + MARGIN + RIGHT + MARGIN


@dataclass(frozen=True)
class Look:
    """The content of one drawing.

    Attributes:
        name: Name of the image.
        image: The image, reduced.
        boxes: Boxes of views 1 to V - 1 in the full image, in pixels, (V - 1, 4).
        size: Width and height of the full image.
        views: (V, size, size, 3), uint8.
        votes: Class of each view.
        score, entropy, sharpness: Values of each view, (V,).
        kept: Views that vote, lowest score first.
        rule: The selection rule that gives the scores.
        prediction: The predicted class.
        top: The most probable classes.
    """

    name: str
    image: Image.Image
    boxes: np.ndarray
    size: tuple[int, int]
    views: np.ndarray
    votes: list[str]
    score: list[float]
    entropy: list[float]
    sharpness: list[float]
    kept: list[int]
    rule: str
    prediction: str
    top: list[tuple[str, float]]

    @property
    def agreement(self) -> float:
        """Fraction of the votes for the prediction."""
        return sum(self.votes[v] == self.prediction for v in self.kept) / len(self.kept)


def looks(batch: Batch, config: ViewConfig) -> Iterator[tuple[int, Look]]:
    """Index and `Look` of each image in a batch that was predicted by STSS with thumbnails.

    >>> batch = next(tlla.Predictor(model, ["fruit", "tool"], n_views=4, top_s=2).batches([image], thumbnails=True))
    >>> [look.votes for index, look in looks(batch, ViewConfig(64, 4))]
    [['fruit', 'fruit', 'fruit', 'fruit']]
    """
    scores, kept, predictions = batch.scores, batch.kept, batch.predictions
    if scores is None or kept is None:
        return
    for i, one in enumerate(batch.loaded):
        if one.thumbnail is None or one.views is None:
            continue
        yield (
            one.index,
            Look(
                name=one.name,
                image=one.thumbnail,
                boxes=draw_crops(*one.size, one.index, config)[:, :4],
                size=one.size,
                views=_pixels(one.views),
                votes=[predictions.class_names[k] for k in scores.logits[i].argmax(dim=-1).tolist()],
                score=scores.score[i].tolist(),
                entropy=scores.entropy[i].tolist(),
                sharpness=scores.sharpness[i].tolist(),
                kept=kept[i].tolist(),
                rule=batch.rule,
                prediction=predictions.labels[i],
                top=predictions.top[i],
            ),
        )


def _pixels(views: Tensor) -> np.ndarray:
    levels = views if views.dtype == torch.uint8 else (views * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).numpy()


def draw(look: Look) -> Image.Image:
    """Draws a `Look`: the image and the probabilities on the left, the views by score on the right.

    >>> batch = next(tlla.Predictor(model, ["fruit", "tool"], n_views=4, top_s=2).batches([image], thumbnails=True))
    >>> [draw(look).width for index, look in looks(batch, ViewConfig(64, 4))]
    [1384]
    """
    order = sorted(range(len(look.votes)), key=lambda v: (look.score[v], v))
    dropped = [v for v in order if v not in set(look.kept)]
    columns = (RIGHT + GAP) // (DROPPED_SIDE + GAP)
    rows_kept, rows_dropped = math.ceil(len(look.kept) / 8), math.ceil(len(dropped) / columns)
    head = 96
    grid = head + 44 + rows_kept * (KEPT_SIDE + CAPTION + GAP) + 48 + rows_dropped * (DROPPED_SIDE + 36 + GAP)
    left = head + LEFT + 90 + 46 * len(look.top) + 150
    canvas = Image.new("RGB", (WIDTH, max(grid, left) + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    draw_text(pen, (MARGIN, MARGIN - 6), look.prediction, 34, RIGHT, bold=True)
    share = f"{100 * look.top[0][1]:.1f} %"
    draw_text(pen, (MARGIN + text_length(look.prediction, 34, RIGHT, True) + 18, MARGIN + 6), share, 24, RIGHT)
    draw_text(pen, (WIDTH - MARGIN, MARGIN + 8), Path(look.name).name, 18, RIGHT // 2, GREY, anchor="ra")
    pen.line((MARGIN, head - 12, WIDTH - MARGIN, head - 12), LINE, 2)
    _draw_left(canvas, pen, look, head)
    x, y = MARGIN + LEFT + MARGIN, head
    draw_text(pen, (x, y), f"{len(look.kept)} views vote", 20, 300, bold=True)
    _legend(pen, (x + 190, y + 3), look)
    _draw_views(canvas, pen, look, look.kept, (x, y + 40), KEPT_SIDE, 8, True)
    y += 44 + rows_kept * (KEPT_SIDE + CAPTION + GAP)
    if dropped:
        draw_text(pen, (x, y + 4), f"{len(dropped)} views are dropped", 20, RIGHT, bold=True)
        _draw_views(canvas, pen, look, dropped, (x, y + 44), DROPPED_SIDE, columns, False)
    return canvas


def _draw_left(canvas: Image.Image, pen: ImageDraw.ImageDraw, look: Look, top: int) -> None:
    """Draws the image with the voting crops, the probabilities, and the numbers."""
    image = look.image.copy()
    scale = LEFT / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    x, y = MARGIN + (LEFT - image.width) // 2, top
    canvas.paste(image, (x, y))
    pen.rectangle((x, y, x + image.width - 1, y + image.height - 1), outline=LINE)
    ratio = image.width / look.size[0], image.height / look.size[1]
    for v in (v for v in reversed(look.kept) if v > 0):
        a, b, c, d = look.boxes[v - 1]
        box = (x + a * ratio[0], y + b * ratio[1], x + c * ratio[0] - 1, y + d * ratio[1] - 1)
        pen.rectangle(box, outline=_colour(look, v), width=1)
    y += image.height + 10
    draw_text(pen, (MARGIN, y), "with the crops that vote", 15, LEFT, GREY)
    y += 40
    for name, p in look.top:
        draw_text(pen, (MARGIN, y), name, 18, LEFT - 80)
        draw_text(pen, (MARGIN + LEFT, y), f"{100 * p:.1f} %", 18, 80, anchor="ra")
        pen.rectangle((MARGIN, y + 25, MARGIN + LEFT, y + 31), fill="#eeeeee")
        pen.rectangle((MARGIN, y + 25, MARGIN + LEFT * p, y + 31), fill=AGREES if name == look.prediction else GREY)
        y += 46
    y += 8
    for line in _numbers(look):
        draw_text(pen, (MARGIN, y), line, 16, LEFT, GREY)
        y += 24


def _numbers(look: Look) -> list[str]:
    kept = look.kept
    mean = [sum(values[v] for v in kept) / len(kept) for values in (look.entropy, look.sharpness)]
    numbers = [f"{look.agreement:.0%} of the votes agree", f"entropy of the voting views: {mean[0]:.2f} nats"]
    return [*numbers, f"their sharpness: {mean[1]:.3f} nats" if any(look.sharpness) else f"score: the rule {look.rule}"]


def _legend(pen: ImageDraw.ImageDraw, place: tuple[int, int], look: Look) -> None:
    x, y = place
    for colour, text in ((AGREES, "for the prediction"), (DIFFERS, "for another class")):
        pen.rectangle((x, y + 3, x + 14, y + 17), outline=colour, width=4)
        draw_text(pen, (x + 22, y), text, 16, 200, GREY)
        x += 190
    draw_text(pen, (x, y), f"below: vote, score by {look.rule}", 16, 330, GREY)


def _draw_views(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    look: Look,
    views: Sequence[int],
    place: tuple[int, int],
    side: int,
    columns: int,
    kept: bool,
) -> None:
    """Draws a grid of views with their votes and scores; dropped views are pale and have no frame."""
    step = (side + GAP, side + (CAPTION if kept else 36) + GAP)
    for n, v in enumerate(views):
        x, y = place[0] + n % columns * step[0], place[1] + n // columns * step[1]
        view = Image.fromarray(look.views[v]).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(view if kept else Image.blend(view, Image.new("RGB", view.size, "white"), 0.45), (x, y))
        if not kept:
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline=LINE)
        else:
            pen.rectangle((x - 2, y - 2, x + side + 1, y + side + 1), outline=_colour(look, v), width=5)
        size, ink = (15, INK) if kept else (12, GREY)
        draw_text(pen, (x, y + side + 5), look.votes[v], size, side, _colour(look, v) if kept else ink)
        crop = " centre" if v == 0 else ""
        draw_text(pen, (x, y + side + 6 + round(1.25 * size)), f"{look.score[v]:.2f}{crop}", size - 1, side, GREY)


def _colour(look: Look, view: int) -> str:
    return AGREES if look.votes[view] == look.prediction else DIFFERS
