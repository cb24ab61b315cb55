"""predict.py on what the other files of this suite give to train.py, and on its own inputs and outputs."""

import csv
import io
import shlex
import sys

import pytest
import test_hostile_images as images
from forked import fork
from hostile import SENTENCE, accepted, call, refused
from PIL import EpsImagePlugin

VIEWS = ("--views", "6", "--set", "top_s=3", "n_perturb=2")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        images.picture(i).save(folder / f"{i}.png")
    return folder


def argv(place, photos, *more):
    return (photos, *VIEWS, "--backbone", place.folder / "clip.pt", *(more or ("--classes", "ape", "bear")))


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(errors="surrogateescape"))))


def test_each_broken_image_is_named_and_the_rest_is_predicted(place, photos, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("a program was started"))
    for name, data in images.BROKEN.items():
        (photos / name).write_bytes(data)
    listed = [photos / name for name in images.BROKEN] + [photos / "0.png"]
    outcome = call(capfd, "predict", *listed, *argv(place, photos)[1:], "--csv", tmp_path / "out.csv")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    found = {row["file"]: row for row in rows(tmp_path / "out.csv")}
    assert len(found) == len(images.BROKEN) + 1
    for name in images.BROKEN:
        assert found[str(photos / name)]["error"] and name.replace("\n", "\\n").split("/")[-1][:8] in outcome.err
    assert not found[str(photos / "0.png")]["error"]


@pytest.mark.parametrize("name", images.NO_FILES)
def test_what_is_no_file_is_named_and_does_not_hang(place, photos, capfd, name):
    make, left_out = images.NO_FILES[name]
    make(photos / name)
    outcome = call(capfd, "predict", *argv(place, photos))  # a folder's are left out, but for an image's lost link
    assert outcome.code == (0 if left_out else 1) and outcome.out.count(".png") == 4 and name in outcome.err
    if name != "a folder.png":
        outcome = call(capfd, "predict", photos / name, photos / "0.png", *argv(place, photos)[1:])
        assert outcome.code == 1 and name in outcome.err


NAMES = [b"", b" \n\t\n", b"dog\ncat\ndog\n", bytes(range(128, 256)), b"dog\n" + b"very " * 99, b"dog\n___\n"]
NAMES += ["dög\ncat".encode("utf-16-le"), "dog\ncat".encode("utf-16")[:-1]]  # without a mark; cut in a character


def test_a_broken_list_of_class_names_is_one_sentence(place, photos, tmp_path, capfd):
    for content in NAMES:
        (tmp_path / "names.txt").write_bytes(content)
        refused(capfd, "predict", *argv(place, photos, "--classes-file", tmp_path / "names.txt"))


def test_odd_class_names_are_predicted_and_printed(place, photos, tmp_path, capfd):
    names = ["🦊", "שועל", "{}", "new line", "a,b\"c'", "<|endoftext|>", "\u202eevil", "-x", "\x1b[31mred"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    more = ("--classes-file", tmp_path / "names.txt", "--csv", tmp_path / "out.csv", "--jsonl", tmp_path / "out.jsonl")
    accepted(capfd, "predict", *argv(place, photos, *more))
    assert {row["prediction"] for row in rows(tmp_path / "out.csv")} <= set(names)


def test_names_cannot_steer_the_terminal(place, photos, capfd):
    (photos / "0.png").rename(photos / "\x1b[31mred.png")
    (photos / "\x1b]0;title.png").write_bytes(b"no image")
    outcome = call(capfd, "predict", *argv(place, photos, "--classes", "\x1b[2Jgone", "\x9bclass"))
    assert outcome.code == 1 and "gone" in outcome.out and "red.png" in outcome.out and "title.png" in outcome.err
    assert "\x1b" not in outcome.out + outcome.err and "\x9b" not in outcome.out + outcome.err


@pytest.mark.parametrize("more", ((), ("-0",)), ids=("lines", "null"))
def test_odd_paths_on_the_standard_input_are_named(place, photos, capfd, more, monkeypatch):
    for data in (b"\n\n", b"\0\0", b"\xff\xfe\n", b"x" * 100_000, b"a\0b\n", b"/dev/zero\n", b"/\n", b"-\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        outcome = call(capfd, "predict", "-", *argv(place, photos)[1:], *more)
        assert outcome.code in (1, 2) and "Traceback" not in outcome.err and outcome.err, data
        assert outcome.code == 1 or len(SENTENCE.findall(outcome.err)) == 1


FLAGS = f"""
    --views 0 | --views -1 | --views x | --views {10**12} | --seed -1 | --seed {2**70} | --crop-scale nan nan
    | --crop-scale 0.9 0.1 | --top-k 0 | --batch-views 0 | --workers -1 | --method magic | --device tpu:9
    | --set top_s | --set top_s=99 | --set rho=nan | --set rho=1e400 | --set n_perturb=-1 | --set no_such=1
    | --set "top_s=__import__('os').mkdir('hacked')" | --prompt {{}}_{{}} | --prompt {{}}_{{x}} | --prompt nowhere
    | --csv /dev/null/out.csv | --csv / | --csv '' | --explain /dev/null/views | --classes ''
"""


def test_a_bad_flag_is_one_sentence(place, photos, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flag in FLAGS.split("|"):
        refused(capfd, "predict", *argv(place, photos), *shlex.split(flag))
    assert not (tmp_path / "hacked").exists()


JOURNALS = (b"3\n" * 4, b"null\n", b"{}\n" * 4, b"[" * 10_000, b"\xff\xfe\n", b'{"error": 3}\n' * 4, b"\0" * 99)


def test_a_journal_that_is_damaged_is_started_anew(place, photos, tmp_path, capfd):
    table = tmp_path / "rows.csv"
    words = argv(place, photos, "--classes", "ape", "bear", "--csv", table, "--batch-views", "6")
    table.symlink_to("/dev/null/nowhere")  # so that the journal stays
    fork("predict", [*map(str, words)], largest_file=500).wait()
    journal = next(tmp_path.glob("rows.csv.*.part"))
    for content in JOURNALS:
        table.unlink()
        journal.write_bytes(content)
        outcome = accepted(capfd, "predict", *words)
        assert len(rows(table)) == 4 and outcome.out.count(".png") == 4, content
