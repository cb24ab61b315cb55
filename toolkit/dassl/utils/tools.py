"""Files, images and a description of the environment."""

import functools
import json
import os
import platform
import warnings
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

from .storage import write_atomically


class ImageError(ValueError):
    """An image file is missing or unreadable. The message is one sentence with the path."""

    def __init__(self, message: str):
        # A DataLoader re-raises a worker's exception by calling its class with a whole traceback as the message;
        # the sentence after the last "ImageError: " is what the user needs.
        if message.startswith("Caught "):
            message = message.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(message)


def mkdir_if_missing(dirname: str) -> None:
    """Creates a directory and its parents if they are missing; an empty name is the working directory."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Says whether ``fpath`` is a file; warns if not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return isfile


def read_json(fpath: str) -> Any:
    """Reads a JSON file."""
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def write_json(obj: Any, fpath: str) -> None:
    """Writes a JSON file whole or not at all, and its directory if missing."""
    mkdir_if_missing(os.path.dirname(fpath))
    text = json.dumps(obj, indent=4, separators=(",", ": "))
    write_atomically(fpath, lambda file: file.write(text.encode()))


def read_image(path: str) -> Image.Image:
    """Reads an image as RGB. ImageError if the file is missing or cannot be decoded; the message names it."""
    if not os.path.isfile(path):
        raise ImageError(f'No image file at "{one_line(path)}"')
    try:
        with Image.open(path, formats=_formats()) as image:
            return _eight_bit(image).convert("RGB")
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f'Cannot read the image "{one_line(path)}": {reason}') from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Formats that Pillow decodes by itself: for PostScript, whatever a file's name, it would start Ghostscript."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8, as colours of 16 bits are: Pillow would cut all above 255 off."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    tags = getattr(image, "tag_v2", {})  # TIFF's: 258 bits a pixel, 339 kind of number (1: unsigned)
    bits = tags.get(258, (16,))[0] if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else 32
    if image.mode == "F" or bits > 16 or tags.get(339, (1,)) not in (1, (1,)):
        raise ValueError(f"pixels of mode {image.mode} have no agreed brightness, save it with 8 or 16 bits a channel")
    scale = 255 / ((1 << bits) - 1)
    return Image.fromarray((np.asarray(image).astype(np.float32) * scale + 0.5).astype(np.uint8))


def one_line(path: str) -> str:
    """A path as a message shows it: file names may hold line breaks."""
    return path.replace("\n", "\\n").replace("\r", "\\r")


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """Lists what does not start with a dot in a directory, sorted on request."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def tolist_if_not(x: Any) -> list:
    """Returns ``x`` itself if it is a list, else a list that holds it."""
    return x if isinstance(x, list) else [x]


def collect_env_info() -> str:
    """Describes the machine and the versions that decide numbers, one line each."""
    lines = [
        f"Platform: {platform.platform()}",
        f"Python: {platform.python_version()}",
        f"torch: {torch.__version__} (CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()})",
        f"torchvision: {torchvision.__version__}",
        f"numpy: {np.__version__}",
        f"Pillow: {PIL.__version__}",
        f"CPU threads: {torch.get_num_threads()}",
    ]
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        lines.append(f"GPU {index}: {torch.cuda.get_device_name(index)} (capability {major}.{minor})")
    return "\n".join(lines)
