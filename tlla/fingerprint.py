"""Fingerprints of what a result depends on: tensors, weights, class lists, splits, files, configs."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import weakref
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import __version__
from .backbones import as_backbone
from .errors import InputError

PACKAGES = ("torch", "torchvision", "dassl", "clip-anytorch", "numpy", "pillow")
EXTRAS = ("open_clip_torch", "timm", "transformers")  # can change the results of some backbones


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 of a tensor's values as little-endian float32, the same on every device.

    >>> tensor_sha256(torch.ones(2)) == tensor_sha256(torch.ones(2).half())
    True
    """
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def weights_sha256(clip_model: nn.Module, exact: bool = False) -> str:
    """sha256 over the names, shapes and values of all weights of a CLIP.

    Args:
        clip_model: Any CLIP.
        exact: Whether dtypes and all bits count. By default floats are rounded to fp16, so that a CLIP has the same
            fingerprint in half and in full precision.

    It costs a second for a large CLIP, so it is remembered until a weight is replaced or changed in place; only a
    change through `Tensor.data`, which torch does not count, stays unnoticed.

    >>> weights_sha256(model)[:8]
    '19187371'
    """
    weights = as_backbone(clip_model).named_weights()
    state = [(name, weight.data_ptr(), weight._version, weight.dtype) for name, weight in weights.items()]
    known = _found.setdefault(clip_model, {})
    if known.get(exact, ("", None))[1] != state:
        lines = (f"{name}\t{_weight(weights[name], exact)}" for name in sorted(weights))
        known[exact] = _lines_sha256(lines), state
    return known[exact][0]


# By model and `exact`: the fingerprint, and the state of the weights of which it is.
_found: weakref.WeakKeyDictionary[nn.Module, dict[bool, tuple[str, list[tuple[Any, ...]]]]] = (
    weakref.WeakKeyDictionary()
)


def _weight(tensor: Tensor, exact: bool) -> str:
    if tensor.is_floating_point() and not exact:
        tensor = tensor.half()
    kind = tensor.dtype
    if kind == torch.bfloat16:  # which NumPy lacks
        tensor = tensor.float()
    values = tensor.detach().cpu().contiguous().reshape(-1).numpy()
    return f"{kind} {tuple(tensor.shape)} {hashlib.sha256(values.data).hexdigest()}"


def are_weights(sha256: str, clip_model: nn.Module) -> bool:
    """Whether a saved `weights_sha256` matches this CLIP; older checkpoints hold that of a single matrix.

    >>> are_weights(weights_sha256(model), model)
    True
    """
    return sha256 in (weights_sha256(clip_model), tensor_sha256(as_backbone(clip_model).fingerprint().half()))


def names_sha256(names: Sequence[str]) -> str:
    """sha256 of a list of class names; their order counts.

    >>> names_sha256(["cat", "dog"]) == names_sha256(["dog", "cat"])
    False
    """
    return _lines_sha256(name.replace("\n", "\\n") for name in names)


def class_order(what: str, there: Sequence[str], here: Sequence[str], some: bool = False) -> list[int]:
    """Index in `there` of each class of `here`, to reorder what is stored by class.

    Args:
        what: Whose classes `there` are, for the message.
        there: Names of the classes that something is stored for.
        here: Those of this run.
        some: Whether these may be only some of those.

    Raises:
        InputError: the two lists hold different names, or differ in order while a name is repeated.

    >>> class_order("the cache", ["cat", "dog"], ["dog", "cat"])
    [1, 0]
    >>> class_order("the cache", ["cat", "cow", "dog"], ["dog", "cat"], some=True)
    [2, 0]
    """
    there, here = ([name.replace("_", " ") for name in names] for names in (there, here))
    if there == here:
        return list(range(len(here)))
    places = {name: place for place, name in enumerate(there)}
    count = Counter(there)
    if (some or len(there) == len(here)) and all(name in places for name in here):
        repeated = [name for name in here if count[name] > 1]
        if not repeated and len(set(here)) == len(here):
            return [places[name] for name in here]
        if repeated and some:
            raise InputError(f"{what} has more than one class named {repeated[0]!r}, and no ids: make it anew")
    raise InputError(
        f"{what} is for {len(there)} classes ({_some(there, here)}), but this run has {len(here)} "
        f"({_some(here, there)}): use it with the classes that it was made for{', or some of them' if some else ''}"
    )


def _some(names: Sequence[str], others: Sequence[str]) -> str:
    """The first few names, beginning with those that `others` lacks."""
    known = set(others)
    names = sorted(names, key=lambda name: name in known)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def split_sha256(items: Iterable[Any], root: str) -> str:
    """sha256 of the lines ``path<TAB>label`` of a list of Datum; paths are relative to the dataset's folder `root`.

    Identifies a split's images and labels on any machine, but not the content of the files: see `files_sha256`.

    >>> item = type("Datum", (), {"impath": "/data/pets/cat/1.jpg", "label": 0})
    >>> split_sha256([item], "/data/pets")[:8]
    '1ce797fb'
    """
    paths = ((Path(os.path.relpath(item.impath, root or None)).as_posix(), item.label) for item in items)
    return _lines_sha256(f"{path}\t{label}" for path, label in paths)


def files_sha256(paths: Iterable[str | Path]) -> str:
    """sha256 of the sizes and modification times of files, in this order; a missing file counts as missing.

    Changes when a file is replaced under the same name. No content is read: a million files take seconds.

    >>> before, _ = files_sha256(["fruit.png"]), os.utime("fruit.png", (0, 0))
    >>> files_sha256(["fruit.png"]) == before
    False
    """
    return _lines_sha256(_stamp(_stat(path)) for path in paths)


def file_identity(path: str | Path) -> Hashable:
    """A key that is the same for all paths and links to a file; for a missing file, its absolute path.

    >>> file_identity("fruit.png") == file_identity(Path("fruit.png").resolve())
    True
    """
    return _identity(path, _stat(path))


def files_sha256_and_identities(paths: Iterable[str | Path]) -> tuple[str, list[Hashable]]:
    """`files_sha256` and each file's `file_identity`; each file is looked up once.

    >>> files_sha256_and_identities(["fruit.png"]) == (files_sha256(["fruit.png"]), [file_identity("fruit.png")])
    True
    """
    found = [(path, _stat(path)) for path in paths]
    return _lines_sha256(_stamp(status) for _, status in found), [_identity(*pair) for pair in found]


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity(path: str | Path, status: os.stat_result | None) -> Hashable:
    return (status.st_dev, status.st_ino) if status else os.path.abspath(path)


def _stamp(status: os.stat_result | None) -> str:
    return f"{status.st_size} {status.st_mtime_ns}" if status else "missing"


@functools.cache
def source_sha256(*places: Path) -> str:
    """sha256 of the names and contents of some Python files, and of all below some folders, as of the first call.

    >>> _ = Path("method.py").write_text("top_s = 16")
    >>> source_sha256(Path.cwd())[:8]
    'e1e4d6f1'
    """
    files = ((path, place) for place in places for path in (sorted(place.rglob("*.py")) or [place]))
    rows = ((path.relative_to(place).as_posix(), hashlib.sha256(path.read_bytes())) for path, place in files)
    return _lines_sha256(f"{name}\t{digest.hexdigest()}" for name, digest in rows)


def versions(packages: Iterable[str] = PACKAGES, use_cuda: bool = True) -> dict[str, str]:
    """Versions of Python, this project and packages that can change a result, and the name of the GPU, if it is used.

    >>> versions(["no-such-package"])["no-such-package"]
    'not installed'
    """
    found = {"tlla": __version__, "python": platform.python_version()}
    found |= {package: _installed(package) for package in packages}
    found["device"] = torch.cuda.get_device_name() if use_cuda and torch.cuda.is_available() else "cpu"
    return found


@functools.cache
def _installed(package: str) -> str:
    """Its version; asked for by every part of a test."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def key_of(everything: Any) -> str:
    """A fingerprint of plain values: 16 hexadecimal digits.

    >>> key_of({"seed": 1, "views": 64})
    'bb5422c33d102508'
    """
    text = json.dumps(everything, sort_keys=True).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def _lines_sha256(lines: Iterable[str]) -> str:
    """sha256 of lines, each followed by a line break; accepts any file name."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def flat_config(config: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """A nested config as one flat dict, tuples as lists, without some keys or nodes.

    >>> flat_config({"TRAINER": {"SAPT": {"RHO": 0.05}}, "OUTPUT_DIR": "runs"}, without=["OUTPUT_DIR"])
    {'TRAINER.SAPT.RHO': 0.05}
    """
    out = tuple(f"{name}." for name in without)
    kept = {key: value for key, value in config_leaves(config) if not f"{key}.".startswith(out)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def config_leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys and values of a config, the nodes' names before the dots.

    >>> list(config_leaves({"TRAINER": {"SAPT": {"RHO": 0.05}}, "SEED": 1}))
    [('TRAINER.SAPT.RHO', 0.05), ('SEED', 1)]
    """
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from config_leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The differences between two flat configs, sorted by key.

    >>> differences({"SEED": 1, "N_CTX": 4}, {"SEED": 2, "N_CTX": 4})
    ['SEED is 1 there and 2 here']
    """
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    return [f"{key} is {there.get(key)!r} there and {here.get(key)!r} here" for key in keys]
