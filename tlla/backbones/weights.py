"""Files of CLIP weights: their paths, download, checksums and content.

Names, URLs and checksums of OpenAI's weights come from the `clip` package.
"""

import gzip
import hashlib
import io
import os
import pickle
import urllib.request
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError, nearest
from ..files import one_at_a_time, whole_file
from .openai_package import clip
from .weight_names import strip_wrappers

EMBEDDED = {"EmojiCLIP": "emoji_clip.pt.gz"}
HOLDERS = ("state_dict", "model_state_dict", "model")  # keys under which training loops save a state dict
MOST_INFLATED = 20  # times its size that a file may unpack to: weights hardly compress, only a zip bomb does


def assets_dir() -> Path:
    """Folder of the embedded benchmark and its CLIP: ``assets`` beside this package, or inside it in the wheel.

    >>> (assets_dir() / "emoji_clip.pt.gz").is_file()
    True
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def find_weights(name: str, known: Sequence[str] = ()) -> Path:
    """Path of a model's weights; OpenAI's are downloaded once to ``$CLIP_CACHE`` or ``~/.cache/clip``.

    Args:
        name: Name of an OpenAI model or of the embedded one, or a path.
        known: Further names, for the message.

    >>> find_weights("EmojiCLIP").name
    'emoji_clip.pt.gz'
    """
    if name in EMBEDDED:
        path = assets_dir() / EMBEDDED[name]
        if not path.is_file():
            raise InputError(
                f"the embedded model {name} is missing at {path}: install from a full checkout of the repository"
            )
        return path
    if name in clip._MODELS:
        return _openai_weights(name)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file with the CLIP weights")
    raise InputError(
        f"there is no CLIP named {name!r} and no such file: {nearest(name, [*clip._MODELS, *EMBEDDED, *known])}"
    )


def openai_file(name: str) -> Path:
    """Path at which OpenAI's weights of that name are, or will be after their download.

    >>> openai_file("ViT-B/16").name
    'ViT-B-16.pt'
    """
    return Path(os.environ.get("CLIP_CACHE", "~/.cache/clip")).expanduser() / str(clip._MODELS[name]).split("/")[-1]


def _openai_weights(name: str) -> Path:
    url = str(clip._MODELS[name])
    expected = url.split("/")[-2]
    path = openai_file(name)
    try:
        if not path.is_file():
            with one_at_a_time(path):
                if not path.is_file():
                    _download(url, path, expected, name)
                    return path
    except OSError as error:
        raise InputError(
            f"the weights of {name} are not at {path} and could not be downloaded ({error}): "
            f"download {url} on another machine and put it there, or set CLIP_CACHE to the folder that has it"
        ) from error
    # A file that does not match belongs to the user: it is reported, not deleted.
    return _check_sha256(path, expected, name)


def _check_sha256(path: Path, expected: str, name: str) -> Path:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise InputError(
            f"{path} is not OpenAI's {name} or is incomplete: {path.stat().st_size:,} bytes with sha256 "
            f"{digest.hexdigest()[:16]}..., expected {expected[:16]}...: remove the file and run again to download it"
        )
    return path


def _download(url: str, path: Path, expected: str, name: str) -> None:
    """Downloads beside the target and renames after the check, so that a killed download leaves no partial file."""
    with whole_file(path) as part:
        with part.open("wb") as output, urllib.request.urlopen(url, timeout=60) as source:
            total = int(source.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=f"download {name}") as bar:
                while block := source.read(1 << 18):
                    output.write(block)
                    bar.update(len(block))
        _check_sha256(part, expected, name)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of OpenAI's JIT archive, a saved state dict (may be gzipped) or a safetensors file; runs no code.

    Prefixes of wrappers are removed from the names.

    Raises:
        InputError: the file is of another kind, is truncated, or holds more than tensors.

    >>> torch.save({"state_dict": {"module.text_projection": torch.zeros(2)}}, "clip.pt")
    >>> read_state_dict(Path("clip.pt"))
    {'text_projection': tensor([0., 0.])}
    """
    try:
        loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, so it is refused (loading it could run code): "
            "save the state dict alone, torch.save(model.state_dict(), ...)"
        ) from error
    except InputError:
        raise
    except Exception as error:  # RuntimeError, EOFError, KeyError, struct.error, zlib.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as CLIP weights ({reason}): "
            "expected OpenAI's JIT archive or a saved state dict; the file may be truncated"
        ) from error
    state_dict = next((loaded[k] for k in HOLDERS if k in loaded), loaded) if isinstance(loaded, dict) else None
    if not isinstance(state_dict, dict) or not state_dict or not all(_is_weight(*item) for item in state_dict.items()):
        raise InputError(f"{path} holds {type(loaded).__name__}, not a state dict of tensors: expected CLIP weights")
    if broken := [k for k, v in state_dict.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise InputError(f"{path} holds weights that are not finite (NaN or infinite), the first is {broken[0]}")
    return strip_wrappers(state_dict)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path} needs the package safetensors: run pip install safetensors") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error


def _load_torch(path: Path) -> Any:
    data = _read_bytes(path)
    return _load_jit(data) if _is_jit(data) else torch.load(io.BytesIO(data), "cpu", weights_only=True)


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked if it is gzipped; InputError if it, or the zip in it, unpacks to too many bytes."""
    most = MOST_INFLATED * path.stat().st_size
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        data = file.read(most + 1)
    size = len(data)
    if zipfile.is_zipfile(io.BytesIO(data)):
        size = sum(member.file_size for member in zipfile.ZipFile(io.BytesIO(data)).infolist())
    if size > most:
        raise InputError(f"{path} is refused: it has {path.stat().st_size:,} bytes and unpacks to more than {most:,}")
    return data


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _is_jit(data: bytes) -> bool:
    """A TorchScript archive is a zip with a code/ folder; a plain torch.save is a zip without one."""
    buffer = io.BytesIO(data)
    return zipfile.is_zipfile(buffer) and any("/code/" in name for name in zipfile.ZipFile(buffer).namelist())


def _load_jit(data: bytes) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated, but OpenAI's files need it
        return dict(torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict())  # type: ignore[no-untyped-call]
