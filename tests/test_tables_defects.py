"""parse_test_res.py names each defect of a run, and ranks nothing that does not compare."""

import math
import shutil

import pytest
from table_records import change, record, rows_of, write_runs

from tlla import paper


@pytest.fixture
def runs(tmp_path, request):
    return write_runs(tmp_path / "out", new=getattr(request, "param", True))


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


HALF = [pytest.param(defect, i % 2, id=defect.__name__) for i, defect in enumerate(DEFECTS)]  # of older records: 0


@pytest.mark.parametrize(("defect", "runs"), HALF, indirect=["runs"])
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
