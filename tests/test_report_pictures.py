"""python -m report settings, cost, reliability: their numbers are those of train.py; what they refuse."""

import csv
import json
import shutil
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark import Workplace
from conftest import TINY_VIT, make_clip
from PIL import Image
from test_evaluation import images_encoded

from report.__main__ import main
from report.commands.cost import front
from report.commands.settings.panels import Curves
from report.commands.settings.variations import Setting, variations
from report.labels import place_labels
from tlla.clip import normalize
from tlla.errors import InputError

pytestmark = pytest.mark.usefixtures("loose")
KEYS = ("RHO", "LAMBDA", "N_PERTURB", "N_VIEWS", "TOP_S", "VOTE", "RULE")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained TLLA, a trained CoOp, and a Compare on CoOp's prompt."""
    place = Workplace(tmp_path_factory.mktemp("pictures"), ("bird", "land vehicle", "tool", "fruit", "happy face"))
    tell_apart(place.folder)
    place.run("TLLA", "tlla", "OPTIM.MAX_EPOCH", "1")
    place.run("CoOp", "coop", "OPTIM.MAX_EPOCH", "1")
    prompts = ("TRAINER.COMPARE.PROMPTS", repr([f"CoOp={place.folder / 'coop'}"]))
    place.run("Compare", "compare", *prompts, "TRAINER.COMPARE.METHODS", "['SingleView', 'STSS', 'TPT', 'ZERO']")
    return place


def tell_apart(folder):
    """Takes the mean off the random CLIP's image features, which are nearly the same for all images otherwise."""
    state = torch.load(folder / "clip.pt", weights_only=True)
    model = make_clip(TINY_VIT)
    model.load_state_dict(state)
    images = [Image.open(path).resize((32, 32)) for path in sorted((folder / "data").rglob("*.png"))]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    seen = []
    model.visual.ln_post.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model.encode_image(normalize(pixels))
    state["visual.ln_post.bias"] = state["visual.ln_post.bias"] - seen[0].mean(dim=0)
    torch.save(state, folder / "clip.pt")


def report(what, out, *arguments):
    """Runs a command and reads its table."""
    assert main([what, "--out", str(out), *map(str, arguments)]) == 0
    with (out / f"{what}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def drawn(out, what):
    return all((out / f"{what}.{suffix}").stat().st_size > 5000 for suffix in ("svg", "png"))


def telling(rows):
    """For each thing that is varied, the row whose accuracy is farthest from that of the run's own settings."""
    own = float(next(row for row in rows if row["varied"] == "own")["accuracy"])
    kinds = dict.fromkeys(row["varied"] for row in rows)
    return [
        max((r for r in rows if r["varied"] == kind), key=lambda r: abs(float(r["accuracy"]) - own)) for kind in kinds
    ]


def test_every_point_is_what_the_trainer_gets_with_these_settings(place, tmp_path):
    rows = report("settings", tmp_path, place.folder / "tlla")
    assert drawn(tmp_path, "settings")
    chosen = telling(rows)
    assert {row["varied"] for row in chosen} == {"own", "one view", "mean of all views", "entropy selection", *KEYS}
    print([(r["varied"], r["accuracy"]) for r in chosen])
    assert len({row["accuracy"] for row in chosen}) > 2
    for number, row in enumerate(chosen):
        changes = [w for key in KEYS for w in (f"TRAINER.TLLA.{key}", row[key].removesuffix(" (used labels)"))]
        record = place.run("TLLA", f"check{number}", "--eval-only", "--model-dir", str(place.folder / "tlla"), *changes)
        test = record["splits"]["test"]
        assert (int(row["correct"]), float(row["accuracy"])) == (test["correct"], test["accuracy"]), row


def test_stss_on_the_prompt_of_another_trainer_and_on_another_dataset(undrawn, place, tmp_path):
    changes = ("TRAINER.STSS.TOP_S", "2", "TRAINER.VIEWS.CROP_SCALE", "(0.5, 1.0)")
    load = ("--eval-only", "--model-dir", str(place.folder / "coop"))
    record = place.run("STSS", "stss", *load, *changes, dataset="emoji_twemoji")
    pairs = [changes[:2], changes[2:], ("DATASET.NAME", "EmojiTwemoji")]
    rows = report("settings", tmp_path, f"prompt={place.folder / 'coop'}", *(w for p in pairs for w in ("--set", *p)))
    own = rows[0]
    assert (own["name"], own["dataset"], own["TOP_S"]) == ("prompt", "EmojiTwemoji", "2")
    assert float(own["accuracy"]) == record["splits"]["test"]["accuracy"]


def test_a_part_of_compare_and_the_val_split(undrawn, place, tmp_path):
    test = json.loads((place.folder / "compare/CoOp/STSS/results.json").read_text())["splits"]["test"]
    rows = report("settings", tmp_path / "test", place.folder / "compare/CoOp/STSS")
    assert int(rows[0]["correct"]) == test["correct"] and rows[0]["name"] == "STSS+CoOp"
    rows = report("settings", tmp_path / "val", place.folder / "tlla", "--split", "val")
    assert {row["total"] for row in rows} == {"20"}


def test_views_are_encoded_once_for_all_prompts_and_again_for_other_views(undrawn, place, tmp_path, monkeypatch):
    counted = images_encoded(monkeypatch)
    first = report("settings", tmp_path, place.folder / "tlla", place.folder / "coop")
    once = sum(counted)
    assert report("settings", tmp_path, place.folder / "tlla", place.folder / "coop") == first
    assert sum(counted) == once > 0
    report("settings", tmp_path, place.folder / "tlla", "--set", "TRAINER.TLLA.SEED", "5")
    assert sum(counted) == 2 * once


def test_a_run_that_its_own_settings_do_not_reproduce_is_named(undrawn, place, tmp_path, capsys):
    folder = shutil.copytree(place.folder / "tlla", tmp_path / "edited")
    record = json.loads((folder / "results.json").read_text())
    record["splits"]["test"]["correct"] += 1
    (folder / "results.json").write_text(json.dumps(record))
    report("settings", tmp_path, folder)
    assert "its results.json says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["settings", "{}/compare/CoOp/ZERO"], "is a run of ZERO: name one of STSS, or one that learned a prompt"),
        (["settings", "{}/nowhere"], "there is no folder"),
        (["settings", "{}/tlla", "a={}/tlla"], "given twice"),
        (["reliability", "{}/tlla", "--split", "val"], "no results of the val split"),
        (["cost", "{}/compare", "--only", "nothing"], "no complete run is left"),
        (["cost", "{}/compare", "{}/moved"], "several devices"),
    ),
)
def test_what_cannot_work_is_said_in_a_sentence(place, capsys, tmp_path, arguments, words):
    if "{}/moved" in arguments and not (place.folder / "moved").exists():
        folder = shutil.copytree(place.folder / "tlla", place.folder / "moved")
        record = json.loads((folder / "results.json").read_text())
        record["versions"]["device"] = "another"
        (folder / "results.json").write_text(json.dumps(record))
    assert main([*(a.format(place.folder) for a in arguments), "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_each_setting_is_varied_alone_and_the_same_share_of_fewer_views_votes():
    own = Setting(0.5, 1.0, 8, 64, "stss", 16, "mean_prob")
    for what, setting in variations(own):
        if what in ("rho", "lam", "n_perturb", "top_s", "vote", "rule"):
            assert replace(setting, **{what: getattr(own, what)}) == own
        if what == "n_views":
            assert setting.top_s == max(1, setting.n_views // 4)
    assert sum(setting == own for _, setting in variations(own)) == 8  # itself, and in each of the seven curves


def row(seed, dataset, accuracy, run, varied="RHO", rho=0.5):
    return {
        **{"name": "a", "run": run, "dataset": dataset, "split": "test", "seed": seed, "varied": varied, "RHO": rho},
        "accuracy": accuracy,
    }


def test_points_are_means_over_datasets_with_the_spread_of_the_seeds():
    rows = [row(1, "x", 10.0, "1"), row(1, "y", 20.0, "2"), row(2, "x", 30.0, "3"), row(2, "y", 60.0, "4")]
    point = Curves(rows).points["a", "RHO"][0.5]
    assert point.mean == statistics.mean([15, 45]) and point.std == pytest.approx(statistics.stdev([15, 45]))
    with pytest.raises(InputError, match="no run of seed 2 on y"):
        Curves(rows[:3])
    with pytest.raises(InputError, match="two runs of a have dataset x and seed 1"):
        Curves([*rows, row(1, "x", 10.0, "5")])


def test_cost_is_the_mean_accuracy_and_the_median_seconds_of_each_method(place, tmp_path):
    rows = {row["method"]: row for row in report("cost", tmp_path, place.folder / "compare")}
    assert drawn(tmp_path, "cost") and set(rows) == {"SingleView+CoOp", "STSS+CoOp", "TPT+CoOp", "ZERO+CoOp"}
    for name in ("STSS", "TPT"):
        test = json.loads((place.folder / f"compare/CoOp/{name}/results.json").read_text())["splits"]["test"]
        found = rows[f"{name}+CoOp"]
        assert float(found["accuracy"]) == test["accuracy"]
        assert float(found["seconds"]) == test["seconds_per_image"]
        assert float(found["own_seconds"]) == test["method_seconds_per_image"]
    assert [rows[f"{name}+CoOp"]["backprop"] for name in ("STSS", "TPT")] == ["False", "True"]


def test_cost_shows_the_methods_that_are_asked_for(undrawn, place, tmp_path):
    assert len(report("cost", tmp_path, place.folder / "compare", "--only", "TPT*", "ZERO+CoOp")) == 2


def test_a_method_without_a_dataset_that_others_have_is_left_out(undrawn, place, tmp_path, capsys):
    place.run("ZeroshotCLIP", "clip")
    place.run("ZeroshotCLIP", "clip_there", dataset="emoji_twemoji")
    rows = report("cost", tmp_path, *(place.folder / name for name in ("clip", "clip_there", "tlla")))
    assert [(row["method"], row["runs"]) for row in rows] == [("ZeroshotCLIP", "2")]
    assert "left out: TLLA has no run on EmojiTwemoji" in capsys.readouterr().err
    rows = report("cost", tmp_path, place.folder / "clip", place.folder / "tlla", "--datasets", "Emoji")
    assert len(rows) == 2


def test_the_front_holds_what_nothing_beats():
    generator = torch.Generator().manual_seed(0)
    places = [tuple(pair) for pair in torch.rand(40, 2, generator=generator).tolist()]
    kept = [(x, y) for x, y in sorted(places) if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in places)]
    assert front(places) == kept and 1 < len(kept) < 40


def test_names_move_as_little_as_they_can():
    wanted = sorted(torch.rand(12, generator=torch.Generator().manual_seed(1)).tolist())
    step = 0.08
    y = [place - step * i for i, place in enumerate(wanted)]
    n = range(len(y))
    # The least squares among rising numbers, by its closed form.
    rising = [max(min(statistics.mean(y[j : k + 1]) for k in n if k >= i) for j in n if j <= i) for i in n]
    assert place_labels(wanted, step) == pytest.approx([value + step * i for i, value in enumerate(rising)])
    assert place_labels([0, 1, 2], 0.5) == [0, 1, 2]


def test_reliability_has_the_bins_and_the_ece_of_the_record(place, tmp_path, capsys):
    rows = report("reliability", tmp_path, f"ZERO={place.folder / 'compare/CoOp/ZERO'}", f"T={place.folder / 'tlla'}")
    printed = capsys.readouterr().out
    assert drawn(tmp_path, "reliability")
    for name, folder in (("ZERO", "compare/CoOp/ZERO"), ("T", "tlla")):
        ece = json.loads((place.folder / folder / "results.json").read_text())["splits"]["test"]["ece"]
        own = [row for row in rows if row["name"] == name]
        filled = [row for row in own if int(row["images"])]
        assert len(own) == 16 and {float(row["ece"]) for row in own} == {ece}
        assert f"{name}: ECE {ece:.1f} %" in printed
        gaps = [int(r["images"]) / 25 * abs(float(r["accuracy"]) - float(r["confidence"])) for r in filled]
        assert 100 * sum(gaps) == pytest.approx(ece, abs=1e-3)
        with (place.folder / folder / "predictions_test.csv").open() as file:
            confidences = [float(line["confidence"]) for line in csv.DictReader(file)]
        for low, high, images in ((float(r["low"]), float(r["high"]), int(r["images"])) for r in own[:-1]):
            assert images == sum(low <= c + 6e-7 and c + 6e-7 < high for c in confidences if c < 1)


def test_predictions_of_another_test_are_refused(place, tmp_path, capsys):
    folder = shutil.copytree(place.folder / "tlla", tmp_path / "run")
    file = folder / "predictions_test.csv"
    lines = file.read_text().splitlines()
    for changed in (lines[:-1], [lines[0], *(line.replace(",0.", ",0.0", 1) for line in lines[1:])]):
        file.write_text("\n".join(changed) + "\n")
        assert main(["reliability", str(folder), "--out", str(tmp_path)]) == 2
        assert "are of different tests" in capsys.readouterr().err
