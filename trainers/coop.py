"""CoOp: context optimization (Zhou et al., "Learning to Prompt for Vision-Language Models", arXiv 2109.01134).

Same logits and updates as KaiyangZhou/CoOp@ff61507, trainers/coop.py. Differences: the context is fp32 for every PREC,
the text is cut at the longest EOS, image features are computed without a graph, and checkpoints load strictly. With
CTX_INIT, upstream ignores CSC and uses as many tokens as there are words; here CSC holds, and all tokens of the words
are used.
"""

from yacs.config import CfgNode

from .base import registered
from .prompt_trainer import PromptTrainer, prompt_config


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.COOP with CoOp's defaults, but for PREC: CoOp and SAPT train in the same precision."""
    if "COOP" not in cfg.TRAINER:  # a CoOp fork has its own
        cfg.TRAINER.COOP = prompt_config(n_ctx=16)


@registered
class CoOp(PromptTrainer):
    """Plain cross entropy on the context vectors."""

    config_node = "COOP"
