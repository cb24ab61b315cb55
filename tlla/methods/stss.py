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

from tlla.rules import Rule, Stss, parse_rule
from tlla.selection import ViewScores, check_top_s, check_vote, lowest, take_views, vote
from tlla.sharpness import check_sharpness

from .base import Method, check_at_least


@dataclass
class STSS(Method):
    """Scores all views by entropy plus sharpness; the lowest vote. docs/ablation.md shows how defaults were chosen.

    Another rule leaves RHO, LAMBDA and N_PERTURB without effect.
    """

    needs_text_encoder: ClassVar[bool] = True
    scores_views: ClassVar[bool] = True

    rho: float = 0.5  # norm of the random perturbations of the prompt
    lam: float = dataclasses.field(default=1.0, metadata={"key": "LAMBDA"})  # weight of the sharpness; 0: entropy only
    n_perturb: int = 8  # random perturbations R
    top_s: int = 16  # views that vote
    vote: str = "mean_prob"  # majority, mean_prob, mean_logit
    rule: str = "stss"  # which views vote, see docs/methods.md; stss has the settings above

    def __post_init__(self) -> None:
        check_sharpness(self.rho, self.lam)
        check_at_least(0, n_perturb=self.n_perturb)
        check_vote(self.vote)
        super().__post_init__()

    def build_rule(self, text: str | None = None) -> Rule:
        """The rule stss has the method's settings, but for those that the text gives it."""
        own = Stss(self.rho, self.lam, self.n_perturb)
        return parse_rule(self.rule if text is None else text, own)

    def n_kept(self, n_views: int) -> int:
        """How many views vote."""
        return n_views if self.chooser.rule.keeps_all else self.top_s

    def check_views(self, n_views: int) -> None:
        """Raises InputError if there are more votes than views."""
        check_top_s(self.top_s, n_views)

    def with_views(self, n: int, n_views: int) -> "STSS":
        """The same share of the views votes."""
        fewer = copy.copy(self)
        fewer.top_s = max(1, self.top_s * n // n_views)
        return fewer

    @torch.no_grad()
    def scores(self, features: Tensor) -> ViewScores:
        """Scores of all views, from their features (B, V, E)."""
        seen = self.chooser.see(features, known=self.known)
        return ViewScores(self.chooser.rule.scores(seen), seen.entropy, seen.sharpness, seen.logits)

    @torch.no_grad()
    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K). Details: the fraction of the voting views that agree, and whether all do."""
        self.last_scores = scores = self.scores(features)  # for drawings and tables
        kept = take_views(scores.logits, lowest(scores.score, self.n_kept(features.shape[1])))  # (B, s, K)
        probability = vote(kept, self.vote)
        agree = (kept.argmax(dim=-1) == probability.argmax(dim=-1, keepdim=True)).float()  # (B, s)
        self.details = {"agreement": agree.mean(dim=1), "unanimous": agree.amin(dim=1)}
        return probability
