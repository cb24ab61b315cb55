"""What all sharpness-aware steps of `tlla.variants` share: the loss that they look at, and their base class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .errors import InputError
from .options import Option
from .sharpness import LossFn, Perturbation, Reduce, SharpnessStep, loss_and_gradient

State = Mapping[str, Tensor | int]
VARIANTS: dict[str, type["Variant"]] = {}


@dataclass(frozen=True)
class Task:
    """What a step is taken for.

    Attributes:
        loss_fn: Maps a prompt to the scalar loss of a batch.
        prompt: The context vectors, float32, any shape.
        rho: Radius of the perturbation.
        lam: Weight of the sharpness.
        loss_scale: Factor on the loss before the backward pass (fp16), and on the direction that is returned.
        reduce: Maps this process's gradient to the whole one, as by a sum over processes.
        perturbation: See `sharpness_step`; of `sam` alone.
        momentum: The optimizer's, of the prompt's shape; None before its first step.
        seed: Of what is drawn.
    """

    loss_fn: LossFn
    prompt: Tensor
    rho: float
    lam: float = 1.0
    loss_scale: float = 1.0
    reduce: Reduce | None = None
    perturbation: Perturbation | None = None
    momentum: Tensor | None = None
    seed: int = 0

    @property
    def p(self) -> Tensor:
        """The prompt, detached."""
        return self.prompt.detach()

    def look(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient at a prompt; one text pass."""
        loss, scaled = loss_and_gradient(self.loss_fn, q, self.loss_scale, self.reduce)
        return loss, scaled / self.loss_scale

    def done(self, gradient: Tensor, own: Tensor, loss: Tensor, loss_up: Tensor | None = None) -> SharpnessStep:
        """The step of a method's own direction d_1, after a look at p that found `loss` and `gradient`."""
        direction = own if self.lam == 1 else (1 - self.lam) * gradient + self.lam * own
        finite = torch.isfinite(loss) & torch.isfinite(direction).all()
        rise = torch.full_like(loss, torch.nan)
        if loss_up is not None:
            finite, rise = finite & torch.isfinite(loss_up), loss_up - loss
        return SharpnessStep(direction * self.loss_scale, loss, rise, gradient.norm(), finite)

    def elsewhere(self, q: Tensor) -> SharpnessStep:
        """The step of a method that looks at q alone."""
        loss, gradient = self.look(q)
        return self.done(gradient, gradient, loss)


def unit(x: Tensor) -> Tensor:
    """The unit vector x / ||x||; 0 for 0.

    >>> unit(torch.tensor([3.0, 4.0])), unit(torch.zeros(2))
    (tensor([0.6000, 0.8000]), tensor([0., 0.]))
    """
    return over(x, x.norm())


def over(x: Tensor, norm: Tensor) -> Tensor:
    """The quotient x / norm; 0 for a norm of 0.

    >>> over(torch.ones(2), torch.tensor(0.0))
    tensor([0., 0.])
    """
    return torch.where(norm > 0, x / norm, torch.zeros_like(x))


def orthogonal(x: Tensor, to: Tensor) -> Tensor:
    """The part of x that is orthogonal to another vector.

    >>> orthogonal(torch.tensor([3.0, 4.0]), to=torch.tensor([2.0, 0.0]))
    tensor([0., 4.])
    """
    along = unit(to)
    return x - (x * along).sum() * along


@dataclass(frozen=True)
class Variant(Option):
    """A sharpness-aware step. A subclass has a name, its settings as fields, and `ascend`."""

    looks_at_p: ClassVar[bool] = True  # at the prompt itself, so that lambda can weigh the two
    needs_momentum: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ()  # tensors of its state, of the prompt's shape
    counts: ClassVar[tuple[str, ...]] = ()  # whole numbers of its state

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        VARIANTS[cls.name] = cls

    def check_lambda(self, lam: float) -> None:
        """Raises InputError if the method cannot have this weight of the sharpness."""
        if not self.looks_at_p and lam not in (0, 1):
            raise InputError(
                f"LAMBDA must be 1 with VARIANT {self}, or 0 for plain descent, but got {lam:g}: it does not look at "
                "the loss at the prompt itself"
            )

    def step(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """One step on one batch; a pure function.

        Args:
            task: The loss, and where the prompt is.
            state: What the step before has returned; {} at first.

        Returns:
            The step, whose gradient is not to be applied if it is not finite, and the state for the next one, which
            then is not to be kept either.
        """
        if task.rho == 0 or task.lam == 0:
            return task.elsewhere(task.p), state
        return self.ascend(task, state)

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """`step` for positive rho and lambda."""
        raise NotImplementedError

    def restored(self, state: Any, like: Tensor) -> State:
        """The state that a checkpoint has kept.

        Args:
            state: As it was read; whatever it is.
            like: All that is learned, for the shape and the device.

        Raises:
            InputError: It is not what this variant keeps.
        """
        kinds = {key: Tensor if key in self.keeps else int for key in (*self.keeps, *self.counts)}
        sound = isinstance(state, dict) and {key: type(value) for key, value in state.items()} == kinds
        if not sound or any(state[k].shape != like.shape or not state[k].isfinite().all() for k in self.keeps):
            raise InputError(f"the checkpoint's state of the step {self.name} is damaged: train anew")
        return {key: value.to(like) if key in self.keeps else value for key, value in state.items()}


def momentum_of(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> Tensor | None:
    """The momentum of parameters in an optimizer, SGD's buffer or the first moment of Adam and its like.

    Returns:
        Of the parameter's shape if there is one, else in one vector; None before the first step.

    >>> momentum_of(torch.optim.SGD([p := torch.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9), [p])
    """
    found = []
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        value = state.get("momentum_buffer", state.get("exp_avg"))
        if value is None:
            return None
        found.append(value)
    return found[0] if len(found) == 1 else torch.cat([value.flatten() for value in found])
