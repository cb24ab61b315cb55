"""Selection rules: which views of an image a method keeps. A rule scores all views; those of lowest score are kept.

A method's setting RULE names a rule, its own settings in brackets: "entropy", "tsallis(q=0.3)". How many views are kept
is up to the method.

Letters in shapes: B images, V views, K classes, E joint space, R perturbations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .options import Option, parse_option
from .prompts.classifier import Classifier
from .selection import entropy, lead, sharpness

RULES: dict[str, type["Rule"]] = {}


@dataclass(frozen=True)
class Known:
    """What is known of B images beside their views.

    Attributes:
        index: Place of each image among all, (B,), int64, on the CPU; it seeds what is drawn for the image.
        label: True classes, (B,); None where they are not known.
    """

    index: Tensor
    label: Tensor | None = None

    def __getitem__(self, rows: slice | Sequence[int]) -> "Known":
        return Known(self.index[rows], None if self.label is None else self.label[rows])


@dataclass(frozen=True)
class Seen:
    """What a rule may look at.

    Attributes:
        logits: Of the views, (B, V, K), as the method classifies them.
        features: Normalised features of the views, (B, V, E).
        scale: Inverse temperature.
        perturbed: Class features of R perturbed prompts, (R, 1 or B, K, E), of a rule that `needs_text_encoder`.
        known: Of the images; None in code that sees features alone.
        seed: The run's.
    """

    logits: Tensor
    features: Tensor
    scale: Tensor | float = 1.0
    perturbed: Tensor | None = None
    known: Known | None = None
    seed: int = 0

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each view in nats, (B, V)."""
        return entropy(self.logits)

    @cached_property
    def sharpness(self) -> Tensor:
        """Largest rise of the entropy under the perturbed prompts, (B, V); 0 without these."""
        perturbed = () if self.perturbed is None else self.perturbed
        return sharpness(self.entropy, self.features, perturbed, self.scale)


@dataclass(frozen=True)
class Rule(Option):
    """A selection rule. A subclass has a name, its settings as fields (numbers, at least 0), and `scores`."""

    keeps_all: ClassVar[bool] = False  # whatever number of views the method asks for
    needs_text_encoder: ClassVar[bool] = False  # looks at perturbed prompts
    uses_labels: ClassVar[bool] = False  # shows what is possible, not how to predict

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        RULES[cls.name] = cls

    def text(self, classifier: Classifier, seed: int, features: Tensor | None = None) -> Tensor | None:
        """Class features of the prompt, then of perturbed ones, (R + 1, 1 or B, K, E); None if it needs none."""
        return None

    def scores(self, seen: Seen) -> Tensor:
        """Scores of the views, (B, V), lower is better; ties go to the earlier view."""
        raise NotImplementedError


@dataclass(frozen=True)
class Entropy(Rule):
    """Shannon entropy of p = softmax(l), H(p) = -sum_k p_k ln p_k (TPT, arXiv 2209.07511, eq. 3)."""

    name = "entropy"

    def scores(self, seen: Seen) -> Tensor:
        """H(p)."""
        return seen.entropy


@dataclass(frozen=True)
class MaxProbability(Rule):
    """The highest probability, -max_k p_k (Hendrycks & Gimpel, arXiv 1610.02136)."""

    name = "max_prob"

    def scores(self, seen: Seen) -> Tensor:
        """-max_k p_k."""
        return -seen.logits.softmax(dim=-1).amax(dim=-1)


@dataclass(frozen=True)
class Margin(Rule):
    """The lead of the first class over the second, -(p_(1) - p_(2)) (Scheffer et al., IDA 2001)."""

    name = "margin"

    def scores(self, seen: Seen) -> Tensor:
        """-(p_(1) - p_(2)); -1 for a single class."""
        return -lead(seen.logits.softmax(dim=-1))


@dataclass(frozen=True)
class LseGap(Rule):
    """The gap of logsumexp and mean logit, -(ln sum_k exp l_k - mean_k l_k): the order of tsallis for q -> 0.

    As sum_k p_k^q = K + q sum_k ln p_k + O(q^2), and the mean of ln p_k is this score.
    """

    name = "lse_gap"

    def scores(self, seen: Seen) -> Tensor:
        """-(logsumexp(l) - mean(l))."""
        return seen.logits.mean(dim=-1) - seen.logits.logsumexp(dim=-1)


@dataclass(frozen=True)
class Tsallis(Rule):
    """Tsallis entropy, H_q(p) = (sum_k p_k^q - 1) / (1 - q), which for q -> 1 is Shannon's (ADTE, ICLR 2026).

    Upstream: Jinx630/ADTE@b9e6085, ttas/zero.py, tsallis_entropy_minimization. The command that its README gives for
    Tsallis lacks --use_adte, without which it selects by Shannon entropy.
    """

    name = "tsallis"

    q: float = 0.1  # between 0 and 1; the smaller, the more the improbable classes count

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.q < 1:
            raise InputError(f"q must lie between 0 and 1, but got {self.q}")

    def scores(self, seen: Seen) -> Tensor:
        """H_q(p), from log probabilities, as p_k may underflow where p_k^q does not."""
        return ((self.q * seen.logits.log_softmax(dim=-1)).exp().sum(dim=-1) - 1) / (1 - self.q)


@dataclass(frozen=True)
class Stss(Rule):
    """Entropy plus sharpness, H(p) + lambda max_r [H(p + delta_r) - H(p)] (STSS, arXiv 2501.18864, eq. 5-8).

    Where a method has moved the class features, those of the perturbed prompts are moved by as much.
    """

    name = "stss"
    needs_text_encoder = True

    rho: float = 0.5  # norm of the random perturbations of the prompt
    lam: float = 1.0  # weight of the sharpness
    n_perturb: int = 8  # random perturbations R

    def text(self, classifier: Classifier, seed: int, features: Tensor | None = None) -> Tensor | None:
        """Class features of the prompt and of its R perturbations."""
        return classifier.perturbed(self.rho, self.n_perturb, seed, features)

    def scores(self, seen: Seen) -> Tensor:
        """Entropy plus lambda times sharpness."""
        return seen.entropy + self.lam * seen.sharpness


@dataclass(frozen=True)
class All(Rule):
    """Keeps all views, in their order, whatever number of them the method asks for."""

    name = "all"
    keeps_all = True

    def scores(self, seen: Seen) -> Tensor:
        """0."""
        return torch.zeros_like(seen.logits[..., 0])


@dataclass(frozen=True)
class Random(Rule):
    """Random views: what the number of views does alone. An image's depend on the seed and its index, on no batch."""

    name = "random"

    def scores(self, seen: Seen) -> Tensor:
        """Uniform in [0, 1); those of the first views do not depend on the number of views."""
        if seen.known is None:
            raise InputError("the rule random draws by an image's index, which is not known here: choose another rule")
        n_views = seen.logits.shape[1]
        rows = [np.random.default_rng((seen.seed, index)).random(n_views) for index in seen.known.index.tolist()]
        return torch.from_numpy(np.stack(rows)).to(seen.logits)


@dataclass(frozen=True)
class Oracle(Rule):
    """Cross entropy of the true class, -ln p_y: what a perfect choice of views would reach. Uses labels."""

    name = "oracle"
    uses_labels = True

    def scores(self, seen: Seen) -> Tensor:
        """-ln p_y."""
        if seen.known is None or seen.known.label is None:
            raise InputError("the rule oracle keeps views by true classes, which are not known here")
        label = seen.known.label.to(seen.logits.device)[:, None, None].expand(-1, seen.logits.shape[1], 1)
        return -seen.logits.log_softmax(dim=-1).gather(2, label).squeeze(2)


def parse_rule(text: Any, own: Rule | None = None, key: str = "RULE") -> Rule:
    """The rule that a text names.

    Args:
        text: A name in any case, with settings in brackets: "tsallis(q=0.3)".
        own: If the text names this rule, the settings that it leaves out are those of `own`.
        key: The setting that holds the text, for messages.

    Raises:
        InputError: There is no such rule or setting, or a value is invalid.

    >>> parse_rule("stss(rho=1)"), str(parse_rule("tsallis(q=0.1)"))
    (Stss(rho=1.0, lam=1.0, n_perturb=8), 'tsallis')
    >>> parse_rule("entropie")
    Traceback (most recent call last):
    tlla.errors.InputError: RULE 'entropie' is not a rule: did you mean 'entropy'? (known: all, entropy, ...
    """
    return parse_option(text, RULES, key, "rule", "tsallis(q=0.3)", own)


class Chooser:
    """A rule at work on a prompt; made when a method starts.

    Args:
        rule: The rule; class features that it needs are encoded now, unless they depend on the image.
        classifier: The method's text side.
        seed: Of what the rule draws.

    Raises:
        InputError: The rule needs context vectors, and the prompt has none.
    """

    def __init__(self, rule: Rule, classifier: Classifier, seed: int):
        self.rule, self.classifier, self.seed = rule, classifier, seed
        if not classifier.conditional:
            with torch.no_grad():
                rule.text(classifier, seed)

    @torch.no_grad()
    def see(
        self,
        features: Tensor,
        logits: Tensor | None = None,
        known: Known | None = None,
        shift: Tensor | None = None,
    ) -> Seen:
        """What the rule may look at of B images.

        Args:
            features: Normalised features of the views, (B, V, E).
            logits: Of the views, (B, V, K); None: those of the prompt.
            known: Of the images.
            shift: What the method has added to the class features, (K, E).
        """
        text, perturbed = self.rule.text(self.classifier, self.seed, features), None
        if text is not None:
            perturbed = text[1:] if shift is None else F.normalize(text[1:] + shift, dim=-1)
        if logits is None:
            logits = self.classifier.logits(features, None if text is None else text[0])
        return Seen(logits, features, self.classifier.scale, perturbed, known, self.seed)
