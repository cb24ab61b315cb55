"""Orders of the training images. Each sampler has a generator of its own, which the loader seeds for every pass."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import RandomSampler as TorchRandomSampler
from torch.utils.data import Sampler, SequentialSampler


class RandomSampler(TorchRandomSampler):
    """All images in random order."""

    def __init__(self, data_source: Sequence):
        super().__init__(data_source, generator=torch.Generator())

    def reseed(self, seed: int) -> None:
        """Sets what the next pass is drawn from."""
        self.generator.manual_seed(seed)


class _GroupSampler(Sampler):
    """A list of indices drawn by ``_draw`` from groups of images that share an attribute."""

    def __init__(self, data_source: Sequence, attribute: str):
        self.random = random.Random(0)
        self.groups: dict[Any, list[int]] = defaultdict(list)
        for index, item in enumerate(data_source):
            self.groups[getattr(item, attribute)].append(index)

    def reseed(self, seed: int) -> None:
        """Sets what the next pass is drawn from."""
        self.random.seed(seed)

    def _draw(self) -> list[int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self._draw())

    def __len__(self) -> int:
        # Counted with the generator's state put back, as the length must not change the draw.
        state = self.random.getstate()
        length = len(self._draw())
        self.random.setstate(state)
        return length


class RandomDomainSampler(_GroupSampler):
    """Batches of images from ``n_domain`` random domains, the same number of each; ends when a domain runs out.

    Raises:
        ValueError: The batch cannot be divided so.
    """

    in_order = False

    def __init__(self, data_source: Sequence, batch_size: int, n_domain: int | None = 0):
        super().__init__(data_source, "domain")
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.groups)
        if batch_size % self.n_domain or self.n_domain > len(self.groups):
            raise ValueError(
                f"{type(self).__name__} needs a BATCH_SIZE that is a multiple of the number of domains in it, and at "
                f"most {len(self.groups)} domains, but got BATCH_SIZE {batch_size} and {self.n_domain} domains"
            )
        self.per_domain = batch_size // self.n_domain
        short = [domain for domain, indices in self.groups.items() if len(indices) < self.per_domain]
        if short:
            raise ValueError(f"Domains {short} have fewer images than the {self.per_domain} that a batch takes of each")

    def _draw(self) -> list[int]:
        left = {domain: self.random.sample(indices, len(indices)) for domain, indices in self.groups.items()}
        drawn: list[int] = []
        while all(len(indices) >= self.per_domain for indices in left.values()):
            domains = sorted(left) if self.in_order else self.random.sample(list(left), self.n_domain)
            for domain in domains:
                drawn += left[domain][: self.per_domain]
                del left[domain][: self.per_domain]
        return drawn


class SeqDomainSampler(RandomDomainSampler):
    """As RandomDomainSampler with all domains, always in ascending order."""

    in_order = True

    def __init__(self, data_source: Sequence, batch_size: int):
        super().__init__(data_source, batch_size)


class RandomClassSampler(_GroupSampler):
    """Batches of ``n_ins`` images from each of BATCH_SIZE // ``n_ins`` random classes.

    Raises:
        ValueError: There are fewer classes, or a batch holds less than one class.
    """

    def __init__(self, data_source: Sequence, batch_size: int, n_ins: int):
        super().__init__(data_source, "label")
        self.n_ins = n_ins
        self.classes_per_batch = batch_size // n_ins
        if not 1 <= self.classes_per_batch <= len(self.groups):
            raise ValueError(
                f"RandomClassSampler needs BATCH_SIZE // N_INS between 1 and the number of classes, {len(self.groups)},"
                f" but got BATCH_SIZE {batch_size} and N_INS {n_ins}"
            )

    def _chunks(self, indices: list[int]) -> list[list[int]]:
        """Shuffled groups of n_ins images of a class; a class with fewer repeats some, an incomplete rest is left."""
        if len(indices) < self.n_ins:
            indices = self.random.choices(indices, k=self.n_ins)
        indices = self.random.sample(indices, len(indices))
        return [indices[i : i + self.n_ins] for i in range(0, len(indices) - self.n_ins + 1, self.n_ins)]

    def _draw(self) -> list[int]:
        chunks = {label: self._chunks(indices) for label, indices in self.groups.items()}
        drawn: list[int] = []
        while len(chunks) >= self.classes_per_batch:
            for label in self.random.sample(list(chunks), self.classes_per_batch):
                drawn += chunks[label].pop(0)
                if not chunks[label]:
                    del chunks[label]
        return drawn


_SAMPLERS = {
    "RandomSampler": lambda source, batch_size, n_domain, n_ins: RandomSampler(source),
    "SequentialSampler": lambda source, batch_size, n_domain, n_ins: SequentialSampler(source),
    "RandomDomainSampler": lambda source, batch_size, n_domain, n_ins: RandomDomainSampler(
        source, batch_size, n_domain
    ),
    "SeqDomainSampler": lambda source, batch_size, n_domain, n_ins: SeqDomainSampler(source, batch_size),
    "RandomClassSampler": lambda source, batch_size, n_domain, n_ins: RandomClassSampler(source, batch_size, n_ins),
}


def build_sampler(
    sampler_type: str,
    cfg: Any = None,
    data_source: Sequence = (),
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """Builds a sampler by name.

    Raises:
        ValueError: Unknown name.
    """
    if sampler_type not in _SAMPLERS:
        raise ValueError(f"SAMPLER must be one of {tuple(_SAMPLERS)}, but got {sampler_type!r}")
    return _SAMPLERS[sampler_type](data_source, batch_size, n_domain, n_ins)
