"""What a sweep is to run: each script's commands, grids, the choice of rho."""

import json
import os
import subprocess

import pytest
from benchmark import REPO
from sweep_stand_in import CROSS_EMOJI, commands, sweep

from sweeps import __main__ as cli
from sweeps import plans, rho
from sweeps.grid import grid
from sweeps.job import ordered
from tlla.errors import InputError

TRAIN = (
    "python train.py --root /data --seed 1 --trainer SAPT --dataset-config-file configs/datasets/oxford_pets.yaml "
    "--config-file configs/trainers/SAPT/vit_b16_c4_ep50.yaml --output-dir "
    "/out/oxford_pets/SAPT/vit_b16_c4_ep50_8shots/nctx4_cscFalse_ctpend/seed1 DATASET.NUM_SHOTS 8"
)
PROMPT = "/out/imagenet/SAPT/vit_b16_c4_ep5_16shots/nctx4_cscFalse_ctpend/seed2"
CROSS = (
    "python train.py --root /data --seed 2 --trainer TLLA --dataset-config-file configs/datasets/dtd.yaml "
    "--config-file configs/trainers/TLLA/vit_b16_c4_ep5.yaml --output-dir "
    "/out/evaluation/TLLA/vit_b16_c4_ep5_16shots/nctx4_cscFalse_ctpend/dtd/seed2 "
    f"--model-dir {PROMPT} --eval-only TRAINER.TLLA.AUGMIX True"
)
NEW = (
    "python train.py --root /data --seed 3 --trainer SAPT --dataset-config-file configs/datasets/dtd.yaml "
    "--config-file configs/trainers/SAPT/vit_b16_c4_ep50.yaml --output-dir "
    "/out/base2new/test_new/dtd/shots_16/SAPT/vit_b16_c4_ep50/seed3 "
    "--model-dir /out/base2new/train_base/dtd/shots_16/SAPT/vit_b16_c4_ep50/seed3 --eval-only "
    "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new"
)


def test_training_has_coops_arguments_and_folders(capsys):
    lines = commands(capsys, "train", "oxford_pets", "vit_b16_c4_ep50", "end", "4", "8", "False")
    assert lines[0] == TRAIN and len(lines) == 3
    other = commands(capsys, "train", "oxford_pets", "vit_b16_c4_ep50", "middle", "16", "1", "True", "--seeds", "5")
    assert "/vit_b16_c4_ep50_1shots/nctx16_cscTrue_ctpmiddle/seed5 " in other[0]
    assert other[0].endswith(
        "DATASET.NUM_SHOTS 1 TRAINER.SAPT.N_CTX 16 TRAINER.SAPT.CTX_INIT '' TRAINER.SAPT.CSC True "
        "TRAINER.SAPT.CLASS_TOKEN_POSITION middle"
    )


def test_cross_dataset_trains_on_imagenet_first_and_uses_augmix(capsys):
    lines = commands(capsys, "cross-dataset", "--seeds", "1", "2")
    assert len(lines) == 2 + 10 * 2 and CROSS in lines
    assert all("--model-dir" not in line for line in lines[:2]) and f"--output-dir {PROMPT} " in lines[1]


def test_base_to_new_tests_the_other_half(capsys):
    lines = commands(capsys, "base2new-test", "dtd", "3")
    assert len(lines) == 2 and lines[1] == NEW and lines[0].endswith("DATASET.SUBSAMPLE_CLASSES base")
    assert commands(capsys, "base2new-train", "dtd", "3") == lines[:1]


def test_domain_generalization_ablation_and_eval_cover_their_cells(capsys):
    lines = commands(capsys, "domain-generalization", "--rho", "0.3")
    assert len(lines) == 3 + 5 * 3 and all("TRAINER.SAPT.RHO 0.3" in line for line in lines)
    assert all(f"datasets/imagenet{v}.yaml" in lines[-1 - 3 * i] for i, v in enumerate(("_sketch", "_r", "v2", "_a")))
    lines = commands(capsys, "ablation", "--seeds", "1")
    assert len(lines) == 2 + 4 + 4 + 5 + 5  # two trainings test the source, too
    assert sum("/TLLA+CoOp/" in line and "/imagenet/CoOp/vit_b16_ep50_ctxv1_16shots/" in line for line in lines) == 5
    lines = commands(capsys, "eval", "food101", "vit_b16_c4_ep5", "--seeds", "1")
    assert len(lines) == 2 and "/evaluation/TLLA/" in lines[1]


def test_the_tables_have_every_method_once_a_dataset_and_seed(capsys):
    lines = commands(capsys, "table1")
    assert len(lines) == len(set(lines)) == 5 + (2 * 5 + 2 * 5) * 3 + 2 * 5 * 3 + 2 * 5 * 3
    assert sum('["TPT","CTPT","ZERO","MTA","SAR"]' in line for line in lines) == 15
    lines = commands(capsys, "table2")
    assert len(lines) == len(set(lines)) == 10 + (1 + 10) * 3 + (1 + 10) * 3 + 2 * 10 * 3


def test_every_script_reaches_its_plan(tmp_path, monkeypatch, capsys):
    """The scripts work from anywhere and need no editing; their plans are those of the tests above."""
    found = {}
    for path in sorted((REPO / "scripts").glob("*/*.sh")):  # scripts/sweep.sh is what all of them call
        text = path.read_text()
        assert os.access(path, os.X_OK) and text.startswith("#!/usr/bin/env bash") and "set -euo pipefail" in text
        found[f"{path.parent.name}/{path.stem}"] = text.split('sweep.sh" ')[1].split()[0]
    assert found == {
        **{f"sapt/{name}": name.replace("_", "-") for name in ("train", "rho_grid", "base2new_train", "base2new_test")},
        **{
            f"tlla/{name}": name.replace("_", "-")
            for name in ("eval", "domain_generalization", "cross_dataset", "ablation")
        },
        **{f"reproduce/{name}": name for name in ("table1", "table2")},
    }
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\n[ $1 = -c ] || printf \'%s\n\' "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    command = [str(REPO / "scripts/sapt/train.sh"), "oxford_pets", "vit_b16_c4_ep50", "end", "4", "8", "--dry-run"]
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    out = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    path, *words = out.splitlines()
    assert (path, words[:2]) == (str(REPO), ["-m", "sweeps"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUT", "runs")
    monkeypatch.setenv("DATA", "/data")
    assert cli.main(words[2:]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == TRAIN.replace("/out", f"{tmp_path}/runs").replace(" train.py", f" {REPO}/train.py")


def test_rho_is_the_best_on_val_and_the_smallest_of_equals(fake, capsys):
    words = ("rho-grid", "emoji", "emoji", "--seeds", "1", "--jobs", "5")
    assert sweep(fake, *words) == 0
    file = fake / "out/rho_grid/emoji/SAPT/emoji_16shots/rho.json"
    choice = json.loads(file.read_text())
    assert choice["rho"] == 0.1 and choice["source"] == "emoji" and choice["seeds"] == [1]
    assert choice["mean_val_accuracy"] == {"0.05": 40, "0.1": 50, "0.3": 50, "0.5": 40, "0.7": 40}
    assert [run["rho"] for run in choice["runs"]] == list(rho.RHOS)
    assert choice["runs"][0]["command"][-2:] == ["TRAINER.SAPT.RHO", "0.05"] and "val" in choice["runs"][0]["command"]
    capsys.readouterr()
    given = commands(capsys, *CROSS_EMOJI, "--rho", str(file))
    assert all(line.endswith("TRAINER.SAPT.RHO 0.1") for line in given)
    with pytest.raises(InputError, match="was chosen on emoji, but the prompts are trained on imagenet"):
        rho.read_rho(str(file), "imagenet")
    for key in ("val_images_in_test", "split_sha256"):  # one of them, or all
        for entry in file.parent.glob("rho0.*/seed1/results.json"):
            record = json.loads(entry.read_text())
            change = {"split_sha256": {**record["split_sha256"], "val": "t"}, "val_images_in_test": 1}
            entry.write_text(json.dumps({**record, "val_images_in_test": 0, key: change[key]}))
        assert sweep(fake, *words) == 2
        assert "no val images apart from its test images" in capsys.readouterr().err


def test_rho_is_not_chosen_on_test_images(capsys):
    for name in ("imagenet", "imagenet_r"):
        assert cli.main(["rho-grid", name, "vit_b16_c4_ep50", "--dry-run"]) == 2
        assert f"{name} (ImageNet" in (text := capsys.readouterr().err) and "no validation images apart" in text


GRID = """
trainer: SAPT
config: emoji
datasets: [emoji]
seeds: [1, 2]
grid: {TRAINER.SAPT.RHO: [0.1, 0.2], OPTIM.LR: [0.5]}
then:
  - {trainer: TLLA, config: emoji, datasets: [emoji_twemoji, emoji_openmoji], opts: {TRAINER.TLLA.TOP_S: 4}}
"""


def test_a_grid_file_gives_all_combinations(tmp_path):
    (tmp_path / "radius.yaml").write_text(GRID)
    jobs = ordered(grid(plans.Settings(tmp_path), str(tmp_path / "radius.yaml")))
    assert len(jobs) == 2 * 2 + 2 * 2 * 2
    folder = tmp_path / "radius/emoji/SAPT/emoji_16shots/rho0.2_lr0.5"
    assert jobs[2].folder == folder / "seed1" and jobs[2].config_values["TRAINER"]["SAPT"]["RHO"] == 0.2
    test = next(job for job in jobs if job.folder == folder / "then0_TLLA/emoji_openmoji/seed2")
    assert test.source.folder == folder / "seed2" and test.config_values["TRAINER"]["TLLA"]["TOP_S"] == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("datasets: [emoji]", "", "datasets is missing"),
        ("seeds", "seed", "seed is no key of a grid: did you mean 'seeds'"),
        ("[1, 2]", "[1, a]", "seeds must be a list of whole numbers, but got [1, 'a']"),
        ("[0.5]", "0.5", "grid.OPTIM.LR must be a list of values, but got 0.5"),
        ("[0.5]", "[0.5, 5e-1]", "grid.OPTIM.LR has equal values"),
        ("opts: {TRAINER.TLLA.TOP_S: 4}", "seeds: [1]", "then[0].seeds is no key"),
        ("config: emoji, ", "", "then[0].config is missing"),
        ("SAPT.RHO", "SAPT.RO", "TRAINER.SAPT.RO: did you mean"),
        ("[emoji]", "[emojy]", "there is no config configs/datasets/emojy.yaml: did you mean 'emoji'"),
        ("trainer: SAPT", "trainer: [", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_a_grid_file_are_named(tmp_path, old, new, message):
    file = tmp_path / "g.yaml"
    file.write_text(GRID.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        grid(plans.Settings(tmp_path), str(file))
    assert str(error.value).startswith(str(file)) and message in str(error.value)
