"""Measures of the loss's flatness around a prompt.

Within a ball of radius rho (Frobenius norm over the whole prompt, as in SAM, arXiv 2010.01412, and SAPT, arXiv
2501.18864): the largest rise in random directions, and the largest rise that gradient ascent finds. Both are lower
bounds of the true maximum. At the prompt itself: the largest eigenvalue of the Hessian.

`sharpness.sharpness_step` returns SAM's first-order rise. A loss maps a batch of contexts, (n, L, D) -> (n,).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..sharpness import random_directions
from .planes import CHUNK, BatchLoss

Product = Callable[[Tensor], Tensor]


@torch.no_grad()
def random_rise(loss: BatchLoss, ctx: Tensor, rho: float, n: int, seed: int, chunk: int = CHUNK) -> Tensor:
    """Maximum of loss(p + eps) - loss(p) over n random directions of norm rho, a scalar; may be negative.

    >>> square = lambda ctx: ctx.square().sum(dim=(1, 2))
    >>> random_rise(square, torch.zeros(4, 8), rho=0.5, n=3, seed=0)
    tensor(0.2500)
    """
    directions = random_directions(tuple(ctx.shape), n, rho, seed).to(ctx)
    losses = [loss(ctx + part) for part in torch.split(directions, chunk)]
    return torch.cat(losses).max() - loss(ctx[None])[0]


def worst_rise(loss: BatchLoss, ctx: Tensor, rho: float, steps: int = 20) -> Tensor:
    """The largest loss(p + eps) - loss(p) that projected gradient ascent finds in the ball ||eps|| <= rho.

    Each step follows the gradient, at first by rho, and is projected into the ball; if the loss does not rise, the
    step is rejected and the next one is half as long. The first step reaches SAM's point, so that the result is at
    least 0 and at least SAM's rise. Where the gradient vanishes, a random direction replaces it.

    Args:
        loss: Loss of a batch of contexts.
        ctx: The prompt, (L, D); not modified.
        rho: Radius of the ball.
        steps: Number of steps tried.

    Returns:
        A detached scalar.

    >>> square = lambda ctx: ctx.square().sum(dim=(1, 2))
    >>> worst_rise(square, torch.ones(1, 4), rho=0.5)
    tensor(2.2500)
    """
    best = torch.zeros_like(ctx)
    start = highest = loss(ctx[None])[0].detach()
    size, gradient = rho, _gradient(loss, ctx)
    for step in range(steps):
        stationary = bool(gradient.norm() == 0)
        direction = random_directions(tuple(ctx.shape), 1, 1.0, seed=step)[0].to(ctx) if stationary else gradient
        eps = _into_ball(best + size * direction / direction.norm(), rho)
        reached = loss((ctx + eps)[None])[0].detach()
        if reached > highest:
            best, highest = eps, reached
            gradient = _gradient(loss, ctx + best)
        elif not stationary:
            size /= 2
    return highest - start


def _gradient(loss: BatchLoss, ctx: Tensor) -> Tensor:
    leaf = ctx.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf[None])[0], leaf)
    return gradient


def _into_ball(eps: Tensor, rho: float) -> Tensor:
    return torch.mul(eps, rho / eps.norm().clamp(min=rho))


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue that power iteration found.

    Attributes:
        value: Rayleigh quotient of `vector`; apart from rounding, at most the largest eigenvalue.
        vector: Has the prompt's shape and norm 1.
        converged: Whether ||H v - value * v|| reached the tolerance.
        iterations: Number of products with the Hessian.
    """

    value: float
    vector: Tensor
    converged: bool
    iterations: int


def top_eigenvalue(
    loss: BatchLoss, ctx: Tensor, tol: float = 1e-3, max_iterations: int = 200, seed: int = 0
) -> Eigenvalue:
    """The largest eigenvalue (with its sign) of the Hessian of the loss at a prompt.

    Power iteration converges to the eigenvalue of largest magnitude. If that is negative, or if two of opposite sign
    prevent convergence, it runs a second time on H + c I, where c is that magnitude, so that no eigenvalue is
    negative.

    Args:
        loss: Loss of a batch of contexts, twice differentiable.
        ctx: The prompt, (L, D); not modified.
        tol: Largest ||H v - value * v|| at convergence, relative to ||H v|| (of H + c I in the second run).
        max_iterations: Limit of each of the two runs.
        seed: Seed of the initial vector.

    >>> square = lambda ctx: ctx.square().sum(dim=(1, 2))
    >>> round(top_eigenvalue(square, torch.ones(1, 4)).value, 3)
    2.0
    """
    product = _hessian_product(loss, ctx)
    start = random_directions(tuple(ctx.shape), 1, 1.0, seed)[0].to(ctx)
    first = _power_iteration(product, start, tol, max_iterations)
    if first.converged and first.value >= 0:
        return first
    shift = float(product(first.vector).norm())
    second = _power_iteration(lambda v: product(v) + shift * v, start, tol, max_iterations)
    value, iterations = second.value - shift, first.iterations + second.iterations
    # Both are Rayleigh quotients of H, hence lower bounds: keep the larger one.
    best = first if first.value > value else Eigenvalue(value, second.vector, second.converged, iterations)
    return Eigenvalue(best.value, best.vector, best.converged, iterations)


def _power_iteration(product: Product, vector: Tensor, tol: float, max_iterations: int) -> Eigenvalue:
    for i in range(1, max_iterations + 1):
        image = product(vector)
        value, norm = float((vector * image).sum()), float(image.norm())
        converged = float((image - value * vector).norm()) <= tol * norm
        if converged or i == max_iterations:
            break
        vector = image / norm
    return Eigenvalue(value, vector, converged, i)


def _hessian_product(loss: BatchLoss, ctx: Tensor) -> Product:
    """The function v -> H v, with H the Hessian of the loss at `ctx`; v and H v have the prompt's shape."""
    leaf = ctx.detach().requires_grad_(True)
    # The fused kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(loss(leaf[None])[0], leaf, create_graph=True)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a linear loss
            return torch.zeros_like(v)
        with sdpa_kernel(SDPBackend.MATH):
            (image,) = torch.autograd.grad(gradient, leaf, v, retain_graph=True, materialize_grads=True)
        return image

    return product
