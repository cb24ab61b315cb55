"""Several processes: what passes between them on a GPU, and that the error of one ends the job."""

import os
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from benchmark import REPO
from gpu import place_of

from tlla.errors import InputError
from trainers.harness import distributed

pytestmark = pytest.mark.gpu
dry = pytest.mark.gpu(dry=True)

SETTINGS = ("DATALOADER.TRAIN_X.BATCH_SIZE", "7", "TRAIN.CHECKPOINT_FREQ", "1")
SETTINGS += ("OPTIM.LR", "0.002", "OPTIM.WARMUP_CONS_LR", "0.002")  # of the first epoch
PRECISION = ("TRAINER.SAPT.PREC", "fp32")


class One(int):
    """The number 1, but not equal to it: one process takes no short cuts."""

    __hash__ = int.__hash__

    def __eq__(self, other):
        return False

    def __gt__(self, other):
        return True


@pytest.fixture
def alone(device, monkeypatch):
    """A group of this process: NCCL's on a GPU."""
    options = {"device_id": torch.device("cuda", torch.cuda.current_device())} if device.type == "cuda" else {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)  # at a free port
    dist.init_process_group(backend, store=store, rank=0, world_size=1, **options)
    monkeypatch.setattr(distributed, "world_size", lambda: One(1))
    yield device
    dist.destroy_process_group()


@dry
def test_tensors_and_objects_pass_through_the_group(alone):
    rows = torch.arange(10.0, device=alone).view(5, 2).requires_grad_()
    doubled = distributed.spread(rows, lambda own: 2 * own)
    assert doubled.device == rows.device and torch.equal(doubled, 2 * rows)
    (gradient,) = torch.autograd.grad((doubled * doubled).sum(), rows)
    assert torch.equal(gradient, 8 * rows)
    for dtype in (torch.float16, torch.int64):
        values = torch.arange(6, device=alone).to(dtype)
        assert torch.equal(distributed.gather_rows(values, 6), values)
    totals = distributed.sum_over_processes([rows.detach(), torch.ones((), device=alone)])
    assert torch.equal(totals[0], rows) and totals[1].shape == () and totals[1] == 1
    assert torch.equal(distributed.sum_gradient(gradient), gradient)
    content = {"done": [1, 2], "state": torch.ones(3)}
    assert distributed.gather(content)[0]["done"] == [1, 2]
    assert torch.equal(distributed.from_first(content)["state"], torch.ones(3))
    distributed.wait()


@dry
def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TLLA_BACKEND", "mpi")
    with pytest.raises(InputError, match="^TLLA_BACKEND must be one of"):
        distributed.join_processes(use_cuda=True)


def torchrun(place, backend, file, output):
    """Starts two of gpu_rank.py; what they say goes to FILE.log."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += [str(REPO / "tests/gpu_rank.py"), str(file), *place.argv("SAPT", output, *SETTINGS, *PRECISION)]
    path = os.pathsep.join([str(REPO), str(REPO / "toolkit"), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"TLLA_BACKEND": backend, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with file.with_suffix(".log").open("w") as log:
        return subprocess.Popen(words, env=env, cwd=REPO, stdout=log, stderr=log)


@pytest.mark.parametrize(("backend", "seconds"), [("gloo", 20), ("nccl", 60)])
def test_two_processes_learn_what_one_learns_and_an_error_of_one_ends_the_job(
    tmp_path_factory, tmp_path, device, backend, seconds
):
    """A process that waits in NCCL hears no signal: torchrun kills it 30 s later."""
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each process")
    place, file = place_of(tmp_path_factory), tmp_path / "fails"
    job = torchrun(place, backend, file, "two")
    try:
        for _ in range(1000):
            if file.exists() or job.poll() is not None:
                break
            time.sleep(0.1)
        job.wait(timeout=seconds)
    finally:
        if job.poll() is None:
            job.terminate()  # not kill: then its processes would go on
            job.wait()
    errors = file.with_suffix(".log").read_text()
    assert file.exists() and job.returncode != 0 and "its disk is full" in errors, errors[-3000:]
    place.run("SAPT", "one", *SETTINGS, *PRECISION)
    found, expected = place.context("two", 1), place.context("one", 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (place.context("one", 2) - expected).abs().max() > 1e-4  # an epoch moves it further than the tolerance
