"""A GPU's numbers are the CPU's in float32, and recomputed activations change no gradient."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSNAMES, TINY_RESNET, TINY_VIT, make_clip
from gpu import WIDE_VIT, cosine, has_tf32, low, set_tf32

from tlla.clip import encode_images
from tlla.prompts import chunks, prompted
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.sharpness import sharpness_step

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)

CLIPS = {"ViT": WIDE_VIT, "RN": TINY_RESNET}
CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of numbers up to 1; sums in another order change 1e-7 to 1e-6, TF32's weights alone 6e-5


class Task:
    """A prompted CLIP on a device with 16 images; all random numbers are the CPU's."""

    def __init__(self, clip_model, device, text_chunk=0):
        clip_model = copy.deepcopy(clip_model).to(device)
        generator = torch.Generator().manual_seed(0)
        learner = PromptLearner(clip_model, CLASSNAMES, ctx_init="a photo of a")
        self.model = PromptedCLIP(clip_model, learner, text_chunk).to(device)
        self.ctx = learner.ctx
        self.images = torch.randn(16, 3, 32, 32, generator=generator).to(device)
        self.labels = torch.randint(len(CLASSNAMES), (16,), generator=generator).to(device)

    def loss(self, ctx, autocast=None):
        """Cross entropy; the text is encoded in the dtype of `autocast`."""
        features = encode_images(self.model.clip, self.images)
        with torch.autocast(ctx.device.type, autocast, enabled=autocast is not None):
            text = self.model.encode_text(ctx)
        return F.cross_entropy(self.model.logits(features, text), self.labels)

    def gradient(self, autocast=None):
        """Of length 1."""
        (gradient,) = torch.autograd.grad(self.loss(self.ctx, autocast) * 1024, self.ctx)
        return gradient / gradient.norm()

    def numbers(self):
        """Image features, class features and the gradient, on the CPU."""
        found = encode_images(self.model.clip, self.images), self.model.encode_text(), self.gradient()
        return [x.detach().float().cpu() for x in found]


def largest(found, expected):
    return [(a - b).abs().max().item() for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("name", [pytest.param("ViT", marks=dry), "RN"])
def test_features_and_gradients_are_the_cpus(device, name):
    clip_model = make_clip(CLIPS[name])
    expected, found = Task(clip_model, CPU).numbers(), Task(clip_model, device).numbers()
    assert all(x.abs().max() > 0.01 for x in expected)
    assert max(largest(found, expected)) < TOLERANCE


@dry
def test_that_comparison_finds_factors_of_fewer_bits(device):
    """TF32 has 10 bits; on the CPU bf16, which has 7, stands in for it."""
    clip_model = make_clip(WIDE_VIT)
    expected, task = Task(clip_model, CPU).numbers(), Task(clip_model, device)
    if device.type == "cuda" and not has_tf32(device):
        pytest.skip("this GPU has no TF32")
    set_tf32(True)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cpu"):
        found = task.numbers()
    assert min(largest(found, expected)) > TOLERANCE


@pytest.mark.parametrize("by", [pytest.param("TEXT_CHUNK", marks=dry), "budget"])
def test_many_chunks_give_the_gradient_of_one_and_recomputing_them_the_same_bits(device, monkeypatch, by):
    """Under autocast."""
    clip_model, calls, recompute = make_clip(TINY_VIT), [], prompted.checkpoint
    whole = Task(clip_model, device).gradient(low(device))

    def counted(*args, **kwargs):
        calls.append(1)
        return recompute(*args, **kwargs)

    monkeypatch.setattr(prompted, "checkpoint", counted)
    if by == "budget":
        monkeypatch.setattr(chunks, "BUDGET", chunks.BUDGET * 20 // chunks.token_limit(clip_model))  # 20 tokens
    task = Task(clip_model, device, text_chunk=2 if by == "TEXT_CHUNK" else 0)
    recomputed = task.gradient(low(device))
    assert cosine(recomputed, whole) > 0.999
    assert len(calls) == len(CLASSNAMES) / 2 if by == "TEXT_CHUNK" else len(calls) > 1
    monkeypatch.setattr(prompted, "checkpoint", lambda function, *args, **kwargs: function(*args))
    assert torch.equal(recomputed, task.gradient(low(device)))


@dry
def test_mixed_precision_with_a_loss_scale_gives_the_direction_of_float32(device):
    task = Task(make_clip(TINY_VIT), device)
    plain = sharpness_step(task.loss, task.ctx, rho=0.05, lam=1.0).gradient
    scaled = sharpness_step(lambda ctx: task.loss(ctx, low(device)), task.ctx, 0.05, 1.0, loss_scale=1024.0).gradient
    assert scaled.dtype == torch.float32 and cosine(scaled, plain) > 0.999
