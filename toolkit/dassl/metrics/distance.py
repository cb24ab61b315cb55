"""Distances between the rows of two matrices."""

import torch
from torch import Tensor
from torch.nn import functional as F


def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Tensor:
    """Computes the distance of each row of ``input1`` to each row of ``input2``.

    Args:
        input1: Float tensor of shape (M, D).
        input2: Float tensor of shape (N, D).
        metric: "euclidean" (squared) or "cosine".

    Returns:
        Float tensor of shape (M, N).

    Raises:
        ValueError: A shape or the metric is not one of those above.
    """
    metrics = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}
    if metric not in metrics:
        raise ValueError(f"metric must be one of {tuple(metrics)}, but got {metric!r}")
    if input1.dim() != 2 or input2.dim() != 2 or input1.shape[1] != input2.shape[1]:
        shapes = f"{tuple(input1.shape)} and {tuple(input2.shape)}"
        raise ValueError(f"expected matrices of shape (M, D) and (N, D), but got {shapes}")
    return metrics[metric](input1, input2)


def euclidean_squared_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """Squared Euclidean distances, (M, D) and (N, D) -> (M, N)."""
    squares = input1.pow(2).sum(1, keepdim=True) + input2.pow(2).sum(1)  # (M, N)
    return squares - 2 * input1 @ input2.t()


def cosine_distance(input1: Tensor, input2: Tensor) -> Tensor:
    """One minus the cosine similarity, (M, D) and (N, D) -> (M, N)."""
    return 1 - torch.mm(F.normalize(input1, dim=1), F.normalize(input2, dim=1).t())
