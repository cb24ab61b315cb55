"""ZERO: the confident views vote at zero temperature (Farina et al., arXiv 2405.18330).

Upstream: FarinaMatteo/zero@c609f7c, ttas/zero.py and utils/tools.py. Differences to that code:
- Its zero temperature is the epsilon of the logits' dtype, applied to cosines. It runs under fp16 autocast, where this
  is 9.765625e-4: cosines of 0.2500 and 0.2498 share a vote. Here a vote is one-hot; `softening` gives shared votes.
- If no discarded view decides a tie, it means to ask the first of them, but masks the wrong classes. Here the tied
  class of highest mean probability over the voters wins.
- There the winner of a tie gets a whole vote. Here it gets half a vote, and the row is divided by its new sum: it comes
  first, and the ratios between all other classes stay as they were voted.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.selection import take_views

from .base import Method, check_at_least


@dataclass
class ZERO(Method):
    """One vote for each confident view; the other views, in ascending order of their score, break ties."""

    top: float = 0.3  # fraction of the views that vote
    softening: float = 0.0  # temperature of a vote on cosines; 0: one-hot; the authors' fp16 run: 9.765625e-4
    rule: str = "entropy"  # which views vote, see docs/methods.md

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, softening=self.softening)

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K): fractions of the votes."""
        text = self.classifier.text(features)
        logits = self.classifier.logits(features, text)
        n_views, n_classes = logits.shape[1:]
        n_voters = self.n_kept(n_views)
        order = self.rank(features, logits)  # (B, V)
        logits = take_views(logits, order)
        choice = logits.argmax(dim=-1)  # (B, V)
        if self.softening:
            cosines = take_views(features, order[:, :n_voters]) @ text.mT
            votes = (cosines / self.softening).softmax(dim=-1).sum(dim=1)  # (B, K)
        else:
            votes = F.one_hot(choice[:, :n_voters], n_classes).sum(dim=1).float()
        mean_prob = logits[:, :n_voters].softmax(dim=-1).mean(dim=1)
        votes = votes + 0.5 * _tie_winner(votes, choice[:, n_voters:], mean_prob)
        return votes / votes.sum(dim=-1, keepdim=True)


def _tie_winner(votes: Tensor, advice: Tensor, mean_prob: Tensor) -> Tensor:
    """The winner of each tie, one-hot, (B, K); rows without a tie are 0.

    Args:
        votes: Votes for each class, (B, K).
        advice: Classes that may break the tie, (B, N): the first one that is tied wins.
        mean_prob: Mean probabilities, (B, K), which decide if none of these is tied.
    """
    first = votes == votes.amax(dim=-1, keepdim=True)  # (B, K)
    fallback = mean_prob.masked_fill(~first, -1).argmax(dim=-1, keepdim=True)
    advice = torch.cat([advice, fallback], dim=1)
    decisive = first.gather(1, advice).int().argmax(dim=1, keepdim=True)
    winner = F.one_hot(advice.gather(1, decisive).squeeze(1), votes.shape[-1])
    return winner * (first.sum(dim=-1, keepdim=True) > 1)
