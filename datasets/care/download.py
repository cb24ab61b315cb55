"""Gets a dataset's files: downloads, checks and unpacks what is not there yet."""

import hashlib
import os
from pathlib import Path

from tlla.errors import InputError
from tlla.files import one_at_a_time

from ..catalog import CATALOG, Download, drive_url
from ..splits import read_split
from .archives import unpack
from .transfer import CHUNK, DownloadError, fetch_url


def download(name: str, root: str, split_only: bool = False) -> None:
    """Gets what a program can get of a dataset, then says what is left to do by hand.

    Raises:
        InputError: a download failed; others were still tried. The same call resumes where it stopped.
    """
    entry = CATALOG[name]
    folder = Path(root).expanduser() / entry.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another --root") from error
    sources = [Download(f"split_zhou_{name}.json", drive=entry.split_id)] if entry.split_id else []
    sources += () if split_only else entry.sources
    failed = []
    for source in sources:
        try:
            get(source, folder)
        except (InputError, OSError) as error:
            failed.append(source.name)
            print(f"{source.name}: {error}")
    if not sources and split_only:
        print(f"{name} has no published split file: there is nothing to download")
    if entry.by_hand and not split_only:
        print(f"By hand: {entry.by_hand}")
    if failed:
        raise DownloadError(
            f"{', '.join(failed)} of {name} could not be had; run the same command again to resume, or see {entry.page}"
        )


def get(source: Download, folder: Path) -> None:
    """Downloads one file and unpacks it, unless that is done; waits while another process does it."""
    if _is_there(source, folder):
        return
    with one_at_a_time(folder / source.name):
        if not _is_there(source, folder):
            _get(source, folder)


def _is_there(source: Download, folder: Path) -> bool:
    """Whether nothing is to be done, and says so."""
    if source.unpack is None and (folder / source.name).exists():
        _check_present(source, folder / source.name)
        return True
    gives, done = folder / source.gives, _mark(source, folder)
    if done.is_file() and gives.exists():
        print(f"{source.name}: unpacked before")
        return True
    begun = any((folder / name).exists() for name in (source.name, f"{source.name}.part", done.name))
    if source.gives and gives.exists() and not begun:
        print(f"{source.name}: {gives} is there already and is left as it is")
        return True
    return False


def _mark(source: Download, folder: Path) -> Path:
    """The file that says that an archive was unpacked to its end."""
    return folder / f".{source.name}.unpacked"


def _get(source: Download, folder: Path) -> None:
    target = folder / source.name
    if target.exists():
        _check_present(source, target)
    else:
        _fetch(source, target)
    if source.unpack is not None:
        _unpack(source, target, folder)
        _mark(source, folder).touch()
        print(f"{source.name}: unpacked; the archive {target} may be deleted")


def _check_present(source: Download, target: Path) -> None:
    if source.md5 and md5(target) != source.md5:
        raise DownloadError(f"{target} is there, but its MD5 is not {source.md5}; move it away and try again")
    print(f"{source.name}: downloaded before")


def _unpack(source: Download, target: Path, folder: Path) -> None:
    kept = unpack(target, folder / source.unpack, source.strip)
    if source.inner:
        kept += unpack(folder / source.unpack / source.inner, folder / source.unpack)
    if kept:
        print(f"{source.name}: {kept} files were there with another size and are left as they are")


def _fetch(source: Download, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    if source.drive:
        _fetch_from_drive(source, part)
    else:
        fetch_url(source.url, part)
    try:
        _refuse_page(part, drive_url(source.drive) if source.drive else source.url)
        if source.md5 and (found := md5(part)) != source.md5:
            raise DownloadError(f"its MD5 is {found}, not {source.md5}; it was thrown away: try again")
        if source.name.startswith("split_zhou_"):
            read_split(part)
    except InputError:
        part.unlink()  # nothing to resume from
        raise
    if source.md5 is None:
        print(f"{source.name}: no checksum is published for it")
    os.replace(part, target)


def md5(path: Path) -> str:
    """MD5 of a file: what is published, good against accidents only."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _refuse_page(part: Path, url: str) -> None:
    """Servers answer with a web page where there should be a file: a login, a quota, a notice of removal."""
    with open(part, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DownloadError(f"{url} answered with a web page instead of the file; open it in a browser to see why")


def _fetch_from_drive(source: Download, part: Path) -> None:
    import gdown  # only those who download need it

    try:
        # Its own temporary files, named like `part`, are what it resumes; `part` itself is a whole file.
        result = gdown.download(id=source.drive, output=str(part), resume=True)
    except Exception as error:  # gdown's and requests' errors share no base class
        reason = " ".join(str(error).split())[:200]
        raise DownloadError(f"Google Drive: {reason}; download {drive_url(source.drive)} by hand") from error
    if not result or not part.is_file():
        raise DownloadError(f"Google Drive gave nothing; download {drive_url(source.drive)} by hand")
