"""DeYO against a module that is adapted in place by torch's SGD, one batch after another."""

import copy
import io
import math

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
LAYERS = ["ln_pre", "transformer.resblocks.0.ln_1", "transformer.resblocks.0.ln_2"]


@pytest.fixture(scope="module")
def task():
    """A CLIP in double precision, twelve images, and class features that split them."""
    torch.manual_seed(0)
    model = make_clip(TINY_VIT).double()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # OpenAI's computes in single precision
            module.__class__ = torch.nn.LayerNorm
    images = (torch.randn(12, 1, 3, 32, 32) * (torch.rand(12, 1, 1, 1, 1) + 0.5)).double()
    with torch.no_grad():
        features = F.normalize(model.visual(images.flatten(0, 1)), dim=-1)[:, None]
        examples = F.normalize(model.visual(torch.randn(5, 3, 32, 32).double()), dim=-1)
    return model, images, features, F.normalize(examples - examples.mean(dim=0), dim=-1)


def started(task, text=None, **changed):
    method = METHODS["DeYO"](**{**SETTINGS, **changed})
    method.start(Classifier(task[3] if text is None else text, SCALE, task[0]), SEED)
    return method


@torch.no_grad()
def predicted(method, task, *groups):
    return torch.cat([method.predict(task[2][rows], task[1][rows]) for rows in groups])


def naive(task, groups, lr, margin, plpd, e0=0.4):
    """Probabilities, and how many images each batch was learned from after either filter."""
    encoder, counts, found, seen = copy.deepcopy(task[0].visual), [], [], 0
    parameters = [p.requires_grad_() for name in LAYERS for p in encoder.get_submodule(name).parameters()]
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9)

    def classify(pixels):
        z = encoder(pixels[None])[0]
        return torch.softmax(SCALE * task[3] @ (z / z.norm()), dim=0)

    for rows in groups:
        losses, first = [], 0
        for pixels in task[1][rows, 0]:
            order = np.random.default_rng((SEED, seen)).permutation(16)
            seen += 1
            p = classify(pixels)
            found.append(p.detach())
            entropy = -(p * p.log()).sum()
            if entropy >= margin * math.log(5):
                continue
            first += 1
            other, label = torch.empty_like(pixels), int(p.argmax())
            for place, source in enumerate(order):
                (i, j), (u, v) = divmod(place, 4), divmod(int(source), 4)
                patch = pixels[:, 8 * u : 8 * u + 8, 8 * v : 8 * v + 8]
                other[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] = patch
            fall = (p[label] - classify(other)[label]).item()
            if fall > plpd:
                weight = 1 / math.exp(entropy.item() - e0 * math.log(5)) + 1 / math.exp(-fall)
                losses.append(weight * entropy)
        if losses:
            optimizer.zero_grad()
            (sum(losses) / len(losses)).backward()
            optimizer.step()
        counts.append((len(rows), first, len(losses)))
    return torch.stack(found), counts


GROUPS = ([0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11])


def test_equals_in_place_steps_from_batch_to_batch(task):
    expected, counts = naive(task, GROUPS, **SETTINGS)
    assert any(n > first > kept > 0 for n, first, kept in counts)  # each filter drops some and keeps some
    found = predicted(started(task), task, *GROUPS)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    plain = (SCALE * task[2][:, 0] @ task[3].t()).softmax(dim=-1)
    torch.testing.assert_close(found[:5], plain[:5], atol=1e-10, rtol=0)  # a batch does not learn from itself
    assert (found - plain)[5:].abs().max() > 0.01


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
    before = {name: value.clone() for name, value in task[0].state_dict().items()}
    method, whole = started(task), predicted(started(task), task, *GROUPS)
    method.classifier.loss_scale = 1024.0
    torch.testing.assert_close(predicted(method, task, *GROUPS), whole, atol=1e-10, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in task[0].state_dict().items())
    method.reset()
    method.classifier.loss_scale = math.inf  # a gradient that overflows makes no step
    plain = (SCALE * task[2][:, 0] @ task[3].t()).softmax(dim=-1)
    torch.testing.assert_close(predicted(method, task, *GROUPS), plain, atol=1e-10, rtol=0)


@pytest.mark.parametrize("setting", ({"margin": 0.0}, {"plpd": 1.0}, {"lr": 0.0}))
def test_without_an_image_to_learn_from_or_a_step_it_is_the_plain_prediction(task, setting):
    plain = (SCALE * task[2][:, 0] @ task[3].t()).softmax(dim=-1)
    torch.testing.assert_close(predicted(started(task, **setting), task, *GROUPS), plain, atol=1e-10, rtol=0)


def test_patches_change_places_and_nothing_is_lost(task):
    method = started(task)
    rows = torch.tensor([0, 2])
    shuffled = method._shuffle(task[1][:, 0], rows)
    assert not torch.equal(shuffled, task[1][rows, 0])
    assert torch.equal(shuffled.flatten(1).sort().values, task[1][rows, 0].flatten(1).sort().values)
    assert started(task, patches=5)._shuffle(task[1][:, 0], rows).shape == shuffled.shape  # 30 pixels and back


def test_what_cannot_be_adapted_is_refused(task):
    with pytest.raises(InputError, match="features alone are not enough"):
        METHODS["DeYO"]().start(Classifier(task[3], SCALE))
    with pytest.raises(InputError, match="has batch norms: choose a ViT"):
        METHODS["DeYO"]().start(Classifier(task[3], SCALE, make_clip(TINY_RESNET)))
    with pytest.raises(InputError, match="pixels"):
        started(task).predict(task[2])


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
