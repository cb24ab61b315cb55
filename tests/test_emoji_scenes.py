"""Scenes of the benchmark's emoji: the same pixels everywhere, drawn once, one ground for all styles."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from benchmark import CLASSES, make_benchmark
from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed
from PIL import Image

import datasets.emoji_scenes as scenes
import train
from datasets.scene_pictures import AREAS, GROUNDS, SIZE, Dice, compose_scene, outside
from tlla.errors import InputError

COUNTS = {"noto": {"train": 2, "val": 1, "test": 2}, "twemoji": {"test": 2}}


def disc(colour: tuple[int, int, int]) -> np.ndarray:
    """A drawing: a disc with a white hole, on white."""
    y, x = np.mgrid[:64, :64] - 32
    far = x * x + y * y
    picture = np.full((64, 64, 3), 255, dtype=np.uint8)
    picture[(far < 900) & (far > 100)] = colour
    return picture


def test_a_seed_gives_the_same_pixels_on_every_machine():
    digest = hashlib.sha256()
    for k in range(24):  # all grounds and shapes occur
        digest.update(compose_scene(disc((200, 30, 40)), f"seed {k}").tobytes())
    assert digest.hexdigest() == "c3f43c5b9a64ab64b0d0afff6339a3235541a9770a21d81a43f4d381e535cff6"


@pytest.mark.parametrize("ground", GROUNDS, ids=lambda ground: ground.__name__.strip("_"))
def test_every_ground_fills_the_picture_with_colours(ground):
    picture = ground(Dice("one"))
    assert picture.shape == (SIZE, SIZE, 3) and picture.min() >= 0 and picture.max() <= 255
    assert (picture != ground(Dice("two"))).any() and (picture == ground(Dice("one"))).all()


def test_the_ground_shows_around_a_drawing_and_not_through_its_holes():
    around = outside(disc((200, 30, 40)))
    assert around[0].all() and around[:, -1].all() and not around[32, 32] and not around[32, 10]


def test_two_drawings_of_one_seed_differ_only_where_the_emoji_stands():
    for k in range(12):
        differs = (compose_scene(disc((200, 30, 40)), f"{k}") != compose_scene(disc((30, 30, 220)), f"{k}")).any(axis=2)
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        high, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        share = max(high, wide) * 64 / 60  # the disc is 60 of its drawing's 64 pixels
        assert AREAS[0] * 0.8 <= 100 * share**2 / SIZE**2 <= AREAS[-1] * 1.1


def build(root: Path, name: str, *pairs: str):
    argv = ["--trainer", "SAPT", "--root", str(root), "DATASET.NAME", name, *pairs]
    set_random_seed(1)
    return build_dataset(train.build_cfg(train.parse_args(argv)))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TLLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmark.COUNTS", COUNTS)
    return make_benchmark(tmp_path / "data")


def place(item) -> tuple[str, ...]:
    """Style, part, class and file of a scene."""
    return Path(item.impath).parts[-4:]


def test_a_dataset_has_several_scenes_of_each_emoji_and_trains_on_the_source(root):
    dataset = build(root, "EmojiScenesTwemoji")
    assert dataset.classnames == list(CLASSES)
    for part, items, count in (("train", dataset.train_x, 2), ("val", dataset.val, 1), ("test", dataset.test, 2)):
        assert len({d.impath for d in items}) == len(items) == scenes.SCENES[part] * count * len(CLASSES)
        assert {place(d)[:2] for d in items} == {("twemoji" if part == "test" else "noto", part)}
        assert {Image.open(d.impath).size for d in items} == {(SIZE, SIZE)}
    assert all(Path(d.impath).is_relative_to(dataset.dataset_dir) for d in dataset.test)
    few = build(root, "EmojiScenes", "DATASET.NUM_SHOTS", "2")
    assert len(few.train_x) == 2 * len(CLASSES)


def test_scenes_of_two_styles_have_the_same_places_and_labels(root):
    source, shifted = (build(root, name).test for name in ("EmojiScenes", "EmojiScenesTwemoji"))
    assert [(place(d)[2:], d.label) for d in source] == [(place(d)[2:], d.label) for d in shifted]


def test_scenes_are_drawn_once_and_anew_when_the_drawings_change(root, capsys):
    first = build(root, "EmojiScenes")
    assert "Drawing" in capsys.readouterr().out
    assert build(root, "EmojiScenes").test[0].impath == first.test[0].impath
    assert "Drawing" not in capsys.readouterr().out
    Path(first.test[0].impath).unlink()  # an interrupted run: only what is missing is drawn
    build(root, "EmojiScenes")
    assert "Drawing 1 scenes (noto, test)" in capsys.readouterr().out
    index = json.loads((root / "emoji/index.json").read_text())
    Image.new("RGB", (48, 40), "red").save(root / "emoji" / index["items"]["noto"]["test"][0][0])
    assert build(root, "EmojiScenes").dataset_dir != first.dataset_dir


def test_a_cache_that_cannot_be_written_is_named(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLLA_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot write .*TLLA_CACHE"):
        build(root, "EmojiScenes")
    assert os.path.getsize(tmp_path / "file") == 0
