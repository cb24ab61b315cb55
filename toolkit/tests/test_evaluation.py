"""What the evaluator prints and returns, against scikit-learn."""

import numpy as np
import pytest
import torch

from dassl.config import get_cfg_default
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy


def evaluator(tmp_path, **test):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR, cfg.VERBOSE = str(tmp_path / "out"), False
    for key, value in test.items():
        cfg.TEST[key] = value
    return build_evaluator(cfg, lab2cname={0: "cat", 1: "dog", 2: "owl"})


def scores(labels, num_classes=3):
    return torch.nn.functional.one_hot(torch.tensor(labels), num_classes).float()


def test_lines_and_results(tmp_path, capsys):
    judge = evaluator(tmp_path)
    for _ in range(500):
        judge.process(scores([0, 1]), torch.tensor([0, 0]))
    results = judge.evaluate()
    assert capsys.readouterr().out == (
        "=> result\n* total: 1,000\n* correct: 500\n* accuracy: 50.0%\n* error: 50.0%\n* macro_f1: 66.7%\n"
    )
    assert list(results) == ["accuracy", "error_rate", "macro_f1"] and results["accuracy"] == 50.0
    assert (judge.total, judge.correct) == (1000, 500)
    assert all(type(value) is float for value in results.values())


def test_against_scikit_learn(tmp_path, capsys):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 4, 60), rng.integers(0, 6, 60)
    judge = evaluator(tmp_path, COMPUTE_CMAT=True, PER_CLASS_RESULT=True)
    judge._lab2cname = dict(enumerate("abcdef"))
    judge.process(scores(pred.tolist(), 6), torch.from_numpy(true))
    results = judge.evaluate()
    expected = 100 * metrics.f1_score(true, pred, average="macro", labels=np.unique(true))
    assert results["macro_f1"] == pytest.approx(expected)
    assert results["perclass_accuracy"] == pytest.approx(100 * metrics.balanced_accuracy_score(true, pred))
    cmat = torch.load(tmp_path / "out/cmat.pt", weights_only=True)
    assert np.allclose(cmat.numpy()[:4], metrics.confusion_matrix(true, pred, normalize="true", labels=range(6))[:4])
    assert cmat.shape == (6, 6) and cmat[4:].isnan().all()  # classes without images
    assert "Confusion matrix is saved to" in capsys.readouterr().out


def test_per_class_lines(tmp_path, capsys):
    judge = evaluator(tmp_path, PER_CLASS_RESULT=True)
    judge.process(scores([0, 2, 2]), torch.tensor([0, 0, 2]))
    assert judge.evaluate()["perclass_accuracy"] == 75.0
    out = capsys.readouterr().out
    assert "=> per-class result\n* class: 0 (cat)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n" in out
    assert out.endswith("* average: 75.0%\n") and "* class: 1 (dog)\ttotal: 0\tcorrect: 0\tacc: -\n" in out


def test_a_confusion_matrix_has_all_classes_also_those_without_images(tmp_path):
    judge = evaluator(tmp_path, COMPUTE_CMAT=True)
    judge.process(scores([2, 2]), torch.tensor([0, 2]))
    judge.evaluate()
    found = torch.load(tmp_path / "out/cmat.pt", weights_only=True)
    nan = float("nan")
    expected = torch.tensor([[0, 0, 1], [nan, nan, nan], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))


def test_without_images_and_after_reset(tmp_path):
    judge = evaluator(tmp_path, PER_CLASS_RESULT=True, COMPUTE_CMAT=True)
    judge.process(scores([0]), torch.tensor([0]))
    judge.reset()
    results = judge.evaluate()
    assert judge.total == 0 and all(np.isnan(value) for value in results.values())  # 0 of 0 is not 0 %


def test_shapes_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"but got \(2, 3\) and \(3,\)"):
        evaluator(tmp_path).process(scores([0, 1]), torch.tensor([0, 1, 2]))


def test_compute_accuracy():
    output = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    top1, top2 = compute_accuracy((output, None), torch.tensor([1, 2, 0, 0]), topk=(1, 2))
    assert top1.shape == (1,) and (top1.item(), top2.item()) == (50.0, 75.0)
    with pytest.raises(ValueError, match="topk must lie in 1 ... 3"):
        compute_accuracy(output, torch.zeros(4), topk=(1, 5))
