"""CoCoOp: its logits and steps against a naive implementation, its checkpoints, its runs."""

import pytest
import torch
import torch.nn.functional as F
from benchmark import Workplace
from conftest import CLASSNAMES, TINY_RESNET, make_clip
from dassl.engine import TRAINER_REGISTRY
from hostile import fails

import train
from tlla.backbones.causal import CausalTower
from tlla.backbones.openai_package import clip
from tlla.errors import InputError
from tlla.prompts.checkpoint import read_checkpoint
from tlla.prompts.conditional import ConditionalCLIP, ConditionalPromptLearner
from tlla.prompts.learner import PromptLearner
from tlla.prompts.saved import Prompt

NAMES = ("ctx", "meta_net.linear1.weight", "meta_net.linear1.bias", "meta_net.linear2.weight", "meta_net.linear2.bias")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights and one trained run of CoCoOp, shared by the tests that only read it."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.results = place.run("CoCoOp", "cocoop")
    return place


def saved(place, output, epoch=3):
    return read_checkpoint(place.folder / output / f"prompt_learner/model.pth.tar-{epoch}").state


def naive_logits(model, classnames, parameters, images):
    """Image by image and class by class through CLIP's own text tower, all 77 tokens, the net written out."""
    ctx, w1, b1, w2, b2 = parameters
    rows = []
    for image in images:
        z = model.encode_image(image[None])[0]
        z = z / z.norm()
        shifted = ctx + (w2 @ torch.clamp(w1 @ z + b1, min=0) + b2)
        row = []
        for name in classnames:
            tokens = clip.tokenize(" ".join(["X"] * len(ctx)) + " " + name.replace("_", " ") + ".")
            x = model.token_embedding(tokens)[0]
            x = torch.cat([x[:1], shifted, x[1 + len(ctx) :]]) + model.positional_embedding
            x = model.ln_final(model.transformer(x[:, None]))[tokens.argmax(), 0] @ model.text_projection
            row.append(model.logit_scale.exp() * z @ (x / x.norm()))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("arch", ("vit", "resnet"))
def test_logits_and_gradients_equal_a_loop_over_images_and_classes(tiny_clip, arch):
    model = tiny_clip if arch == "vit" else make_clip(TINY_RESNET)
    learner = ConditionalPromptLearner(model, CLASSNAMES, n_ctx=4)
    with torch.no_grad():
        for parameter in learner.meta_net.parameters():
            parameter.normal_()  # as it is drawn, the net hardly depends on the image
        learner.meta_net.linear1.bias.fill_(3.0)  # its two hidden units are alive
    prompted = ConditionalCLIP(model, learner, text_chunk=5)
    images = torch.randn(3, 3, 32, 32) * torch.tensor([0.1, 1.0, 9.0])[:, None, None, None]
    ours, naive = prompted(images), naive_logits(model, CLASSNAMES, list(learner.parameters()), images)
    torch.testing.assert_close(ours, naive, atol=2e-5, rtol=1e-4)
    assert (ours[0] - ours[2]).abs().max() > 0.02  # the images do differ
    gradients = [torch.autograd.grad(x[:, 1].sum() - x[:, 0].sum(), learner.parameters()) for x in (ours, naive)]
    for name, own, expected in zip(NAMES, *gradients, strict=True):
        assert (own - expected).norm() < 1e-3 * expected.norm(), name


def test_the_state_is_named_as_coop_names_it(tiny_clip):
    learner = ConditionalPromptLearner(tiny_clip, CLASSNAMES, ctx_init="a photo of a")
    assert tuple(learner.state_dict()) == NAMES == tuple(name for name, _ in learner.named_parameters())
    assert [tuple(v.shape) for v in learner.state_dict().values()] == [(4, 64), (2, 32), (2,), (64, 2), (64,)]
    assert torch.equal(learner.ctx, PromptLearner(tiny_clip, CLASSNAMES, ctx_init="a photo of a").ctx)


@pytest.fixture
def built(place):
    """A CoCoOp trainer in front of its first step, and a batch."""
    cfg = train.build_cfg(train.parse_args(place.argv("CoCoOp", "built", "OPTIM.WARMUP_EPOCH", "0")))
    trainer = train.build_trainer(cfg)
    trainer.batch_idx, trainer.num_batches = 0, 2
    return trainer, next(iter(trainer.train_loader_x))


def test_a_step_is_sgd_on_the_cross_entropy(built):
    trainer, batch = built
    learner = trainer.model.prompt_learner
    before = [p.detach().clone().requires_grad_() for p in learner.parameters()]
    names = trainer.dm.dataset.classnames
    loss = F.cross_entropy(naive_logits(trainer.clip_model, names, before, batch["img"]), batch["label"])
    summary = trainer.forward_backward(batch)
    assert summary["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name, own, old, gradient in zip(
        NAMES, learner.parameters(), before, torch.autograd.grad(loss, before), strict=True
    ):
        step = -0.1 * (gradient + 5e-4 * old)  # the first step: momentum has nothing to add
        assert (own - old - step).norm() < 2e-3 * step.norm() + 1e-7, name


def test_a_loss_scale_changes_no_step_and_an_overflow_skips_it(built):
    trainer, batch = built
    start = trainer.prompt().detach().clone()
    ends = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=2.0**16), None):
        trainer.scaler = scaler
        torch.nn.utils.vector_to_parameters(start.clone(), trainer.model.prompt_learner.parameters())
        trainer.optim.state.clear()
        trainer.forward_backward(batch)
        ends.append(trainer.prompt().detach().clone())
    assert not torch.equal(ends[0], start)
    torch.testing.assert_close(ends[0], ends[1], atol=1e-8, rtol=1e-4)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    trainer.model.logits = lambda images, text: torch.einsum("be,bke->bk", images, text) * float("inf")
    trainer.forward_backward(batch)
    assert torch.equal(trainer.prompt(), ends[1]) and trainer.scaler.get_scale() == 1.0
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1"):
        trainer.forward_backward(batch)
    assert torch.equal(trainer.prompt(), ends[1])


@pytest.mark.parametrize("chunk", (1, 3, 7))
def test_a_test_encodes_no_more_prompts_at_once_than_allowed(built, monkeypatch, chunk):
    trainer, batch = built
    whole = trainer.model_inference(batch["img"])
    sizes, images = [], []
    suffix, encode_text = CausalTower.suffix, trainer.model.encode_text
    watched = lambda tower, x, *rest: sizes.append(x.shape[0] * x.shape[1]) or suffix(tower, x, *rest)  # noqa: E731
    monkeypatch.setattr(CausalTower, "suffix", watched)
    trainer.model.encode_text = lambda ctx: images.append(len(ctx)) or encode_text(ctx)
    trainer.model.text_chunk = chunk
    torch.testing.assert_close(trainer.model_inference(batch["img"]), whole, atol=1e-5, rtol=1e-5)
    assert max(sizes) <= chunk and sum(sizes) == len(batch["img"]) * 3
    assert max(images) == max(1, chunk // 3)  # nor are more class features kept


def test_training_moves_context_and_net_and_lowers_the_loss(place):
    trained = saved(place, "cocoop")
    assert tuple(trained) == NAMES
    place.run("CoCoOp", "still", "OPTIM.LR", "1e-12", "OPTIM.WARMUP_CONS_LR", "1e-12")
    untrained = saved(place, "still")
    assert not any(torch.equal(trained[name], untrained[name]) for name in NAMES)
    losses = [
        [float(line.split(" loss ")[1].split()[0]) for line in text.splitlines() if " loss " in line]
        for text in ((place.folder / output / "log.txt").read_text() for output in ("still", "cocoop"))
    ]
    assert sum(losses[1][-3:]) < 0.95 * sum(losses[0][-3:])


def test_eval_only_repeats_the_test_whatever_the_batch(place):
    loaded = ("--eval-only", "--model-dir", str(place.folder / "cocoop"))
    again = place.run("CoCoOp", "again", *loaded)
    assert again["splits"]["test"]["prompt_sha256"] == place.results["splits"]["test"]["prompt_sha256"]
    assert place.predictions("again") == place.predictions("cocoop")
    assert again["loaded_from"]["epoch"] == 3
    single = place.run("CoCoOp", "single", *loaded, "DATALOADER.TEST.BATCH_SIZE", "1")
    assert single["splits"]["test"]["accuracy"] == again["splits"]["test"]["accuracy"]
    untrained = place.run("CoCoOp", "initial", "--eval-only")
    assert untrained["splits"]["test"]["prompt_sha256"] != again["splits"]["test"]["prompt_sha256"]


def test_a_stopped_run_resumes_to_the_same_weights(place, monkeypatch):
    cocoop = TRAINER_REGISTRY.get("CoCoOp")  # of whichever name trainers was imported under last
    after_epoch = cocoop.after_epoch

    def stop(trainer):
        after_epoch(trainer)
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cocoop, "after_epoch", stop)
        assert train.main(place.argv("CoCoOp", "stopped")) == 130
    assert not (place.folder / "stopped/results.json").exists()
    place.run("CoCoOp", "stopped")
    assert "epoch [1/3]" not in (place.folder / "stopped/log.txt").read_text()
    for name, value in saved(place, "cocoop").items():
        assert torch.equal(saved(place, "stopped")[name], value), name
    assert place.predictions("stopped") == place.predictions("cocoop")


def test_initial_weights_can_come_from_a_run(place):
    file = place.folder / "cocoop/prompt_learner/model.pth.tar-3"
    results = place.run("CoCoOp", "init", "--eval-only", "MODEL.INIT_WEIGHTS", str(file))
    assert results["splits"]["test"]["accuracy"] == place.results["splits"]["test"]["accuracy"]
    assert place.predictions("init") == place.predictions("cocoop")


def test_bf16_trains_float32_weights(place):
    place.run("CoCoOp", "bf16", "TRAINER.COCOOP.PREC", "bf16")
    state = saved(place, "bf16")
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in state.values())
    assert not torch.equal(state["ctx"], saved(place, "cocoop")["ctx"])  # it did compute in another precision


def test_a_file_of_coops_own_code_is_taken(tiny_clip, tmp_path):
    """With the class tokens, in fp16, and with a scheduler object, as its warm-up scheduler leaves one."""
    source = ConditionalPromptLearner(tiny_clip, CLASSNAMES)
    state = {name: value.half() for name, value in source.state_dict().items()}
    tokens = {"token_prefix": torch.zeros(9, 1, 64), "token_suffix": torch.zeros(9, 72, 64)}
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1)
    scheduler = {"successor": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}
    torch.save({"state_dict": tokens | state, "epoch": 10, "scheduler": scheduler}, tmp_path / "m")
    learner = ConditionalPromptLearner(tiny_clip, CLASSNAMES)
    prompt = Prompt.load(tmp_path / "m")
    prompt.put_into(learner)
    assert prompt.epochs == 10
    for name, value in learner.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, state[name].float())


@pytest.mark.parametrize(
    ("change", "both_sides"),
    [
        ({"meta_net.linear1.weight": torch.zeros(64, 1024)}, r"linear1.weight of shape \(64, 1024\), but .* \(2, 32\)"),
        ({"ctx": torch.zeros(16, 64)}, "N_CTX 16, width 64, but .* N_CTX 4, width 64"),
        ({"meta_net.linear2.bias": torch.full((64,), float("inf"))}, "'meta_net.linear2.bias' in .* not finite"),
        ({"meta_net.linear2.bias": 1.0}, "holds float as 'meta_net.linear2.bias', expected a tensor"),
        ({"meta_net.linear3.bias": torch.zeros(2)}, r"linear3.bias'\], expected \['ctx', 'meta_net.linear1.weight'"),
    ],
)
def test_a_mismatch_names_both_sides_and_changes_nothing(tiny_clip, tmp_path, change, both_sides):
    learner = ConditionalPromptLearner(tiny_clip, CLASSNAMES)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    torch.save({"state_dict": {name: v + 1 for name, v in before.items()} | change}, tmp_path / "m")
    with pytest.raises(InputError, match=both_sides):
        Prompt.load(tmp_path / "m").put_into(learner)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_coops_and_cocoops_runs_are_not_mistaken_for_each_other(place, capfd):
    place.run("CoOp", "coop")
    for trainer, run, parts in (
        ("CoCoOp", "coop", ("holds ['ctx'], expected ['ctx', 'meta_net.linear1.weight'", "which has no meta-net")),
        ("CoOp", "cocoop", ("('ctx') alone", "meta_net.linear2.bias", "this is CoCoOp's")),
    ):
        load = ("--eval-only", "--model-dir", str(place.folder / run))
        message = fails(capfd, place.argv(trainer, "mistaken", *load))
        assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("TRAINER.COCOOP.PREC", "int8"), "TRAINER.COCOOP.PREC must be one of"),
        (("TRAINER.COCOOP.N_CTX", "0"), "TRAINER.COCOOP.N_CTX must be at least 1"),
        (("TRAINER.COCOOP.CSC", "True"), "unknown config key TRAINER.COCOOP.CSC"),
    ],
)
def test_wrong_settings_are_named(place, capfd, more, part):
    assert part in fails(capfd, place.argv("CoCoOp", "wrong", *more))


def test_a_diverging_run_stops_and_says_where(place, capfd):
    message = fails(capfd, place.argv("CoCoOp", "diverges", "OPTIM.LR", "1e38"), code=1)
    for part in ("not finite at epoch 2, batch", "loss nan", "lr 1.00e+38"):
        assert part in message
