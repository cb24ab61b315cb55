"""Examples in the docstrings of tlla/: doctest runs them, and every public function has one."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tlla
from tlla.backbones.weights import assets_dir

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [found.name for found in pkgutil.walk_packages(tlla.__path__, "tlla.") if not found.name.endswith("__main__")]


@pytest.fixture(scope="module")
def given():
    """The names that all examples may use."""
    image = tlla.read_image(min((assets_dir() / "emoji" / "noto" / "test" / "fruit").iterdir()))
    model = tlla.load_clip("EmojiCLIP")
    return {"torch": torch, "np": np, "Path": Path, "tlla": tlla, "model": model, "image": image}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_examples_print_what_they_say(name, given, tmp_path, monkeypatch):
    if "openclip_" in name:
        pytest.importorskip("open_clip")
    module = importlib.import_module(name)
    functions = {key: value for key, value in vars(module).items() if _is_own_function(value, name)}
    bare = [key for key, value in functions.items() if not key.startswith("_") and ">>>" not in (value.__doc__ or "")]
    assert not bare, f"public functions of {name} without an example (>>>) in the docstring: {bare}"
    monkeypatch.chdir(tmp_path)
    given["image"].save("fruit.png")
    parser, runner, printed = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=FLAGS), []
    for key, value in functions.items():
        example = parser.get_doctest(inspect.getdoc(value) or "", vars(module) | given, key, module.__file__, None)
        runner.run(example, out=printed.append)
    assert not runner.failures, "".join(printed)


def _is_own_function(value, module: str) -> bool:
    return inspect.isroutine(inspect.unwrap(value)) and value.__module__ == module
