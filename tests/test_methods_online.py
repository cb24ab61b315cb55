"""TDA and DPE against naive loops over a sequence of images: lists, a hand-written AdamW step, double precision."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.methods.cache import FeatureCache
from tlla.methods.dpe import DPE
from tlla.methods.tda import TDA
from tlla.prompts.classifier import Classifier

SCALE = 90.0  # not 100, which upstream writes into the code
K, E = 5, 16
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class TextByImage(Classifier):
    """Class features that depend on the image, as CoCoOp's: the shared ones, axis by axis scaled by the centre crop."""

    conditional = True

    def text(self, features):
        return F.normalize(self.text_features * (1 + features[:, :1]), dim=-1)


@pytest.fixture
def text():
    return F.normalize(3 * torch.randn(E) + torch.randn(K, E), dim=-1)  # alike, so that images are not all sure


@pytest.fixture
def images(text):
    """40 images of 20 views, each around a class or between two."""
    pairs = text[torch.randint(K, (40, 2))] * torch.tensor([1.0, 0.9])[:, None]
    return F.normalize(pairs.sum(dim=1, keepdim=True) + 0.12 * torch.randn(40, 20, E), dim=-1)


def started(method, text, classifier=Classifier, scale=SCALE):
    method.start(classifier(text, scale))
    return method


@torch.no_grad()
def predict(method, images):
    return method.predict(images)


def entropy_of(p):
    return -sum(q * math.log(q) for q in p.tolist() if q > 0)


def naive_pool(views, text, top):
    """Mean feature of the confident views, their mean logits, their mean distribution and its entropy."""
    logits = SCALE * views @ text.T
    order = sorted(range(len(views)), key=lambda v: entropy_of(logits[v].softmax(0)))
    kept = order[: max(1, int(top * len(views)))]
    mean_prob = sum(logits[v].softmax(0) for v in kept) / len(kept)
    feature = sum(views[v] for v in kept) / len(kept)
    return feature, sum(logits[v] for v in kept) / len(kept), mean_prob, entropy_of(mean_prob)


def naive_update(cache, label, item, capacity):
    """Files (entropy, ...) in a dict of lists; says whether it took another's place."""
    items = cache.setdefault(label, [])
    replaces = len(items) == capacity and item[0] < items[-1][0]
    if replaces:
        items.pop()
    if len(items) < capacity:
        items.append(item)
    items.sort(key=lambda i: i[0])
    return replaces


def naive_tda(images, text, s):
    positive, negative, rows, events = {}, {}, [], []
    for b, views in enumerate(images.double()):
        own = (text[b] if text.dim() == 3 else text).double()
        z, logits, prob, h = naive_pool(views, own, s.top)
        label = int(logits.argmax())
        if naive_update(positive, label, (h, z), s.pos_capacity):
            events.append("positive replaced")
        if s.entropy_low < h / math.log2(K) < s.entropy_high:
            events.append("unsure")
            if naive_update(negative, label, (h, z, prob), s.neg_capacity):
                events.append("negative replaced")
        for k, items in positive.items():
            for _, key in items:
                logits[k] += s.pos_alpha * math.exp(-s.pos_beta * (1 - float(z @ key)))
        for items in negative.values():
            for _, key, p in items:
                for k in range(K):
                    if s.mask_low < p[k] < s.mask_high:
                        logits[k] -= s.neg_alpha * math.exp(-s.neg_beta * (1 - float(z @ key)))
        rows.append(logits.softmax(0))
    return torch.stack(rows).float(), events


def naive_dpe(images, text, s):
    running, n, cache, rows, events = text.double(), 0, {}, [], []
    for views in images.double():
        z, logits, _, h = naive_pool(views, running / running.norm(dim=1, keepdim=True), s.top)
        if naive_update(cache, int(logits.argmax()), (h, z), s.capacity):
            events.append("replaced")
        seen = sorted(cache)
        keys = torch.stack([sum(key for _, key in cache[k]) / len(cache[k]) for k in seen])
        shifts = [torch.zeros_like(running).requires_grad_(), torch.zeros_like(keys).requires_grad_()]

        def prototypes(shifts, running=running, keys=keys):
            both = running + shifts[0], keys + shifts[1]
            return [x / x.norm(dim=1, keepdim=True) for x in both]

        def logits_of(feature, t, k, seen=seen):
            values = [SCALE * feature @ row for row in t]
            for label, key in zip(seen, k, strict=True):
                values[label] = values[label] + s.alpha * torch.exp(-s.beta * (1 - feature @ key))
            return torch.stack(values)

        with torch.enable_grad():
            t, k = prototypes(shifts)
            log_p = logits_of(z, t, k).log_softmax(0)
            loss = -(log_p.exp() * log_p).sum()
            for i in range(len(seen)):
                similar = torch.stack([k[i] @ t[label] for label in seen]) / 0.01
                loss = loss - s.align / len(seen) * similar.log_softmax(0)[i]
            gradients = torch.autograd.grad(loss, shifts)
        # The first step of Adam from 0: both moments are the gradient's own, and there is nothing to decay.
        t, k = prototypes([-s.lr * g / (g.abs() + 1e-3) for g in gradients])
        feature = views[0] if s.predict_on == "plain" else naive_pool(views, t, s.top)[0]
        final = logits_of(feature, t, k).softmax(0)
        if entropy_of(final) / math.log2(K) < s.entropy_threshold:
            n += 1
            running = running * n / (n + 1) + t / (n + 1)
        events.append("merged" if entropy_of(final) / math.log2(K) < s.entropy_threshold else "unsure")
        rows.append(final)
    return torch.stack(rows).float(), running.float(), events


def test_a_cache_holds_what_a_sorted_list_would_hold(text):
    entropies = torch.randint(6, (60,)).float()  # with repeats: of equal ones, the earlier image stays
    labels, keys = torch.randint(K, (60,)).tolist(), torch.randn(60, E)
    for capacity in (0, 1, 3):
        cache, naive = FeatureCache(text, capacity, n_values=1), {}
        for i, label in enumerate(labels):
            cache.add(label, entropies[i], keys[i], float(i))
            if capacity:
                naive_update(naive, label, (entropies[i].item(), i), capacity)
        for label, items in naive.items():
            assert cache.values[label, :, 0].tolist() == [i for _, i in items]
            assert torch.equal(cache.keys[label], keys[[i for _, i in items]])
        assert int(cache.entropy.isfinite().sum()) == sum(len(items) for items in naive.values())


@pytest.mark.parametrize("by_image", (False, True))
@pytest.mark.parametrize("n_views", (1, 20))
def test_tda_equals_the_naive_caches(text, images, n_views, by_image):
    images = images[:, :n_views]
    classifier = TextByImage if by_image else Classifier
    tda = TDA(neg_alpha=2.0, mask_high=0.8)  # stronger than the default, so that both caches show
    rows, events = naive_tda(images, classifier(text, SCALE).text(images) if by_image else text, tda)
    assert {"positive replaced", "unsure", "negative replaced"} <= set(events)
    torch.testing.assert_close(predict(started(tda, text, classifier), images), rows, atol=1e-4, rtol=0)
    without = [TDA(neg_alpha=0.0), TDA(pos_alpha=0.0, neg_alpha=2.0, mask_high=0.8)]
    for other in without:
        assert (predict(started(other, text, classifier), images) - rows).abs().max() > 0.02


def test_tda_lets_an_image_see_itself(text):
    view = text[2].expand(1, 1, E) * 0.5 + text[3] * 0.5
    view = F.normalize(view, dim=-1)
    logits = SCALE * view[0, 0] @ text.T
    logits[logits.argmax()] += 2.0  # a similarity of exp(0) = 1
    result = predict(started(TDA(neg_capacity=0), text), view)
    torch.testing.assert_close(result[0], logits.softmax(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("off", ({"pos_alpha": 0.0, "neg_alpha": 0.0}, {"pos_capacity": 0, "neg_capacity": 0}))
def test_tda_without_caches_is_the_mean_logit_of_the_confident_views(text, images, off):
    rows = torch.stack([naive_pool(views, text.double(), 0.1)[1].softmax(0) for views in images.double()])
    torch.testing.assert_close(predict(started(TDA(**off), text), images), rows.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(  # each pair of settings
    ("n_views", "align", "predict_on", "lr"),
    ((1, 0.0, "plain", 0.02), (20, 0.5, "plain", 0.02), (1, 0.5, "confident", 5e-3), (20, 0.0, "confident", 5e-3)),
)
def test_dpe_equals_the_naive_step(text, images, n_views, align, predict_on, lr):
    images = images[:, :n_views]
    dpe = DPE(lr=lr, align=align, predict_on=predict_on)  # lr higher than the default, so that the step shows
    rows, running, events = naive_dpe(images, text, dpe)
    assert {"replaced", "merged", "unsure"} <= set(events)
    result = predict(started(dpe, text), images)
    torch.testing.assert_close(result, rows, atol=1e-4, rtol=0)
    # A step of AdamW goes by lr * gradient / |gradient|: where the gradient is small, rounding moves the step by some
    # 1e-3 of lr, which gives 2e-5 for 0.02; five times that, for other processors.
    torch.testing.assert_close(dpe.text, running, atol=1e-4, rtol=0)
    still = predict(started(DPE(lr=0.0, align=align, predict_on=predict_on), text), images)
    assert (still - result).abs().max() > 0.02


def test_dpe_without_image_prototypes_and_steps_is_the_plain_prediction(text, images):
    plain = predict(started(METHODS["SingleView"](), text), images)
    result = predict(started(DPE(alpha=0.0, lr=0.0), text), images)
    torch.testing.assert_close(result, plain, atol=1e-4, rtol=0)


def test_dpe_takes_its_step_also_when_probabilities_are_0_or_1(text, images):
    dpe = started(DPE(), text, scale=1e5)
    result = predict(dpe, images)
    torch.testing.assert_close(result.sum(dim=1), torch.ones(40))
    assert not torch.allclose(dpe.text, text, atol=1e-5)


def test_dpe_refuses_class_features_that_depend_on_the_image(text):
    with pytest.raises(
        InputError, match=r"^DPE carries class features over from image to image, but with this prompt \(CoCoOp\)"
    ):
        DPE().start(TextByImage(text, SCALE))


@pytest.mark.parametrize("method", (DPE, TDA))
def test_batch_size_changes_nothing_but_order_does(text, images, method):
    method = started(method(), text)
    together = predict(method, images)
    for size in (1, 7):
        method.reset()
        parts = torch.cat([predict(method, part) for part in images.split(size)])
        torch.testing.assert_close(parts, together, atol=1e-4, rtol=0)
    method.reset()
    backwards = predict(method, images.flip(0)).flip(0)
    assert (backwards - together).abs().max() > 0.05


@pytest.mark.parametrize("method", (DPE, TDA))
def test_reset_and_start_forget_all_images(text, images, method):
    method = started(method(), text)
    classifier, before = method.classifier, text.clone()
    first = predict(method, images)
    assert not torch.equal(predict(method, images), first)
    for forget in (method.reset, lambda: method.start(classifier)):
        forget()
        assert torch.equal(predict(method, images), first)
    assert torch.equal(classifier.text_features, before)


@pytest.mark.parametrize("method", (DPE, TDA))
def test_a_single_class_has_probability_1(text, images, method):
    assert predict(started(method(), text[:1]), images[:3]).tolist() == [[1.0]] * 3


def test_the_defaults_are_the_authors_for_imagenet():
    tda = {key: default for key, (_, default) in settings(TDA).items()}
    assert tda == {
        "POS_ALPHA": 2.0,
        "POS_BETA": 5.0,
        "POS_CAPACITY": 3,
        "NEG_ALPHA": 0.117,
        "NEG_BETA": 1.0,
        "NEG_CAPACITY": 2,
        "ENTROPY_LOW": 0.2,
        "ENTROPY_HIGH": 0.5,
        "MASK_LOW": 0.03,
        "MASK_HIGH": 1.0,
        "TOP": 0.1,
        "RULE": "entropy",
    }
    dpe = {key: default for key, (_, default) in settings(DPE).items()}
    assert dpe == {
        "ALPHA": 6.0,
        "BETA": 5.0,
        "LR": 6e-4,
        "ALIGN": 0.5,
        "CAPACITY": 3,
        "ENTROPY_THRESHOLD": 0.1,
        "TOP": 0.1,
        "PREDICT_ON": "plain",
        "RULE": "entropy",
    }


@pytest.mark.parametrize("method", (DPE, TDA))
def test_the_authors_tables_fit_the_settings_and_the_data_sets(method):
    files = sorted((CONFIGS / "trainers" / method.__name__).glob("*.yaml"))
    assert len(files) == 15
    known = settings(method)
    for file in files:
        assert (CONFIGS / "datasets" / file.name).is_file()
        node = yaml.safe_load(file.read_text())
        assert list(node) == ["TRAINER"] and list(node["TRAINER"]) == [method.__name__]
        values = {known[key][0]: value for key, value in node["TRAINER"][method.__name__].items()}
        assert all(isinstance(value, float | str) for value in values.values())
        method(**values)
        if file.stem == "imagenet":
            assert method(**values) == method()


@pytest.mark.parametrize(
    ("method", "values", "message"),
    (
        (TDA, {"pos_alpha": -1.0}, "POS_ALPHA must be a finite number >= 0, but got -1.0"),
        (TDA, {"neg_capacity": -1}, "NEG_CAPACITY must be a finite number >= 0, but got -1"),
        (TDA, {"mask_low": math.nan}, "MASK_LOW must be a finite number >= 0, but got nan"),
        (TDA, {"top": 0.0}, r"TOP must lie in \(0, 1\], but got 0.0"),
        (DPE, {"lr": -1.0}, "LR must be a finite number >= 0, but got -1.0"),
        (DPE, {"capacity": 0}, "CAPACITY must be a finite number >= 1, but got 0"),
        (DPE, {"top": 2.0}, r"TOP must lie in \(0, 1\], but got 2.0"),
        (DPE, {"predict_on": "all"}, r"PREDICT_ON must be one of \('plain', 'confident'\), but got 'all'"),
    ),
)
def test_settings_that_cannot_work_are_refused(method, values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        method(**values)
