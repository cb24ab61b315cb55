"""Which prompts are encoded together: sorted by length, so that short prompts need not be padded to the longest.

The plan depends only on the model and the lengths, not on the machine, so that rounding is the same everywhere.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backbones import as_backbone

LEAST = 64  # prompts in a chunk before longer ones start a new one; fewer would not fill a GPU
BUDGET = 4 * 2**30  # bytes of activations; larger graphs are recomputed chunk by chunk in the backward pass
# Numbers that a graph stores per token, layer and unit of width: in our own forward, and in a text encoder's own code.
ACTIVATIONS, ACTIVATIONS_OF_MODULES = 10, 14


def token_limit(clip_model: nn.Module) -> int:
    """Number of tokens whose activations fit into the budget; shared tokens are few and do not count.

    >>> token_limit(model)
    209715
    """
    backbone = as_backbone(clip_model)
    width = backbone.token_weight.shape[1]
    kept = ACTIVATIONS_OF_MODULES if backbone.causal_tower is None else ACTIVATIONS
    return BUDGET // (kept * backbone.dtype.itemsize * backbone.text_layers * width)


@dataclass(frozen=True)
class Chunks:
    """A plan for K classes under R contexts.

    Attributes:
        contexts: Number of contexts that are encoded together.
        classes: Classes that are encoded together, ascending in each chunk.
        many: Whether all prompts together exceed the limit of one graph.
    """

    contexts: int
    classes: list[list[int]]
    many: bool


def plan_chunks(lengths: Sequence[int], n_contexts: int, most: int, tokens: int) -> Chunks:
    """Divides prompts into chunks.

    Args:
        lengths: Number of tokens of each class's prompt.
        n_contexts: Number of contexts, R.
        most: Maximum number of prompts per chunk; 0: as many as `tokens` allows.
        tokens: Maximum number of tokens per chunk if `most` is 0, with all prompts as long as the chunk's longest.

    >>> plan_chunks([7, 9, 7], n_contexts=1, most=2, tokens=0).classes
    [[0, 2], [1]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    limit = most or tokens
    contexts = max(1, min(n_contexts, limit // (1 if most else max(lengths))))
    chunks: list[list[int]] = []
    start = total = 0
    for end in range(1, len(order) + 1):
        longest, following = lengths[order[end - 1]], lengths[order[min(end, len(order) - 1)]]
        full = contexts * (end + 1 - start) * (1 if most else following) > limit
        if end == len(order) or full or (contexts * (end - start) >= LEAST and following > longest):
            chunks.append(sorted(order[start:end]))
            total += n_contexts * (end - start) * (1 if most else longest)
            start = end
    return Chunks(contexts, chunks, total > limit)


@dataclass(frozen=True)
class PlacedChunks:
    """A plan with its indices on the device, so that an encoding copies none and the host never waits for one.

    Attributes:
        contexts: As in `Chunks`.
        classes: The classes of each chunk, int64, and the length of the longest of their prompts.
        order: Where each class is among the chunks, (K,), int64.
        many: As in `Chunks`.
    """

    contexts: int
    classes: list[tuple[Tensor, int]]
    order: Tensor
    many: bool


@functools.lru_cache(maxsize=32)
def place_chunks(
    classes: tuple[int, ...], lengths: tuple[int, ...], n_contexts: int, most: int, tokens: int, device: torch.device
) -> PlacedChunks:
    """`plan_chunks` of some classes of a prompt, whose prompts have these lengths.

    >>> place_chunks((4, 5, 6), (7, 9, 7), 1, most=2, tokens=0, device=torch.device("cpu")).classes
    [(tensor([4, 6]), 7), (tensor([5]), 9)]
    """
    plan = plan_chunks(lengths, n_contexts, most, tokens)
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        places = torch.tensor([i for chunk in plan.classes for i in chunk]).argsort().to(device)
        chunks = [
            (torch.tensor([classes[i] for i in chunk], device=device), max(lengths[i] for i in chunk))
            for chunk in plan.classes
        ]
    return PlacedChunks(plan.contexts, chunks, places, plan.many)
