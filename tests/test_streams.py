"""Streams of online methods: orders by their definitions, in train.py, in tables, and many in `report streams`."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import CLASSES, REPO
from hostile import fails
from test_methods_online import TextByImage, started

import report.__main__
import train
from report.commands.streams.orders import OnlineRun
from tlla.clip import load_clip
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.methods.base import Method
from tlla.prompts.classifier import Classifier, from_templates
from tlla.streams import STREAMS, expected_tail_accuracy, parse_stream

LABELS = [label for label, number in enumerate((40, 3, 25, 0, 32)) for _ in range(number)]
TEXTS = ("shuffled", "by_class", "dirichlet", "dirichlet(gamma=0.001,slots=3)", "few_classes(k=2,n=10)")
SHARING = sorted(name for name, method in METHODS.items() if method.see is not Method.see)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_has_each_image_once_in_an_order_that_the_seed_fixes(text):
    stream = parse_stream(text)
    order = stream.order(LABELS, seed=3)
    assert sorted(order) == list(range(100)) and all(type(i) is int for i in order)
    assert order == stream.order(LABELS, seed=3) != stream.order(LABELS, seed=4)
    assert parse_stream(str(stream)) == stream and stream.order([], seed=0) == []
    assert stream.composed_by_labels == (text != "shuffled")


def test_the_default_is_the_order_that_online_methods_have_always_had():
    expected = torch.randperm(100, generator=torch.Generator().manual_seed(7)).tolist()
    assert parse_stream("shuffled").order(LABELS, seed=7) == expected


def runs_of(order):
    """The labels of a stream without repetitions."""
    seen = [LABELS[i] for i in order]
    return [label for label, before in zip(seen, [None, *seen], strict=False) if label != before]


def test_by_class_has_all_images_of_a_class_then_of_another():
    orders = [parse_stream("by_class").order(LABELS, seed) for seed in range(5)]
    assert all(sorted(runs_of(order)) == [0, 1, 2, 4] for order in orders)
    assert len({tuple(runs_of(order)) for order in orders}) > 1 and orders[0] != sorted(orders[0])


def test_dirichlet_slots_have_alike_shares_under_a_large_gamma_and_few_classes_under_a_small_one():
    labels = np.repeat(range(4), 100)
    even = labels[parse_stream("dirichlet(gamma=1e6,slots=5)").order(labels.tolist(), 0)].reshape(5, 80)
    counts = [np.bincount(slot, minlength=4) for slot in even]
    assert np.abs(np.array(counts) - 20).max() <= 4
    changes = []
    for gamma in (0.001, 0.1, 100):
        orders = [parse_stream(f"dirichlet(gamma={gamma})").order(labels.tolist(), seed) for seed in range(9)]
        changes.append(np.mean([len(set(labels[order[:20]])) for order in orders]))
    assert changes[0] < changes[1] < changes[2] and changes[2] == 4


def test_a_batch_of_few_classes_has_no_more_as_long_as_there_are_images():
    for seed in range(5):
        order = parse_stream("few_classes(k=2,n=10)").order(LABELS, seed)
        left = {label: LABELS.count(label) for label in set(LABELS)}
        for start in range(0, 100, 10):
            batch = [LABELS[i] for i in order[start : start + 10]]
            assert len(set(batch)) <= 2 or sum(sorted(left.values())[:2]) < 10
            for label in batch:
                left[label] -= 1
    with pytest.raises(InputError, match=r"needs 5 classes, but the images are of 4"):
        parse_stream("few_classes").order(LABELS, seed=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sorted", "is not a stream"),
        ("dirichlet(gama=1)", "no setting 'gama'"),
        ("dirichlet(gamma=0)", "gamma must be above 0"),
        ("dirichlet(slots=0.5)", "slots must be a whole number"),
        ("few_classes(k=0)", "k must be a whole number, at least 1"),
        ("by_class(k=3)", "has no settings"),
        (3, "is not a stream"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(text, says):
    with pytest.raises(InputError, match="TEST.STREAM") as error:
        parse_stream(text)
    assert says in str(error.value)


def test_the_tail_is_the_mean_of_the_worst_tenth():
    values = list(torch.rand(70).double().mul(100).tolist())
    assert expected_tail_accuracy(values) == pytest.approx(sum(sorted(values)[:7]) / 7)
    assert expected_tail_accuracy(values[:3]) == min(values[:3])


@pytest.mark.parametrize("classifier", (Classifier, TextByImage))
@pytest.mark.parametrize("name", SHARING)
def test_what_orders_share_changes_no_bit(name, classifier):
    text = F.normalize(3 * torch.randn(16) + torch.randn(5, 16), dim=-1)
    images = F.normalize(text[torch.randint(5, (20,))][:, None] + 0.3 * torch.randn(20, 8, 16), dim=-1)
    method = started(METHODS[name](), text, classifier)
    with torch.no_grad():
        expected = method.predict(images)
        seen = [method.see(z, method.classifier.text(z[None])[0]) for z in images]
        for order in (range(20), range(20)[::-1], range(20)):
            method.reset()
            found = {i: method.step(seen[i]) for i in order}
    assert torch.equal(torch.stack([found[i] for i in range(20)]), expected)


# In train.py

FEW = ("TRAINER.COMPARE.METHODS", "['SingleView', 'TDA', 'DPE', 'OnZeta', 'StatA']", "TRAINER.STATA.BATCH", "4")


@pytest.fixture(scope="module")
def tested(place):
    """Compare of online methods and one that is not, shuffled; the features of the views, and labels."""
    more = (*FEW, "TEST.FEATURES", str(place.folder / "features"))
    place.run("Compare", "shuffled", *more)
    place.run("Compare", "by_class", *more, "TEST.STREAM", "by_class")
    (path,) = (place.folder / "features").glob("*.npy")
    labels = [int(row["label"]) for row in place.rows("shuffled/template/TDA")]
    classifier = from_templates(load_clip(str(place.folder / "clip.pt")), list(CLASSES), "an icon of a {}.")
    return SimpleNamespace(features=torch.from_numpy(np.load(path)), labels=labels, more=more, classifier=classifier)


def by_hand(tested, name, order):
    """Predicted class of each image, one after another in an order."""
    method = METHODS[name]()
    found = {}
    with torch.no_grad():
        method.start(tested.classifier, seed=1)
        for i in order:
            found[i] = int(method.predict(tested.features[i][None])[0].argmax())
    return [found[i] for i in range(15)]


def record_of(place, name):
    return json.loads((place.folder / name / "results.json").read_text())["splits"]["test"]


@pytest.mark.parametrize("name", ("TDA", "DPE"))
def test_a_test_sees_the_images_in_the_order_of_the_stream_and_says_so(place, tested, name):
    for stream in ("shuffled", "by_class"):
        rows = place.rows(f"{stream}/template/{name}")
        expected = by_hand(tested, name, parse_stream(stream).order(tested.labels, seed=1))
        assert [int(row["prediction"]) for row in rows] == expected
    test = record_of(place, f"by_class/template/{name}")
    assert test["order"] == "by_class with seed 1"
    assert test["stream"] == {"name": "by_class", "composed_by_labels": True}
    plain = record_of(place, f"shuffled/template/{name}")
    assert plain["order"] == "torch.randperm with seed 1" and "stream" not in plain
    assert not {"order", "stream"} & record_of(place, "by_class/template/SingleView").keys()


def test_tables_say_that_labels_composed_a_stream(place, tested, call):
    table = (place.folder / "by_class/table.md").read_text()
    assert "TDA (stream by_class)" in table and "SingleView (" not in table
    assert "Stream by_class, composed by labels: the true classes ordered the images" in table
    assert "stream" not in (place.folder / "shuffled/table.md").read_text().lower()
    _, out, _ = call(place.folder / "by_class", "--table")
    assert "TDA (stream by_class, composed by labels)" in out
    assert "COMPOSED BY LABELS: DPE (stream by_class, composed by labels): the true classes ordered the images" in out
    _, out, _ = call(place.folder / "by_class", place.folder / "shuffled", "--table")
    assert "stream by_class, not shuffled" in out or "stream shuffled, not by_class" in out


def test_another_stream_tests_online_methods_alone_anew(place, tested, capsys):
    argv = place.argv("Compare", "by_class", *tested.more, "TEST.STREAM", "few_classes(k=1,n=2)")
    assert train.main(argv) == 0
    assert "Tested before, and kept (--fresh: not): template SingleView\n" in capsys.readouterr().out
    assert train.main(place.argv("Compare", "by_class", *tested.more, "TEST.STREAM", "by_class")) == 0


def test_a_stream_for_a_method_that_does_not_learn_is_refused(place, capfd):
    for trainer in ("ZERO", "ZeroshotCLIP", "CoOp"):
        message = fails(capfd, place.argv(trainer, "no", "TEST.STREAM", "by_class"))
        assert f"for methods that learn from them, such as TDA, but {trainer} does not" in message
    assert "is not a stream" in fails(capfd, place.argv("TDA", "no", "TEST.STREAM", "sorted"))


# python -m report streams


def streams(place, *argv):
    """The orders that a call counts, by method and stream."""
    out = place.folder / "streams"
    assert report.__main__.main(["streams", "--out", str(out), *map(str, argv)]) == 0
    found = {}
    for row in csv.DictReader((out / "streams.csv").open()):
        found.setdefault((row["method"], row["stream"]), []).append(int(row["correct"]))
    return found


def test_every_order_counts_what_the_method_gets_right_in_it(place, tested, undrawn, monkeypatch, capsys):
    both = ("--stream", "shuffled", "by_class")
    found = streams(place, place.folder / "shuffled", "--orders", "2", *both)
    assert "left out" not in capsys.readouterr().err
    for name in ("TDA", "DPE"):
        for text in both[1:]:
            predicted = [by_hand(tested, name, parse_stream(text).order(tested.labels, seed)) for seed in range(2)]
            hits = [sum(a == b for a, b in zip(own, tested.labels, strict=True)) for own in predicted]
            assert found[name, text] == hits
    for name in ("TDA", "DPE", "OnZeta", "StatA"):  # one needs the number of images, one predicts batches
        assert found[name, "shuffled"][1] == record_of(place, f"shuffled/template/{name}")["correct"]
    rows = json.loads((place.folder / "streams/streams.json").read_text())
    accuracies = [100 * correct / 15 for correct in found["TDA", "by_class"]]
    (row,) = (row for row in rows if (row["method"], row["stream"]) == ("TDA", "by_class"))
    assert row["worst"] == row["tail"] == min(accuracies) and row["best"] == max(accuracies)
    assert row["mean"] == pytest.approx(sum(accuracies) / 2) and row["composed_by_labels"] is True
    page = (place.folder / "streams/streams.md").read_text()
    assert "Composed by labels, as the true classes ordered the images: by_class." in page

    counted, count = [], OnlineRun._count
    monkeypatch.setattr(OnlineRun, "_count", lambda self, order: counted.append(1) or count(self, order))
    again = streams(place, place.folder / "shuffled/template/TDA", "--orders", "3", *both)
    assert len(counted) == 2 and {key: own[:2] for key, own in again.items()} == {k: found[k] for k in again}


def test_runs_of_one_method_are_told_apart_by_their_folders(place, tested, undrawn):
    shutil.copytree(place.folder / "shuffled", place.folder / "again")
    folders = [place.folder / name / "template/TDA" for name in ("shuffled", "again")]
    assert [name for name, _ in streams(place, *folders, "--orders", "1")] == [f"TDA ({folder})" for folder in folders]


def test_a_run_that_recorded_another_number_is_named(place, tested, undrawn, capsys):
    path = place.folder / "shuffled/template/TDA/results.json"
    before = path.read_text()
    content = json.loads(before)
    content["splits"]["test"]["correct"] += 1
    path.write_text(json.dumps(content))
    streams(place, path.parent, "--orders", "2")
    assert "images are correct in the run's own order, but its results.json says" in capsys.readouterr().err
    path.write_text(before)


def test_what_cannot_be_ordered_is_refused(place, tested, capsys):
    for argv, says in (
        ([place.folder / "shuffled/template/SingleView"], "no complete run of an online method"),
        ([place.folder / "shuffled", "--orders", "0"], "--orders must be a whole number, at least 1"),
        ([place.folder / "shuffled", "--stream", "sorted"], "--stream 'sorted' is not a stream"),
    ):
        assert report.__main__.main(["streams", *map(str, argv)]) == 2
        assert says in capsys.readouterr().err


def test_every_stream_is_documented():
    page = (REPO / "docs/streams.md").read_text(encoding="utf-8")
    assert all(f"`{name}" in page for name in STREAMS)
