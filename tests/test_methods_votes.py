"""ZERO, MTA and VTE against naive loops over images and views in plain Python."""

import math

import pytest
import torch
import torch.nn.functional as F

from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.methods.mta import MTA, _iterate, _squared_bandwidth
from tlla.methods.vte import VTE
from tlla.methods.zero import ZERO
from tlla.prompts.classifier import Classifier

SCALE = 100.0
K, E = 5, 16


class TextByImage(Classifier):
    """Class features that depend on the image, as CoCoOp's: the shared ones, axis by axis scaled by the centre crop."""

    conditional = True

    def text(self, features):
        return F.normalize(self.text_features * (1 + 4 * features[:, :1]), dim=-1)


@pytest.fixture
def text():
    return F.normalize(2 * torch.randn(E) + torch.randn(K, E), dim=-1)  # alike, so that views are not all sure


def make_views(n_images, n_views, noise=1.0):
    """Views of an image scatter around a direction of its own."""
    return F.normalize(torch.randn(n_images, 1, E) + noise * torch.randn(n_images, n_views, E), dim=-1)


def started(method, text, classifier=Classifier, scale=SCALE):
    method.start(classifier(text, scale))
    return method


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(logits):
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / sum(weights) for w in weights]


def probabilities(view, text):
    return softmax([SCALE * dot(view, row) for row in text])


def by_entropy(views, text):
    """Indices of the views by rising entropy."""
    entropies = [-sum(q * math.log(q) for q in probabilities(view, text) if q > 0) for view in views]
    return sorted(range(len(views)), key=lambda v: entropies[v])


def argmax(values):
    return max(range(len(values)), key=lambda k: values[k])


def naive_zero(views, text, top, softening=0.0):
    """Probabilities, and the place in the order of views that decided a tie: None, a number, or "fallback"."""
    order = by_entropy(views, text)
    n_voters = max(1, int(top * len(views)))
    votes = [0.0] * len(text)
    for v in order[:n_voters]:
        cosines = [dot(views[v], row) for row in text]
        if softening:
            votes = [a + b for a, b in zip(votes, softmax([c / softening for c in cosines]), strict=True)]
        else:
            votes[argmax(cosines)] += 1
    tied = [k for k, n in enumerate(votes) if n == max(votes)]
    decided = None
    if len(tied) > 1:
        for place in range(n_voters, len(views)):
            choice = argmax(probabilities(views[order[place]], text))
            if choice in tied:
                winner, decided = choice, place
                break
        else:
            winner = max(tied, key=lambda k: sum(probabilities(views[v], text)[k] for v in order[:n_voters]))
            decided = "fallback"
        votes[winner] += 0.5
    return [n / sum(votes) for n in votes], decided


def naive_mta(views, text, lambda_q, lambda_y):
    n = len(views)
    prob = [probabilities(view, text) for view in views]
    squared = [[sum((a - b) ** 2 for a, b in zip(z, other, strict=True)) for other in views] for z in views]
    near = max(1, int(0.3 * (n - 1)))
    width = []  # squared bandwidths
    for v in range(n):
        others = sorted(squared[v][w] for w in range(n) if w != v)
        width.append(0.5 * sum(others[:near]) / near)
    y, mode = [1 / n] * n, views[0]

    def kernel(mode):
        return [
            math.exp(-sum((a - b) ** 2 for a, b in zip(views[v], mode, strict=True)) / 2 / width[v]) for v in range(n)
        ]

    def moved(a, b):
        return math.sqrt(sum((p - q) ** 2 for p, q in zip(a, b, strict=True)))

    for _ in range(5):
        density = kernel(mode)
        for _ in range(5):
            old = y
            support = [sum(dot(prob[v], prob[w]) * y[w] for w in range(n)) for v in range(n)]
            y = softmax([(density[v] + lambda_q * support[v]) / lambda_y for v in range(n)])
            if moved(old, y) < 1e-6:
                break
        for _ in range(5):
            old = mode
            weight = [a * b for a, b in zip(kernel(mode), y, strict=True)]
            mode = [sum(weight[v] * views[v][e] for v in range(n)) / sum(weight) for e in range(E)]
            length = math.sqrt(dot(mode, mode))
            mode = [x / length for x in mode]
            if moved(old, mode) < 1e-6:
                break
    return probabilities(mode, text)


def naive_vte(views, text, top):
    kept = by_entropy(views, text)[: max(1, int(top * len(views)))]
    mean = [sum(views[v][e] for v in kept) / len(kept) for e in range(E)]
    return probabilities(mean, text)


def compare(result, rows, atol=1e-5):
    torch.testing.assert_close(result, torch.tensor(rows), atol=atol, rtol=0)


SOFT = ((0.3, 9.765625e-4), (1.0, 9.765625e-4), (0.55, 0.05))


@pytest.mark.parametrize(("top", "softening"), (*((top, 0.0) for top in (0.05, 0.3, 0.55, 1.0)), *SOFT))
def test_zero_equals_the_naive_vote(text, top, softening):
    views = make_views(150, 10)
    naive = [naive_zero(image, text.tolist(), top, softening) for image in views.tolist()]
    result = started(ZERO(top, softening), text).predict(views)
    rows, deciders = torch.tensor([row for row, _ in naive]), [decided for _, decided in naive]
    if softening:
        best = rows.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 1e-3  # whether sums of floats are equal is no matter of the formula
        assert clear.sum() > 100
        torch.testing.assert_close(result[clear], rows[clear], atol=2e-4, rtol=0)
    else:
        expected = {0.05: {None}, 0.3: {None, 3, 4}, 0.55: {None, 5, 6}, 1.0: {None, "fallback"}}
        assert set(deciders) >= expected[top]
        torch.testing.assert_close(result, rows, atol=1e-6, rtol=0)


def views_with_cosines(rows):
    """Views whose cosines with the first classes of an identity text are given; the rest is in the last axis."""
    views = torch.zeros(1, len(rows), 4)
    views[0, :, :3] = torch.tensor(rows)
    views[0, :, 3] = (1 - views[0].square().sum(-1)).sqrt()
    return views


def test_a_tie_is_broken_by_the_first_discarded_view_that_chooses_a_tied_class():
    a, b, other = [0.5, 0.1, 0.1], [0.1, 0.6, 0.1], [0.1, 0.1, 0.4]
    a_unsure, b_unsure = [0.35, 0.3, 0.1], [0.3, 0.32, 0.1]
    zero = started(ZERO(top=0.4), torch.eye(4)[:3])
    result = zero.predict(
        views_with_cosines([b_unsure, a_unsure, a, other, b])
    )  # entropies rise: b, a, other, a_unsure
    compare(result, [[1.5 / 2.5, 1 / 2.5, 0.0]])


def test_without_a_discarded_view_the_more_probable_of_the_tied_classes_wins():
    a, b, sure_c = ([0.5, 0.1, 0.499], [0.9, 0.1, 0.1]), ([0.1, 0.5, 0.499], [0.1, 0.51, 0.5]), [0.1, 0.1, 0.9]
    result = started(ZERO(top=1.0), torch.eye(4)[:3]).predict(views_with_cosines([*a, *b, sure_c]))
    compare(result, [[2.5 / 5.5, 2 / 5.5, 1 / 5.5]])


def test_discarded_views_that_do_not_decide_a_tie_have_no_say_in_it():
    a, b, c_or_b = [0.5, 0.46, 0.1], [0.46, 0.49, 0.1], [0.1, 0.45, 0.46]
    result = started(ZERO(top=0.4), torch.eye(4)[:3]).predict(views_with_cosines([a, b, c_or_b, c_or_b, c_or_b]))
    compare(result, [[1.5 / 2.5, 1 / 2.5, 0.0]])


def test_a_soft_vote_shares_what_a_hard_vote_decides():
    views = views_with_cosines([[0.2500, 0.2498, 0.0]])
    shared = math.exp(-0.0002 / 9.765625e-4)
    compare(
        started(ZERO(softening=9.765625e-4), torch.eye(4)[:3]).predict(views)[:, :2],
        [[1 / (1 + shared), shared / (1 + shared)]],
    )
    compare(started(ZERO(), torch.eye(4)[:3]).predict(views), [[1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("lambda_q", "lambda_y", "n_views"), ((4.0, 0.2, 2), (4.0, 0.2, 4), (4.0, 0.2, 14), (0.0, 0.2, 4), (1.0, 3.0, 14))
)
def test_mta_equals_the_naive_mean_shift(text, n_views, lambda_q, lambda_y):
    views = make_views(6, n_views, noise=0.5)
    naive = [naive_mta(image, text.tolist(), lambda_q, lambda_y) for image in views.tolist()]
    result = started(MTA(lambda_q, lambda_y), text).predict(views)
    compare(result, naive, 1e-4)
    plain = started(METHODS["SingleView"](), text).predict(views)
    mean = started(VTE(top=1.0), text).predict(views)
    assert min((result - other).abs().max() for other in (plain, mean)) > 1e-3


def test_mta_ends_each_row_at_its_own_convergence():
    rows = torch.ones(2, 1)
    calls = []

    def step(x, given):
        calls.append(1)
        return torch.stack([x[0] + (1e-7 if len(calls) == 1 else 1.0), x[1] * given])

    compare(_iterate(step, rows, torch.tensor([2.0])), [[1.0], [32.0]])


@pytest.mark.parametrize("pair", (False, True))
def test_mta_of_equal_views_is_that_view(text, pair):
    views = make_views(3, 2 if pair else 1)
    copies = views.repeat_interleave(20, dim=1)  # as a pair: bandwidth 0, and the other cluster is infinitely far
    plain = started(METHODS["SingleView"](), text).predict(views)
    torch.testing.assert_close(started(MTA(), text).predict(copies), plain, atol=1e-4, rtol=0)


def test_mta_measures_the_distances_of_close_views():
    views = F.normalize(torch.randn(1, E) + 1e-3 * torch.randn(40, E), dim=-1)
    naive = []
    for view in views.double():
        distances = sorted(float((view - other).square().sum()) for other in views.double())
        naive.append(0.5 * sum(distances[1:12]) / 11)
    torch.testing.assert_close(_squared_bandwidth(views[None])[0], torch.tensor(naive), atol=0, rtol=1e-3)


def test_mta_is_finite_when_all_densities_underflow(text):
    views = F.normalize(text[:1] + 1e-3 * torch.randn(1, 40, E), dim=-1)
    views[:, 0] = text[1]  # the mode starts here, out of reach of the others, whose affinity leaves it no weight
    result = started(MTA(lambda_y=0.01), text).predict(views)
    torch.testing.assert_close(result, (SCALE * text[:1] @ text.T).softmax(dim=-1), atol=1e-2, rtol=0)


@pytest.mark.parametrize("top", (0.1, 0.5, 1.0))
def test_vte_equals_the_naive_mean_feature(text, top):
    views = make_views(8, 20)
    compare(started(VTE(top), text).predict(views), [naive_vte(i, text.tolist(), top) for i in views.tolist()])


@pytest.mark.parametrize("method", (MTA, VTE, ZERO))
def test_a_single_view_gives_the_plain_prediction(text, method):
    views = make_views(7, 1)
    plain = started(METHODS["SingleView"](), text).predict(views)
    result = started(method(), text).predict(views)
    if method is ZERO:
        plain = F.one_hot(plain.argmax(dim=1), K).float()
    torch.testing.assert_close(result, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", (MTA, VTE, ZERO))
def test_a_single_class_has_probability_1(text, method):
    assert started(method(), text[:1]).predict(make_views(2, 9)).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("classifier", (Classifier, TextByImage))
@pytest.mark.parametrize("method", (MTA, VTE, ZERO))
def test_batch_size_and_order_change_nothing(text, method, classifier):
    views = make_views(9, 12)
    method = started(method(), text, classifier)
    together = method.predict(views)
    order = torch.randperm(9)
    torch.testing.assert_close(method.predict(views[order]), together[order], atol=1e-4, rtol=0)
    alone = torch.cat([method.predict(views[b : b + 1]) for b in range(9)])
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=0)
    assert len(together.argmax(dim=1).unique()) > 1


@pytest.mark.parametrize("method", (MTA, VTE, ZERO))
def test_class_features_by_image_are_used_by_image(text, method):
    views = make_views(5, 12)
    own = TextByImage(text, SCALE).text(views)
    rows = [started(method(), own[b]).predict(views[b : b + 1]) for b in range(5)]
    result = started(method(), text, TextByImage).predict(views)
    torch.testing.assert_close(result, torch.cat(rows), atol=1e-4, rtol=0)
    assert (result - started(method(), text).predict(views)).abs().max() > 0.01


def test_the_defaults_are_the_authors():
    assert settings(ZERO) == {"TOP": ("top", 0.3), "SOFTENING": ("softening", 0.0), "RULE": ("rule", "entropy")}
    assert settings(MTA) == {"LAMBDA_Q": ("lambda_q", 4.0), "LAMBDA_Y": ("lambda_y", 0.2)}
    assert settings(VTE) == {"TOP": ("top", 0.1), "RULE": ("rule", "entropy")}


@pytest.mark.parametrize(
    ("method", "values", "message"),
    (
        (ZERO, {"top": 0.0}, r"TOP must lie in \(0, 1\], but got 0.0"),
        (ZERO, {"softening": -1.0}, "SOFTENING must be a finite number >= 0, but got -1.0"),
        (MTA, {"lambda_q": -1.0}, "LAMBDA_Q must be a finite number >= 0, but got -1.0"),
        (MTA, {"lambda_y": 0.0}, "LAMBDA_Y must be a finite number > 0, but got 0.0"),
        (MTA, {"lambda_y": math.inf}, "LAMBDA_Y must be a finite number > 0, but got inf"),
        (VTE, {"top": 1.5}, r"TOP must lie in \(0, 1\], but got 1.5"),
    ),
)
def test_settings_that_cannot_work_are_refused(method, values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        method(**values)
