"""The core of the program in one process, as a system with the given limits would run it: python core.py FOLDER.

LACKS names modules that the system does not have, START its start method of processes, WORKERS how many load images.
A spawned worker imports everything anew: with START only TLLA's test has one; of other loaders what is sent is pickled.
"""

import gc
import json
import multiprocessing
import os
import pickle
import sys
import threading
from pathlib import Path

import psutil  # noqa: F401  first: on this system it needs modules that it does not need where they are lacking

gc.disable()  # looking for garbage takes a quarter of the time of imports, which leave none

for name in os.environ.get("LACKS", "").split():
    sys.modules[name] = None  # here, as a spawned process imports this file, too

CLASSES = ("鳥", "größer", "tool")
FEW = ("--views", "4", "--set", "top_s=2", "n_perturb=2")
WORKERS = ("DATALOADER.NUM_WORKERS", os.environ.get("WORKERS", "2"))


def main(folder: Path) -> None:
    """Runs every command line, or with fork the quick ones; what each returns goes to <folder>/found.json."""
    multiprocessing.set_start_method(os.environ.get("START", "fork"), force=True)
    import torch
    from benchmark import Workplace

    import train
    from datasets.__main__ import main as datasets_main
    from trainers.harness.memory_peak import peak_memory_mb

    place = Workplace(folder, CLASSES)
    sapt, tlla_run = str(folder / "SAPT" / "seed1"), str(folder / "TLLA" / "seed1")
    workers = (WORKERS[0], "0") if "START" in os.environ else WORKERS
    codes = {
        "train": train.main(place.argv("SAPT", sapt, "OPTIM.MAX_EPOCH", "1", *workers)),
        "test": train.main(place.argv("TLLA", tlla_run, "--eval-only", "--model-dir", sapt, *WORKERS)),
        "list": datasets_main(["list"]),
        "example": datasets_main(["example", str(folder / "größer")]),
        "check": datasets_main(["check", "ImageFolder", "--root", str(folder / "größer")]),
    }
    if "START" in os.environ:
        codes |= others(folder, sapt)
    threads = [thread.name for thread in threading.enumerate() if not thread.daemon]
    found = {"codes": codes, "peak_mb": peak_memory_mb(torch.device("cpu")), "threads": threads}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def others(folder: Path, sapt: str) -> dict[str, int]:
    """The command lines that take seconds to import."""
    import parse_test_res
    import report.__main__
    import sweeps.__main__
    import tlla.predict.command
    from report.reopen import open_run
    from tlla.records.record import read_record

    images = str(folder / "data" / "emoji" / "noto" / "test")
    codes = {
        "predict": tlla.predict.command.main([images, "--prompt", sapt, *FEW, "--csv", str(folder / "p.csv")]),
        "logs": parse_test_res.main([str(folder / "SAPT")]),
        "table": parse_test_res.main([str(folder), "--table"]),
        "sweeps": sweeps.__main__.main(
            ["train", "emoji", "emoji", "--data", str(folder / "鳥"), "--out", str(folder / "out"), "--dry-run"]
        ),
    }
    data = open_run(read_record(sapt)).dm
    for loader in (data.train_loader_x, data.val_loader, data.test_loader):
        pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn))
    try:
        report.__main__.main(["--help"])
    except SystemExit as stop:
        codes["report"] = stop.code
    return codes


if __name__ == "__main__":
    main(Path(sys.argv[1]))
