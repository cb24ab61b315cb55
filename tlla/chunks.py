"""Which prompts pass the text encoder together: sorted by length, short ones need not be as long as the longest.

The plan depends on the model and the lengths alone, not on the machine, so that rounding is the same everywhere.
"""

from collections.abc import Sequence

from torch import nn

from .backbones import as_backbone

LEAST = 64  # prompts that a chunk has before longer ones are kept apart; fewer would not fill a GPU
BUDGET = 4 * 2**30  # bytes of activations; a graph with more is computed again, chunk by chunk, in the backward pass
ACTIVATIONS = 14  # numbers that a graph keeps per token, layer and unit of width: 4 of attention, 10 of the MLP


def token_limit(clip_model: nn.Module) -> int:
    """How many tokens' activations fit into the budget."""
    backbone = as_backbone(clip_model)
    width = backbone.token_weight.shape[1]
    return BUDGET // (ACTIVATIONS * backbone.dtype.itemsize * backbone.text_layers * width)


def plan_chunks(lengths: Sequence[int], most: int, tokens: int) -> tuple[list[list[int]], bool]:
    """Divides prompts into chunks.

    Args:
        lengths: Tokens of each prompt.
        most: Prompts that a chunk may have; 0: as many as `tokens` allows.
        tokens: Tokens that a chunk may have if `most` is 0, each prompt taken as long as the chunk's longest.

    Returns:
        Each chunk's prompts, ascending, and whether all chunks together are more than one may be.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    limit = most or tokens
    chunks: list[list[int]] = []
    start = total = 0
    for end in range(1, len(order) + 1):
        longest, following = lengths[order[end - 1]], lengths[order[min(end, len(order) - 1)]]
        full = (end + 1 - start) * (1 if most else following) > limit
        if end == len(order) or full or (end - start >= LEAST and following > longest):
            chunks.append(sorted(order[start:end]))
            total += (end - start) * (1 if most else longest)
            start = end
    return chunks, total > limit
