"""Views in rounds: an image whose vote is clear needs no more of them."""

import csv

import pytest
import torch
import torch.nn.functional as F
from hostile import fails

import report.__main__
import tlla.predict.command
from report.commands.margin import smallest_margin
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.prompts.classifier import PromptClassifier
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.views.rounds import BatchViews, check_margin, predict_in_rounds, round_sizes

VOTING = ("STSS", "EntropyMean", "ZERO", "MeanViews", "MTA", "VTE")
MARGIN = 0.2
NAMES = ["dog", "golden retriever", "sea anemone"]


class Encoder:
    """Features of views by a random projection: (N, V, 3, 4, 4) -> (N, V, 32). Counts the views."""

    def __init__(self):
        self.projection = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
        self.n_views = 0

    def __call__(self, views):
        self.n_views += len(views) * views.shape[1]
        return F.normalize((views.flatten(2).float() - 128) @ self.projection, dim=-1)


@pytest.fixture(scope="module")
def task(tiny_clip):
    """An encoder, 20 views of six images, from all alike to all different, and a classifier."""
    generator = torch.Generator().manual_seed(0)
    one, many = (torch.randint(256, (6, n, 4, 4, 3), generator=generator) for n in (1, 20))
    share = torch.linspace(0, 1, 6).view(6, 1, 1, 1, 1)
    views = ((1 - share) * one + share * many).to(torch.uint8).movedim(-1, 2)
    classifier = PromptClassifier(PromptedCLIP(tiny_clip, PromptLearner(tiny_clip, NAMES, ctx_init="a photo of a")))
    return Encoder(), views, classifier


def started(name, task):
    method = METHODS[name](top_s=10) if name == "STSS" else METHODS[name]()
    method.start(task[2])
    return method


def by_hand(name, task, margin):
    """Probabilities and views of each image, one after the other, all of whose views are encoded."""
    encode, views, classifier = task
    found = []
    for image in views:
        for n in (8, 16, 20):
            method = METHODS[name](top_s=10 * n // 20) if name == "STSS" else METHODS[name]()
            method.start(classifier)
            probability = method.predict(encode(image[None])[:, :n])[0]
            first, second = probability.sort(descending=True).values[:2]
            if first - second >= margin:
                break
        found.append((probability, n))
    return torch.stack([row for row, _ in found]), torch.tensor([n for _, n in found])


@pytest.mark.parametrize("name", VOTING)
def test_an_image_is_done_when_its_vote_leads(task, name):
    method, batch = started(name, task), BatchViews(*task[:2])
    probability = predict_in_rounds(method, batch, MARGIN)
    expected, views = by_hand(name, task, MARGIN)
    torch.testing.assert_close(probability, expected, atol=1e-5, rtol=1e-5)
    assert method.details["views"].tolist() == views.tolist()
    assert len(set(views.tolist())) > 1 or name == "ZERO"  # two votes agree or do not


@pytest.mark.parametrize("name", VOTING)
def test_no_image_depends_on_the_others_of_its_batch(task, name):
    encode, views, _ = task
    method = started(name, task)
    whole, details = predict_in_rounds(method, BatchViews(encode, views), MARGIN), method.details
    for rows in ([0, 1, 2], [5], [4, 3]):
        part = predict_in_rounds(method, BatchViews(encode, views[rows]), MARGIN)
        torch.testing.assert_close(part, whole[rows], atol=1e-5, rtol=1e-5)
        assert method.details["views"].equal(details["views"][rows])


def test_views_are_encoded_once_and_no_more_than_are_needed(task):
    encode, views = Encoder(), task[1]
    method, batch = started("EntropyMean", task), BatchViews(encode, views)
    predict_in_rounds(method, batch, MARGIN)
    assert encode.n_views == method.details["views"].sum()
    torch.testing.assert_close(batch.features(), Encoder()(views), atol=1e-6, rtol=1e-5)
    assert encode.n_views == 6 * 20


def test_rounds_double_and_end_with_all_views():
    assert [round_sizes(n) for n in (1, 8, 9, 64)] == [[1], [8], [8, 9], [8, 16, 32, 64]]


def test_one_class_needs_one_round(task):
    encode, views, classifier = task
    one = METHODS["MeanViews"]()
    one.start(PromptClassifier(PromptedCLIP(classifier.clip_model, PromptLearner(classifier.clip_model, ["dog"]))))
    predict_in_rounds(one, BatchViews(encode, views), 0.9)
    assert one.details["views"].unique().tolist() == [8]


@pytest.mark.parametrize("margin", (-0.1, 1.1, float("nan"), "much"))
def test_a_margin_is_a_difference_of_probabilities(margin):
    with pytest.raises(InputError, match="^MARGIN"):
        check_margin(margin, 64)


def test_the_margin_is_the_smallest_from_which_on_no_accuracy_is_lost():
    curve = [(0.1, 9.0, 50.0), (0.2, 12.0, 48.0), (0.3, 20.0, 49.8), (0.4, 30.0, 49.6), ("all", 64.0, 50.0)]
    assert [smallest_margin(curve, points) for points in (0.1, 0.3, 0.4, 3.0)] == [0.0, 0.0, 0.3, 0.1]


TWENTY = ("TRAINER.VIEWS.N_VIEWS", "20", "TRAINER.VIEWS.MARGIN", "0.7")
COMPARE = ("TRAINER.COMPARE.METHODS", "['STSS', 'EntropyMean', 'TPT']")


@pytest.fixture(scope="module")
def compared(place):
    place.run("Compare", "compare", *TWENTY, *COMPARE)
    return place


def test_a_row_and_a_record_say_how_many_views_an_image_needed(compared):
    rows = list(csv.DictReader(compared.predictions("compare/template/EntropyMean").splitlines()))
    views = [float(row["views"]) for row in rows]
    assert set(views) <= {8, 16, 20}
    assert len(set(views)) > 1
    assert "views" not in compared.predictions("compare/template/TPT").splitlines()[0]
    record = compared.run("Compare", "compare", *TWENTY, *COMPARE)  # resumes
    assert record["splits"]["test"]["total"] == 15


def test_the_command_measures_what_runs_do(loose, compared, capsys):
    """The accuracy and the views of a margin are those of a run with this margin."""
    place = compared
    found = place.run("EntropyMean", "own", *TWENTY)["splits"]["test"]
    out = place.folder / "margin"
    argv = ["margin", str(place.folder / "compare"), "--split", "test", "--out", str(out)]
    assert report.__main__.main(argv) == 0
    assert "EntropyMean: MARGIN" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "margin.csv").read_text().splitlines()))
    (own,) = [row for row in rows if row["name"].endswith("EntropyMean") and row["margin"] == "0.7"]
    assert float(own["views"]) == pytest.approx(found["views"])
    assert float(own["accuracy"]) == pytest.approx(found["accuracy"])
    assert not any("TPT" in row["name"] for row in rows)
    assert (out / "margin.png").is_file()
    (entry,) = (place.folder / "compare").glob("*/EntropyMean")
    argv = ["margin", f"one={entry}", "--split", "test", "--out", str(out)]
    assert report.__main__.main(argv) == 0
    assert {row["name"] for row in csv.DictReader((out / "margin.csv").read_text().splitlines())} == {"one"}


def test_predict_says_how_many_views_an_image_needed(place, tmp_path):
    images = str(place.folder / "data" / "emoji" / "noto" / "test" / "0")
    argv = [images, "--backbone", str(place.folder / "clip.pt"), "--classes", "bird", "tool", "--views", "20"]
    argv += ["--method", "entropy", "--margin", "0.7", "--quiet", "--csv", str(tmp_path / "rows.csv")]
    assert tlla.predict.command.main(argv) == 0
    rows = csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())
    assert {row["views"] for row in rows} <= {"8", "16", "20"}
    assert tlla.predict.command.main([*argv, "--method", "tpt"]) == 2
    assert tlla.predict.command.main([*argv, "--method", "tlla", "--explain", str(tmp_path)]) == 2


def test_a_margin_for_a_method_that_needs_all_views_is_refused(place, capfd):
    said = fails(capfd, place.argv("TPT", "tpt", *TWENTY))
    assert "TRAINER.VIEWS.MARGIN is 0.7" in said
    assert "all views are needed by TPT" in said
    assert "MARGIN must lie between 0 and 1" in fails(capfd, place.argv("ZERO", "zero", "TRAINER.VIEWS.MARGIN", "2.0"))


def test_a_margin_is_refused_where_no_view_can_be_spared(place, capfd):
    few = ("TRAINER.VIEWS.N_VIEWS", "8", "TRAINER.VIEWS.MARGIN", "0.3")
    assert "MARGIN 0.3 spares nothing with 8 views" in fails(capfd, place.argv("ZERO", "few", *few))


def test_a_flag_of_predict_is_no_setting_of_a_method(place, capsys):
    image = str(place.folder / "data/emoji/noto/test/0/0.png")
    argv = [image, "--backbone", str(place.folder / "clip.pt"), "--classes", "bird", "tool", "--set", "margin=0.3"]
    assert tlla.predict.command.main(argv) == 2
    assert "--set has margin, which is not a setting of the method but a flag" in capsys.readouterr().err


@pytest.mark.parametrize("what", ("page", "settings"))
def test_reports_on_all_views_refuse_a_run_with_a_margin(place, tmp_path, capsys, what):
    if not (place.folder / "stss").is_dir():
        place.run("STSS", "stss", *TWENTY)
    assert report.__main__.main([what, str(place.folder / "stss"), "--out", str(tmp_path)]) == 2
    assert "was tested with MARGIN 0.7, so not on all views" in capsys.readouterr().err
