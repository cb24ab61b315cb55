"""What a reader of a table must not be misled about: which data, which prompt, means of what, texts that look alike."""

import json
import shutil

import pytest
from logs import train_log
from table_records import change, record, rows_of

from report.tables.numbers import harmonic_mean
from report.tables.render import FORMATS
from tlla import paper
from tlla.predict.rows import table_text

OWN = {"new": True, "data": {"name": "images", "own": True}, "split_sha256__test": "abcdef12"}


def csv_of(call, *folders, **options):
    """The rows of a csv report by (method, dataset), and its notes."""
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    _, out, err = call(*folders, "--format", "csv", *flags)
    return rows_of(out), err


# One's own data


def test_own_data_has_a_column_for_each_folder(tmp_path, call):
    for number, name in enumerate(("birds", "tools")):
        more = OWN | {"data": {"name": name, "own": True}, "split_sha256__test": name}
        record(tmp_path / name, "CoOp", "ImageFolder", 1, 50.0 + number, **more)
        record(tmp_path / f"clip{name}", "ZeroshotCLIP", "ImageFolder", 1, 40.0 + number, **more)
    found, notes = csv_of(call, tmp_path)
    assert {key: row["mean"] for key, row in found.items() if key[1] != "average"} == {
        ("CoOp", "birds"): "50.0",
        ("CoOp", "tools"): "51.0",
        ("ZeroshotCLIP", "birds"): "40.0",
        ("ZeroshotCLIP", "tools"): "41.0",
    }
    assert not notes


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("new", (False, True), ids=("old", "new"))
def test_own_data_of_one_name_is_told_apart_by_the_hash_of_its_split(new, form, tmp_path, call):
    for number, split in enumerate(("aaaaaa11", "bbbbbb22")):
        root = {"config__DATASET__ROOT": f"/{split}/images", "split_sha256__test": split}
        more = OWN | root if new else root
        record(tmp_path / split, "ZeroshotCLIP", "ImageFolder", 1, 50.0 + number, **more)
    code, out, err = call(tmp_path, "--format", form)
    assert code == 0 and "LEFT OUT" not in out + err
    assert "images [aaaaaa]" in out and "images [bbbbbb]" in out


def test_own_data_never_shares_a_column_with_a_dataset_that_is_published(tmp_path, call):
    record(tmp_path / "real", "ZeroshotCLIP", "Food101", 1, 80.0)
    record(tmp_path / "own", "ZeroshotCLIP", "ImageFolder", 1, 50.0, **OWN | {"data": {"name": "Food101", "own": True}})
    assert {dataset for _, dataset in csv_of(call, tmp_path)[0]} >= {"Food101", "Food101 [abcdef]"}


def test_own_data_of_one_name_and_split_in_two_folders_is_left_out_with_what_to_do(tmp_path, call):
    record(tmp_path / "good", "CoOp", "Emoji", 1, 50.0)
    for root in ("/a/images", "/b/images"):
        record(tmp_path / root[1], "ZeroshotCLIP", "ImageFolder", 1, 50.0, **OWN, config__DATASET__ROOT=root)
    out = call(tmp_path, "--table")[1]
    assert out.count("on /a/images and /b/images: if those hold different images, give each a name by DATASET") == 2


def test_own_data_whose_class_names_have_changed_is_flagged(tmp_path, call):
    for trainer, names in (("CoOp", "1"), ("SAPT", "1"), ("ZERO", "2")):
        more = OWN | {"data": {"name": "images", "own": True, "classes_sha256": names}}
        record(tmp_path / trainer, trainer, "ImageFolder", 1, 50.0, **more)
    out = call(tmp_path, "--table")[1]
    assert "NOT COMPARABLE (!): ZERO on images: hash of the class names 2, not 1" in out


# Base to new


def base_to_new(root, method="CoOp", base=(80.0, 84.0), new=(60.0, 64.0), datasets=("OxfordPets", "Food101")):
    """Trained on the base classes with two seeds, tested on them and on the new ones."""
    for step, dataset in enumerate(datasets):
        for seed, (b, n) in enumerate(zip(base, new, strict=True), start=1):
            source = root / dataset / f"{method}_base{seed}"
            record(source, method, dataset, seed, b + step, config__DATASET__SUBSAMPLE_CLASSES="base")
            more = {"prompt_of": source, "config__DATASET__SUBSAMPLE_CLASSES": "new"}
            record(root / dataset / f"{method}_new{seed}", method, dataset, seed, n + 10 * step, **more)


def test_h_is_that_of_the_paper_of_its_averages():
    assert harmonic_mean(80.47, 71.69) == pytest.approx(75.83, abs=0.005)  # CoCoOp, table 2 (a)
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_base_to_new_has_base_new_and_h_of_each_dataset_and_h_of_the_averages(tmp_path, call):
    base_to_new(tmp_path)
    for half, accuracy in (("base", 70.0), ("new", 75.0)):
        more = {"config__DATASET__SUBSAMPLE_CLASSES": half}
        record(tmp_path / f"clip{half}", "ZeroshotCLIP", "OxfordPets", 1, accuracy, **more)
    found, notes = csv_of(call, tmp_path)
    assert {row["table"] for row in found.values()} == {"Base-to-new generalization"}
    means = {column: float(row["mean"]) for (method, column), row in found.items() if method == "CoOp"}
    assert list(means) == [
        *(f"OxfordPets ({what})" for what in ("base", "new", "H")),
        *(f"Food101 ({what})" for what in ("base", "new", "H")),
        *("average (base)", "average (new)", "H of the averages"),
    ]
    expected = [82.0, 62.0, 2 * 82 * 62 / 144, 83.0, 72.0, 2 * 83 * 72 / 155, 82.5, 67.0, 2 * 82.5 * 67 / 149.5]
    assert list(means.values()) == pytest.approx(expected)
    own = [2 * 80 * 60 / 140, 2 * 84 * 64 / 148]  # of each seed, whose spread it is
    assert float(found["CoOp", "OxfordPets (H)"]["std"]) == pytest.approx(abs(own[0] - own[1]) / 2**0.5)
    assert float(found["ZeroshotCLIP", "OxfordPets (H)"]["mean"]) == pytest.approx(2 * 70 * 75 / 145)
    assert "H: the harmonic mean of base and new" in notes


@pytest.mark.parametrize("form", FORMATS)
def test_base_to_new_has_no_plain_average_over_halves_in_any_format(form, tmp_path, call):
    base_to_new(tmp_path)
    _, out, err = call(tmp_path, "--format", form)
    assert (
        "H of the averages" in out and "OxfordPets (H)" in out and "of the averages: not the average of H" in out + err
    )
    assert "average (base)" in out and '"average"' not in out and ",average," not in out and "average |" not in out
    if form == "json":
        assert len(json.loads(out)["runs"]) == 8  # H is no run


def test_h_needs_both_halves_of_the_same_seeds_that_are_comparable(tmp_path, call):
    base_to_new(tmp_path)
    base_to_new(tmp_path, "SAPT")
    shutil.rmtree(tmp_path / "OxfordPets/CoOp_new2")
    found, _ = csv_of(call, tmp_path)
    assert ("CoOp", "OxfordPets (H)") not in found and ("CoOp", "H of the averages") not in found
    assert ("CoOp", "Food101 (H)") in found and ("SAPT", "H of the averages") in found


def test_h_is_of_accuracies_only(tmp_path, call):
    base_to_new(tmp_path)
    columns = {column for _, column in csv_of(call, tmp_path, keyword="ece")[0]}
    assert "average (new)" in columns and not [column for column in columns if "(H)" in column or "H of" in column]


def test_a_prompt_of_all_classes_is_in_no_base_to_new_and_one_of_the_base_classes_in_no_other_table(tmp_path, call):
    for classes in ("all", "base"):
        source = tmp_path / classes
        record(source, "CoOp", "ImageNet", 1, 70.0, config__DATASET__SUBSAMPLE_CLASSES=classes)
        record(tmp_path / f"{classes}_a", "CoOp", "ImageNetA", 1, 50.0, prompt_of=source)
        more = {"config__DATASET__SUBSAMPLE_CLASSES": "new", "prompt_of": source}
        record(tmp_path / f"{classes}_new", "CoOp", "ImageNet", 1, 60.0, **more)
    out = call(tmp_path, "--format", "json")[1]
    assert {(run["table"], run["dataset"]) for run in json.loads(out)["runs"]} == {
        ("ImageNet and its variants", "ImageNet"),
        ("ImageNet and its variants", "ImageNetA"),
        ("Base-to-new generalization", "ImageNet (base)"),
        ("Base-to-new generalization", "ImageNet (new)"),
        ("Trained on ImageNet", "ImageNet (new)"),
        ("Trained on ImageNet (base)", "ImageNetA"),
    }


# Whose prompt


def coops_own(folder, log: bool):
    """A folder as CoOp leaves it, without results.json; returns it."""
    (folder / "prompt_learner").mkdir(parents=True)
    if log:
        (folder / "log.txt").write_text(train_log(1, 50.0))
    return folder


@pytest.mark.parametrize("new", (False, True), ids=("old", "new"))
@pytest.mark.parametrize("log", (False, True), ids=("by the folder's name", "by log.txt"))
def test_a_prompt_of_coops_own_is_named_by_its_log_or_its_folder(log, new, tmp_path, call):
    source = coops_own(tmp_path / "coop/caltech101/CoOp/rn50_16shots/seed1", log)
    record(tmp_path / "out/coop", "CoOp", "Caltech101", 1, 50.0, prompt_of=source, new=new)
    record(tmp_path / "out/zero", "ZERO", "Caltech101", 1, 51.0, prompt_of=source, new=new)
    found, notes = csv_of(call, tmp_path / "out")
    assert set(found) == {("CoOp", "Caltech101"), ("ZERO+CoOp", "Caltech101")}
    assert {row["table"] for row in found.values()} == {"Trained and tested on the same dataset"}
    how = "log.txt" if log else "the folder's name"
    assert f"PROMPT WITHOUT ITS RECORD, CoOp's on Caltech101 by {how}: ZERO+CoOp: {source}" in notes
    assert "UNKNOWN" not in notes


def test_coops_layout_of_base_to_new_says_that_a_prompt_is_of_the_base_classes(tmp_path, call):
    source = coops_own(tmp_path / "CoOp/base2new/train_base/eurosat/shots_16/CoCoOp/vit_b16/seed1", False)
    for half in ("base", "new"):
        more = {"prompt_of": source, "config__DATASET__SUBSAMPLE_CLASSES": half}
        record(tmp_path / "out" / half, "CoCoOp", "EuroSAT", 1, 50.0, **more)
    assert ("CoCoOp", "EuroSAT (H)") in csv_of(call, tmp_path / "out")[0]


def test_a_folder_far_above_a_run_does_not_say_who_has_trained_it(tmp_path, call):
    source = coops_own(tmp_path / "CoOp/a/b/c/d/seed1", False)
    record(tmp_path / "out", "ZERO", "Emoji", 1, 50.0, prompt_of=source)
    assert ("ZERO+?", "Emoji") in csv_of(call, tmp_path)[0]


def test_a_row_of_coops_own_prompt_is_not_that_of_a_run_with_a_record(tmp_path, call):
    source = coops_own(tmp_path / "coop/emoji/CoOp/seed2", False)
    record(tmp_path / "out/ours", "CoOp", "Emoji", 1, 52.0)
    record(tmp_path / "out/theirs", "CoOp", "Emoji", 2, 50.0, prompt_of=source)
    assert {method for method, _ in csv_of(call, tmp_path / "out")[0]} == {
        "CoOp [prompt with results.json]",
        "CoOp [prompt without results.json, CoOp's by the folder's name]",
    }


def test_a_run_that_is_gone_is_known_by_what_the_record_says(tmp_path, call):
    said = {"name": "SAPT", "dataset": "Emoji", "said_by": "results.json"}
    more = {"prompt_of": tmp_path / "gone", "new": True}
    record(tmp_path / "out", "STSS", "EmojiTwemoji", 1, 51.0, **more)
    change(tmp_path / "out", lambda c: c["loaded_from"].update(trained_by=said))
    found, notes = csv_of(call, tmp_path)
    assert set(found) == {("TLLA", "EmojiTwemoji")}
    assert f"PROMPT WITHOUT ITS RECORD, SAPT's on Emoji by results.json: TLLA: {tmp_path / 'gone'}" in notes


def test_a_name_that_the_user_gives_a_prompt_is_its_name_in_tables(tmp_path, call):
    record(tmp_path / "source", "SAPT", "Emoji", 1, 50.0)
    record(tmp_path / "out", "STSS", "EmojiTwemoji", 1, 51.0, prompt_of=tmp_path / "source", new=True)
    said = {"name": "mine", "dataset": "?", "said_by": "TRAINER.PROMPT"}
    change(tmp_path / "out", lambda c: c["loaded_from"].update(trained_by=said))
    assert ("STSS+mine", "EmojiTwemoji") in csv_of(call, tmp_path)[0]


@pytest.mark.parametrize("new", (False, True), ids=("old", "new"))
def test_an_initial_prompt_is_no_trained_one(new, tmp_path, call):
    record(tmp_path / "trained", "CoOp", "Emoji", 1, 50.0, new=new)
    for trainer in ("CoOp", "TLLA"):
        record(tmp_path / trainer, trainer, "Emoji", 1, 9.0, new=new)
        change(tmp_path / trainer, lambda c: (c.pop("train_seconds"), c.pop("training", None)))
    assert {method for method, _ in csv_of(call, tmp_path)[0]} == {"CoOp", "CoOp+initial prompt", "STSS+initial prompt"}


def test_templates_of_the_data_are_settings_of_a_row(tmp_path, call):
    for number, template in enumerate(("a {}.", "the {}.")):
        more = {"config__DATASET__TEMPLATE": template, "config__TRAINER__ZSCLIP": {"TEMPLATE": ""}}
        record(tmp_path / str(number), "ZeroshotCLIP", "Emoji", 1, 50.0, **more)
    assert {method for method, _ in csv_of(call, tmp_path)[0]} == {
        "ZeroshotCLIP [TEMPLATE a {}.]",
        "ZeroshotCLIP [TEMPLATE the {}.]",
    }


@pytest.mark.parametrize("kind", ("template", "prompt", "cache", "views"))
def test_a_trainer_that_the_tables_do_not_know_is_what_its_record_says(kind, tmp_path, call):
    views = {"N_VIEWS": 8} if kind == "views" else None
    learns = kind in ("prompt", "cache")
    own = {"name": "Mine", "kind": kind, "settings": {"X": 1}, "views": views, "deterministic": False, "learns": learns}
    training = {"train_seconds": 1.0, "training": {"name": "Mine", "node": "MINE", "epochs": 3}} if learns else {}
    record(tmp_path / "mine", "Mine", "Emoji", 1, 50.0, new=True, method=own, **training)
    record(tmp_path / "clip", "ZERO", "Emoji", 1, 40.0, new=True)
    if learns:
        record(tmp_path / "zero", "ZERO", "EmojiTwemoji", 1, 50.0, prompt_of=tmp_path / "mine", new=True)
    found, notes = csv_of(call, tmp_path)
    assert ("Mine", "Emoji") in found and (("ZERO+Mine", "EmojiTwemoji") in found) == learns
    assert ("views N_VIEWS 8, not" in notes) == (kind == "views")  # only who sees views can see others
    assert "UNKNOWN" not in notes


# Numbers and texts


def test_a_title_has_the_unit_and_a_detail_has_no_best(tmp_path, call):
    for trainer, value in (("CoOp", 0.25), ("SAPT", 0.5)):
        record(tmp_path / trainer, trainer, "Emoji", 1, 50.0)
        change(tmp_path / trainer, lambda c, v=value: c["splits"]["test"].update(agreement=v, peak_memory_mb=v))
    assert "accuracy in %, mean" in call(tmp_path, "--table")[1]
    assert "nll in nats, mean" in call(tmp_path, "--table", "--keyword", "nll")[1]
    assert "peak_memory_mb in MB, mean" in call(tmp_path, "--table", "--keyword", "peak_memory_mb")[1]
    out = call(tmp_path, "--table", "--keyword", "agreement")[1]
    assert "agreement, mean" in out and "0.2500" in out and "0.5000" in out and "*" not in out


TEXTS = ("1e3", "007", "3.10", "1_000", "nan", "a|b", "50%", r"a\b_c")


@pytest.mark.parametrize("form", FORMATS)
def test_texts_stay_texts_in_every_format(form, tmp_path, call):
    for number, text in enumerate(TEXTS):
        more = OWN | {"data": {"name": text, "own": True}, "split_sha256__test": text}
        record(tmp_path / str(number), "ZERO", "ImageFolder", 1, 50.0, **more)
    out = call(tmp_path, "--format", form)[1]
    written = {
        "text": str,
        "csv": str,
        "json": lambda text: json.dumps(text)[1:-1],
        "markdown": lambda text: text.replace("|", r"\|"),
        "latex": lambda text: text.replace("\\", r"\textbackslash{}").replace("_", r"\_").replace("%", r"\%"),
    }[form]
    for text in TEXTS:
        assert written(text) in out


def test_texts_stay_texts_in_the_table_of_predictions():
    row = {"file": "010", "prediction": "1e3", "probability": 0.5, "top": [["1e3", 0.5], ["007", 0.5]], "entropy": 1.0}
    line = table_text([row]).splitlines()[-1].split()
    assert line == ["010", "1e3", "50.0", "007", "50.0", "1.000"]


def test_the_papers_datasets_are_not_taken_for_halves():
    for benchmark in paper.BENCHMARKS:
        assert benchmark.headings == (*benchmark.columns, *benchmark.averages)
