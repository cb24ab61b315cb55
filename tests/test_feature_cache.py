"""CACHE_EPOCHS: later epochs see the features of earlier ones."""

import importlib

import pytest
import torch
from benchmark import Workplace
from dassl.engine import TRAINER_REGISTRY
from several_runs import stops_after
from test_faults import fails

import train

TRAINERS = ("SAPT", "CoCoOp")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("work"))


def settings(trainer, n_epochs, *more):
    node = {"SAPT": "SAPT", "CoCoOp": "COCOOP"}[trainer]
    return (f"TRAINER.{node}.CACHE_EPOCHS", str(n_epochs), "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.MAX_EPOCH", "5", *more)


@pytest.fixture
def read(monkeypatch):
    """Names of the training images that have been read."""
    names = []
    package = TRAINER_REGISTRY.get("SAPT").__module__.rpartition(".")[0]  # trainers, or tlla.trainers
    dataset = importlib.import_module(f"{package}.harness.image_data").ImageDataset
    get = dataset.__getitem__

    def counts(self, index):
        if self.is_train:
            names.append(self.data_source[index].impath)
        return get(self, index)

    monkeypatch.setattr(dataset, "__getitem__", counts)
    return names


@pytest.mark.parametrize("trainer", TRAINERS)
def test_with_as_many_epochs_as_there_are_nothing_changes(place, trainer):
    place.run(trainer, f"off{trainer}", *settings(trainer, 0))
    place.run(trainer, f"all{trainer}", *settings(trainer, 5))
    assert torch.equal(place.context(f"off{trainer}", 5), place.context(f"all{trainer}", 5))


def test_images_are_read_in_the_first_epochs_only(place, read):
    for n_epochs in (1, 2):
        del read[:]
        place.run("SAPT", f"cache{n_epochs}", *settings("SAPT", n_epochs))
        assert len(read) == 24 * n_epochs and len(set(read)) == 24
    # The first two epochs saw other images than those that n = 1 repeats.
    contexts = [[place.context(f"cache{n}", epoch) for epoch in (1, 2)] for n in (1, 2)]
    assert torch.equal(contexts[0][0], contexts[1][0]) and not torch.equal(contexts[0][1], contexts[1][1])


@pytest.mark.parametrize("done", (1, 2, 3))
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped(place, read, done):
    place.run("SAPT", "whole", *settings("SAPT", 2))
    argv = place.argv("SAPT", f"stopped{done}", *settings("SAPT", 2))
    with stops_after(done):
        assert train.main(argv) == 130
    del read[:]
    assert train.main(argv) == 0
    assert len(read) == 48
    assert torch.equal(place.context(f"stopped{done}", 5), place.context("whole", 5))


@pytest.mark.parametrize("key", ("CACHE_EPOCHS", "TEXT_CHUNK"))
def test_negative_numbers_are_refused(place, capfd, key):
    assert f"TRAINER.SAPT.{key} must be at least 0, but got -1" in fails(
        capfd, place.argv("SAPT", "wrong", f"TRAINER.SAPT.{key}", "-1")
    )
