"""Accuracy, macro F1, per-class accuracy and the confusion matrix of a classifier."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
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
        """Prints and returns accuracy, error rate and macro F1 in %, and what TEST asks for; all NaN without images."""
        accuracy = 100.0 * self.correct / self.total if self.total else float("nan")
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
        """Prints each class's accuracy; returns the mean over the classes that have images, NaN if none has."""
        print("=> per-class result")
        accuracies = []
        for label in self._labels(true):
            total, correct = int((true == label).sum()), int((pred[true == label] == label).sum())
            if total:
                accuracies.append(100.0 * correct / total)
            share = f"{accuracies[-1]:.1f}%" if total else "-"
            name = self._lab2cname.get(label, label)
            print(f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {correct:,}\tacc: {share}")
        mean = float(np.mean(accuracies)) if accuracies else float("nan")
        print(f"* average: {mean:.1f}%")
        return mean

    def _labels(self, *seen: np.ndarray) -> list[int]:
        """The labels of all classes, with or without images, ascending."""
        return sorted({*self._lab2cname, *np.concatenate(seen).tolist()})

    def _save_confusion_matrix(self, true: np.ndarray, pred: np.ndarray) -> None:
        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        torch.save(torch.from_numpy(confusion_matrix(true, pred, self._labels(true, pred))), path)
        print(f"Confusion matrix is saved to {path}")


def macro_f1(true: np.ndarray, pred: np.ndarray) -> float:
    """The mean of F1 = 2 TP / (2 TP + FP + FN) over the classes in ``true``, in [0, 1]; NaN without samples.

    As Dassl computes it. scikit-learn's default and torchmetrics also count classes that are only in ``pred``, with 0.
    """
    scores = []
    for label in np.unique(true):
        hits = ((true == label) & (pred == label)).sum()
        scores.append(2 * hits / ((true == label).sum() + (pred == label).sum()))
    return float(np.mean(scores)) if scores else float("nan")


def confusion_matrix(true: np.ndarray, pred: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Shares of the predicted classes (columns) for each true class (rows), float64 of shape (K, K).

    Args:
        true: Labels, (N,).
        pred: Predicted labels, (N,).
        labels: The K labels of rows and columns, ascending. The row of one without images is NaN.
    """
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, (np.searchsorted(labels, true), np.searchsorted(labels, pred)), 1)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)
