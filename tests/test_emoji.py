"""The embedded benchmark and its CLIP, as they are shipped."""

import argparse
import json
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
import torch
from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed
from PIL import Image

import train
from scripts.emoji import pretrain
from scripts.emoji.fetch import packages
from tlla.backbones.openai_package import build_model
from tlla.backbones.weights import read_state_dict
from tlla.clip import assets_dir, find_weights, image_size, load_clip
from tlla.errors import InputError

FOLDER = assets_dir() / "emoji"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
STYLES = {
    "Emoji": "noto",
    "EmojiTwemoji": "twemoji",
    "EmojiOpenMoji": "openmoji",
    "EmojiOpenMojiBlack": "openmoji_black",
    "EmojiFluentFlat": "fluent_flat",
    "EmojiFluentContrast": "fluent_contrast",
    "EmojiFluent3D": "fluent_3d",
}


def build(name: str, *pairs: str):
    cfg = train.build_cfg(train.parse_args(["--trainer", "SAPT", "DATASET.NAME", name, *pairs]))
    set_random_seed(1)
    return build_dataset(cfg)


def identity(path: str) -> str:
    """The emoji of an image: its code points, the file's name."""
    return Path(path).stem


def test_the_split_is_by_emoji_and_the_same_in_every_style():
    parts = {part: {identity(p) for p, _, _ in rows} for part, rows in INDEX["items"]["noto"].items()}
    assert not parts["train"] & parts["val"] and not parts["train"] & parts["test"] and not parts["val"] & parts["test"]
    for style in STYLES.values():  # in the same order, too: paired statistics over emoji depend on it
        rows = INDEX["items"][style]["test"]
        assert [(identity(p), label) for p, label, _ in rows] == [
            (identity(p), label) for p, label, _ in INDEX["items"]["noto"]["test"]
        ]


def test_every_image_is_listed_once_and_there_and_small():
    listed = [p for parts in INDEX["items"].values() for rows in parts.values() for p, _, _ in rows]
    on_disk = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.png")}
    assert len(listed) == len(set(listed)) and set(listed) == on_disk
    assert sum((FOLDER / p).stat().st_size for p in listed) <= 12_000_000
    for path in listed[::97]:
        assert Image.open(FOLDER / path).convert("RGB").size == (INDEX["size"],) * 2


@pytest.mark.parametrize(("name", "style"), STYLES.items())
def test_a_dataset_tests_its_style_and_trains_on_the_source(name, style):
    dataset = build(name)
    assert {Path(d.impath).relative_to(FOLDER).parts[0] for d in dataset.test} == {style}
    assert {Path(d.impath).relative_to(FOLDER).parts[0] for d in dataset.train_x + dataset.val} == {"noto"}
    assert dataset.classnames == [c["name"] for c in INDEX["classes"]]
    assert len(dataset.test) >= 400


def test_few_shots_are_drawn_as_coop_draws_them():
    dataset = build("Emoji", "DATASET.NUM_SHOTS", "4")
    train_counts, val_counts = (Counter(d.label for d in part) for part in (dataset.train_x, dataset.val))
    assert set(train_counts.values()) == {4} and max(val_counts.values()) == 4
    again = build("Emoji", "DATASET.NUM_SHOTS", "4")
    assert [d.impath for d in again.train_x] == [d.impath for d in dataset.train_x]


def test_base_and_new_classes_are_the_two_halves():
    base, new = (build("EmojiTwemoji", "DATASET.SUBSAMPLE_CLASSES", which) for which in ("base", "new"))
    assert base.classnames + new.classnames == [c["name"] for c in INDEX["classes"]]
    assert {d.label for d in new.test} == set(range(len(new.classnames)))


def test_attributions_name_every_style_and_package_with_its_author_and_licence():
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(f"`{style}/`" in text for style in STYLES.values())
    drawn = {name: entry for name, entry in packages().items() if entry["role"] != "metadata"}
    for name, entry in drawn.items():
        (row, *_) = (line for line in text.splitlines() if f"| `{name}@{entry['version']}` |" in line)
        for part in (entry["title"], f"[{entry['author']}]({entry['url']})", f"[{entry['licence']}]("):
            assert part in row, name


def test_emoji_clip_is_openais_layout_and_small():
    path = find_weights("EmojiCLIP")
    assert path.stat().st_size <= 16_000_000
    state = read_state_dict(path)
    assert state["token_embedding.weight"].shape[0] == 49408 and state["positional_embedding"].shape[0] == 77
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float16}
    assert image_size(build_model(dict(state))) == image_size(load_clip("EmojiCLIP")) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [({"args": {"lr": 0.1}}, "lr is 0.001 there and 0.1 here"), ({"tokens": ["b", "a"]}, "another vocabulary")],
)
def test_pre_training_resumes_under_its_own_settings_alone(change, message):
    args = {"work": Path("a"), "name": "run", "samples": 100, "every": 1, "lr": 0.001, "start": None}
    trainer = mock.Mock(args=argparse.Namespace(**args), step=0)
    trainer.vocabulary.tokens = ["a", "b"]
    state = pretrain.Trainer.state(trainer) | {"progress": (5, 2.0)}
    trainer.args.samples = 200
    pretrain.Trainer.resume(trainer, state)
    assert trainer.step == 5
    vars(trainer.args).update(change.get("args", {}))
    trainer.vocabulary.tokens = change.get("tokens", ["a", "b"])
    with pytest.raises(InputError, match=message):
        pretrain.Trainer.resume(trainer, state)
