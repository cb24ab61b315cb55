"""Checkpoints and weights that are broken, foreign or hostile, through every entry point that reads them."""

import functools
import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import TINY_VIT, make_clip
from hostile import half_written, refused
from test_clip import RunsCode

WIDTH = 64  # of the tiny CLIP's text encoder


def save(state_dict, **entries):
    return lambda path: torch.save({"state_dict": state_dict, "epoch": 3} | entries, path)


def context(*shape, value=0.1, dtype=torch.float32):
    return save({"ctx": torch.full(shape, value, dtype=dtype)})


def whole() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.zeros(3, WIDTH)}, "epoch": 3}, buffer)
    return buffer.getvalue()


def code(path):
    torch.save({"state_dict": RunsCode(path.parent / "hacked"), "epoch": 3}, path)


def plain_pickle_with_code(path):
    path.write_bytes(pickle.dumps({"state_dict": {"ctx": RunsCode(path.parent / "hacked")}}))


def code_by_a_name_that_looks_like_an_optimizer(path):
    path.write_bytes(b"ctorch.optim.sgd\n__builtins__\n(S'x'\ntR." + b"cos\nmkdir\n(S'hacked'\ntR.")


def declares(count: int):
    """A checkpoint whose tensor says that it has `count` elements; the storage in the file has 192."""

    def write(path):
        with zipfile.ZipFile(io.BytesIO(whole())) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name.endswith("data.pkl"):
                    number = count.to_bytes(8, "little")
                    data = data.replace(b"K\xc0", b"\x8a\x08" + number)  # numel of the storage: 3 * 64
                    data = data.replace(b"K\x03K@\x86", b"\x8a\x08" + (count // 64).to_bytes(8, "little") + b"K@\x86")
                target.writestr(name, data)

    return write


def declares_in_the_old_format(path):
    """The same in the format of before torch 1.6, which is no zip."""
    content = {"state_dict": {"ctx": torch.zeros(3, WIDTH)}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    number = (2**40).to_bytes(8, "little")
    data = path.read_bytes().replace(b"K\xc0", b"\x8a\x08" + number).replace((192).to_bytes(8, "little"), number)
    path.write_bytes(data.replace(b"K\x03K@\x86", b"\x8a\x08" + (2**34).to_bytes(8, "little") + b"K@\x86"))


@functools.cache
def zip_bomb() -> bytes:
    """A storage of 512 MB of zeros that is 2 MB in the file: torch itself never compresses."""
    buffer = io.BytesIO()
    packed = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with zipfile.ZipFile(io.BytesIO(whole())) as source, zipfile.ZipFile(buffer, "w", **packed) as target:
        for name in source.namelist():
            if not name.endswith("data/0"):
                target.writestr(name, source.read(name))
        with target.open("archive/data/0", "w") as file:
            for _ in range(128):
                file.write(bytes(1 << 22))
    return buffer.getvalue()


def nested(path):
    value = torch.zeros(3, WIDTH)
    for _ in range(200):
        value = [value]
    torch.save({"state_dict": {"ctx": value}, "epoch": 3}, path)


BROKEN = {
    "code": code,
    "a-plain-pickle-with-code": plain_pickle_with_code,
    "code-named-like-an-optimizer": code_by_a_name_that_looks_like_an_optimizer,
    "cut-in-half": lambda path: path.write_bytes(whole()[: len(whole()) // 2]),
    "a-page": lambda path: path.write_text("<html>404</html>"),
    "a-zip-of-something-else": lambda path: zipfile.ZipFile(path, "w").writestr("readme.txt", "hello"),
    "wrong-keys": lambda path: torch.save({"model": {}, "epoch": 3}, path),
    "no-ctx": save({"weights": torch.zeros(3, WIDTH)}),
    "a-tensor": lambda path: torch.save(torch.zeros(3, WIDTH), path),
    "state-dict-is-a-list": save([torch.zeros(3, WIDTH)]),
    "keys-are-numbers": save({1: torch.zeros(3, WIDTH)}),
    "ctx-is-text": save({"ctx": "a photo of a"}),
    "ctx-is-nested": nested,
    "ctx-has-no-tokens": context(0, WIDTH),
    "ctx-is-a-row": context(WIDTH),
    "ctx-is-nan": context(3, WIDTH, value=float("nan")),
    "ctx-overflows-float32": context(3, WIDTH, value=1e300, dtype=torch.float64),
    "ctx-is-complex": context(3, WIDTH, dtype=torch.complex64),
    "ctx-is-sparse": save({"ctx": torch.eye(3, WIDTH).to_sparse()}),
    "ctx-is-on-no-device": save({"ctx": torch.empty(3, WIDTH, device="meta")}),
    "declares-2-to-the-62-elements": declares(2**62),
    "ctx-is-one-row-2-to-the-33-times": save({"ctx": torch.zeros(1, WIDTH).expand(2**33, WIDTH)}),
    "old-format-declares-2-to-the-40-elements": declares_in_the_old_format,
    "epoch-is-a-tensor": save({"ctx": torch.zeros(3, WIDTH)}, epoch=torch.zeros(2)),
    "a-zip-bomb": lambda path: path.write_bytes(zip_bomb()),
    "a-folder": Path.mkdir,
    "a-symlink-that-leads-to-itself": lambda path: path.symlink_to(path.name),
}


ZERO = ("TRAINER.COMPARE.METHODS", "['ZERO']")
DOORS = {  # how a checkpoint is read: the trainer, and its flags and settings for a file and the run's folder
    "test": ("TLLA", lambda file, run: ("--eval-only", "--model-dir", run)),
    "method": ("SingleView", lambda file, run: ("--eval-only", "--model-dir", run)),
    "resume": ("SAPT", lambda file, run: ("--resume", run)),
    "init": ("SAPT", lambda file, run: ("MODEL.INIT_WEIGHTS", file)),
    "compare": ("Compare", lambda file, run: (*ZERO, "TRAINER.COMPARE.PROMPTS", f"['bad={run}']")),
    "predict": ("", lambda file, run: ("--classes", "ape", "--prompt", run)),
}
SOME = ("a-plain-pickle-with-code", "ctx-is-nan")
CASES = [*(("test", kind) for kind in BROKEN), *((door, kind) for door in DOORS if door != "test" for kind in SOME)]


@pytest.mark.parametrize(("door", "kind"), CASES)
def test_a_broken_checkpoint_is_one_sentence_that_names_it(place, capfd, tmp_path, monkeypatch, door, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run/prompt_learner/model.pth.tar-3"
    path.parent.mkdir(parents=True)
    BROKEN[kind](path)
    trainer, flags = DOORS[door]
    words = [str(word) for word in flags(path, tmp_path / "run")]
    if door == "predict":
        refused(capfd, door, place.folder, "--backbone", place.folder / "clip.pt", *words, says=(path.parent,))
    else:
        refused(capfd, "train", *place.argv(trainer, tmp_path.name, *words), says=(path.parent,))
    output = place.folder / tmp_path.name
    assert not [*tmp_path.rglob("hacked"), *output.rglob("results.json"), *half_written(output)]


def test_a_checkpoint_of_other_settings_is_explained(place, capfd):
    place.run("SAPT", "short", "OPTIM.MAX_EPOCH", "1")
    argv = place.argv("TLLA", "x", "--eval-only", "--model-dir", str(place.folder / "short"))
    for more, says in (
        (("TRAINER.SAPT.N_CTX", "5"), ("N_CTX 3", "N_CTX 5")),
        (("TRAINER.SAPT.CSC", "True"), ("class-specific",)),
        (("--load-epoch", "7"), ("only [1]",)),
    ):
        refused(capfd, "train", *argv, *more, says=says)


@pytest.mark.parametrize(("trainer", "dtype"), (("TLLA", torch.float64), ("STSS", torch.float16)), ids=str)
def test_a_context_of_any_precision_gives_the_same_predictions(place, tmp_path, trainer, dtype):
    ctx = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1)).bfloat16().to(torch.float16)  # exact in all
    for name, kind in (("exact", torch.float32), ("other", dtype)):
        path = tmp_path / name / "prompt_learner/model.pth.tar-3"
        path.parent.mkdir(parents=True)
        save({"ctx": ctx.to(kind)})(path)
        place.run(trainer, f"{trainer}_{name}", "--eval-only", "--model-dir", str(tmp_path / name), "--fresh")
    assert place.predictions(f"{trainer}_exact") == place.predictions(f"{trainer}_other")


def clip_state(**changes):
    return {**make_clip(TINY_VIT).state_dict(), **changes}


def torch_saved(content):
    return lambda path: torch.save(content(), path)


WEIGHTS = {
    "code": lambda path: torch.save(RunsCode(path.parent / "hacked"), path),
    "code-in-the-dict": lambda path: torch.save(clip_state(x=RunsCode(path.parent / "hacked")), path),
    "cut": lambda path: (torch_saved(clip_state)(path), os.truncate(path, path.stat().st_size // 2)),
    "a-zip-with-a-code-folder": lambda path: zipfile.ZipFile(path, "w").writestr("x/code/a.py", "raise SystemExit"),
    "a-number": lambda path: torch.save(3, path),
    "no-tensors": lambda path: torch.save({"a": 1}, path),
    "wrong-shape": torch_saved(lambda: clip_state(text_projection=torch.zeros(5))),
    "no-layers": torch_saved(lambda: {k: v for k, v in clip_state().items() if "resblocks" not in k}),
    "nan": torch_saved(lambda: clip_state(text_projection=torch.full((64, 32), float("nan")))),
    "infinite-scale": torch_saved(lambda: clip_state(logit_scale=torch.tensor(float("inf")))),
    "keys-are-numbers": torch_saved(lambda: {1: torch.zeros(3)}),
    "a-folder": Path.mkdir,
    "a-symlink-that-leads-to-itself": lambda path: path.symlink_to(path.name),
    "declares-2-to-the-40-elements": declares(2**40),
    "a-gzip-bomb": lambda path: path.write_bytes(gzip.compress(bytes(1 << 22), 1) * 200),  # 840 MB
    "a-prompt": context(3, WIDTH),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_broken_clip_weights_are_one_sentence_that_names_them(place, capfd, tmp_path, kind):
    path = tmp_path / f"weights.pt{'.gz' if kind == 'a-gzip-bomb' else ''}"
    WEIGHTS[kind](path)
    refused(capfd, "train", *place.argv("ZeroshotCLIP", "weights", "--backbone", str(path)), says=(path,))
    if kind in ("code", "nan"):
        refused(capfd, "predict", place.folder, "--classes", "ape", "--backbone", path, says=(path,))
    assert not (tmp_path / "hacked").exists()
