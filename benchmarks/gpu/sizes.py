"""What is measured, at which sizes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Rows = Iterator[tuple[Any, ...]]  # what the figures are of, a dict; the function that finds them, and its arguments


@dataclass(frozen=True)
class Sizes:
    """Those for a GPU of the H100's class."""

    device: str
    backbone: str = "ViT-B/16"
    resnet: str = "RN50"
    n_views: int = 64
    at_once: tuple[int, ...] = (512, 64)  # views that pass the image encoder
    classes: tuple[int, ...] = (1000, 200)  # at test time
    trained_classes: tuple[int, ...] = (1000, 100)
    compared_classes: int = 100  # where the GPU is compared with the CPU, or with itself
    perturbations: int = 8
    batch: int = 32  # of the training
    product: int = 8192  # side of the matrices
    copied: int = 100_000_000  # bytes
    photos: tuple[tuple[int, int], ...] = ((500, 375), (4000, 3000))
    images: int = 1000  # of the test end to end, one a class
    workers: tuple[int, ...] = (16, 4, 8)
    cudnn_benchmark: tuple[bool, ...] = (False, True)
    compiler: str = "inductor"
    repeats: int = 7


TINY: dict[str, Any] = {  # runs every line within seconds; the figures mean nothing
    **{"backbone": "tiny", "resnet": "tiny", "n_views": 16, "at_once": (16,), "classes": (3,), "trained_classes": (3,)},
    **{"compared_classes": 3, "batch": 2, "perturbations": 1, "product": 64, "copied": 1000, "photos": ((50, 40),)},
    **{"images": 2, "workers": (0,), "cudnn_benchmark": (False,), "compiler": "eager", "repeats": 1},
}
