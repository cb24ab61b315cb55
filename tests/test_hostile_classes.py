"""Class lists and split files that are odd, huge or broken: the right result, or one sentence that names the class."""

import json
import os

import pytest
import torch
from conftest import TINY_VIT, make_clip
from hostile import FOLDER, accepted, bounded, refused
from PIL import Image

from tlla.backbones.openai_package import clip


@pytest.fixture
def root(tmp_path):
    for name in (0, 1, 2, "train"):
        Image.effect_noise((40, 40), 90).convert("RGB").save(tmp_path / f"{name}.png")
    return tmp_path


def flags(root, *pairs):
    return (*FOLDER, "--root", str(root), *pairs)


def write_split(root, names) -> tuple[str, str]:
    """A split with these classes, each of one train image; three test images of the first one."""
    rows = [["train.png", label, name] for label, name in enumerate(names)]
    test = [[f"{i}.png", 0, name] for i in range(3) for name in names[:1]]
    (root / "split.json").write_text(json.dumps({"train": rows, "test": test}))
    return "DATASET.SPLIT_FILE", "split.json"


def openai_predictions(root, names) -> list[int]:
    """By OpenAI's own code, class by class."""
    model = make_clip(TINY_VIT)
    with torch.no_grad():
        text = [model.encode_text(clip.tokenize(f"a photo of a {name}."))[0] for name in names]
        text = torch.nn.functional.normalize(torch.stack(text), dim=-1)
        resize = clip._transform(32)
        images = torch.stack([resize(Image.open(root / f"{i}.png")) for i in range(3)])
        return (torch.nn.functional.normalize(model.encode_image(images), dim=-1) @ text.t()).argmax(dim=1).tolist()


def predicted(place, output) -> list[int]:
    return [int(row["prediction"]) for row in place.rows(output)]


ODD = {
    "one": ["dog"],
    "emoji": ["🐶", "🏳️‍🌈", "👩🏽‍🚀 astronaut", "dog"],
    "right-to-left": ["كلب", "שועל", "\u202edog\u202c", "cat"],
    "other-scripts": ["犬", "кошка", "Ωmega", "ｆｕｌｌ ｗｉｄｔｈ", "naïve café"],
    "braces": ["{}", "{0}", "{x!r}", "100 % {", "dog"],
    "punctuation": ["...", "'s", "a/b\\c", "<b>", "&amp;", "$HOME", "-rf"],
    "line-breaks": ["new\nline", "tab\tbed", "dog"],
    "a-null-byte": ["nu\0ll", "dog"],
    "special-tokens": ["<|endoftext|>", "<|startoftext|> dog", "cat"],
    "numbers": ["1e400", "NaN", "None", "-1"],
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_names_are_read_as_openais_code_reads_them(place, root, kind):
    more = flags(root, *write_split(root, ODD[kind]))
    place.run("ZeroshotCLIP", "odd", *more)
    assert predicted(place, "odd") == openai_predictions(root, ODD[kind])
    if kind in ("one", "emoji", "braces", "a-null-byte"):  # and are trained on
        results = place.run("TLLA", f"trained_{kind}", *more, "OPTIM.MAX_EPOCH", "1")
        assert results["splits"]["test"]["total"] == 3
        assert place.context(f"trained_{kind}", epoch=1).isfinite().all()


@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "STSS"))
def test_thousands_of_classes_are_right_and_take_bounded_time_and_memory(place, root, trainer):
    names = [f"thing {i}" for i in range(2_000)]
    more = flags(root, *write_split(root, names))
    with bounded(800):
        results = place.run(trainer, f"many_{trainer}", *more, "TRAINER.STSS.N_PERTURB", "1", "VERBOSE", "False")
    assert results["splits"]["test"]["total"] == 3
    if trainer == "ZeroshotCLIP":
        found = predicted(place, f"many_{trainer}")
        some = sorted({*found, *range(0, 2_000, 50)})
        few = openai_predictions(root, [names[i] for i in some])
        assert [some[i] for i in few] == found


DOG = ["0.png", 0, "dog"]


def rows(*train) -> bytes:
    return json.dumps({"train": train, "test": [DOG]}).encode()


BROKEN = {  # class names, or a split file and its bytes -> what the sentence says
    "empty": ([], "no test images"),
    "blank": (["dog", "   "], "label 1 a class name without a word"),
    "underscores-only": (["dog", "___"], "label 1 a class name without a word"),
    "no-break-space": (["\u00a0", "dog"], "label 0 a class name without a word"),
    "twice": (["dog", "cat", "dog"], "more than one class named dog"),
    "same-but-for-case": (["Dog", "cat", "DOG"], "'Dog' (class 0) and 'DOG' (class 2)"),
    "too-long": (["dog", "very " * 90], "very very"),
    "too-long-without-a-space": (["dog", "🦊" * 60], "🦊🦊"),
    "lone-surrogate": (["dog", "\ud800"], "label 1"),
    "cut.json": (rows(DOG, DOG)[:-9], "JSONDecodeError"),
    "binary.json": (bytes(range(256)), "UnicodeDecodeError"),
    "list.json": (b"[]", "not a split file"),
    "deep.json": (b"[" * 100_000 + b"]" * 100_000, "not a split file"),
    "parts are numbers.json": (b'{"train": 1, "test": 2}', "not a split file"),
    "parts are text.json": (b'{"train": "abc", "test": "abc"}', "train[0] is 'a'"),
    "label is text.json": (rows(["0.png", "x", "dog"]), "train[0] is"),
    "label is infinite.json": (b'{"train": [["0.png", 1e400, "dog"]], "test": []}', "train[0] is"),
    "label is huge.json": (rows(DOG, ["0.png", 10**15, "cat"]), "labels up to 1000000000000000"),
    "label is negative.json": (rows(["0.png", -1, "dog"]), "train[0] is"),
    "path is null.json": (rows([None, 0, "dog"]), "train[0] is"),
    "path is a folder.json": (rows([".", 0, "dog"]), "lacks 1 of 1 images"),
    "path has a null byte.json": (rows(["0\0.png", 0, "dog"]), "lacks 1 of 1 images"),
    "path is long.json": (rows(["x" * 100_000, 0, "dog"]), "lacks 1 of 1 images"),
    "row is long.json": (rows([*DOG, *range(100_000)]), "train[0] is"),
    "latin.csv": ("path,class,split\né.png,a,train".encode("latin-1"), "is not a CSV file"),
    "header.csv": (b"path,class,split\n", "no test images"),
    "huge field.csv": (b"path,class,split\n" + b"x" * 200_000 + b",a,train", "is not a CSV file"),
    "quote without end.csv": (b'path,class,split\n"0.png,dog,train\n', "line 2"),
    "too many fields.csv": (b"path,class,split\n0.png,dog,test,more,and more\n", "line 2"),
    "utf16 without a mark.csv": ("path,class,split\né.png,dog,test\n".encode("utf-16-le"), "is not a CSV file"),
    "text.txt": (b"0.png dog\n", "must be a JSON or CSV file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_name_or_a_broken_split_is_one_sentence_that_names_it(place, root, capfd, kind):
    content, part = BROKEN[kind]
    pair = ("DATASET.SPLIT_FILE", kind) if isinstance(content, bytes) else write_split(root, content)
    if isinstance(content, bytes):
        (root / kind).write_bytes(content)
        refused(capfd, "datasets", "fewshot", "ImageFolder", "--root", root, "--opts", *pair, says=(part,))
    if kind in ("cut.json", "huge field.csv") or isinstance(content, list):
        for trainer in ("ZeroshotCLIP", "SAPT", "STSS") if kind == "too-long" else ("ZeroshotCLIP",):
            refused(capfd, "train", *place.argv(trainer, "bad", *flags(root, *pair)), says=(part,))


def test_a_broken_list_of_class_names_is_one_sentence(place, root, capfd):
    for name in ("dog", "cat"):
        (root / "test" / name).mkdir(parents=True)
        os.link(root / "0.png", root / "test" / name / "0.png")
    for text, part in (
        (b"dog \n", "'dog', but each line must be"),
        (b"\x80\xfe", "cannot be read"),
        (b"dog hound\ncat hound\n", "more than one class named hound"),
        (b"dog " + b"very " * 99, "very very"),
    ):
        (root / "classnames.txt").write_bytes(text)
        refused(capfd, "train", *place.argv("ZeroshotCLIP", "names", *flags(root)), says=(part,))


def test_a_template_with_other_braces_is_one_sentence(place, capfd):
    texts = ("an icon", "a {} {x}.", "a {} {0.__class__}.", "a {!r}", "a {} and {}.", "{:>999999999}", "{}}")
    words = [("ZeroshotCLIP", "TRAINER.ZSCLIP.TEMPLATE", text) for text in texts]
    words += [("ZeroshotCLIP", "DATASET.TEMPLATE", "a {}{"), ("STSS", "TRAINER.PROMPT.TEMPLATE", "a {}{")]
    for trainer, key, template in words:
        refused(capfd, "train", *place.argv(trainer, "template", key, template), says=(template,))
    accepted(capfd, "train", *place.argv("ZeroshotCLIP", "sign", "TRAINER.ZSCLIP.TEMPLATE", "100 % 🦊 {}\\n!"))
