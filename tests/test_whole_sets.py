"""What the harness does for methods that need more of a test set than its next image: order, groups, a first pass."""

import importlib

import pytest
import torch
from benchmark import Workplace
from dassl.engine import TRAINER_REGISTRY
from hostile import fails
from test_evaluation import images_encoded, interrupt_after

import parse_test_res
import report.__main__
import tlla.clip
import train
from trainers.harness.gathering import Gathering

STATA = ("TRAINER.STATA.BATCH", "4")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("whole"))


def confidences(place, name):
    return [float(row["confidence"]) for row in place.rows(name)]


def test_groups_leave_in_order_whatever_the_batches():
    index, label = torch.arange(11), torch.arange(11) % 3
    features, pixels = torch.randn(11, 1, 4), torch.zeros(11, 1, 0)
    for size in (1, 3, 11):
        gathering, found = Gathering(4), []
        for start in range(0, 11, size):
            rows = slice(start, start + size)
            gathering.add(index[rows], label[rows], features[rows], pixels[rows])
            found += gathering.full(last=start + size >= 11)
        assert [group[0].tolist() for group in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
        assert all(torch.equal(label[i], own) and torch.equal(features[i], z) for i, own, z, _ in found)
    assert list(gathering.full(last=True)) == []


def test_a_method_that_predicts_in_batches_gathers_its_own(place):
    """Also when the last image cannot be read, after which some are still waiting."""
    place.run("StatA", "eight", *STATA, "TRAINER.VIEWS.VIEW_BATCH", "8")
    place.run("StatA", "two", *STATA, "TRAINER.VIEWS.VIEW_BATCH", "2")
    assert confidences(place, "two") == pytest.approx(confidences(place, "eight"), abs=1e-4)
    place.run("StatA", "all", "TRAINER.STATA.BATCH", "15")
    assert confidences(place, "all") != pytest.approx(confidences(place, "eight"), abs=1e-3)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1)).tolist()
    label, number = divmod(order[-1], 5)
    path = place.folder / f"data/emoji/noto/test/{label}/{number}.png"
    content = path.read_bytes()
    path.write_bytes(b"no image")
    skip = ("TEST.SKIP_BAD_IMAGES", "True", "TRAINER.VIEWS.VIEW_BATCH", "1")
    test = place.run("StatA", "skipped", *STATA, *skip)["splits"]["test"]
    path.write_bytes(content)
    assert test["total"] == 14 and [row["index"] for row in test["skipped"]] == [order[-1]]
    before = [c for i, c in enumerate(confidences(place, "eight")) if i in order[:12]]
    found = dict(zip([int(row["index"]) for row in place.rows("skipped")], confidences(place, "skipped"), strict=True))
    assert [found[i] for i in sorted(order[:12])] == pytest.approx(before, abs=1e-4)


def test_a_method_that_learns_from_batches_goes_on_after_a_kill(place, monkeypatch, capsys):
    deyo = ("TRAINER.DEYO.BATCH", "4", "TRAINER.DEYO.LR", "0.05", "TRAINER.DEYO.MARGIN", "2.0")
    deyo += ("TRAINER.DEYO.PLPD", "-1.0", "TRAINER.VIEWS.VIEW_BATCH", "1", "TEST.SAVE_EVERY", "0.0")
    test = place.run("DeYO", "learned", *deyo, "TEST.STREAM", "by_class")["splits"]["test"]
    assert test["stream"] == {"name": "by_class", "composed_by_labels": True}
    place.run("SingleView", "not_learned")
    learned, plain = confidences(place, "learned"), confidences(place, "not_learned")
    assert sum(abs(a - b) > 1e-3 for a, b in zip(learned, plain, strict=True)) > 5
    argv = place.argv("DeYO", "killed", *deyo, "TEST.STREAM", "by_class")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6)  # two images wait, and one batch was learned from
        assert train.main(argv) == 130
    assert train.main(argv) == 0
    assert place.predictions("killed") == place.predictions("learned")
    out = str(place.folder / "report")
    assert report.__main__.main(["streams", str(place.folder / "learned"), "--out", out]) == 2
    assert "learned: DeYO needs pixels, not features alone" in capsys.readouterr().err


def test_a_first_pass_is_recorded_and_spared_where_features_are_kept(place, monkeypatch, capsys):
    counted = images_encoded(monkeypatch)
    twice = place.run("ADTE", "adte")
    assert twice["method"]["read_test_set_first"] is True and sum(counted) == 2 * 15 * 6
    counted.clear()
    keep = ("TEST.FEATURES", str(place.folder / "features"))
    once = place.run("ADTE", "kept", *keep)
    assert sum(counted) == 15 * 6 and "features" in once["splits"]["test"]
    assert confidences(place, "kept") == pytest.approx(confidences(place, "adte"), abs=1e-4)
    place.run("ADTE", "again", *keep)
    assert sum(counted) == 15 * 6 and place.predictions("again") == place.predictions("kept")
    assert "read_test_set_first" not in place.run("SingleView", "single")["method"]
    assert parse_test_res.main([str(place.folder / "adte"), str(place.folder / "single"), "--table"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "READ FIRST" in line]
    assert len(notes) == 1 and "ADTE" in notes[0]


@pytest.mark.parametrize(
    ("name", "way"),
    (
        ("ADTE", "reads all test images first"),
        ("StatA", "learns from the test images in their order"),
        ("Compare", "learns from the test images in their order"),
    ),
)
def test_a_set_that_cannot_be_divided_is_refused_before_a_weight_is_read(place, capfd, monkeypatch, name, way):
    package = TRAINER_REGISTRY.get("Compare").__module__.rpartition(".")[0]
    distributed = importlib.import_module(f"{package}.harness.distributed")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "from_first", lambda value: value)
    monkeypatch.setattr(tlla.clip, "_load_openai", None)
    message = fails(capfd, place.argv(name, "divided", "TRAINER.COMPARE.METHODS", "['ZERO', 'BCA', 'TDA']"))
    names = "BCA and TDA" if name == "Compare" else name
    assert f"{names} {way}, which cannot be divided among processes" in message
