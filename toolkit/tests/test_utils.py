"""Registries, log, meters, seeds, small helpers."""

import importlib.util
import os
import random
import sys

import numpy as np
import pytest
import torch

from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    RegistryError,
    check_availability,
    check_isfile,
    collect_env_info,
    derive_seed,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    seeded,
    set_random_seed,
    setup_logger,
    tolist_if_not,
    write_json,
)


def test_registry():
    registry = Registry("TRAINER")

    @registry.register()
    class CoOp:
        pass

    assert registry.get("CoOp") is CoOp and registry.registered_names() == ["CoOp"]
    with pytest.raises(RegistryError, match=r'^Object name "coop" does not exist .*do you mean \[CoOp\]'):
        registry.get("coop")
    other = type("CoOp", (), {"__module__": "elsewhere"})
    with pytest.raises(KeyError, match="already registered"):
        registry.register(other)
    registry.register(other, force=True)
    assert registry.get("CoOp") is other


def test_one_file_under_two_names_is_harmless(tmp_path, monkeypatch):
    file = tmp_path / "plugin.py"
    file.write_text("from dassl.engine import TRAINER_REGISTRY as R\n@R.register()\nclass Twice: pass\n")
    from dassl.engine import TRAINER_REGISTRY

    for name in ("plugin", "package.plugin"):
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        assert TRAINER_REGISTRY.get("Twice") is module.Twice


def test_check_availability():
    check_availability("a", ["a", "b"])
    with pytest.raises(ValueError, match=r"but got \[CoOP\] \(do you mean \[CoOp\] or \[CoCoOp\]\?\)"):
        check_availability("CoOP", ["CoOp", "CoCoOp", "ZeroshotCLIP"])
    with pytest.raises(ValueError, match="is the module that registers it imported"):
        check_availability("x", [])


def test_logger(tmp_path, capsys):
    console = sys.stdout
    logger = setup_logger(str(tmp_path / "run"))
    print("first")
    assert (tmp_path / "run/log.txt").read_text() == "first\n"  # at once, for a run may be killed
    second = setup_logger(str(tmp_path / "run"))
    print("second")
    second.close()
    assert sys.stdout is console and logger.file is None
    print("after")
    assert capsys.readouterr().out == "first\nsecond\nafter\n"
    assert (tmp_path / "run/log.txt").read_text() == "second\n"
    kept = [name for name in os.listdir(tmp_path / "run") if name != "log.txt"]
    assert len(kept) == 1 and kept[0].startswith("log.txt-20")
    assert (tmp_path / "run" / kept[0]).read_text() == "first\n"
    with setup_logger(str(tmp_path / "other.log")) as logger:
        assert logger.isatty() is console.isatty()
        print("x", flush=True)
    assert sys.stdout is console and (tmp_path / "other.log").read_text() == "x\n"
    assert setup_logger(None) is setup_logger("") is None


def test_many_logs_within_a_second_are_all_kept(tmp_path):
    for number in range(4):
        with setup_logger(str(tmp_path)):
            print(number)
    assert sorted((tmp_path / name).read_text() for name in os.listdir(tmp_path)) == ["0\n", "1\n", "2\n", "3\n"]


def test_meters():
    meter = MetricMeter()
    meter.update({"loss": torch.tensor(1.0), "acc": 50})
    meter.update({"loss": 2.0})
    meter.update(None)
    assert str(meter) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)"
    average = AverageMeter()
    average.update(10, n=3)
    average.update(2)
    assert (average.avg, average.sum, average.count) == (8.0, 32, 4)
    AverageMeter().update(1.0, n=0)


def test_seeds():
    draws = []
    for _ in range(2):
        set_random_seed(0)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    set_random_seed(3)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    set_random_seed(3)
    with seeded(9):
        inside = (random.random(), np.random.rand(), torch.rand(1).item())
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected != inside
    # Stored runs depend on this value.
    assert derive_seed(1, "train_x", 0) == 3064084395 != derive_seed(1, "train_x", 1)


def test_files(tmp_path):
    path = str(tmp_path / "a/b.json")
    write_json({"x": [1, "é"]}, path)
    assert read_json(path) == {"x": [1, "é"]}
    write_json([], os.path.relpath(tmp_path / "c.json"))
    mkdir_if_missing("")
    mkdir_if_missing(str(tmp_path / "a"))
    (tmp_path / ".hidden").write_text("")
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "c.json"]
    assert check_isfile(path)
    with pytest.warns(UserWarning, match="No file found"):
        assert not check_isfile(str(tmp_path))


def test_small_helpers():
    assert tolist_if_not(1) == [1] and tolist_if_not([1]) == [1]
    assert "torch: " in collect_env_info()


def test_the_tests_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not torch.cuda.is_available()
