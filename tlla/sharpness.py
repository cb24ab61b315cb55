"""The sharpness-aware objective of SAPT (arXiv 2501.18864, eq. 2-4).

``l_SAPT(p) = l(p) + lambda * max_{||eps|| <= rho} [l(p + eps) - l(p)]``, with the first-order maximiser
``eps* = rho * g / ||g||`` (g the gradient of l at p, the norm over the whole prompt) whose own derivative is dropped,
so that the descent direction is ``(1 - lambda) * g(p) + lambda * g(p + eps*)``. lambda = 1 is SAM (Foret et al.,
arXiv 2010.01412), lambda = 0 is plain descent.

The prompt is not modified: the perturbed prompt is a new tensor, so there is nothing to undo when a pass fails.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import number

LossFn = Callable[[Tensor], Tensor]
Reduce = Callable[[Tensor], Tensor]
Perturbation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SharpnessStep:
    """One evaluation of the objective.

    Attributes:
        gradient: Descent direction, of the prompt's shape and dtype; times `loss_scale` if one was given.
        loss: l(p), a detached float32 scalar.
        sharpness: l(p + eps*) - l(p), a detached scalar; 0 if the perturbed pass was not needed or not possible, NaN in
            a step of `tlla.variants` that does not look at both.
        grad_norm: ||g(p)|| over the whole prompt, unscaled.
        finite: Whether both losses and both gradients are finite, a bool scalar on the device.
    """

    gradient: Tensor
    loss: Tensor
    sharpness: Tensor
    grad_norm: Tensor
    finite: Tensor


def check_sharpness(rho: float, lam: float) -> None:
    """Raises InputError unless rho and lambda are finite and at least 0.

    >>> check_sharpness(rho=-0.1, lam=1.0)
    Traceback (most recent call last):
    tlla.errors.InputError: RHO must be a finite number >= 0, but got -0.1
    """
    for name, value in (("RHO", rho), ("LAMBDA", lam)):
        number(name, value)


def ascent(prompt: Tensor, gradient: Tensor, rho: float) -> Tensor:
    """eps* = rho * g / ||g|| (eq. 3), of the prompt's shape; a factor on the gradient cancels.

    >>> ascent(torch.zeros(2), torch.tensor([3.0, 4.0]), rho=0.5)
    tensor([0.3000, 0.4000])
    """
    eps: Tensor = gradient * (rho / gradient.norm())
    return eps


def sharpness_step(
    loss_fn: LossFn,
    prompt: Tensor,
    rho: float,
    lam: float,
    loss_scale: float = 1.0,
    reduce: Reduce | None = None,
    perturbation: Perturbation | None = None,
) -> SharpnessStep:
    """Descent direction of the sharpness-aware objective at `prompt` (eq. 2-4).

    Args:
        loss_fn: Maps a prompt to a scalar loss; called once or twice, on the same batch.
        prompt: The context vectors, float32, any shape; not modified.
        rho: Radius of the perturbation, in the norm over the whole prompt.
        lam: Weight of the sharpness; 0 makes a single pass.
        loss_scale: Factor on the loss before the backward pass (fp16); it cancels in eps*.
        reduce: Maps this process's gradient to the whole one, as by a sum over processes.
        perturbation: Maps the prompt and `loss_scale` times its gradient to another eps; default: `ascent`.

    Returns:
        A `SharpnessStep`; do not apply its gradient if `finite` is False.

    >>> step = sharpness_step(lambda p: p.square().sum(), torch.tensor([3.0, 4.0]), rho=0.5, lam=1.0)
    >>> step.gradient, step.sharpness
    (tensor([6.6000, 8.8000]), tensor(5.2500))
    """
    loss, grad = loss_and_gradient(loss_fn, prompt, loss_scale, reduce)
    norm = grad.norm()
    finite = torch.isfinite(loss) & torch.isfinite(norm)
    sharpness = torch.zeros_like(loss)
    direction = grad
    # At a stationary point (norm 0) there is no direction to climb, and the sharpness is 0 to first order.
    if lam > 0 and rho > 0 and bool(finite & (norm > 0)):
        start = prompt.detach()
        eps = perturbation(start, grad) if perturbation else ascent(start, grad, rho)
        loss_up, grad_up = loss_and_gradient(loss_fn, start + eps, loss_scale, reduce)
        finite = torch.isfinite(loss_up) & torch.isfinite(grad_up).all()
        sharpness = loss_up - loss
        direction = grad_up if lam == 1 else (1 - lam) * grad + lam * grad_up
    return SharpnessStep(direction, loss, sharpness, norm / loss_scale, finite)


def loss_and_gradient(
    loss_fn: LossFn, prompt: Tensor, loss_scale: float = 1.0, reduce: Reduce | None = None
) -> tuple[Tensor, Tensor]:
    """The loss at a prompt, and `loss_scale` times its gradient.

    >>> loss_and_gradient(lambda p: p.square().sum(), torch.tensor([3.0, 4.0]))
    (tensor(25.), tensor([6., 8.]))
    """
    with torch.enable_grad():
        leaf = prompt.detach().requires_grad_(True)
        loss = loss_fn(leaf)
        (grad,) = torch.autograd.grad(loss * loss_scale, leaf)
    return loss.detach().float(), reduce(grad) if reduce else grad


def random_directions(shape: tuple[int, ...], n: int, radius: float, seed: int) -> Tensor:
    """Gaussian directions scaled to Frobenius norm `radius` (STSS, below eq. 5): (n, *shape), float32, on the CPU.

    Direction r depends on (seed, r) alone, not on n.

    >>> random_directions((4, 512), n=3, radius=0.5, seed=0).norm(dim=(1, 2))
    tensor([0.5000, 0.5000, 0.5000])
    """
    directions = torch.empty(n, *shape)
    generator = torch.Generator().manual_seed(seed)
    for r in range(n):
        eps = torch.randn(shape, generator=generator)
        directions[r] = radius * eps / eps.norm()
    return directions
