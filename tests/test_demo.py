"""The demo's bookkeeping: what counts as done, and the paired intervals of its table."""

import json
import random
import statistics

import pytest

import train
from scripts import demo
from trainers.harness.results import plain


def fake(run, accuracy: float, n: int, rng: random.Random, prompt: str = "p") -> None:
    """Writes what a finished run leaves."""
    run.folder.mkdir(parents=True)
    rows = [f"{i},1,{int(rng.random() < accuracy)},0.5" for i in range(n)]
    (run.folder / "predictions_test.csv").write_text("index,label,prediction,confidence\n" + "\n".join(rows) + "\n")
    config = plain(train.build_cfg(train.parse_args(run.argv)))
    split = {"total": n, "accuracy": 0.0, "images_per_second": 1, "peak_memory_mb": 1, "prompt_sha256": prompt}
    (run.folder / "results.json").write_text(json.dumps({"config": config, "splits": {"test": split}}))


@pytest.fixture
def runs(tmp_path):
    """All planned runs for two seeds, finished; the better the later the method."""
    rng, planned = random.Random(0), demo.plan(tmp_path, [1, 2])
    for run in planned:
        fake(run, 0.5 + 0.05 * demo.METHODS.index(run.method), 60, rng)
    return planned


def test_every_method_meets_every_style_and_prompts_come_first(runs):
    assert len(runs) == 7 * (1 + 2 * 4)
    order = {id(run): i for i, run in enumerate(runs)}
    assert all(order[id(run.source)] < order[id(run)] for run in runs if run.source)
    tlla = next(r for r in runs if r.method.name.startswith("TLLA") and r.style != "emoji" and r.seed == 2)
    assert tlla.source.method.name == "SAPT" and tlla.source.seed == 2 and tlla.source.style == "emoji"


def test_a_run_counts_as_done_only_with_its_settings_and_its_sources_prompt(runs):
    run = next(r for r in runs if r.source)
    assert run.is_current()
    record = json.loads((run.folder / "results.json").read_text())
    for change in (
        lambda r: r["config"]["OPTIM"].update(LR=1.0),
        lambda r: r["splits"]["test"].update(prompt_sha256="another"),
        lambda r: r["splits"]["test"].update(total=0),
        lambda r: r.pop("splits"),
    ):
        changed = json.loads(json.dumps(record))
        change(changed)
        (run.folder / "results.json").write_text(json.dumps(changed))
        assert not run.is_current()
    (run.folder / "results.json").write_text(json.dumps(record)[:-20])  # half written
    assert not run.is_current()


def test_the_interval_is_that_of_a_bootstrap_over_images(runs):
    table, styles = demo.Table(runs, [1, 2]), ["emoji_openmoji", "emoji_twemoji"]
    tlla, coop = demo.METHODS[4], demo.METHODS[1]
    mean, half = table.difference(tlla, styles)
    gains = [
        statistics.mean(
            table.of(tlla, t, s).correct()[i] - table.of(coop, t, s).correct()[i] for t in styles for s in (1, 2)
        )
        for i in range(60)
    ]
    rng = random.Random(1)
    means = sorted(100 * statistics.mean(rng.choices(gains, k=60)) for _ in range(4000))
    assert mean == pytest.approx(100 * statistics.mean(gains))
    assert mean - half == pytest.approx(means[100], abs=0.8)
    assert mean + half == pytest.approx(means[-100], abs=0.8)


def test_scenes_of_one_emoji_are_one_observation(tmp_path):
    rng = random.Random(0)
    planned = demo.plan(tmp_path, [1], scenes=True)
    run = next(r for r in planned if r.style == "emoji_twemoji")
    assert "configs/datasets/emoji_scenes_twemoji.yaml" in run.argv
    fake(run, 0.5, 60, rng)
    hits = [row.split(",")[1] == row.split(",")[2] for row in (run.folder / "predictions_test.csv").open()][1:]
    assert run.correct() == [(a + b) / 2 for a, b in zip(hits[::2], hits[1::2], strict=True)]


def test_the_table_and_the_figure_are_written(runs, tmp_path):
    text = demo.write(demo.Table(runs, [1, 2]), tmp_path)
    assert "TLLA (SAPT + STSS)" in text and "±" in text
    assert (tmp_path / "table.md").read_text().count("\n") == (2 + 5) + 1 + (
        2 + 4
    )  # accuracies, then differences to CoOp
    assert (tmp_path / "results.csv").read_text().count("\n") == 1 + len(runs)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
