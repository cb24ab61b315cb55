"""Default settings, and files of the shape that CoOp's are."""

import pytest
from yacs.config import CfgNode

from dassl.config import get_cfg_default

COOP = """
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 32
  TEST:
    BATCH_SIZE: 100
  NUM_WORKERS: 8

INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]

OPTIM:
  NAME: "sgd"
  LR: 0.002
  MAX_EPOCH: 200
  LR_SCHEDULER: "cosine"
  WARMUP_EPOCH: 1
  WARMUP_TYPE: "constant"
  WARMUP_CONS_LR: 1e-5

TRAIN:
  PRINT_FREQ: 5

MODEL:
  BACKBONE:
    NAME: "ViT-B/16"

TRAINER:
  COOP:
    N_CTX: 4
    CTX_INIT: "a photo of a"
"""


def coop_cfg():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16"})
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    return cfg


def test_files_merge(tmp_path):
    cfg = coop_cfg()
    (tmp_path / "dataset.yaml").write_text('DATASET:\n  NAME: "OxfordPets"\n')
    (tmp_path / "trainer.yaml").write_text(COOP)
    for name in ("dataset.yaml", "trainer.yaml"):
        cfg.merge_from_file(tmp_path / name)
    cfg.merge_from_list(["DATASET.NUM_SHOTS", "16", "OPTIM.STEPSIZE", "(2, 5)", "SEED", "0"])
    assert (cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.SEED) == ("OxfordPets", 16, 0)
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5 and cfg.OPTIM.STEPSIZE == (2, 5)
    assert cfg.INPUT.SIZE == (224, 224) and cfg.TRAINER.COOP.N_CTX == 4


def test_keys_of_parts_that_are_not_here_merge():
    cfg = get_cfg_default()
    text = """
    INPUT: {RANDAUGMENT_N: 3, CUTOUT_LEN: 8, GN_STD: 0.1}
    DATALOADER: {TRAIN_X: {N_INS: 4, N_DOMAIN: 2}, TRAIN_U: {SAME_AS_X: False}}
    MODEL: {BACKBONE: {NAME: resnet50, PRETRAINED: False}, HEAD: {NAME: mlp, HIDDEN_LAYERS: [4], BN: False}}
    OPTIM: {STAGED_LR: True, NEW_LAYERS: [head], BASE_LR_MULT: 0.5}
    TRAIN: {COUNT_ITER: train_u}
    DATASET: {SOURCE_DOMAINS: [art], NUM_LABELED: 250}
    TRAINER: {FIXMATCH: {CONF_THRE: 0.9}}
    """
    cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
    assert cfg.MODEL.HEAD.HIDDEN_LAYERS == (4,) and cfg.TRAINER.FIXMATCH.CONF_THRE == 0.9


def test_unknown_keys_are_refused():
    with pytest.raises(KeyError, match="OPTIM.LEARNING_RATE"):
        get_cfg_default().merge_from_other_cfg(CfgNode({"OPTIM": {"LEARNING_RATE": 1}}))


def test_trees_are_independent():
    first = get_cfg_default()
    first.OPTIM.LR = 7.0
    first.INPUT.PIXEL_MEAN.append(1)
    first.DATALOADER.TRAIN_X.BATCH_SIZE = 1
    second = get_cfg_default()
    assert second.OPTIM.LR == 3e-4 and len(second.INPUT.PIXEL_MEAN) == 3
    assert second.DATALOADER.TRAIN_X.BATCH_SIZE == first.DATALOADER.TRAIN_U.BATCH_SIZE == 32
