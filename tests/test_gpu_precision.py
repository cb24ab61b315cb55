"""Every precision on every kind of CLIP: one step of training, or one batch of a test, beside float32."""

import pytest
import torch
import torch.nn.functional as F
from gpu import BACKBONES, cosine, harness, place_of

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)

NODES = {"SAPT": "SAPT", "CoCoOp": "COCOOP", "TLLA": "SAPT", "SAR": "PROMPT"}
PRECISIONS = ("amp", "bf16", "fp16")  # on the CPU amp and fp16 become fp32
LEAST = {"amp": 0.999, "fp16": 0.999, "bf16": 0.99}  # cosine with fp32; bf16 has 8 times coarser numbers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_of(tmp_path_factory)


def built(place, name, backbone, precision):
    pairs = (f"TRAINER.{NODES[name]}.PREC", precision, "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
    return place.built(name, f"{name}-{backbone}-{precision}", *place.with_backbone(backbone), *pairs)


def gradient_of_a_step(trainer):
    """The gradient of the first step that the loss scale allows, unscaled."""
    ctx, batch = trainer.model.prompt_learner.ctx, next(iter(trainer.train_loader_x))
    start = ctx.detach().clone()
    for _ in range(30):  # fp16's first scales may be too large
        trainer.forward_backward(batch)
        if not torch.equal(ctx, start):
            assert ctx.dtype == torch.float32 and ctx.isfinite().all()
            return ctx.grad
    raise AssertionError("no step was made")


@torch.no_grad()
def outcome(trainer):
    """Probabilities of six test images, and the method."""
    tester, collate = trainer.tester, harness("batches").collate
    trainer.set_model_mode("eval")
    tester.start()
    (entry,) = tester.entries()
    dataset = tester.dataset("test")
    batch, _ = collate([dataset[index] for index in range(0, 12, 2)])
    return tester.probabilities(tester.prepare(batch), entry), entry.method


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", ("SAPT", "CoCoOp"))
def test_a_step_of_training(place, device, name, backbone):
    expected = gradient_of_a_step(built(place, name, backbone, "fp32"))
    assert expected.norm() > 1e-4
    for precision in PRECISIONS:
        found = gradient_of_a_step(built(place, name, backbone, precision))
        assert found.dtype == torch.float32 and found.isfinite().all()
        assert cosine(found, expected) > LEAST[precision], precision
        assert found.norm() / expected.norm() == pytest.approx(1, abs=0.1)  # the scale is taken out


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", ("TLLA", "SAR"))
def test_a_batch_of_a_test(place, device, name, backbone):
    """Of TLLA the scores of the views are compared: where two are nearly equal, either may vote."""
    expected, plain = outcome(built(place, name, backbone, "fp32"))
    for precision in PRECISIONS:
        found, method = outcome(built(place, name, backbone, precision))
        assert found.dtype == torch.float32 and found.isfinite().all()
        torch.testing.assert_close(found.sum(dim=1), torch.ones_like(found[:, 0]), atol=1e-4, rtol=0)
        if name == "SAR":
            assert cosine(found, expected) > LEAST[precision], precision
            continue
        for part in ("score", "entropy") if precision == "bf16" else ("score", "entropy", "sharpness"):
            values, others = (getattr(one.last_scores, part) for one in (method, plain))
            # The sharpness is a small difference of entropies: bf16 leaves little of it.
            assert cosine(values, others) > (0.95 if part == "sharpness" else LEAST[precision]), (precision, part)


@pytest.fixture
def scaled(place, device):
    """A trainer with a loss scale, its batch, and a scale that overflows: on the CPU bf16 has float32's range."""
    trainer = built(place, "SAPT", "ViT", "amp" if device.type == "cuda" else "bf16")
    trainer.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**8)
    return trainer, next(iter(trainer.train_loader_x)), 2.0**30 if device.type == "cuda" else 2.0**127


def step_of(trainer, batch):
    """How far the context moves, and the scale before and after."""
    before, scale = trainer.prompt().detach().clone(), trainer.scaler.get_scale()
    trainer.forward_backward(batch)
    return (trainer.prompt().detach() - before).norm().item(), scale, trainer.scaler.get_scale()


@dry
def test_an_overflow_skips_the_step_and_halves_the_scale(scaled, device):
    trainer, batch, large = scaled
    moved, *scales = step_of(trainer, batch)
    assert moved > 0 and scales == [2.0**8, 2.0**8]
    trainer.scaler = torch.amp.GradScaler(device.type, init_scale=large)
    moved, *scales = step_of(trainer, batch)
    assert moved == 0 and scales == [large, large / 2]


@dry
def test_a_loss_that_is_not_finite_makes_no_step_though_its_gradient_is(scaled, monkeypatch):
    trainer, batch, _ = scaled
    entropy = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *args, **kwargs: entropy(*args, **kwargs) + torch.nan)
    moved, *scales = step_of(trainer, batch)
    assert moved == 0 and scales == [2.0**8, 2.0**7]
    monkeypatch.undo()
    assert step_of(trainer, batch)[0] > 0
