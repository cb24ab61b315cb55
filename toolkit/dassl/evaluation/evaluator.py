"""Accuracy, macro F1, per-class accuracy and the confusion matrix of a classifier."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.utils import mkdir_if_missing

from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """What a trainer calls: reset() once, process() for each batch, evaluate() at the end."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    def reset(self) -> None:
        """Forgets all batches."""
        raise NotImplementedError

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Takes a batch's model output and ground truth."""
        raise NotImplementedError

    def evaluate(self) -> "OrderedDict[str, float]":
        """Prints and returns the results; the first value is the one that models are selected by."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Evaluates class scores.

    Attributes:
        total: Images since reset().
        correct: Those of them whose highest score is at their label.
    """

    def __init__(self, cfg: CfgNode, lab2cname: Mapping[int, str] | None = None, **kwargs: Any):
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.total = self.correct = 0
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Takes a batch.

        Args:
            mo: Scores, of shape (B, K).
            gt: Labels, integers of shape (B,).

        Raises:
            ValueError: The shapes are not those.
        """
        if mo.dim() != 2 or gt.shape != mo.shape[:1]:
            raise ValueError(f"expected scores (B, K) and labels (B,), but got {tuple(mo.shape)} and {tuple(gt.shape)}")
        pred = mo.max(1)[1]
        self.correct += int(pred.eq(gt).sum())
        self.total += len(gt)
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(pred.tolist())

    def evaluate(self) -> "OrderedDict[str, float]":
        """Prints and returns accuracy, error rate and macro F1 in %, and what TEST asks for besides."""
        accuracy = 100.0 * self.correct / max(self.total, 1)
        true, pred = np.array(self._y_true, dtype=int), np.array(self._y_pred, dtype=int)
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=100.0 * macro_f1(true, pred))
        print(
            "=> result\n"
            f"* total: {self.total:,}\n"
            f"* correct: {self.correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class(true, pred)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix(true, pred)
        return results

    def _print_per_class(self, true: np.ndarray, pred: np.ndarray) -> float:
        """Prints each class's accuracy; returns their mean."""
        print("=> per-class result")
        accuracies = []
        for label in np.unique(true).tolist():
            total, correct = int((true == label).sum()), int((pred[true == label] == label).sum())
            accuracies.append(100.0 * correct / total)
            name = self._lab2cname.get(label, label)
            print(
                f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {correct:,}\tacc: {accuracies[-1]:.1f}%",
            )
        mean = float(np.mean(accuracies)) if accuracies else 0.0
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion_matrix(self, true: np.ndarray, pred: np.ndarray) -> None:
        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        torch.save(torch.from_numpy(confusion_matrix(true, pred)), path)
        print(f"Confusion matrix is saved to {path}")


def macro_f1(true: np.ndarray, pred: np.ndarray) -> float:
    """The mean of F1 = 2 TP / (2 TP + FP + FN) over the classes in ``true``, in [0, 1]; 0 without samples."""
    scores = []
    for label in np.unique(true):
        hits = ((true == label) & (pred == label)).sum()
        scores.append(2 * hits / ((true == label).sum() + (pred == label).sum()))
    return float(np.mean(scores)) if scores else 0.0


def confusion_matrix(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Shares of the predicted classes (columns) for each true class (rows), float64 of shape (C, C).

    C counts the labels in ``true`` or ``pred``, in ascending order; the row of a label without images is 0.
    """
    labels, index = np.unique(np.concatenate([true, pred]), return_inverse=True)
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, (index.ravel()[: len(true)], index.ravel()[len(true) :]), 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)
