"""The host queues work for the GPU without waiting for it: no copy back and forth, nothing is read.

Without a GPU, tensors without data show the same; see waits.py.
"""

import contextlib

import pytest
import torch
from conftest import CLASSNAMES, NEEDS_GPU, TINY_RESNET, TINY_VIT, make_clip
from dassl.optim import build_optimizer
from gpu import place_of
from waits import Host

from tlla.backbones import as_backbone
from tlla.methods import METHODS
from tlla.metrics import score
from tlla.prompts.classifier import PromptClassifier
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.views.encode import ViewEncoder

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)
LAYER_VIT = (*TINY_VIT[:2], 1, *TINY_VIT[3:9], 1)  # of one layer: a second one shows nothing more


@pytest.fixture
def host(device):
    with Host(device) as host:
        yield host


@pytest.fixture
def training_host(device):
    with Host(device, backward=True) as host:
        yield host


def prompted(host, arch=LAYER_VIT, text_chunk=0, **settings):
    clip_model = as_backbone(make_clip(arch))
    clip_model = clip_model if host.mode else clip_model.to(host.device)
    model = PromptedCLIP(clip_model, PromptLearner(clip_model, CLASSNAMES[:3], n_ctx=4, **settings), text_chunk)
    return host.move(model) if host.mode else model


@dry
def test_waits_are_found(host):
    x, mask = (host.on_device(torch.ones(4, 4)) for _ in range(2))
    cases = {
        "no wait": (lambda: (x @ x).softmax(dim=0).argmax(dim=1), 0),
        "a number is read": (lambda: x[0, 0].item(), 1),
        "a decision": (lambda: bool((x > 0).any()), 1),
        "a list is copied there": (lambda: torch.tensor([1.0, 2.0], device=host.device), 1),
        "numbers are read": (lambda: x.sum(dim=0).tolist(), 1),
        "a copy back": (lambda: x.cpu(), 1),
        "an index on the host": (lambda: x[torch.tensor([1, 2])], 1),
        "a pinned copy": (lambda: host.pinned(torch.ones(3)).to(host.device, non_blocking=True), 0),
        "a product by a number": (lambda: x * torch.tensor(2.0), 0),
    }
    for name, (function, expected) in cases.items():
        assert len(host.waits(function)) == expected, name
    with contextlib.suppress(Exception):  # without data the number of rows is not known
        found = host.waits(lambda: x[mask > 0])
        assert len(found) == 1


@pytest.mark.parametrize(
    "settings",
    ({}, {"class_token_position": "middle", "csc": True}, pytest.param({"text_chunk": 2}, marks=dry)),
    ids=str,
)
def test_class_features_are_encoded_without_a_wait_from_the_second_time_on(host, settings):
    model = prompted(host, **settings)
    with torch.no_grad():
        host.waits(model.encode_text)
        assert host.waits(model.encode_text) == []
        contexts = model.prompt_learner.ctx.expand(2, *model.prompt_learner.ctx.shape)
        host.waits(lambda: model.encode_text(contexts))
        assert host.waits(lambda: model.encode_text(contexts + 1)) == []


def test_the_gradient_of_class_features_is_computed_without_a_wait(training_host):
    host, model = training_host, prompted(training_host)

    def gradient():
        return torch.autograd.grad(model.encode_text().square().sum(), model.prompt_learner.ctx)

    host.waits(gradient)
    assert host.waits(gradient) == []


# Not those that learn from the images, as what they remember depends on each image's content.
@dry
def test_methods_predict_without_a_wait(host):
    model = prompted(host)
    features = host.on_device(torch.randn(3, 64, 32))
    label = host.on_device(torch.zeros(3, dtype=torch.int64))
    made: list[PromptClassifier] = []
    host.waits(lambda: made.append(PromptClassifier(model)))
    for name in sorted(name for name, m in METHODS.items() if not (m.needs_backprop or m.online or m.reads_first)):
        method = METHODS[name]()
        host.waits(lambda: method.start(made[0]))  # noqa: B023
        assert host.waits(lambda: score(method.predict(features), label)) == [], name  # noqa: B023
        assert all(values.device.type == host.device.type for values in method.details.values()), name


@pytest.mark.parametrize("arch", (pytest.param(LAYER_VIT, marks=dry), TINY_RESNET), ids=("ViT", "ResNet"))
def test_views_in_pinned_memory_are_encoded_without_a_wait(host, arch):
    encode = ViewEncoder(prompted(host, arch).clip, at_once=8)
    views = host.pinned(torch.zeros(2, 6, 3, 32, 32, dtype=torch.uint8))
    host.waits(lambda: encode(views))
    assert host.waits(lambda: encode(views)) == []


@pytest.mark.parametrize(("precision", "most"), [pytest.param("fp32", 2, marks=dry), ("amp", 4)])
def test_a_step_of_sapt_waits_for_what_it_decides_by(tmp_path_factory, training_host, monkeypatch, precision, most):
    """Whether either gradient is finite, and what is printed; for fp16 the loss scale, and whether the scaler steps."""
    host = training_host
    if host.mode and precision == "amp":
        pytest.skip(NEEDS_GPU)
    place = place_of(tmp_path_factory)
    trainer = place.built("SAPT", "waits", *place.with_backbone("ViT"), "TRAINER.SAPT.PREC", precision)
    if host.mode:
        host.move(trainer.model)
        trainer.optim = build_optimizer(trainer.model.prompt_learner, trainer.cfg.OPTIM)
        trainer.device = host.device
        monkeypatch.setattr(trainer, "autocast", contextlib.nullcontext)  # which knows no such device
    loaded = next(iter(trainer.train_loader_x))
    batch = {name: host.pinned(loaded[name]) for name in ("img", "label")}
    for _ in range(20 if trainer.scaler else 1):  # the first loss scales may be too large
        host.waits(lambda: trainer.forward_backward(batch))
    found = host.waits(lambda: trainer.forward_backward(batch))
    assert 0 < len(found) <= most, "\n".join(found)
