"""Loads images and their views in batches, optionally ahead by threads, so that they are never all in memory."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from PIL import Image
from torch import Tensor

from ..arguments import check_image, short, whole
from ..errors import InputError
from .make import ViewConfig, make_views
from .read_image import read_image

ImageLike = str | os.PathLike[str] | Image.Image
THUMBNAIL = 512  # longest side of an image that is kept for a drawing, in pixels


@dataclass(frozen=True)
class Loaded:
    """One image, or the reason why it could not be read.

    Attributes:
        index: Index among the images.
        name: Path, or "image <index>".
        views: (V, 3, size, size) from `make_views`; None if the image cannot be read.
        reason: Why it cannot be read.
        size: Width and height of the upright image, in pixels.
        thumbnail: The image, reduced; only on request.
    """

    index: int
    name: str
    views: Tensor | None = None
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    thumbnail: Image.Image | None = None


def load_views(index: int, source: ImageLike, config: ViewConfig, thumbnail: bool = False) -> Loaded:
    """Reads an image and makes its views.

    >>> loaded = load_views(0, "fruit.png", ViewConfig(size=32, n_views=4))
    >>> loaded.size, loaded.views.shape
    ((64, 64), torch.Size([4, 3, 32, 32]))
    """
    check_image(f"image {index}", source)
    name = getattr(source, "filename", "") or f"image {index}" if isinstance(source, Image.Image) else os.fspath(source)
    try:
        image = read_image(source)
    except InputError as error:
        return Loaded(index, str(name), reason=str(error))
    views = make_views(image, index, config)
    size = image.size
    if thumbnail:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    return Loaded(index, str(name), views, "", size, image if thumbnail else None)


def _several(images: Any) -> Iterable[ImageLike]:
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, (bytes, dict, set, frozenset)) or not hasattr(images, "__iter__"):
        raise InputError(f"images must be a sequence of paths or Pillow images, but got {short(images)}")
    return cast(Iterable[ImageLike], images)


def load_batches(
    images: Iterable[ImageLike],
    batch_size: int,
    config: ViewConfig,
    workers: int = 0,
    start: int = 0,
    thumbnail: bool = False,
) -> Iterator[list[Loaded]]:
    """Yields batches of images in their order; a generator of images is consumed as needed.

    Args:
        images: Paths or Pillow images.
        batch_size: Images per batch.
        config: Settings of the views.
        workers: Threads that load the next batch in advance; 0: none.
        start: Index of the first image.
        thumbnail: Whether to keep a small copy of each image.

    >>> [len(batch) for batch in load_batches([image] * 5, batch_size=2, config=ViewConfig(32, n_views=4))]
    [2, 2, 1]
    """
    workers, start = whole("workers", workers), whole("start", start)
    numbered = enumerate(_several(images), start)
    if not workers:
        while batch := [load_views(i, image, config, thumbnail) for i, image in islice(numbered, batch_size)]:
            yield batch
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Loaded]] = deque()
        try:
            while True:
                ahead = islice(numbered, 2 * batch_size - len(waiting))
                waiting += [pool.submit(load_views, i, image, config, thumbnail) for i, image in ahead]
                if not waiting:
                    return
                yield [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
        finally:
            for future in waiting:
                future.cancel()
