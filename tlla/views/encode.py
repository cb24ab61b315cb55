"""Features of views, as many at once as fit into memory.

Letters in shapes: N images, V views, E joint space.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..clip import encode_images, normalize
from .loader import ImageLike
from .make import ViewConfig, make_views
from .read_image import read_image


class ViewEncoder:
    """Encodes the pixels of views; a batch that does not fit into memory is encoded in smaller chunks.

    Args:
        model: CLIP; its device is used.
        at_once: Views encoded at once; halved, from then on, when memory is short.
        autocast: Returns the context in which the encoder runs; default: full precision.
        tell: Called with a message when `at_once` is halved.
    """

    def __init__(
        self,
        model: nn.Module,
        at_once: int = 512,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        tell: Callable[[str], object] = warnings.warn,
    ):
        self.model, self.at_once, self.autocast, self.tell = model, at_once, autocast, tell
        self.device: torch.device = next(model.parameters()).device

    @torch.no_grad()
    def __call__(self, views: Tensor) -> Tensor:
        """Normalised features of views as `make_views` returns them: (N, V, 3, H, W) -> (N, V, E), float32."""
        views = views.to(self.device, non_blocking=True)
        return self._encode(views.flatten(0, 1)).view(*views.shape[:2], -1)

    def pixels(self, views: Tensor) -> Tensor:
        """What the encoder sees of these views, (N, V, 3, H, W), float32."""
        return normalize(views.to(self.device, non_blocking=True), self.model)

    def _encode(self, views: Tensor) -> Tensor:
        while True:
            try:
                return torch.cat([self._encode_chunk(chunk) for chunk in torch.split(views, self.at_once)])
            except RuntimeError as error:
                short = isinstance(error, torch.cuda.OutOfMemoryError) or "STATUS_ALLOC_FAILED" in str(error)
                if not short or self.at_once == 1:
                    raise
            # Not inside the handler, whose traceback would keep the tensors alive.
            self.at_once //= 2
            self.tell(f"Out of memory: continuing with {self.at_once} views at once (VIEW_BATCH, --batch-views)")
            torch.cuda.empty_cache()

    def _encode_chunk(self, views: Tensor) -> Tensor:
        pixels = self.pixels(views)
        with self.autocast():
            return encode_images(self.model, pixels)

    def images(self, images: Iterable[ImageLike], config: ViewConfig) -> Tensor:
        """Features of the views of images, which are read one by one, (N, V, E)."""
        each = (make_views(read_image(image), index, config)[None] for index, image in enumerate(images))
        return torch.cat([self(views) for views in each])
