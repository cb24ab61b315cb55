"""SAPT's relatives: where the loss is looked at, and what becomes of its gradients. docs/variants.md compares them.

``g(q)`` is the gradient of the batch's loss at a prompt q, ``p`` the prompt, ``u(x) = x / ||x||`` (0 for x = 0), norms
are over the whole prompt. Each returns a direction ``d``, of which the optimizer takes a step from p; lambda is the
sharpness' weight (SAPT, arXiv 2501.18864, eq. 2): ``d = (1 - lambda) g(p) + lambda d_1``, with a method's own d_1.

    sam      d_1 = g(p + rho u(g(p)))
    asam     d_1 = g(p + rho p^2 g / || |p| g ||), g = g(p), elementwise products
    fsam     d_1 = g(p + rho u(g(p) - sigma m)), m a moving average of g(p)
    gsam     d_1 = g_p - alpha (g - (g . u(g_p)) u(g_p)), g = g(p), g_p = sam's
    looksam  d_1 = sam's in every k-th step, which keeps v = u(g_p - (g_p . u(g)) u(g)); else g + alpha ||g|| v
    msam     d = g(p - rho u(v)), v the optimizer's momentum
    random   d = g(p + rho u(xi)), xi ~ N(0, I)

A setting VARIANT names one, its own settings in brackets: "fsam", "gsam(alpha=0.2)". lambda = 0 or rho = 0 is plain
descent under every name. The prompt is not modified, so that there is nothing to undo, whenever a training is cut.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .errors import InputError
from .options import parse_option
from .sharpness import SharpnessStep, random_directions, sharpness_step
from .steps import VARIANTS, State, Task, Variant, orthogonal, over, unit


@dataclass(frozen=True)
class Sam(Variant):
    """SAPT's own, `sharpness_step` (SAM, Foret et al., arXiv 2010.01412)."""

    name = "sam"

    def step(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """The step at the first-order worst point."""
        t = task
        found = sharpness_step(t.loss_fn, t.prompt, t.rho, t.lam, t.loss_scale, t.reduce, t.perturbation)
        return found, state


@dataclass(frozen=True)
class Asam(Variant):
    """The ball is measured in the prompt's own units (ASAM, Kwon et al., arXiv 2102.11600, eq. 4, T = |p|).

    Checked against juntang-zhuang/GSAM@a770275, gsam/gsam.py, with adaptive=True and alpha 0, and against
    nblt/F-SAM@2e2f989, utils.py, with adaptive=True and sigma 0. rho has no unit: ||eps|| is about rho times a typical
    |p_i|, so that it has to be larger than sam's.
    """

    name = "asam"

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """The step at the first-order worst point of ||eps / |p||| <= rho."""
        p, (loss, g) = task.p, task.look(task.p)
        loss_up, g_up = task.look(p + task.rho * over(p.square() * g, (p.abs() * g).norm()))
        return task.done(g, g_up, loss, loss_up), state


@dataclass(frozen=True)
class Fsam(Variant):
    """Climbs along the batch's noise, without the direction that all batches share (Li et al., F-SAM, CVPR 2024).

    Checked against nblt/F-SAM@2e2f989, utils.py, FriendlySAM; its logs use decay 0.6 and 0.95.
    """

    name = "fsam"
    keeps = ("mean",)

    sigma: float = 1.0  # of the moving average that is subtracted; 0 is sam
    decay: float = 0.9  # of the moving average, below 1; lambda in the paper

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay >= 1:
            raise InputError(f"decay must be below 1, but got {self.decay:g}")

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """The first step has no average yet: it is sam's, and the average starts at its gradient."""
        loss, g = task.look(task.p)
        mean = state.get("mean")
        noise = g if mean is None else g - self.sigma * mean
        mean = g if mean is None else self.decay * mean + (1 - self.decay) * g
        loss_up, g_up = task.look(task.p + task.rho * unit(noise))
        return task.done(g, g_up, loss, loss_up), {"mean": mean}


@dataclass(frozen=True)
class Gsam(Variant):
    """Also lowers the gap between perturbed and plain loss (GSAM, Zhuang et al., ICLR 2022, arXiv 2203.08065, alg. 1).

    Checked against juntang-zhuang/GSAM@a770275, gsam/gsam.py. There rho may follow the learning rate; here it stays, as
    with rho_max = rho_min in its example, whose alpha is the default here.
    """

    name = "gsam"

    alpha: float = 0.4  # of the part of g(p) that is orthogonal to the perturbed gradient; 0 is sam

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """Of sam's two gradients the perturbed one, less alpha times the orthogonal part of the plain one."""
        loss, g = task.look(task.p)
        loss_up, g_up = task.look(task.p + task.rho * unit(g))
        return task.done(g, g_up - self.alpha * orthogonal(g, to=g_up), loss, loss_up), state


@dataclass(frozen=True)
class LookSam(Variant):
    """Uses sam's correction of the gradient for k steps (LookSAM, Liu et al., CVPR 2022, arXiv 2203.02714, alg. 1).

    The authors' code is not public. Checked against MarlonBecker/MSAM@780fa4f, optimizer/looksam.py, a port by others.
    """

    name = "looksam"
    keeps = ("correction",)
    counts = ("steps",)

    k: int = 5  # steps from one look at the perturbed prompt to the next; 1 is sam
    alpha: float = 0.2  # of the correction, times the gradient's norm; the port's, the paper has 0.5 to 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise InputError(f"k must be at least 1, but got {self.k}")

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """As sam in steps 0, k, 2k ..."""
        loss, g = task.look(task.p)
        done = int(state.get("steps", 0))
        if done % self.k:
            v = torch.as_tensor(state["correction"])
            return task.done(g, g + self.alpha * g.norm() * v, loss), {**state, "steps": done + 1}
        loss_up, g_up = task.look(task.p + task.rho * unit(g))
        return task.done(g, g_up, loss, loss_up), {"correction": unit(orthogonal(g_up, to=g)), "steps": done + 1}


@dataclass(frozen=True)
class Msam(Variant):
    """Looks ahead, against the momentum (MSAM, Becker et al., arXiv 2401.12033, alg. 1): no pass more than CoOp.

    Checked against MarlonBecker/MSAM@780fa4f, optimizer/msam.py. There the parameters rest at the perturbed point, of
    which weight decay is taken, too, and have to be moved back; here only the gradient is from there. Its README has
    rho = 3 where sam has 0.2.
    """

    name = "msam"
    looks_at_p = False
    needs_momentum = True

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """The first step, without momentum, is plain."""
        v = torch.zeros_like(task.p) if task.momentum is None else task.momentum
        return task.elsewhere(task.p - task.rho * unit(v)), state


@dataclass(frozen=True)
class RandomPlace(Variant):
    """A random place on the sphere of radius rho, the neighbourhood that STSS looks at (arXiv 2501.18864, eq. 5).

    Known as random smoothing; an ablation, of nobody's code.
    """

    name = "random"
    looks_at_p = False
    counts = ("steps",)

    def ascend(self, task: Task, state: State) -> tuple[SharpnessStep, State]:
        """The direction depends on the seed and the number of steps so far: the same in every process."""
        done = int(state.get("steps", 0))
        eps = random_directions(tuple(task.prompt.shape), 1, task.rho, (task.seed * 1_000_003 + done) % 2**63)[0]
        return task.elsewhere(task.p + eps.to(task.p)), {"steps": done + 1}


SAM = Sam()


def parse_variant(text: Any, key: str = "VARIANT") -> Variant:
    """The variant that a text names.

    Args:
        text: A name in any case, with settings in brackets: "gsam(alpha=0.2)".
        key: The setting that holds the text, for messages.

    Raises:
        InputError: There is no such variant or setting, or a value is invalid.

    >>> parse_variant("gsam(alpha=0.2)"), str(parse_variant("SAM"))
    (Gsam(alpha=0.2), 'sam')
    >>> parse_variant("gsma")
    Traceback (most recent call last):
    tlla.errors.InputError: VARIANT 'gsma' is not a variant: did you mean 'gsam' or 'sam'? (known: asam, ...
    """
    return parse_option(text, VARIANTS, key, "variant", "gsam(alpha=0.2)")
