"""Every benchmark runs, reports and writes its file; what it measures is not tested here."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import common
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import card, feed
from benchmarks.gpu.sizes import TINY, Sizes
from benchmarks.naive import measure_or_fit
from benchmarks.tpt_and_tlla import NAIVE, predict_by
from benchmarks.training import Step
from tlla.errors import InputError

SMALL = {  # name: arguments that make it quick
    "class_set": ["--classes", "3", "--perturbations", "1", "--naive-prompts", "2", "3"],
    "memory": ["--images", "8", "--views", "2"],
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


def test_both_sides_of_a_comparison_compute_the_same():
    ours, naive = (Step(what, 3, "tiny", 2, "cpu", "amp") for what in ("CoOp", "naive CoOp"))
    for one, other in zip((*ours.features(), ours().gradient), (*naive.features(), naive().gradient), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    features = torch.nn.functional.normalize(torch.randn(1, 16, 32), dim=-1)
    ours, naive = (predict_by(what, 3, "tiny", "cpu", "amp")(features, None) for what in ("TPT", NAIVE))
    assert torch.allclose(ours.flatten(), naive, atol=1e-4)


@pytest.mark.parametrize("name", gpu.PARTS)
def test_a_part_of_the_gpu_benchmark_writes_its_figures(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(common, "in_own_process", lambda function, *args: function(*args))
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)  # which takes seconds
    words = ["gpu", "--device", "cpu", "--tiny", "--minutes", "60", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr(sys, "argv", [*words, "--parts", name])
    gpu.main()
    ((found, part),) = json.loads((tmp_path / "gpu.json").read_text())["parts"].items()
    assert found == name and part["rows"] and not {"error", "skipped"} & set(part), part
    assert not [row for row in part["rows"] if "error" in row or len(row) < 3]
    assert "aim" in capsys.readouterr().out
    if name == "encoder":
        times = {row["forward"]: row["ms"] for row in part["rows"] if "forward" in row}
        assert min(times.values()) > 0 and set(times) == {"OpenAI's", "ours", "OpenAI's, compiled"}
    if name == "correct":
        same = [row for row in part["rows"] if row.get("precision") == "fp32"]
        assert same and all(row["gradient difference"] == 0 for row in same)  # here both sides are the CPU


def test_the_gpu_benchmark_has_all_parts_unless_some_are_named(monkeypatch, tmp_path):
    run = gpu.run
    monkeypatch.setattr(gpu, "run", lambda names, *args: run(names, args[0], 0, args[2]))  # in no time
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--tiny", "--out", str(path)])
    gpu.main()
    assert list(json.loads(path.read_text())["parts"]) == list(gpu.PARTS)


def broken(*_):
    raise RuntimeError("no luck")


def test_an_error_in_the_gpu_benchmark_is_recorded_and_the_rest_runs(monkeypatch, capsys):
    rows = [({"row": 1}, broken), ({"row": 2}, dict, {"median": 0.5})]
    monkeypatch.setattr(card, "measure", broken)
    monkeypatch.setattr(feed, "measure", lambda sizes: iter(rows))
    saved = []
    parts = gpu.run(["env", "feed"], Sizes("cpu"), 1, lambda content: saved.append(json.dumps(content)))["parts"]
    assert "no luck" in parts["env"]["error"] and not parts["env"]["rows"]
    first, second = parts["feed"]["rows"]
    assert "no luck" in first["error"] and second == {"row": 2, "ms": 500}
    assert "no luck" in saved[0] and '"feed"' not in saved[0]  # what a cut run leaves
    assert "no luck" in capsys.readouterr().out


def test_the_gpu_benchmark_names_what_the_minutes_do_not_suffice_for(monkeypatch, capsys):
    monkeypatch.setattr(feed, "measure", broken)
    parts = gpu.run(["env", "feed"], Sizes("cpu", **TINY), 0, lambda content: None)["parts"]
    assert all("minutes" in part["skipped"] and not part["rows"] for part in parts.values())
    assert capsys.readouterr().out.count("skipped") == 2


def test_a_part_of_the_gpu_benchmark_leaves_later_ones_their_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def row():
        now[0] += 100
        return {}

    for module in (card, feed):
        monkeypatch.setattr(module, "measure", lambda sizes: [({}, row)] * 9)
    parts = gpu.run(["env", "feed"], Sizes("cpu"), 11, lambda content: None)["parts"]
    assert [len(part["rows"]) for part in parts.values()] == [3, 4]  # shares of 25 and 30 of 660 s


def test_the_gpu_benchmark_compares_its_figures_with_the_aims():
    image = {"K": 1000, "encoding": True}
    rows = {
        "end_to_end": [{"workers": 16, "ON_DEVICE": True, "images/s": 150.0}, {"workers": 4, "error": "no luck"}],
        "testtime": [
            {"method": "STSS", **image, "ms": 10.0, "peak_mb": 600.0},
            {"method": "TPT, 77 tokens", **image, "ms": 250.0, "peak_mb": 9000.0},
        ],
        "text": [{"step": "SAPT", "K": 1000, "precision": "amp", "ms": 40.0}],
    }
    table = gpu.compare_with_aims({"parts": {name: {"rows": part} for name, part in rows.items()}})
    found = [row[1:] for row in table if row[3] != "not measured"]
    assert found == [
        [">= 150", 150.0, "yes"],
        [">= 20", 25.0, "yes"],
        ["<= 0.05", 600 / 9000, "NO"],
        ["<= 35", 40.0, "NO"],
    ]
    assert all(row[2] is None for row in table if row[3] == "not measured") and len(table) == 9


def test_the_gpu_benchmark_says_that_it_needs_a_gpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "gpu.json")])
    assert gpu.call(gpu.main) == 2
    assert "a CUDA GPU is needed" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("minutes", ("0", "-3", "nan", "inf"))
def test_the_gpu_benchmark_refuses_minutes_in_which_nothing_can_be_measured(monkeypatch, tmp_path, minutes):
    words = ["gpu", "--device", "cpu", "--tiny", f"--minutes={minutes}", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(InputError, match="--minutes must be a finite number > 0"):
        gpu.main()


def test_the_gpu_benchmark_keeps_an_earlier_file(monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text("figures")
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--tiny", "--out", str(path)])
    with pytest.raises(InputError, match="exists: name another file"):
        gpu.main()
    assert path.read_text() == "figures"
