"""Part feed: what the loader's workers do on a core, how a batch reaches the GPU, and views that are made there."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from tlla.clip import normalize
from tlla.views.make import ViewConfig, make_views

from .. import common, views
from .card import copying
from .sizes import Rows, Sizes


def measure(sizes: Sizes) -> Rows:
    """From the file to normalised pixels."""
    yield {"what": "ms an image on a core"}, on_a_core, sizes
    for way in ("pinned to device", "pageable to device"):
        yield {"what": "copy", "way": way}, copying, way, sizes
    yield {"what": "normalise a batch on the GPU"}, normalised, sizes
    for width, height in sizes.photos:
        yield {"what": "views on the GPU", "photo": f"{width} x {height}"}, made_on_device, width, height, sizes


def uint8_views(sizes: Sizes) -> Tensor:
    """A batch as it is made, (N, V, 3, H, W), channels last in memory."""
    n = max(1, sizes.at_once[0] // sizes.n_views)
    return torch.zeros(n, sizes.n_views, 224, 224, 3, dtype=torch.uint8).permute(0, 1, 4, 2, 3)


def on_a_core(sizes: Sizes) -> dict[str, float]:
    """Decoding, making views, and collating: as torch does it, and without a change of the layout."""
    data, config, several = views.jpeg(), ViewConfig(views.SIZE, sizes.n_views), list(uint8_views(sizes))
    image = views.decode(data)
    parts = {
        "decode": lambda: views.decode(data),
        "views": lambda: make_views(image, 0, config),
        "collate": lambda: default_collate(several),
        "collate, channels last": lambda: default_collate([x.permute(0, 2, 3, 1) for x in several]),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = views.core_seconds(parts, sizes.repeats)
    torch.set_num_threads(threads)
    return {name: 1000 * s / (len(several) if "collate" in name else 1) for name, s in seconds.items()}


def normalised(sizes: Sizes) -> dict[str, Any]:
    """Time and memory."""
    pixels = uint8_views(sizes).to(sizes.device)
    return common.measure(lambda: normalize(pixels), sizes.device, sizes.repeats)


def made_on_device(width: int, height: int, sizes: Sizes) -> dict[str, Any]:
    """Time and memory of one image, its upload included."""
    image = views.decode(views.jpeg(width, height))
    return common.measure(lambda: views.on_device(image, sizes.device, sizes.n_views), sizes.device, sizes.repeats)
