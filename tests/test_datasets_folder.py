"""One's own images: folders, split files, class names; trained and tested end to end."""

import hashlib
import itertools
import json
import os
import random

import numpy as np
import pytest
from benchmark import Workplace
from PIL import Image
from zoo import build

import train
from datasets.care.check import check
from datasets.care.example import CLASSES, make_example
from datasets.cloth import CLOTH
from tlla.errors import InputError
from tlla.image_files import IMAGE_SUFFIXES
from tlla.predict.paths import find_images

COUNTS = {"train": {"ape": 5, "bear cub": 2, "zebra": 9}, "val": {"ape": 1, "zebra": 2}, "test": {"ape": 2, "zebra": 3}}

CONFIG = ("--dataset-config-file", "configs/datasets/image_folder.yaml")


def options(root, *pairs):
    """The DATASET node of a config."""
    keyed = [f"DATASET.{x}" if i % 2 == 0 else str(x) for i, x in enumerate(pairs)]
    argv = ["--trainer", "SAPT", "--root", str(root), "DATASET.NAME", "ImageFolder", *keyed]
    return train.build_cfg(train.parse_args(argv)).DATASET


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
    assert "nothing can be trained on it" in capsys.readouterr().out


def test_classnames_override_folders(root):
    (root / "classnames.txt").write_text("ape great ape\nbear cub\tÜber bear\n", encoding="utf-8-sig")
    assert build("ImageFolder", root).classnames == ["great ape", "Über bear", "zebra"]
    (root / "classnames.txt").write_text("lion big cat\n")
    with pytest.raises(InputError, match="says 'lion big cat', but each line must be a class folder"):
        build("ImageFolder", root)
    (root / "classnames.txt").write_text("ape zebra\n")
    with pytest.raises(InputError, match="more than one class named zebra: no prompt can tell them apart"):
        build("ImageFolder", root)
    (root / "classnames.txt").write_text("ape great ape\nape monkey\n")
    with pytest.raises(InputError, match="names the class folder 'ape' twice"):
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


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
TABLES = list(zip(ENCODINGS, itertools.cycle((",", ";", "\t")), itertools.cycle(("\n", "\r\n"))))


@pytest.mark.parametrize(("encoding", "delimiter", "end"), TABLES)
def test_a_table_of_any_spreadsheet_is_read(root, delimiter, encoding, end):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    rows = [("path", "class", "split"), ("train/ape/größe 1.JPG", "007; ü, 1e3", "train"), ("", "", ""),
            ("test/ape/0.png", "007; ü, 1e3", "test")]  # fmt: skip
    lines = [delimiter.join(f'"{x}"' if {",", ";"} & set(x) else x for x in row) for row in rows]
    (root / "split.csv").write_bytes((mark + end.join(lines) + end).encode(encoding))
    dataset = build("ImageFolder", root, "SPLIT_FILE", "split.csv")
    assert dataset.classnames == ["007; ü, 1e3"] and dataset.train_x[0].impath.endswith("größe 1.JPG")


def test_a_table_in_another_encoding_is_one_sentence(root):
    (root / "split.csv").write_bytes("path,class,split\na.png,größe,train\n".encode("cp1252"))
    with pytest.raises(InputError, match="split.csv is not a CSV file in UTF-8 or UTF-16"):
        build("ImageFolder", root, "SPLIT_FILE", "split.csv")


@pytest.mark.parametrize("file", ("classnames.txt", "mine.json"))
def test_other_texts_are_read_in_utf_16_too(root, file):
    rows = [["train/ape/0.png", 0, "größer ape"]]
    text = "ape\tgrößer ape\n" if file == "classnames.txt" else json.dumps({"train": rows, "test": rows})
    (root / file).write_text(text, encoding="utf-16")
    pairs = ("SPLIT_FILE", file) if file == "mine.json" else ()
    assert build("ImageFolder", root, *pairs).classnames[0] == "größer ape"


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    (
        (["a.png,ape,train", "a.png,ape,tset"], "path,class,split", "line 3: a path, a class and a split of"),
        (["a.png,,train"], "path,class,split", "line 2.* found path=a.png, class=, split=train"),
        (["a.png,ape,train,zebra"], "path,class,split,class", "more than one column named 'class'"),
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


def test_what_is_left_out_is_said_once(root, capsys):
    (root / "validation/ape").mkdir(parents=True)
    (root / "train/ape/raw").mkdir()
    (root / "train/loose.png").write_text("")
    build("ImageFolder", root)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert len(lines) == 1
    for part in (
        "7 .txt (train/ape/notes.txt ...)",
        "2 folder (validation ...)",
        "1 image (train/loose.png)",
        "7 hidden (",
    ):
        assert part in lines[0]


@pytest.mark.parametrize("suffix", ("HEIC", "jxl", "dng", "CR2", "svg"))
def test_images_that_cannot_be_decoded_are_named_by_every_reader(root, tmp_path, capsys, suffix):
    for i in range(3):
        (root / f"train/ape/phone {i}.{suffix}").write_bytes(b"\0\0\0 ftypheic" + bytes(99))
    dataset = build("ImageFolder", root)
    assert count(dataset.train_x)["ape"] == COUNTS["train"]["ape"] + 3
    assert f"3 images are named as this Pillow cannot decode: train/ape/phone 0.{suffix}" in capsys.readouterr().out
    findings = [f.text for f in check("ImageFolder", options(root)) if f.fault]
    assert len(findings) == 1 and f"3 of 27 images cannot be read: train/ape/phone 0.{suffix}" in findings[0]
    assert len([path for path in find_images([str(root / "train/ape")]) if path.endswith(suffix)]) == 3


def test_a_name_without_a_decoder_is_no_fault_if_the_content_has_one(root):
    (root / "train/ape/0.png").rename(root / "train/ape/0.heic")
    assert not [f.text for f in check("ImageFolder", options(root)) if f.fault]


def test_datasets_and_predict_list_the_same_images(root):
    for suffix in sorted(IMAGE_SUFFIXES):
        (root / f"train/ape/x{suffix.upper()}").write_bytes(b"x")
    (root / "train/ape/link.png").symlink_to("0.png")
    found = {d.impath for d in build("ImageFolder", root).train_x if "/ape/" in d.impath}
    assert found == set(find_images([str(root / "train/ape")])) and len(found) == 5 + 1 + len(IMAGE_SUFFIXES)


def test_check_accounts_for_every_entry(root):
    """Whatever lies in a class folder, its name or its kind and number are in what check says."""
    folder = root / "train/ape"
    kinds = {
        "1 hidden (train/ape/.DS_Store": (folder / ".DS_Store").touch,
        "1 .csv (train/ape/list.csv)": (folder / "list.csv").touch,
        "1 no suffix (train/ape/README)": (folder / "README").touch,
        "1 .mp4 (train/ape/film.mp4)": (folder / "film.mp4").touch,
        "1 pipe, socket or device (train/ape/pipe)": lambda: os.mkfifo(folder / "pipe"),
        "1 link to nothing (train/ape/gone)": lambda: (folder / "gone").symlink_to("nowhere"),
        "1 link to a folder that is listed elsewhere (train/ape/round)": lambda: (folder / "round").symlink_to(".."),
        "1 images that are not expected: train/ape/more/9.png": lambda: Image.new("RGB", (9, 9), 1).save(
            folder / "9.png"
        ),
        "1 empty folders: train/ape/void": (folder / "void").mkdir,
        "images are missing: train/ape/gone.png": lambda: (folder / "gone.png").symlink_to("nowhere"),
        "cannot be read: train/ape/empty.png (is empty)": (folder / "empty.png").touch,
    }
    for path in root.rglob("*"):
        if path.name in ("notes.txt", ".hidden.png"):
            path.unlink()
    for make in kinds.values():
        make()
    (folder / "more").mkdir()
    (folder / "9.png").rename(folder / "more/9.png")
    texts = "\n".join(finding.text for finding in check("ImageFolder", options(root)))
    for said in kinds:
        assert said in texts, (said, texts)


def test_check_finds_images_in_two_parts_under_two_classes_and_twice(root):
    assert not [f.text for f in check("ImageFolder", options(root), deep=True) if f.fault]
    write_csv(
        root,
        *(
            "train/ape/0.png,ape,train",
            "train/ape/0.png,ape,test",
            "val/ape/0.png,ape,val",
            "train/zebra/0.png,ape,test",
        ),
        *("train/zebra/0.png,zebra,train", "test/ape/0.png,ape,test", "test/ape/./0.png,ape,test"),
        *("train/zebra/3.bmp,zebra,train", "train/zebra/4.tiff,ape,train", "train/ape/copy.png,ape,test"),
    )
    (root / "train/zebra/4.tiff").unlink()
    (root / "train/zebra/4.tiff").symlink_to("3.bmp")
    (root / "train/ape/copy.png").write_bytes((root / "val/ape/0.png").read_bytes())
    pairs = options(root, "SPLIT_FILE", "split.csv")
    faults = [finding.text for finding in check("ImageFolder", pairs, deep=True) if finding.fault]
    for said in (
        "2 images are both in train and test: train/ape/0.png, train/zebra/0.png",
        "1 images are under two classes: train/zebra/0.png",
        "1 images are twice in one class of one part: test/ape/0.png = test/ape/./0.png",
        "1 images are links to one file, under two classes: train/zebra/3.bmp = train/zebra/4.tiff",
        "1 images of the same content are both in val and test: val/ape/0.png = train/ape/copy.png",
    ):
        assert said in faults, faults
