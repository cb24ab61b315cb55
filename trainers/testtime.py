"""One trainer for each test-time method of `tlla.methods`.

The trainers are made from the methods' dataclasses: TPT's fields are the keys of TRAINER.TPT. All of them share
TRAINER.VIEWS (which views) and TRAINER.PROMPT (which prompt, unless --model-dir names a run that learned one).
"""

from typing import Any

from yacs.config import CfgNode

from tlla.methods import METHODS
from tlla.prompts.choose import PromptLike, make_classifier
from tlla.prompts.classifier import Classifier
from tlla.prompts.learner import check_position
from tlla.prompts.saved import Prompt

from .base import ClipTrainer, registered
from .config.choose_protocol import describe_protocol
from .harness.describe_run import describe_source
from .harness.view_data import add_view_keys
from .harness.view_test import ViewTest, add_method_keys
from .prompt_source import find_templates, said_of_prompt, said_of_template


class TestTimeTrainer(ClipTrainer):
    """A test-time method on any prompt. The registered trainers are its subclasses, one for each method."""

    __test__ = False  # for pytest, which takes the name for a test's
    config_node = "PROMPT"
    views_name = "VIEWS"
    kind = "views"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses a place of the class name that does not exist."""
        super().check_cfg(cfg)
        check_position(cfg.TRAINER.PROMPT.CLASS_TOKEN_POSITION)

    def make_tester(self, cfg: CfgNode) -> ViewTest:
        """The method that the trainer is named after."""
        name = type(self).__name__
        return ViewTest(self, cfg, self.views_name, {name: name.upper()}, self.classifiers)

    def build_model(self) -> None:
        """Nothing is built before it is known which prompt is wanted."""
        self.classifier: Classifier | None = None

    def of_template(self, name: str) -> Classifier:
        """Of a template, an ensemble's name, a .json of class descriptions, or (empty) the dataset's own template."""
        return self._classify_by(find_templates(name, self.dm.dataset))

    def of_run(self, directory: str, epoch: int | None = None) -> tuple[Classifier, dict[str, Any]]:
        """Of a run that learned a prompt (CoOp, CoCoOp, SAPT, TLLA), and where it came from, for the record."""
        prompt = Prompt.load(directory, epoch, self.cfg.TEST.FINAL_MODEL == "best_val")
        classifier = self._classify_by(prompt.or_at(self.cfg.TRAINER.PROMPT.CLASS_TOKEN_POSITION))
        print(f"Loaded the prompt of epoch {prompt.epochs} from {prompt.path}")
        return classifier, describe_source(prompt.path, prompt.epochs, prompt.trained_by)

    def _classify_by(self, prompt: PromptLike) -> Classifier:
        names, scale = self.dm.dataset.classnames, self.tester.loss_scale
        return make_classifier(self.clip_model, names, prompt, self.autocast, scale, self.on_shared)

    def describe_method(self) -> dict[str, Any]:
        """Also the template, which counts unless a learned prompt is loaded, and the protocol."""
        template = self.template_name(self.cfg.TRAINER.PROMPT.TEMPLATE)
        return super().describe_method() | {"template": template, "protocol": describe_protocol(self.cfg)}

    def template_name(self, name: str) -> str:
        """A template as a row of the tables has it; "": each dataset's own."""
        return said_of_template(name) or self.cfg.DATASET.get("TEMPLATE", "")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Takes the prompt of a run; without a directory the template of TRAINER.PROMPT stays."""
        if directory:
            self.classifier, source = self.of_run(directory, epoch)
            self.record.update(loaded_from=source | said_of_prompt(self.cfg))

    def classifiers(self) -> dict[str, Classifier]:
        """The one prompt."""
        if self.classifier:
            return {"checkpoint": self.classifier}
        return {"template": self.of_template(self.cfg.TRAINER.PROMPT.TEMPLATE)}


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.VIEWS, TRAINER.PROMPT, and a node for each method."""
    cfg.TRAINER.VIEWS = CfgNode()
    add_view_keys(cfg.TRAINER.VIEWS)
    cfg.TRAINER.VIEWS.PROTOCOL = "common"  # authors: views, template, settings as the method's authors had them
    cfg.TRAINER.PROMPT = CfgNode()
    cfg.TRAINER.PROMPT.TEMPLATE = ""  # "": the dataset's own; or a template, imagenet7, imagenet80, a .json file
    cfg.TRAINER.PROMPT.CLASS_TOKEN_POSITION = "end"  # of a learned prompt: end, middle or front
    cfg.TRAINER.PROMPT.NAME = ""  # what tables call a prompt of --model-dir that no run here has trained, e.g. CoOp
    cfg.TRAINER.PROMPT.SOURCE = ""  # the dataset that it was trained on, e.g. ImageNet
    cfg.TRAINER.PROMPT.PREC = "auto"  # auto (amp on a GPU), fp32, fp16, bf16, amp; backprop scales its loss in fp16
    for name, method in METHODS.items():
        cfg.TRAINER[name.upper()] = CfgNode()
        add_method_keys(cfg.TRAINER[name.upper()], method)


TRAINERS = {
    name: registered(type(name, (TestTimeTrainer,), {"__doc__": method.__doc__, "__module__": __name__}))
    for name, method in METHODS.items()
}
