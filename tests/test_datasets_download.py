"""Downloads from a server on this machine that misbehaves, and archives that do."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from datasets.__main__ import main
from datasets.care import archives
from datasets.care import transfer as module
from datasets.care.archives import unpack
from datasets.care.download import download, get
from datasets.care.transfer import DownloadError, fetch_url
from datasets.catalog import CATALOG, Download
from tlla.errors import InputError

BODY = bytes(range(256)) * 40_000  # 10 MB: several chunks
MD5 = hashlib.md5(BODY).hexdigest()
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY, or what `script` says for the next requests; remembers the Range headers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.script, self.ranges, self.etag = BODY, [], [], '"one"'
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, *args):
        """A client that hangs up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        step = server.script.pop(0) if server.script else "good"
        if isinstance(step, int):
            return self.send_error(step)
        body, offset, total = server.body, 0, len(server.body)
        if wanted and step != "no ranges" and self.headers.get("If-Range", server.etag) == server.etag:
            offset = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if offset >= total and offset:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            return self.end_headers()
        body = PAGE if "page" in str(step) else body[offset:]
        self.send_response(206 if offset else 200)
        self.send_header("Content-Type", "text/html" if step == "page" else "application/octet-stream")
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if step == "hang up" else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def source(server):
    return Download("file.bin", server.url, md5=MD5, gives="file.bin")


def names(folder):
    """What lies in a folder, but for the locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def make_tar(path, *members, kind="w:gz"):
    """A tar archive of (name, content) or ready TarInfos."""
    with tarfile.open(path, kind) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_download_is_whole_checked_and_not_repeated(server, source, tmp_path):
    get(source, tmp_path)
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert names(tmp_path) == ["file.bin"] and server.ranges == [None]


def test_a_connection_that_ends_early_resumes_where_it_stopped(server, source, tmp_path):
    server.script = ["hang up", "hang up", 503]
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=5120000-", "bytes=7680000-", "bytes=7680000-"]


def test_a_second_try_resumes_after_the_first_has_given_up(server, source, tmp_path):
    server.script = ["hang up"] + [503] * 4
    with pytest.raises(DownloadError, match="failed 5 times, at last: HTTP Error 503.*resumes where it stopped"):
        get(source, tmp_path)
    assert names(tmp_path) == ["file.bin.part", "file.bin.part.version"]
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY and names(tmp_path) == ["file.bin"]
    assert server.ranges[-1] == "bytes=5120000-"


def test_a_full_disk_keeps_what_was_downloaded(server, source, tmp_path, monkeypatch):
    class Full(module.tqdm):
        def update(self, n=1):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "tqdm", Full)
    with pytest.raises(OSError, match="No space left"):
        get(source, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "PAUSE", 0)
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1048576-"]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=7))
    with pytest.raises(DownloadError, match="0.01 GB are needed in .*, which has 0.00 GB free"):
        fetch_url(server.url, tmp_path / "other.part")


@pytest.mark.parametrize("change", ("no ranges", "another file"))
def test_a_part_that_cannot_be_continued_is_started_anew(server, source, tmp_path, change):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.bin.part.version").write_text('"zero"' if change == "another file" else server.etag)
    server.script = ["no ranges"] if change == "no ranges" else []
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY and server.ranges == ["bytes=1000-"]


def test_a_part_that_is_whole_or_too_long(server, source, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY)
    get(source, tmp_path)
    assert server.ranges == [f"bytes={len(BODY)}-"]
    (tmp_path / "file.bin").unlink()
    (tmp_path / "file.bin.part").write_bytes(BODY + b"?")
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY and server.ranges[1:] == [f"bytes={len(BODY) + 1}-", None]


@pytest.mark.parametrize("step", ("page", "page without a type"))
def test_a_web_page_is_not_taken_for_the_file(server, source, tmp_path, step):
    server.script = [step]
    with pytest.raises(DownloadError, match="answered with a web page instead of the file"):
        get(source, tmp_path)
    assert not (tmp_path / "file.bin").exists()
    get(source, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_dead_link_is_not_tried_again(server, source, tmp_path):
    server.script = [404]
    with pytest.raises(DownloadError, match="answered 404 Not Found: the link is dead or closed"):
        get(source, tmp_path)
    assert server.ranges == [None]


def test_a_wrong_checksum_is_never_accepted(server, source, tmp_path):
    server.body = BODY[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"not {MD5}; it was thrown away: try again"):
        get(source, tmp_path)
    assert names(tmp_path) == []
    server.body = BODY
    get(source, tmp_path)
    assert names(tmp_path) == ["file.bin"]


def test_a_users_file_of_that_name_is_left(server, source, tmp_path):
    (tmp_path / "file.bin").write_text("mine")
    with pytest.raises(DownloadError, match="is there, but its MD5 is not .*; move it away"):
        get(source, tmp_path)
    assert (tmp_path / "file.bin").read_text() == "mine" and server.ranges == []


def test_a_users_tree_is_left(server, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    get(Download("file.tar.gz", server.url, unpack=".", gives="images"), tmp_path)
    assert server.ranges == [] and "is left as it is" in capsys.readouterr().out


def test_an_archive_is_unpacked_once_and_may_then_be_deleted(server, tmp_path, capsys):
    path = make_tar(tmp_path / "a.tgz", ("top/images/ä.jpg", b"1"), ("top/._x", b"2"), ("other/y", b"3"))
    server.body = path.read_bytes()
    source = Download("a.tgz", server.url, unpack=".", strip="top", gives="images")
    folder = tmp_path / "data"
    folder.mkdir()
    for _ in range(2):
        get(source, folder)
        (folder / "a.tgz").unlink(missing_ok=True)
    assert (folder / "images/ä.jpg").read_bytes() == b"1" and server.ranges == [None]
    assert names(folder) == [".a.tgz.unpacked", "images"]


def test_an_archive_in_an_archive_is_unpacked(server, tmp_path):
    inner = make_tar(tmp_path / "inner.tar.gz", ("101/a.jpg", b"1"))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "caltech-101/inner.tar.gz")
        archive.writestr("__MACOSX/caltech-101/._inner.tar.gz", b"")
    server.body = (tmp_path / "outer.zip").read_bytes()
    folder = tmp_path / "data"
    folder.mkdir()
    get(Download("o.zip", server.url, unpack=".", strip="caltech-101", inner="inner.tar.gz", gives="101"), folder)
    assert names(folder) == [".o.zip.unpacked", "101", "inner.tar.gz", "o.zip"]


def test_unpacking_resumes_and_overwrites_nothing(tmp_path):
    path = make_tar(tmp_path / "a.tgz", ("a.jpg", b"11"), ("b.jpg", b"22"), ("c/d.jpg", b"33"))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"AA")  # of the right size: from a first try
    (folder / "b.jpg").write_bytes(b"mine")
    assert unpack(path, folder) == 1
    assert {p.name: p.read_bytes() for p in folder.rglob("*.jpg")} == {"a.jpg": b"AA", "b.jpg": b"mine", "d.jpg": b"33"}


def test_a_disk_that_fills_up_while_unpacking_leaves_whole_files_only(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "a.tgz", ("a.jpg", b"11"), ("b.jpg", b"22"))
    copy, folder = archives.shutil.copyfileobj, tmp_path / "in"

    def fail(source, target):
        copy(source, target)
        if (folder / "a.jpg").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        unpack(path, folder)
    assert names(folder) == ["a.jpg"]
    monkeypatch.undo()
    assert unpack(path, folder) == 0 and names(folder) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("member", "message"),
    (
        (("../out.jpg", b"x"), "'../out.jpg', which leads out of its folder; nothing was unpacked"),
        (("a/../../out.jpg", b"x"), "which leads out"),
        (("/tmp/out.jpg", b"x"), "which leads out"),
        (("C:/out.jpg", b"x"), "which leads out"),
        (("a\\..\\out.jpg", b"x"), "which leads out"),
        (link("evil", "/etc"), "'evil', a link or device; nothing was unpacked"),
        (link("evil", "good.jpg", tarfile.LNKTYPE), "a link or device"),
        (link("evil", "", tarfile.FIFOTYPE), "a link or device"),
    ),
)
def test_an_archive_that_leaves_its_folder_is_refused_whole(tmp_path, member, message):
    path = make_tar(tmp_path / "a.tgz", ("good.jpg", b"x"), member)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError) as error:
        unpack(path, tmp_path / "in")
    assert message in str(error.value)
    assert names(tmp_path) == ["a.tgz", "in"] and names(tmp_path / "in") == []


def test_a_zip_with_a_link_or_a_way_out_is_refused(tmp_path):
    info = zipfile.ZipInfo("evil")
    info.external_attr = 0o120777 << 16
    for member in (info, "../out.jpg", "/out.jpg"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(member, "/etc")
        with pytest.raises(InputError, match="nothing was unpacked"):
            unpack(tmp_path / "a.zip", tmp_path / "in")
    assert names(tmp_path) == ["a.zip"]


def test_a_damaged_archive_is_one_sentence(tmp_path):
    whole = make_tar(tmp_path / "a.tgz", *((f"{i}.jpg", bytes(range(256)) * 99) for i in range(9))).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b"", whole[:200] + b"??" + whole[202:]):
        (tmp_path / "b.tgz").write_bytes(damaged)
        with pytest.raises(InputError, match="is not a whole zip or tar archive .*download it again"):
            unpack(tmp_path / "b.tgz", tmp_path / "in")
    with pytest.raises(InputError, match="holds no files below top"):
        unpack(tmp_path / "a.tgz", tmp_path / "in", strip="top")
    assert not (tmp_path / "in").exists()


def drive(monkeypatch, answer):
    """Replaces Google Drive."""

    def fake(id, output, resume):
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            with open(output, "wb") as file:
                file.write(answer)
        return output if answer is not None else None

    monkeypatch.setattr("gdown.download", fake)


SPLIT = json.dumps({"train": [["a.jpg", 0, "a"]], "val": [], "test": [["a.jpg", 0, "a"]]}).encode()


def test_a_split_file_comes_from_google_drive(tmp_path, monkeypatch):
    drive(monkeypatch, SPLIT)
    assert main(["download", "oxfordpets", "--root", str(tmp_path), "--split-only"]) == 0
    assert (tmp_path / "oxford_pets/split_zhou_OxfordPets.json").read_bytes() == SPLIT


@pytest.mark.parametrize(
    ("answer", "message"),
    (
        (PAGE, "answered with a web page"),
        (SPLIT[:-9], "is not a split file"),
        (None, "gave nothing; download https://drive.google.com/file/d/1501r8"),
        (RuntimeError("Too many users\nhave viewed"), "Too many users have viewed; download https://drive"),
    ),
)
def test_google_drives_refusals_are_said_and_a_second_try_works(tmp_path, monkeypatch, capsys, answer, message):
    argv = ["download", "OxfordPets", "--root", str(tmp_path), "--split-only"]
    drive(monkeypatch, answer)
    assert main(argv) == 1
    out = capsys.readouterr()
    assert message in out.out and "split_zhou_OxfordPets.json of OxfordPets could not be had" in out.err
    drive(monkeypatch, SPLIT)
    assert main(argv) == 0
    assert names(tmp_path / "oxford_pets") == ["split_zhou_OxfordPets.json"]


def test_what_is_left_by_hand_is_said_and_one_failure_stops_no_other(server, tmp_path, monkeypatch, capsys):
    sources = (Download("one.bin", server.url + "1"), Download("two.bin", server.url + "2", md5=MD5))
    monkeypatch.setitem(CATALOG, "StanfordCars", replace(CATALOG["StanfordCars"], sources=sources, split_id=""))
    server.script = [404]
    with pytest.raises(DownloadError, match="^one.bin of StanfordCars could not be had"):
        download("StanfordCars", str(tmp_path))
    assert names(tmp_path / "stanford_cars") == ["two.bin"]
    assert "By hand: the authors' links are dead" in capsys.readouterr().out


def test_a_root_that_is_a_file_is_wrong_usage(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["download", "EuroSAT", "--root", str(tmp_path / "file")]) == 2
    assert "cannot be made (Not a directory); name another --root" in capsys.readouterr().err
