"""What the registered trainers say of themselves, so that a new one needs an entry in no list."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY

import trainers
from tlla.errors import InputError, nearest
from tlla.methods import METHODS, settings
from trainers.base import ClipTrainer
from trainers.harness.view_test import under_rules
from trainers.prompt_trainer import PromptTrainer


def trainer_class(name: str) -> type[ClipTrainer]:
    """The class that is registered under a name. InputError names the nearest."""
    known = TRAINER_REGISTRY.registered_names()
    if name not in known:
        hint = nearest(name, list(known))
        raise InputError(f"there is no trainer {name!r} (--trainer, or TRAINER of the environment): {hint}")
    return TRAINER_REGISTRY.get(name)


def trains(name: str) -> bool:
    """Whether there is something to train."""
    return bool(getattr(trainer_class(name), "learned", True))


def learns_prompt(name: str) -> bool:
    """Whether it learns a prompt, which other trainers can test."""
    return getattr(trainer_class(name), "learned", "") == PromptTrainer.learned


def tests_prompts(name: str) -> bool:
    """Whether it can test a prompt that another trainer has learned."""
    return learns_prompt(name) or is_test_time_method(name)


def is_test_time_method(name: str) -> bool:
    """Whether it trains nothing, and tests any prompt on views."""
    return trainer_class(name).kind == "views" and not trains(name)


def prompt_learners() -> list[str]:
    """Names of the trainers that learn prompts."""
    return [name for name in TRAINER_REGISTRY.registered_names() if learns_prompt(name)]


def node(name: str) -> str:
    """The trainer's own config node, e.g. TRAINER.SAPT."""
    return f"TRAINER.{trainer_class(name).config_node}"


def views_node(name: str) -> str:
    """The config node of the views that it tests on; "" if it looks at none."""
    views = getattr(trainer_class(name), "views_name", "")
    return f"TRAINER.{views}" if views else ""


def rho_key(name: str) -> str:
    """The key of the radius that it trains with; "" if it has none."""
    cls = trainer_class(name)
    return f"{node(name)}.RHO" if trains(name) and _has_rho(cls) else ""


@functools.cache
def _has_rho(cls: type[ClipTrainer]) -> bool:
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    return cfg.TRAINER.get(cls.config_node, {}).get("RHO", 0.0) > 0  # CoCoOp's is 0, and stays


def learner_of(name: str) -> str:
    """Whose prompts a trainer tests by default: of TLLA, as of all methods at test time, SAPT; of others its own."""
    return (trainer_class(name).training or name) if learns_prompt(name) else "SAPT"


def compared(config: Mapping[str, Any]) -> Sequence[str]:
    """What Compare tests under a config: its methods, each under the rules."""
    nodes = config["TRAINER"]
    built = [
        METHODS[name](**{field: nodes[name.upper()][key] for key, (field, _) in settings(METHODS[name]).items()})
        for name in nodes["COMPARE"]["METHODS"] or METHODS
    ]
    return [method.title for one in built for method in under_rules(one, nodes["COMPARE"]["RULES"])]


def idle_nodes(*configs: Mapping[str, Any]) -> list[str]:
    """Config nodes of the methods that not all of some runs of Compare test, in which the runs may differ."""
    named = [config.get("TRAINER", {}).get("COMPARE", {}).get("METHODS") or METHODS for config in configs]
    return [f"TRAINER.{name.upper()}" for name in METHODS if not all(name in names for names in named)]


def config_folders(name: str) -> list[str]:
    """Where its configs are, in configs/trainers; all methods at test time can take Compare's."""
    return list(dict.fromkeys((name, "Compare"))) if is_test_time_method(name) else [name]
