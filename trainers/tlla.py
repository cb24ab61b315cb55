"""TLLA: SAPT's training, STSS at test time (arXiv 2501.18864, section 4, eq. 5-8). No backprop, no parameter update.

With ``--eval-only --model-dir <run>`` the prompt may come from any run that learned one of the same shape: a SAPT run
gives TLLA, a CoOp run the paper's ablation "STSS+CoOp". For STSS on any other prompt there is the trainer STSS.
"""

from yacs.config import CfgNode

from tlla.errors import within
from tlla.methods import METHODS
from tlla.prompts.classifier import Classifier, PromptClassifier

from .base import registered
from .harness.view_data import add_view_keys, view_config
from .sapt import SAPT
from .testtime import ViewTest, add_method_keys, build_method


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.TLLA: STSS's settings and the views."""
    cfg.TRAINER.TLLA = CfgNode()
    add_method_keys(cfg.TRAINER.TLLA, METHODS["STSS"])
    add_view_keys(cfg.TRAINER.TLLA)


@registered
class TLLA(ViewTest, SAPT):
    """Trains as SAPT does; scores all views of a test image by entropy plus sharpness, and the lowest ones vote."""

    training = "SAPT"
    views_name = "TLLA"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses settings of STSS that cannot work, before anything is loaded."""
        super().check_cfg(cfg)
        node = cfg.TRAINER[self.views_name]
        with within(f"TRAINER.{self.views_name}"):
            self.view_config = view_config(cfg, node)
        self.methods = {"STSS": build_method(cfg, "STSS", self.views_name, node.N_VIEWS)}

    def classifiers(self) -> dict[str, Classifier]:
        """The prompt as it is trained."""
        return {"": PromptClassifier(self.model, self.autocast, self.loss_scale)}
