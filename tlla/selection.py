"""STSS: which views of a test image vote, and how (arXiv 2501.18864, eq. 5-8). Tensors in, tensors out.

A view's score is its entropy plus lambda times the largest rise of entropy under R random perturbations of the prompt;
the s views with the lowest score vote with the unperturbed prompt. lambda = 0 is entropy selection.

Letters in shapes: B images, V views, s kept views, K classes, E joint space, R perturbations.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError

VOTES = ("majority", "mean_prob", "mean_logit")


def check_selection(s: int, n_views: int, how: str) -> None:
    """Raises InputError unless s of n_views can be kept and their vote is known."""
    if not 1 <= s <= n_views:
        raise InputError(f"TOP_S must lie between 1 and the number of views, {n_views}, but got {s}")
    if how not in VOTES:
        raise InputError(f"VOTE must be one of {VOTES}, but got {how!r}")


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy (nats) of softmax(logits): (..., K) -> (...). 0 for one-hot distributions, never NaN."""
    return torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)


@dataclass(frozen=True)
class ViewScores:
    """Scores of views, each (B, V) float32: `score` = `entropy` + lambda * `sharpness`; `logits` is (B, V, K)."""

    score: Tensor
    entropy: Tensor
    sharpness: Tensor
    logits: Tensor


def score_views(view_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, lam: float) -> ViewScores:
    """STSS scores (eq. 5).

    Args:
        view_features: Normalised image features, (B, V, E).
        text_features: Normalised text features, (R + 1, K, E): first the unperturbed prompt, then R perturbed ones.
        logit_scale: Inverse temperature.
        lam: Weight of the sharpness term.

    Returns:
        Scores of all views; with R = 0 the sharpness is 0.
    """
    logits = logit_scale * view_features @ text_features[0].t()  # (B, V, K)
    plain = entropy(logits)  # (B, V)
    highest = torch.full_like(plain, -torch.inf)
    for perturbed in text_features[1:]:  # one at a time: (R, B, V, K) would not fit for 1000 classes
        highest = torch.maximum(highest, entropy(logit_scale * view_features @ perturbed.t()))
    sharpness = highest - plain if len(text_features) > 1 else torch.zeros_like(plain)
    return ViewScores(plain + lam * sharpness, plain, sharpness, logits)


def lowest(scores: Tensor, s: int) -> Tensor:
    """Indices of the s lowest scores of each row, (B, V) -> (B, s), in ascending order; ties go to the earlier view."""
    return scores.sort(dim=1, stable=True).indices[:, :s]


def vote(logits: Tensor, how: str) -> Tensor:
    """Aggregates the kept views into one distribution an image: (B, s, K) -> (B, K), rows sum to 1.

    Args:
        logits: Logits of the kept views under the unperturbed prompt.
        how: "majority": one vote a view; a tie is broken by mean probability, which enters with the weight of half a
            vote, so that it can never outweigh one. "mean_prob": mean of the probabilities. "mean_logit": softmax of
            the mean logit.
    """
    if how == "mean_logit":
        return logits.mean(dim=1).softmax(dim=-1)
    mean_prob = logits.softmax(dim=-1).mean(dim=1)  # (B, K)
    if how == "mean_prob":
        return mean_prob
    counts = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=1)  # (B, K)
    return (counts + 0.5 * mean_prob) / (logits.shape[1] + 0.5)


def select_and_vote(scores: ViewScores, s: int, how: str) -> Tensor:
    """Class distribution of each image by the votes of its s lowest-scored views: (B, K)."""
    check_selection(s, scores.score.shape[1], how)
    kept = lowest(scores.score, s)  # (B, s)
    index = kept[..., None].expand(-1, -1, scores.logits.shape[-1])
    return vote(scores.logits.gather(1, index), how)
