"""parse_test_res.py: its table against hand-computed numbers, every defect of a run named."""

import csv
import functools
import io
import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
from benchmark import Workplace
from logs import result

from report.tables.numbers import T95, averaged
from tlla import paper

KINDS = {"ZeroshotCLIP": "template", "CoOp": "prompt", "SAPT": "prompt"}  # of newer records; else "views"
TRAINED = {"CoOp": ("CoOp", "COOP"), "SAPT": ("SAPT", "SAPT"), "TLLA": ("SAPT", "SAPT")}


def says_itself(content: dict) -> dict:
    """What records have said themselves since the tables guess nothing."""
    trainer, nodes = content["trainer"], content["config"]["TRAINER"]
    kind = KINDS.get(trainer, "views")
    views = {key: nodes["VIEWS"][key] for key in ("N_VIEWS", "AUGMIX", "CROP_SCALE")} if kind == "views" else None
    content["method"] = {
        "name": "STSS" if trainer == "TLLA" else trainer,
        "kind": kind,
        "settings": {"TOP_S": 16} if trainer in ("STSS", "TLLA") else {},
        "views": views,
        "deterministic": trainer == "ZeroshotCLIP",
        "learns": trainer in TRAINED,
    }
    content["data"] = {"name": content["dataset"], "own": False}
    if "train_seconds" in content:
        content["training"] = {**dict(zip(("name", "node"), TRAINED[trainer], strict=True)), "epochs": 50}
    return content


def record(folder: Path, trainer: str, dataset: str, seed: int, accuracy: float, total: int = 1000, **more) -> dict:
    """Writes the results.json of a run: its training, or with `prompt_of` a test of another run's prompt.

    It is as earlier versions wrote it, with `new` as they are now.
    """
    prompt_of, new = more.pop("prompt_of", None), more.pop("new", False)
    test = {"correct": round(accuracy * total / 100), "total": total, "accuracy": accuracy, "ece": 1.0, "nll": 0.5}
    nodes = {"COOP": {"N_CTX": 4}, "SAPT": {"RHO": 0.05}, "ZSCLIP": {}, "STSS": {"TOP_S": 16}, "ZERO": {"TOP": 0.3}}
    views = {"N_VIEWS": 64, "AUGMIX": False, "CROP_SCALE": [0.08, 1.0], "SEED": -1}
    content = {
        "trainer": trainer,
        "dataset": dataset,
        "backbone": "ViT-B/16",
        "seed": seed,
        "splits": {"test": test},
        "split_sha256": {"test": f"hash of {dataset}"},
        "versions": {"torch": "2.4.0", "device": "cpu"},
        "config": {
            "TRAINER": {**nodes, "TLLA": {"TOP_S": 16, **views}, "VIEWS": dict(views), "PROMPT": {"TEMPLATE": ""}},
            "OPTIM": {"LR": 0.002, "MAX_EPOCH": 50},
            "DATASET": {"NUM_SHOTS": 16, "SUBSAMPLE_CLASSES": "all"},
            "TEST": {"FINAL_MODEL": "last_step"},
        },
    }
    if prompt_of:
        content["loaded_from"] = {"path": str(prompt_of / "prompt_learner/model.pth.tar-50"), "epoch": 50}
    elif trainer in ("CoOp", "SAPT", "TLLA"):
        content["train_seconds"] = 1.0
    if new:
        says_itself(content)
    for path, value in more.items():
        *nodes, leaf = path.split("__")
        node = content
        for name in nodes:
            node = node[name]
        node[leaf] = value
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "log.txt").write_text(result(accuracy))
    return content


CELLS = {  # of the ImageNet table: accuracies of three seeds
    "CoOp": [(71.5, 71.0, 72.0), (49.0, 50.0, 51.0), (64.0, 64.2, 64.4), (75.0, 75.5, 76.0), (48.0, 47.0, 49.0)],
    "SAPT": [(70.5, 70.7, 70.9), (51.0, 51.0, 51.0), (64.1, 64.6, 64.7), (77.0, 77.5, 78.0), (49.0, 49.5, 49.1)],
    "TLLA": [(74.5, 74.7, 74.9), (65.0, 66.0, 67.0), (67.1, 67.2, 67.3), (81.0, 81.5, 82.0), (51.0, 52.0, 53.0)],
}


@pytest.fixture(params=(False, True), ids=("old", "new"))
def runs(tmp_path, request) -> Path:
    """The paper's domain generalisation with three seeds, and zero-shot CLIP with one; as old and as new records."""
    root, new = tmp_path / "out", {"new": request.param}
    for method, rows in CELLS.items():
        for dataset, accuracies in zip(paper.IMAGENET.columns, rows, strict=True):
            for seed, accuracy in enumerate(accuracies, start=1):
                source = root / "ImageNet" / ("CoOp" if method == "CoOp" else "SAPT") / f"seed{seed}"
                own = method != "TLLA" and dataset == "ImageNet"
                more = new if own else {"prompt_of": source, **new}
                record(root / dataset / method / f"seed{seed}", method, dataset, seed, accuracy, **more)
    for dataset, accuracy in zip(paper.IMAGENET.columns, (68.3, 49.9, 61.9, 77.6, 48.2), strict=True):
        record(root / dataset / "CLIP" / "seed1", "ZeroshotCLIP", dataset, 1, accuracy, **new)
    return root


def rows_of(out: str) -> dict[str, list[str]]:
    """Of a csv report: (method, dataset) -> its row."""
    return {(row["method"], row["dataset"]): row for row in csv.DictReader(io.StringIO(out))}


def read(folder: Path) -> dict:
    """A results.json."""
    return json.loads((folder / "results.json").read_text())


def change(folder: Path, edit) -> None:
    """Edits a results.json."""
    content = read(folder)
    edit(content)
    (folder / "results.json").write_text(json.dumps(content))


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


def test_a_missing_seed_is_named_takes_the_average_and_fails_the_requirement(runs, call):
    shutil.rmtree(runs / "ImageNetA/SAPT/seed3")
    code, out, _ = call(runs, "--require-seeds", 1, 2, 3)
    assert code == 1 and "MISSING: SAPT on ImageNetA: seed 3" in out
    assert call(runs, "--table")[0] == 0
    cells = rows_of(call(runs, "--format", "csv")[1])
    assert ("SAPT", "OOD average") not in cells and cells["SAPT", "ImageNetA"]["n"] == "2"
    assert ("CoOp", "OOD average") in cells
    assert call(runs / "ImageNet", "--require-seeds", 1, 2, 3)[0] == 0
    assert "MISSING: CoOp on ImageNet: seed 4, 5" in call(runs / "ImageNet", "--require-seeds", 1, 4, 5)[1]


def test_a_run_that_is_left_out_fails_the_requirement_though_no_seed_is_missing(runs, call):
    (runs / "ImageNetR/another/seed1").mkdir(parents=True)
    code, out, _ = call(runs, "--require-seeds", 1, 2, 3)
    assert (
        code == 1 and "MISSING" not in out and f"LEFT OUT: {runs}/ImageNetR/another/seed1: the folder is empty" in out
    )


def nan(folder):
    change(folder, lambda c: c["splits"]["test"].update(nll=math.nan))


def wrong(folder):
    change(folder, lambda c: c["splits"]["test"].update(correct=1))


def half(folder):
    (folder / "results.json").write_text((folder / "results.json").read_text()[:300])


def killed(folder):
    (folder / "results.json").unlink()
    (folder / "log.txt").write_text("Evaluate on the *test* set\n")


def foreign(folder):
    (folder / "results.json").unlink()


def rerun(folder):
    (folder / "log.txt").rename(folder / "log.txt-2024-01-01-00-00-00")
    (folder / "log.txt").write_text("Evaluate on the *test* set\n")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def copied(folder):
    shutil.copytree(folder, folder.with_name("copy"))


def only_val(folder):
    change(folder, lambda c: c.update(splits={"val": {}}))


def of_another_project(folder):
    (folder / "results.json").write_text('{"splits": {"test": {"total": 5}}, "config": {}}')


def a_list(folder):
    (folder / "results.json").write_text("[1, 2]")


def other_images(folder):
    change(folder, lambda c: c["split_sha256"].update(test="another"))


def without_metric(folder):
    change(folder, lambda c: c["splits"]["test"].pop("accuracy") and c["splits"]["test"].update(accuracy=math.inf))


DEFECTS = {
    nan: "nll is NaN",
    wrong: "its accuracy 81.5 is not that of its 1 correct images",
    half: "results.json cannot be read",
    killed: "there is a log but no results.json; it was cut",
    foreign: "its log has a result, which is read without --table",
    rerun: "log.txt ends without a result: a later run in this folder was cut",
    empty: "the folder is empty",
    copied: "a second run of seed 2 with the same settings as",
    only_val: "no result of the test split",
    of_another_project: "results.json is not complete, or not of train.py",
    a_list: "results.json is not complete, or not of train.py: it holds a list",
    other_images: "not comparable with the other seeds: split hash another, not hash of Imag",
    without_metric: "accuracy is NaN or infinite",
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_a_run_that_cannot_be_trusted_is_named_and_not_averaged(defect, runs, call):
    folder = runs / "ImageNetR/TLLA/seed2"
    defect(folder)
    code, out, err = call(runs, "--format", "csv", "--require-seeds", 1, 2, 3)
    assert code == 1
    assert f"LEFT OUT: {folder}: " in err and DEFECTS[defect] in err
    row = rows_of(out)["TLLA", "ImageNetR"]
    assert (row["seeds"], row["missing"], float(row["mean"])) == ("1; 3", "2", 81.5)
    assert ("TLLA", "average") not in rows_of(out)
    assert f"LEFT OUT: {folder}: " in call(runs, "--table")[1]


@pytest.mark.parametrize(
    ("edit", "flag"),
    [
        (
            lambda c: c["splits"]["test"].update(total=2000, correct=2 * c["splits"]["test"]["correct"]),
            "number of images 2000",
        ),
        (lambda c: c["split_sha256"].update(test="another"), "split hash another, not hash of Imag"),
        (lambda c: c.update(backbone="RN50"), "backbone RN50, not ViT-B/16"),
        (lambda c: c["versions"].update(torch="1.13"), "versions torch 1.13, not torch 2.4.0"),
    ],
)
def test_a_row_that_does_not_compare_is_flagged_and_not_ranked(edit, flag, runs, call):
    for dataset in paper.IMAGENET.columns if "hash" not in flag and "number" not in flag else ["ImageNetR"]:
        for seed in (1, 2, 3):
            change(runs / f"{dataset}/TLLA/seed{seed}", edit)
    out = call(runs, "--format", "markdown")[1]
    assert f"NOT COMPARABLE (!): TLLA on ImageNetR: {flag}" in out
    line = next(line for line in out.splitlines() if line.startswith("| TLLA"))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[5] == "81.50 ± 0.50!" and cells[8] == "-"  # no mark, no OOD average
    sapt = next(line for line in out.splitlines() if line.startswith("| SAPT"))
    assert sapt.split("|")[5].strip() == "<u>77.50</u> ± 0.50"  # after CLIP's 77.6
    assert ("/ 81.24 /" in out) == ("backbone" not in flag)  # the paper's number is ViT-B/16's


def test_a_flagged_number_that_equals_the_best_is_not_marked(tmp_path, call):
    for trainer, accuracy in (("CoOp", 50.0), ("SAPT", 40.0)):
        record(tmp_path / trainer, trainer, "Emoji", 1, accuracy)
    record(tmp_path / "other", "ZERO", "Emoji", 1, 50.0, split_sha256__test="another")
    out = call(tmp_path, "--format", "markdown")[1]
    assert out.count("**50.00**") == 1 and "50.00!" in out


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
    assert clip == ["Cross-dataset transfer from ImageNet", "Trained and tested on the same dataset"]
    rows = [row for row in rows if row["method"] == "CoOp"]
    found = {(row["table"], row["dataset"]): float(row["mean"]) for row in rows}
    same = "Trained and tested on the same dataset"
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


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("nowhere",), "there is no folder nowhere"),
        (("nowhere", "--table"), "there is no folder nowhere"),
        ((".", "--table"), "there is no complete run below ."),
        (("runs", "--table", "--keyword", "acuracy"), "'acuracy' is in no results.json: did you mean 'accuracy'"),
        (("runs", "--table", "--test-log"), "--test-log and --multi-exp are for logs"),
        (("runs",), "there are results.json in or below it, which --table reads"),
    ],
)
def test_faults_of_the_user_give_one_sentence_and_exit_2(argv, reason, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "runs" in argv:
        record(tmp_path / "runs" / "deep" / "down", "CoOp", "Emoji", 1, 50.0)
    code, _, err = call(*argv)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and reason in err


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
