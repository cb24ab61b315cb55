"""Configs, KEY VALUE pairs and sweep plans that are broken or hostile: one sentence that names the file or the key."""

import os
from pathlib import Path

import pytest
from benchmark import REPO
from hostile import accepted, call, refused

import train

DEEP = "[" * 100_000


def bomb(levels: int = 12) -> bytes:
    """A list of lists of ... that the same nine references make of one word: 9^12 words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines).encode()


def dict_bomb(levels: int = 30) -> bytes:
    lines = ["OPTIM: &a0 {LR: 0.1}"]
    lines += [f"A{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, levels)]
    return "\n".join(lines).encode()


FILES = {
    "unknown key.yaml": (b"TRAINER:\n  SAPT:\n    RH0: 0.1\n", "TRAINER.SAPT.RH0"),
    "unknown section.yaml": (b"TRAINERS: {SAPT: {RHO: 0.1}}\n", "TRAINERS"),
    "section is a number.yaml": (b"TRAINER: 3\n", "TRAINER"),
    "section is null.yaml": (b"OPTIM:\n", "OPTIM"),
    "value is a section.yaml": (b"OPTIM: {LR: {a: 1}}\n", "OPTIM.LR"),
    "value is text.yaml": (b"OPTIM: {LR: fast}\n", "OPTIM.LR"),
    "value is nan.yaml": (b"OPTIM: {LR: .nan}\n", "OPTIM.LR must be a finite number"),
    "value in a list is nan.yaml": (b"INPUT: {PIXEL_STD: [.nan, 1.0, 1.0]}\n", "INPUT.PIXEL_STD must be a finite"),
    "value is a date.yaml": (b"OPTIM: {LR: 2025-01-01}\n", "date"),
    "value is null.yaml": (b"OUTPUT_DIR:\nDATASET: {NAME: }\n", "DATASET.NAME is empty"),
    "key is a number.yaml": (b"1: 2\n", "cannot be merged"),
    "entry is null.yaml": (b"TRAINER: {COMPARE: {PROMPTS: [null]}}\n", "TRAINER.COMPARE.PROMPTS has an empty entry"),
    "key is a list.yaml": (b"[1, 2]: 3\n", "key"),
    "list.yaml": (b"- OPTIM\n- LR\n", "holds a list"),
    "empty.yaml": (b"", "is empty"),
    "two documents.yaml": (b"SEED: 1\n---\nSEED: 2\n", "document"),
    "binary.yaml": (bytes(range(256)), "cannot be read as YAML"),
    "null byte.yaml": (b"SEED: 1\0\n", "cannot be read as YAML"),
    "tabs.yaml": (b"OPTIM:\n\tLR: 0.1\n", "line 2"),
    "key twice.yaml": (b"SEED: 1\nOPTIM: {LR: 0.1, LR: 0.2}\n", "'LR' comes twice"),
    "section twice.yaml": (b"OPTIM: {LR: 0.1}\nSEED: 1\nOPTIM: {MAX_EPOCH: 3}\n", "'OPTIM' comes twice"),
    "object.yaml": (b"OUTPUT_DIR: !!python/object/apply:os.mkdir [hacked]\n", "could not determine a constructor"),
    "name.yaml": (b"OUTPUT_DIR: !!python/name:os.system\n", "could not determine a constructor"),
    "tuple.yaml": (b"OUTPUT_DIR: !!python/tuple [1]\n", "could not determine a constructor"),
    "set.yaml": (b"OPTIM: {STEPSIZE: !!set {1, 2}}\n", "cannot be merged"),
    "bytes.yaml": (b"OUTPUT_DIR: !!binary aGVsbG8=\n", "cannot be merged"),
    "bomb.yaml": (bomb(), "stands for more than"),
    "bomb of sections.yaml": (dict_bomb(), "stands for more than"),
    "holds itself.yaml": (b"OPTIM: &a {LR: 0.1, MORE: *a}\n", "stands for more than"),
    "deep.yaml": (b"[" * 1500, "cannot be read as YAML"),
    "long.yaml": (b"OPTIM: {LR: [" + b"1, " * 9_000 + b"]}\n", "OPTIM.LR"),
    "code.py": (b"__import__('os').mkdir('hacked')\n", "must be YAML"),
    "no suffix": (b"SEED: 1\n", "must be YAML"),
}


@pytest.mark.parametrize("file", FILES)
def test_a_broken_config_is_one_sentence_that_names_it(place, capfd, tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, part = FILES[file]
    (tmp_path / file).write_bytes(data)
    for flag in ("--config-file", "--dataset-config-file")[: 2 if file in ("list.yaml", "object.yaml") else 1]:
        sentence = refused(capfd, "train", *place.argv("SAPT", "x"), flag, tmp_path / file, says=(part,))
        assert file in sentence or sentence.startswith(part)  # the file, or the key
    assert not (tmp_path / "hacked").exists() and not (place.folder / "x").exists()


def test_what_is_no_file_is_no_config(place, capfd, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("folder.yaml", "loop.yaml", "pipe.yaml", "n\0ull.yaml", "absent.yaml"):
        argv = place.argv("SAPT", "x", "--config-file", str(tmp_path / name))
        refused(capfd, "train", *argv, says=("there is no config file",))


def test_odd_but_valid_configs_are_taken(place, tmp_path):
    """With anchors, a byte order mark, the line ends of Windows, and without a line end."""
    file = tmp_path / "odd.yaml"
    more = (b"\xef\xbb\xbfOPTIM: {LR: 0.25}\n", b"OPTIM:\r\n  LR: 0.25\r\n", b"OPTIM: {LR: 0.25}")
    for data in (b"OPTIM: {LR: &rate 0.25, GAMMA: *rate}\n", *more):
        file.write_bytes(data)
        cfg = train.build_cfg(train.parse_args(place.argv("SAPT", "x", "--config-file", str(file))))
        assert cfg.OPTIM.LR == 0.25 and cfg.TRAINER.SAPT.N_CTX == 3


HUGE = 10**30
VALUES = f"""
    SAPT OPTIM.LR fast nan 1e400 -0.1 (0.1,) __import__('os').mkdir('hacked')
    SAPT OPTIM.MAX_EPOCH -1 2.5 1e400
    SAPT OPTIM.NAME sgdd
    SAPT OPTIM.LR_SCHEDULER cosines
    SAPT OPTIM.WARMUP_TYPE hot
    SAPT OPTIM.MOMENTUM nan
    SAPT OPTIM.WEIGHT_DECAY -1.0
    SAPT SEED {2**63} {HUGE} 1.5
    SAPT DATALOADER.TRAIN_X.BATCH_SIZE 0
    SAPT DATALOADER.TRAIN_X.SAMPLER Sampler
    SAPT DATALOADER.TEST.BATCH_SIZE -1
    SAPT DATALOADER.NUM_WORKERS -1
    SAPT INPUT.SIZE (48,48) (33,33) (32,33) (32,) 32 ('a','b') ({HUGE},{HUGE})
    SAPT INPUT.TRANSFORMS ('random_crops',)
    SAPT INPUT.INTERPOLATION cubic
    SAPT INPUT.PIXEL_MEAN [0.5] ['a','b','c']
    SAPT INPUT.PIXEL_STD [0.0,0.0,0.0]
    SAPT INPUT.RRCROP_SCALE (2.0,1.0)
    SAPT DATASET.SUBSAMPLE_CLASSES old
    SAPT DATASET.NAME Emojis
    SAPT MODEL.INIT_WEIGHTS nowhere.pt
    SAPT TEST.SPLIT train
    SAPT TEST.FINAL_MODEL best
    SAPT TEST.EVALUATOR Ranking
    SAPT TRAINER.SAPT.RHO nan -0.2
    SAPT TRAINER.SAPT.PREC int8
    SAPT TRAINER.SAPT.CLASS_TOKEN_POSITION back
    SAPT TRAINER.SAPT.LAMBDA nan
    SAPT TRAINER.SAPT.N_CTX 0 76 {HUGE}
    SAPT TRAINER.SAPT.CTX_INIT {"_a" * 80}
    SAPT TRAINER.SAPT.TEXT_CHUNK -1
    FPP TRAINER.FPP.STEPS 0
    FPP TRAINER.FPP.CTX_STD -0.2
    FPP TRAINER.FPP.WEIGHT -2.0
    FPP TRAINER.FPP.TEMPLATE cupl.json
    TLLA TRAINER.TLLA.N_VIEWS 0 {HUGE}
    TLLA TRAINER.TLLA.TOP_S 0 7 {HUGE}
    TLLA TRAINER.TLLA.RHO nan -1.0
    TLLA TRAINER.TLLA.VOTE median
    TLLA TRAINER.TLLA.LAMBDA 1e400
    TLLA TRAINER.TLLA.N_PERTURB -1 {HUGE}
    TLLA TRAINER.TLLA.SEED {HUGE}
    TLLA TRAINER.TLLA.VIEW_BATCH 0
    TLLA TRAINER.TLLA.CROP_SCALE (nan,1.0) (0.5,0.1) ('a','b')
    STSS TRAINER.VIEWS.N_VIEWS 0
    STSS TRAINER.STSS.TOP_S 9
    TPT TRAINER.TPT.LR nan
    TPT TRAINER.TPT.STEPS -1
    TPT TRAINER.TPT.TOP 2.0
    Compare TRAINER.COMPARE.METHODS ['ZERO','NONE'] [1]
    Compare TRAINER.COMPARE.PROMPTS ['../x=template'] ['..={{}}'] [3]
    ZeroshotCLIP TRAINER.ZSCLIP.PREC fp8
    ZeroshotCLIP MODEL.BACKBONE.NAME {"x" * 5000}
    ZeroshotCLIP DATASET.ROOT n\0ull {"x" * 5000}
    ZeroshotCLIP OUTPUT_DIR n\0ull /dev/null/run
    ZeroshotCLIP TEST.SAVE_EVERY nan
    ZeroshotCLIP SEED {"(" * 500 + ")" * 500} {"9" * 5000}
    ZeroshotCLIP VERSION.MAJOR 1
    ZeroshotCLIP SEED. 1
    ZeroshotCLIP __class__ 1
    ZeroshotCLIP TRAINER SAPT
"""
ROWS = [line.split(" ") for line in VALUES.replace("\n    ", "\n").strip("\n").split("\n")]
PAIRS = [(trainer, key, value) for trainer, key, *values in ROWS for value in values]
PAIRS += [("ZeroshotCLIP", "", "1"), ("ZeroshotCLIP", "MODEL.BACKBONE.NAME", "a\nb")]
SAYS = {  # what to do, or what is right
    "Emojis": "did you mean 'Emoji'",
    "(48,48)": 'INPUT.SIZE "(32, 32)"',
    "back": "CLASS_TOKEN_POSITION must be one of",
    "7": "TOP_S must lie between 1 and the number of views, 6",
    "median": "must be one of",
    "int8": "must be one of",
    "-0.2": "must be a finite number >= 0",
}


@pytest.mark.parametrize("trainer, key, value", PAIRS, ids=[f"{k}={v[:20]!a}" for _, k, v in PAIRS])
def test_a_bad_value_is_one_sentence_that_names_its_key(place, capfd, tmp_path, trainer, key, value, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = refused(capfd, "train", *place.argv(trainer, tmp_path.name, key, value), says=(SAYS.get(value, ""),))
    assert key.split(".")[-1] in sentence or value.encode("unicode-escape").decode() in sentence
    assert not (tmp_path / "hacked").exists()
    assert not list((place.folder / tmp_path.name).rglob("results.json"))


WORDS = {  # and what the sentence says
    **dict.fromkeys(("--seed x", "--seed 1e400"), "--seed"),
    "--load-epoch two": "--load-epoch",
    "--seeed 1": "--seeed",
    **dict.fromkeys(("SEED", "SEED 1 OPTIM.LR"), ""),
    "TRAINER.SAPT.RH0 0.1": "did you mean 'TRAINER.SAPT.RHO'",
    "--trainer SATP": "did you mean 'SAPT'",
    "--backbone ViT-B16": "did you mean 'ViT-B/16'",
    "--config-file configs/trainers/SAPT/emojy.yaml": "did you mean 'emoji.yaml'",
    "--root /nowhere": "/nowhere/emoji",
    "--trainer TLLA --eval-only --model-dir elsewhere": "no checkpoint",
}


def test_wrong_words_are_one_sentence(place, capfd):
    for words, part in WORDS.items():
        refused(capfd, "train", *place.argv("ZeroshotCLIP", "x", *words.split()), says=(part,))


def test_a_diverging_run_stops_with_step_rate_rho_and_loss(place, capfd):
    says = ("not finite at epoch 2, batch", "loss nan", "lr 1.00e+38", "rho 0.05")
    refused(capfd, "train", *place.argv("SAPT", "diverges", "OPTIM.LR", "1e38"), says=says, code=1)


def test_values_that_only_look_odd_work(place, capfd, tmp_path):
    output = tmp_path / "выход 🦊 $(touch hacked); 'quote'"
    pairs = ("DATASET.NUM_SHOTS", str(2**31 - 1), "OPTIM.MAX_EPOCH", str(2**31 - 1), "TRAIN.PRINT_FREQ", "-5")
    accepted(capfd, "train", *place.argv("ZeroshotCLIP", "x", "--output-dir", str(output), *pairs))
    assert (output / "results.json").is_file() and "выход" in (output / "results.json").read_text("unicode-escape")


GRID = b"trainer: SAPT\nconfig: emoji\ndatasets: [emoji]\n"
GRIDS = {  # mistakes in a grid that is a mapping: tests/test_sweeps.py
    "object.yaml": (b"trainer: !!python/object/apply:os.mkdir [hacked]\n", "could not determine a constructor"),
    "bomb.yaml": (bomb(), "stands for more than"),
    "list.yaml": (b"[1]\n", "must be a mapping"),
    "empty.yaml": (b"", "must be a mapping"),
    "binary.yaml": (bytes(range(256)), "cannot be read as YAML"),
    "twice.yaml": (b"trainer: SAPT\ntrainer: CoOp\n", "'trainer' comes twice"),
    "path.yaml": (GRID + b"name: ../../out\n", "name"),
    "absolute.yaml": (GRID + b"name: /tmp/elsewhere\n", "name"),
    "value.yaml": (GRID + b"grid: {OPTIM.LR: [fast]}\n", "OPTIM.LR"),
    "grid is a list.yaml": (GRID + b"grid: [1]\n", "grid must be"),
    "1: 2.yaml": (b"1: 2\n", "1 is no key of a grid"),
}


def test_a_broken_plan_of_runs_is_one_sentence_that_names_it(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, (data, part) in GRIDS.items():
        (tmp_path / file).write_bytes(data)
        refused(capfd, "sweeps", "grid", tmp_path / file, "--out", tmp_path / "out", "--dry-run", says=(file, part))
    assert not (tmp_path / "hacked").exists() and not (tmp_path / "out").exists()


def test_a_broken_choice_of_rho_is_one_sentence_that_names_it(capfd, tmp_path):
    file = tmp_path / "rho.json"
    argv = ("train", "emoji", REPO / "configs/trainers/SAPT/emoji.yaml", "--rho", file, "--dry-run")
    values = (f'{{"rho": {rho}, "source": "emoji"}}' for rho in ('"x"', "NaN", "-1", "1e400"))
    for record in ("", "[", "[]", "{}", *values, DEEP):
        file.write_text(record)
        refused(capfd, "sweeps", *argv, "--out", tmp_path / "out", says=(file,))


def test_a_broken_record_makes_a_run_unfinished_not_a_sweep_fail(capfd, tmp_path):
    argv = ("train", "emoji", "emoji", "--seeds", "1", "--source", "emoji", "--out", tmp_path, "--dry-run")
    shown = accepted(capfd, "sweeps", *argv).out
    folder = Path(next(word for line in shown.splitlines() for word in line.split() if word.startswith(str(tmp_path))))
    folder.mkdir(parents=True, exist_ok=True)
    for record in ("", "[]", "3", '{"splits": 3}', '{"config": 3}', DEEP):
        for name in ("results.json", "sweep.json"):
            (folder / name).write_text(record)
        assert call(capfd, "sweeps", *argv).out == shown
