"""parse_test_res.py, CoOp's way: its output against CoOp's own, every defect of a log named."""

import json
import math
import re
from pathlib import Path

import pytest
from logs import head, make_samples, result, train_log, write_logs

UPSTREAM = json.loads((Path(__file__).parent / "data" / "coop_parse_output.json").read_text())
MORE_LINES = ("LEFT OUT: ", "NOTE: ")  # that upstream does not print


@pytest.mark.parametrize("command", UPSTREAM)
def test_prints_what_coops_own_script_printed(command, call, tmp_path, monkeypatch):
    make_samples(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*command.split())
    lines = [line for line in out.splitlines() if not line.startswith(MORE_LINES)]
    assert (code, lines, err) == (0, UPSTREAM[command], "")
    assert (len(lines) < len(out.splitlines())) == (command in ("crashed", "coop --test-log"))


def test_older_dassl_ended_its_training_with_another_word(call, tmp_path):
    write_logs(tmp_path, {"seed1": train_log(1, 70.0, end="Finished training"), "seed2": train_log(2, 72.0)})
    assert "* accuracy: 71.00% +- 1.00%" in call(tmp_path)[1]


def cut(text: str) -> str:
    """The log of a run that was killed in its last test."""
    return text[: text.rindex("* accuracy")]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (head(3, "CoOp"), "no line 'Finish training': the run has crashed"),
        (cut(train_log(3, 50.0)), "no 'accuracy' follows 'Finish training': the log was cut"),
        (train_log(3, math.nan), "its accuracy is nan"),
        (train_log(3, 50.0).replace("50.0%", "5.0.0%"), "its accuracy '5.0.0' is no number"),
        (None, "the folder is empty"),
        ("no log", "there is no log.txt"),
    ],
)
def test_a_log_without_a_result_is_named_and_not_averaged(log, reason, call, tmp_path):
    write_logs(tmp_path, {"seed1": train_log(1, 70.0), "seed2": train_log(2, 72.0), "seed3": log or ""})
    if log in (None, "no log"):
        (tmp_path / "seed3/log.txt").unlink()
    if log == "no log":
        (tmp_path / "seed3/config.yaml").touch()
    (tmp_path / "notes.md").touch()  # upstream stops at it
    code, out, _ = call(tmp_path)
    assert code == 0 and "* accuracy: 71.00% +- 1.00%" in out
    assert f"LEFT OUT: {tmp_path}/seed3/log.txt: {reason}" in out


def test_a_mean_over_other_corruptions_says_so(call, tmp_path):
    fog = train_log(2, 50.0).replace("\nDATASET:", "\nDATASET:\n  CORRUPTION: fog\n  SEVERITY: 3")
    write_logs(tmp_path, {"seed1": train_log(1, 70.0), "seed2": fog})
    assert "CORRUPTION" in fog and "NOTE: the mean is over images of several corruptions" in call(tmp_path)[1]
    both = tmp_path / "both"
    write_logs(both, {"seed1": fog.replace("seed: 2", "seed: 1").replace("SEED: 2", "SEED: 1"), "seed2": fog})
    out = call(both)[1]
    assert "* accuracy: 50.00% +- 0.00%" in out and "several corruptions" not in out


def test_two_logs_of_one_seed_are_named_and_neither_counts(call, tmp_path):
    again = train_log(2, 50.0).replace("output/seed2", "output/again")
    write_logs(tmp_path, {"seed1": train_log(1, 70.0), "seed2": train_log(2, 72.0), "seed2_again": again})
    out = call(tmp_path)[1]
    assert "* accuracy: 70.00% +- 0.00%" in out
    assert "seed2/log.txt: same seed and settings as seed2_again" in out
    assert "seed2_again/log.txt: same seed and settings as seed2:" in out


def test_another_log_in_the_folder_of_a_run_is_named(call, tmp_path):
    write_logs(tmp_path, {"seed1": train_log(1, 70.0), "seed2": head(2, "CoOp"), "seed3": train_log(3, 71.0)})
    for seed, text in (("seed1", train_log(1, 10.0)), ("seed2", train_log(2, 72.0)), ("seed3", head(3, "CoOp"))):
        (tmp_path / seed / "log.txt-2024-01-01-00-00-00").write_text(text)
    out = call(tmp_path)[1]
    assert "* accuracy: 70.50%" in out  # as upstream: log.txt only
    assert "seed1/log.txt: only this log counts; log.txt-2024-01-01-00-00-00 beside it has a result, too" in out
    assert re.search(r"LEFT OUT: \S+/seed2/log.txt: .*\(log.txt-2024-01-01-00-00-00 beside it has a result\)", out)
    assert "seed3" not in out.replace(f"{tmp_path}/seed3/log.txt. accuracy", "")


@pytest.mark.parametrize(
    ("logs", "argv", "reason"),
    [
        ({}, (), "it has no folders of runs"),
        ({"seed1": result(50.0)}, (), "none of its folders has a log.txt with a result"),
        ({"a/seed1": train_log(1, 50.0)}, (), "add --multi-exp"),
        ({".": train_log(1, 50.0)}, (), "it is the folder of one run"),
        ({}, ("--multi-exp",), "it has no folders of experiments"),
        ({}, ("--keyword", "("), "'(' is no regular expression"),
    ],
)
def test_where_nothing_is_found_one_sentence_says_what_to_do(logs, argv, reason, call, tmp_path):
    for name, text in logs.items():
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "log.txt").write_text(text)
    code, _, err = call(tmp_path, *argv)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and reason in err


def test_a_log_of_a_test_hints_at_its_flag(call, tmp_path):
    write_logs(tmp_path, {"seed1": result(50.0)})
    assert "the log of a test needs --test-log" in call(tmp_path)[1]
