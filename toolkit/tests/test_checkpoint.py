"""Checkpoint files: what is in them, and what is refused."""

import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch

from dassl.config import get_cfg_default
from dassl.engine import TrainerBase, build_trainer
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    CheckpointError,
    MissingCheckpointError,
    load_checkpoint,
    load_pretrained_weights,
    save_checkpoint,
)
from dassl.utils.checkpoint import common_epochs


def state(**more):
    return {"state_dict": {"module.weight": torch.ones(2)}, "epoch": 3, **more}


def test_layout_and_content(tmp_path):
    path = save_checkpoint(
        state(val_result=np.float64(1.5), optimizer={"a": np.arange(2), "b": (np.int64(3), {4})}),
        str(tmp_path),
    )
    assert os.listdir(tmp_path) == ["model.pth.tar-3"]
    loaded = load_checkpoint(path)
    assert list(loaded["state_dict"]) == ["weight"] and loaded["val_result"] == 1.5
    assert type(loaded["val_result"]) is float
    assert loaded["optimizer"]["a"].tolist() == [0, 1] and loaded["optimizer"]["b"] == (3, [4])


def test_a_slice_takes_only_its_own_bytes(tmp_path):
    path = save_checkpoint({"state_dict": {"w": torch.zeros(1_000_000)[:10]}, "epoch": 1}, str(tmp_path))
    assert os.path.getsize(path) < 10_000


def test_the_state_of_a_run_is_plain(make_cfg):
    cfg = make_cfg("OPTIM.NAME", "adamw", "OPTIM.MAX_EPOCH", 1)
    build_trainer(cfg).train()
    saved = load_checkpoint(os.path.join(cfg.OUTPUT_DIR, "linear", "model.pth.tar-1"))
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(saved)
    assert json.dumps([saved["scheduler"], saved["trainer"]])
    assert saved["trainer"]["run_seed"] == 1


def test_objects_are_refused_on_writing(tmp_path):
    with pytest.raises(CheckpointError, match=r"scheduler\.f holds a builtins\.function"):
        save_checkpoint(state(scheduler={"f": lambda: 0}), str(tmp_path))
    assert os.listdir(tmp_path) == []


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_code_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "epoch": 1, "x": Exploit()}, "evil")
    with pytest.raises(CheckpointError, match=r'"evil" holds Python objects.*mkdir.*refused'):
        load_checkpoint("evil")
    assert not os.path.exists("exploited")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated(tmp_path, share):
    path = save_checkpoint({"state_dict": {"w": torch.randn(1000)}, "epoch": 1}, str(tmp_path))
    content = open(path, "rb").read()
    with open(path, "wb") as file:
        file.write(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"model\.pth\.tar-1.* bytes\) is not a whole checkpoint"):
        load_checkpoint(path)


def test_other_files(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="is not a whole checkpoint"):
        load_checkpoint(str(tmp_path / "text"))
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(CheckpointError, match="holds a list; expected a dict"):
        load_checkpoint(str(tmp_path / "list"))
    for missing in (str(tmp_path / "nothing"), "", None):
        with pytest.raises(MissingCheckpointError, match="No checkpoint file"):
            load_checkpoint(missing)
    assert issubclass(MissingCheckpointError, FileNotFoundError) and issubclass(CheckpointError, ValueError)


def test_damaged_newest_file_stops_the_resume(make_cfg):
    cfg = make_cfg("TRAIN.CHECKPOINT_FREQ", 1)
    build_trainer(cfg).train()
    path = os.path.join(cfg.OUTPUT_DIR, "linear", "model.pth.tar-4")
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match="delete it to resume from an earlier epoch"):
        build_trainer(cfg).train()
    os.remove(path)
    resumed = build_trainer(cfg)
    resumed.train()
    assert resumed.start_epoch == 3


def test_common_epochs(tmp_path):
    for name, epochs in (("a", (2, 4, 10)), ("b", (2, 10, 11))):
        for epoch in epochs:
            save_checkpoint({**state(), "epoch": epoch}, str(tmp_path / name))
    assert common_epochs(str(tmp_path), ["a", "b"]) == [2, 10]
    assert common_epochs(str(tmp_path), ["a", "c"]) == common_epochs(str(tmp_path), []) == []


def test_load_pretrained_weights(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)
    path = save_checkpoint(
        {"state_dict": {"module.weight": torch.ones(1, 2), "bias": torch.ones(9)}, "epoch": 1}, str(tmp_path)
    )
    load_pretrained_weights(model, path)
    assert torch.equal(model.weight.data, torch.ones(1, 2))
    assert "Layers discarded due to unmatched keys or size: ['bias']" in capsys.readouterr().out


def test_killed_in_the_middle_of_a_file(tmp_path, monkeypatch):
    path = save_checkpoint(state(val_result=1.0), str(tmp_path))

    def half(content, file):
        file.write(b"PK" + bytes(100))
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    for epoch in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint({**state(val_result=2.0), "epoch": epoch}, str(tmp_path))
    assert load_checkpoint(path)["val_result"] == 1.0
    assert common_epochs(str(tmp_path.parent), [tmp_path.name]) == [3]


def save_until_killed(folder, seconds):
    """Saves epoch after epoch in a forked process, which kills itself so many seconds after the third."""
    if process := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        for epoch in range(1, 10**6):
            if epoch == 4:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            save_checkpoint({"state_dict": {"w": torch.full((200_000,), float(epoch))}, "epoch": epoch}, folder)
    finally:
        os._exit(99)


@pytest.mark.parametrize("seconds", [0.0, 0.013, 0.04])
def test_sigkill_leaves_whole_files(tmp_path, seconds):
    assert save_until_killed(str(tmp_path), seconds) == -signal.SIGKILL
    epochs = common_epochs(str(tmp_path.parent), [tmp_path.name])
    assert epochs[:3] == [1, 2, 3]
    for epoch in epochs:
        saved = load_checkpoint(str(tmp_path / f"model.pth.tar-{epoch}"))
        assert saved["epoch"] == epoch and (saved["state_dict"]["w"] == epoch).all()


LEGACY = os.path.join(os.path.dirname(__file__), "data", "dassl_0_6_checkpoint.bin")


def test_checkpoint_of_dassl_0_6(tmp_path, capsys):
    """The file was written by Dassl 0.6.3 with torch 2.4.1: SGD, cosine, constant warm-up, 2 of 4 epochs."""
    allowed = set(torch.serialization.get_safe_globals())  # torch keeps a set: their order is not fixed
    saved = load_checkpoint(LEGACY)
    assert "is of Dassl 0.6" in capsys.readouterr().out
    assert saved["scheduler"] == {"last_epoch": 2, "base_lrs": [0.002]}
    assert set(torch.serialization.get_safe_globals()) == allowed

    os.mkdir(tmp_path / "linear")
    shutil.copy(LEGACY, tmp_path / "linear" / "model.pth.tar-2")
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 0.002, "LR_SCHEDULER", "cosine", "MAX_EPOCH", 4])
    cfg.merge_from_list(["WARMUP_EPOCH", 1, "WARMUP_TYPE", "constant"])
    model = torch.nn.Linear(2, 1)
    optim = build_optimizer(model, cfg)
    trainer = TrainerBase()
    trainer.register_model("linear", model, optim, build_lr_scheduler(optim, cfg))
    assert trainer.resume_model_if_exist(str(tmp_path)) == 2
    assert model.weight.tolist()[0] == pytest.approx([-0.0091, 0.3755], abs=1e-4)
    assert optim.param_groups[0]["lr"] == pytest.approx(0.0017071067811865474, rel=1e-12)
    assert optim.state_dict()["state"][1]["momentum_buffer"].tolist() == pytest.approx([1.8994], abs=1e-4)
    trainer.update_lr()
    assert optim.param_groups[0]["lr"] == pytest.approx(0.001, rel=1e-12)


def test_a_stand_in_opens_no_door(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.load(LEGACY, weights_only=False)
    state["more"] = Exploit()
    torch.save(state, "evil")
    with pytest.raises(CheckpointError, match="refused"):
        load_checkpoint("evil")
    assert not os.path.exists("exploited")
