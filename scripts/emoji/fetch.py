"""Fetch the npm packages the benchmark is drawn from, each by name@version, and check their SHA-256."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tlla.files import one_at_a_time

TABLE = Path(__file__).with_name("packages.json")


def packages() -> dict[str, dict[str, Any]]:
    """Name of each npm package -> version, sha256, role, title, author, licence, url."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def tarball_name(name: str, version: str) -> str:
    """The file name `npm pack` gives a package."""
    return f"{name.replace('@', '').replace('/', '-')}-{version}.tgz"


def fetch_package(name: str, version: str, folder: Path) -> Path:
    """The package's tarball in `folder`, fetched through npm when it is not there yet."""
    path = folder / tarball_name(name, version)
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as part:
            command = ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", part]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            os.replace(Path(part, path.name), path)
    return path


def check_sha256(path: Path, sha256: str) -> None:
    """Refuse a tarball other than the one the benchmark was built from."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {sha256}; delete the file and run again")


def fetch(name: str, work: Path) -> Path:
    """Folder with the unpacked package; the first process downloads, checks and unpacks it, whole or not at all."""
    entry = packages()[name]
    target = work / "unpacked" / tarball_name(name, entry["version"]).removesuffix(".tgz")
    if not target.exists():
        with one_at_a_time(target):
            if not target.exists():
                _unpack(name, entry, work, target)
    return target / "package"


def _unpack(name: str, entry: dict[str, Any], work: Path, target: Path) -> None:
    (work / "npm").mkdir(parents=True, exist_ok=True)
    path = fetch_package(name, entry["version"], work / "npm")
    check_sha256(path, entry["sha256"])
    with tempfile.TemporaryDirectory(dir=target.parent) as part, tarfile.open(path) as archive:
        archive.extractall(Path(part, "whole"), filter="data")
        os.rename(Path(part, "whole"), target)
