"""A stand-in of train.py for sweeps: runs that take 0.2 s and leave what a run leaves."""

from pathlib import Path

import pytest
from benchmark import REPO

from sweeps import __main__ as cli
from sweeps import plans, processes
from sweeps.job import ordered

CROSS_EMOJI = ("cross-dataset", "emoji", "--source", "emoji", "--targets", "emoji_twemoji")
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(130))
argv = sys.argv[1:]
folder = Path(argv[argv.index("--output-dir") + 1])
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(f"{folder.name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {time.time()} {os.getpid()}\\n")
if (here / "slow").exists():
    time.sleep(30)
limit = time.time() + 60
while (here / "pairs").exists() and (here / "calls").read_text().count("\\n") < 2:
    time.sleep(0.02)
    if time.time() > limit:
        sys.exit("error: no other run is started meanwhile")
time.sleep(0.2)
config = json.loads((folder / "sweep.json").read_text())["config"]
if folder.name == (here / "bad").read_text():
    print("working\\nerror: the disk is full", file=sys.stderr)
    sys.exit(2)
source = argv[argv.index("--model-dir") + 1] if "--model-dir" in argv else str(folder)
accuracy = 50 if config["TRAINER"]["SAPT"]["RHO"] in (0.1, 0.3) else 40
test = {"total": 5, "accuracy": accuracy, "prompt_sha256": source}
sha256 = {"val": (here / "val").read_text(), "test": "t"}
record = {"config": config, "splits": {config["TEST"]["SPLIT"]: test}, "train_seconds": 1, "split_sha256": sha256}
(folder / "results.json").write_text(json.dumps(record))
with (here / "ends").open("a") as ends:
    ends.write(f"{time.time()} {os.getpid()}\\n")
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps run it; files in the folder say what happens."""
    for name, text in (("train.py", FAKE), ("bad", "none"), ("val", "v"), ("calls", "")):
        (folder / name).write_text(text)
    monkeypatch.setattr(processes, "SCRIPT", folder / "train.py")
    for name in ("DATA", "OUT", "JOBS", "CFG", "TRAINER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def calls(fake: Path) -> list[list[str]]:
    """Folder, GPU, time and process of each run that was started."""
    return [line.split() for line in (fake / "calls").read_text().splitlines()]


def sweep(fake: Path, *words: str) -> int:
    return cli.main([*words[:1], "--out", str(fake / "out"), *words[1:]])


def commands(capsys, *words: str) -> list[str]:
    assert cli.main([*words, "--dry-run", "--out", "/out", "--data", "/data"]) == 0
    return capsys.readouterr().out.replace(f"{REPO}/", "").splitlines()


def job_of(fake: Path, *opts: str) -> list:
    settings = plans.Settings(fake / "out", "", (1,), 16, "emoji", ("emoji_twemoji",), None, opts)
    return ordered(plans.cross_dataset(settings, "emoji"))
