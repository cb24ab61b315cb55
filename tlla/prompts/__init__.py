"""Prompts, learned or hand-written: saving, loading, and class features."""

from .choose import check_class_names, make_classifier
from .learner import PromptLearner
from .prompted import PromptedCLIP
from .saved import Prompt

__all__ = ["Prompt", "PromptLearner", "PromptedCLIP", "check_class_names", "make_classifier"]
