"""parse_test_res.py --mcnemar: two methods on the same images."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest
from table_records import change, record

from report.tables.numbers import mcnemar


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 5), (5, 3), (2, 9), (6, 6), (0, 11)])
def test_mcnemar_is_the_share_of_coin_tosses_at_least_as_uneven(b, c):
    tosses = [sum(coins) for coins in itertools.product((0, 1), repeat=b + c)]
    uneven = [t for t in tosses if abs(2 * t - b - c) >= abs(b - c)]
    assert mcnemar(b, c) == pytest.approx(len(uneven) / len(tosses), rel=1e-12)


def test_mcnemar_of_many_images_is_close_to_the_normal_approximation():
    z = (2600 - 2400 - 1) / math.sqrt(5000)
    assert mcnemar(2600, 2400) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


def write_predictions(folder: Path, hits: list[bool]) -> None:
    rows = [f"{i},{i % 5},{i % 5 if hit else 9},0.5" for i, hit in enumerate(hits)]
    (folder / "predictions_test.csv").write_text("\n".join(("index,label,prediction,confidence", *rows)) + "\n")


@pytest.fixture
def pair(tmp_path) -> Path:
    """CoOp and ZERO on 20 images: 8 right by both, 7 only by ZERO, 1 only by CoOp, 4 by none."""
    record(tmp_path / "coop", "CoOp", "Emoji", 1, 45.0, total=20)
    record(tmp_path / "zero", "ZERO", "Emoji", 1, 75.0, total=20)
    write_predictions(tmp_path / "coop", [True] * 8 + [False] * 7 + [True] + [False] * 4)
    write_predictions(tmp_path / "zero", [True] * 15 + [False] * 5)
    return tmp_path


def test_mcnemar_counts_the_images_that_one_method_got_right(pair, call):
    content = json.loads(call(pair, "--mcnemar", "ZERO", "CoOp", "--format", "json")[1])["mcnemar"]
    p = 2 * (1 + 8) / 2**8
    expected = {
        "dataset": "Emoji",
        "seed": 1,
        "images": 20,
        "only_first": 7,
        "only_second": 1,
        "difference": 30.0,
        "p": p,
    }
    assert content == [{"first": "ZERO", "second": "CoOp", **expected}]
    text = call(pair, "--mcnemar", "CoOp", "ZERO")[1]
    assert re.search(r"Emoji +1 +20 +1 +7 +-30\.00 +0\.0703", text)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: change(p / "zero", lambda c: c["split_sha256"].update(test="other")), "their split hashes differ"),
        (lambda p: write_predictions(p / "zero", [True] * 12), "has 12 images, but results.json 20: it was cut"),
        (lambda p: (p / "zero/predictions_test.csv").unlink(), "cannot be read"),
        (lambda p: change(p / "zero", lambda c: c.update(seed=2)), "no dataset with a seed in common"),
        (lambda p: change(p / "zero", lambda c: c.update(trainer="ZER")), "there is no row 'ZERO': did you mean 'ZER'"),
    ],
)
def test_mcnemar_refuses_what_is_not_paired(spoil, reason, pair, call):
    spoil(pair)
    code, _, err = call(pair, "--mcnemar", "ZERO", "CoOp")
    assert code == 2 and reason in err and err.count("\n") == 1


def test_rows_of_one_name_are_not_paired_across_tables(pair, call):
    """CoOp's prompt of another dataset is no pair of ZERO on CoOp's prompt of this one."""
    for source in ("ImageNet", "Caltech101"):
        record(pair / source, "CoOp", source, 1, 50.0, total=20)
        for trainer, accuracy in (("CoOp", 45.0), ("ZERO", 75.0)):
            folder = pair / f"{source}_{trainer}"
            record(folder, trainer, "Mine", 1, accuracy, total=20, prompt_of=pair / source)
            hits = round(accuracy / 5)
            write_predictions(folder, [True] * hits + [False] * (20 - hits))
    content = json.loads(call(pair, "--format", "json", "--mcnemar", "ZERO+CoOp", "CoOp")[1])
    assert [row["dataset"] for row in content["mcnemar"]] == ["Mine", "Mine"]  # once for each source, not mixed
    assert {row["difference"] for row in content["mcnemar"]} == {30.0}
