"""Fetch the npm packages the benchmark is drawn from, each by name@version, and check their SHA-256."""

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("packages.json")


def packages() -> dict[str, dict[str, Any]]:
    """Name of each npm package -> version, sha256, role, title, author, licence, url."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def tarball_name(name: str, version: str) -> str:
    """The file name `npm pack` gives a package."""
    return f"{name.replace('@', '').replace('/', '-')}-{version}.tgz"


def download(name: str, version: str, folder: Path) -> Path:
    """The package's tarball in `folder`, fetched through npm when it is not there yet."""
    path = folder / tarball_name(name, version)
    if not path.exists():
        command = ["npm", "pack", "--silent", f"{name}@{version}", "--pack-destination", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def check(path: Path, sha256: str) -> None:
    """Refuse a tarball other than the one the benchmark was built from."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {sha256}; delete the file and run again")


def fetch(name: str, work: Path) -> Path:
    """Folder with the unpacked package; downloads, checks and unpacks it at the first call."""
    entry = packages()[name]
    for folder in (work / "npm", work / "unpacked"):
        folder.mkdir(parents=True, exist_ok=True)
    path = download(name, entry["version"], work / "npm")
    target = work / "unpacked" / path.name.removesuffix(".tgz")
    if not (target / "package").exists():
        check(path, entry["sha256"])
        with tarfile.open(path) as archive:
            archive.extractall(target, filter="data")
    return target / "package"
