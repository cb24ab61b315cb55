"""Records and logs of runs that are broken or hostile: named, left out, and no reason to stop."""

import copy
import json
import os
import shutil
from pathlib import Path

import pytest
from benchmark import Workplace
from hostile import accepted, call, refused
from logs import train_log, write_logs


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A whole record of train.py's."""
    return Workplace(tmp_path_factory.mktemp("work")).run("SAPT", "run", "OPTIM.MAX_EPOCH", "1")


def put(path: str, value):
    """An edit of a record: the entry at `path`, keys joined by "/", becomes `value`."""

    def edit(content):
        *nodes, last = path.split("/")
        for node in nodes:
            content = content[node]
        content[last] = value
        return json.dumps(content)

    return edit


DEEP = "[" * 100_000 + "]" * 100_000
BAD = {
    "cut": lambda content: json.dumps(content)[:-20],
    "empty": lambda content: "",
    "list": lambda content: "[]",
    "number": lambda content: "3",
    "null": lambda content: "null",
    "deep": lambda content: DEEP,
    "deep-inside": lambda content: json.dumps(content)[:-1] + f', "more": {DEEP}}}',
    "binary": lambda content: bytes(range(256)),
    "latin-1": lambda content: '{"trainer": "é"}'.encode("latin-1"),
    "utf-16": lambda content: json.dumps(content).encode("utf-16"),
    "no-splits": put("splits", {}),
    "splits-is-a-list": put("splits", []),
    "test-is-a-number": put("splits/test", 3),
    "total-is-text": put("splits/test/total", "many"),
    "total-is-0": put("splits/test/total", 0),
    "total-is-nan": put("splits/test/total", float("nan")),
    "correct-is-a-list": put("splits/test/correct", [1]),
    "accuracy-is-nan": put("splits/test/accuracy", float("nan")),
    "accuracy-is-infinite": put("splits/test/accuracy", float("inf")),
    "accuracy-is-text": put("splits/test/accuracy", "50"),
    "accuracy-is-null": put("splits/test/accuracy", None),
    "accuracy-is-huge": put("splits/test/accuracy", 10**400),
    "accuracy-is-not-that-of-the-counts": put("splits/test/accuracy", 99.99),
    "correct-is-huge": put("splits/test/correct", 10**400),
    "another-metric-is-huge": put("splits/test/nll", 10**400),
    "more-digits-than-python-reads": lambda content: '{"trainer": ' + "9" * 5000 + "}",
    "seed-is-text": put("seed", "one"),
    "seed-is-a-list": put("seed", [1]),
    "seed-is-null": put("seed", None),
    "seed-is-a-fraction": put("seed", 1.5),
    "trainer-is-a-number": put("trainer", 3),
    "trainer-is-a-list": put("trainer", ["SAPT"]),
    "dataset-is-null": put("dataset", None),
    "dataset-is-a-list": put("dataset", []),
    "backbone-is-a-list": put("backbone", []),
    "versions-is-a-list": put("versions", []),
    "split-sha256-is-text": put("split_sha256", "abc"),
    "config-is-a-list": put("config", []),
    "config-is-empty": put("config", {}),
    "trainer-node-is-a-number": put("config/TRAINER", 3),
    "dataset-node-is-a-number": put("config/DATASET", 3),
    "optim-node-is-null": put("config/OPTIM", None),
    "test-node-is-text": put("config/TEST", "x"),
    "own-node-is-a-number": put("config/TRAINER/SAPT", 3),
    "loaded-from-is-a-number": put("loaded_from", 3),
    "loaded-from-has-no-path": put("loaded_from", {}),
    "loaded-from-is-short": put("loaded_from", {"path": "x", "epoch": 1}),
    "trained-by-is-text": put("loaded_from", {"path": "a/b/c", "epoch": 1, "trained_by": "CoOp"}),
    "data-is-a-list": put("data", []),
    "data-has-no-name": put("data", {"own": True}),
    "method-is-text": put("method", "SAPT"),
    "method-settings-are-a-number": put("method/settings", 3),
    "method-views-are-a-number": put("method/views", 3),
    "training-is-a-number": put("training", 3),
    "training-has-no-node": put("training", {"name": "SAPT"}),
    "prompt-is-a-list": put("prompt", []),
    "parts-is-a-number": put("splits/test/parts", 3),
    "parts-lead-out": put("splits/test/parts", [["../../..", "x"]]),
    "parts-are-numbers": put("splits/test/parts", [1, 2]),
}
HARMLESS = ("own-node-is-a-number",)  # a row of its own


def write(folder, record, data):
    folder.mkdir(parents=True)
    data = data if isinstance(data, (bytes, str)) else json.dumps(data)
    (folder / "results.json").write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_record_is_named_makes_no_page_and_the_rest_makes_the_table(record, tmp_path, capfd, kind):
    write(tmp_path / "good", record, record)
    write(tmp_path / "bad", record, BAD[kind](copy.deepcopy({**record, "seed": 2})))
    for form in ("text", "csv") if kind in ("cut", "no-splits") else ("json",):
        outcome = accepted(capfd, "parse", tmp_path, "--format", form)
        assert kind in HARMLESS or str(tmp_path / "bad") in outcome.out + outcome.err
    shutil.rmtree(tmp_path / "good")
    if kind not in HARMLESS:
        refused(capfd, "parse", tmp_path, "--table", says=(tmp_path / "bad",))
    for page in ("page", "reliability"):
        outcome = call(capfd, "report", page, tmp_path / "bad", "--out", tmp_path / "out")
        assert outcome.code in (0, 2) and "Traceback" not in outcome.err
        assert outcome.code == 0 or outcome.err.count("error: ") == 1


NO_FILES = {"folder": Path.mkdir, "pipe": os.mkfifo, "circle": lambda path: path.symlink_to("results.json")}


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_record_that_is_no_file_does_not_hang(record, tmp_path, capfd, kind):
    write(tmp_path / "good", record, record)
    (tmp_path / "bad").mkdir()
    NO_FILES[kind](tmp_path / "bad/results.json")
    accepted(capfd, "parse", tmp_path, "--table")


def test_folders_that_lead_round_are_read_once(record, tmp_path, capfd):
    write(tmp_path / "good", record, record)
    (tmp_path / "good/again").symlink_to(tmp_path)
    assert accepted(capfd, "parse", tmp_path, "--format", "csv").out.count("SAPT") == 1


LOGS = {
    "cut": train_log(1, 80.0)[:200],
    "empty": "",
    "binary": bytes(range(256)) * 99,
    "latin-1": train_log(1, 80.0).replace("Caltech101", "Caltéch").encode("latin-1")[:-120],
    "nan": train_log(1, float("nan")),
    "no-number": train_log(1, 80.0).replace("80.0%", "eighty%"),
    "infinite": train_log(1, float("inf")),
    "one-long-line": "x" * 20_000_000,
    "nulls": "\0" * 100_000,
    "many-stars": "* accuracy: " * 200_000,
}


@pytest.mark.parametrize("kind", LOGS)
def test_a_broken_log_is_named_and_not_averaged(tmp_path, capfd, kind):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0), "seed2": ""})
    data = LOGS[kind]
    (tmp_path / "seed2/log.txt").write_bytes(data if isinstance(data, bytes) else data.encode())
    outcome = accepted(capfd, "parse", tmp_path)
    assert "* accuracy: 80.00% +- 0.00%" in outcome.out and str(tmp_path / "seed2/log.txt") in outcome.out


def test_latin_letters_in_a_whole_log_do_not_matter(tmp_path, capfd):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0)})
    (tmp_path / "seed1/log.txt").write_bytes(train_log(1, 80.0).replace("Caltech101", "Caltéch").encode("latin-1"))
    assert "* accuracy: 80.00%" in accepted(capfd, "parse", tmp_path).out


@pytest.mark.parametrize("keyword", ("(", "[a", "*", "a{9999999999}", "\\", "x" * 5000))
def test_a_keyword_that_is_no_pattern_is_one_sentence(tmp_path, capfd, keyword):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0)})
    refused(capfd, "parse", tmp_path, "--keyword", keyword)
