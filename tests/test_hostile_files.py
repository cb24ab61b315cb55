"""Archives that are hostile, disks that are full, folders that cannot be written to: whole files or none."""

import bz2
import errno
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from benchmark import Workplace
from forked import fork
from hostile import SENTENCE, accepted, bounded, call, half_written, refused

from datasets.care.archives import unpack
from tlla.errors import InputError

SHORT = ("OPTIM.MAX_EPOCH", "2", "TEST.SAVE_EVERY", "0.0", "DATALOADER.TEST.BATCH_SIZE", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("SAPT", "whole", *SHORT)
    return place


# Archives


def zipped(*members, **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members, mode="w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bomb(kind: str) -> bytes:
    """A file of 200 MB of zeros in an archive of some hundred kB."""
    if kind == "zip":
        return zipped(("a.jpg", bytes(200 << 20)), compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    info = tarfile.TarInfo("a.jpg")
    info.size = 200 << 20
    compress = {"gz": gzip.compress, "xz": lzma.compress}[kind]  # of which several files in a row are one
    return compress(info.tobuf()) + compress(bytes(4 << 20)) * 50 + compress(bytes(1024))


def declares(size: int) -> bytes:
    """A tar whose only member says that it has `size` bytes."""
    info = tarfile.TarInfo("a.jpg")
    info.size = size
    return info.tobuf(format=tarfile.GNU_FORMAT) + bytes(10_240)


def headers_say(place: int, number: int) -> bytes:
    """A zip with a number at a place of the member's header, and two bytes later in the directory at the end."""
    data = bytearray(zipped(("a.jpg", b"x" * 99)))
    for start in (data.index(b"PK\x03\x04") + place, data.index(b"PK\x01\x02") + place + 2):
        data[start : start + 2] = struct.pack("<H", number)
    return bytes(data)


ARCHIVES = {
    "zip-bomb": lambda: bomb("zip"),
    "tar-bomb-gz": lambda: bomb("gz"),
    "tar-bomb-xz": lambda: bomb("xz"),
    "declares-an-exabyte": lambda: declares(1 << 60),
    "encrypted": lambda: headers_say(6, 1),
    "unknown-compression": lambda: headers_say(8, 77),
    "wrong-checksum": lambda: zipped(("a.jpg", b"x" * 999)).replace(b"x" * 999, b"x" * 500 + b"y" * 499),
    "cut-xz": lambda: tarred(("a.jpg", os.urandom(9999)), mode="w:xz")[:5000],
    "cut-bz2": lambda: tarred(("a.jpg", os.urandom(9999)), mode="w:bz2")[:5000],
    "damaged-xz": lambda: lzma.compress(bytes(99))[:20] + b"?" * 99,
    "damaged-bz2": lambda: bz2.compress(bytes(99))[:20] + b"?" * 99,
    "no-members-zip": lambda: zipped(),
    "no-members-tar": lambda: tarred(),
    "a-file-that-is-a-folder-too": lambda: zipped(("a", b"x"), ("a/b.jpg", b"x")),
    "a-name-that-is-too-long": lambda: tarred(("n" * 300 + ".jpg", b"x")),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_hostile_archive_is_one_sentence_and_leaves_nothing_half_written(tmp_path, kind):
    path = tmp_path / "a.zip"
    path.write_bytes(ARCHIVES[kind]())
    with bounded(150), pytest.raises((InputError, OSError)) as caught:
        unpack(path, tmp_path / "in")
    sentence = str(caught.value)
    assert "\n" not in sentence and str(tmp_path) in sentence, sentence
    assert half_written(tmp_path / "in") == []
    assert sum(file.stat().st_size for file in (tmp_path / "in").rglob("*.jpg")) < 1 << 20


# Disks


@pytest.mark.parametrize(
    ("trainer", "largest"),
    (*(("SAPT", 0), ("SAPT", 9000), ("TLLA", 2500), ("Compare", 1500), ("predict.py", 700)),),
)
def test_a_full_disk_is_one_sentence_and_the_run_resumes_later(place, trainer, largest):
    """A file can have no more than `largest` bytes; what is written then fails as on a disk without space."""
    output, entry = f"full_{trainer}_{largest}", "predict" if trainer == "predict.py" else "train"
    folder = place.folder / output
    load = ("--eval-only", "--model-dir", str(place.folder / "whole")) if trainer == "TLLA" else ()
    argv = place.argv(trainer, output, *load, *SHORT, "TRAINER.COMPARE.METHODS", "['ZERO', 'STSS']", "VERBOSE", "False")
    if entry == "predict":
        folder.mkdir()
        argv = [place.folder / "data/emoji/noto/test/0", "--classes", "ape", "--backbone", place.folder / "clip.pt"]
        argv += ["--views", "6", "--set", "top_s=3", "--batch-views", "6", "--csv", folder / "rows.csv"]
    child = fork(entry, argv, largest_file=largest)
    code, error = child.wait(), child.error
    assert code == 2 and "Traceback" not in error, (code, error[-2000:])
    (sentence,) = SENTENCE.findall(error)
    assert [path for path in half_written(folder) if not path.endswith(".part")] == []  # predict.py's journal
    child = fork(entry, argv)
    assert child.wait() == 0, child.error[-2000:]
    if entry == "predict":
        assert str(folder) in sentence and os.listdir(folder) == ["rows.csv"]
        assert (folder / "rows.csv").read_text().count(".png") == 5
    if trainer == "SAPT":
        assert place.predictions(output) == place.predictions("whole")
        assert torch.equal(place.context(output, 2), place.context("whole", 2))


@pytest.mark.parametrize(
    ("what", "number"),
    (
        ("os.replace", errno.ENOSPC),
        ("os.fsync", errno.EIO),
        ("pathlib.Path.write_bytes", errno.EACCES),
        ("os.makedirs", errno.EROFS),
    ),
)
def test_a_disk_that_fails_is_one_sentence_and_leaves_nothing_half_written(place, capfd, what, number, monkeypatch):
    """From the fourth call on; so that it fails in the middle of a run."""
    module, _, name = what.rpartition(".")
    target = {"os": os, "pathlib.Path": Path}[module]
    own, calls = getattr(target, name), []

    def fails(*args, **kwargs):
        calls.append(name)
        if len(calls) > 3:
            raise OSError(number, os.strerror(number), str(args[0]))
        return own(*args, **kwargs)

    output = f"fails_{name}_{number}"
    monkeypatch.setattr(target, name, fails)
    outcome = call(capfd, "train", *place.argv("SAPT", output, *SHORT))
    monkeypatch.undo()
    assert outcome.code == (2 if len(calls) > 3 else 0) and "Traceback" not in outcome.err
    assert len(calls) <= 3 or os.strerror(number) in SENTENCE.findall(outcome.err)[0]
    assert half_written(place.folder / output) == []
    accepted(capfd, "train", *place.argv("SAPT", output, *SHORT))
    assert place.predictions(output) == place.predictions("whole")


TAKEN = {
    "file": lambda path: path.write_text("mine"),
    "loop": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/null"),
    "pipe": os.mkfifo,
}


def test_an_output_folder_that_is_none_is_one_sentence(place, capfd, tmp_path):
    for kind, make in TAKEN.items():
        make(tmp_path / kind)
        for folder in (tmp_path / kind, tmp_path / kind / "run"):
            argv = place.argv("ZeroshotCLIP", "x", "--output-dir", str(folder))
            refused(capfd, "train", *argv, says=(tmp_path / kind,))


@pytest.mark.parametrize(
    "name", ("log.txt", "results.json", "predictions_test.csv", "prompt_learner", "shards", "tensorboard")
)
def test_a_folder_or_a_file_in_the_place_of_an_output_is_one_sentence(place, capfd, tmp_path, name):
    """A folder where a file is to be, and a file where a folder is to be."""
    in_the_way = tmp_path / "run" / name
    if "." in name:
        (in_the_way / "mine").mkdir(parents=True)
    else:
        in_the_way.parent.mkdir()
        in_the_way.write_text("mine")
    outcome = call(capfd, "train", *place.argv("SAPT", "x", "--output-dir", str(tmp_path / "run"), *SHORT))
    assert "Traceback" not in outcome.err and half_written(tmp_path / "run") == []
    if name == "log.txt":  # what is in the way of the log is moved aside, as an older log is
        assert outcome.code == 0
    else:
        assert outcome.code == 2 and str(in_the_way) in SENTENCE.findall(outcome.err)[0]
        assert in_the_way.exists()


def test_data_on_a_disk_that_cannot_be_written_to_is_used(place, capfd, monkeypatch):
    """A draw is not kept then; it is the same without."""
    monkeypatch.setattr("datasets.fewshot.store_text", lambda *args: False)
    accepted(capfd, "train", *place.argv("ZeroshotCLIP", "read_only", "DATASET.NUM_SHOTS", "2"))


@pytest.mark.parametrize("entry", ("parse", "datasets", "train"))
def test_a_full_disk_behind_the_standard_output_is_no_traceback(place, entry):
    argv = {
        "parse": [str(place.folder / "whole"), "--format", "csv"],
        "datasets": ["list"],
        "train": place.argv("ZeroshotCLIP", "dev_full"),
    }[entry]
    child = fork(entry, argv, out="/dev/full")
    code, error = child.wait(), child.error
    assert code == 2 and "Traceback" not in error and "No space left on device" in error, (code, error)
