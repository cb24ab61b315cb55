"""Methods that follow a test set against naive loops in double precision, one image and one class at a time."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_methods_online import TextByImage

from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompts.classifier import Classifier

SCALE = 90.0  # not 100, which upstream writes into the code
N, V, K, E = 24, 12, 5, 16


@pytest.fixture(scope="module")
def task():
    """Class features that are alike, and images around a class or between two."""
    generator = torch.Generator().manual_seed(5)
    text = F.normalize(3 * torch.randn(E, generator=generator) + torch.randn(K, E, generator=generator), dim=-1)
    pairs = text[torch.randint(K, (N, 2), generator=generator)] * torch.tensor([1.0, 0.9])[:, None]
    views = F.normalize(pairs.sum(dim=1, keepdim=True) + 0.12 * torch.randn(N, V, E, generator=generator), dim=-1)
    return SimpleNamespace(text=text, views=views, classifier=Classifier(text, SCALE))


def started(name, task, **settings):
    method = METHODS[name](**settings)
    method.start(task.classifier)
    return method


@torch.no_grad()
def predict(method, views):
    return method.predict(views)


def softmax(values):
    weights = [math.exp(x - max(values)) for x in values]
    return torch.tensor([w / sum(weights) for w in weights], dtype=torch.float64)


def naive_kept(views, text, top):
    """The confident views."""

    def uncertainty(view):
        return -sum(p * math.log(p) for p in softmax((SCALE * text @ view).tolist()).tolist() if p > 0)

    return torch.stack(sorted(views, key=uncertainty)[: max(1, int(top * len(views)))])


def naive_bca(task, s, n_views):
    centres, prior = task.text.double().clone(), torch.eye(K, dtype=torch.float64)
    n_centre, n_prior, rows, events = [s.centre_count] * K, [s.prior_count] * K, [], set()
    for views in task.views[:, :n_views].double():
        z = naive_kept(views, centres, s.top).mean(dim=0)
        u = softmax([SCALE * float(z @ centre) for centre in centres])
        p = sum(u[k] * prior[k] for k in range(K))
        k = max(range(K), key=lambda k: p[k])
        if p[k] > s.centre_threshold:
            moved = (n_centre[k] * centres[k] + z) / (n_centre[k] + 1)
            centres[k] = moved / moved.square().sum().sqrt()
            n_centre[k] += 1
            events.add("centre")
        if p[k] > s.prior_threshold:
            prior[k] = (n_prior[k] * prior[k] + p) / (n_prior[k] + 1)
            n_prior[k] += 1
            events.add("prior")
        events |= {"unsure"} if p[k] <= s.centre_threshold else {"in between"} if p[k] <= s.prior_threshold else set()
        rows.append(p)
    return torch.stack(rows).float(), events


@pytest.mark.parametrize("n_views", (1, V))
def test_bca_equals_the_naive_loop(task, n_views):
    learning = {"centre_threshold": 0.8, "centre_count": 3.0, "prior_threshold": 0.9}  # few, so that centres move
    bca = started("BCA", task, **learning)
    expected, events = naive_bca(task, bca, n_views)
    assert events == {"centre", "prior", "unsure", "in between"}
    found = predict(bca, task.views[:, :n_views])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    for other in ({"centre_threshold": 2.0}, {"prior_threshold": 2.0}):
        without = predict(started("BCA", task, **learning | other), task.views[:, :n_views])
        assert (without - expected).abs().max() > 2e-3


def test_bca_that_never_learns_is_the_mean_logit_of_the_confident_views(task):
    still = predict(started("BCA", task, centre_threshold=2.0, prior_threshold=2.0), task.views)
    rows = [naive_kept(views, task.text.double(), 0.1).mean(dim=0) for views in task.views.double()]
    expected = torch.stack([softmax((SCALE * task.text.double() @ row).tolist()) for row in rows])
    torch.testing.assert_close(still, expected.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if method.keeps_text))
def test_class_features_that_depend_on_the_image_are_refused(task, name):
    with pytest.raises(InputError, match=rf"^{name} carries class features over from image to image, but .*CoCoOp"):
        METHODS[name]().start(TextByImage(task.text, SCALE))


STREAMS = ("BCA",)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_depends_on_its_order_alone_and_can_be_resumed_and_started_again(task, name):
    method = started(name, task)
    whole, text = predict(method, task.views), task.text.clone()
    method.reset()
    first = predict(method, task.views[:17])
    state = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in method.state().items()}
    other = started(name, task)
    other.load_state(state)
    resumed = torch.cat([first, predict(other, task.views[17:20]), predict(other, task.views[20:])])
    torch.testing.assert_close(resumed, whole, atol=1e-4, rtol=0)
    method.reset()
    assert (predict(method, task.views.flip(0)).flip(0) - whole).abs().max() > 0.02
    assert torch.equal(task.text, text)
    single = SimpleNamespace(classifier=Classifier(task.text[:1], SCALE))
    torch.testing.assert_close(predict(started(name, single), task.views[:3]), torch.ones(3, 1))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    (
        ("BCA", {"prior_count": -1.0}, "PRIOR_COUNT must be a finite number >= 0, but got -1.0"),
        ("BCA", {"top": 0.0}, r"TOP must lie in \(0, 1\], but got 0.0"),
    ),
)
def test_settings_that_cannot_work_are_refused(name, values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        METHODS[name](**values)
