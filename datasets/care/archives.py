"""Unpacking archives from elsewhere: nothing outside the folder, no links, no file of the user's overwritten."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tqdm import tqdm

from tlla.errors import InputError
from tlla.files import whole_file

MOST_INFLATED = 100  # times its size that an archive may unpack to


@contextmanager
def _open(path: Path) -> Iterator[tuple[list[Any], Any]]:
    """The members of a zip or tar archive and a function that opens one."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield archive.infolist(), archive.open
        else:
            with tarfile.open(path) as archive:
                yield _members(archive), archive.extractfile
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(
            f"{path} is not a whole zip or tar archive ({reason}); delete it and download it again"
        ) from error


def _members(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    try:
        return archive.getmembers()
    except OSError as error:  # a size that no file has, or bad compression
        raise tarfile.ReadError(str(error)) from error


def _describe(member: Any) -> tuple[str, int, bool, bool]:
    """Name, size, whether it is a folder, whether it is a plain file."""
    if isinstance(member, zipfile.ZipInfo):
        kind = stat.S_IFMT(member.external_attr >> 16)
        folder = member.is_dir()
        return member.filename, member.file_size, folder, not folder and kind in (0, stat.S_IFREG)
    return member.name, member.size, member.isdir(), member.isreg()


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
        raise InputError(f"{archive} holds {name!r}, which leads out of its folder; nothing was unpacked")
    return path


def _plan(archive: Path, members: list[Any], strip: str) -> list[tuple[Any, PurePosixPath, int]]:
    """The files to write: (member, path without `strip`, size). All members are checked."""
    files = []
    for member in members:
        name, size, is_folder, is_file = _describe(member)
        path = _safe_path(archive, name)
        if not is_folder and not is_file:
            raise InputError(f"{archive} holds {name!r}, a link or device; nothing was unpacked")
        junk = "__MACOSX" in path.parts or path.name.startswith("._")
        if is_file and not junk and path.is_relative_to(strip):
            files.append((member, path.relative_to(strip), size))
    if not files:
        raise InputError(
            f"{archive} holds no files below {strip or 'its top'}: it is not the archive that was expected"
        )
    _check_size(archive, sum(size for _, _, size in files))
    return files


def _check_size(archive: Path, size: int) -> None:
    """Raises InputError if the files would fill the disk, or if so little cannot hold so much but in a bomb."""
    packed, free = archive.stat().st_size, shutil.disk_usage(archive.parent).free
    if size > MOST_INFLATED * packed + (16 << 20):
        raise InputError(
            f"{archive} has {packed:,} bytes and unpacks to {size:,}, as no images do; nothing was unpacked"
        )
    if size > free:
        raise InputError(
            f"{archive} unpacks to {size / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free; nothing was unpacked"
        )


def unpack(archive: Path, folder: Path, strip: str = "") -> int:
    """Unpacks a zip or tar archive; files that are there with the right size are left, so that a second try resumes.

    Args:
        archive: The archive.
        folder: Where its files go.
        strip: Folder inside the archive that is left out of the paths; what is outside it is not unpacked.

    Returns:
        How many files were there with another size; they are left as they are.

    Raises:
        InputError: it is damaged, or a member is a link, a device or leads out of `folder`; nothing is written then.
    """
    kept = 0
    with _open(archive) as (members, open_member):
        for member, path, size in tqdm(_plan(archive, members, strip), unit="file", desc=f"unpacking {archive.name}"):
            target = folder / path
            if not os.path.lexists(target):
                with open_member(member) as source, whole_file(target) as part, part.open("wb") as file:
                    shutil.copyfileobj(source, file)
            elif not target.is_file() or target.stat().st_size != size:
                kept += 1
    return kept
