"""Methods that follow a test set against naive loops in double precision, one image and one class at a time."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import yaml
from test_methods_online import CONFIGS, TextByImage

from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.methods.sts import steering_basis
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


def told(method):
    """The method, told how many images there are."""
    method.n_images = N
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


def naive_dota(task, s, n_views):
    mean, count, rows = torch.full((K, E), 1e-3, dtype=torch.float64), [1.0] * K, []
    covariance = [s.sigma * torch.eye(E, dtype=torch.float64) for _ in range(K)]
    for views in task.views[:, :n_views].double():
        kept = naive_kept(views, task.text.double(), s.top)
        z = kept.mean(dim=0)
        shared = (1 - s.epsilon) * sum(covariance) / K + s.epsilon * torch.eye(E, dtype=torch.float64)
        inverse = torch.linalg.inv(shared)
        weight = min(s.rho * sum(count) / K / len(kept), s.eta)
        logits = [
            SCALE * sum(float(v @ t) for v in kept) / len(kept) + weight * float(z @ inverse @ m - m @ inverse @ m / 2)
            for t, m in zip(task.text.double(), mean, strict=True)
        ]
        rows.append(softmax(logits))
        soft = [softmax((SCALE * task.text.double() @ view).tolist()) for view in kept]
        for k in range(K):
            total = count[k] + sum(float(y[k]) for y in soft)
            pairs = [(float(y[k]), view) for y, view in zip(soft, kept, strict=True)]
            grown = count[k] * covariance[k] + sum(y * torch.outer(v - mean[k], v - mean[k]) for y, v in pairs)
            covariance[k] = grown / total
            mean[k] = (count[k] * mean[k] + sum(y * v for y, v in pairs)) / total
            count[k] = total
    return torch.stack(rows).float()


@pytest.mark.parametrize("n_views", (1, V))
def test_dota_equals_the_naive_loop(task, n_views):
    views = task.views[:, :n_views]
    strong = {"eta": 3.0, "rho": 0.2, "epsilon": 0.01}
    expected = naive_dota(task, METHODS["DOTA"](**strong), n_views)
    torch.testing.assert_close(predict(started("DOTA", task, **strong), views), expected, atol=1e-4, rtol=0)
    for other in ({"eta": 0.1}, {"rho": 0.01}, {"epsilon": 0.5}, {"sigma": 0.5}):
        changed = predict(started("DOTA", task, **strong | other), views)
        assert (changed - expected).abs().max() > 2e-3


def naive_onzeta(task, s, n_images):
    text, w, rho, rows = task.text.double(), [t.clone() for t in task.text.double()], [0.0] * K, []
    for i, views in enumerate(task.views.double(), start=1):
        x = views[0]
        weights = [p * math.exp(r) for p, r in zip(softmax((SCALE * text @ x).tolist()).tolist(), rho, strict=True)]
        q = [weight / sum(weights) for weight in weights]
        v = softmax([SCALE / s.temperature * float(x @ row) for row in w]).tolist()
        rho = [max(0.0, r - s.prior_lr / math.sqrt(i) * (p - s.alpha / K)) for r, p in zip(rho, q, strict=True)]
        for k in range(K):
            moved = w[k] - s.lr / math.sqrt(i) * SCALE / s.temperature * (v[k] - q[k]) * x
            w[k] = moved / moved.square().sum().sqrt()
        share = s.beta * math.sqrt(i / n_images)
        rows.append([share * a + (1 - share) * b for a, b in zip(v, q, strict=True)])
    return torch.tensor(rows)


@pytest.mark.parametrize("settings", ({}, {"alpha": 0.0, "beta": 0.4}, {"prior_lr": 1.0, "lr": 0.05}))
def test_onzeta_equals_the_naive_loop_and_looks_at_one_view(task, settings):
    onzeta = started("OnZeta", task, **settings)
    onzeta.n_images = 2 * N  # as if half of the test set had passed
    found = predict(onzeta, task.views)
    # A step can be ten times as long as a class feature, which carries rounding on from image to image.
    torch.testing.assert_close(found, naive_onzeta(task, onzeta, 2 * N), atol=1e-3, rtol=0)
    onzeta.reset()
    assert torch.equal(predict(onzeta, task.views[:, :1]), found)


def test_onzeta_needs_the_number_of_images(task):
    with pytest.raises(InputError, match="^OnZeta needs the number of test images in advance: set its n_images"):
        predict(started("OnZeta", task), task.views)


def test_the_prior_of_onzeta_cannot_overflow(task):
    onzeta = started("OnZeta", task, prior_lr=1e4)
    onzeta.n_images = N
    assert predict(onzeta, task.views).isfinite().all()


def naive_adte(task, s):
    slots, text = [[] for _ in range(K)], task.text.double()
    for views in task.views.double():
        logits = (SCALE * text @ views.mean(dim=0)).tolist()
        first, second = sorted(logits, reverse=True)[:2]
        own = slots[logits.index(first)]
        if first - second >= s.lead:
            if len(own) == s.capacity:
                own.remove(min(own, key=lambda one: one[0]))
            own.append((first - second, softmax(logits)))
    spread = [sum(p for _, p in own) / len(own) if own else torch.zeros(K, dtype=torch.float64) for own in slots]
    prior = torch.full((K,), 1 / K, dtype=torch.float64)
    for _ in range(500):
        new = sum(prior[j] * spread[j] for j in range(K))
        new = new / new.square().sum().sqrt()
        if (new - prior).square().sum().sqrt() < 1e-4:
            break
        prior = new
    logs = prior.log()
    q = s.q_low + (logs - logs.min()) / (logs.max() - logs.min()) * (s.q_high - s.q_low)
    rows = []
    for views in task.views.double():
        p = [softmax((SCALE * text @ view).tolist()) for view in views]
        scores = [float(sum(row[k] ** q[k] / (1 - q[k]) for k in range(K))) for row in p]
        kept = sorted(range(V), key=lambda v: scores[v])[: max(1, int(s.top * V))]
        rows.append(sum(p[v] for v in kept) / len(kept))
    return torch.stack(rows).float(), q, [len(own) for own in slots]


def test_adte_equals_the_naive_loop_whatever_the_batches_and_the_order(task):
    adte = started("ADTE", task, capacity=3, top=0.3)
    expected, exponents, filed = naive_adte(task, adte)
    assert max(filed) == 3  # a slot was filled again
    for part in task.views.split(7):
        adte.observe(part)
    torch.testing.assert_close(predict(adte, task.views), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(adte.exponents.double(), exponents, atol=1e-3, rtol=0)
    torch.testing.assert_close(predict(adte, task.views.flip(0)).flip(0), expected, atol=1e-4, rtol=0)
    entropy = predict(started("EntropyMean", task, top=0.3), task.views)
    assert (entropy - expected).abs().max() > 2e-3


def test_adte_without_a_clear_image_takes_all_classes_alike(task):
    adte = started("ADTE", task, lead=1e6)
    adte.observe(task.views)
    same = started("EntropyMean", task, rule="tsallis(q=0.01)")
    torch.testing.assert_close(predict(adte, task.views), predict(same, task.views), atol=1e-5, rtol=0)


def naive_stata(x, text, s):
    x, n = x.double(), len(x)
    first = [softmax((SCALE * text @ row).tolist()).tolist() for row in x]
    near = [sorted((j for j in range(n) if j != i), key=lambda j: -float(x[i] @ x[j]))[:3] for i in range(n)]
    z, mean = [list(row) for row in first], [t.clone() for t in text]
    anchor = sum(first[i][k] * (x[i] - text[k]) ** 2 for i in range(n) for k in range(K)) / n
    variance = [anchor.clone() for _ in range(K)]
    for turn in range(11):
        for _ in range(5):
            new = []
            for i in range(n):
                scores = []
                for k in range(K):
                    around = sum(float(x[i] @ x[j]) * z[j][k] for j in near[i])
                    around += sum(float(x[i] @ x[j]) * z[j][k] for j in range(n) if i in near[j])
                    density = -0.5 * float(((x[i] - mean[k]) ** 2 / variance[k] + variance[k].log()).sum())
                    scores.append(density + s.laplacian * 50 / 6 * around)
                weights = [p * math.exp((score - max(scores)) / 50) for p, score in zip(first[i], scores, strict=True)]
                new.append([weight / sum(weights) for weight in weights])
            z = new
        if turn == 10:
            return torch.tensor(z)
        for k in range(K):
            count = sum(row[k] == max(row) for row in z)
            trust, mass = count / (s.alpha + count), sum(row[k] for row in z)
            own = F.normalize(sum(row[k] * xi for row, xi in zip(z, x, strict=True)) / mass, dim=0)
            mean[k] = F.normalize(trust * own + (1 - trust) * text[k], dim=0)
            spread = sum(row[k] * (xi - mean[k]) ** 2 for row, xi in zip(z, x, strict=True)) / mass
            variance[k] = trust * spread + (1 - trust) * (anchor + (text[k] - mean[k]) ** 2)


@pytest.mark.parametrize(("n", "settings"), ((9, {}), (3, {"alpha": 3.0, "laplacian": 0.2})))  # 3: two neighbours each
def test_stata_equals_the_naive_loop(task, n, settings):
    stata = started("StatA", task, **settings)
    found = predict(stata, task.views[:n])
    torch.testing.assert_close(found, naive_stata(task.views[:n, 0], task.text.double(), stata), atol=1e-5, rtol=0)
    alone = torch.cat([predict(stata, views) for views in task.views[:n].split(1)])
    assert (alone - found).abs().max() > 2e-3 and alone.isfinite().all()


def test_sts_shifts_all_class_features_alike_in_the_directions_above_the_threshold(task):
    text = task.text.double()
    values = torch.linalg.eigvalsh(text.T @ text).flip(0)[:K].sqrt()  # the singular values, another way
    ratio = K / E
    omega = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
    kept = sum(float(value) > omega * float(values[K // 2]) for value in values)
    basis = steering_basis(task.text)
    assert basis.shape == (kept, E) and 0 < kept < K
    torch.testing.assert_close(basis @ basis.T, torch.eye(kept), atol=1e-5, rtol=0)
    rows = []
    for views in task.views.double():
        gamma = torch.zeros(kept, dtype=torch.float64, requires_grad=True)
        chosen = naive_kept(views, text, 0.3)
        with torch.enable_grad():
            probability = (SCALE * chosen @ F.normalize(text + gamma @ basis.double(), dim=-1).T).softmax(dim=-1)
            mean = probability.mean(dim=0)
            (gradient,) = torch.autograd.grad(-(mean * mean.log()).sum(), gamma)
        step = -5e-3 * gradient / (gradient.abs() + 1e-8)  # AdamW's first, from 0
        rows.append((SCALE * F.normalize(text + step @ basis.double(), dim=-1) @ views[0]).softmax(dim=-1))
    sts = predict(started("STS", task, top=0.3), task.views)
    torch.testing.assert_close(sts, torch.stack(rows).float(), atol=1e-3, rtol=0)
    assert (sts - predict(started("SingleView", task), task.views)).abs().max() > 2e-3


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if method.keeps_text))
def test_class_features_that_depend_on_the_image_are_refused(task, name):
    with pytest.raises(InputError, match=rf"^{name} carries class features over from image to image, but .*CoCoOp"):
        METHODS[name]().start(TextByImage(task.text, SCALE))


STREAMS = ("BCA", "DOTA", "OnZeta")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_depends_on_its_order_alone_and_can_be_resumed_and_started_again(task, name):
    method = told(started(name, task))
    whole, text = predict(method, task.views), task.text.clone()
    method.reset()
    first = predict(method, task.views[:17])
    state = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in method.state().items()}
    other = told(started(name, task))
    other.load_state(state)
    resumed = torch.cat([first, predict(other, task.views[17:20]), predict(other, task.views[20:])])
    torch.testing.assert_close(resumed, whole, atol=1e-4, rtol=0)
    method.reset()
    assert (predict(method, task.views.flip(0)).flip(0) - whole).abs().max() > 0.02
    assert torch.equal(task.text, text)
    single = SimpleNamespace(classifier=Classifier(task.text[:1], SCALE))
    torch.testing.assert_close(predict(told(started(name, single)), task.views[:3]), torch.ones(3, 1))


def test_the_settings_by_dataset_can_be_built():
    files = [file for name in ("DOTA", "OnZeta") for file in sorted((CONFIGS / "trainers" / name).glob("*.yaml"))]
    assert len(files) == 15 + 2
    for file in files:
        ((node, values),) = yaml.safe_load(file.read_text())["TRAINER"].items()
        known = settings(METHODS[file.parent.name])
        METHODS[file.parent.name](**{known[key][0]: value for key, value in values.items()})
        assert node == file.parent.name.upper() and all(type(value) is float for value in values.values())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    (
        ("BCA", {"prior_count": -1.0}, "PRIOR_COUNT must be a finite number >= 0, but got -1.0"),
        ("DOTA", {"epsilon": 0.0}, r"EPSILON must lie in \(0, 1\], but got 0.0"),
        ("OnZeta", {"beta": 1.5}, r"BETA must lie in \(0, 1\], but got 1.5"),
        ("ADTE", {"q_high": 1.0}, "Q_HIGH must lie between Q_LOW, 0.01, and 1, but got 1.0"),
        ("StatA", {"batch": 0}, "BATCH must be a finite number >= 1, but got 0"),
        ("BCA", {"top": 0.0}, r"TOP must lie in \(0, 1\], but got 0.0"),
    ),
)
def test_settings_that_cannot_work_are_refused(name, values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        METHODS[name](**values)
