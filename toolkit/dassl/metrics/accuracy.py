"""Top-k accuracy of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def compute_accuracy(output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Computes the percentage of rows whose label is among the k highest scores.

    Args:
        output: Scores, float of shape (B, K); of a tuple or list the first element is taken.
        target: Labels, int64 of shape (B,).
        topk: The values of k.

    Returns:
        One float tensor of shape (1,) in [0, 100] for each k.

    Raises:
        ValueError: A k is outside 1 ... K.
    """
    scores = output[0] if isinstance(output, (tuple, list)) else output
    num_classes = scores.shape[1]
    if min(topk) < 1 or max(topk) > num_classes:
        raise ValueError(f"topk must lie in 1 ... {num_classes} (the number of classes), but got {tuple(topk)}")
    ranked = scores.topk(max(topk), dim=1).indices  # (B, max k)
    hits = ranked.eq(target.reshape(-1, 1))  # (B, max k)
    scale = 100.0 / max(len(target), 1)
    return [hits[:, :k].sum(dtype=torch.float32).reshape(1) * scale for k in topk]
