"""One's own images: folders, split files, class names; trained and tested end to end."""

import hashlib
import json
import os
import random

import numpy as np
import pytest
from benchmark import Workplace
from PIL import Image
from zoo import build

import train
from datasets.cloth import CLOTH
from datasets.example import CLASSES, make_example
from tlla.errors import InputError

COUNTS = {"train": {"ape": 5, "bear cub": 2, "zebra": 9}, "val": {"ape": 1, "zebra": 2}, "test": {"ape": 2, "zebra": 3}}
CONFIG = ("--dataset-config-file", "configs/datasets/image_folder.yaml")


@pytest.fixture
def root(tmp_path):
    """Uneven classes, one of them neither in val nor in test; every kind of image."""
    rng = random.Random(0)
    for part, classes in COUNTS.items():
        for name, count in classes.items():
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                suffix = ("png", "JPG", "webp", "bmp", "tiff", "gif", "jpeg")[i % 7]
                pixel = tuple(rng.randrange(256) for _ in range(3))
                Image.new("RGB", (9 + i, 8), pixel).save(folder / f"{'größe ' if i == 1 else ''}{i}.{suffix}")
            (folder / "notes.txt").write_text("not an image")
            (folder / ".hidden.png").write_text("")
    return tmp_path


def count(items):
    names = [d.classname for d in items]
    return {name: names.count(name) for name in sorted(set(names))}


def write_csv(root, *lines, header="path,class,split"):
    (root / "split.csv").write_text("\n".join([header, *lines]), encoding="utf-8-sig")


def test_folders_are_read(root, capsys):
    dataset = build("ImageFolder", root)
    lists = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    assert {part: count(items) for part, items in lists.items()} == COUNTS
    assert dataset.classnames == ["ape", "bear cub", "zebra"] and dataset.template == "a photo of a {}."
    assert {(d.label, d.classname) for d in dataset.test} == {(0, "ape"), (2, "zebra")}
    assert [d.impath for d in dataset.test] == sorted(d.impath for d in dataset.test)
    assert "3 classes, 16 train, 3 val and 5 test images" in capsys.readouterr().out


def test_shots_base_and_new_work_on_uneven_classes(root):
    dataset = build("ImageFolder", root, shots=4)
    assert count(dataset.train_x) == {"ape": 4, "bear cub": 2, "zebra": 4}
    assert (root / "split_fewshot/shot_4-seed_1.json").is_file()
    assert build("ImageFolder", root, "SUBSAMPLE_CLASSES", "base").classnames == ["ape", "bear cub"]
    assert build("ImageFolder", root, "SUBSAMPLE_CLASSES", "new").classnames == ["zebra"]
    assert [d.impath for d in build("ImageFolder", root, shots=4).train_x] == [d.impath for d in dataset.train_x]


def test_names_that_are_not_utf8_work(root, capsys):
    name = os.fsdecode(b"\xff\xfe.png")
    try:
        (root / "train/ape/0.png").rename(root / "train/ape" / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    draws = [[d.impath for d in build("ImageFolder", root, shots=8).train_x] for _ in range(2)]
    assert draws[0] == draws[1] and str(root / "train/ape" / name) in draws[0]
    os.remove(root / "train/ape" / name)
    (root / "split_fewshot/shot_8-seed_1.json").rename(root / "aside")
    write_csv(root, "train/ape/ä.png,ape,train", "train/zebra/0.png,ape,test")
    with pytest.raises(InputError, match="lacks 1 of 1 images: train/ape/ä.png"):
        build("ImageFolder", root, "SPLIT_FILE", "split.csv")


def test_no_val_and_no_train(root, capsys):
    (root / "val").rename(root / "unused")
    assert build("ImageFolder", root).val == []
    (root / "train").rename(root / "unused2")
    dataset = build("ImageFolder", root)
    assert dataset.classnames == ["ape", "zebra"] and len(dataset.test) == 5
    assert "nothing should be trained on it" in capsys.readouterr().out


def test_classnames_override_folders(root):
    (root / "classnames.txt").write_text("ape great ape\nbear cub\tÜber bear\n", encoding="utf-8-sig")
    assert build("ImageFolder", root).classnames == ["great ape", "Über bear", "zebra"]
    (root / "classnames.txt").write_text("lion big cat\n")
    with pytest.raises(InputError, match="says 'lion big cat', but each line must be a class folder"):
        build("ImageFolder", root)
    (root / "classnames.txt").write_text("ape zebra\n")
    with pytest.raises(InputError, match="more than one class named zebra: no prompt can tell them apart"):
        build("ImageFolder", root)


def test_a_json_split_is_read(root):
    rows = [["train/ape/0.png", 0, "an ape"], ["train/zebra/0.png", 1, "a zebra"]]
    (root / "mine.json").write_text(json.dumps({"train": rows, "test": rows[::-1]}))
    dataset = build("ImageFolder", root, "SPLIT_FILE", "mine.json")
    assert dataset.classnames == ["an ape", "a zebra"] and [d.label for d in dataset.test] == [1, 0]
    assert len(dataset.split_file_sha256) == 64 and build("ImageFolder", root).split_file_sha256 is None


def test_a_csv_split_is_read(root):
    lines = ["test/zebra/0.png,zebra,train", '"train/ape/größe 1.JPG",ape,train', "train/ape/0.png,ape,test"]
    write_csv(root, *lines)
    dataset = build("ImageFolder", root, "SPLIT_FILE", root / "split.csv")
    assert [(d.label, d.classname) for d in dataset.train_x] == [(1, "zebra"), (0, "ape")]
    assert [d.impath for d in dataset.test] == [str(root / "train/ape/0.png")]


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    (
        (["a.png,ape,train", "a.png,ape,tset"], "path,class,split", "line 3: a path, a class and a split of"),
        (["a.png,,train"], "path,class,split", "line 2"),
        (["a.png,ape,train"], "file,label,split", "columns named path,class,split"),
        (["train/ape/0.png,ape,train"], "path,class,split", "has no test images"),
        (["no.png,ape,train", "no.png,ape,test"], "path,class,split", "lacks 1 of 1 images: no.png"),
        (["no.png,ape,train", "no.png,zebra,test"], "path,class,split", "classes without train images: zebra"),
    ),
)
def test_a_bad_csv_is_one_sentence(root, lines, header, message):
    write_csv(root, *lines, header=header)
    with pytest.raises(InputError, match=message):
        build("ImageFolder", root, "SPLIT_FILE", "split.csv")


def test_other_bad_folders_are_one_sentence(root):
    with pytest.raises(InputError, match="SPLIT_FILE 'no.csv' must be a JSON or CSV file"):
        build("ImageFolder", root, "SPLIT_FILE", "no.csv")
    with pytest.raises(InputError, match=r"train must hold train/ and test/ .*found: ape, bear cub, zebra"):
        build("ImageFolder", root / "train")
    (root / "test/lion").mkdir()
    with pytest.raises(InputError, match="test has classes that train/ lacks: lion"):
        build("ImageFolder", root)
    (root / "train/lion").mkdir()
    with pytest.raises(InputError, match="train/lion holds no image; put some in it"):
        build("ImageFolder", root)
    rows = [["train/ape/0.png", 3, "an ape"]]
    (root / "mine.json").write_text(json.dumps({"train": rows, "test": rows}))
    with pytest.raises(InputError, match="1 classes with train images, but labels up to 3: 0, 1, 2"):
        build("ImageFolder", root, "SPLIT_FILE", "mine.json")


def test_a_folder_from_the_benchmark_trains_sapt_and_tests_tlla(tmp_path):
    place = Workplace(tmp_path / "work")
    counts = make_example(str(tmp_path / "mine"), "")
    assert {p.name for p in (tmp_path / "mine/train").iterdir()} == set(CLASSES)
    root = ("--root", str(tmp_path / "mine"), *CONFIG)
    pairs = ("DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2", "DATALOADER.TEST.BATCH_SIZE", "32")
    trained = place.run("SAPT", "sapt", *root, *pairs)
    assert trained["dataset"] == "ImageFolder" and trained["splits"]["test"]["total"] == counts["test"]
    tested = place.run("TLLA", "tlla", *root, "--eval-only", "--model-dir", str(place.folder / "sapt"), *pairs)
    assert tested["splits"]["test"]["total"] == counts["test"]
    place.run("ZeroshotCLIP", "zeroshot", *root, *pairs, "DATASET.TEMPLATE", "a drawing of a {}.")
    assert "'a drawing of a bird.'" in (place.folder / "zeroshot/log.txt").read_text()


def test_an_image_that_is_none_is_named(root, tmp_path, capsys):
    place = Workplace(tmp_path / "work")
    (root / "test/ape/0.png").write_text("not an image")
    assert train.main(place.argv("ZeroshotCLIP", "broken", "--root", str(root), *CONFIG)) == 2
    assert "test/ape/0.png" in capsys.readouterr().err.splitlines()[-1]
    assert (root / "test/ape/0.png").read_text() == "not an image"


def test_the_cloth_example_is_three_kinds_of_the_same_pixels_everywhere(tmp_path):
    counts = make_example(str(tmp_path / "cloth"), cloth=True)
    assert {p.name for p in (tmp_path / "cloth/train").iterdir()} == set(CLOTH) and counts["train"] == 16 * len(CLOTH)
    pixels = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "cloth").rglob("*.png"))]
    assert len(pixels) == counts.total() and len({p.tobytes() for p in pixels}) == len(pixels)
    assert (
        hashlib.sha256(b"".join(p.tobytes() for p in pixels)).hexdigest()
        == "0ccc234c1df65de2196a3355eb2e9771665e684a847db64dca48a4255c6e0680"
    )


def test_the_example_never_overwrites(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        make_example(str(tmp_path / "mine"))
    assert (tmp_path / "mine").read_text() == "mine"
