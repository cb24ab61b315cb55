"""Part testtime: one image's 64 views under every method, in amp, and TPT as its authors run it."""

from typing import Any

import torch

from tlla.clip import encode_images
from tlla.methods import METHODS

from .. import common
from ..naive import openai_features
from ..tpt_and_tlla import NAIVE, predict_by
from .sizes import Rows, Sizes


def measure(sizes: Sizes) -> Rows:
    """Whole images by TLLA and TPT, then each method's own work, the features at hand."""
    for encoding, methods in ((True, ("STSS", "TPT", NAIVE)), (False, (*METHODS, NAIVE))):
        for n_classes in sizes.classes:
            for what in methods:
                label = {"method": what, "K": n_classes, "encoding": encoding}
                yield label, method_cost, what, n_classes, encoding, sizes


@torch.no_grad()
def method_cost(what: str, n_classes: int, encoding: bool, sizes: Sizes) -> dict[str, Any]:
    """Time and memory of an image, with or without the encoding of its views."""
    kind = sizes.backbone, sizes.device, "amp"
    model, pixels = common.random_clip(*kind), torch.randn(1, sizes.n_views, 3, 224, 224, device=sizes.device)
    predict = predict_by(what, n_classes, *kind)

    def encode() -> torch.Tensor:
        with common.in_precision(sizes.device, "amp"):
            if what == NAIVE:  # by OpenAI's own code
                return openai_features(model, pixels[0])[None]
            return encode_images(model, pixels[0])[None]

    features = encode()
    call = (lambda: predict(encode(), pixels)) if encoding else (lambda: predict(features, pixels))
    return common.measure(call, sizes.device, sizes.repeats)
