"""Learned prompts on disk: taken strictly, read safely, ours and CoOp's own files alike."""

import pytest
import torch
from conftest import CLASSNAMES, TINY_VIT, make_clip
from test_clip import RunsCode

from tlla.errors import InputError
from tlla.fingerprint import tensor_sha256
from tlla.prompts.checkpoint import find_checkpoint, read_checkpoint
from tlla.prompts.choose import make_classifier
from tlla.prompts.info import PromptInfo
from tlla.prompts.learner import PromptLearner
from tlla.prompts.saved import Prompt
from tlla.training.cache_model import Cache, load_cache


@pytest.fixture
def learner(tiny_clip):
    return PromptLearner(tiny_clip, CLASSNAMES, n_ctx=4)


def save(path, state_dict, **entries):
    torch.save({"state_dict": state_dict, "epoch": 3, **entries}, path)
    return path


def load(path, learner):
    prompt = Prompt.load(path)
    prompt.put_into(learner)
    return prompt


def test_exactly_the_context_is_taken(learner, tmp_path):
    ctx = torch.randn(4, 64)
    path = save(
        tmp_path / "m", {"ctx": ctx, "token_prefix": torch.zeros(9, 1, 64), "token_suffix": torch.zeros(9, 72, 64)}
    )
    assert load(path, learner).epochs == 3
    assert torch.equal(learner.ctx.data, ctx)


def test_a_file_of_dataparallel_and_half_precision_is_taken(learner, tmp_path):
    ctx = torch.randn(4, 64).half()
    load(save(tmp_path / "m", {"module.ctx": ctx}), learner)
    assert torch.equal(learner.ctx.data, ctx.float()) and learner.ctx.dtype == torch.float32


def test_a_coop_file_with_scheduler_and_optimizer_objects_is_read_without_them(learner, tmp_path):
    """The layout that CoOp's released files have: the warm-up scheduler's state holds a scheduler object."""
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.002, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    state = {"successor": scheduler, "last_epoch": 49}
    path = save(
        tmp_path / "m", learner.state_dict(), optimizer=optimizer.state_dict(), scheduler=state, val_result=None
    )
    with pytest.raises(Exception, match="weights_only|Weights only"):
        torch.load(path, weights_only=True)
    assert torch.equal(read_checkpoint(path).state["ctx"], learner.ctx.data)


@pytest.mark.parametrize(
    ("ctx", "both_sides"),
    [
        (torch.zeros(16, 64), r"N_CTX 16, width 64, but .* N_CTX 4, width 64"),
        (torch.zeros(4, 512), r"N_CTX 4, width 512, but .* N_CTX 4, width 64"),
        (torch.zeros(6, 4, 64), r"class-specific \(CSC\) context for 6 classes.*but .*one shared context"),
        (torch.full((4, 64), float("nan")), "not finite"),
    ],
)
def test_a_mismatch_names_both_sides(learner, tmp_path, ctx, both_sides):
    before = learner.ctx.data.clone()
    with pytest.raises(InputError, match=both_sides):
        load(save(tmp_path / "m", {"ctx": ctx}), learner)
    assert torch.equal(learner.ctx.data, before)


def test_other_vectors_are_refused(learner, tmp_path):
    with pytest.raises(InputError, match=r"holds \['ctx', 'meta_net.weight'\], expected the context vectors"):
        load(save(tmp_path / "m", {"ctx": torch.zeros(4, 64), "meta_net.weight": torch.zeros(2)}), learner)
    with pytest.raises(InputError, match="holds nothing"):
        load(save(tmp_path / "n", {}), learner)


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path):
    for i, payload in enumerate(({"ctx": RunsCode(tmp_path / "hacked")}, RunsCode(tmp_path / "hacked"))):
        with pytest.raises(InputError, match=r"is refused: it asks for posix.mkdir"):
            read_checkpoint(save(tmp_path / f"evil{i}", payload))
    assert not (tmp_path / "hacked").exists()


def test_damaged_and_foreign_files_are_named(learner, tmp_path):
    whole = save(tmp_path / "whole", learner.state_dict())
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello")
    torch.save([1], tmp_path / "list")
    torch.save({"weights": 1}, tmp_path / "keys")
    for name in ("cut", "empty", "text", "list", "keys", "absent"):
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)


def test_the_newest_epoch_is_the_default_and_the_present_ones_are_listed(tmp_path):
    for epoch in (2, 10, 9):
        (tmp_path / f"model.pth.tar-{epoch}").touch()
    (tmp_path / "model.pth.tar-10.tmp").touch()
    assert find_checkpoint(tmp_path).name == "model.pth.tar-10"
    assert find_checkpoint(tmp_path, 2).name == "model.pth.tar-2"
    with pytest.raises(InputError, match=r"no epoch 50 in .*, only \[2, 9, 10\]"):
        find_checkpoint(tmp_path, 50)
    with pytest.raises(InputError, match="no checkpoint"):
        find_checkpoint(tmp_path / "elsewhere")


def test_the_fingerprint_is_of_the_values():
    values = torch.randn(4, 8)
    assert tensor_sha256(values) == tensor_sha256(values.double().t().contiguous().t()) != tensor_sha256(values + 1)


# What is kept by class, by each way that it is read: the file or object of CLASSNAMES, and what a reading for other
# class names gives of each class.


def class_contexts(model):
    """Class-specific contexts of which each class's is the number of its place, and what is known of them."""
    learner = PromptLearner(model, CLASSNAMES, n_ctx=2, csc=True)
    return torch.arange(6.0)[:, None, None].expand(6, 2, 64).contiguous(), PromptInfo.of(learner, "tiny")


def by_put_into(model, names, tmp_path):
    ctx, info = class_contexts(model)
    path = save(tmp_path / "m", {"ctx": ctx}, trainer={"prompt": info.as_entry()})
    learner = PromptLearner(model, names, n_ctx=2, csc=True)
    load(path, learner)
    return learner.ctx[:, 0, 0]


def by_file(model, names, tmp_path):
    ctx, info = class_contexts(model)
    path = save(tmp_path / "m", {"ctx": ctx}, trainer={"prompt": info.as_entry()})
    return make_classifier(model, names, path).model.prompt_learner.ctx[:, 0, 0]


def by_object(model, names, tmp_path):
    return make_classifier(model, names, Prompt(*class_contexts(model))).model.prompt_learner.ctx[:, 0, 0]


def by_set_classes(model, names, tmp_path):
    learner = PromptLearner(model, CLASSNAMES, n_ctx=2, csc=True)
    learner.ctx.data.copy_(class_contexts(model)[0])
    learner.set_classes(names)
    return learner.ctx[:, 0, 0]


def by_cache(model, names, tmp_path):
    made = Cache(6, 32, CLASSNAMES, 1.0, 1.0)
    made.fill(torch.ones(6, 32), torch.arange(6))
    state = made.state_dict()
    cache = Cache(6, 32, names, 1.0, 1.0)
    load_cache(read_checkpoint(save(tmp_path / "m", state)), cache, model)
    return cache.values.t() @ torch.arange(6.0)  # of each class, which of the cached images is its own


READERS = (by_put_into, by_file, by_object, by_set_classes, by_cache)
many = pytest.mark.parametrize("read", READERS)


@many
def test_what_is_kept_by_class_is_sorted_by_the_classes_names(tiny_clip, tmp_path, read):
    order = [3, 0, 5, 1, 4, 2]
    names = [CLASSNAMES[i].replace("golden_", "golden ") for i in order]
    assert read(tiny_clip, names, tmp_path).tolist() == order
    assert read(tiny_clip, CLASSNAMES, tmp_path).tolist() == list(range(6))


@many
@pytest.mark.parametrize("other", ("cat", CLASSNAMES[0]))
def test_what_is_kept_by_class_serves_no_other_classes(tiny_clip, tmp_path, read, other):
    """As many names, one of which is another one, or one of which comes twice."""
    with pytest.raises(InputError, match=r"is for 6 classes \(.*T-shirt.*\), but this run has 6|share one prompt"):
        read(tiny_clip, [other if name == "T-shirt" else name for name in CLASSNAMES], tmp_path)


def test_a_class_that_comes_twice_stays_in_its_place(tiny_clip):
    names = ["crane", "dog", "crane"]  # ImageNet's bird and machine
    learner = PromptLearner(tiny_clip, names, n_ctx=2, csc=True, on_shared=print)
    before = learner.ctx.data.clone()
    learner.set_classes(names)
    assert torch.equal(learner.ctx.data, before)
    with pytest.raises(InputError, match="is for 3 classes"):
        learner.set_classes(["crane", "crane", "dog"])


def test_class_contexts_of_unknown_classes_are_taken_with_a_word(tiny_clip, tmp_path):
    ctx, _ = class_contexts(tiny_clip)
    learner = PromptLearner(tiny_clip, list("abcdef"), n_ctx=2, csc=True)
    with pytest.warns(UserWarning, match="does not say for which CLIP and classes it was learned"):
        load(save(tmp_path / "m", {"ctx": ctx}), learner)
    assert torch.equal(learner.ctx.data, ctx)


def test_a_cache_of_another_clip_is_refused(tiny_clip, tmp_path):
    cache = Cache(6, 32, CLASSNAMES, 1.0, 1.0)
    entry = PromptInfo.of(PromptLearner(tiny_clip, CLASSNAMES), "tiny").as_entry()
    path = save(tmp_path / "m", cache.state_dict(), trainer={"prompt": entry})
    load_cache(read_checkpoint(path), cache, tiny_clip)
    with pytest.raises(InputError, match="was learned for the backbone 'tiny', but the CLIP in use has other weights"):
        load_cache(read_checkpoint(path), cache, make_clip(TINY_VIT, seed=1))
