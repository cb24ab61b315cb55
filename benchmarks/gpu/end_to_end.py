"""Part end_to_end: TLLA's test by its trainer, from JPEG files to predictions, with more and fewer workers."""

import contextlib
import copy
import hashlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from dassl.engine import build_trainer
from torch.utils.data.dataloader import _BaseDataLoaderIter

import train
from tlla.backbones import BACKBONES

from .. import common, views
from .sizes import Rows, Sizes


def measure(sizes: Sizes) -> Rows:
    """One trainer tests all; most workers first."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(Path(folder), sizes)
        for workers in sizes.workers:
            for on_device in (False, True):
                label = {"workers": workers, "ON_DEVICE": on_device, "K": sizes.images}
                yield label, images_per_second, trainer, workers, on_device


def make_trainer(folder: Path, sizes: Sizes) -> Any:
    """TLLA with an untrained prompt on one photo a class, as train.py builds it."""
    names = (common.ROOT / "datasets" / "data" / "imagenet_tpt.txt").read_text(encoding="utf-8").splitlines()
    photo = views.jpeg()
    for number, line in enumerate(names[: sizes.images]):
        own = folder / "data" / "test" / f"{line.partition(' ')[2].replace('/', ' ')} {number}"  # some names are twice
        own.mkdir(parents=True)
        (own / "photo.jpg").write_bytes(photo)
    argv = ["--trainer", "TLLA", "--output-dir", str(folder / "run"), "--root", str(folder / "data"), "--seed", "1"]
    argv += ["--config-file", "configs/trainers/TLLA/vit_b16_c4_ep50.yaml", "--fresh"]
    argv += ["--dataset-config-file", "configs/datasets/image_folder.yaml", "--backbone", f"random:{sizes.backbone}"]
    argv += ["USE_CUDA", str(sizes.device != "cpu"), "TRAINER.TLLA.N_VIEWS", str(sizes.n_views)]
    argv += ["TRAINER.TLLA.VIEW_BATCH", str(sizes.at_once[0])]
    load = {"random": lambda name: copy.deepcopy(common.random_clip(name, "cpu"))}  # the trainer moves it
    with contextlib.redirect_stdout(io.StringIO()), mock.patch.dict(BACKBONES, load):
        return build_trainer(train.build_cfg(train.parse_args(argv)))


@contextlib.contextmanager
def watched_loaders() -> Iterator[list[tuple[float, float]]]:
    """When each batch of any loader was asked for, and when it came."""
    times: list[tuple[float, float]] = []
    load = _BaseDataLoaderIter.__next__

    def timed(loader: _BaseDataLoaderIter) -> Any:
        asked = time.perf_counter()
        found = load(loader)
        times.append((asked, time.perf_counter()))
        return found

    with mock.patch.object(_BaseDataLoaderIter, "__next__", timed):
        yield times


def images_per_second(trainer: Any, workers: int, on_device: bool) -> dict[str, Any]:
    """The rate once every worker has brought a batch, and the share of that time for which the loader was awaited."""
    cfg = trainer.cfg
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS, cfg.TRAINER.TLLA.ON_DEVICE = workers, on_device
    cfg.freeze()
    start = time.perf_counter()
    silent = io.StringIO()
    with watched_loaders() as times, contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        trainer.test()
    whole = time.perf_counter() - start
    first = min(workers, len(times) // 2)
    seconds = times[-1][1] - times[first][1]
    waited = sum(came - asked for asked, came in times[first + 1 :])
    predictions = (Path(cfg.OUTPUT_DIR) / "predictions_test.csv").read_bytes()
    return {
        "images/s": (len(times) - 1 - first) * trainer.tester.batch_size() / seconds,
        "share waiting": waited / seconds,
        "seconds with the set-up": whole,
        "predictions": hashlib.sha256(predictions).hexdigest()[:12],
    }
