"""CoOp's datasets against what CoOp's classes make of the same trees (zoo_trees.py says how that was recorded)."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import zoo_trees
from zoo import build

from datasets.__main__ import main

EXPECTED = json.loads((Path(__file__).parent / "data" / "zoo_expected.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return zoo_trees.make_trees(tmp_path_factory.mktemp("zoo"))


def test_the_record_covers_every_setting():
    keys = {key for key, *_ in zoo_trees.settings()} | {f"{name} new split" for name in zoo_trees.NEW_SPLITS}
    assert keys == set(EXPECTED)
    assert len(zoo_trees.NAMES + zoo_trees.VARIANTS) == 15


@pytest.mark.parametrize("name", zoo_trees.NAMES + zoo_trees.VARIANTS)
def test_items_labels_names_and_draws_are_those_of_coop(root, name):
    halves = itertools.cycle(zoo_trees.HALVES)  # each draw on one of them; of ImageNet's 10,000 files the first seed's
    on = {(seed, shots): next(halves) for seed in zoo_trees.SEEDS for shots in zoo_trees.SHOTS}
    for key, dataset, seed, shots, half in zoo_trees.settings():
        if dataset == name and on.get((seed, shots), half) == half and (name != "ImageNet" or seed == 1):
            pairs = ("SUBSAMPLE_CLASSES", half)
            first = build(name, root, *pairs, seed=seed, shots=shots)  # draws, or reads what another half has drawn
            assert zoo_trees.describe(first, root) == EXPECTED[key], key
    for stored in root.glob("*/split_fewshot"):
        shutil.rmtree(stored)


@pytest.mark.parametrize("name", zoo_trees.NEW_SPLITS)
def test_a_new_split_is_made_as_coop_makes_it_but_under_its_own_name(root, name):
    (published,) = root.glob(f"*/split_zhou_{name}.json")
    aside = published.rename(published.with_suffix(".aside"))
    try:
        made = [build(name, root, "ALLOW_NEW_SPLIT", True) for _ in range(2)]  # the second reads what the first wrote
    finally:
        aside.rename(published)
    assert [zoo_trees.describe(d, root) for d in made] == [EXPECTED[f"{name} new split"]] * 2
    assert (published.parent / f"split_new_{name}.json").is_file()
    assert made[0].split_file_sha256 == made[1].split_file_sha256


@pytest.mark.parametrize("name", zoo_trees.NAMES + zoo_trees.VARIANTS)
def test_check_finds_nothing_but_the_small_numbers(root, name, capsys):
    assert main(["check", name, "--root", str(root)]) == 1
    faults = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAULT")]
    repeated = [line for line in faults if "both in" in line]  # the trees' small classes have too few for three parts
    assert len(faults) == 1 + len(repeated) and "were expected" in faults[0], faults
