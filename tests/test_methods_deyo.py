"""DeYO against a module that is adapted in place by torch's SGD, one batch after another."""

import copy
import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_RESNET, TINY_VIT, make_clip

from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.prompts.classifier import Classifier

SCALE, SEED = 20.0, 3
SETTINGS = {"lr": 0.02, "margin": 0.7, "plpd": 0.05}
LEFT_ALONE = r"layer4|resblocks\.1|ln_post"


@pytest.fixture(scope="module", params=("ViT", "ResNet"))
def task(request):
    """A CLIP in double precision, twelve images, and class features that split them."""
    torch.manual_seed(0)
    model = make_clip({"ViT": TINY_VIT, "ResNet": TINY_RESNET}[request.param]).double()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # OpenAI's computes in single precision
            module.__class__ = torch.nn.LayerNorm
        elif isinstance(module, torch.nn.BatchNorm2d):  # CLIP starts with scales of 0
            module.weight.data.uniform_(0.5, 1.5)
    images = (torch.randn(12, 1, 3, 32, 32) * (torch.rand(12, 1, 1, 1, 1) + 0.5)).double()
    with torch.no_grad():
        examples = F.normalize(like_upstreams(model.visual)(torch.randn(5, 3, 32, 32).double()), dim=-1)
    text = F.normalize(examples - examples.mean(dim=0), dim=-1)
    return SimpleNamespace(model=model, images=images, features=torch.zeros(12, 1, text.shape[1]).double(), text=text)


def like_upstreams(encoder):
    """A copy whose batch norms know no statistics but the batch's."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return encoder


def started(task, **changed):
    method = METHODS["DeYO"](**{**SETTINGS, **changed})
    method.start(Classifier(task.text, SCALE, task.model), SEED)
    return method


@torch.no_grad()
def predicted(method, task, *groups):
    return torch.cat([method.predict(task.features[rows], task.images[rows]) for rows in groups])


def classify(encoder, task, pixels):
    z = encoder(pixels)
    return (SCALE * (z / z.norm(dim=1, keepdim=True)) @ task.text.t()).softmax(dim=1)


@torch.no_grad()
def plain(task, *groups):
    """Without any step."""
    encoder = like_upstreams(task.model.visual)
    return torch.cat([classify(encoder, task, task.images[rows, 0]) for rows in groups])


def naive(task, groups, lr, margin, plpd, e0=0.4):
    """Probabilities, and how many images each batch was learned from after either filter."""
    encoder, counts, found, seen = like_upstreams(task.model.visual), [], [], 0
    is_norm = (torch.nn.LayerNorm, torch.nn.BatchNorm2d)
    layers = [m for name, m in encoder.named_modules() if isinstance(m, is_norm) and not re.search(LEFT_ALONE, name)]
    parameters = [p.requires_grad_() for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9)
    for rows in groups:
        orders = [np.random.default_rng((SEED, seen + place)).permutation(16) for place in range(len(rows))]
        seen += len(rows)
        p = classify(encoder, task, task.images[rows, 0])
        found.append(p.detach())
        entropy = -(p * p.log()).sum(dim=1)
        first = [place for place in range(len(rows)) if entropy[place] < margin * math.log(5)]
        others = []
        for place in first:
            pixels, other = task.images[rows[place], 0], torch.empty(3, 32, 32).double()
            for to, source in enumerate(orders[place]):
                (i, j), (u, v) = divmod(to, 4), divmod(int(source), 4)
                patch = pixels[:, 8 * u : 8 * u + 8, 8 * v : 8 * v + 8]
                other[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = patch
            others.append(other)
        losses = []
        with torch.no_grad():
            q = classify(encoder, task, torch.stack(others)) if others else None
        for number, place in enumerate(first):
            label = int(p[place].argmax())
            fall = (p[place, label] - q[number, label]).item()
            if fall > plpd:
                weight = 1 / math.exp(entropy[place].item() - e0 * math.log(5)) + 1 / math.exp(-fall)
                losses.append(weight * entropy[place])
        if losses:
            optimizer.zero_grad()
            (sum(losses) / len(losses)).backward()
            optimizer.step()
        counts.append((len(rows), len(first), len(losses)))
    return torch.cat(found), counts


GROUPS = ([0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11])


def test_equals_in_place_steps_from_batch_to_batch(task):
    expected, counts = naive(task, GROUPS, **SETTINGS)
    assert any(n > first > kept > 0 for n, first, kept in counts)  # each filter drops some and keeps some
    found = predicted(started(task), task, *GROUPS)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    without = plain(task, *GROUPS)
    torch.testing.assert_close(found[:5], without[:5], atol=1e-10, rtol=0)  # a batch does not learn from itself
    assert (found - without)[5:].abs().max() > 0.01


def test_a_saved_state_goes_on_where_it_was_and_a_reset_forgets(task):
    whole = predicted(started(task), task, *GROUPS)
    first, second, buffer = started(task), started(task), io.BytesIO()
    predicted(first, task, GROUPS[0])
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second.load_state(torch.load(buffer, weights_only=True))
    assert torch.equal(predicted(second, task, *GROUPS[1:]), whole[5:])
    second.reset()
    assert torch.equal(predicted(second, task, *GROUPS), whole)


def test_the_encoder_stays_as_it_was_and_the_loss_scale_cancels(task):
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    method, whole = started(task), predicted(started(task), task, *GROUPS)
    method.classifier.loss_scale = 1024.0
    torch.testing.assert_close(predicted(method, task, *GROUPS), whole, atol=1e-10, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())
    assert not any(module.training for module in task.model.visual.modules() if hasattr(module, "running_mean"))
    method.reset()
    method.classifier.loss_scale = math.inf  # a gradient that overflows makes no step
    torch.testing.assert_close(predicted(method, task, *GROUPS), plain(task, *GROUPS), atol=1e-10, rtol=0)


@pytest.mark.parametrize("setting", ({"margin": 0.0}, {"plpd": 1.0}, {"lr": 0.0}))
def test_without_an_image_to_learn_from_or_a_step_it_is_the_plain_prediction(task, setting):
    torch.testing.assert_close(
        predicted(started(task, **setting), task, *GROUPS), plain(task, *GROUPS), atol=1e-10, rtol=0
    )


def test_patches_change_places_and_nothing_is_lost(task):
    method = started(task)
    rows = torch.tensor([0, 2])
    shuffled = method._shuffle(task.images[:, 0], rows)
    assert not torch.equal(shuffled, task.images[rows, 0])
    assert torch.equal(shuffled.flatten(1).sort().values, task.images[rows, 0].flatten(1).sort().values)
    assert started(task, patches=5)._shuffle(task.images[:, 0], rows).shape == shuffled.shape  # 30 pixels and back


def test_what_cannot_be_adapted_is_refused(task):
    with pytest.raises(InputError, match="features alone are not enough"):
        METHODS["DeYO"]().start(Classifier(task.text, SCALE))
    with pytest.raises(InputError, match="pixels"):
        started(task).predict(task.features)


@pytest.mark.parametrize(
    ("setting", "key"),
    [({"batch": 0}, "BATCH"), ({"patches": 0}, "PATCHES"), ({"lr": -1.0}, "LR"), ({"margin": -0.1}, "MARGIN")]
    + [({"e0": math.nan}, "E0"), ({"plpd": -2.0}, "PLPD")],
)
def test_bad_settings_are_refused_by_key(setting, key):
    with pytest.raises(InputError, match=f"^{key} must"):
        METHODS["DeYO"](**setting)


def test_defaults_are_the_authors_for_a_vit():
    defaults = {key: default for key, (_, default) in settings(METHODS["DeYO"]).items()}
    assert defaults == {"BATCH": 64, "LR": 1e-3, "MARGIN": 0.5, "E0": 0.4, "PLPD": 0.2, "PATCHES": 4}
