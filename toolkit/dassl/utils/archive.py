"""Unpacking archives from elsewhere without letting them write outside their folder."""

import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable


class ArchiveError(ValueError):
    """An archive is of an unknown kind, damaged, or holds something that is not unpacked."""


def extract_archive(path: str, directory: str) -> None:
    """Unpacks a zip or tar archive; all members are checked before the first is written.

    Args:
        path: The archive; its kind is told by its content.
        directory: Where its files go.

    Raises:
        ArchiveError: It is neither zip nor tar, or a member is a link, a device, or would leave ``directory``.
    """
    try:
        _extract(path, directory)
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ArchiveError(f'"{path}" cannot be unpacked ({reason}); is it whole, and is the disk not full?') from error


def _extract(path: str, directory: str) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                _check_member(path, info.filename, directory, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            _extract_whole(directory, archive.extractall)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            for member in members:
                _check_member(path, member.name, directory, member.isfile() or member.isdir())
            for member in members:
                member.mode = 0o755 if member.isdir() else 0o644  # no set-uid bits, and readable by its owner
            _extract_whole(directory, lambda part: archive.extractall(part, members, **_data_filter()))
    else:
        raise ArchiveError(f'"{path}" is neither a zip nor a tar archive; delete it and download it again')


def _extract_whole(directory: str, extract: Callable[[str], None]) -> None:
    """Lets no other process see half a file: they are written elsewhere in ``directory``, then moved."""
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=directory) as part:
        extract(part)
        for folder, _, files in os.walk(part):
            target = os.path.join(directory, os.path.relpath(folder, part))
            os.makedirs(target, exist_ok=True)
            for name in files:
                os.replace(os.path.join(folder, name), os.path.join(target, name))


def _check_member(path: str, name: str, directory: str, is_plain: bool) -> None:
    """Refuses links, devices and names that lead out of ``directory``."""
    root = os.path.realpath(directory)
    target = os.path.realpath(os.path.join(root, name))
    if not is_plain:
        raise ArchiveError(f'"{path}" holds "{name}", which is neither a file nor a folder; nothing was unpacked')
    if target != root and not target.startswith(root + os.sep):
        raise ArchiveError(f'"{path}" holds "{name}", which lies outside "{directory}"; nothing was unpacked')


def _data_filter() -> dict[str, str]:
    """Python's own second check, where this Python has it (3.12, and later releases of 3.10 and 3.11)."""
    return {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
