"""What runs of train.py write down for the tables: which data, which method, which training; nothing of no images."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from benchmark import CLASSES, REPO, Workplace
from dassl.engine import TRAINER_REGISTRY
from table_records import rows_of

from report.tables.runs import read_runs
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.records.store import predictions_file, read_rows

TRAINERS = sorted(set(TRAINER_REGISTRY.registered_names()) - {"Compare"})
ALONE = [name for name in TRAINERS if name not in METHODS]  # the others are parts of one Compare
LEARN = ("CoCoOp", "CoOp", "FPP", "SAPT", "TLLA", "TipAdapter", "TipAdapterF")
SHORT = ("OPTIM.MAX_EPOCH", "1", "TEST.COMPUTE_CMAT", "True", "TEST.PER_CLASS_RESULT", "True")


def own_images(place: Workplace, name: str, style: str = "noto", tested: tuple[str, ...] = CLASSES[:2]) -> list[str]:
    """A folder of images in which not every class has test images; returns the keys and values that read it."""
    for label, cls in enumerate(CLASSES):
        for part, there in (("train", CLASSES), ("test", tested)):
            if cls in there:
                source = place.folder / "data/emoji" / ("noto" if part == "train" else style) / part / str(label)
                shutil.copytree(source, place.folder / name / part / cls)
    return ["DATASET.ROOT", str(place.folder / name)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """One run of each trainer on a test set that lacks a class."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    keys = own_images(place, "my images")
    for name in (*ALONE, "Compare"):
        place.run(name, f"out/{name}", *keys, *SHORT, dataset="image_folder")
    return place


def folder(place: Workplace, trainer: str):
    """Where a trainer's record lies."""
    return place.folder / "out" / (trainer if trainer in ALONE else f"Compare/template/{trainer}")


def content(place: Workplace, trainer: str) -> dict:
    """A trainer's record."""
    return json.loads((folder(place, trainer) / "results.json").read_text())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_class_without_images_has_no_accuracy_and_a_row_in_the_confusion_matrix(trainer, place):
    classes = content(place, trainer)["splits"]["test"]["per_class"]
    assert [(row["class"], row["total"]) for row in classes] == [("bird", 5), ("land vehicle", 5), ("tool", 0)]
    assert classes[2]["accuracy"] is None and classes[0]["accuracy"] is not None
    rows = list(csv.reader((folder(place, trainer) / "cmat_test.csv").open()))
    assert rows[0] == ["class", *CLASSES] and [row[0] for row in rows[1:]] == list(CLASSES)
    expected = np.zeros((3, 3), dtype=int)
    for row in csv.DictReader((folder(place, trainer) / "predictions_test.csv").open()):
        expected[int(row["label"]), int(row["prediction"])] += 1
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == expected.tolist()
    assert not list((place.folder / "out").rglob("cmat.pt"))  # which the next split or method would overwrite


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_record_says_what_was_tested_and_what_has_trained_it(trainer, place):
    record = content(place, trainer)
    method = record["method"]
    assert record["data"]["name"] == "my images" and record["data"]["own"]
    assert method["name"] == ("STSS" if trainer == "TLLA" else trainer)
    assert method["learns"] == (trainer in LEARN) == ("training" in record)
    sees_views = trainer == "TLLA" or (trainer in METHODS and METHODS[trainer].uses_views)
    assert (method["views"] or {}).get("N_VIEWS") == (6 if sees_views else None)
    if trainer in LEARN:
        name = "SAPT" if trainer == "TLLA" else trainer
        assert record["training"] == {"name": name, "node": name.upper(), "epochs": 1}


def test_every_trainer_has_a_row(place):
    found, defects = read_runs([str(place.folder / "out")])
    assert not defects and {run.method for run in found} == set(TRAINERS)
    assert {run.dataset for run in found} == {"my images"}
    assert {run.method: run.source for run in found} == {
        name: "my images" if name in LEARN else "" for name in TRAINERS
    }


def test_records_of_earlier_versions_make_the_same_rows(place, tmp_path):
    shutil.copytree(place.folder / "out", tmp_path / "out")
    for path in (tmp_path / "out").rglob("results.json"):
        record = json.loads(path.read_text())
        for key in ("data", "method", "training"):
            record.pop(key, None)
        path.write_text(json.dumps(record))
    new, old = ({run.method: run for run in read_runs([str(root / "out")])[0]} for root in (place.folder, tmp_path))
    assert old.keys() == new.keys() == set(TRAINERS)
    for name, run in old.items():
        if name == "FPP" or (name in METHODS and METHODS[name].needs_dataset):
            continue  # earlier versions had no such method
        assert run.settings == new[name].settings, name
        assert (run.dataset, run.source, run.seeded) == (new[name].dataset, new[name].source, new[name].seeded), name
        assert run.facts == {key: value for key, value in new[name].facts.items() if key != "hash of the class names"}


def test_a_trainer_made_by_the_contributing_guide_says_itself_that_it_sees_no_views(place, call):
    base = TRAINER_REGISTRY.get("CoOp")
    TRAINER_REGISTRY.register()(type("Mine", (base,), {}))
    try:
        place.run("Mine", "mine/train", "OPTIM.MAX_EPOCH", "1")
        model = ("--eval-only", "--model-dir", str(place.folder / "mine/train"))
        place.run("Mine", "mine/test", *model, dataset="emoji_twemoji")
        place.run("ZERO", "mine/zero", *model, dataset="emoji_twemoji")
    finally:
        TRAINER_REGISTRY._obj_map.pop("Mine")
    found, _ = read_runs([str(place.folder / "mine")])
    assert {(run.method, run.dataset) for run in found} == {
        ("Mine", "Emoji"),
        ("Mine", "EmojiTwemoji"),
        ("ZERO+Mine", "EmojiTwemoji"),
    }
    assert {run.method for run in found if "N_VIEWS" in run.settings or "views" in run.facts} == {"ZERO+Mine"}
    assert all("prompt" in run.settings and "training OPTIM.LR" in run.settings for run in found)


def test_folders_of_own_images_have_columns_of_their_own(place, call):
    for name, style in (("mine", "noto"), ("theirs", "twemoji")):
        tested = CLASSES if name == "theirs" else CLASSES[:2]
        keys = own_images(place, f"folders/{name}/images", style, tested)
        place.run("ZeroshotCLIP", f"own/{name}", *keys, dataset="image_folder")
    columns = {dataset.split(" [")[0] for _, dataset in rows_of(call(place.folder / "own", "--format", "csv")[1])}
    assert columns == {"images", "average"}  # the average of both
    hashed = [d for _, d in rows_of(call(place.folder / "own", "--format", "csv")[1]) if d.startswith("images [")]
    assert len(hashed) == 2
    keys = ["DATASET.ROOT", str(place.folder / "folders/theirs/images"), "DATASET.TITLE", "drawings"]
    place.run("ZeroshotCLIP", "own/theirs", *keys, dataset="image_folder")
    code, out, err = call(place.folder / "own", "--format", "csv")
    assert code == 0 and "LEFT OUT" not in err
    assert {dataset for _, dataset in rows_of(out)} == {"images", "drawings", "average"}


def test_tests_of_a_prompt_without_its_record_are_rows_of_its_trainer(place, call):
    source = place.folder / "theirs/emoji/CoOp/vit_4shots/seed1"
    shutil.copytree(place.folder / "out/CoOp/prompt_learner", source / "prompt_learner")
    keys = own_images(place, "again")
    for trainer in ("CoOp", "ZERO"):
        model = ("--eval-only", "--model-dir", str(source))
        place.run(trainer, f"their_prompt/{trainer}", *model, *keys, dataset="image_folder")
    methods = ("TRAINER.COMPARE.METHODS", "['SingleView']", "TRAINER.COMPARE.PROMPTS", f"['CoOp={source}']")
    place.run("Compare", "their_prompt/compare", *keys, *methods, dataset="image_folder")
    shutil.rmtree(source)  # the records say it
    code, out, err = call(place.folder / "their_prompt", "--format", "csv")
    assert (
        code == 0
        and "UNKNOWN" not in err
        and err.count("PROMPT WITHOUT ITS RECORD, CoOp's on my images by the checkpoint") == 3
    )
    assert {method for method, _ in rows_of(out)} == {"CoOp", "ZERO+CoOp", "SingleView+CoOp"}


def test_texts_stay_texts_in_the_table_of_compare(place):
    prompts = ("TRAINER.COMPARE.PROMPTS", "['1e3=a {}.', '007=the {}.', 'a|b=']")
    place.run("Compare", "texts", "TRAINER.COMPARE.METHODS", "['SingleView']", *prompts)
    lines = (place.folder / "texts/table.md").read_text().splitlines()[2:]
    assert [line.split("SingleView")[0].strip("| ").rstrip("| ") for line in lines] == ["1e3", "007", r"a\|b"]


def test_records_are_read_without_torch():
    script = (
        "import sys, tlla.records.record, tlla.records.origins; print(sorted({'torch', 'dassl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "predictions_val.csv cannot be read"),
        ("index,label,prediction\n0,1,1\n", "lacks index, label, prediction, confidence of some image"),
        ("index,label,prediction,confidence\n0,1,1,0.5\n1,1\n", "of some image: test the run again"),
        ("", "of some image: test the run again"),
    ],
)
def test_a_table_of_predictions_that_is_not_whole_is_refused(text, says, tmp_path):
    if text is not None:
        predictions_file(tmp_path, "val").write_text(text)
    with pytest.raises(InputError, match=says):
        read_rows(tmp_path, "val")
