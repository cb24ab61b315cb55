"""The demo's bookkeeping: what counts as done, and the paired intervals of its table."""

import json
import random
import re
import statistics

import pytest

from scripts import demo
from scripts.emoji import study
from sweeps.job import COMPLETE, UNFINISHED, Job, ordered
from tlla.files import read_dict, to_csv
from tlla.records.store import predictions_file, write_results

IMAGES = 60
PLAIN = study.FAMILIES["plain"]


def write_record(folder, job: Job, trainer: str, test: dict) -> None:
    entries = {"trainer": trainer, "dataset": "Emoji", "backbone": "EmojiCLIP", "seed": job.seed, "versions": {}}
    write_results(folder, {**entries, "config": job.config_values, "splits": {"test": test}, "train_seconds": 1})


def finish(job: Job, rng: random.Random) -> None:
    """Writes what a finished run leaves; the later a row of the table, the more images are correct."""
    test = {"total": IMAGES, "correct": 0, "accuracy": 0.0, "prompt_sha256": job.trainer}
    if not job.prompts:
        write_record(job.folder, job, job.trainer, test)
        return
    rows = list(demo.ROWS.values())
    parts = [(prompt, method) for prompt, _ in job.prompts for method in demo.METHODS]
    write_record(job.folder, job, "Compare", {"total": IMAGES, "parts": parts})
    for prompt, method in parts:
        share = 0.5 + 0.05 * (rows.index((prompt, method)) if (prompt, method) in rows else 0)
        hits = [int(rng.random() < share) for _ in range(IMAGES)]
        accuracy = 100 * sum(hits) / IMAGES
        more = {"accuracy": accuracy, "prompt_sha256": prompt}
        folder = job.folder / prompt / method
        write_record(folder, job, method, {**test, **more})
        table = [("index", "label", "prediction", "confidence"), *((i, 1, hit, 0.5) for i, hit in enumerate(hits))]
        predictions_file(folder, "test").write_text(to_csv(table))


@pytest.fixture
def jobs(tmp_path):
    """All planned runs for two seeds, finished."""
    rng, planned = random.Random(0), study.study_plan(tmp_path, [1, 2], PLAIN, *study.only(demo.METHODS))
    for job in ordered(planned):
        finish(job, rng)
    return planned


def test_every_method_meets_every_style_in_one_pass_and_prompts_come_first(jobs):
    all_jobs = ordered(jobs)
    assert len(jobs) == 7 * 2 and len(all_jobs) == len(jobs) + 2 * 2
    for job in jobs:
        assert all(all_jobs.index(source) < all_jobs.index(job) for source in job.sources.values())
        assert {(name, source.trainer, source.seed, source.folder.name) for name, source in job.sources.items()} == {
            (name, name, job.seed, "emoji") for name in ("CoOp", "SAPT")
        }
    assert f"'hand-written=', 'CoOp={all_jobs[0].folder}'" in jobs[0].argv[-1]


def test_a_run_counts_as_done_only_with_its_settings_and_its_sources_prompts(jobs):
    job = jobs[0]
    assert job.state() == COMPLETE
    for folder, change in (
        (job.folder, lambda r: r["config"]["TRAINER"]["VIEWS"].update(N_VIEWS=8)),
        (job.folder, lambda r: r["splits"]["test"].update(total=0)),
        (job.folder, lambda r: r["splits"]["test"]["parts"].clear()),
        (job.folder, lambda r: r.pop("splits")),
        (job.sources["SAPT"].folder, lambda r: r["splits"]["test"].update(prompt_sha256="another")),
        (job.sources["CoOp"].folder, lambda r: r.pop("splits")),
    ):
        kept = read_dict(folder / "results.json")
        changed = read_dict(folder / "results.json")
        change(changed)
        write_results(folder, changed)
        assert job.state() != COMPLETE
        write_results(folder, kept)
    assert job.state() == COMPLETE
    (job.folder / "results.json").write_text(json.dumps(kept)[:-20])  # half written
    assert job.state() != COMPLETE


def test_settings_of_methods_that_were_not_compared_make_no_other_run(tmp_path):
    def job(tps, *names):
        opts = (*study.only(names), "TRAINER.TPS.TOP", tps, "TRAINER.DPE.TOP", "0.5" if "DPE" in names else "0.1")
        return study.comparison(tmp_path, 1, {study.WORDS: None}, PLAIN, *opts)[0]

    one = job("0.25", "SingleView", "TPS")
    write_record(one.folder, one, "Compare", {"total": 1, "parts": [(study.WORDS, "SingleView"), (study.WORDS, "TPS")]})
    assert one.state() == COMPLETE
    assert job("0.25", "TPS", "DPE").state() == UNFINISHED
    assert job("0.5", "TPS", "DPE").differences() == ["TRAINER.TPS.TOP is 0.25 there and 0.5 here"]


def test_the_interval_is_that_of_a_bootstrap_over_emoji(jobs):
    table, styles = demo.DemoTable(study.tested(jobs), [1, 2], PLAIN), ["emoji_openmoji", "emoji_twemoji"]
    said = study.interval(table.emoji("TLLA (SAPT + STSS)", styles), table.emoji("CoOp", styles))
    mean, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", said).groups())
    rows = [[t for seed in (1, 2) for t in table.of(row, styles, seed)] for row in ("TLLA (SAPT + STSS)", "CoOp")]
    gains = [statistics.mean(a.correct[i] - b.correct[i] for a, b in zip(*rows, strict=True)) for i in range(IMAGES)]
    rng = random.Random(1)
    means = sorted(100 * statistics.mean(rng.choices(gains, k=IMAGES)) for _ in range(4000))
    assert mean == pytest.approx(100 * statistics.mean(gains), abs=0.051)
    assert low == pytest.approx(means[100], abs=0.8) and high == pytest.approx(means[-100], abs=0.8)


def test_scenes_of_one_emoji_are_one_observation(tmp_path):
    job = study.study_plan(tmp_path, [1], study.FAMILIES["scenes"], *study.only(demo.METHODS))[1]
    assert "configs/datasets/emoji_scenes_twemoji.yaml" in job.argv
    finish(job, random.Random(0))
    found = study.tested([job])[0]
    hits = [row.split(",")[1] == row.split(",")[2] for row in (found.folder / "predictions_test.csv").open()][1:]
    assert found.correct == [(a + b) / 2 for a, b in zip(hits[::2], hits[1::2], strict=True)]


def test_the_table_and_the_figure_are_written(jobs, tmp_path):
    table = demo.DemoTable(study.tested(jobs), [1, 2], PLAIN)
    text = demo.write_tables([table], tmp_path)
    assert "TLLA (SAPT + STSS)" in text and "±" in text
    assert (tmp_path / "table.md").read_text().count("\n") == (2 + 5) + 1 + (
        2 + 4
    )  # accuracies, then differences to CoOp
    assert (tmp_path / "results.csv").read_text().count("\n") == 1 + 7 * (1 + 4 * 2)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_demo_says_which_accuracies_are_not_the_published_ones(jobs, tmp_path):
    cells = demo.DemoTable(study.tested(jobs), [1, 2], PLAIN).cells()
    path = tmp_path / "results.csv"
    path.write_text(to_csv([demo.HEAD, *cells]))
    assert demo.compare_with(path, cells) == "63 of 63 accuracies are those of docs/results.csv"
    changed = [*cells[:-1], (*cells[-1][:3], 12.5)]
    first, other = demo.compare_with(path, changed).splitlines()
    assert first.startswith("62 of 63 ") and other.startswith("TLLA (SAPT + STSS) emoji_fluent_3d 2: 12.5, not ")
