"""Learning rates and optimizer steps against values that Dassl 0.6.3 gave with torch 2.4.1."""

import json
from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer

DATA = Path(__file__).parent / "data"


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    for key, value in options.items():
        cfg[key] = tuple(value) if isinstance(value, list) else value
    return cfg


def two_groups():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    return [{"params": [first]}, {"params": [second], "lr": 0.05}]


def build(cfg, groups):
    optim = build_optimizer(groups, cfg)
    return optim, build_lr_scheduler(optim, cfg)


@pytest.mark.parametrize("row", json.loads((DATA / "schedules.json").read_text()), ids=lambda row: row["optim"]["NAME"])
def test_schedule(row):
    optim, sched = build(optim_cfg(**row["optim"]), two_groups()[: len(row["lr"][0])])
    for expected in row["lr"]:
        assert [group["lr"] for group in optim.param_groups] == pytest.approx(expected, rel=1e-12, abs=1e-18)
        assert sched.get_last_lr() == [group["lr"] for group in optim.param_groups]
        sched.step()


def test_schedule_state_is_numbers_and_goes_on():
    cfg = optim_cfg(LR_SCHEDULER="cosine", WARMUP_EPOCH=2, MAX_EPOCH=9)
    optim, sched = build(cfg, two_groups())
    for _ in range(4):
        sched.step()
    state = json.loads(json.dumps(sched.state_dict()))
    other_optim, other = build(cfg, two_groups())
    other.load_state_dict(state)
    assert [g["lr"] for g in other_optim.param_groups] == [g["lr"] for g in optim.param_groups]
    sched.step(), other.step()
    assert other.get_last_lr() == sched.get_last_lr()
    with pytest.raises(ValueError, match="expected the keys"):
        other.load_state_dict({"successor": 1})
    with pytest.raises(ValueError, match="expected 2 base rates"):
        other.load_state_dict({"last_epoch": 1, "base_lrs": [0.1]})


@pytest.mark.parametrize("row", json.loads((DATA / "optimizers.json").read_text()), ids=lambda row: row["name"])
def test_optimizer_steps(row):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optim = build_optimizer([weight], optim_cfg(NAME=row["name"], LR=0.05, WEIGHT_DECAY=0.01))
    for step, expected in enumerate(row["weights"]):
        optim.zero_grad()
        (weight.pow(2).sum() * (1 + step % 3) + weight.prod()).backward()
        optim.step()
        assert weight.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"NAME": "sgdd"}, "OPTIM.NAME must be one of"),
        ({"STAGED_LR": True}, "OPTIM.STAGED_LR must be False, but got True: all layers learn at OPTIM.LR here"),
        ({"LR_SCHEDULER": "cos"}, "OPTIM.LR_SCHEDULER must be one of"),
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "exp"}, "OPTIM.WARMUP_TYPE must be one of"),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": 3}, "OPTIM.STEPSIZE must be a list"),
        ({"STEPSIZE": 2.5}, "OPTIM.STEPSIZE must be an integer"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build(optim_cfg(**options), two_groups())
