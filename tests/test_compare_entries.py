"""Compare keeps the entries that are tested already and adds the others."""

import json

import pytest
from benchmark import Workplace

import train
from tlla.methods import METHODS

ALL = sorted(METHODS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("Compare", "whole")
    return place


def entries_of(place, output):
    """Of each method: what is in its folder, with the times at which it was written."""
    folders = (place.folder / output / "template").iterdir()
    return {f.name: {file.name: (file.stat().st_mtime_ns, file.read_text()) for file in f.iterdir()} for f in folders}


def without_times(place, output, name):
    """What the images got."""
    return [line.split(",")[:3] for line in place.predictions(f"{output}/template/{name}").splitlines()]


def test_missing_methods_are_added_and_the_others_stay_as_they_are(place, capsys):
    place.run("Compare", "grown", "TRAINER.COMPARE.METHODS", str(ALL[::2]))
    before = entries_of(place, "grown")
    capsys.readouterr()
    record = place.run("Compare", "grown")
    printed = capsys.readouterr().out
    assert f"kept (--fresh: not): {', '.join(f'template {name}' for name in METHODS if name in ALL[::2])}" in printed
    assert sorted(name for _, name in record["splits"]["test"]["parts"]) == ALL
    after = entries_of(place, "grown")
    assert {name: after[name] for name in ALL[::2]} == before
    for name in ALL:
        assert without_times(place, "grown", name) == without_times(place, "whole", name)
        assert f"| template | {name} " in (place.folder / "grown/table.md").read_text()


SMALL = ("TRAINER.COMPARE.METHODS", "['ZERO', 'STSS', 'SingleView']")


@pytest.mark.parametrize(
    ("more", "anew"),
    [
        ((), []),
        (("TRAINER.TPT.LR", "0.1", "DATALOADER.NUM_WORKERS", "1", "TRAINER.SAPT.RHO", "0.3"), []),  # of other methods
        (("TRAINER.ZERO.TOP", "0.5"), ["ZERO"]),
        (("TRAINER.VIEWS.N_VIEWS", "5"), ["STSS", "SingleView", "ZERO"]),
        (("TRAINER.PROMPT.TEMPLATE", "a {}."), ["STSS", "SingleView", "ZERO"]),
        (("TEST.FRESH", "True"), ["STSS", "SingleView", "ZERO"]),
    ],
)
def test_only_a_part_of_the_same_settings_is_kept(place, more, anew):
    place.run("Compare", "settings", *SMALL, "TEST.FRESH", "True")
    before = entries_of(place, "settings")
    place.run("Compare", "settings", *SMALL, *more)
    assert sorted(name for name, files in entries_of(place, "settings").items() if files != before[name]) == anew


@pytest.mark.parametrize("change", (None, "prompt_sha256", "config"))
def test_a_part_of_an_older_version_is_compared_by_its_config_and_kept_with_a_note(place, capsys, change):
    place.run("Compare", "old", *SMALL, "TEST.FRESH", "True")
    file = place.folder / "old/template/ZERO/results.json"
    record = json.loads(file.read_text())
    del record["splits"]["test"]["fingerprint"], record["config"]["TRAINER"]["PROMPT"]["NAME"]
    if change == "config":
        record["config"]["TRAINER"]["ZERO"]["TOP"] = 0.9
    elif change:
        record["splits"]["test"][change] = "of another prompt"
    file.write_text(json.dumps(record))
    capsys.readouterr()
    place.run("Compare", "old", *SMALL)
    printed = capsys.readouterr().out
    assert ("does not say with which weights it was tested" in printed) == (change is None)
    assert ("fingerprint" in json.loads(file.read_text())["splits"]["test"]) == (change is not None)


def test_a_part_without_its_predictions_is_tested_again(place):
    place.run("Compare", "gone", *SMALL)
    file = place.folder / "gone/template/ZERO/predictions_test.csv"
    before = file.read_text()
    file.unlink()
    assert train.main(place.argv("Compare", "gone", *SMALL)) == 0
    assert file.read_text() == before
