"""FPP: its steps against a naive loop over classes and draws with torch's own schedule; no image is learned from."""

import pytest
import torch
import torch.nn.functional as F
from benchmark import CLASSES
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import derive_seed, set_random_seed

from tlla.backbones.openai_package import clip
from tlla.clip import load_clip
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.training.flat_prompt import noisy_features

OPTIM = ("OPTIM.NAME", "adamw", "OPTIM.LR", "0.05", "OPTIM.WEIGHT_DECAY", "0.01", "OPTIM.WARMUP_EPOCH", "-1")
WEIGHT = 1 + 15 / len(CLASSES)


@pytest.fixture(scope="module")
def steps(place):
    """Context, gradient and loss of each step of a run, in order, and at the end what was learned."""
    found, kind = [], TRAINER_REGISTRY.get("FPP")
    apply = kind.apply_gradients

    def note(trainer, gradients, loss, *args):
        found.append((trainer.learned_vector().detach().clone(), *gradients, loss))
        apply(trainer, gradients, loss, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "apply_gradients", note)
        place.run("FPP", "fpp", *OPTIM)
    return [*found, place.context("fpp")]


def encode(model, text, ctx=None, noise=None):
    """The normalised feature of a text by the whole encoder; `ctx` replaces the tokens after SOS."""
    tokens = clip.tokenize(text)[0]
    x = model.token_embedding.weight[tokens]
    if ctx is not None:
        x = torch.cat([x[:1], ctx, x[1 + len(ctx) :]])
    x = x if noise is None else x + noise
    x = (x + model.positional_embedding)[:, None]
    return F.normalize(model.ln_final(model.transformer(x)[tokens.argmax(), 0]) @ model.text_projection, dim=0)


def naive_steps(model, ctx, epochs, steps, seed):
    ctx = torch.nn.Parameter(ctx.clone())
    longest = max(int(clip.tokenize(f"X X X {name}.").argmax()) + 1 for name in CLASSES)
    optimizer = torch.optim.AdamW([ctx], 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=1e-4)
    for epoch in range(epochs):
        set_random_seed(derive_seed(seed, "epoch", epoch))
        for _ in range(steps):
            on_ctx, on_tokens = 0.0707105 * torch.randn(4, *ctx.shape), 0.141421 * torch.randn(4, longest, ctx.shape[1])
            noise = F.pad(on_tokens, (0, 0, 0, 77 - longest))
            noise[:, 1 : 1 + len(ctx)] = on_ctx
            loss = 0.0
            for name in CLASSES:
                text = f"X X X {name}."
                feature = encode(model, text, ctx)
                loss += (feature - encode(model, f"a photo of a {name}.")).square().sum() / len(CLASSES)
                for delta in noise:
                    with torch.no_grad():
                        near = encode(model, text, ctx, delta)
                    loss -= WEIGHT * F.cosine_similarity(feature, near, dim=0) / len(CLASSES) / 4
            optimizer.zero_grad()
            loss.backward()
            yield ctx.detach().clone(), ctx.grad.clone(), loss.detach()
            optimizer.step()
            schedule.step()
    yield ctx.detach().clone()


def test_a_training_is_the_naive_loop(place, steps):
    model = load_clip(str(place.folder / "clip.pt"))
    naive = naive_steps(model, steps[0][0], epochs=3, steps=2, seed=1)
    torch.testing.assert_close(list(naive), steps, atol=2e-5, rtol=1e-4)


def test_the_target_is_a_template_or_a_prompt(place, capsys):
    """Begun from the target, there is nothing to learn without the flatness."""
    words = ("TRAINER.FPP.WEIGHT", "0", "TRAINER.FPP.CTX_INIT", "a photo of a", "OPTIM.MAX_EPOCH", "1")
    target = ("TRAINER.FPP.TEMPLATE", "an icon of a {}.", "MODEL.INIT_WEIGHTS", str(place.folder / "template"))
    for output, own in (("template", ()), ("prompt", target)):
        place.run("FPP", output, *OPTIM, *words, *own)
        assert "batch [2/2]" in (out := capsys.readouterr().out) and out.count("loss 0.0000 (0.0000) distance 0.0") == 2


def test_noise_leaves_the_model_as_it_was(tiny_clip):
    model = PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, ["dog", "cat"]))
    before = model.prompt_learner.embeddings
    with pytest.raises(RuntimeError):
        noisy_features(model, model.prompt_learner.ctx, torch.zeros(1, 4, 64), torch.zeros(1, 1, 63))
    assert model.prompt_learner.embeddings is before
