"""A name says one thing: no two public classes, functions or files of the repository share theirs."""

import ast
from collections import defaultdict

from benchmark import REPO

# The same step of several programs, commands, benchmarks or trainers.
STEPS = "main run parse_args add_arguments add_config add_configs measure draw markdown to_csv cost".split()
FILES = ("__init__.py", "__main__.py", "base.py", "registry.py", "flags.py")
FOLDERS = ("tlla", "trainers", "datasets", "report", "sweeps", "scripts", "benchmarks")


def sources():
    return [*REPO.glob("*.py"), *(path for folder in FOLDERS for path in (REPO / folder).rglob("*.py"))]


def repeated(pairs) -> dict[str, set[str]]:
    places = defaultdict(set)
    for name, path in pairs:
        places[name].add(str(path.relative_to(REPO)))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_public_classes_or_functions_share_a_name():
    nodes = [(node, path) for path in sources() for node in ast.parse(path.read_text(encoding="utf-8")).body]
    named = ((node.name, path) for node, path in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef)))
    assert not repeated((n, path) for n, path in named if not n.startswith("_") and n not in STEPS)


def test_no_two_files_share_a_name():
    assert not repeated((path.name, path) for path in sources() if path.name not in FILES)
