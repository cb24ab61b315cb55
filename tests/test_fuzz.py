"""The loaders of configs and checkpoints on what hypothesis makes up: an InputError, or something that can be used."""

import io
import math

import pytest
import torch
import yaml
from conftest import CLASSNAMES, TINY_VIT, make_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

import train
from tlla.backbones.weights import read_state_dict
from tlla.errors import InputError
from tlla.prompts.learner import PromptLearner
from tlla.prompts.saved import Prompt
from trainers.config.merge import all_keys

quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
fuzzed = settings(max_examples=20, derandomize=True, **quiet)

edits = st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)


def damaged(data: bytes, changes, cut: int) -> bytes:
    """Some bytes replaced, and the end cut off."""
    result = bytearray(data)
    for place, replacement in changes:
        place %= len(result)
        result[place : place + len(replacement)] = replacement
    return bytes(result[: len(result) - cut % len(result)] if cut else result)


# Configs

CONFIG = (train.HERE / "configs/trainers/SAPT/emoji.yaml").read_bytes()
KEYS = sorted(all_keys(train.build_cfg(train.parse_args(["--trainer", "SAPT", "DATASET.NAME", "Emoji"]))))
words = st.sampled_from(["SAPT", "Emoji", "val", "(32, 32)", "__import__('os')", "1e400", ".nan", "{}", "[1, 2"])
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
scalars = plain | st.dates() | st.binary(max_size=4) | words


def nested(leaves, keys):
    return st.recursive(leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(keys, x, max_size=3), max_leaves=6)


values = nested(scalars, scalars)


@st.composite
def trees(draw):
    """Settings under known keys, now and then under others, in nested mappings."""
    content = {}
    for key in draw(st.lists(st.sampled_from(KEYS) | st.text(max_size=6), max_size=4)):
        node, (*nodes, last) = content, key.split(".")
        for name in nodes:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                break
        else:
            node[last] = draw(values)
    return content


def build(text: bytes, pairs: list[str], path) -> CfgNode | None:
    """The config of a file and of pairs; None if that is refused in one sentence."""
    path.write_bytes(text)
    argv = ["--trainer", "SAPT", "--dataset-config-file", "configs/datasets/emoji.yaml", "--config-file", str(path)]
    args = train.parse_args(argv)
    args.opts = pairs
    try:
        return train.build_cfg(args)
    except InputError as error:
        assert len(str(error)) < 1500
        return None


def leaves(node):
    for value in node.values():
        yield from leaves(value) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)


def check(cfg: CfgNode | None) -> None:
    """What is accepted can be printed and has finite numbers; no value is missing."""
    values = [] if cfg is None else list(leaves(cfg))
    assert str(cfg) and all(value is not None for value in values)
    assert all(math.isfinite(value) for value in values if isinstance(value, float))


@fuzzed
@given(trees())
def test_settings_of_any_kind_are_merged_or_refused(path, content):
    check(build(yaml.safe_dump(content, allow_unicode=True).encode(), [], path))


@fuzzed
@given(st.lists(st.sampled_from(KEYS) | scalars.map(str) | st.text(max_size=12), max_size=6))
def test_pairs_of_any_kind_are_merged_or_refused(path, pairs):
    check(build(b"SEED: 1\n", pairs, path))


signs = st.text("{}[]&*!|>-:,#'\" \n\tabA1.%@`?\\", max_size=40).map(str.encode)


@fuzzed
@given(st.binary(max_size=60) | signs | st.builds(damaged, st.just(CONFIG), edits, st.just(0) | st.integers(0, 3000)))
def test_any_text_is_a_config_or_refused(path, text):
    check(build(text, [], path))


# Checkpoints and weights


@pytest.fixture(scope="module")
def learner():
    return PromptLearner(make_clip(TINY_VIT), CLASSNAMES, n_ctx=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed") / "file.yaml"


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def valid_files() -> dict[str, bytes]:
    """Weights, a checkpoint of ours, one with the objects that CoOp's hold, and one in torch's old format."""
    ctx = torch.nn.Parameter(torch.zeros(4, 64))
    optimizer = torch.optim.SGD([ctx], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    content = {"state_dict": {"ctx": ctx.data}, "epoch": 3}
    objects = {"scheduler": {"successor": scheduler}, "optimizer": optimizer.state_dict()}
    old = saved(content, _use_new_zipfile_serialization=False)
    weights = {"visual.proj": torch.zeros(3, 4), "logit_scale": torch.tensor(1.0)}
    return {"weights": saved(weights), "ours": saved(content), "coop": saved({**content, **objects}), "old": old}


FILES = valid_files()


def take(path, learner) -> None:
    """Loads, or is refused; a learner's context is whole in both cases."""
    try:
        prompt = Prompt.load(path)
        prompt.put_into(learner)
        assert prompt.epochs is None or isinstance(prompt.epochs, int)
    except InputError as error:
        assert str(path) in str(error) and len(str(error)) < 1500
    assert learner.ctx.shape == (4, 64) and learner.ctx.dtype == torch.float32 and learner.ctx.isfinite().all()


def weigh(path) -> None:
    """Reads weights, or is refused."""
    try:
        state = read_state_dict(path)
    except InputError as error:
        assert str(path) in str(error) and len(str(error)) < 1500
    else:
        assert state and all(isinstance(name, str) for name in state)
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


cuts = st.builds(damaged, st.sampled_from(list(FILES.values())), edits, st.just(0) | st.integers(0, 3000))


@fuzzed
@given(cuts | st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: FILES["ours"][:100] + data))
def test_any_bytes_are_read_or_refused(learner, path, data):
    path.write_bytes(data)
    take(path, learner)
    weigh(path)


kinds = [getattr(torch, kind) for kind in "float16 bfloat16 float32 float64 int8 int64 bool complex64".split()]
tensors = st.builds(
    lambda shape, kind, value: torch.full(shape, 0, dtype=kind) + torch.tensor(value).to(kind),
    st.sampled_from([(), (4,), (4, 64), (3, 64), (0, 64), (6, 4, 64), (1, 1, 4, 64)]),
    st.sampled_from(kinds),
    st.sampled_from([0.0, 1.0, 1e300, float("nan"), float("-inf")]),
)
keys = st.text(max_size=5) | st.integers()
anything = nested(plain | tensors, keys)
names = st.sampled_from(["ctx", "module.ctx", "token_prefix", "meta_net.x"]) | keys
states = st.dictionaries(names, tensors | anything, max_size=3)
more = {"epoch": anything, "trainer": st.dictionaries(st.just("prompt"), anything), "val_result": anything}


@fuzzed
@given(anything | states | st.fixed_dictionaries({"state_dict": states | anything}, optional=more))
def test_any_content_is_a_prompt_or_weights_or_refused(learner, path, content):
    path.write_bytes(saved(content))
    take(path, learner)
    weigh(path)
