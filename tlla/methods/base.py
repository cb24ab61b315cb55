"""The base of all test-time methods: features of an image's views in, class probabilities out.

A method depends on no dataset, loader or config. Its settings are the fields of a dataclass: the trainer of the same
name has a config node with these fields in upper case and the same defaults.

Letters in shapes: B images, V views (view 0 is the centre crop), K classes, E joint space.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.prompts.classifier import Classifier
from tlla.rules import Chooser, Known, Rule, parse_rule
from tlla.selection import lowest, take_views

METHODS: dict[str, type["Method"]] = {}
PROMPTS_AT_ONCE = 256  # in PromptTuning


@dataclasses.dataclass
class Method:
    """A test-time method. A subclass is also a dataclass and defines `predict`, or `predict_one` for one image.

    A method that keeps some of an image's views has the fields `rule`, the text of a rule, and `top`, the share of the
    views that is kept, and asks `choose` which ones.

    Unless `online`, a method keeps no state between images: order and batch size change no prediction.
    """

    needs_backprop: ClassVar[bool] = False  # computes gradients at test time
    online: ClassVar[bool] = False  # learns from earlier images, so that their order matters
    needs_text_encoder: ClassVar[bool] = False  # changes the prompt: class features alone are not enough
    needs_images: ClassVar[bool] = False  # adapts the image encoder: predict also receives the views' pixels
    reads_first: ClassVar[bool] = False  # `observe` sees all images of the test set before the first is predicted
    in_batches: ClassVar[bool] = False  # predicts `batch` images together, a setting: which these are matters
    needs_dataset: ClassVar[str] = ""  # what it has to know of a whole test set, in words; predict.py refuses it
    uses_views: ClassVar[bool] = True  # False: needs only the centre crop
    keeps_text: ClassVar[bool] = False  # changes class features from image to image: CoCoOp's cannot be
    scores_views: ClassVar[bool] = False  # has `scores`, `top_s` and `vote`, as STSS has, for --explain and the page

    batch = 1  # no fields here: of a method that predicts images one by one
    rule = ""  # of a method that chooses no views
    top = 1.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ != __name__:  # classes in this file are bases
            METHODS[cls.__name__] = cls

    def __post_init__(self) -> None:
        """Checks the share and the rule; a subclass that checks other settings calls it."""
        check_share(top=self.top)
        if self.chooses_views:
            self.build_rule()

    @property
    def chooses_views(self) -> bool:
        """Whether it keeps some of the views by a rule."""
        return bool(type(self).rule)

    def build_rule(self, text: str | None = None) -> Rule:
        """The rule that a text names, by default the setting `rule`; InputError if there is none of that name."""
        return parse_rule(self.rule if text is None else text)

    @property
    def has_own_rule(self) -> bool:
        """Whether its views are chosen as its authors do."""
        return not self.chooses_views or self.build_rule() == self.build_rule(type(self).rule)

    @property
    def uses_labels(self) -> bool:
        """Whether the true classes choose its views, which shows what is possible, not how to predict."""
        return self.chooses_views and self.build_rule().uses_labels

    @property
    def title(self) -> str:
        """Its name in tables and folders: with the rule, if that is not its own."""
        return type(self).__name__ + ("" if self.has_own_rule else f"+{self.build_rule()}")

    @property
    def stops_early(self) -> bool:
        """Whether it can predict from the first views alone, so that an image whose vote is clear needs no more."""
        return self.uses_views and not (self.online or self.needs_backprop or self.reads_first)

    def with_views(self, n: int, n_views: int) -> "Method":
        """The method as it predicts from n of an image's `n_views` views; another one if a setting counts views."""
        return self

    def check_views(self, n_views: int) -> None:
        """Raises InputError if the method does not work with that number of views."""

    def start(self, classifier: Classifier, seed: int = 0) -> None:
        """Sets the classifier and prepares what all images share; `seed` is that of the method's own random numbers."""
        if self.needs_text_encoder and not classifier.tunable:
            classifier.context(torch.empty(0))  # raises the InputError
        if self.keeps_text and classifier.conditional:
            raise InputError(
                f"{type(self).__name__} carries class features over from image to image, but with this prompt (CoCoOp) "
                "they depend on the image: use a template, a CoOp or a SAPT prompt"
            )
        self.classifier = classifier
        self.seed = seed
        self.details: dict[str, Tensor] = {}  # of the last batch: name -> (B,)
        self.known: Known | None = None  # of the batch that `predict` is about to see
        self.n_images: int | None = None  # of the whole test set, which a method with `needs_dataset` is told
        if self.chooses_views:
            self.chooser = Chooser(self.build_rule(), classifier, seed)
        self.reset()

    def reset(self) -> None:
        """Forgets all earlier images (online methods)."""

    def state(self) -> Any:
        """What an online method has learned, as tensors and plain values, so that a killed test can resume."""
        return None

    def load_state(self, state: Any) -> None:
        """Restores what `state` returned."""

    def observe(self, features: Tensor) -> None:
        """Takes note of images (B, V, E) before any of the test set is predicted, in the dataset's order."""

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities of a batch of images.

        Args:
            features: Normalised features of the views, (B, V, E), float32.
            images: The views' normalised pixels, (B, V, 3, H, W); passed if `needs_images`.

        Returns:
            (B, K), float32, rows sum to 1.
        """
        text = self.classifier.text(features)
        single = enumerate(self.groups(features, 1))
        return torch.stack([self.step(self.see(z[0], text[b if len(text) > 1 else 0])) for b, z in single])

    def see(self, features: Tensor, text: Tensor) -> Any:
        """What `step` needs of an image, with the arguments of `predict_one`.

        An online method may compute here what no earlier image changes: then several orders of the images share it.
        """
        return features, text

    def step(self, seen: Any) -> Tensor:
        """Class probabilities of one image, (K,), from what `see` returned."""
        return self.predict_one(*seen)

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities of one image, (K,), from its views' features (V, E) and the class features (K, E)."""
        raise NotImplementedError

    def groups(self, features: Tensor, size: int) -> Iterator[Tensor]:
        """The features of `size` images after another; meanwhile `known` is of these."""
        known = self.known
        for start in range(0, len(features), size):
            self.known = known[start : start + size] if known else None
            yield features[start : start + size]
        self.known = known

    def n_kept(self, n_views: int) -> int:
        """How many of an image's views are kept: at least one."""
        return n_views if self.chooser.rule.keeps_all else max(1, int(self.top * n_views))

    def choose(self, features: Tensor, logits: Tensor, shift: Tensor | None = None) -> Tensor:
        """Indices of the views that are kept, lowest score first: (B, s).

        Args:
            features: Normalised features of the views, (B, V, E).
            logits: Of the views, (B, V, K).
            shift: What the method has added to the class features, (K, E).
        """
        return self.rank(features, logits, shift)[:, : self.n_kept(features.shape[1])]

    @torch.no_grad()
    def rank(self, features: Tensor, logits: Tensor, shift: Tensor | None = None) -> Tensor:
        """Indices of all views, lowest score first, (B, V), with the arguments of `choose`."""
        seen = self.chooser.see(features, logits, self.known, shift)
        return lowest(self.chooser.rule.scores(seen), features.shape[1])


def settings(method: type[Method]) -> dict[str, tuple[str, Any]]:
    """Config keys of a method: KEY -> (field, default).

    >>> settings(METHODS["STSS"])["TOP_S"]
    ('top_s', 16)
    """
    fields = dataclasses.fields(method)
    return {f.metadata.get("key", f.name.upper()): (f.name, f.default) for f in fields}


def check_at_least(least: float, **values: float) -> None:
    """Raises InputError with the config key of the first value that is below `least` or not finite.

    >>> check_at_least(0, lr=-1)
    Traceback (most recent call last):
    tlla.errors.InputError: LR must be a finite number >= 0, but got -1
    """
    for name, value in values.items():
        if not least <= value < float("inf"):
            raise InputError(f"{name.upper()} must be a finite number >= {least}, but got {value}")


def check_share(**values: float) -> None:
    """Raises InputError with the config key of the first value outside (0, 1].

    >>> check_share(top=1.5)
    Traceback (most recent call last):
    tlla.errors.InputError: TOP must lie in (0, 1], but got 1.5
    """
    for name, value in values.items():
        if not 0 < value <= 1:
            raise InputError(f"{name.upper()} must lie in (0, 1], but got {value}")


def tune(
    parameters: Sequence[Tensor],
    loss_fn: Callable[..., Tensor],
    lr: float,
    steps: int = 1,
    loss_scale: float = 1.0,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> list[Tensor]:
    """Tunes copies of tensors by AdamW, for all methods with backprop; the tensors themselves are not modified.

    Args:
        parameters: Tensors to tune; (B, ...) each for B independent problems.
        loss_fn: Maps the current values to a scalar, or to the losses (B,) of B problems.
        lr: Learning rate.
        steps: Number of steps.
        loss_scale: Loss scale for fp16. A problem with a non-finite gradient is not updated, as with a gradient scaler.
        eps: Epsilon of AdamW.
        weight_decay: Weight decay of AdamW.

    Returns:
        The tuned copies, detached.

    >>> tune([torch.tensor([1.0])], lambda x: x.square().sum(), lr=0.1)
    [tensor([0.8990])]
    """
    with torch.enable_grad():
        copies = [p.detach().clone().requires_grad_() for p in parameters]
        optimizer = torch.optim.AdamW(copies, lr=lr, eps=eps, weight_decay=weight_decay)
        for _ in range(steps):
            losses = loss_fn(*copies)
            gradients = torch.autograd.grad(losses.sum() * loss_scale, copies)
            # One flag per problem, of the shape of the losses: whether all of its gradients are finite.
            finite = torch.stack([g.isfinite().flatten(losses.dim()).all(dim=-1) for g in gradients]).all(dim=0)
            masks = [finite.view(finite.shape + (1,) * (g.dim() - finite.dim())) for g in gradients]
            before = [copy.detach().clone() for copy in copies]
            for copy, gradient, mask in zip(copies, gradients, masks, strict=True):
                copy.grad = torch.where(mask, gradient / loss_scale, 0)
            optimizer.step()
            with torch.no_grad():
                for copy, old, mask in zip(copies, before, masks, strict=True):
                    copy.copy_(torch.where(mask, copy, old))
    return [copy.detach() for copy in copies]


@dataclasses.dataclass
class Tuning(Method):
    """Settings of all methods that take gradient steps for each image on some of its views; TPT's defaults."""

    needs_backprop: ClassVar[bool] = True

    top: float = 0.1  # fraction of the views that tune
    lr: float = 5e-3  # the optimizer's learning rate
    steps: int = 1  # the optimizer's steps

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, lr=self.lr, steps=self.steps)


@dataclasses.dataclass
class PromptTuning(Tuning):
    """Tunes the context vectors for each image by backprop through the text encoder. A subclass defines `loss`.

    The views that tune are chosen once, with the untuned prompt.
    """

    needs_text_encoder: ClassVar[bool] = True

    rule: str = "entropy"  # which views tune, see docs/methods.md

    def loss(self, logits: Tensor, text: Tensor) -> Tensor:
        """Loss of each image, (B,), from the kept views' logits (B, s, K) and the class features (B, K, E)."""
        raise NotImplementedError

    def output(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (B, K), with the tuned class features: here those of the centre crop."""
        return self.classifier.logits(features[:, :1], text).squeeze(1).softmax(dim=-1)

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K)."""
        # With few classes the prompts of several images fill the text encoder better; with many they fill the memory.
        at_once = max(1, PROMPTS_AT_ONCE // len(self.classifier.text_features))
        return torch.cat([self._predict(group) for group in self.groups(features, at_once)])

    def _predict(self, features: Tensor) -> Tensor:
        classifier = self.classifier
        kept = take_views(features, self.choose(features, classifier.logits(features)))  # (B, s, E)

        def loss_fn(context: Tensor) -> Tensor:
            text = classifier.encode(context)  # (B, K, E)
            return self.loss(classifier.logits(kept, text), text)

        (tuned,) = tune([classifier.context(features)], loss_fn, self.lr, self.steps, classifier.loss_scale)
        return self.output(features, classifier.encode(tuned))
