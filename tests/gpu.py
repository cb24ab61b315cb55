"""What the tests marked gpu share: flags of torch, tiny CLIPs on disk, and trainers on them. They run on a CPU, too."""

import contextlib
import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from benchmark import CLASSES, Workplace
from conftest import TINY_RESNET, TINY_VIT, make_clip
from dassl.engine import TRAINER_REGISTRY

import train
from tlla.records.writer import RunRecord
from trainers.base import ClipTrainer

WIDE_VIT = (256, 32, 2, 256, 8, 77, 49408, 256, 4, 2)  # wide enough that a GPU multiplies its matrices in TF32
BACKBONES = ("ViT", "RN", "open_clip")


@contextlib.contextmanager
def flags() -> Iterator[None]:
    """Products without TF32, and no attention of cuDNN's, whose plans need time; afterwards all is as it was."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    names = ("benchmark", "deterministic", "allow_tf32")
    before = {name: getattr(cudnn, name) for name in names}
    attention, (where, name) = cuda.cudnn_sdp_enabled(), matmul_flag()
    precision = getattr(where, name)
    try:
        set_tf32(False)
        cuda.enable_cudnn_sdp(False)
        yield
    finally:
        cuda.enable_cudnn_sdp(attention)
        setattr(where, name, precision)
        for name, value in before.items():
            setattr(cudnn, name, value)


def matmul_flag() -> tuple[object, str]:
    """Where torch keeps the precision of products; from 2.9 on the old name cannot be read once the new one is set."""
    matmul = torch.backends.cuda.matmul
    return matmul, "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"


def set_tf32(on: bool) -> None:
    """Whether float32 products and convolutions on a GPU may round their factors to TF32."""
    where, name = matmul_flag()
    setattr(where, name, on if name == "allow_tf32" else "tf32" if on else "ieee")
    torch.backends.cudnn.allow_tf32 = on


def has_tf32(device: torch.device) -> bool:
    """Whether it multiplies float32 matrices in TF32 if it may: from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def low(device: torch.device) -> torch.dtype:
    """The dtype of mixed precision: fp16; on the CPU, where its products are slow, bf16."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of all numbers of two tensors, in double precision."""
    return F.cosine_similarity(a.double().flatten().cpu(), b.double().flatten().cpu(), dim=0).item()


def write_backbones(folder: Path) -> dict[str, str]:
    """Tiny CLIPs with random weights, by name: what --backbone takes."""
    for name, arch in (("ViT", TINY_VIT), ("RN", TINY_RESNET), ("wide", WIDE_VIT)):
        state = make_clip(arch).state_dict()
        state["logit_scale"].fill_(math.log(20))  # at 100 nearly all probabilities are 0 or 1
        torch.save(state, folder / f"{name}.pt")
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }
    (folder / "vit.json").write_text(json.dumps(config))
    paths = {name: str(folder / f"{name}.pt") for name in ("ViT", "RN", "wide")}
    return {**paths, "open_clip": f"open_clip:{folder / 'vit.json'}={folder / 'ViT.pt'}"}


class GpuPlace(Workplace):
    """A workplace with several CLIPs; its runs also leave their columns, to the last bit, in `columns`."""

    def __init__(self, folder: Path):
        super().__init__(folder, CLASSES)
        self.backbones = write_backbones(folder)
        self.columns: list[dict[str, torch.Tensor]] = []

    def with_backbone(self, name: str) -> tuple[str, str]:
        """The flags; skips a test of open_clip where that is not installed."""
        if name == "open_clip":
            pytest.importorskip("open_clip")
        return "--backbone", self.backbones[name]

    def built(self, trainer: str, output: str, *more: str) -> ClipTrainer:
        """A trainer in front of its first step, and not its last one."""
        cfg = train.build_cfg(train.parse_args(self.argv(trainer, output, *more)))
        train.set_random_seed(1)
        built = train.build_trainer(cfg)
        built.batch_idx, built.num_batches = 0, 2
        return built

    def tested(self, *args: str) -> dict[str, torch.Tensor]:
        """Runs, and returns the columns of its test."""
        add_split, found = RunRecord.add_split, []

        def keeps(record, split, predictions, *args, **kwargs):
            found.append(predictions.columns)
            return add_split(record, split, predictions, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunRecord, "add_split", keeps)
            self.run(*args)
        return found[-1]


def harness(module: str):
    """A module of the trainers in use: of `trainers`, or of `tlla.trainers` if another test has imported that first."""
    package = TRAINER_REGISTRY.get("Compare").__module__.rpartition(".")[0]
    return importlib.import_module(f"{package}.harness.{module}")


def place_of(tmp_path_factory: pytest.TempPathFactory) -> GpuPlace:
    """For the fixtures of that name."""
    return GpuPlace(tmp_path_factory.mktemp("gpu"))
