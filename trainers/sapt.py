"""SAPT: sharpness-aware prompt tuning (arXiv 2501.18864, eq. 2-4). CoOp whose prompt sits in a flat minimum.

The authors' code is not public. Based on KaiyangZhou/CoOp@ff61507, trainers/coop.py; coop.py names the differences.
"""

from yacs.config import CfgNode

from tlla.variants import SAM

from .base import registered
from .prompt_trainer import PromptTrainer, prompt_config


def sharpness_config() -> CfgNode:
    """The paper's prompt (4 tokens) and objective."""
    node = prompt_config(n_ctx=4)
    node.RHO = 0.05  # radius of the perturbation; the paper searches 0.05, 0.1, 0.3, 0.5, 0.7 on validation data
    node.LAMBDA = 1.0  # weight of the sharpness; 0 is CoOp, 1 is SAM
    node.VARIANT = SAM.name  # sam, asam, fsam, gsam, looksam, msam, random; with settings: "gsam(alpha=0.2)"
    return node


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.SAPT."""
    cfg.TRAINER.SAPT = sharpness_config()


@registered
class SAPT(PromptTrainer):
    """Cross entropy plus lambda times its rise under the worst perturbation of norm rho."""

    config_node = "SAPT"
