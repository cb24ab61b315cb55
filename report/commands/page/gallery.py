"""The images of a page: which ones, each one's picture, the boxes of its views, and what these said."""

import base64
import io
import os
import random
from pathlib import Path
from typing import Any

from PIL import Image

from tlla.views.make import ViewConfig, centre_crop_geometry, draw_crops
from trainers.harness.image_data import read_item

from .measure import Measured
from .scored_views import Views
from .summary import OUTCOMES, outcomes

SIDE = 224  # longest side of an embedded picture in pixels
QUALITY = 85


def choose_images(views: Views, limit: int, seed: int) -> list[int]:
    """Rows of at most `limit` images: rescued and spoiled ones first, then a seeded sample of the rest; sorted so."""
    kinds = outcomes(views).tolist()
    rows = list(range(len(kinds)))
    random.Random(seed).shuffle(rows)
    rows.sort(key=lambda row: OUTCOMES[kinds[row]] not in ("rescued", "spoiled"))
    return sorted(rows[:limit], key=lambda row: (min(kinds[row], 2), row))


def gallery(measured: Measured, limit: int) -> list[dict[str, Any]]:
    """What the page needs of each image that it shows."""
    kinds = outcomes(measured.views).tolist()
    chosen = choose_images(measured.views, limit, max(int(measured.record.content["seed"]), 0))
    return [{"outcome": OUTCOMES[kinds[row]], **_image(measured, row)} for row in chosen]


def _image(measured: Measured, row: int) -> dict[str, Any]:
    views, item = measured.views, measured.items[row]
    picture = read_item(measured.trainer.dm.dataset.test, int(views.index[row]))
    root = getattr(measured.trainer.dm.dataset, "dataset_dir", "") or Path(item.impath).parent
    width, height = picture.size
    boxes = view_boxes(width, height, int(views.index[row]), measured.trainer.tester.config)
    return {
        "file": Path(os.path.relpath(item.impath, root)).as_posix(),
        "label": int(views.label[row]),
        "prediction": int(views.prediction[row]),
        "confidence": round(float(views.confidence[row]), 4),
        "size": picture.size,
        "picture": data_uri(picture),
        "order": views.order[row].tolist(),
        "boxes": boxes,
        "score": _rounded(views.score[row]),
        "entropy": _rounded(views.entropy[row]),
        "sharpness": _rounded(views.sharpness[row]) if views.sharpness.any() else None,  # None: the method has none
        "view": views.view[row].tolist(),
        "sure": _rounded(views.view_confidence[row]),
        "votes": votes(views, row, measured.n_kept),
    }


def _rounded(values: Any) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def votes(views: Views, row: int, s: int) -> list[tuple[int, float, int]]:
    """(class, its final probability, how many of the s kept views say so) of the likeliest classes, likeliest first.

    The label and the class by one view are among them, whatever their probability.
    """
    kept = views.view[row][views.order[row][:s]].tolist()
    probability = dict(zip(views.shown[row].tolist(), views.shown_probability[row].tolist(), strict=True))
    ranked = sorted(probability.items(), key=lambda pair: -pair[1])
    return [(label, round(p, 4), kept.count(label)) for label, p in ranked]


def view_boxes(width: int, height: int, index: int, config: ViewConfig) -> list[list[float]]:
    """Left, top, right, bottom in pixels of the original image, and whether it is flipped, of each view: V rows."""
    (w, h), (left, top) = centre_crop_geometry(width, height, config.size)
    plain = (left * width / w, top * height / h, (left + config.size) * width / w, (top + config.size) * height / h)
    return [[*(round(x, 2) for x in plain), 0], *draw_crops(width, height, index, config).tolist()]


def data_uri(picture: Image.Image) -> str:
    """A picture of at most SIDE pixels as a data: URI in WebP."""
    small, buffer = picture.copy(), io.BytesIO()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
