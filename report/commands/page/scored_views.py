"""What each view of each test image predicts under a method that scores views, of all images of a run's test."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from tlla.methods.stss import STSS
from tlla.metrics import score
from tlla.rules import Known
from tlla.selection import lowest, select_and_vote, vote
from trainers.base import ClipTrainer

from ...view_batches import view_batches

SPLIT = "test"
TOP = 5  # classes of an image whose probabilities are kept


@dataclass(frozen=True)
class Views:
    """N tested images in the order of the set, V views; classes are labels."""

    index: Tensor  # position in the dataset, (N,)
    label: Tensor  # right class, (N,)
    prediction: Tensor  # class by the method, (N,)
    confidence: Tensor  # probability of `prediction`, (N,)
    one: Tensor  # class by the centre crop alone, (N,)
    mean: Tensor  # class by the mean probability of all views, (N,)
    surest: Tensor  # class by the same number of views and the same vote, selected by entropy alone, (N,)
    shown: Tensor  # the `TOP` likeliest classes by the method, then the label, then `one`, (N, TOP + 2)
    shown_probability: Tensor  # probabilities of `shown`, (N, TOP + 2)
    score: Tensor  # of each view, (N, V)
    entropy: Tensor  # of each view, in nats, (N, V)
    sharpness: Tensor  # of each view, in nats, (N, V)
    order: Tensor  # views by ascending score, (N, V); the first s were kept
    view: Tensor  # class by each view alone, (N, V)
    view_confidence: Tensor  # probability of `view`, (N, V)


def all_views(trainer: ClipTrainer, method: STSS) -> Views:
    """Tests all images, in the run's own batches; `method` has been started with the run's prompt."""
    pairs = view_batches(trainer, SPLIT)
    batches = [_views(method, batch, features) for batch, features in pairs]
    columns = {field.name: torch.cat([getattr(b, field.name) for b in batches]) for field in fields(Views)}
    place = columns["index"].argsort()
    return Views(**{name: values[place] for name, values in columns.items()})


@torch.no_grad()
def _views(method: STSS, batch: dict[str, Any], features: Tensor) -> Views:
    label = batch["label"].to(features.device)
    method.known = Known(batch["index"], label)
    scores, s = method.scores(features), method.n_kept(features.shape[1])
    probability = select_and_vote(scores, s, method.vote)  # (B, K)
    own = score(probability, label)
    view_confidence, view = scores.logits.softmax(dim=-1).max(dim=-1)  # (B, V)
    likeliest = probability.topk(min(TOP, probability.shape[1])).indices
    shown = torch.cat([likeliest, label[:, None], view[:, :1]], dim=1)
    by_entropy = select_and_vote(replace(scores, score=scores.entropy), s, method.vote)
    views = Views(
        index=batch["index"],
        label=label,
        prediction=own["prediction"],
        confidence=own["confidence"],
        one=view[:, 0],
        mean=vote(scores.logits, "mean_prob").argmax(dim=-1),
        surest=by_entropy.argmax(dim=-1),
        shown=shown,
        shown_probability=probability.gather(1, shown),
        score=scores.score,
        entropy=scores.entropy,
        sharpness=scores.sharpness,
        order=lowest(scores.score, scores.score.shape[1]),
        view=view,
        view_confidence=view_confidence,
    )
    return Views(**{field.name: getattr(views, field.name).cpu() for field in fields(Views)})
