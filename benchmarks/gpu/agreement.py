"""Part correct: whether the GPU computes what the CPU does, whether bits repeat, and where the host waits."""

import functools
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.views.encode import ViewEncoder
from tlla.views.make import ViewConfig, make_views

from .. import common, views
from ..tpt_and_tlla import predict_by
from ..training import Step
from .card import PRECISIONS, tf32
from .sizes import Rows, Sizes

STEPS = 4  # of the training whose bits are compared; another process resumes it after half of them


def measure(sizes: Sizes) -> Rows:
    """What is most likely to go wrong comes first."""
    for flag in sizes.cudnn_benchmark:
        yield {"what": "bits of SAPT", "cudnn.benchmark": flag}, repeated_bits, flag, sizes
    for name in (sizes.backbone, sizes.resnet):
        for precision in PRECISIONS:
            label = {"what": "GPU against CPU", "model": name, "precision": precision}
            yield label, difference, name, precision, sizes
    for width, height in sizes.photos:
        yield {"what": "views, GPU against CPU", "photo": f"{width} x {height}"}, view_levels, width, height, sizes
    for name in ("views to features", "views on the GPU", "class features", "SAPT step", "STSS", "TPT"):
        yield {"what": "waits of the host", "of": name}, host_waits, name, sizes


def repeated_bits(benchmark: bool, sizes: Sizes) -> dict[str, bool]:
    """Whether a training in amp has the same bits when it is repeated, and when another process resumes it."""
    first = common.in_own_process(short_trainings, benchmark, sizes, {})
    rest = common.in_own_process(short_trainings, benchmark, sizes, {flag: row["half"] for flag, row in first.items()})
    found = {}
    for flag, row in first.items():
        found[f"repeated, cuDNN attention {flag}"] = row["end"] == row["again"]
        found[f"resumed, cuDNN attention {flag}"] = row["end"] == rest[flag]["end"]
    return found


def short_trainings(benchmark: bool, sizes: Sizes, halves: dict[bool, list]) -> dict[bool, dict[str, list]]:
    """The context after a short training with and without cuDNN's attention, begun anew or at `halves`."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, not benchmark
    found = {}
    for flag in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(flag)
        step = Step("SAPT", sizes.compared_classes, sizes.resnet, sizes.batch, sizes.device, "amp")
        start = step.ctx.clone()
        half = step.ctx.new_tensor(halves[flag]) if halves else context_after(step, start, STEPS // 2)
        end, again = (
            context_after(step, half, STEPS // 2),
            None if halves else context_after(step, start, STEPS).tolist(),
        )
        found[flag] = {"half": half.tolist(), "end": end.tolist(), "again": again}
    return found


def context_after(step: Step, start: Tensor, steps: int) -> Tensor:
    """The context after so many steps from `start` on."""
    step.ctx.copy_(start)
    for _ in range(steps):
        step()
    return step.ctx.clone()


def difference(name: str, precision: str, sizes: Sizes) -> dict[str, float]:
    """Largest difference, in units of the largest value, and least cosine, to the CPU in fp32."""
    here = encoded(name, "cpu", "fp32", sizes.compared_classes)
    there = encoded(name, sizes.device, precision, sizes.compared_classes)
    found = {}
    for what, rows in here.items():
        found[f"{what} difference"] = float((rows - there[what]).abs().max() / rows.abs().max())
        found[f"{what} cosine"] = float(F.cosine_similarity(rows, there[what], dim=-1).min())
    return found


@functools.cache
def encoded(name: str, device: str, precision: str, n_classes: int) -> dict[str, Tensor]:
    """Image features, class features, and the gradient of the context, a row: on the CPU, float32."""
    step = Step("CoOp", n_classes, name, 8, device, precision)
    with tf32(device, precision == "tf32"):
        images, text = step.features()
        gradient = step().gradient.reshape(1, -1) / step.scale
    return {"image": images.cpu(), "text": text.cpu(), "gradient": gradient.cpu()}


def view_levels(width: int, height: int, sizes: Sizes) -> dict[str, float]:
    """Grey levels between the views made here and there."""
    image = views.decode(views.jpeg(width, height))
    here = make_views(image, 0, ViewConfig(views.SIZE, sizes.n_views)).int()
    apart = (here - views.on_device(image, sizes.device, sizes.n_views).cpu().int()).abs()
    return {"largest difference": int(apart.max()), "share of pixels": float((apart > 0).float().mean())}


def host_waits(name: str, sizes: Sizes) -> dict[str, Any]:
    """How often the host waits for the GPU in a second call, and at which lines most."""
    call, on_gpu = waiting_call(name, sizes), sizes.device != "cpu"
    call()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            if on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    places = Counter(f"{'/'.join(warning.filename.split('/')[-2:])}:{warning.lineno}" for warning in waits)
    return {"waits": len(waits), "at": dict(places.most_common(8))}


def waiting_call(name: str, sizes: Sizes) -> Callable[[], Any]:
    """The call whose waits are counted, in amp."""
    n_classes, device = sizes.classes[0], sizes.device
    if name == "views on the GPU":
        return functools.partial(views.on_device, views.decode(views.jpeg()), device, sizes.n_views)
    step = Step("SAPT", n_classes, sizes.backbone, sizes.batch, device, "amp")
    if name == "SAPT step":
        return step
    if name == "class features":
        return torch.no_grad()(step.autocast()(functools.partial(step.encode_text, step.ctx)))
    pixels = torch.zeros(1, sizes.n_views, 3, 224, 224, dtype=torch.uint8, pin_memory=device != "cpu")
    encode = functools.partial(ViewEncoder(step.model.clip, 512, step.autocast), pixels)
    if name == "views to features":
        return encode
    return functools.partial(predict_by(name, n_classes, sizes.backbone, device, "amp"), encode(), None)
