"""predict.py on what the other files of this suite give to train.py, and on its own inputs and outputs."""

import csv
import io
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import test_hostile_checkpoints as checkpoints
import test_hostile_images as images
from benchmark import Workplace
from forked import fork
from hostile import SENTENCE, accepted, call, forget_peak, half_written, peak_memory_mb, refused, time_limit
from PIL import EpsImagePlugin, Image

VIEWS = ("--views", "6", "--set", "top_s=3", "n_perturb=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("work"))


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
    forget_peak()
    before = peak_memory_mb()
    with time_limit():
        outcome = call(capfd, "predict", *listed, *argv(place, photos)[1:], "--csv", tmp_path / "out.csv")
    assert outcome.code == 1 and "Traceback" not in outcome.err
    found = {row["file"]: row for row in rows(tmp_path / "out.csv")}
    assert len(found) == len(images.BROKEN) + 1
    for name in images.BROKEN:
        assert found[str(photos / name)]["error"] and name.replace("\n", "\\n").split("/")[-1][:8] in outcome.err
    assert not found[str(photos / "0.png")]["error"] and peak_memory_mb() - before < 400


@pytest.mark.parametrize("name", images.NO_FILES)
def test_what_is_no_file_is_named_and_does_not_hang(place, photos, capfd, name):
    make, left_out = images.NO_FILES[name]
    make(photos / name)
    with time_limit():
        outcome = call(
            capfd, "predict", *argv(place, photos)
        )  # in a folder it is left, unless it is an image's lost link
        assert outcome.code == (0 if left_out else 1) and outcome.out.count(".png") == 4 and name in outcome.err
        if name != "a folder.png":
            outcome = call(capfd, "predict", photos / name, photos / "0.png", *argv(place, photos)[1:])
            assert outcome.code == 1 and "Traceback" not in outcome.err and name in outcome.err


@pytest.mark.parametrize("kind", checkpoints.BROKEN)
def test_a_broken_prompt_is_one_sentence_that_names_it(place, photos, tmp_path, capfd, kind):
    path = tmp_path / "run/prompt_learner/model.pth.tar-3"
    path.parent.mkdir(parents=True)
    checkpoints.BROKEN[kind](path)
    forget_peak()
    before = peak_memory_mb()
    with time_limit():
        words = argv(place, photos, "--classes", "ape", "bear", "--prompt", tmp_path / "run")
        refused(capfd, "predict", *words, says=(path.parent,))
    assert peak_memory_mb() - before < 150 and not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("kind", checkpoints.WEIGHTS)
def test_broken_weights_are_one_sentence_that_names_them(place, photos, tmp_path, capfd, kind):
    path = tmp_path / "weights.pt"
    checkpoints.WEIGHTS[kind](path)
    with time_limit():
        refused(capfd, "predict", photos, "--classes", "ape", "--backbone", path, says=(path,))
    assert not (tmp_path / "hacked").exists()


NAMES = {
    "empty": b"",
    "blank": b" \n\t\n",
    "twice": b"dog\ncat\ndog\n",
    "binary": bytes(range(128, 256)),
    "utf-16 without a mark": "dög\ncat".encode("utf-16-le"),
    "utf-16 cut in a character": "dog\ncat".encode("utf-16")[:-1],
    "too-long": b"dog\n" + b"very " * 99,
    "underscores": b"dog\n___\n",
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_broken_list_of_class_names_is_one_sentence(place, photos, tmp_path, capfd, kind):
    (tmp_path / "names.txt").write_bytes(NAMES[kind])
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


@pytest.mark.parametrize("null", (False, True), ids=("lines", "null"))
@pytest.mark.parametrize(
    "data",
    (b"", b"\n\n", b"\0\0", b"\xff\xfe\n", b"nowhere.png\n", b"x" * 100_000, b"a\0b\n", b"/dev/zero\n", b"/\n", b"-\n"),
    ids=lambda data: ascii(data[:8]),
)
def test_odd_paths_on_the_standard_input_are_named(place, photos, capfd, data, null, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with time_limit():
        words = ("-", *argv(place, photos)[1:], *(("-0",) if null else ()))
        outcome = call(capfd, "predict", *words)
    assert outcome.code in (1, 2) and "Traceback" not in outcome.err and outcome.err
    assert outcome.code == 1 or len(SENTENCE.findall(outcome.err)) == 1


@pytest.mark.parametrize(
    "flags",
    (
        ("--views", "0"),
        ("--views", "-1"),
        ("--views", "x"),
        ("--views", str(10**12)),
        ("--seed", "-1"),
        ("--seed", str(2**70)),
        ("--crop-scale", "nan", "nan"),
        ("--crop-scale", "0.9", "0.1"),
        ("--top-k", "0"),
        ("--batch-views", "0"),
        ("--workers", "-1"),
        ("--method", "magic"),
        ("--set", "top_s"),
        ("--set", "top_s=99"),
        ("--set", "rho=nan"),
        ("--set", "rho=1e400"),
        ("--set", "n_perturb=-1"),
        ("--set", "top_s=__import__('os').mkdir('hacked')"),
        ("--set", "no_such=1"),
        ("--prompt", "a {} and {}"),
        ("--prompt", "a {} {x}"),
        ("--prompt", "nowhere"),
        ("--load-epoch", "-1", "--prompt", "nowhere"),
        ("--device", "tpu:9"),
        ("--csv", "/dev/null/out.csv"),
        ("--csv", "/"),
        ("--csv", ""),
        ("--explain", "/dev/null/views"),
        ("--classes", ""),
    ),
    ids=" ".join,
)
def test_a_bad_flag_is_one_sentence(place, photos, tmp_path, capfd, flags, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with time_limit():
        refused(capfd, "predict", *argv(place, photos), *flags)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("largest", (0, 50, 700))
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(place, photos, tmp_path, largest):
    out = tmp_path / "out"
    out.mkdir()
    files = ("--csv", out / "rows.csv", "--batch-views", "6")
    words = list(map(str, argv(place, photos, "--classes", "ape", "bear", *files)))
    child = fork("predict", words, largest_file=largest)
    code = child.wait()
    assert code == 2 and "Traceback" not in child.error and str(out) in SENTENCE.findall(child.error)[0], child.error
    assert not (out / "rows.csv").exists()
    assert fork("predict", words).wait() == 0
    assert len(rows(out / "rows.csv")) == 4 and os.listdir(out) == ["rows.csv"]


@pytest.mark.parametrize("seed", range(3))
def test_a_run_stopped_at_random_moments_ends_as_if_undisturbed(place, photos, tmp_path, seed):
    rng = random.Random(seed)
    written = {}
    for name in ("whole", "stopped"):
        out = tmp_path / name
        out.mkdir()
        files = ("--csv", out / "rows.csv", "--jsonl", out / "rows.jsonl", "--batch-views", "6")
        words = list(map(str, argv(place, photos, "--classes", "ape", "bear", *files)))
        for _ in range(5 if name == "stopped" else 0):
            child = fork("predict", words)
            code = child.stop_after(rng.uniform(0, 0.4), rng.choice((signal.SIGINT, signal.SIGTERM)))
            assert code in (0, 130, -signal.SIGINT, -signal.SIGTERM) and "Traceback" not in child.error, child.error
            assert half_written(out) == [] or {Path(p).suffix for p in half_written(out)} == {".part"}  # the journal
        assert fork("predict", words).wait() == 0
        assert sorted(os.listdir(out)) == ["rows.csv", "rows.jsonl"]
        written[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out / "rows.csv")]
    assert written["whole"] == written["stopped"] and len(written["whole"]) == 4


@pytest.mark.parametrize(
    "content",
    (
        b"3\n" * 4,
        b"null\n" * 4,
        b"{}\n" * 4,
        b"[" * 10_000 + b"\n",
        b"\xff\xfe\n" * 4,
        b'{"error": 3}\n' * 4,
        b"\0" * 99,
    ),
    ids=lambda content: ascii(content[:6]),
)
def test_a_journal_that_is_damaged_is_started_anew(place, photos, tmp_path, capfd, content):
    words = argv(place, photos, "--classes", "ape", "bear", "--csv", tmp_path / "rows.csv", "--batch-views", "6")
    (tmp_path / "rows.csv").symlink_to("/dev/null/nowhere")  # so that the journal stays
    child = fork("predict", [*map(str, words)], largest_file=500)
    child.wait()
    (tmp_path / "rows.csv").unlink()
    journal = next(tmp_path.glob("rows.csv.*.part"))
    journal.write_bytes(content)
    outcome = accepted(capfd, "predict", *words)
    assert len(rows(tmp_path / "rows.csv")) == 4 and outcome.out.count(".png") == 4


def test_a_picture_that_is_turned_is_seen_as_a_viewer_shows_it(place, photos, tmp_path, capfd):
    exif = Image.Exif()
    exif[0x0112] = 6
    images.picture(1).save(photos / "turned.png", exif=exif)
    images.picture(1).transpose(Image.Transpose.ROTATE_270).save(photos / "upright.png")
    flags = ("--classes", "ape", "bear", "--csv", tmp_path / "o.csv", "--method", "single")
    accepted(capfd, "predict", photos, "--backbone", place.folder / "clip.pt", *flags)
    found = {Path(row["file"]).stem: row for row in rows(tmp_path / "o.csv")}
    assert found["turned"]["probability"] == found["upright"]["probability"] != found["1"]["probability"]
