"""Orders of the images."""

from collections.abc import Sequence

import torch
from torch.utils.data import RandomSampler as TorchRandomSampler
from torch.utils.data import Sampler, SequentialSampler


class RandomSampler(TorchRandomSampler):
    """All images in random order, from a generator of its own, which the loader seeds for every pass."""

    def __init__(self, data_source: Sequence):
        super().__init__(data_source, generator=torch.Generator())

    def reseed(self, seed: int) -> None:
        """Sets what the next pass is drawn from."""
        self.generator.manual_seed(seed)


SAMPLERS = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}


def build_sampler(name: str, data_source: Sequence, setting: str = "SAMPLER") -> Sampler:
    """Builds a sampler by name. ValueError if the name is unknown, which says the ``setting``."""
    if name not in SAMPLERS:
        raise ValueError(f"{setting} must be one of {tuple(SAMPLERS)}, but got {name!r}")
    return SAMPLERS[name](data_source)
