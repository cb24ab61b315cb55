"""Records and logs of runs that are broken or hostile: named, left out, and no reason to stop."""

import copy
import json
import math
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


HUGE = 10**400
DEEP = "[" * 100_000 + "]" * 100_000
BAD = {
    "cut": lambda content: json.dumps(content)[:-20],
    "empty": lambda content: "",
    "list": lambda content: "[]",
    "number": lambda content: "3",
    "deep": lambda content: DEEP,
    "deep-inside": lambda content: json.dumps(content)[:-1] + f', "more": {DEEP}}}',
    "binary": lambda content: bytes(range(256)),
    "latin-1": lambda content: '{"trainer": "é"}'.encode("latin-1"),
    "utf-16": lambda content: json.dumps(content).encode("utf-16"),
    "more-digits-than-python-reads": lambda content: '{"trainer": ' + "9" * 5000 + "}",
}
ENTRIES = {
    "splits": ({}, []),
    "splits/test": (3,),
    "splits/test/total": ("many", 0, math.nan),
    "splits/test/correct": ([1], HUGE),
    "splits/test/accuracy": (math.nan, "50", HUGE, 99.99),  # the last one is not that of the counts
    "splits/test/nll": (HUGE,),
    "splits/test/parts": (3, [["../../..", "x"]], [1, 2]),
    "seed": ("one", None, 1.5),
    "trainer": (3, ["SAPT"]),
    "dataset": (None, []),
    "split_sha256": ("abc",),
    **dict.fromkeys(("backbone", "versions", "prompt", "data"), ([],)),
    "config": ([], {}),
    "config/TEST": ("x",),
    "config/OPTIM": (None,),
    **dict.fromkeys(("config/TRAINER", "config/DATASET", "config/TRAINER/SAPT"), (3,)),
    "loaded_from": (3, {}, {"path": "x", "epoch": 1}, {"path": "a/b/c", "epoch": 1, "trained_by": "CoOp"}),
    "method": ("SAPT",),
    "method/settings": (3,),
    "method/views": (3,),
    "method/protocol": (3, {"name": 1}, {"name": "authors", "set": 3}),
    "training": (3, {"name": "SAPT"}),
}
for path, values in ENTRIES.items():
    BAD |= {f"{path} = {value!r:.40}": put(path, value) for value in values}
HARMLESS = ("config/TRAINER/SAPT = 3",)  # a row of its own


def write(folder, record, data):
    folder.mkdir(parents=True)
    data = data if isinstance(data, (bytes, str)) else json.dumps(data)
    (folder / "results.json").write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_record_is_named_makes_no_page_and_the_rest_makes_the_table(record, tmp_path, capfd, kind):
    write(tmp_path / "good", record, record)
    write(tmp_path / "bad", record, BAD[kind](copy.deepcopy({**record, "seed": 2})))
    for form in ("text", "csv") if kind in ("cut", "empty") else ("json",):
        outcome = accepted(capfd, "parse", tmp_path, "--format", form)
        assert kind in HARMLESS or str(tmp_path / "bad") in outcome.out + outcome.err
    shutil.rmtree(tmp_path / "good")
    if kind not in HARMLESS:
        refused(capfd, "parse", tmp_path, "--table", says=(tmp_path / "bad",))
    page = ("page", "reliability")[len(kind) % 2]
    outcome = call(capfd, "report", page, tmp_path / "bad", "--out", tmp_path / "out")
    assert outcome.code in (0, 2) and "Traceback" not in outcome.err
    assert outcome.code == 0 or outcome.err.count("error: ") == 1


NO_FILES = {"folder": Path.mkdir, "pipe": os.mkfifo, "circle": lambda path: path.symlink_to("results.json")}


def test_a_record_that_is_no_file_does_not_hang(record, tmp_path, capfd):
    write(tmp_path / "good", record, record)
    for kind, make in NO_FILES.items():
        (tmp_path / kind).mkdir()
        make(tmp_path / kind / "results.json")
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


def test_a_broken_log_is_named_and_not_averaged(tmp_path, capfd):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0), "seed2": ""})
    for kind, data in LOGS.items():
        (tmp_path / "seed2/log.txt").write_bytes(data if isinstance(data, bytes) else data.encode())
        out = accepted(capfd, "parse", tmp_path).out
        assert "* accuracy: 80.00% +- 0.00%" in out and str(tmp_path / "seed2/log.txt") in out, kind


def test_latin_letters_in_a_whole_log_do_not_matter(tmp_path, capfd):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0)})
    (tmp_path / "seed1/log.txt").write_bytes(train_log(1, 80.0).replace("Caltech101", "Caltéch").encode("latin-1"))
    assert "* accuracy: 80.00%" in accepted(capfd, "parse", tmp_path).out


def test_a_keyword_that_is_no_pattern_is_one_sentence(tmp_path, capfd):
    write_logs(tmp_path, {"seed1": train_log(1, 80.0)})
    for keyword in ("(", "[a", "*", "a{9999999999}", "\\", "x" * 5000):
        refused(capfd, "parse", tmp_path, "--keyword", keyword)
