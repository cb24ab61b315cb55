"""Features of views that a test keeps (TEST.FEATURES) serve further tests on the same views, and no others."""

import json

import numpy as np
import pytest
from benchmark import Workplace
from forked import fork_several
from hostile import fails
from PIL import Image
from test_evaluation import METHODS, ONE_BY_ONE, images_encoded, interrupt_after, what_was_found

import report.__main__
import train


def keeping(place):
    return "TEST.FEATURES", str(place.folder / "features")


def kept_files(place, suffix):
    return sorted((place.folder / "features").glob(f"*{suffix}"))


def without_features(found):
    return {name: (rows, {**test, "features": None}) for name, (rows, test) in found.items()}


@pytest.fixture
def own(tmp_path):
    """A workplace whose images may be changed."""
    return Workplace(tmp_path)


def test_a_further_test_neither_reads_nor_encodes_an_image(own, monkeypatch):
    own.run("Compare", "expected", "TRAINER.COMPARE.METHODS", "['MTA', 'ZERO']")
    own.run("STSS", "first", *keeping(own))
    counted = images_encoded(monkeypatch)
    own.run("Compare", "second", "TRAINER.COMPARE.METHODS", "['MTA', 'ZERO']", *keeping(own))
    assert not counted and len(kept_files(own, ".npy")) == 1 and not kept_files(own, ".part")
    expected, second = what_was_found(own, "expected"), what_was_found(own, "second")
    assert without_features(second) == without_features(expected)
    assert second["ZERO"][1]["features"] == str(kept_files(own, ".npy")[0]) and "features" not in expected["ZERO"][1]


def test_times_are_those_of_the_test_that_kept_them(own, capfd):
    own.run("STSS", "first", *keeping(own))
    facts = kept_files(own, ".json")[0]
    facts.write_text(json.dumps({"seconds": 30.0, "peak_memory_mb": 1e9}))
    test = own.run("MeanViews", "second", *keeping(own))["splits"]["test"]
    assert test["seconds_per_image"] == pytest.approx(30 / 15 + test["method_seconds_per_image"])
    assert test["peak_memory_mb"] == 1e9
    facts.unlink()
    assert "does not say how long they took" in fails(capfd, own.argv("ZERO", "third", *keeping(own)))


@pytest.mark.parametrize("change", ("seed", "image", "views"))
def test_other_views_are_encoded(own, monkeypatch, change):
    own.run("STSS", "first", *keeping(own))
    counted, more = images_encoded(monkeypatch), ()
    if change == "seed":
        more = "TRAINER.VIEWS.SEED", "7"
    elif change == "views":
        more = "TRAINER.VIEWS.CROP_SCALE", "(0.5, 1.0)"
    else:
        path = own.folder / "data/emoji/noto/test/0/0.png"
        Image.open(path).rotate(90).save(path)
    own.run("STSS", "second", *more, *keeping(own))
    assert sum(counted) == 15 * 6 and len(kept_files(own, ".npy")) == 2


def test_a_stopped_test_completes_what_it_kept(own, monkeypatch):
    argv = own.argv("Compare", "stopped", *METHODS, *ONE_BY_ONE[:2], *keeping(own))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert train.main(argv) == 130
    assert len(kept_files(own, ".part")) == 1 and not kept_files(own, ".npy")
    assert train.main(argv) == 0
    assert len(kept_files(own, ".npy")) == 1 and not kept_files(own, ".part")
    counted = images_encoded(monkeypatch)
    own.run("Compare", "again", *METHODS, *ONE_BY_ONE[:2], *keeping(own))
    assert not counted
    assert without_features(what_was_found(own, "again")) == without_features(what_was_found(own, "stopped"))


def test_several_processes_keep_what_one_keeps(own):
    children = fork_several(2, "train", own.argv("ZERO", "two", *ONE_BY_ONE, *keeping(own)))
    assert [child.wait() for child in children] == [0, 0], children
    (whole,) = kept_files(own, ".npy")
    kept = np.load(whole)
    whole.unlink()
    own.run("ZERO", "one", *ONE_BY_ONE, *keeping(own))
    assert (np.load(whole) == kept).all()


def test_images_that_cannot_be_read_stay_skipped(own):
    (own.folder / "data/emoji/noto/test/1/2.png").write_bytes(b"no image")
    skip = "TEST.SKIP_BAD_IMAGES", "True"
    first, second = (own.run("ZERO", name, *skip, *keeping(own))["splits"]["test"] for name in ("first", "second"))
    assert [row["index"] for row in second["skipped"]] == [7] and second["accuracy"] == first["accuracy"]
    assert "features" in second and "features" not in first


@pytest.mark.parametrize("how", ("a feature", "a line too much", "not an array"))
def test_a_damaged_file_is_named(own, capfd, how):
    own.run("ZERO", "first", *keeping(own))
    (path,) = kept_files(own, ".npy")
    if how == "a feature":
        np.load(path, mmap_mode="r+")[3, 2] = 0
    else:
        path.write_bytes(b"no array" if how == "not an array" else path.read_bytes()[:-400])
    message = fails(capfd, own.argv("ZERO", "second", *keeping(own)))
    assert f"the features kept in {path} are damaged" in message and "remove it" in message


def test_methods_that_change_the_image_encoder_make_the_views_again(own, monkeypatch):
    own.run("SAR", "expected")
    own.run("ZERO", "first", *keeping(own))
    counted = images_encoded(monkeypatch)
    own.run("SAR", "second", *keeping(own))
    assert not counted and own.predictions("second") == own.predictions("expected")


def test_a_disk_that_is_too_small_is_found_before_a_view_is_made(own, capfd, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Disk", (), {"free": 1000}))
    assert "needs 0.0 GB for the features of the views" in fails(capfd, own.argv("ZERO", "full", *keeping(own)))


def test_reports_use_what_a_test_has_kept(own, monkeypatch, undrawn):
    own.run("STSS", "first", *keeping(own))
    counted = images_encoded(monkeypatch)
    argv = ["settings", str(own.folder / "first"), "--out", str(own.folder / "report")]
    assert report.__main__.main(argv) == 0
    assert not counted and not (own.folder / "report/features").exists()
