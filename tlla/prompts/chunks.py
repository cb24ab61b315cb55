"""Which prompts pass the text encoder together: sorted by length, short ones need not be as long as the longest.

The plan depends on the model and the lengths alone, not on the machine, so that rounding is the same everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..backbones import as_backbone

LEAST = 64  # prompts that a chunk has before longer ones are kept apart; fewer would not fill a GPU
BUDGET = 4 * 2**30  # bytes of activations; a graph with more is computed again, chunk by chunk, in the backward pass
# Numbers that a graph keeps per token, layer and unit of width: by our own forward, and by a text encoder's own code.
ACTIVATIONS, ACTIVATIONS_OF_MODULES = 10, 14


def token_limit(clip_model: nn.Module) -> int:
    """How many tokens' activations fit into the budget; tokens that prompts share are few and do not count."""
    backbone = as_backbone(clip_model)
    width = backbone.token_weight.shape[1]
    kept = ACTIVATIONS_OF_MODULES if backbone.causal_tower is None else ACTIVATIONS
    return BUDGET // (kept * backbone.dtype.itemsize * backbone.text_layers * width)


@dataclass(frozen=True)
class Chunks:
    """A plan of K classes under R contexts.

    Attributes:
        contexts: How many of the contexts pass the encoder together.
        classes: Which classes do, each chunk ascending.
        many: Whether all prompts together are more than may be in one graph.
    """

    contexts: int
    classes: list[list[int]]
    many: bool


def plan_chunks(lengths: Sequence[int], n_contexts: int, most: int, tokens: int) -> Chunks:
    """Divides prompts into chunks.

    Args:
        lengths: Tokens of each class's prompt.
        n_contexts: R, under each of which all prompts are wanted.
        most: Prompts that a chunk may have; 0: as many as `tokens` allows.
        tokens: Tokens that a chunk may have if `most` is 0, each prompt taken as long as the chunk's longest.
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
