"""Who may import whom: the mathematics stays usable without Dassl, the toolkit without the rest."""

import ast
from pathlib import Path

import pytest
from benchmark import REPO

FORBIDDEN = {
    "tlla": {"dassl", "yacs", "trainers", "datasets", "report", "sweeps", "train", "scripts"},
    "trainers": {"datasets", "trainers", "report", "sweeps", "train", "scripts"},  # of its own folder: relative imports
    "datasets": {"datasets", "trainers", "report", "sweeps", "train", "scripts"},
    "toolkit/dassl": {"tlla", "trainers", "datasets", "train", "scripts"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports absolutely."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_follow_the_layout(folder):
    files = sorted((REPO / folder).rglob("*.py"))
    assert files
    wrong = {p.relative_to(REPO).as_posix(): bad for p in files if (bad := imported(p) & FORBIDDEN[folder])}
    assert not wrong
