"""Processes that start together on the same cache, download or draw: each ends well, and none reads half a file."""

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmark import make_benchmark
from dassl.utils import write_json
from test_datasets_download import server  # noqa: F401 (a fixture)

from datasets.care.archives import unpack
from datasets.care.download import get
from datasets.care.example import make_example
from datasets.catalog import Download
from datasets.fewshot import DrawFile
from datasets.items import Item
from scripts.emoji import corpus, fetch
from tlla.backbones.openai_package import clip
from tlla.backbones.weights import find_weights
from tlla.files import write_text

PROCESSES = 4
FILES = {f"icons/{i}.json": json.dumps(list(range(i, i + 10_000))) for i in range(10)}
FORK = multiprocessing.get_context("fork")


def together(job, *args) -> None:
    """Runs `job(*args)`, which asserts what it has got, in several processes that begin at the same moment."""
    begin = FORK.Barrier(PROCESSES)

    def work():
        begin.wait()
        job(*args)

    processes = [FORK.Process(target=work) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * PROCESSES


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders that nobody has taken away."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.name.endswith((".part", ".partial")) or path.name.startswith((".unpacking", "tmp"))
    ]


def check_files(folder: Path) -> None:
    assert {p.relative_to(folder).as_posix(): p.read_text() for p in folder.glob("icons/*.json")} == FILES
    assert [path.name for path in folder.iterdir() if path.suffix == "" and path.name[0] != "."] == ["icons"]


def tar_of(files, prefix="") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm whose `npm pack` writes a package slowly, in two halves, and notes each call; gives the file of notes."""
    data = tar_of(FILES, "package/")
    (tmp_path / "package.tgz").write_bytes(data)
    tool = tmp_path / "bin/npm"
    tool.parent.mkdir()
    source, calls, half = tmp_path / "package.tgz", tmp_path / "calls", len(data) // 2
    tool.write_text(
        f'#!/bin/sh\necho "$3" >> {calls}\nhead -c {half} {source} > "$5/icons-1.0.tgz"\n'
        f'sleep 0.2\ntail -c +{half + 1} {source} >> "$5/icons-1.0.tgz"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    entry = {"version": "1.0", "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setattr(fetch, "packages", lambda: {"icons": entry})
    return calls


def test_an_npm_package_is_fetched_once_and_unpacked_whole(tmp_path, npm):
    work = tmp_path / "work"
    together(lambda: check_files(fetch.fetch("icons", work)))
    assert npm.read_text() == "icons@1.0\n" and leftovers(work) == []


def test_the_pretraining_images_are_drawn_once_and_anew_for_other_sources(tmp_path, monkeypatch):
    def draw_all(sources):
        with (tmp_path / "calls").open("a") as file:
            file.write("drawn\n")
        time.sleep(0.1)
        return [np.full((64, 64, 3), int(source), np.uint8) for source in sources]

    def load(values):
        items = [corpus.CorpusItem("s", "", v, (), None, 1.0, v) for v in values]
        monkeypatch.setattr(corpus, "emoji_items", lambda *args: items)
        images, kept = corpus.load_corpus(tmp_path, {})
        assert images[:, 0, 0, 0].tolist() == [int(v) for v in values] and kept == items

    monkeypatch.setattr(corpus, "Catalog", lambda work: None)
    monkeypatch.setattr(corpus, "Categories", lambda catalog: None)
    monkeypatch.setattr(corpus, "icon_items", lambda *args: [])
    monkeypatch.setattr(corpus, "draw_all", draw_all)
    together(load, ["1", "2"])
    load(["1", "2"])
    assert (tmp_path / "calls").read_text() == "drawn\n"
    load(["3", "2"])
    assert leftovers(tmp_path) == []


def test_a_dataset_is_downloaded_once_and_unpacked_whole(tmp_path, server):  # noqa: F811
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    server.body = buffer.getvalue()
    source = Download("images.zip", server.url, unpack=".", gives="icons")

    def job():
        get(source, tmp_path)
        check_files(tmp_path)

    together(job)
    assert server.ranges == [None] and leftovers(tmp_path) == []


def test_clip_weights_are_downloaded_once(tmp_path, monkeypatch):
    data = bytes(range(256)) * 4000
    monkeypatch.setitem(clip._MODELS, "ViT-B/16", f"https://example.org/{hashlib.sha256(data).hexdigest()}/ViT-B-16.pt")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))

    class Response(io.BytesIO):
        headers = {"Content-Length": str(len(data))}

    def urlopen(*args, **kwargs):
        with (tmp_path / "calls").open("a") as file:
            file.write("downloaded\n")
        time.sleep(0.1)
        return Response(data)

    def job():
        path = find_weights("ViT-B/16")
        assert path.read_bytes() == data and path.stat().st_mode & 0o044  # others may read a shared cache

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    old = os.umask(0o022)
    together(job)
    os.umask(old)
    assert (tmp_path / "calls").read_text() == "downloaded\n" and leftovers(tmp_path) == []


def unpacks(folder: Path) -> None:
    unpack(folder / "a.tgz", folder / "out")
    check_files(folder / "out")


def draws(folder: Path) -> None:
    items = [Item(f"{i}.png", i % 2, f"class {i % 2}") for i in range(2000)]
    key = {"dataset": "D", "shots": 500, "seed": 1, "source_sha256": "x"}
    for _ in range(2):
        parts = DrawFile(str(folder), ".", key).load_or_draw(
            lambda: {0: "class 0", 1: "class 1"}, lambda: {"train": items}
        )
        assert len(parts["train"]) == 1000
        json.loads((folder / "split_fewshot/shot_500-seed_1.json").read_text())


def copies_example(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / "example" / part).mkdir(parents=True, exist_ok=True)
    from datasets.care import example

    example.CLASSES = ("bird",)
    example.any = lambda names: False  # as if all had looked before the first began to write
    make_example(str(folder / "example"), str(folder / "data"))
    for path in (folder / "example").rglob("*.png"):
        assert path.read_bytes() in {p.read_bytes() for p in (folder / "data").rglob("*.png")}


def writes_text(folder: Path) -> None:
    for _ in range(20):
        write_text(folder / "x.txt", "a" * 100_000)
        assert len((folder / "x.txt").read_text()) == 100_000


def writes_json(folder: Path) -> None:
    for _ in range(5):
        write_json(list(range(20_000)), str(folder / "x.json"))
        assert len(json.loads((folder / "x.json").read_text())) == 20_000


@pytest.mark.parametrize("job", (unpacks, draws, copies_example, writes_text, writes_json))
def test_what_several_processes_write_is_whole_whenever_one_reads_it(tmp_path, job):
    (tmp_path / "a.tgz").write_bytes(tar_of(FILES))
    make_benchmark(tmp_path / "data")
    together(job, tmp_path)
    assert leftovers(tmp_path) == []
