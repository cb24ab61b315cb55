"""The tables of a page: accuracy by method, by class, and the most frequent mistakes."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from .measure import Measured
from .scored_views import Views

MISTAKES = 12
OUTCOMES = ("rescued", "spoiled", "right", "wrong")  # by one view and by STSS: wrong-right, right-wrong, both, neither


def outcomes(views: Views) -> Tensor:
    """Each image's place in OUTCOMES, (N,)."""
    one, stss = views.one == views.label, views.prediction == views.label
    return torch.where(one == stss, torch.where(stss, 2, 3), torch.where(stss, 0, 1))


def methods_table(measured: Measured) -> list[tuple[str, int]]:
    """Name and number of right images of the run's method and of what it is to be compared with."""
    views, n_kept, method = measured.views, measured.n_kept, measured.method
    rule = "" if method.has_own_rule else f" by the rule {method.build_rule()}{' (used labels)' * method.uses_labels}"
    rows = [
        (f"{measured.record.trainer}: {n_kept} views of lowest score{rule}", views.prediction),
        ("one view with the same prompt", views.one),
        (f"mean of all {views.view.shape[1]} views", views.mean),
        (f"entropy selection: {n_kept} views of lowest entropy", views.surest),
    ]
    return [(name, int((prediction == views.label).sum())) for name, prediction in rows]


def class_table(views: Views, n_classes: int) -> list[dict[str, int]]:
    """Of each class with test images: its label, images, right by one view and by STSS, rescued, spoiled."""
    counts = torch.zeros(n_classes, len(OUTCOMES), dtype=torch.int64)
    counts.index_put_((views.label, outcomes(views)), torch.tensor(1), accumulate=True)
    rows = []
    for label, (rescued, spoiled, right, wrong) in enumerate(counts.tolist()):
        if total := rescued + spoiled + right + wrong:
            row = {"label": label, "total": total, "one": right + spoiled, "stss": right + rescued}
            rows.append({**row, "rescued": rescued, "spoiled": spoiled})
    return rows


def mistakes_table(views: Views) -> list[dict[str, int]]:
    """The most frequent pairs of label and wrong prediction, and how often one view makes them; ties by label."""

    def count(prediction: Tensor) -> Counter[tuple[int, int]]:
        wrong = prediction != views.label
        return Counter(zip(views.label[wrong].tolist(), prediction[wrong].tolist(), strict=True))

    by_stss, by_one = count(views.prediction), count(views.one)
    pairs = sorted(by_stss, key=lambda pair: (-by_stss[pair], pair))[:MISTAKES]
    return [{"label": a, "prediction": b, "stss": by_stss[a, b], "one": by_one[a, b]} for a, b in pairs]


def run_tables(measured: Measured) -> dict[str, Any]:
    """All tables of a run, for the page."""
    views, names = measured.views, list(measured.trainer.dm.dataset.classnames)
    counts = outcomes(views).bincount(minlength=len(OUTCOMES)).tolist()
    return {
        "total": len(views.index),
        "methods": methods_table(measured),
        "outcomes": dict(zip(OUTCOMES, counts, strict=True)),
        "classnames": names,
        "classes": class_table(views, len(names)),
        "mistakes": mistakes_table(views),
    }
