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
    def __call__(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features, and the pixels that the encoder saw.

        Args:
            views: As `make_views` returns them, (N, V, 3, H, W).

        Returns:
            (N, V, E) and (N, V, 3, H, W), float32, on the model's device.
        """
        pixels = normalize(views.to(self.device, non_blocking=True), self.model)
        return self._encode(pixels.flatten(0, 1)).view(*pixels.shape[:2], -1), pixels

    def _encode(self, pixels: Tensor) -> Tensor:
        while True:
            try:
                with self.autocast():
                    return torch.cat([encode_images(self.model, chunk) for chunk in torch.split(pixels, self.at_once)])
            except torch.OutOfMemoryError:
                if self.at_once == 1:
                    raise
            # Not inside the handler, whose traceback would keep the tensors alive.
            self.at_once //= 2
            self.tell(f"Out of memory: continuing with {self.at_once} views at once (VIEW_BATCH, --batch-views)")
            torch.cuda.empty_cache()

    def images(self, images: Iterable[ImageLike], config: ViewConfig) -> Tensor:
        """Features of the views of images, which are read one by one, (N, V, E)."""
        each = (make_views(read_image(image), index, config)[None] for index, image in enumerate(images))
        return torch.cat([self(views)[0] for views in each])
