"""As many views as an image needs: they are encoded in rounds, and an image whose vote leads by a margin is done.

Letters in shapes: B images, V views, K classes, E joint space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..arguments import number
from ..errors import InputError
from ..methods.base import Method
from ..precision import float32_products
from ..rules import Known
from ..selection import lead
from .encode import ViewEncoder

FIRST = 8  # views of the first round; each later round doubles their number


def check_margin(margin: float, n_views: int) -> None:
    """Raises InputError unless a vote can lead by this margin, and there are views to spare.

    >>> check_margin(1.5, n_views=64)
    Traceback (most recent call last):
    tlla.errors.InputError: MARGIN must lie between 0 and 1, a difference of probabilities, but got 1.5
    """
    if number("MARGIN", margin) > 1:
        raise InputError(f"MARGIN must lie between 0 and 1, a difference of probabilities, but got {margin}")
    if margin and n_views <= FIRST:
        raise InputError(f"MARGIN {margin} spares nothing with {n_views} views: the first round has {FIRST}")


def round_sizes(n_views: int) -> list[int]:
    """Number of views that are known after each round.

    >>> round_sizes(64), round_sizes(20)
    ([8, 16, 32, 64], [8, 16, 20])
    """
    sizes = [FIRST]
    while sizes[-1] < n_views:
        sizes.append(2 * sizes[-1])
    return [*sizes[:-1], n_views]


class BatchViews:
    """The views of a batch of images and their features, which are encoded when they are first asked for.

    Args:
        encode: Encodes them.
        views: As `make_views` returns them, (B, V, 3, H, W); may have no pixels, (B, V, 0), if the features are known.
        known: Of the images, for rules that look at more than views.
        features: Of all views, (B, V, E), if they are known.
    """

    def __init__(self, encode: ViewEncoder, views: Tensor, known: Known | None = None, features: Tensor | None = None):
        self.encode, self.views, self.known = encode, views, known
        self.n_images, self.n_views = views.shape[:2]
        self._known = [0 if features is None else self.n_views] * self.n_images  # how many views of each are encoded
        self._features = torch.empty(0) if features is None else features  # (B, V, E), when some are known

    def features(self) -> Tensor:
        """Features of all views, (B, V, E)."""
        if not any(self._known):
            self._features, self._known = self.encode(self.views), [self.n_views] * self.n_images
        self._encode(self.n_views, range(self.n_images))
        return self._features

    def first(self, n: int, images: Sequence[int]) -> Tensor:
        """Features of the first n views of some images, (len(images), n, E)."""
        self._encode(n, images)
        return self._features[list(images), :n]

    def pixels(self) -> Tensor:
        """What the encoder sees of the views, (B, V, 3, H, W), float32."""
        return self.encode.pixels(self.views)

    def _encode(self, n: int, images: Sequence[int]) -> None:
        """Encodes together what is not known of the first n views of some images."""
        for start in sorted({known for image in images if (known := self._known[image]) < n}):
            missing = [image for image in images if self._known[image] == start]
            # Indexed with the channels last, as they are in memory.
            chosen = self.encode(self.views.movedim(2, -1)[missing, start:n].movedim(-1, 2))
            if not any(self._known):
                self._features = chosen.new_empty(*self.views.shape[:2], chosen.shape[-1])
            self._features[missing, start:n] = chosen
            for image in missing:
                self._known[image] = n


def predict_views(method: Method, batch: BatchViews, margin: float = 0.0) -> Tensor:
    """Class probabilities, (B, K), from all views, or with a margin from as many as each image needs.

    The encoder runs as the process has set it, the method in full float32 precision.

    Args:
        method: With a margin, one that `stops_early`.
        batch: The B images.
        margin: Between 0 and 1; 0: all views.

    >>> from tlla.methods import METHODS
    >>> from tlla.prompts.choose import make_classifier
    >>> method = METHODS["MeanViews"]()
    >>> method.start(make_classifier(model, ["cat", "dog"], "a photo of a {}."))
    >>> predict_views(method, BatchViews(ViewEncoder(model), torch.zeros(1, 9, 3, 64, 64, dtype=torch.uint8))).shape
    torch.Size([1, 2])
    """
    if margin:
        return predict_in_rounds(method, batch, margin)
    features, pixels = batch.features(), batch.pixels() if method.needs_images else None
    method.known = batch.known
    with float32_products(features.device):
        return method.predict(features, pixels)


def predict_in_rounds(method: Method, batch: BatchViews, margin: float) -> Tensor:
    """Class probabilities, (B, K), each from as many views as its image needs.

    After a round the method predicts from the views so far. An image is done if the two highest probabilities differ
    by at least `margin`, or if there are no more views. `method.details` has the number of views of each image.

    Args:
        method: One that `stops_early`.
        batch: The B images.
        margin: Between 0 and 1.

    >>> from tlla.methods import METHODS
    >>> from tlla.prompts.choose import make_classifier
    >>> method = METHODS["MeanViews"]()
    >>> method.start(make_classifier(model, ["cat", "dog"], "a photo of a {}."))
    >>> batch = BatchViews(ViewEncoder(model), torch.zeros(1, 20, 3, 64, 64, dtype=torch.uint8))
    >>> predict_in_rounds(method, batch, margin=0.0).shape, method.details["views"]
    (torch.Size([1, 2]), tensor([8]))
    """
    n_views, probability = batch.n_views, torch.empty(0)
    images = list(range(batch.n_images))
    for n in round_sizes(n_views):
        part = method.with_views(n, n_views)
        part.known = batch.known[images] if batch.known else None
        features = batch.first(n, images)
        with float32_products(features.device):
            found = part.predict(features)
        details = {**part.details, "views": torch.full_like(found[:, 0], n, dtype=torch.int64)}
        if not len(probability):
            probability, method.details = found.clone(), details
        else:
            probability[images] = found
            for name, values in details.items():
                method.details[name][images] = values
        images = [image for image, leads in zip(images, (lead(found) >= margin).tolist(), strict=True) if not leads]
        if not images:
            break
    return probability
