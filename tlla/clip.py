"""Find, check and load a CLIP: one of OpenAI's by name, a local file, or the embedded `EmojiCLIP`.

Weights: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020.
Names, addresses and checksums come from the `clip` package.
"""

import gzip
import hashlib
import io
import os
import pickle
import tempfile
import urllib.request
import warnings
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from clip import clip
from clip.model import build_model, convert_weights
from torch import Tensor, nn
from tqdm import tqdm

from .errors import InputError, nearest

EMBEDDED = {"EmojiCLIP": "emoji_clip.pt.gz"}
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def available_models() -> list[str]:
    """Names that `load_clip` knows: OpenAI's and the embedded ones."""
    return [*clip._MODELS, *EMBEDDED]


def assets_dir() -> Path:
    """The folder of the embedded benchmark and its CLIP: ``assets`` beside this package, or inside it in the wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def load_clip(name: str, device: torch.device | str = "cpu", half: bool = False) -> nn.Module:
    """Loads OpenAI's CLIP, frozen and in evaluation mode.

    Args:
        name: A name of `available_models()`, or a path to a JIT archive of OpenAI's or to a state dict
            (fp16 or fp32, optionally gzipped).
        device: Where the model goes.
        half: OpenAI's fp16 weights; on the CPU the model is always fp32.

    Returns:
        The model; sizes are read from it (`image_size`, ``text_projection.shape``, ...), never assumed.

    Raises:
        InputError: unknown name, missing, truncated or foreign file, or a checksum that does not match.
    """
    state_dict = _read_state_dict(find_weights(name))
    try:
        model = build_model(dict(state_dict))
    except (KeyError, RuntimeError, IndexError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the weights of {name!r} are not a state dict of OpenAI's CLIP ({type(error).__name__}: {reason})"
        ) from error
    # build_model rounds to fp16; loading once more keeps the precision of the file.
    model.float().load_state_dict({k: v for k, v in state_dict.items() if k in model.state_dict()})
    if half and torch.device(device).type != "cpu":
        convert_weights(model)
    model.visual.to(memory_format=torch.channels_last)  # faster convolutions, on CPUs and GPUs alike
    return model.to(device).eval().requires_grad_(False)


def image_size(model: nn.Module) -> int:
    """Side of the square images that the model takes, in pixels."""
    return int(model.visual.input_resolution)


def logit_scale(model: nn.Module) -> Tensor:
    """The inverse temperature: exp of the stored logarithm, a float32 scalar."""
    return model.logit_scale.float().exp()


def encode_images(model: nn.Module, images: Tensor) -> Tensor:
    """Normalised image features: preprocessed images (B, 3, H, W) -> (B, E), float32."""
    return F.normalize(model.encode_image(images).float(), dim=-1)


def normalize(images: Tensor) -> Tensor:
    """CLIP's pixel normalisation: (..., 3, H, W), uint8 in 0..255 or float in 0..1 -> float32."""
    mean, std = (_per_channel(values, images) for values in (PIXEL_MEAN, PIXEL_STD))
    pixels = images.float().div_(255).sub_(mean) if images.dtype == torch.uint8 else images - mean
    return pixels.div_(std)


def _per_channel(values: tuple[float, ...], images: Tensor) -> Tensor:
    """(3, 1, W), with the channels innermost in memory as in views: three times as fast to broadcast as (3, 1, 1)."""
    row = torch.tensor(values, device=images.device).expand(images.shape[-1], 3).contiguous()  # (W, 3)
    return row.t().unsqueeze(1)


def find_weights(name: str) -> Path:
    """Path of the weights for a name or path; OpenAI's are downloaded once to ``$CLIP_CACHE`` or ``~/.cache/clip``."""
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
        raise InputError(f"{path} is a folder: give the file with the CLIP weights")
    raise InputError(f"there is no CLIP named {name!r} and no such file: {nearest(name, available_models())}")


def _openai_weights(name: str) -> Path:
    url = clip._MODELS[name]
    expected = url.split("/")[-2]
    folder = Path(os.environ.get("CLIP_CACHE", "~/.cache/clip")).expanduser()
    path = folder / url.split("/")[-1]
    if path.is_file():
        # A file that does not match is the user's: it is reported, never deleted.
        return _check_sha256(path, expected, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(url, path, expected, name)
    except OSError as error:
        raise InputError(
            f"the weights of {name} are not at {path} and could not be downloaded ({error}): "
            f"download {url} on another machine and put it there, or set CLIP_CACHE to the folder that has it"
        ) from error
    return path


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
    """Downloads beside the target and renames after the check, so that a killed download leaves no half file."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as output, urllib.request.urlopen(url, timeout=60) as source:
            total = int(source.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=f"download {name}") as bar:
                while block := source.read(1 << 18):
                    output.write(block)
                    bar.update(len(block))
        _check_sha256(Path(part), expected, name)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        data = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
        loaded = _load_jit(data) if _is_jit(data) else torch.load(io.BytesIO(data), "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, so it is refused (loading it could run code): "
            "save the state dict alone, torch.save(model.state_dict(), ...)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as CLIP weights ({reason}): "
            "expected OpenAI's JIT archive or a saved state dict; the file may be truncated"
        ) from error
    state_dict = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not state_dict or not all(isinstance(v, Tensor) for v in state_dict.values()):
        raise InputError(f"{path} holds no state dict of tensors but {type(loaded).__name__}: expected CLIP weights")
    return {k.removeprefix("module."): v for k, v in state_dict.items()}


def _is_jit(data: bytes) -> bool:
    """A TorchScript archive is a zip with a code/ folder; a plain torch.save is a zip without one."""
    buffer = io.BytesIO(data)
    return zipfile.is_zipfile(buffer) and any("/code/" in name for name in zipfile.ZipFile(buffer).namelist())


def _load_jit(data: bytes) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated, but it is what OpenAI's files are
        return dict(torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict())
