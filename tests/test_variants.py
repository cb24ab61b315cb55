"""The sharpness-aware steps: closed forms on a quadratic, a naive loop, what a trainer keeps, and what is refused."""

import json

import pytest
import torch
from benchmark import CLASSES, Workplace
from test_training_matrix import Cell, kill

import train
from scripts.emoji import relatives as study
from scripts.emoji.study import FAMILIES
from tlla.errors import InputError
from tlla.prompts.saved import Prompt
from tlla.steps import VARIANTS, Task, momentum_of
from tlla.variants import parse_variant

RHO = 0.3
KEPT = {"fsam": ("mean",), "looksam": ("correction", "steps"), "random": ("steps",)}


class Quadratic:
    """l(p) = p' A p / 2, whose gradient is A p; it counts how often it is asked."""

    def __init__(self, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
        self.a = root @ root.T
        self.p = torch.randn(6, dtype=torch.float64, generator=generator)
        self.asked = 0

    def __call__(self, q):
        self.asked += 1
        return 0.5 * q @ self.a @ q

    def task(self, **more):
        return Task(self, self.p, RHO, **more)


def along(x):
    return x / x.norm()


def closed_form(name, a, p, momentum, eps):
    """The direction of a first step."""
    g = a @ p
    up = a @ (p + RHO * along(g))
    return {
        "sam": up,
        "asam": a @ (p + RHO * p * p * g / (p * g).norm()),
        "fsam": up,
        "gsam": up - 0.4 * (g - (g @ up) / (up @ up) * up),
        "looksam": up,
        "msam": a @ (p - RHO * along(momentum)),
        "random": a @ (p + eps),
    }[name]


def random_eps(step):
    generator = torch.Generator().manual_seed(5 * 1_000_003 + step)
    draw = torch.randn(6, generator=generator)
    return (RHO * along(draw)).double()


@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("scale", (1.0, 1024.0))
def test_a_quadratic_has_the_closed_form(name, scale):
    loss = Quadratic()
    momentum = torch.arange(1.0, 7.0, dtype=torch.float64)
    before = loss.p.clone()
    step, _ = parse_variant(name).step(loss.task(momentum=momentum, seed=5, loss_scale=scale), {})
    expected = closed_form(name, loss.a, loss.p, momentum, random_eps(0))
    torch.testing.assert_close(step.gradient / scale, expected, atol=1e-6, rtol=1e-6)
    assert step.finite and torch.equal(loss.p, before)
    assert loss.asked == (1 if name in ("msam", "random") else 2)
    assert step.sharpness.isnan() == (name in ("msam", "random"))


def test_what_steps_keep_has_the_closed_form():
    """The moving average; the correction for k steps; the next random direction."""
    first, second = Quadratic(0), Quadratic(1)
    g, h = first.a @ first.p, second.a @ second.p
    fsam = parse_variant("fsam(sigma=0.5,decay=0.8)")
    state = fsam.step(first.task(), {})[1]
    step, after = fsam.step(second.task(), state)
    torch.testing.assert_close(step.gradient, second.a @ (second.p + RHO * along(h - 0.5 * g)))
    torch.testing.assert_close(after["mean"], 0.8 * g + 0.2 * h)

    looksam = parse_variant("looksam(k=2,alpha=0.7)")
    state = looksam.step(first.task(), {})[1]
    up = first.a @ (first.p + RHO * along(g))
    v = along(up - (up @ g) / (g @ g) * g)
    second.asked = 0
    step, state = looksam.step(second.task(), state)
    torch.testing.assert_close(step.gradient, h + 0.7 * h.norm() * v)
    assert second.asked == 1 and step.sharpness.isnan()
    looksam.step(second.task(), state)
    assert second.asked == 3  # the third step looks at the perturbed prompt again

    state = parse_variant("random").step(first.task(seed=5), {})[1]
    step = parse_variant("random").step(first.task(seed=5), state)[0]
    torch.testing.assert_close(step.gradient, first.a @ (first.p + random_eps(1)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ("asam", "fsam", "gsam", "looksam"))
def test_lambda_weighs_the_plain_gradient_and_the_own_one(name):
    loss = Quadratic()
    g, own = loss.a @ loss.p, parse_variant(name).step(loss.task(), {})[0].gradient
    step = parse_variant(name).step(loss.task(lam=0.3), {})[0]
    torch.testing.assert_close(step.gradient, 0.7 * g + 0.3 * own)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_rho_0_or_lambda_0_is_plain_descent_in_one_pass(name):
    for rho, lam in ((0.0, 1.0), (RHO, 0.0)):
        loss = Quadratic()
        step, state = parse_variant(name).step(Task(loss, loss.p, rho, lam), {})
        assert torch.equal(step.gradient, loss.a @ loss.p) or torch.allclose(step.gradient, loss.a @ loss.p)
        assert loss.asked == 1 and not state


@pytest.mark.parametrize("text", ("gsam(alpha=0)", "looksam(k=1)", "fsam(sigma=0)"))
def test_a_setting_of_nothing_is_sam(text):
    loss = Quadratic()
    expected = parse_variant("sam").step(loss.task(), {})[0]
    steps, state = [], {}
    for _ in range(2):
        step, state = parse_variant(text).step(loss.task(), state)
        steps.append(step)
    for step in steps:
        torch.testing.assert_close(step.gradient, expected.gradient)
        torch.testing.assert_close(step.sharpness, expected.sharpness)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_nothing_to_climb_or_no_number_harms_no_prompt(name):
    flat = Task(lambda q: (q * 0).sum(), torch.zeros(3), RHO)
    step, _ = parse_variant(name).step(flat, {})
    assert step.finite and torch.equal(step.gradient, torch.zeros(3))
    step, _ = parse_variant(name).step(Task(lambda q: (q / 0).sum(), torch.ones(3), RHO), {})
    assert not step.finite


def naive(name, losses, p, lr, mu):
    """The loop as it is usually written: the parameter is moved, asked and moved back, in SGD with momentum."""
    p, buffer, mean, v = p.clone().requires_grad_(True), None, None, None
    for i, loss in enumerate(losses):

        def gradient(where, loss=loss):
            with torch.no_grad():
                p.add_(where)
            (found,) = torch.autograd.grad(loss(p), p)
            with torch.no_grad():
                p.sub_(where)
            return found

        here = torch.zeros_like(p).detach()
        g = gradient(here)
        if name == "fsam":
            noise = g if mean is None else g - mean
            mean = g if mean is None else 0.9 * mean + 0.1 * g
            d = gradient(RHO * along(noise))
        elif name == "gsam":
            d = gradient(RHO * along(g))
            d = d - 0.4 * (g - torch.cosine_similarity(g, d, dim=0) * g.norm() * along(d))
        elif name == "looksam" and i % 5 == 0:
            d = gradient(RHO * along(g))
            v = along(d - d.norm() * torch.cosine_similarity(g, d, dim=0) * along(g))
        elif name == "looksam":
            d = g + 0.2 * g.norm() * v
        elif name == "msam":
            d = g if buffer is None else gradient(-RHO * along(buffer))
        else:
            where = p.detach() ** 2 * g / (p.detach().abs() * g).norm() if name == "asam" else along(g)
            d = gradient(RHO * where)
        buffer = d.clone() if buffer is None else mu * buffer + d
        with torch.no_grad():
            p.sub_(lr * buffer)
    return p.detach()


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"random"}))
def test_many_steps_equal_a_naive_loop(name):
    losses = [Quadratic(seed) for seed in range(12)]
    p = Quadratic().p.clone().requires_grad_(True)
    optimizer, state, variant = torch.optim.SGD([p], lr=0.005, momentum=0.9), {}, parse_variant(name)
    for loss in losses:
        step, state = variant.step(Task(loss, p, RHO, momentum=momentum_of(optimizer, [p])), state)
        p.grad = step.gradient
        optimizer.step()
    assert (p.detach() - losses[0].p).norm() > 0.1  # it moved
    torch.testing.assert_close(p.detach(), naive(name, losses, losses[0].p, 0.005, 0.9), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smm", "did you mean 'sam'"),
        ("", "write a name, with settings as in 'gsam"),
        ("sam(rho=1)", "the variant sam has no settings"),
        ("gsam(beta=1)", "no setting 'beta'"),
        ("gsam(alpha=-1)", "alpha must be a finite number >= 0"),
        ("fsam(decay=1)", "decay must be below 1"),
        ("looksam(k=0)", "k must be at least 1"),
        ("looksam(k=1.5)", "k must be a whole number"),
    ],
)
def test_other_names_and_settings_are_refused(text, said):
    with pytest.raises(InputError, match=f"VARIANT .*{said}"):
        parse_variant(text)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_only_its_own_state_is_taken_from_a_checkpoint(name):
    loss = Quadratic()
    variant = parse_variant(name)
    state = variant.step(loss.task(), {})[1]
    assert tuple(state) == KEPT.get(name, ()) and dict(variant.restored(dict(state), loss.p)).keys() == state.keys()
    wrong = [None, {"other": 1}, {**state, "more": loss.p}]
    wrong += [{**state, key: value[:2]} for key, value in state.items() if torch.is_tensor(value)]
    wrong += [{**state, key: value * torch.nan} for key, value in state.items() if torch.is_tensor(value)]
    wrong += [{**state, key: "3"} for key in state]
    for bad in wrong:
        with pytest.raises(InputError, match=f"state of the step {name} is damaged"):
            variant.restored(bad, loss.p)


def test_the_study_gives_every_step_the_same_text_passes(tmp_path):
    trainings = {name: study.step_training(name, tmp_path, 1, FAMILIES["plain"]) for name in study.PASSES}
    assert set(trainings) == {study.COOP, *VARIANTS}
    passes = {name: job.config_values["OPTIM"]["MAX_EPOCH"] * study.PASSES[name] for name, job in trainings.items()}
    assert max(passes.values()) == pytest.approx(min(passes.values()), rel=0.02)
    assert trainings["gsam"].config_values["TRAINER"]["SAPT"]["VARIANT"] == "gsam"
    assert len({job.folder for job in trainings.values()}) == len(trainings)


# Training


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("variants"), CLASSES[:2])


class OfVariant(Cell):
    """Trains by one variant; LookSAM trains class-specific contexts."""

    def argv(self, output, *flags):
        csc = str("looksam" in self.final)
        variant = ("TRAINER.SAPT.VARIANT", self.final, "TRAINER.SAPT.CSC", csc, "OPTIM.MAX_EPOCH", "2")
        return self.place.argv(self.trainer, output, *flags, *variant)


@pytest.mark.parametrize("name", ("fsam", "looksam(k=3)", "msam", "random"))
def test_a_killed_training_goes_on_to_the_same_bits(place, name):
    cell = OfVariant(place, "SAPT", name)
    cell.run(cell.straight)
    kill(cell, f"{cell.straight}-killed")
    assert cell.found(f"{cell.straight}-killed") == cell.found(cell.straight)
    first, second = (Prompt.load(cell.folder(f"{cell.straight}{end}")).ctx for end in ("", "-killed"))
    assert torch.equal(first, second)
    assert cell.record(cell.straight)["training"]["name"] == f"SAPT-{name}"  # no seed of SAPT's row


def test_a_training_by_another_step_is_not_resumed(place, capfd):
    """Nor by a version that had none but sam."""
    cell = OfVariant(place, "SAPT", "sam")
    cell.run("older")
    (path,) = (cell.folder("older") / "prompt_learner").glob("model.pth.tar-2")
    checkpoint = torch.load(path, weights_only=True)
    assert (
        checkpoint["trainer"]["identity"].pop("TRAINER.SAPT.VARIANT") == "sam" and "step" not in checkpoint["trainer"]
    )
    torch.save(checkpoint, path)
    assert train.main(OfVariant(place, "SAPT", "gsam").argv("older")) == 2
    assert "TRAINER.SAPT.VARIANT" in capfd.readouterr().err
    cell.run("older")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("VARIANT", "sma"), "TRAINER.SAPT.VARIANT 'sma' is not a variant: did you mean"),
        (("VARIANT", "msam", "LAMBDA", "0.5"), "TRAINER.SAPT.LAMBDA must be 1 with VARIANT msam"),
    ],
)
def test_what_cannot_be_trained_is_refused(place, capfd, keys, said):
    pairs = [word if i % 2 else f"TRAINER.SAPT.{word}" for i, word in enumerate(keys)]
    assert train.main(place.argv("SAPT", "refused", *pairs)) == 2
    assert said in capfd.readouterr().err
    assert train.main(place.argv("SAPT", "refused", "TRAINER.SAPT.VARIANT", "msam", "OPTIM.MOMENTUM", "0.0")) == 2
    assert "OPTIM.MOMENTUM is 0" in capfd.readouterr().err


@pytest.mark.parametrize("variant", ("sam", "gsam"))
def test_coops_conditional_prompt_is_trained_by_a_sharpness_aware_step(place, variant):
    opts = ("OPTIM.MAX_EPOCH", "1", "TRAINER.COCOOP.VARIANT", variant)
    folder = f"cocoop-{variant}"
    assert train.main(place.argv("CoCoOp", folder, *opts, "TRAINER.COCOOP.RHO", "0.1")) == 0
    record = json.loads((place.folder / folder / "results.json").read_text())
    assert record["training"]["name"] == f"CoCoOp-{variant}"
    assert "sharpness" in (place.folder / folder / "log.txt").read_text()
