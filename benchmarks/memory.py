"""Whether memory grows over a long test: TLLA and ZeroshotCLIP on the embedded test images, repeated to 20,000.

    python -m benchmarks.memory --images 20000 --views 8

Takes the resident memory of the process twice a second. `rise` compares the end with the state after a tenth of the
images, when everything is loaded and in use; what remains of an image is its row of results.
"""

import contextlib
import io
import sys
import tempfile
import threading
from typing import Any

import numpy as np
import psutil
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

import train
from tlla.command_line import call

from . import common

TRAINERS = ("ZeroshotCLIP", "TLLA")
EVERY = 0.5  # seconds


class Watch(threading.Thread):
    """Samples the resident memory, in MB, until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Samples."""
        while True:
            self.samples.append(psutil.Process().memory_info().rss / 2**20)
            if self.ended.wait(EVERY):
                return

    def stop(self) -> np.ndarray:
        """All samples."""
        self.ended.set()
        self.join()
        return np.array(self.samples)


def test(name: str, images: int, views: int) -> dict[str, Any]:
    """Tests `images` images with an untrained prompt."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        argv = ["--trainer", name, "--output-dir", folder, "--seed", "1"]
        argv += ["--config-file", f"configs/trainers/{name}/emoji.yaml"]
        argv += ["--dataset-config-file", "configs/datasets/emoji.yaml"]
        argv += ["TRAINER.TLLA.N_VIEWS", str(views), "TRAINER.TLLA.TOP_S", str(max(1, views // 4))]
        set_random_seed(1)
        trainer = build_trainer(train.build_cfg(train.parse_args([*argv, "DATALOADER.NUM_WORKERS", "0"])))
        items = trainer.test_loader.dataset.data_source if name == "ZeroshotCLIP" else trainer.dm.dataset.test
        items[:] = (items * -(-images // len(items)))[:images]  # the list itself, which the trainer holds
        watch = Watch()
        watch.start()
        trainer.test()
        samples = watch.stop()
    tenth = len(samples) // 10
    start, end = float(np.median(samples[tenth : 2 * tenth + 1])), float(np.median(samples[-tenth - 1 :]))
    highest = float(samples.max())
    found = {"images": len(items), "MB after a tenth": start, "MB at the end": end, "highest MB": highest}
    return {"trainer": name, **found, "rise": end / start - 1}


def main() -> None:
    """Measures and reports."""
    parser = common.parser(__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--views", type=int, default=8)
    args = parser.parse_args()
    rows = [common.in_own_process(test, name, args.images, args.views) for name in TRAINERS]
    common.write_report("memory", rows, args)


if __name__ == "__main__":
    sys.exit(call(main))
