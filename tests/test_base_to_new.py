"""The study from base to new classes: which runs test which half, and the figures of a row."""

import random
import statistics

from test_demo import IMAGES, finish, write_record

from scripts.emoji import base_to_new as study
from scripts.emoji.study import FAMILIES
from sweeps.job import ordered
from tlla.files import read_dict, to_csv
from tlla.records.store import predictions_file


def finished(tmp_path) -> dict:
    """All planned runs for two seeds; the rival is right on two of three base images and on a quarter of the new."""
    plan = study.half_plan(tmp_path, [1, 2], FAMILIES["plain"])
    rng = random.Random(0)
    for job in ordered([one for jobs in plan.values() for one in jobs]):
        finish(job, rng)
        if job.trainer == study.RIVAL:
            n = 4 if job.source else 3
            rows = [(i, 1, int(i % n == 0) if job.source else int(i % n > 0), 0.5) for i in range(IMAGES)]
            predictions_file(job.folder, "test").write_text(
                to_csv([("index", "label", "prediction", "confidence"), *rows])
            )
            write_record(job.folder, job, job.trainer, {"total": IMAGES, "accuracy": 0.0, "prompt_sha256": "Compare"})
    return plan


def test_prompts_learn_the_base_classes_and_every_half_is_tested_by_its_own_runs(tmp_path):
    plan = study.half_plan(tmp_path, [1, 2], FAMILIES["scenes"])
    for half, jobs in plan.items():
        assert {one.config_values["DATASET"]["SUBSAMPLE_CLASSES"] for one in jobs} == {half}
        assert {one.folder.name for one in jobs} == {"emoji_scenes"}
    trained = [one for jobs in plan.values() for one in ordered(jobs) if one.trains and one.trainer != "Compare"]
    assert {one.config_values["DATASET"]["SUBSAMPLE_CLASSES"] for one in trained} == {"base"}
    assert len({one.folder for one in trained}) == 3 * 2


def test_h_is_the_mean_over_seeds_of_their_harmonic_means(tmp_path):
    plan = finished(tmp_path)
    tests = {half: study.tested(jobs) for half, jobs in plan.items()}
    assert study.half_row(study.RIVAL, tests)[:4] == ["CoCoOp", "66.7 ± 0.0", "25.0 ± 0.0", "36.4 ± 0.0"]
    row = study.half_row("SAPT", tests)
    right = {}  # by half and seed, from the files
    for half in study.HALVES:
        for seed in (1, 2):
            folder = tmp_path / "runs" / f"Compare_{half}" / f"seed{seed}" / "emoji" / "SAPT" / "SingleView"
            right[half, seed] = read_dict(folder / "results.json")["splits"]["test"]["accuracy"]
    h = [2 / (1 / right["base", seed] + 1 / right["new", seed]) for seed in (1, 2)]
    assert row[3] == f"{statistics.mean(h):.1f} ± {statistics.stdev(h):.1f}"
    assert row[1] == f"{statistics.mean([right['base', 1], right['base', 2]]):.1f} ± " + row[1].split("± ")[1]
    assert study.half_row("CoOp", tests)[4:] == ["-", "-"] and "[" in row[5]
