"""SAPT's objective against closed forms, a naive in-place SAM, and plain descent."""

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES

from tlla.errors import InputError
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.sharpness import check_sharpness, random_directions, sharpness_step


@pytest.fixture
def task(tiny_clip):
    """A loss on the context vectors of a tiny CLIP, and a starting point."""
    model = PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, CLASSNAMES, n_ctx=4))
    features = F.normalize(torch.randn(16, 32), dim=-1)
    labels = torch.randint(len(CLASSNAMES), (16,))
    return lambda ctx: F.cross_entropy(model.logits(features, model.encode_text(ctx)), labels), model.prompt_learner.ctx


@pytest.mark.parametrize("lam", (0.0, 0.3, 1.0, 2.0))
def test_quadratic_has_the_closed_form(lam):
    a = torch.randn(6, 6, dtype=torch.float64)
    a = a @ a.t()
    p, rho = torch.randn(6, dtype=torch.float64), 0.1
    grad = a @ p
    eps = rho * grad / grad.norm()
    step = sharpness_step(lambda q: 0.5 * q @ a @ q, p, rho, lam)
    torch.testing.assert_close(step.gradient, (1 - lam) * grad + lam * (a @ (p + eps)))
    torch.testing.assert_close(step.grad_norm, grad.norm())
    if lam > 0:
        rise = 0.5 * (p + eps) @ a @ (p + eps) - 0.5 * p @ a @ p
        torch.testing.assert_close(step.sharpness, rise.float(), atol=1e-4, rtol=1e-4)


def naive_sam(loss_fn, ctx, rho, lr, momentum, steps):
    """SAM as it is usually written: climb in place, second backward pass, climb down, then the base optimizer."""
    p = ctx.detach().clone().requires_grad_(True)
    optimizer = torch.optim.SGD([p], lr=lr, momentum=momentum)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(p).backward()
        climb = rho * p.grad / torch.sqrt((p.grad**2).sum())
        p.data.add_(climb)
        optimizer.zero_grad()
        loss_fn(p).backward()
        p.data.sub_(climb)
        optimizer.step()
    return p.detach()


def descend(loss_fn, ctx, rho, lam, lr, momentum, steps):
    p = ctx.detach().clone().requires_grad_(True)
    optimizer = torch.optim.SGD([p], lr=lr, momentum=momentum)
    for _ in range(steps):
        p.grad = sharpness_step(loss_fn, p, rho, lam).gradient
        optimizer.step()
    return p.detach()


def test_lambda_1_equals_a_naive_sam_over_many_steps():
    """In double precision: each step divides a gradient by its norm, and so takes over its relative error."""
    features = F.normalize(torch.randn(16, 8, dtype=torch.float64), dim=-1)
    labels, ctx = torch.randint(6, (16,)), torch.randn(6, 8, dtype=torch.float64)

    def loss_fn(ctx):
        return F.cross_entropy(20 * features @ F.normalize(ctx.tanh(), dim=-1).t(), labels)

    expected = naive_sam(loss_fn, ctx, rho=0.05, lr=0.1, momentum=0.9, steps=10)
    actual = descend(loss_fn, ctx, rho=0.05, lam=1.0, lr=0.1, momentum=0.9, steps=10)
    assert (expected - ctx.detach()).norm() > 0.1  # it moved
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("rho", "lam"), [(0.3, 0.0), (0.0, 1.0)])
def test_lambda_0_or_rho_0_is_plain_descent_bit_for_bit_in_one_pass(task, rho, lam):
    loss_fn, ctx = task
    calls = []

    def counted(p):
        calls.append(1)
        return loss_fn(p)

    p = ctx.detach().clone().requires_grad_(True)
    optimizer = torch.optim.SGD([p], lr=0.5, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss_fn(p).backward()
        optimizer.step()
    assert torch.equal(descend(counted, ctx, rho, lam, 0.5, 0.9, 5), p.detach())
    assert len(calls) == 5


def test_the_perturbation_has_norm_rho_over_the_whole_prompt(task):
    loss_fn, ctx = task
    seen = []

    def spy(p):
        seen.append(p.detach().clone())
        return loss_fn(p)

    sharpness_step(spy, ctx, rho=0.7, lam=1.0)
    assert torch.equal(seen[0], ctx.detach())
    assert (seen[1] - seen[0]).norm().item() == pytest.approx(0.7, rel=1e-5)


def test_another_perturbation_is_where_the_sharpness_is_looked_for():
    """ASAM's (Kwon et al., arXiv 2102.11600, eq. 4): eps = rho * T^2 g / ||T g|| with T = |p|."""
    prompt = torch.tensor([[1.0, -2.0, 0.5]])
    rho, weight = 0.3, torch.tensor([[2.0, 1.0, 4.0]])

    def asam(p, g):
        return rho * p.square() * g / (p.abs() * g).norm()

    step = sharpness_step(lambda p: (weight * p.square()).sum() / 2, prompt, rho, 1.0, 64.0, perturbation=asam)
    gradient = weight * prompt
    eps = rho * prompt**2 * gradient / (prompt * gradient).norm()
    torch.testing.assert_close(step.gradient / 64, weight * (prompt + eps))
    torch.testing.assert_close(step.sharpness, (weight * ((prompt + eps) ** 2 - prompt**2)).sum() / 2)


@pytest.mark.parametrize("fails_at", (1, 2))
def test_the_prompt_is_untouched_also_after_a_non_finite_pass(task, fails_at):
    loss_fn, ctx = task
    before, calls = ctx.detach().clone(), []

    def breaks(p):
        calls.append(1)
        return loss_fn(p) * (float("inf") if len(calls) == fails_at else 1.0)

    step = sharpness_step(breaks, ctx, rho=0.1, lam=1.0)
    assert not step.finite
    assert torch.equal(ctx.detach(), before)


def test_a_stationary_point_gives_zero_not_nan():
    step = sharpness_step(lambda p: (p**2).sum(), torch.zeros(3), rho=0.1, lam=1.0)
    assert step.finite and torch.equal(step.gradient, torch.zeros(3))


def test_a_loss_scale_cancels_in_the_perturbation(task):
    loss_fn, ctx = task
    plain, scaled = (sharpness_step(loss_fn, ctx, 0.1, 0.5, scale) for scale in (1.0, 1024.0))
    torch.testing.assert_close(scaled.gradient / 1024, plain.gradient, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(scaled.sharpness, plain.sharpness, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(scaled.grad_norm, plain.grad_norm)


def test_random_directions_have_the_radius_and_depend_on_seed_and_number_alone():
    few, many = (random_directions((4, 8), n, 0.5, seed=3) for n in (2, 5))
    assert torch.equal(few, many[:2])
    torch.testing.assert_close(many.flatten(1).norm(dim=1), torch.full((5,), 0.5))
    assert not torch.equal(few, random_directions((4, 8), 2, 0.5, seed=4))


@pytest.mark.parametrize(
    ("rho", "lam", "name"), [(-0.1, 1.0, "RHO"), (0.1, -1.0, "LAMBDA"), (float("nan"), 1.0, "RHO")]
)
def test_bad_settings_are_named(rho, lam, name):
    with pytest.raises(InputError, match=f"^{name} must be a finite number >= 0"):
        check_sharpness(rho, lam)
