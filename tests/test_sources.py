"""What all source files keep to: names that say one thing, the layout's imports, one reader, one encoding, texts."""

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmark import REPO

# The same step of several programs, commands, benchmarks or trainers.
STEPS = "main run parse_args add_arguments add_config add_configs measure draw markdown to_csv cost".split()
FILES = ("__init__.py", "__main__.py", "base.py", "registry.py", "flags.py")
FOLDERS = ("tlla", "trainers", "datasets", "report", "sweeps", "scripts", "benchmarks")
OTHERS = {"trainers", "report", "sweeps", "train", "scripts"}
FORBIDDEN = {
    "tlla": {"dassl", "yacs", "datasets"} | OTHERS,
    "trainers": {"datasets"} | OTHERS,  # of its own folder: relative imports
    "datasets": {"datasets"} | OTHERS,
    "toolkit/dassl": {"tlla", "trainers", "datasets", "train", "scripts"},
}


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All definitions, imports, calls and attributes of a file."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Call, ast.Attribute)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def sources(*folders: str) -> list[Path]:
    """The files of some folders; without, all that has no tests."""
    inside = sorted(path for folder in folders or FOLDERS for path in (REPO / folder).rglob("*.py"))
    return inside if folders else [*REPO.glob("*.py"), *inside]


def repeated(pairs) -> dict[str, set[str]]:
    places = defaultdict(set)
    for name, path in pairs:
        places[name].add(str(path.relative_to(REPO)))
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_two_public_classes_or_functions_share_a_name():
    found = [
        (node, path) for path in sources() for node in nodes(path) if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    named = ((node.name, path) for node, path in found if not node.col_offset)
    assert not repeated((n, path) for n, path in named if not n.startswith("_") and n not in STEPS)


def test_no_two_files_share_a_name():
    assert not repeated((path.name, path) for path in sources() if path.name not in FILES)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_follow_the_layout(folder):
    """The mathematics stays usable without Dassl, the toolkit without the rest."""
    for path in sources(folder):
        for node in nodes(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not FORBIDDEN[folder] & {name.split(".")[0] for name in names}, path


def test_nothing_else_opens_image_files():
    """A new entry point has to take the one reader; a corruption opens what it has itself written to memory."""
    allowed = {REPO / "tlla/views/read_image.py", REPO / "tlla/corruptions/fifteen.py"}
    for path in sources("tlla", "trainers", "datasets", "report", "sweeps"):
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and node.attr == "open" and getattr(node.value, "id", "") == "Image":
                assert path in allowed, path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dassl"):
                assert "read_image" not in {alias.name for alias in node.names}, path


def calls(*names: str) -> Iterator[tuple[Path, ast.Call, set[str]]]:
    """Files, calls of functions and methods of some names, and the calls' keywords."""
    for path in (*sources(), *sources("toolkit/dassl")):
        for node in nodes(path):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in names:
                yield path, node, {keyword.arg for keyword in node.keywords}


def test_every_loader_passes_where_batches_are_fitted():
    """So that a new one meets no full /dev/shm, and does not end with tracebacks at Ctrl-C."""
    made = {path for path, *_ in calls("DataLoader")}
    assert len(made) >= 3
    assert not [str(path) for path in made if "fit_workers(" not in path.read_text(encoding="utf-8")]


def test_texts_are_read_and_written_in_one_encoding_on_every_system():
    """Not in the system's own, which cannot hold every class name."""
    wrong = []
    for path, call, keywords in calls("open", "read_text", "write_text", "run", "Popen"):
        name, method = ast.unparse(call.func), isinstance(call.func, ast.Attribute)
        modes = [word.value if isinstance(word, ast.Constant) else "b" for word in call.args[1 - method :][:1]]
        text = method if name.endswith("_text") else "text" in keywords
        if name.endswith("open") and name not in ("Image.open", "tarfile.open", "os.open", "self.open"):
            text = "b" not in "".join(modes)
        if text and "encoding" not in keywords:
            wrong.append(f"{path.relative_to(REPO)}:{call.lineno} {ast.unparse(call)}")
    assert not wrong, "\n".join(wrong)


def test_no_table_takes_texts_for_numbers():
    """tabulate shows the text 007 as 7 unless it is told that a column is text."""
    found = [(path.name, "disable_numparse" in keywords) for path, _, keywords in calls("tabulate")]
    assert len(found) > 8 and not [name for name, told in found if not told]
