"""Every benchmark runs, reports and writes its file; what it measures is not tested here."""

import importlib
import json
import sys

import pytest

from benchmarks import common
from benchmarks.naive import measure_or_fit

SMALL = {  # name: arguments that make it quick
    "class_set": ["--classes", "3", "--perturbations", "1", "--naive-prompts", "2", "3"],
    "memory": ["--images", "1", "--views", "2"],
    "training": ["--classes", "3", "--naive-classes", "2", "3", "--batch", "2"],
    "tpt_and_tlla": ["--classes", "3", "--naive-classes", "2", "3"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_reports_what_it_measured(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(common, "in_own_process", lambda function, *args: function(*args))
    arguments = ["--backbone", "tiny", "--device", "cpu", "--repeats", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [name, *arguments, *SMALL[name]])
    importlib.import_module(f"benchmarks.{name}").main()
    (file,) = tmp_path.glob(f"{name}*.json")
    content = json.loads(file.read_text())
    assert content["rows"] and content["versions"]["torch"] and "|" in capsys.readouterr().out


def test_sizes_that_do_not_fit_lie_on_the_line_through_those_that_do():
    measured = {2: {"median": 5.0, "peak_mb": 10.0}, 4: {"median": 9.0, "peak_mb": 12.0}}
    found = measure_or_fit(lambda size: dict(measured[size]), [2, 4], [4, 10])
    assert found[4]["how"] == "measured" and found[10]["how"] == "extrapolated"
    assert found[10]["median"] == pytest.approx(21) and found[10]["peak_mb"] == pytest.approx(18)
