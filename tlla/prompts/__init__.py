"""Prompts: learned around class names or hand-written, saved and loaded, and the class features that they give."""

from .choose import check_class_names, make_classifier
from .learner import PromptLearner
from .prompted import PromptedCLIP
from .saved import Prompt

__all__ = ["Prompt", "PromptLearner", "PromptedCLIP", "check_class_names", "make_classifier"]
