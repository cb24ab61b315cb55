"""Planes and surfaces against naive loops; sharpness numbers against closed forms and the full Hessian."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlla.errors import InputError
from tlla.landscape.flatness import _hessian_product, random_rise, top_eigenvalue, worst_rise
from tlla.landscape.planes import filter_normalised_plane, surface
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.sharpness import random_directions, sharpness_step


def quadratic(matrix, linear=None):
    """0.5 p'Ap + b'p of a batch of prompts of any shape."""

    def loss(contexts):
        p = contexts.flatten(1)
        return 0.5 * ((p @ matrix) * p).sum(dim=1) + (0 if linear is None else p @ linear)

    return loss


def symmetric(eigenvalues, seed=0):
    """A random symmetric matrix with these eigenvalues, float64."""
    generator = torch.Generator().manual_seed(seed)
    d = len(eigenvalues)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.t()


def clip_task(clip, csc=False, n_ctx=4, text_chunk=0):
    """A batched loss on a tiny CLIP's contexts, and its context."""
    model = PromptedCLIP(clip, PromptLearner(clip, CLASSNAMES, n_ctx=n_ctx, csc=csc), text_chunk)
    features = F.normalize(torch.randn(16, 32), dim=-1)
    labels = torch.randint(len(CLASSNAMES), (16,))

    def loss(contexts):
        logits = 20 * features @ model.encode_text(contexts).mT
        return torch.stack([F.cross_entropy(own, labels) for own in logits])

    return loss, model.prompt_learner.ctx.detach()


@pytest.mark.parametrize("shape", [(4, 16), (3, 4, 16)])
def test_directions_are_as_long_as_each_context_vector_and_orthogonal(shape):
    ctx = torch.randn(shape) * torch.arange(1.0, shape[-2] + 1)[:, None]
    d1, d2 = filter_normalised_plane(ctx, seed=3)
    for d in (d1, d2):
        torch.testing.assert_close(d.norm(dim=-1), ctx.norm(dim=-1))
        torch.testing.assert_close(d.norm(), ctx.norm())
    torch.testing.assert_close((d1 * d2).sum(dim=-1), torch.zeros(shape[:-1]), atol=1e-3, rtol=0)


def test_directions_are_seeded_and_point_the_same_way_for_all_prompts():
    one, other = torch.randn(4, 16), 3 * torch.randn(4, 16)
    again = filter_normalised_plane(one, seed=1)
    for d, same, scaled in zip(filter_normalised_plane(one, 1), again, filter_normalised_plane(other, 1), strict=True):
        assert torch.equal(d, same)
        torch.testing.assert_close(F.normalize(d, dim=-1), F.normalize(scaled, dim=-1))
    assert not torch.allclose(filter_normalised_plane(one, 2)[0], again[0])


def test_a_context_vector_of_zeros_stays_where_it_is():
    ctx = torch.randn(3, 8)
    ctx[1] = 0
    assert filter_normalised_plane(ctx, 0)[1][1].norm() == 0


def test_directions_of_one_number_are_refused():
    with pytest.raises(InputError, match="width 2 or more"):
        filter_normalised_plane(torch.ones(4, 1), 0)


def test_surface_equals_a_double_loop(tiny_clip):
    loss, ctx = clip_task(tiny_clip)
    d1, d2 = filter_normalised_plane(ctx, seed=0)
    found = surface(loss, ctx, d1, d2, span=0.8, steps=5, chunk=7)
    assert found.alphas.tolist() == pytest.approx([-0.8, -0.4, 0, 0.4, 0.8]) and found.alphas[2] == 0
    for i, alpha in enumerate((-0.8, -0.4, 0.0, 0.4, 0.8)):
        for j, beta in enumerate((-0.8, -0.4, 0.0, 0.4, 0.8)):
            expected = loss((ctx + alpha * d1 + beta * d2)[None])[0]
            torch.testing.assert_close(found.losses[i, j], expected, atol=1e-5, rtol=1e-5)
    assert found.losses.std() > 1e-3


def test_surface_accepts_several_losses_and_class_specific_contexts(tiny_clip):
    loss, ctx = clip_task(tiny_clip, csc=True, n_ctx=2)
    plane = filter_normalised_plane(ctx, seed=0)
    both = surface(lambda c: torch.stack([loss(c), -2 * loss(c)], dim=1), ctx, *plane, span=1, steps=3)
    assert both.losses.shape == (3, 3, 2)
    torch.testing.assert_close(both.losses[..., 1], -2 * both.losses[..., 0])
    torch.testing.assert_close(both.losses[1, 1, 0], loss(ctx[None])[0])


@pytest.mark.parametrize(
    ("span", "steps", "message"), [(1, 4, "odd"), (1, 1, "odd"), (0, 3, "span"), (math.inf, 3, "span")]
)
def test_a_grid_that_cannot_be_made_is_refused(span, steps, message):
    with pytest.raises(InputError, match=message):
        surface(lambda c: c.sum(dim=(1, 2)), torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2), span, steps)


def test_random_rise_is_the_largest_of_all_directions(tiny_clip):
    loss, ctx = clip_task(tiny_clip)
    rises = [loss((ctx + eps)[None])[0] - loss(ctx[None])[0] for eps in random_directions(ctx.shape, 9, 0.5, seed=4)]
    torch.testing.assert_close(random_rise(loss, ctx, 0.5, 9, seed=4, chunk=4), max(rises), atol=1e-5, rtol=1e-4)
    assert max(rises) > min(rises)


def test_random_rise_can_be_negative():
    loss = quadratic(-torch.eye(8, dtype=torch.float64))
    assert random_rise(loss, torch.zeros(2, 4, dtype=torch.float64), 0.5, 5, 0) == pytest.approx(-0.125)


def test_ascent_on_a_linear_loss_is_rho_times_the_gradients_norm():
    b = torch.randn(8, dtype=torch.float64)
    rise = worst_rise(quadratic(torch.zeros(8, 8, dtype=torch.float64), b), torch.randn(2, 4, dtype=torch.float64), 0.3)
    assert rise.item() == pytest.approx(0.3 * b.norm().item())


def ball_maximum(matrix, gradient, rho):
    """max of g'e + 0.5 e'Ae over ||e|| <= rho: on the sphere e = (m I - A)^-1 g with m above all eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    g = vectors.t() @ gradient
    low, high = values.max().item(), values.max().item() + g.norm().item() / rho + 1
    if low < 0 and (g / -values).norm() <= rho:
        low = high = 0.0  # the unconstrained maximum lies inside
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (g / (middle - values)).norm() > rho else (low, middle)
    e = g / (high - values)
    return (g @ e + 0.5 * (values * e * e).sum()).item()


@pytest.mark.parametrize("values", [(0.1, 0.5, 1, 2, 3, 5), (-4, -1, 0, 0.5, 1, 2), (-9, -8, -7, -6, -5, -4)])
@pytest.mark.parametrize("rho", [0.05, 0.5, 3.0])
def test_ascent_on_a_quadratic_loss_reaches_the_maximum_in_the_ball(values, rho):
    a, p = symmetric(values), torch.randn(2, 3, dtype=torch.float64)
    expected = ball_maximum(a, a @ p.flatten(), rho)
    rise = worst_rise(quadratic(a), p, rho, steps=60).item()
    assert rise <= expected + 1e-9
    assert rise == pytest.approx(expected, rel=0.01)


def test_ascent_is_at_least_sams_point_and_stays_in_the_ball(tiny_clip):
    loss, ctx = clip_task(tiny_clip)
    visited = []

    def watched(contexts):
        visited.append((contexts[0] - ctx).norm().item())
        return loss(contexts)

    for rho in (0.05, 0.5, 2.0):
        first_order = sharpness_step(lambda p: loss(p[None])[0], ctx, rho, 1.0).sharpness
        few, more = worst_rise(watched, ctx, rho, steps=1), worst_rise(watched, ctx, rho, steps=20)
        torch.testing.assert_close(few, first_order.clamp(min=0), atol=1e-6, rtol=1e-5)
        assert more >= few
        assert max(visited) <= rho * (1 + 1e-5)
        visited.clear()
    assert more > few + 1e-3


def test_ascent_leaves_a_stationary_point_from_which_few_directions_rise():
    loss = quadratic(symmetric((-6, -5, -4, 2)))
    rise = worst_rise(loss, torch.zeros(2, 2, dtype=torch.float64), 0.5, steps=60)
    assert rise.item() == pytest.approx(0.5 * 2 * 0.25, rel=0.01)


def test_ascent_at_a_maximum_finds_nothing():
    assert worst_rise(quadratic(-torch.eye(4)), torch.zeros(2, 2), 0.5) == 0


VALUES = [
    (0.1, 0.2, 1, 3),
    (-5, 0.1, 1, 3),  # the dominant eigenvalue is negative
    (-3, 0.1, 1, 3),  # two of the same magnitude
    (-4, -3, -2, -1),
    (-2, -1, 0, 0),
    (3, 3, 3, 3),
    (1e-6, 2e-6, 3e-6, -9e-6),
]


@pytest.mark.parametrize(("seed", "values"), list(enumerate(VALUES)))
def test_the_largest_eigenvalue_of_a_quadratic(seed, values):
    a, p = symmetric(values, seed), torch.randn(2, 2, dtype=torch.float64)
    found = top_eigenvalue(quadratic(a), p, tol=1e-5, max_iterations=2000, seed=seed)
    assert found.converged
    assert found.value == pytest.approx(max(values), rel=1e-4, abs=1e-4 * max(map(abs, values)))
    v = found.vector.flatten()
    torch.testing.assert_close(a @ v, found.value * v, atol=1e-4 * max(map(abs, values)), rtol=0)


def test_the_eigenvalue_of_a_linear_loss_is_0():
    found = top_eigenvalue(lambda c: c.sum(dim=(1, 2)), torch.ones(2, 2))
    assert found.value == 0 and found.converged


def test_too_few_iterations_are_reported_and_give_a_lower_bound():
    values = torch.linspace(-1, 1, 40).tolist()
    a, p = symmetric(values), torch.randn(2, 20, dtype=torch.float64)
    found = top_eigenvalue(quadratic(a), p, tol=1e-9, max_iterations=5)
    assert not found.converged and found.iterations == 10
    assert 0 < found.value < 1


def test_curvature_of_a_clip_equals_the_full_hessian(tiny_clip):
    plain, start = clip_task(tiny_clip, n_ctx=1)
    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(lambda p: plain(p[None])[0], start).view(64, 64)
    for text_chunk in (0, 4):  # with chunks, activations are computed again
        torch.manual_seed(0)
        loss, ctx = clip_task(tiny_clip, n_ctx=1, text_chunk=text_chunk)
        assert torch.equal(start, ctx)
        v = torch.randn(1, 64)
        torch.testing.assert_close(_hessian_product(loss, ctx)(v).flatten(), hessian @ v[0], atol=1e-3, rtol=1e-3)
    found = top_eigenvalue(plain, start)
    assert found.converged
    assert found.value == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)
