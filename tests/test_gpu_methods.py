"""Every test-time method on a GPU computes what it computes on the CPU, in float32."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES

from tlla.clip import load_clip
from tlla.methods import METHODS
from tlla.prompts.classifier import from_templates

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)

ONLINE = sorted(name for name, method in METHODS.items() if method.online and not method.in_batches)
IN_PLAIN_SUITE = ("STSS", "TDA")
SMALL = {"STSS": {"top_s": 4}}


@pytest.fixture(scope="module")
def clip_model():
    return load_clip("EmojiCLIP")


@pytest.fixture(scope="module")
def inputs(clip_model):
    """Features of the views of six images near their classes, and pixels, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    text = from_templates(clip_model, CLASSNAMES, "a photo of a {}.").text_features
    noise = torch.randn(6, 8, text.shape[1], generator=generator) / text.shape[1] ** 0.5
    features = F.normalize(text[torch.arange(6), None] + noise, dim=-1)
    return features, torch.randn(6, 8, 3, 64, 64, generator=generator)


def started(name, clip_model, device):
    method = METHODS[name](**SMALL.get(name, {}))
    clip_model = copy.deepcopy(clip_model).to(device)
    with torch.no_grad():
        method.start(from_templates(clip_model, CLASSNAMES, "a photo of a {}."), seed=0)
    method.n_images = 6
    return method


@torch.no_grad()
def predicted(method, inputs, rows=slice(None)):
    features, images = (x[rows].to(method.classifier.text_features.device) for x in inputs)
    return method.predict(features, images if method.needs_images else None)


def marked(names):
    return [pytest.param(name, marks=dry) if name in IN_PLAIN_SUITE else name for name in names]


@pytest.mark.parametrize("name", marked(METHODS))
def test_probabilities_are_the_cpus(device, clip_model, inputs, name):
    expected = predicted(started(name, clip_model, torch.device("cpu")), inputs)
    method = started(name, clip_model, device)
    found = predicted(method, inputs)
    assert found.device.type == device.type and expected.std() > 0.01
    assert all(len(column) == 6 for column in method.details.values())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", marked(ONLINE))
def test_a_saved_state_resumes_to_the_same_bits(device, clip_model, inputs, name):
    whole, first, second = (started(name, clip_model, device) for _ in range(3))
    expected = predicted(whole, inputs)
    predicted(first, inputs, slice(3))
    forgetful = predicted(second, inputs, slice(3, None))
    assert not torch.equal(forgetful, expected[3:])
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second.reset()
    second.load_state(torch.load(buffer, map_location="cpu", weights_only=True))
    assert torch.equal(predicted(second, inputs, slice(3, None)), expected[3:])
