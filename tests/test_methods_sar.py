"""SAR against SAM as it is usually written, in place on a copy of the encoder, one image at a time."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_RESNET, TINY_VIT, make_clip

from tlla.backbones import Backbone
from tlla.backbones.openai_package import CLIP
from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.methods.norm_layers import norm_parameters
from tlla.prompts.classifier import Classifier
from tlla.selection import entropy

SCALE = 100.0
SETTINGS = {"e0": 0.4, "top": 0.75, "lr": 0.01}
N_IMAGES, N_VIEWS, N_CLASSES = 3, 12, 5
ARCHITECTURES = {"ViT": TINY_VIT, "ResNet": TINY_RESNET}
NAMES = {
    "ViT": ["ln_pre", "transformer.resblocks.0.ln_1", "transformer.resblocks.0.ln_2"],
    "ResNet": ["bn1", "bn2", "bn3"]
    + [f"layer{i}.0.{name}" for i in (1, 2, 3) for name in ("bn1", "bn2", "bn3", "downsample.1")],
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def task(request):
    """A CLIP, views, and class features that split them, in double precision.

    SAM divides the gradient by its norm: where that is small, single precision's noise (2**-24 of the largest terms) is
    blown up by logits of a scale of 20 to 100, and with each step again, to some 1e-5 that differ between processors.
    """
    return make_task(request.param, torch.float64)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def single_task(request):
    """The same in single precision."""
    return make_task(request.param, torch.float32)


def make_task(arch, dtype):
    torch.manual_seed(0)
    model = make_clip(ARCHITECTURES[arch])
    vary_norms(model.visual)
    model.to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # OpenAI's computes in single precision
            module.__class__ = torch.nn.LayerNorm
    images = torch.randn(N_IMAGES, N_VIEWS, 3, 32, 32) * (torch.rand(N_IMAGES, N_VIEWS, 1, 1, 1) + 0.5)
    images = images.to(dtype)
    features = encode(model, images.flatten(0, 1)).unflatten(0, (N_IMAGES, N_VIEWS))
    examples = encode(model, torch.randn(N_CLASSES, 3, 32, 32).to(dtype))
    text = F.normalize(examples - examples.mean(dim=0), dim=-1)
    # The tiny ResNet's features are far apart: at 100 its predictions would be one-hot.
    scale = {"ViT": SCALE, "ResNet": 20.0}[arch]
    return SimpleNamespace(arch=arch, model=model, images=images, features=features, text=text, scale=scale)


def encode(model, images):
    return F.normalize(model.visual(images), dim=-1)


def vary_norms(encoder):
    """Batch norm as after training: CLIP starts with scales of 0 and statistics of 0 and 1, which hide the image."""
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.momentum = 1.0
    encoder.train()(torch.randn(16, 3, 32, 32) * (torch.rand(16, 1, 1, 1) + 0.5))
    encoder.eval()


def start(task, **kwargs):
    sar = METHODS["SAR"](**{**SETTINGS, **kwargs})
    sar.start(Classifier(task.text, task.scale, task.model))
    return sar


def plain(task):
    return (task.scale * task.features[:, 0] @ task.text.t()).softmax(dim=-1)


def naive_entropies(encoder, images, text):
    z = encoder(images)
    p = (z / z.square().sum(dim=1, keepdim=True).sqrt() @ text.t()).softmax(dim=1)
    return -(p * p.clamp(min=1e-30).log()).sum(dim=1), p


def naive_sar(task, images, e0, top, lr, rho=0.05, steps=1):
    """Probabilities (K,) and how many views passed the two filters at each step."""
    text = task.scale * task.text
    encoder = copy.deepcopy(task.model.visual)
    layers = [encoder.get_submodule(name) for name in NAMES[task.arch]]
    parameters = [p.requires_grad_() for layer in layers for p in (layer.weight, layer.bias)]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    with torch.no_grad():
        entropies = naive_entropies(encoder, images, text)[0].tolist()
    batch = images[sorted(range(len(images)), key=lambda v: entropies[v])[: int(top * len(images))]]
    passed = []
    for _ in range(steps):
        h = naive_entropies(encoder, batch, text)[0]
        first = [i for i in range(len(batch)) if h[i] < e0 * math.log(len(text))]
        if not first:
            break
        optimizer.zero_grad()
        (sum(h[i] for i in first) / len(first)).backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters))
        before = [p.detach().clone() for p in parameters]
        for p in parameters:
            p.data += rho * p.grad / norm
        h = naive_entropies(encoder, batch, text)[0]
        second = [i for i in first if h[i] < e0 * math.log(len(text))]
        optimizer.zero_grad()
        if second:
            (sum(h[i] for i in second) / len(second)).backward()
        for p, old in zip(parameters, before, strict=True):
            p.data = old
        passed.append((len(first), len(second)))
        if not second:
            break
        optimizer.step()
    with torch.no_grad():
        return naive_entropies(encoder, images[:1], text)[1][0], passed


ON_VIT = [("ViT", setting) for setting in ({}, {"rho": 0.0}, {"rho": 2.0}, {"steps": 3}, {"e0": 0.8, "top": 1.0})]


@pytest.mark.parametrize(("task", "setting"), [*ON_VIT, ("ResNet", {}), ("ResNet", {"steps": 3})], indirect=["task"])
def test_equals_in_place_sam(task, setting):
    with torch.no_grad():
        result = start(task, **setting).predict(task.features, task.images)
    naive = [naive_sar(task, x, **{**SETTINGS, **setting}) for x in task.images]
    torch.testing.assert_close(result, torch.stack([p for p, _ in naive]), atol=1e-10, rtol=0)
    assert (result - plain(task)).abs().max() > 0.01  # or the comparison would say nothing about adaptation
    if not setting:  # each filter drops some views and keeps some
        passed = [p[0] for _, p in naive]
        assert any(0 < second < first for first, second in passed)
        assert any(first < N_VIEWS * SETTINGS["top"] for first, _ in passed) or task.arch == "ViT"


def test_norm_layers_without_the_last_ones_are_tuned(task):
    expected = [f"{layer}.{name}" for layer in NAMES[task.arch] for name in ("weight", "bias")]
    assert [name for name, _ in norm_parameters(task.model.visual)] == expected


def test_the_last_three_of_twelve_blocks_are_left_alone():
    names = [name for name, _ in norm_parameters(CLIP(16, 32, 12, 64, 16, 77, 100, 64, 1, 1).visual)]
    assert names[-1] == "transformer.resblocks.8.ln_2.bias"
    assert len(names) == 2 * (1 + 2 * 9)


def test_the_encoder_stays_as_it_was(task):
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    start(task, steps=2).predict(task.features, task.images)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in task.model.parameters())
    assert not task.model.visual.training


vit = pytest.mark.parametrize("task", ["ViT"], indirect=True)  # what does not depend on the layers


def test_nothing_stays_from_image_to_image(task):
    sar = start(task)
    together = sar.predict(task.features, task.images)
    assert not together.requires_grad
    order = [2, 0, 1]
    shuffled = sar.predict(task.features[order], task.images[order])
    torch.testing.assert_close(shuffled, together[order], atol=1e-10, rtol=0)
    alone = [sar.predict(task.features[b : b + 1], task.images[b : b + 1]) for b in range(N_IMAGES)]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-10, rtol=0)


@vit
@pytest.mark.parametrize("setting", ({"e0": 0.0}, {"lr": 0.0}, {"steps": 0}))
def test_no_reliable_view_or_no_step_is_the_plain_prediction(task, setting):
    result = start(task, **setting).predict(task.features, task.images)
    torch.testing.assert_close(result, plain(task), atol=1e-10, rtol=0)


@vit
def test_without_a_reliable_view_no_image_is_encoded(task):
    sar = start(task, e0=0.0)
    sar.norms.encoder = None
    sar.predict(task.features, task.images)


@vit
def test_no_view_that_stays_reliable_is_the_plain_prediction(task):
    """One view is just below the threshold, and SAM's climb raises its entropy."""
    entropies = entropy(task.scale * task.features @ task.text.t())
    changes = []
    for b, e0 in enumerate(1.02 * entropies.amin(dim=1) / math.log(N_CLASSES)):
        views = (task.features[b : b + 1], task.images[b : b + 1])
        result = start(task, e0=e0.item(), lr=1.0).predict(*views)
        torch.testing.assert_close(result, plain(task)[b : b + 1], atol=1e-10, rtol=0)
        changes.append((start(task, e0=e0.item(), lr=1.0, rho=0.0).predict(*views) - result).abs().max())
    assert max(changes) > 0.01


@vit
@pytest.mark.parametrize("which", (1, 2))
def test_a_gradient_that_overflows_makes_no_step(task, which):
    """In the first pass of a step or in the second, at the perturbed parameters."""

    class Overflowing(Classifier):
        passes = 0
        loss_scale = property(lambda self: math.inf if self.passes == which else 1.0, lambda self, value: None)

        def logits(self, features, text):
            self.passes += features.dim() == 2  # of views that were encoded again
            return super().logits(features, text)

    sar = METHODS["SAR"](**SETTINGS)
    sar.start(Overflowing(task.text, task.scale, task.model))
    result = sar.predict(task.features[:1], task.images[:1])
    torch.testing.assert_close(result, plain(task)[:1], atol=1e-10, rtol=0)


def test_a_probability_that_underflows_does_not_stop_adaptation(single_task):
    """Views between two classes, with the others at probability 0: the gradient must not be NaN."""
    features = single_task.features[0]
    near, far = features.mean(dim=0), -features.mean(dim=0)
    wiggle = 0.02 * F.normalize(features[0] - features[1], dim=0)
    text = F.normalize(torch.stack([near + wiggle, near - wiggle, far]), dim=-1)
    sar = METHODS["SAR"](e0=1.0, top=1.0, lr=5.0)
    sar.start(Classifier(text, SCALE, single_task.model))
    result = sar.predict(single_task.features[:1], single_task.images[:1])
    untuned = (SCALE * single_task.features[:1, 0] @ text.t()).softmax(dim=-1)
    assert untuned[0, 2] == 0
    assert (result - untuned).abs().max() > 1e-3


@vit
def test_one_view_or_one_class_is_enough(task):
    result = start(task, e0=1.0).predict(task.features[:, :1], task.images[:, :1])
    torch.testing.assert_close(result.sum(dim=1), torch.ones(N_IMAGES).double())
    assert (result - plain(task)).abs().max() > 0.01
    sar = METHODS["SAR"]()
    sar.start(Classifier(task.text[:1], task.scale, task.model))
    assert torch.equal(sar.predict(task.features, task.images), torch.ones(N_IMAGES, 1).double())


@vit
def test_each_image_can_have_its_own_class_features(task):
    texts = torch.stack([task.text, task.text.roll(1, 0), task.text.flip(0)])

    class ByImage(Classifier):
        def text(self, features):
            return texts

    sar = METHODS["SAR"](**SETTINGS)
    sar.start(ByImage(task.text, task.scale, task.model))
    result = sar.predict(task.features, task.images)
    for b, text in enumerate(texts):
        sar.start(Classifier(text, task.scale, task.model))
        alone = sar.predict(task.features[b : b + 1], task.images[b : b + 1])
        torch.testing.assert_close(result[b : b + 1], alone, atol=1e-10, rtol=0)


@vit
def test_the_loss_scale_cancels(task):
    sar = start(task)
    expected = sar.predict(task.features, task.images)
    sar.classifier.loss_scale = 1024.0
    torch.testing.assert_close(sar.predict(task.features, task.images), expected, atol=1e-10, rtol=0)


def test_mixed_precision_stays_near_full_precision(single_task):
    sar = start(single_task, rho=0.0, e0=1.0)  # without the filters' jumps
    full = sar.predict(single_task.features, single_task.images)
    sar.classifier.autocast = lambda: torch.autocast("cpu", torch.bfloat16)
    low = sar.predict(single_task.features, single_task.images)
    assert not torch.equal(low, full)
    change, expected = (low - plain(single_task)).flatten(), (full - plain(single_task)).flatten()
    assert F.cosine_similarity(change, expected, dim=0) > 0.8


def test_what_cannot_be_adapted_is_refused(task):
    with pytest.raises(InputError, match="features alone are not enough"):
        METHODS["SAR"]().start(Classifier(task.text, task.scale))
    without_norms = Backbone()
    without_norms.visual, without_norms.dtype = torch.nn.Linear(3, 3), torch.float32
    with pytest.raises(InputError, match="no norm layer"):
        METHODS["SAR"]().start(Classifier(task.text, task.scale, without_norms))
    with pytest.raises(InputError, match="pixels"):
        start(task).predict(task.features)


def test_bad_settings_are_refused_by_key():
    for field, value in (("e0", -0.1), ("rho", -1.0), ("rho", math.nan), ("top", 0.0), ("lr", -1.0), ("steps", -1)):
        with pytest.raises(InputError, match=f"^{field.upper()} must"):
            METHODS["SAR"](**{field: value})


def test_defaults_are_the_documented_ones():
    defaults = {key: default for key, (_, default) in settings(METHODS["SAR"]).items()}
    assert defaults == {"E0": 0.4, "RHO": 0.05, "TOP": 0.1, "LR": 1e-3, "STEPS": 1}
