"""STSS: which views of a test image vote, and how (arXiv 2501.18864, eq. 5-8). Tensors in, tensors out.

A view's score is its entropy plus lambda times the largest rise of entropy under R random perturbations of the prompt;
the s views with the lowest score vote with the unperturbed prompt. lambda = 0 is entropy selection.

Letters in shapes: B images, V views, s kept views, K classes, E joint space, R perturbations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import one_of
from .errors import InputError

VOTES = ("majority", "mean_prob", "mean_logit")


def check_top_s(s: int, n_views: int) -> None:
    """Raises InputError unless s of n_views can be kept.

    >>> check_top_s(65, n_views=64)
    Traceback (most recent call last):
    tlla.errors.InputError: TOP_S must lie between 1 and the number of views, 64, but got 65: ...
    """
    if not 1 <= s <= n_views:
        bounds = f"TOP_S must lie between 1 and the number of views, {n_views}, but got {s}"
        raise InputError(f"{bounds}: choose another, or more views")


def check_vote(how: str) -> None:
    """Raises InputError unless `how` is one of `VOTES`.

    >>> check_vote("median")
    Traceback (most recent call last):
    tlla.errors.InputError: VOTE must be one of ('majority', 'mean_prob', 'mean_logit'), but got 'median'
    """
    one_of("VOTE", how, VOTES)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy (nats) of softmax(logits): (..., K) -> (...); 0 for one-hot distributions.

    Neither the entropy nor its gradient is NaN where a probability underflows to 0.

    >>> entropy(torch.tensor([0.0, 0.0]))
    tensor(0.6931)
    """
    log_prob = logits.log_softmax(dim=-1)
    return -(log_prob.exp() * log_prob).sum(dim=-1)


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy (nats) of the mean distribution over views, TPT's objective: (..., V, K) -> (...). In log space.

    >>> marginal_entropy(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    tensor(0.6931)
    """
    log_prob = logits.log_softmax(dim=-1)
    log_mean = log_prob.logsumexp(dim=-2) - math.log(logits.shape[-2])  # (..., K)
    return -(log_mean * log_mean.exp()).sum(dim=-1)


@dataclass(frozen=True)
class ViewScores:
    """Scores of views, each (B, V) float32; `logits` is (B, V, K).

    By the rule stss `score` = `entropy` + lambda * `sharpness`; by other rules the sharpness is 0.
    """

    score: Tensor
    entropy: Tensor
    sharpness: Tensor
    logits: Tensor


def score_views(view_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, lam: float) -> ViewScores:
    """STSS scores (eq. 5).

    Args:
        view_features: Normalised image features, (B, V, E).
        text_features: Normalised class features, (R + 1, K, E), or (R + 1, B, K, E) if they depend on the image: first
            those of the unperturbed prompt, then those of R perturbed prompts.
        logit_scale: Inverse temperature.
        lam: Weight of the sharpness term.

    Returns:
        Scores of all views; the sharpness is 0 if R = 0.

    >>> text = torch.stack([torch.eye(2), torch.ones(2, 2)])
    >>> score_views(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), text, 2.0, lam=1.0).sharpness.round(decimals=2)
    tensor([[0.3300, 0.0200]])
    """
    logits = logit_scale * view_features @ text_features[0].mT  # (B, V, K)
    plain = entropy(logits)  # (B, V)
    rise = sharpness(plain, view_features, text_features[1:], logit_scale)
    return ViewScores(plain + lam * rise, plain, rise, logits)


def sharpness(
    plain: Tensor, view_features: Tensor, perturbed: Sequence[Tensor] | Tensor, logit_scale: Tensor | float
) -> Tensor:
    """Largest rise of the views' entropy under perturbed prompts, (B, V); 0 if there are none.

    Args:
        plain: Entropies under the prompt itself, (B, V).
        view_features: Normalised image features, (B, V, E).
        perturbed: Normalised class features of each perturbed prompt, (K, E) or (B, K, E).
        logit_scale: Inverse temperature.

    >>> sharpness(torch.tensor([[0.5]]), torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 2, 2), 2.0).round(decimals=2)
    tensor([[0.1900]])
    """
    if not len(perturbed):
        return torch.zeros_like(plain)
    highest = torch.full_like(plain, -torch.inf)
    for text in perturbed:  # one at a time: (R, B, V, K) would not fit for 1000 classes
        highest = torch.maximum(highest, entropy(logit_scale * view_features @ text.mT))
    return highest - plain


def lead(probability: Tensor) -> Tensor:
    """Difference of the two highest probabilities: (..., K) -> (...); 1 if there is one class.

    >>> lead(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    tensor([0.5000, 0.0000])
    """
    if probability.shape[-1] == 1:
        return torch.ones_like(probability[..., 0])
    first, second = probability.topk(2).values.unbind(-1)
    return first - second


def lowest(scores: Tensor, s: int) -> Tensor:
    """Indices of the s lowest scores of each row, ascending: (B, V) -> (B, s); ties go to the earlier view.

    >>> lowest(torch.tensor([[0.3, 0.1, 0.2]]), 2)
    tensor([[1, 2]])
    """
    return scores.sort(dim=1, stable=True).indices[:, :s]


def confident(logits: Tensor, top: float) -> Tensor:
    """Indices of the confident views, the fraction `top` with the lowest entropy, at least one: (B, V, K) -> (B, s).

    >>> confident(torch.tensor([[[0.0, 0.0], [0.0, 9.0]]]), top=0.5)
    tensor([[1]])
    """
    return lowest(entropy(logits), max(1, int(top * logits.shape[1])))


def take_views(values: Tensor, index: Tensor) -> Tensor:
    """The selected views of each image: values (B, V, N) and indices (B, s) -> (B, s, N).

    >>> take_views(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1]]))
    tensor([[[3., 4.]]])
    """
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def vote(logits: Tensor, how: str) -> Tensor:
    """Aggregates the selected views into one distribution per image: (B, s, K) -> (B, K); rows sum to 1.

    Args:
        logits: Logits of the selected views under the unperturbed prompt.
        how: "majority": one vote per view, plus half a vote for the mean probability, which breaks ties but never
            outweighs a vote. "mean_prob": mean of the probabilities. "mean_logit": softmax of the mean logits.

    >>> vote(torch.tensor([[[2.0, 0.0], [1.0, 0.0], [0.0, 9.0]]]), "majority").round(decimals=2)
    tensor([[0.6500, 0.3500]])
    """
    if how == "mean_logit":
        return logits.mean(dim=1).softmax(dim=-1)
    mean_prob = logits.softmax(dim=-1).mean(dim=1)  # (B, K)
    if how == "mean_prob":
        return mean_prob
    counts = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=1)  # (B, K)
    return (counts + 0.5 * mean_prob) / (logits.shape[1] + 0.5)


def select_and_vote(scores: ViewScores, s: int, how: str) -> Tensor:
    """Class distribution of each image, (B, K), from the votes of its s lowest-scored views.

    >>> scores = score_views(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]), torch.eye(2)[None], 2.0, lam=0.0)
    >>> select_and_vote(scores, 1, "mean_prob").round(decimals=2)
    tensor([[0.8800, 0.1200]])
    """
    check_top_s(s, scores.score.shape[1])
    check_vote(how)
    return vote(take_views(scores.logits, lowest(scores.score, s)), how)
