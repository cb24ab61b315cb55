"""STSS: views with low entropy that stays low around the prompt vote (arXiv 2501.18864, section 4.2, eq. 5-8).

With a SAPT prompt this is TLLA, with a CoOp prompt the paper's ablation "STSS+CoOp". No backprop, no parameter update.
The authors' code is not public.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlla.selection import ViewScores, check_top_s, check_vote, lowest, score_views, take_views, vote
from tlla.sharpness import check_sharpness, random_directions

from .base import Method, check_at_least


@dataclass
class STSS(Method):
    """Scores all views by entropy plus sharpness; the lowest vote. docs/ablation.md shows how defaults were chosen."""

    needs_text_encoder: ClassVar[bool] = True
    scores_views: ClassVar[bool] = True

    rho: float = 0.5  # norm of the random perturbations of the prompt
    lam: float = dataclasses.field(default=1.0, metadata={"key": "LAMBDA"})  # weight of the sharpness; 0: entropy only
    n_perturb: int = 8  # random perturbations R
    top_s: int = 16  # views that vote
    vote: str = "mean_prob"  # majority, mean_prob, mean_logit

    def __post_init__(self) -> None:
        check_sharpness(self.rho, self.lam)
        check_at_least(0, n_perturb=self.n_perturb)
        check_vote(self.vote)

    def check_views(self, n_views: int) -> None:
        """Raises InputError if there are more votes than views."""
        check_top_s(self.top_s, n_views)

    def with_views(self, n: int, n_views: int) -> "STSS":
        """The same share of the views votes."""
        fewer = copy.copy(self)
        fewer.top_s = max(1, self.top_s * n // n_views)
        return fewer

    @torch.no_grad()
    def reset(self) -> None:
        """Draws the perturbations; unless the context depends on the image, their class features serve all images."""
        ctx = self.classifier.ctx
        self.directions = random_directions(tuple(ctx.shape), self.n_perturb, self.rho, self.seed).to(ctx)
        self.text = None if self.classifier.conditional else self._encode(ctx[None])

    def _encode(self, contexts: Tensor) -> Tensor:
        """Class features of B contexts and their perturbations: (B, L, D) -> (R + 1, B, K, E)."""
        perturbed = torch.cat([contexts[None], contexts + self.directions[:, None]])  # (R + 1, B, L, D)
        text = self.classifier.encode(perturbed.flatten(0, 1))
        return text.view(*perturbed.shape[:2], *text.shape[1:])

    @torch.no_grad()
    def scores(self, features: Tensor) -> ViewScores:
        """Scores of all views, from their features (B, V, E)."""
        text = self._encode(self.classifier.context(features)) if self.text is None else self.text
        return score_views(features, text, self.classifier.scale, self.lam)

    @torch.no_grad()
    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K). Details: the fraction of the voting views that agree, and whether all do."""
        self.last_scores = scores = self.scores(features)  # for drawings and tables
        kept = take_views(scores.logits, lowest(scores.score, self.top_s))  # (B, s, K)
        probability = vote(kept, self.vote)
        agree = (kept.argmax(dim=-1) == probability.argmax(dim=-1, keepdim=True)).float()  # (B, s)
        self.details = {"agreement": agree.mean(dim=1), "unanimous": agree.amin(dim=1)}
        return probability
