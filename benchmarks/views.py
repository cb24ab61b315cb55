"""Cost of making 64 views of a 500 x 375 JPEG on one core, against torchvision's transforms one view at a time.

"view by view" is the usual pipeline of test-time methods: RandomResizedCrop, RandomHorizontalFlip, ToTensor and
Normalize for each view, with AugMix from Pillow's operations on request. tlla's views are uint8 (float32 with AugMix)
and are normalised all at once, on the model's device; "+ normalize" does that on the core, too. "on cpu" or "on cuda"
makes them there from the decoded image (by the clock, the rest by processor time); on a GPU the last row is the image
encoder's time.

    python -m benchmarks.views
"""

import io
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms as T

from tlla.clip import PIXEL_MEAN, PIXEL_STD, encode_images, normalize
from tlla.command_line import call
from tlla.views.device import make_views_on_device
from tlla.views.make import ViewConfig, draw_crops, make_views

from . import common

SIZE, N_VIEWS = 224, 64
TO_TENSOR = T.Compose([T.ToTensor(), T.Normalize(PIXEL_MEAN, PIXEL_STD)])
PLAIN = T.Compose([T.Resize(SIZE, T.InterpolationMode.BICUBIC), T.CenterCrop(SIZE), TO_TENSOR])
CROP = T.Compose([T.RandomResizedCrop(SIZE), T.RandomHorizontalFlip()])


def jpeg(width: int = 500, height: int = 375) -> bytes:
    """A picture of smooth noise with a little grain."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = smooth.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth) + rng.integers(-8, 9, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def decode(data: bytes) -> Image.Image:
    """The picture of a JPEG file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def _signed(high: float) -> float:
    return np.random.choice((-1, 1)) * np.random.uniform(0.1, 1) * high


def _affine(matrix: Callable[[], tuple[float, ...]]) -> Callable[[Image.Image], Image.Image]:
    return lambda x: x.transform(x.size, Image.Transform.AFFINE, matrix(), Image.Resampling.BILINEAR)


OPERATIONS = (
    ImageOps.autocontrast,
    ImageOps.equalize,
    lambda x: ImageOps.posterize(x, 4 - int(abs(_signed(0.4)))),
    lambda x: x.rotate(int(_signed(3)), Image.Resampling.BILINEAR),
    lambda x: ImageOps.solarize(x, 256 - int(abs(_signed(25.6)))),
    _affine(lambda: (1, _signed(0.03), 0, 0, 1, 0)),
    _affine(lambda: (1, 0, 0, _signed(0.03), 1, 0)),
    _affine(lambda: (1, 0, int(_signed(SIZE / 30)), 0, 1, 0)),
    _affine(lambda: (1, 0, 0, 0, 1, int(_signed(SIZE / 30)))),
)


def augmented(image: Image.Image, augmix: bool) -> Tensor:
    """One view of the usual pipeline."""
    crop = CROP(image)
    if not augmix:
        return TO_TENSOR(crop)
    mixed = 0
    for weight in np.random.dirichlet((1.0, 1.0, 1.0)):
        chain = crop
        for _ in range(np.random.randint(1, 4)):
            chain = OPERATIONS[np.random.randint(len(OPERATIONS))](chain)
        mixed = mixed + weight * TO_TENSOR(chain)
    m = np.random.beta(1.0, 1.0)
    return m * TO_TENSOR(crop) + (1 - m) * mixed


def view_by_view(image: Image.Image, augmix: bool) -> list[Tensor]:
    """All views of the usual pipeline."""
    return [PLAIN(image), *(augmented(image, augmix) for _ in range(N_VIEWS - 1))]


def core_seconds(parts: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median processor time of each part, taken in turns so that what else the machine does falls on all alike."""
    seconds = {what: [] for what in parts}
    for _ in range(repeats + 1):  # one to warm up
        for what, part in parts.items():
            start = time.process_time()
            part()
            seconds[what].append(time.process_time() - start)
    return {what: statistics.median(values[1:]) for what, values in seconds.items()}


def pipelines(image: Image.Image, augmix: bool) -> dict[str, Callable[[], Any]]:
    """The ways to make the views on the core."""
    config = ViewConfig(SIZE, N_VIEWS, augmix=augmix)
    return {
        "view by view": lambda: view_by_view(image, augmix),
        "tlla": lambda: make_views(image, 0, config),
        "tlla + normalize": lambda: normalize(make_views(image, 0, config)),
    }


def on_device(image: Image.Image, device: str, n_views: int = N_VIEWS) -> Tensor:
    """Views made on a device, upload included."""
    config = ViewConfig(SIZE, n_views)
    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)
    return make_views_on_device(pixels, torch.from_numpy(draw_crops(*image.size, 0, config)), config)


@torch.no_grad()
def encoding(backbone: str, device: str, precision: str, repeats: int) -> float:
    """Seconds of the image encoder on the views of an image."""
    model = common.random_clip(backbone, device, precision)
    views = torch.randn(N_VIEWS, 3, SIZE, SIZE, device=device)
    with common.in_precision(device, precision):
        return common.measure(lambda: encode_images(model, views), device, repeats)["median"]


def main() -> None:
    """Measures and reports."""
    args = common.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    torch.manual_seed(0)
    data = jpeg()
    image = decode(data)
    rows = []
    for augmix in (False, True):
        seconds = core_seconds({"decode": lambda: decode(data)} | pipelines(image, augmix), args.repeats)
        decoding = seconds.pop("decode")
        if not augmix:
            made = common.measure(lambda: normalize(on_device(image, args.device)), args.device, args.repeats)
            seconds[f"tlla on {args.device} + normalize"] = made["median"]
        for what, own in seconds.items():
            row = {"AugMix": augmix, "pipeline": what, "decode s": decoding, "views s": own, "s/image": decoding + own}
            rows.append(row | {"times faster": (decoding + seconds["view by view"]) / row["s/image"]})
    if args.device != "cpu":
        seconds = encoding(args.backbone, args.device, args.precision, args.repeats)
        rows.append({"pipeline": "image encoder", "s/image": seconds})
    common.write_report("views", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
