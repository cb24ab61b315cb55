"""Streams: the order in which an online method sees the images of a test, drawn by a seed.

A stream is named by a text, with its settings in brackets: "shuffled", "dirichlet(gamma=0.01)". All but "shuffled" are
composed by the true classes: no method sees these, but in such an order neighbours tell of each other.

Letters in shapes: N images.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from .errors import InputError
from .options import Option, parse_option
from .records.record import SHUFFLED

STREAMS: dict[str, type["Stream"]] = {}


@dataclass(frozen=True)
class Stream(Option):
    """A way to order images. A subclass has a name, its settings as fields (numbers, at least 0), and `order`."""

    composed_by_labels: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        STREAMS[cls.name] = cls

    def order(self, labels: Sequence[int], seed: int) -> list[int]:
        """Each image's index, once, in the order of the stream.

        Args:
            labels: True classes, N.
            seed: Of the order.
        """
        rng = np.random.default_rng(seed)
        return [int(i) for i in self.compose(_by_class(labels, rng), rng)] if labels else []

    def compose(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """The order, from the images of each class that has any: classes by label, their images shuffled."""
        raise NotImplementedError


def _by_class(labels: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    array = np.asarray(labels, dtype=np.int64)
    return [rng.permutation(np.flatnonzero(array == label)) for label in np.unique(array)]


@dataclass(frozen=True)
class Shuffled(Stream):
    """All images in random order."""

    name = SHUFFLED
    composed_by_labels = False

    def order(self, labels: Sequence[int], seed: int) -> list[int]:
        """torch.randperm."""
        return [int(i) for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@dataclass(frozen=True)
class ByClass(Stream):
    """Class after class, classes in random order: StatA's gamma -1 (Zanella et al., arXiv 2501.03729)."""

    name = "by_class"

    def compose(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """All images of a random class, then of another one."""
        return np.concatenate([images[k] for k in rng.permutation(len(images))])


@dataclass(frozen=True)
class Dirichlet(Stream):
    """Slots in time with other shares of each class: StatA's stream (Zanella et al., arXiv 2501.03729).

    Upstream: MaxZanella/StatA@eea8637, sampler.py, OnlineSampler. As there, a class's shares of the slots are drawn
    from a symmetric Dirichlet distribution, and the images of a slot are shuffled. Upstream divides a class's images in
    the order of the split, ours in random order; its generator is unseeded, and it has at most as many slots as there
    are batches of 128 images.
    """

    name = "dirichlet"

    gamma: float = 0.1  # concentration; the smaller, the fewer slots have a class's images
    slots: int = 0  # number of slots; 0: as many as classes that have images

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1e6:
            raise InputError(f"gamma must be above 0 and at most 1e6, but got {self.gamma}")

    def compose(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """The slots one after the other."""
        slots: list[list[np.ndarray]] = [[] for _ in range(self.slots or len(images))]
        for own, shares in zip(images, rng.dirichlet([self.gamma] * len(slots), len(images)), strict=True):
            ends = (np.cumsum(shares)[:-1] * len(own)).astype(int)
            for slot, part in zip(slots, np.split(own, ends), strict=True):
                slot.append(part)
        return np.concatenate([rng.permutation(np.concatenate(slot)) for slot in slots])


@dataclass(frozen=True)
class FewClasses(Stream):
    """Batches of n images of k random classes each: StatA's batches of few effective classes, without repetition.

    MaxZanella/StatA@eea8637, sampler.py, BatchSampler, draws each batch from all images anew; here each image comes
    once, so that a test is a test of the whole split. Where k classes have fewer than n images left, more are added.
    """

    name = "few_classes"

    k: int = 5  # classes of a batch
    n: int = 64  # images of a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("k", self.k), ("n", self.n)):
            if value < 1:
                raise InputError(f"{name} must be a whole number, at least 1, but got {value}")

    def compose(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Batches until no image is left; the last one has the rest."""
        if self.k > len(images):
            raise InputError(f"{self} needs {self.k} classes, but the images are of {len(images)}: choose a smaller k")
        order, left = [], images
        while left:
            left = [left[i] for i in rng.permutation(len(left))]
            sizes = np.cumsum([len(own) for own in left])
            chosen = max(self.k, int(np.searchsorted(sizes, self.n)) + 1)  # the first so many
            batch = rng.permutation(np.concatenate(left[:chosen]))[: self.n]
            order.append(batch)
            left = [own[~np.isin(own, batch)] for own in left[:chosen]] + left[chosen:]
            left = [own for own in left if len(own)]
        return np.concatenate(order)


def parse_stream(text: Any, key: str = "TEST.STREAM") -> Stream:
    """The stream that a text names.

    Args:
        text: A name in any case, with settings in brackets: "few_classes(k=4,n=32)".
        key: The setting that holds it, for messages.

    Raises:
        InputError: There is no such stream or setting, or a value is invalid.

    >>> parse_stream("few_classes(k=4)"), parse_stream("by_class").order([0, 1, 0, 1], seed=0)
    (FewClasses(k=4, n=64), [0, 2, 1, 3])
    """
    return parse_option(text, STREAMS, key, kind="stream", example="dirichlet(gamma=0.01)")


def expected_tail_accuracy(accuracies: Sequence[float], share: float = 0.1) -> float:
    """The mean of the worst orders: OGA's ETA (Fuchs et al., arXiv 2501.04352).

    Args:
        accuracies: One for each order.
        share: How many of them count, rounded up.

    >>> expected_tail_accuracy([60.0, 50.0, 70.0, 80.0], share=0.5)
    55.0
    """
    n = max(1, math.ceil(share * len(accuracies) - 1e-9))  # 0.1 * 70 is a little more than 7
    return statistics.fmean(sorted(accuracies)[:n])
