"""parse_test_res.py: its table against numbers that are computed by hand."""

import csv
import functools
import io
import itertools
import json
import math

import pytest
from benchmark import Workplace
from table_records import change, read, record, rows_of, write_runs

from report.tables.numbers import T95, averaged
from tlla import paper


@pytest.fixture
def runs(tmp_path, request):
    return write_runs(tmp_path / "out", new=getattr(request, "param", True))


@pytest.mark.parametrize("runs", (False, True), ids=("old", "new"), indirect=True)
def test_cells_and_averages_are_those_computed_by_hand(runs, call):
    code, out, err = call(runs, "--format", "csv", "--require-seeds", 1, 2, 3)
    assert (code, err) == (0, "")
    cells = rows_of(out)
    assert len(cells) == 4 * 7
    row = cells["CoOp", "ImageNetA"]
    assert (float(row["mean"]), float(row["std"]), row["n"], row["seeds"]) == (50.0, 1.0, "3", "1; 2; 3")
    assert float(row["ci95"]) == pytest.approx(4.303 / math.sqrt(3))
    assert (float(row["paper"]), float(row["difference"])) == (49.71, pytest.approx(0.29))
    per_seed = [(49.0 + 64.0 + 75.0 + 48.0) / 4, (50.0 + 64.2 + 75.5 + 47.0) / 4, (51.0 + 64.4 + 76.0 + 49.0) / 4]
    row = cells["CoOp", "OOD average"]
    assert float(row["mean"]) == pytest.approx(sum(per_seed) / 3)
    deviations = [(value - sum(per_seed) / 3) ** 2 for value in per_seed]
    assert float(row["std"]) == pytest.approx(math.sqrt(sum(deviations) / 2))
    assert float(cells["CoOp", "average"]["mean"]) == pytest.approx((4 * sum(per_seed) / 3 + 71.5) / 5)
    assert float(row["difference"]) == pytest.approx(sum(per_seed) / 3 - 59.28)
    row = cells["ZeroshotCLIP", "ImageNet"]
    assert (row["n"], row["std"], row["missing"]) == ("1", "", "")  # without randomness one run is enough


def test_rows_are_sorted_best_bold_and_second_underlined(runs, call):
    out = call(runs, "--format", "markdown")[1]
    lines = [line for line in out.splitlines() if line.startswith("|")][2:6]
    assert [line.split("|")[1].strip() for line in lines] == ["TLLA", "SAPT", "CoOp", "ZeroshotCLIP"]
    assert [cell.strip() for cell in lines[0].split("|")[2:4]] == ["**74.70** ± 0.20", "**66.00** ± 1.00"]
    assert lines[2].split("|")[2].strip() == "<u>71.50</u> ± 0.50"  # CoOp is second on the source
    assert lines[1].split("|")[8].strip() == "<u>60.54</u> ± 0.23" and lines[1].split("|")[9].strip() == "3"
    latex = call(runs, "--format", "latex", "--ci95")[1]
    assert r"\textbf{74.70} $\pm$ 0.50" in latex and r"\underline{71.50} $\pm$ 1.24" in latex
    text = call(runs, "--table")[1]
    assert "*74.70* ± 0.20" in text and "_71.50_ ± 0.50" in text
    assert "74.70 / 74.01 / +0.69" in text  # ours, the paper's, the difference


def test_equal_numbers_share_a_mark_and_low_is_good_for_errors(runs, call):
    for method, ece in (("CoOp", 1.0), ("SAPT", 2.0), ("TLLA", 1.004)):
        for seed in (1, 2, 3):
            change(runs / f"ImageNet/{method}/seed{seed}", lambda c, e=ece: c["splits"]["test"].update(ece=e))
    (runs / "ImageNet/CLIP/seed1/results.json").unlink()
    out = call(runs, "--keyword", "ece", "--format", "markdown")[1]
    first = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in out.splitlines() if line[0:1] == "|"}
    assert first["CoOp"].startswith("**1.00**") and first["TLLA"].startswith("**1.00**")
    assert first["SAPT"].startswith("<u>2.00</u>") and "ece in % (15 bins), mean" in out
    assert "paper" not in out  # which has accuracies only


def test_json_has_every_run(runs, call):
    content = json.loads(call(runs, "--format", "json")[1])
    assert len(content["runs"]) == 3 * 3 * 5 + 5 and len(content["cells"]) == 28 and content["notes"] == []
    assert {
        "table": "ImageNet and its variants",
        "method": "TLLA",
        "dataset": "ImageNetR",
        "seed": 2,
        "accuracy": 81.5,
    } in (content["runs"])


def test_seeds_of_other_settings_make_rows_of_their_own(runs, call):
    change(runs / "ImageNet/SAPT/seed3", lambda c: c["config"]["TRAINER"]["SAPT"].update(RHO=0.7))
    out = call(runs, "--format", "csv")[1]
    methods = {method for method, _ in rows_of(out)}
    assert methods >= {"SAPT [training TRAINER.SAPT.RHO 0.05]", "SAPT [training TRAINER.SAPT.RHO 0.7]"}
    assert rows_of(out)["TLLA [training TRAINER.SAPT.RHO 0.7]", "ImageNetR"]["seeds"] == "3"  # whose prompt that is
    views = "method.views" if "method" in read(runs / "ImageNetR/TLLA/seed1") else "config.TRAINER.TLLA"
    change(runs / "ImageNetR/TLLA/seed1", lambda c: functools.reduce(dict.get, views.split("."), c).update(N_VIEWS=8))
    assert any("N_VIEWS 8" in method for method, _ in rows_of(call(runs, "--format", "csv")[1]))


@pytest.mark.parametrize("new", (False, True), ids=("old", "new"))
def test_a_method_is_named_with_the_prompt_that_it_ran_on(new, tmp_path, call):
    coop, sapt, tlla = (tmp_path / name for name in ("coop", "sapt", "tlla"))
    for folder, trainer in ((coop, "CoOp"), (sapt, "SAPT"), (tlla, "TLLA")):
        record(folder, trainer, "Emoji", 1, 50.0, new=new)
    cases = {
        ("TLLA", coop): "STSS+CoOp",
        ("STSS", sapt): "TLLA",
        ("STSS", None): "STSS",
        ("ZERO", coop): "ZERO+CoOp",
        ("ZERO", tlla): "ZERO+SAPT",
        ("CoOp", coop): "CoOp",
        ("CoOp", sapt): "SAPT",
        ("ZERO", tmp_path / "gone"): "ZERO+?",
        ("CoOp", tmp_path / "gone"): "CoOp+?",
    }
    for number, (trainer, prompt) in enumerate(cases):
        more = {"prompt_of": prompt, "new": new}
        record(tmp_path / str(number), trainer, "EmojiTwemoji", 1, 50.0 + number, **more)
    code, out, err = call(tmp_path, "--format", "csv")
    found = {row["mean"]: row["method"] for row in rows_of(out).values() if row["dataset"] == "EmojiTwemoji"}
    assert found == {str(50.0 + number): label for number, label in enumerate(cases.values())}
    assert "UNKNOWN PROMPT: ZERO+?" in err


def test_a_training_in_one_pass_is_in_one_row_with_the_tests_of_its_only_epoch(tmp_path, call):
    nodes = {"config__TRAINER__TIPADAPTER": {"BETA": 1.0}}
    record(tmp_path / "source", "TipAdapter", "Emoji", 1, 50.0, train_seconds=1.0, **nodes)
    loaded = {"path": str(tmp_path / "source/tip_adapter/model.pth.tar-1"), "epoch": 1}
    record(tmp_path / "test", "TipAdapter", "EmojiTwemoji", 1, 51.0, loaded_from=loaded, **nodes)
    assert {method for method, _ in rows_of(call(tmp_path, "--format", "csv")[1])} == {"TipAdapter"}


def test_a_prompt_whose_run_has_moved_is_known_by_its_hash(tmp_path, call):
    record(tmp_path / "here", "CoOp", "Emoji", 1, 50.0, splits__test__prompt_sha256="abc")
    more = {"prompt_of": tmp_path / "there", "splits__test__prompt_sha256": "abc"}
    record(tmp_path / "zero", "ZERO", "Emoji", 1, 51.0, **more)
    assert ("ZERO+CoOp", "Emoji") in rows_of(call(tmp_path, "--format", "csv")[1])


def test_other_protocols_get_tables_of_their_own(tmp_path, call):
    for dataset, accuracy in (("OxfordPets", 90.0), ("Caltech101", 94.0), ("Mine", 70.0)):
        record(tmp_path / "own" / dataset, "CoOp", dataset, 1, accuracy)
    record(tmp_path / "in", "CoOp", "ImageNet", 1, 71.0)
    record(tmp_path / "pets", "CoOp", "OxfordPets", 1, 80.0, prompt_of=tmp_path / "in")
    record(tmp_path / "new", "CoOp", "Mine", 1, 60.0, config__DATASET__SUBSAMPLE_CLASSES="new")
    record(tmp_path / "clip", "ZeroshotCLIP", "OxfordPets", 1, 89.0)
    rows = list(csv.DictReader(io.StringIO(call(tmp_path, "--format", "csv")[1])))
    clip = [row["table"] for row in rows if row["method"] == "ZeroshotCLIP"]
    assert clip == ["Cross-dataset transfer from ImageNet", "Trained and tested on the same dataset, or not trained"]
    rows = [row for row in rows if row["method"] == "CoOp"]
    found = {(row["table"], row["dataset"]): float(row["mean"]) for row in rows}
    same = "Trained and tested on the same dataset, or not trained"
    assert found[same, "OxfordPets"] == 90.0 and found[same, "ImageNet"] == 71.0 and found[same, "Mine"] == 70.0
    assert [row["dataset"] for row in rows if row["table"] == same] == [
        *("ImageNet", "Caltech101", "OxfordPets", "Mine", "average")
    ]
    assert found["Cross-dataset transfer from ImageNet", "OxfordPets"] == 80.0
    assert found["ImageNet and its variants", "ImageNet"] == 71.0
    assert found["Trained on Mine (new)", "Mine (new)"] == 60.0


# Statistics, the paper's figures, faults of the user


def test_summary_of_one_value_has_no_spread():
    assert averaged([3.0]).std is None and averaged([3.0]).ci95 is None
    assert averaged([1.0, 2.0, 4.0]).std == pytest.approx(math.sqrt(7 / 3))
    assert averaged([0.0, 2.0] * 20).ci95 == pytest.approx(1.96 * math.sqrt(40 / 39) / math.sqrt(40))


def test_quantiles_of_student_by_integration():
    for df, quantile in enumerate(T95, start=1):
        density = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        step = quantile / 20_000
        area = sum((1 + ((i + 0.5) * step) ** 2 / df) ** (-(df + 1) / 2) for i in range(20_000)) * step * density
        assert area == pytest.approx(0.475, abs=5e-5)


def test_the_papers_averages_are_means_of_its_cells():
    for benchmark in paper.BENCHMARKS:
        for method, values in benchmark.paper.items():
            assert len(values) == len(benchmark.columns) + len(benchmark.averages)
            numbers = benchmark.published(method)
            for name, datasets in benchmark.averages.items():
                if name in numbers:
                    assert numbers[name] == pytest.approx(
                        sum(numbers[d] for d in datasets) / len(datasets), abs=0.012
                    ), method


def test_real_runs_of_train_py_fill_the_table(tmp_path, call):
    place = Workplace(tmp_path)
    for seed in "12":
        place.run("CoOp", f"out/CoOp/seed{seed}", "--seed", seed)
    for dataset, seed in itertools.product(("emoji", "emoji_twemoji"), "12"):
        source = ("--seed", seed, "--eval-only", "--model-dir", str(tmp_path / f"out/CoOp/seed{seed}"))
        place.run("TLLA", f"out/{dataset}/TLLA/seed{seed}", *source, dataset=dataset)
    prompts = f"['template=', 'CoOp={tmp_path / 'out/CoOp/seed1'}']"
    keys = ("TRAINER.COMPARE.METHODS", "['SingleView', 'ZERO']", "TRAINER.COMPARE.PROMPTS", prompts)
    place.run("Compare", "out/compare", *keys)
    code, out, err = call(tmp_path / "out", "--format", "csv")
    found = rows_of(out)
    assert code == 0 and "LEFT OUT" not in err and "NOT COMPARABLE" not in err and "UNKNOWN" not in err
    assert set(found) == {
        *((method, "Emoji") for method in ("CoOp", "SingleView", "SingleView+CoOp", "ZERO", "ZERO+CoOp")),
        *(("STSS+CoOp", dataset) for dataset in ("Emoji", "EmojiTwemoji")),
    }
    accuracies = [
        json.loads((tmp_path / f"out/emoji_twemoji/TLLA/seed{seed}/results.json").read_text())["splits"]["test"][
            "accuracy"
        ]
        for seed in "12"
    ]
    assert float(found["STSS+CoOp", "EmojiTwemoji"]["mean"]) == pytest.approx(sum(accuracies) / 2)
    assert call(tmp_path / "out", "--mcnemar", "ZERO+CoOp", "SingleView+CoOp")[0] == 0
    head = tmp_path / "out/compare/results.json"  # its parts are complete, but it is not
    content = json.loads(head.read_text())
    content["splits"]["test"]["parts"] = [["template", "ZERO"], ["CoOp", "ZERO"]]
    head.write_text(json.dumps(content))
    assert call(tmp_path / "out", "--table")[1].count("has no such part: it is of an earlier one") == 2
    head.unlink()
    assert call(tmp_path / "out", "--table")[1].count("it is a part of a Compare that has not finished") == 4
    (tmp_path / "out/CoOp/seed1").rename(tmp_path / "moved")
    assert ("STSS+CoOp", "Emoji") in rows_of(call(tmp_path / "out", tmp_path / "moved", "--format", "csv")[1])
    log = call(tmp_path / "out/emoji/TLLA", "--test-log")[1]
    assert f"* accuracy: {found['STSS+CoOp', 'Emoji']['mean'][:4]}" in log


def test_tests_of_one_prompt_in_two_precisions_are_two_rows(tmp_path, call):
    for name, wanted in (("a", "fp32"), ("b", "bf16")):
        more = {"config__TRAINER__PROMPT": {"TEMPLATE": "", "PREC": wanted}}
        record(tmp_path / name, "ZERO", "ImageNetA", 1, 60.0, **more)
    code, out, _ = call(tmp_path, "--table")
    assert code == 0 and "PREC fp32" in out and "PREC bf16" in out


def test_runs_with_and_without_a_margin_are_compared(tmp_path, call):
    for name, margin in (("a", {}), ("b", {"MARGIN": 0.3})):
        folder = tmp_path / name
        record(folder, "ZERO", "ImageNetA", 1, 60.0, new=True)
        content = json.loads((folder / "results.json").read_text())
        content["method"]["views"] = {"N_VIEWS": 64, **margin}
        (folder / "results.json").write_text(json.dumps(content))
    code, out, _ = call(tmp_path, "--table")
    assert code == 0 and "MARGIN 0.3" in out and "NOT COMPARABLE" not in out
