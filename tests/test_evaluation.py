"""Tests that outlive faults: killed runs, damaged files, bad images, too little memory, several processes."""

import importlib
import json
import os
import random
import signal
import time

import pytest
import torch
from benchmark import Workplace
from dassl.engine import TRAINER_REGISTRY
from forked import fork, fork_several
from hostile import fails

import train
from tlla.clip import encode_images
from tlla.views import encode
from trainers.harness.partial_results import PartialResults

ONE_BY_ONE = ("TRAINER.VIEWS.VIEW_BATCH", "6", "TEST.SAVE_EVERY", "0.0")
TIMES = ("seconds", "images_per_second", "seconds_per_image", "method_seconds_per_image", "peak_memory_mb")
METHODS = ("TRAINER.COMPARE.METHODS", "['ZERO', 'STSS']")
ONLINE = ("TRAINER.COMPARE.METHODS", "['STSS', 'TDA', 'DPE']")  # of episodic ones alone: test_hostile_signals.py


def in_use(module, name):
    """A class as the registered trainers see it: of `trainers`, or of `tlla.trainers` if another test imported that."""
    package = TRAINER_REGISTRY.get("Compare").__module__.rpartition(".")[0]
    return getattr(importlib.import_module(f"{package}.{module}"), name)


def what_was_found(place, output, prompt="template"):
    """All that a Compare run says, without its times: the per-image predictions and the results, by method."""
    found = {}
    for folder in sorted((place.folder / output / prompt).iterdir()):
        test = json.loads((folder / "results.json").read_text())["splits"]["test"]
        test = {key: value for key, value in test.items() if key not in TIMES}
        found[folder.name] = (folder / "predictions_test.csv").read_text(), test
    return found


def shards(place, name):
    """How many shards of a test's results are on disk."""
    return len(list((place.folder / name).glob("shards/*/*.pt")))


def rest_after_each_batch(monkeypatch):
    """So that a process can be killed in the middle."""
    partial = in_use("harness.partial_results", "PartialResults")
    add = partial.add
    monkeypatch.setattr(partial, "add", lambda *args: (add(*args), time.sleep(0.1)))


def test_a_test_killed_again_and_again_ends_as_if_nothing_had_happened(place, monkeypatch):
    name, whole = "killed", "whole"
    argv = place.argv("Compare", name, *ONLINE, *ONE_BY_ONE)
    place.run("Compare", whole, *ONLINE, *ONE_BY_ONE)
    chance = random.Random(0)
    kills, ended = 0, False
    while not ended:
        with monkeypatch.context() as patch:
            rest_after_each_batch(patch)
            process = fork("train", argv).pid
        enough = shards(place, name) + chance.randrange(5)  # none: it is killed while it starts
        while shards(place, name) < enough and not ended:
            time.sleep(0.005)
            ended = os.waitpid(process, os.WNOHANG)[0] == process
        time.sleep(chance.uniform(0, 0.15))
        if not ended:
            os.kill(process, signal.SIGKILL)
            ended = os.WIFEXITED(os.waitpid(process, 0)[1])
            kills += not ended
    assert kills >= 3
    place.run("Compare", name, *ONLINE, *ONE_BY_ONE)
    assert what_was_found(place, name) == what_was_found(place, whole)
    assert not list((place.folder / name).glob("shards/*"))


def interrupt_after(monkeypatch, n):
    """Makes the test stop as by Ctrl-C after n batches."""
    partial = in_use("harness.partial_results", "PartialResults")
    add = partial.add

    def adds_then_stops(self, number, result):
        add(self, number, result)
        if len(self.done) == n:
            raise KeyboardInterrupt

    monkeypatch.setattr(partial, "add", adds_then_stops)


@pytest.fixture
def interrupted(place, monkeypatch, request):
    """A run that was stopped after five of fifteen images, and its arguments."""
    name = request.node.name
    argv = place.argv("Compare", name, *METHODS, *ONE_BY_ONE[:2])
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert train.main(argv) == 130
    return name, argv


def images_encoded(monkeypatch):
    """Counts the images that pass the encoder from now on."""
    counted = []
    monkeypatch.setattr(encode, "encode_images", lambda model, x: counted.append(len(x)) or encode_images(model, x))
    return counted


def test_a_stopped_test_resumes_where_it_was_and_says_so(place, interrupted, monkeypatch, capsys):
    name, argv = interrupted
    counted = images_encoded(monkeypatch)
    assert train.main(argv) == 0
    assert sum(counted) == 10 * 6
    assert "Resuming after 5 of 15 images" in capsys.readouterr().out


def test_fresh_starts_over(place, interrupted, monkeypatch):
    name, argv = interrupted
    counted = images_encoded(monkeypatch)
    assert train.main([*argv[:-4], "--fresh", *argv[-4:]]) == 0
    assert sum(counted) == 15 * 6


def test_other_settings_read_none_of_it(place, interrupted, monkeypatch):
    name, argv = interrupted
    counted = images_encoded(monkeypatch)
    assert train.main([*argv, "TRAINER.STSS.RHO", "0.7"]) == 0
    assert sum(counted) == 15 * 6


def test_a_damaged_shard_is_computed_again(place, interrupted, monkeypatch, capsys):
    name, argv = interrupted
    (shard,) = (place.folder / name).glob("shards/*/*.pt")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    counted = images_encoded(monkeypatch)
    assert train.main(argv) == 0
    assert sum(counted) == 15 * 6 and f"{shard} is damaged" in capsys.readouterr().out


def test_partial_results_in_order_take_only_an_unbroken_beginning(tmp_path):
    for start in (0, 2, 6):  # the shard from 4 is lost
        partial = PartialResults(tmp_path, "test", save_every=100, get_state=lambda: {"seen": torch.tensor(start)})  # noqa: B023
        for number in (start, start + 1):
            partial.add(number, {"x": torch.tensor(number)})
        partial.flush()
    partial = PartialResults(tmp_path, "test", save_every=100, get_state=dict)
    partial.load()
    assert sorted(partial.done) == [0, 1, 2, 3] and partial.state["seen"] == 2
    unordered = PartialResults(tmp_path, "test", save_every=100)
    unordered.load()
    assert sorted(unordered.done) == [0, 1, 2, 3, 6, 7]


def test_without_memory_the_views_pass_in_smaller_batches(place, monkeypatch, capsys):
    place.run("Compare", "enough", *METHODS)

    def with_little_memory(model, images):
        if len(images) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(images) > 10:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return encode_images(model, images)

    monkeypatch.setattr(encode, "encode_images", with_little_memory)
    place.run("Compare", "little", *METHODS)
    assert "Out of memory: continuing with 8 views at once" in capsys.readouterr().out
    for (predicted, _), (expected, _) in zip(
        what_was_found(place, "little").values(), what_was_found(place, "enough").values(), strict=True
    ):
        assert [row.split(",")[:3] for row in predicted.split()] == [row.split(",")[:3] for row in expected.split()]


@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "ZERO"))
def test_bad_images_are_skipped_and_counted_on_request(tmp_path, capfd, trainer):
    place = Workplace(tmp_path)
    whole = place.run(trainer, "whole")
    for path in ("noto/test/1/2.png", "noto/test/2/4.png"):
        bad = tmp_path / "data/emoji" / path
        bad.write_bytes(bad.read_bytes()[:200])
    assert "2.png" in fails(capfd, place.argv(trainer, "stops"))
    results = place.run(trainer, "skips", "TEST.SKIP_BAD_IMAGES", "True", *ONE_BY_ONE)
    test = results["splits"]["test"]
    assert test["total"] == 13 and [entry["index"] for entry in test["skipped"]] == [7, 14]
    assert "noto/test/1/2.png" in test["skipped"][0]["reason"]
    assert "skipped" not in whole["splits"]["test"]
    rows = [place.rows(name) for name in ("whole", "skips")]
    expected = [row["prediction"] for row in rows[0] if row["index"] not in ("7", "14")]
    assert [row["prediction"] for row in rows[1]] == expected


def test_if_no_image_can_be_read_that_is_an_error(tmp_path, capfd):
    place = Workplace(tmp_path)
    for image in (tmp_path / "data/emoji/noto/test").rglob("*.png"):
        image.write_bytes(b"no image")
    message = fails(capfd, place.argv("ZERO", "none", "TEST.SKIP_BAD_IMAGES", "True"))
    assert "none of the 15 images of the test split could be read" in message


def test_several_processes_give_what_one_gives(place):
    place.run("Compare", "one", *METHODS, *ONE_BY_ONE)
    children = fork_several(2, "train", place.argv("Compare", "two", *METHODS, *ONE_BY_ONE))
    assert [child.wait() for child in children] == [0, 0], children
    assert what_was_found(place, "two") == what_was_found(place, "one")


def test_online_methods_refuse_several_processes(place):
    children = fork_several(2, "train", place.argv("TDA", "refused"))
    assert [child.wait() for child in children] == [2, 2]
    sentence = "error: TDA learns from the test images in their order, which cannot be divided among processes"
    assert sentence in "".join(child.error for child in children)


def test_a_dead_process_ends_the_job_which_can_go_on(place, monkeypatch):
    with monkeypatch.context() as patch:
        rest_after_each_batch(patch)
        children = fork_several(2, "train", place.argv("Compare", "dead", *METHODS, *ONE_BY_ONE))
    while not shards(place, "dead"):
        time.sleep(0.02)
    os.kill(children[1].pid, signal.SIGKILL)
    assert children[1].wait() == -signal.SIGKILL
    assert children[0].wait() not in (0, 99) and "run the same command again to resume" in children[0].error
    assert shards(place, "dead")
    place.run("Compare", "dead", *METHODS, *ONE_BY_ONE)
    place.run("Compare", "alive", *METHODS, *ONE_BY_ONE)
    assert what_was_found(place, "dead") == what_was_found(place, "alive")


def test_an_inner_meters_block_counts_there_alone(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 11.0, 11.0, 111.0])  # outer, inner, outer again: 1, 10 and 100 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = in_use("harness.entries", "Meter")
    outer, inner = meter(torch.device("cpu")), meter(torch.device("cpu"))
    with outer, inner:
        pass
    assert (outer.lap(), inner.lap(), outer.lap()) == (101.0, 10.0, 0.0)


def test_two_states_are_kept_and_a_damaged_one_costs_what_came_after_the_other(tmp_path):
    count = 0

    def partial():
        found = PartialResults(tmp_path, "test-x", 0, lambda: {"count": torch.tensor(count)})
        found.load()
        return found

    first = partial()
    for count in range(1, 6):
        first.add(count - 1, {"rows": [count]})
    states = sorted(tmp_path.glob("shards/*/*.state"))
    assert len(states) == 2
    assert sorted(partial().done) == [0, 1, 2, 3, 4] and partial().state["count"] == 5
    states[-1].write_bytes(b"damaged")
    other = partial()
    assert sorted(other.done) == [0, 1, 2, 3] and other.state["count"] == 4
    count = 5
    other.add(4, {"rows": [5]})
    assert sorted(partial().done) == [0, 1, 2, 3, 4] and partial().state["count"] == 5
