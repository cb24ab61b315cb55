"""TLLA: SAPT's training, STSS at test time (arXiv 2501.18864, section 4, eq. 5-8). No backprop, no parameter update.

With ``--eval-only --model-dir <run>`` the prompt may come from any run that learned one of the same shape: a SAPT run
gives TLLA, a CoOp run the paper's ablation "STSS+CoOp". For STSS on any other prompt there is the trainer STSS.
The authors' code is not public.
"""

from yacs.config import CfgNode

from tlla.methods import METHODS
from tlla.prompts.classifier import Classifier, PromptClassifier

from .base import registered
from .harness.view_data import add_view_keys
from .harness.view_test import ViewTest, add_method_keys
from .prompt_trainer import PromptTrainer


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.TLLA: STSS's settings and the views."""
    cfg.TRAINER.TLLA = CfgNode()
    add_method_keys(cfg.TRAINER.TLLA, METHODS["STSS"])
    add_view_keys(cfg.TRAINER.TLLA)


@registered
class TLLA(PromptTrainer):
    """Trains as SAPT does; scores all views of a test image by entropy plus sharpness, and the lowest ones vote."""

    config_node = "SAPT"
    training = "SAPT"
    views_name = "TLLA"
    kind = "views"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also says which keys are set where they are not read."""
        super().check_cfg(cfg)
        default, own = CfgNode({"TRAINER": CfgNode()}), cfg.TRAINER.TLLA
        add_config(default)
        for name in ("VIEWS", "STSS"):
            other = cfg.TRAINER[name]
            for key in (k for k, value in default.TRAINER.TLLA.items() if other.get(k, own[k]) not in (own[k], value)):
                print(f"Note: {type(self).__name__} does not read TRAINER.{name}.{key}, but TRAINER.TLLA.{key}")

    def make_tester(self, cfg: CfgNode) -> ViewTest:
        """STSS, whose settings are in TRAINER.TLLA."""
        return ViewTest(self, cfg, self.views_name, {"STSS": self.views_name}, self.classifiers)

    def classifiers(self) -> dict[str, Classifier]:
        """The prompt as it is trained."""
        return {"": PromptClassifier(self.model, self.autocast, self.tester.loss_scale)}
