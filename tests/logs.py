"""Logs as CoOp, CoCoOp and MaPLe write them, by the formats in their source (train.py, Dassl)."""

from pathlib import Path


def head(seed: int, trainer: str, eval_only: bool = False) -> str:
    """Arguments, config and system info, shortened."""
    return f"""***************
** Arguments **
***************
config_file: configs/trainers/{trainer}/vit_b16_ep50.yaml
eval_only: {eval_only}
output_dir: output/seed{seed}
seed: {seed}
trainer: {trainer}
************
** Config **
************
DATASET:
  NAME: Caltech101
OUTPUT_DIR: output/seed{seed}
SEED: {seed}
Collecting env info ...
** System info **
PyTorch version: 1.10.0

Loading trainer: {trainer}
epoch [1/50] batch [5/50] time 0.111 (0.407) data 0.000 (0.221) loss 1.2803 (1.4520) lr 1.0000e-05
"""


def result(accuracy: float, digits: int = 1, per_class: float | None = None) -> str:
    """What Dassl's evaluator prints; older versions gave two digits."""
    text = f"=> result\n* total: 2,465\n* correct: {24.65 * accuracy:,.0f}\n* accuracy: {accuracy:.{digits}f}%\n"
    text += f"* error: {100 - accuracy:.{digits}f}%\n* macro_f1: {accuracy - 3.3:.{digits}f}%\n"
    if per_class is not None:
        text += "=> per-class result\n* class: 0 (face)\ttotal: 130\tcorrect: 129\tacc: 99.2%\n"
        text += f"* average: {per_class:.{digits}f}%\n"
    return text


def train_log(seed: int, accuracy: float, trainer: str = "CoOp", end: str = "Finish training", **more) -> str:
    """Training, with a test on val before its end, then the test."""
    middle = f"Do evaluation on the *val* set\n{result(12.3)}{end}\nDeploy the last-epoch model\n"
    return head(seed, trainer) + middle + f"Evaluate on the *test* set\n{result(accuracy, **more)}Elapsed: 0:07:21\n"


def test_log(seed: int, accuracy: float, trainer: str = "CoOp", **more) -> str:
    """A run with --eval-only."""
    loading = 'Loading weights to prompt_learner from "model.pth.tar-50" (epoch = 50)\nEvaluate on the *test* set\n'
    return head(seed, trainer, eval_only=True) + loading + result(accuracy, **more)


def write_logs(folder: Path, logs: dict[str, str]) -> Path:
    """folder/<name>/log.txt of each."""
    for name, text in logs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "log.txt").write_text(text)
    return folder


def make_samples(root: Path) -> None:
    """The folders that CoOp's script was run on, for the output in data/coop_parse_output.json."""
    write_logs(root / "coop", {f"seed{s}": train_log(s, a) for s, a in zip((1, 2, 3), (93.7, 93.2, 94.4), strict=True)})
    old = {f"seed{s}": train_log(s, a, digits=2) for s, a in zip((1, 2, 3), (71.51, 71.03, 70.88), strict=True)}
    write_logs(root / "old_dassl", old)
    tests = {f"seed{s}": test_log(s, a, per_class=a - 1.1) for s, a in zip((1, 2, 3), (49.7, 50.6, 48.2), strict=True)}
    write_logs(root / "test", tests)
    for shots, accuracies in ((1, (87.4, 88.0, 86.9)), (16, (94.4, 93.9, 94.1))):
        maple = {f"seed{s}": train_log(s, a, "MaPLe") for s, a in zip((1, 2, 3), accuracies, strict=True)}
        write_logs(root / "maple" / f"shots_{shots}", maple)
    crashed = {"seed1": train_log(1, 80.1), "seed2": head(2, "CoOp"), "seed3": train_log(3, 81.9)}
    write_logs(root / "crashed", crashed)
