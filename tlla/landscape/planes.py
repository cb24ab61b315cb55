"""Loss landscapes around a prompt: planes of filter-normalised random directions.

Li et al., "Visualizing the Loss Landscape of Neural Nets" (arXiv 1712.09913): a random direction shows flatness only
if each of its filters has the norm of the network's own filter; otherwise larger weights look flatter. The filters of
a prompt are its context vectors.

Differs from the paper: the two directions of a plane are made orthogonal for each context vector; the paper relies on
random vectors being nearly orthogonal. Both then have exactly the prompt's norm, and a point of the plane has the
distance ``sqrt(alpha^2 + beta^2) * ||p||`` from the prompt.

Letters in shapes: n contexts, L context tokens, D text width. Class-specific contexts, (K, L, D), work as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError

BatchLoss = Callable[[Tensor], Tensor]  # contexts (n, L, D) -> losses (n,), or several per context, (n, ...)

CHUNK = 64  # contexts encoded at once


class Surface(NamedTuple):
    """Losses on a plane: `losses[i, j]`, (steps, steps, ...), at p + alphas[i] * d1 + betas[j] * d2, on the CPU.

    The prompt is in the middle: alphas[steps // 2] = betas[steps // 2] = 0.
    """

    alphas: Tensor
    betas: Tensor
    losses: Tensor


def filter_normalised_plane(ctx: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Two orthogonal random directions of a prompt's shape, whose context vectors have the norms of the prompt's.

    With the same seed the directions of two prompts differ only in the lengths of their context vectors.

    Args:
        ctx: The context vectors, (L, D).
        seed: Seed of the Gaussian draws, which are made on the CPU.

    Returns:
        d1 and d2, each (L, D): ``d1[l] . d2[l] = 0`` and ``||d1[l]|| = ||d2[l]|| = ||ctx[l]||``.

    Raises:
        InputError: D is 1, so that there are no two orthogonal directions.

    >>> d1, d2 = filter_normalised_plane(torch.ones(3, 16), seed=0)
    >>> d1.norm(dim=-1).round(decimals=3), (d1 * d2).sum(dim=-1).abs().max().item() < 1e-4
    (tensor([4., 4., 4.]), True)
    """
    if ctx.shape[-1] < 2:
        raise InputError(f"a plane needs context vectors of width 2 or more, but their shape is {tuple(ctx.shape)}")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, *ctx.shape, generator=generator).to(ctx)
    first = F.normalize(first, dim=-1)
    second = F.normalize(second - (second * first).sum(dim=-1, keepdim=True) * first, dim=-1)
    length = ctx.detach().norm(dim=-1, keepdim=True)
    return length * first, length * second


@torch.no_grad()
def surface(
    loss: BatchLoss, ctx: Tensor, d1: Tensor, d2: Tensor, span: float, steps: int, chunk: int = CHUNK, title: str = ""
) -> Surface:
    """Losses on a square grid of the plane through `ctx`.

    Args:
        loss: Loss of a batch of contexts.
        ctx: The prompt in the middle, (L, D).
        d1: Direction of the first axis, (L, D).
        d2: Direction of the second axis, (L, D).
        span: The grid covers -span to span on both axes; with filter-normalised directions 1 is the prompt's norm.
        steps: Points along each axis; odd, so that the prompt is one of them.
        chunk: Contexts passed to `loss` at once.
        title: Title of the progress bar; empty: no bar.

    Raises:
        InputError: `span` or `steps` is invalid.

    >>> square, (d1, d2) = (lambda ctx: ctx.square().sum(dim=(1, 2))), torch.eye(2)[:, None]
    >>> surface(square, torch.zeros(1, 2), d1, d2, span=1.0, steps=3).losses
    tensor([[2., 1., 2.],
            [1., 0., 1.],
            [2., 1., 2.]])
    """
    if steps < 3 or steps % 2 == 0:
        raise InputError(f"steps must be odd and at least 3, so that the prompt is in the middle, but got {steps}")
    if not 0 < span < float("inf"):
        raise InputError(f"span must be a finite number > 0, but got {span}")
    half = steps // 2
    axis = torch.arange(-half, half + 1, dtype=ctx.dtype) * (span / half)
    points = torch.cartesian_prod(axis, axis).to(ctx.device)  # (steps * steps, 2)
    losses = []
    with tqdm(total=len(points), unit="prompt", desc=title, disable=not title) as bar:
        for part in torch.split(points, chunk):
            alpha, beta = part.view(len(part), 2, *[1] * ctx.dim()).unbind(dim=1)  # each (n, 1, 1)
            losses.append(loss(ctx + alpha * d1 + beta * d2).cpu())
            bar.update(len(part))
    stacked = torch.cat(losses)
    return Surface(axis, axis.clone(), stacked.view(steps, steps, *stacked.shape[1:]))
