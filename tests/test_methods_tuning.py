"""TPT and its kin against the formulas in plain code: own prompts, own AdamW, one view at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES, TINY_VIT, make_clip

from tlla.backbones.openai_package import clip
from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.prompts.classifier import Classifier, ConditionalClassifier, PromptClassifier
from tlla.prompts.conditional import ConditionalCLIP, ConditionalPromptLearner
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP

SCALE = 100.0
LR = 2e-4  # small enough that predictions stay unsure
N_IMAGES, N_VIEWS, N_CLASSES = 3, 30, len(CLASSNAMES)
# Of probabilities against the naive version in double precision, on any processor. Single precision rounds to 2**-24; a
# cosine has some 8 such errors, a logit 100 times as many (5e-5), a probability at most half of them. A step of AdamW
# divides the gradient by its size, and so takes over its relative error: as much again.
ROUNDING = 1e-4
PROMPT_METHODS = ("TPT", "CTPT", "RTPT")
APART = ("OTPT", "ATPT")  # C-TPT's kin: only the loss differs
KINDS = ("shared", "class-specific", "conditional")
# Each method and each kind of prompt, and TPT on all kinds.
PAIRS = [*(("TPT", kind) for kind in KINDS), ("CTPT", "class-specific"), ("RTPT", "conditional")]


@pytest.fixture(scope="module")
def model():
    model = make_clip(TINY_VIT)
    model.logit_scale.fill_(math.log(SCALE))
    return model


@pytest.fixture(scope="module")
def classifiers(model):
    return {kind: make_classifier(model, kind) for kind in KINDS}


def make_classifier(model, kind, **kwargs):
    torch.manual_seed(1)
    if kind != "conditional":
        learner = PromptLearner(model, CLASSNAMES, n_ctx=3, csc=kind == "class-specific")
        return PromptClassifier(PromptedCLIP(model, learner), **kwargs)
    learner = ConditionalPromptLearner(model, CLASSNAMES, n_ctx=3)
    for parameter in learner.meta_net.linear2.parameters():
        parameter.data *= 0.01  # a shift that changes predictions, but leaves them unsure
    return ConditionalClassifier(ConditionalCLIP(model, learner), **kwargs)


def make_views(classifier):
    """Views (B, V, E) that look like a class each, some more and some less, and none so sure that gradients vanish."""
    text = classifier.text_features
    directions = F.normalize(text - text.mean(dim=0), dim=-1)
    clarity = torch.rand(N_IMAGES, N_VIEWS, 1) * 0.1
    views = clarity * directions[torch.randint(N_CLASSES, (N_IMAGES, N_VIEWS))]
    return F.normalize(views + 0.03 * torch.randn(N_IMAGES, N_VIEWS, text.shape[1]) + text.mean(dim=0), dim=-1)


@pytest.fixture
def views(classifiers):
    return make_views(classifiers["shared"])


def start(name, classifier, **kwargs):
    method = METHODS[name](**kwargs)
    method.start(classifier)
    return method


def naive_text(model, ctx):
    """Class features from OpenAI's own text pass over all 77 tokens, the context put in by hand: (K, E), float64."""
    rows = []
    for k, name in enumerate(CLASSNAMES):
        words = ctx[k] if ctx.dim() == 3 else ctx
        tokens = clip.tokenize(" ".join(["X"] * len(words)) + " " + name.replace("_", " ") + ".")
        x = model.token_embedding(tokens)[0]
        x = torch.cat([x[:1], words, x[1 + len(words) :]]) + model.positional_embedding
        x = model.ln_final(model.transformer(x[:, None])[:, 0])
        row = (x[tokens[0].argmax()] @ model.text_projection).double()
        rows.append(row / row.square().sum().sqrt())
    return torch.stack(rows)


def naive_entropy(p):
    return -(p * p.log()).sum(dim=-1)


def naive_selection(views, text, share):
    entropies = [naive_entropy((SCALE * view @ text.t()).softmax(0)).item() for view in views]
    return sorted(range(len(views)), key=lambda v: entropies[v])[: int(share * len(views))]


def naive_loss(name, kept, text):
    p = (SCALE * kept @ text.t()).softmax(dim=-1)
    if name == "RTPT":
        return sum(naive_entropy(row) for row in p) / len(p)
    loss = naive_entropy(sum(p) / len(p))
    if name == "CTPT":
        centre = sum(text) / len(text)
        loss = loss - 20 * sum((t - centre).square().sum().sqrt() for t in text) / len(text)
    if name == "OTPT":
        loss = loss + 2 * naive_reflections(text)
    if name == "ATPT":
        k = range(len(text))
        loss = loss - 80 * sum(min((text[i] @ text[j]).acos() for j in k if j != i) for i in k) / len(text)
    return loss


def naive_reflections(text):
    """Householder's reflection of each row of the Gram matrix onto its axis, and its mean distance to the unit vector.

    In the authors' words the vector of reflection k is (row k - |row k| e_k), normalised.
    """
    unit, distances = torch.eye(len(text), dtype=text.dtype), []
    for k, row in enumerate(text @ text.t()):
        v = row - row.norm() * unit[k]
        v = v / v.norm()
        distances.append((row - 2 * v * (v @ row) - unit[k]).norm())
    return sum(distances) / len(distances)


def naive_adamw(p, loss_fn, steps, lr, decay=0.01, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t in range(1, steps + 1):
        p = p.detach().requires_grad_()
        loss_fn(p).backward()
        m = beta1 * m + (1 - beta1) * p.grad
        v = beta2 * v + (1 - beta2) * p.grad**2
        step = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
        p = p.detach() * (1 - lr * decay) - lr * step
    return p.detach()


def naive_vote_weights(views, n_neighbours):
    scores = []
    for i, view in enumerate(views):
        cosines = sorted((float(view @ other) for j, other in enumerate(views) if j != i), reverse=True)[:n_neighbours]
        scores.append(sum(cosines) / len(cosines))
    weights = [math.exp((s - max(scores)) / 0.01) for s in scores]
    return [w / sum(weights) for w in weights]


def naive_context(classifier, views, kind):
    if kind != "conditional":
        return classifier.ctx
    net = classifier.model.prompt_learner.meta_net
    hidden = (net.linear1.weight @ views[0] + net.linear1.bias).clamp(min=0)
    return (classifier.ctx + net.linear2.weight @ hidden + net.linear2.bias).detach()


def naive_prompt_tuning(name, model, views, ctx, steps, n_neighbours=20):
    kept = naive_selection(views.double(), naive_text(model, ctx), 0.1)
    ctx = naive_adamw(ctx, lambda c: naive_loss(name, views[kept].double(), naive_text(model, c)), steps, LR)
    logits = SCALE * views.double() @ naive_text(model, ctx).t()
    if name == "RTPT":
        weights = naive_vote_weights(views.double(), n_neighbours)
        return sum(w * row for w, row in zip(weights, logits, strict=True)).softmax(0).float()
    return logits[0].softmax(0).float()


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [*((name, kind, 3) for name, kind in PAIRS), *((name, "shared", 1) for name in APART)],
)
def test_prompt_tuning_equals_the_naive_version(model, classifiers, name, kind, steps):
    classifier = classifiers[kind]
    views = make_views(classifier)[1:]
    with torch.no_grad():
        result = start(name, classifier, steps=steps, lr=LR).predict(views)
    expected = [naive_prompt_tuning(name, model, z, naive_context(classifier, z, kind), steps) for z in views]
    torch.testing.assert_close(result, torch.stack(expected), atol=ROUNDING, rtol=0)
    plain = start(name, classifier, steps=0).predict(views)
    assert (result - plain).abs().amax() > 2e-3  # or the comparison would say nothing about tuning


@pytest.mark.parametrize("steps", (1, 3))
def test_shifting_equals_the_naive_version(classifiers, views, steps):
    text = classifiers["shared"].text_features

    def naive(z):
        def logits(shift):
            shifted = text.double() + shift
            return SCALE * z.double() @ (shifted / shifted.square().sum(dim=1, keepdim=True).sqrt()).t()

        def loss(shift):
            shifted = (text + shift).detach().double()
            kept = naive_selection(z.double(), shifted / shifted.norm(dim=1, keepdim=True), 0.1)
            return naive_entropy(logits(shift)[kept].softmax(dim=1).mean(dim=0))

        shift = naive_adamw(torch.zeros(text.shape, dtype=torch.float64), loss, steps, LR)
        return logits(shift)[0].softmax(0).float()

    with torch.no_grad():
        result = start("TPS", Classifier(text, SCALE), steps=steps, lr=LR).predict(views)
    torch.testing.assert_close(result, torch.stack([naive(z) for z in views]), atol=ROUNDING, rtol=0)
    assert (result - start("TPS", Classifier(text, SCALE), steps=0).predict(views)).abs().amax() > 2e-3


def test_shifting_serves_each_image_its_own_class_features(classifiers, views):
    conditional = classifiers["conditional"]
    result = start("TPS", conditional).predict(views)
    for b, text in enumerate(conditional.text(views)):
        alone = start("TPS", Classifier(text, SCALE)).predict(views[b : b + 1])
        torch.testing.assert_close(result[b : b + 1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [*PAIRS, ("TPS", "conditional")])
def test_no_step_is_the_plain_prediction(classifiers, views, name, kind):
    classifier = classifiers[kind]
    logits = classifier.logits(views)
    if name == "RTPT":
        weights = torch.tensor([naive_vote_weights(z.double(), 20) for z in views])
        plain = (weights[:, None] @ logits).squeeze(1).softmax(-1)
    else:
        plain = logits[:, 0].softmax(-1)
    for setting in ({"steps": 0}, {"lr": 0.0}):
        result = start(name, classifier, **setting).predict(views)
        torch.testing.assert_close(result, plain, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [*PAIRS, ("TPS", "conditional")])
def test_nothing_stays_from_image_to_image(classifiers, name, kind):
    views = make_views(classifiers[kind])
    method = start(name, classifiers[kind])
    ctx, weights = method.classifier.ctx.clone(), method.classifier.clip_model.state_dict()
    weights = {k: v.clone() for k, v in weights.items()}
    together = method.predict(views)
    assert not together.requires_grad
    order = [2, 0, 1]
    torch.testing.assert_close(method.predict(views[order]), together[order], atol=1e-3, rtol=0)
    alone = torch.cat([method.predict(views[b : b + 1]) for b in range(N_IMAGES)])
    torch.testing.assert_close(alone, together, atol=1e-3, rtol=0)
    assert torch.equal(method.classifier.ctx, ctx)
    assert not method.classifier.ctx.requires_grad
    assert all(torch.equal(v, weights[k]) for k, v in method.classifier.clip_model.state_dict().items())


@pytest.mark.parametrize("name", ("CTPT", *APART))
def test_without_a_term_for_the_class_features_it_is_tpt(classifiers, views, name):
    tpt = start("TPT", classifiers["shared"]).predict(views)
    without = start(name, classifiers["shared"], lam=0.0).predict(views)
    torch.testing.assert_close(without, tpt, atol=1e-6, rtol=0)


def test_equal_class_features_leave_finite_angles():
    text = F.normalize(torch.randn(1, 3, 8), dim=-1)[:, [0, 0, 1]].requires_grad_()
    loss = METHODS["ATPT"]().loss(torch.zeros(1, 2, 3), text)
    (gradient,) = torch.autograd.grad(loss.sum(), text)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    one = METHODS["ATPT"]().loss(torch.zeros(1, 2, 1), text[:, :1])
    assert one.item() == 0


@pytest.mark.parametrize("n_views", (1, 2, 5, 20, 21))
def test_rtpt_has_at_most_all_other_views_as_neighbours(model, classifiers, views, n_views):
    classifier = classifiers["shared"]
    few = views[:, :n_views]
    result = start("RTPT", classifier, steps=0).predict(few)
    if n_views == 1:
        expected = classifier.logits(few)[:, 0].softmax(-1)
    else:
        weights = torch.tensor([naive_vote_weights(z.double(), 20) for z in few])
        expected = (weights[:, None] @ classifier.logits(few)).squeeze(1).softmax(-1)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=0)


def test_rtpt_leaves_out_a_view_itself_but_not_its_copy(classifiers, views):
    """The nearest neighbour of each of two equal views is the other, at cosine 1: they win over all others."""
    classifier = classifiers["shared"]
    z = F.normalize(torch.randn(1, 6, views.shape[-1]), dim=-1)
    z[0, 4] = z[0, 3]
    result = start("RTPT", classifier, steps=0, n_neighbours=1).predict(z)
    torch.testing.assert_close(result, classifier.logits(z)[:, 3].softmax(-1), atol=1e-4, rtol=0)


def test_rtpt_tunes_where_a_probability_underflows(model, classifiers):
    """Views between two classes, the others at probability 0: a gradient of NaN would skip the step."""
    text = classifiers["shared"].text_features
    z = F.normalize(text[0] + text[1] + 0.001 * torch.randn(1, N_VIEWS, text.shape[1]), dim=-1)
    classifier = make_classifier(model, "shared")
    classifier.scale = 5e4
    assert (classifier.logits(z).softmax(-1) == 0).any()
    moved = start("RTPT", classifier, lr=1e-4).predict(z) - start("RTPT", classifier, steps=0).predict(z)
    assert moved.isfinite().all()
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("name", (*PROMPT_METHODS, "TPS"))
def test_one_view_or_one_class_is_enough(model, classifiers, views, name):
    result = start(name, classifiers["shared"]).predict(views[:, :1])
    torch.testing.assert_close(result.sum(dim=1), torch.ones(N_IMAGES))
    assert (result - start(name, classifiers["shared"], steps=0).predict(views[:, :1])).abs().max() > 1e-3
    single = PromptClassifier(PromptedCLIP(model, PromptLearner(model, ["dog"], n_ctx=3)))
    assert torch.equal(start(name, single).predict(views), torch.ones(N_IMAGES, 1))


# Far below 1, AdamW's eps would show that it is not undone.
@pytest.mark.parametrize(("name", "loss_scale"), [("TPT", 1024.0), *((name, 1e-10) for name in PROMPT_METHODS)])
def test_the_loss_scale_cancels(model, classifiers, views, name, loss_scale):
    scaled = make_classifier(model, "shared", loss_scale=loss_scale)
    plain, result = (start(name, c, lr=LR).predict(views) for c in (classifiers["shared"], scaled))
    torch.testing.assert_close(result, plain, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", PROMPT_METHODS)
def test_a_gradient_that_overflows_makes_no_step(model, views, name):
    classifier = make_classifier(model, "shared", loss_scale=math.inf)
    plain = start(name, classifier, steps=0).predict(views)
    torch.testing.assert_close(start(name, classifier).predict(views), plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "cosine"), [("TPT", 0.9), ("CTPT", 0.7), ("RTPT", 0.9)])  # CTPT: by processor
def test_mixed_precision_stays_near_full_precision(model, classifiers, views, name, cosine):
    mixed = make_classifier(model, "shared", autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    low, full = (start(name, c, lr=LR).predict(views) for c in (mixed, classifiers["shared"]))
    change, expected = (
        p - start(name, c, steps=0).predict(views) for p, c in ((low, mixed), (full, classifiers["shared"]))
    )
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, atol=0.05, rtol=0)
    assert F.cosine_similarity(change.flatten(), expected.flatten(), dim=0) > cosine


@pytest.mark.parametrize("name", PROMPT_METHODS)
def test_prompt_tuning_needs_a_prompt(views, name):
    with pytest.raises(InputError, match="use a single template"):
        start(name, Classifier(F.normalize(torch.randn(4, 32), dim=-1), SCALE))


def test_bad_settings_are_refused_by_key():
    bad = [("CTPT", "lam", -1.0), ("CTPT", "lam", math.inf), ("OTPT", "lam", -1.0), ("ATPT", "lam", math.nan)]
    bad += [("RTPT", "n_neighbours", 0)]
    for name in ("TPT", "CTPT", "RTPT", "TPS"):
        bad += [(name, "top", 0.0), (name, "top", 1.5), (name, "lr", -1.0), (name, "steps", -1)]
    for name, field, value in bad:
        with pytest.raises(InputError, match=f"^{'LAMBDA' if field == 'lam' else field.upper()} must"):
            METHODS[name](**{field: value})


def test_defaults_are_the_authors():
    common = {"TOP": ("top", 0.1), "LR": ("lr", 5e-3), "STEPS": ("steps", 1), "RULE": ("rule", "entropy")}
    assert settings(METHODS["TPT"]) == settings(METHODS["TPS"]) == common
    for name, weight in (("CTPT", 20.0), ("OTPT", 2.0), ("ATPT", 80.0)):
        assert settings(METHODS[name]) == {"LAMBDA": ("lam", weight), **common}
    assert settings(METHODS["RTPT"]) == {"N_NEIGHBOURS": ("n_neighbours", 20), **common}
