"""What all command lines share: start, encoding, how errors are told, how they are stopped."""

import ast
import errno
import functools
import importlib
import itertools
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from benchmark import REPO
from hostile import MODULES, accepted, refused
from torch.utils.data import DataLoader, Dataset

import train
from tlla import command_line
from tlla.errors import InputError

SCRIPT = """
import os, signal, sys
from tlla.command_line import start
start("train.py")
print("torch" in sys.modules, signal.getsignal(signal.SIGINT).name, os.environ.get("GOMP_SPINCOUNT"))
"""
COMMANDS = {
    "train": ("train.py",),
    "predict": ("predict.py",),
    "parse": ("parse_test_res.py",),
    "datasets": ("-m", "datasets"),
    "sweeps": ("-m", "sweeps"),
    "report": ("-m", "report"),
}
OTHERS = sorted(  # every script that has a main of its own
    path.relative_to(REPO).as_posix()
    for folder in ("benchmarks", "scripts")
    for path in (REPO / folder).rglob("*.py")
    if "argparse" in (text := path.read_text(encoding="utf-8"))
    and "__main__" in text
    or "parser(__doc__)" in text
    and path.name != "common.py"
)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(given, spins):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {key: value for key, value in os.environ.items() if key not in names} | given
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=REPO, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "SIG_DFL", spins], done.stderr


def test_every_entry_point_is_known_here():
    """A new main is tested by what follows as soon as it is in hostile.MODULES."""
    mains = {p for p in REPO.glob("*.py") if p.name != "setup.py"} | set(REPO.glob("*/__main__.py"))
    mains |= set((REPO / "tlla").rglob("__main__.py"))
    names = {"train.py", "predict.py", "parse_test_res.py", "datasets/__main__.py", "sweeps/__main__.py"}
    names |= {"report/__main__.py", "tlla/predict/__main__.py", "benchmarks/__main__.py"}
    assert {path.relative_to(REPO).as_posix() for path in mains} == names
    assert set(COMMANDS) == set(MODULES)


def test_scripts_and_benchmarks_run_through_call():
    assert len(OTHERS) > 10
    assert not [script for script in OTHERS if "sys.exit(call(main" not in (REPO / script).read_text(encoding="utf-8")]


@pytest.mark.parametrize("entry", COMMANDS)
def test_help_needs_no_torch(entry):
    """`-X importtime` names all modules that were imported."""
    command = [sys.executable, "-X", "importtime", *COMMANDS[entry], "--help"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("usage:")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "tlla.command_line" in imported and not imported & {"torch", "matplotlib", "dassl"}


def steps(entry: str, monkeypatch: pytest.MonkeyPatch, function) -> object:
    """The module of an entry point, whose arguments parse to nothing and whose work is `function`."""
    module = importlib.import_module(MODULES[entry])
    monkeypatch.setattr(module, "parse_args", lambda argv: None)
    monkeypatch.setattr(module, "run", lambda args: function())
    return module


def raises(error: BaseException):
    def function():
        raise error

    return function


@pytest.fixture(autouse=True)
def signals_as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("entry", MODULES)
@pytest.mark.parametrize("encoding", ("ascii", "cp1252"))
def test_any_text_can_be_printed_in_any_encoding(entry, encoding, monkeypatch, tmp_path):
    text = "鳥 größer \udce9"  # the last is what a file name that is no UTF-8 has

    def prints():
        print(text)
        raise InputError(f"there is no {text}")

    module = steps(entry, monkeypatch, prints)
    with open(tmp_path / "out", "w", encoding=encoding) as out, open(tmp_path / "err", "w", encoding=encoding) as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert module.main([]) == 2
    umlaut = "größer" if encoding == "cp1252" else "gr\\xf6\\xdfer"
    assert (tmp_path / "out").read_text(encoding) == f"\\u9ce5 {umlaut} \\udce9\n"
    assert (tmp_path / "err").read_text(encoding) == f"error: there is no \\u9ce5 {umlaut} \\udce9\n"


@pytest.mark.parametrize("entry", MODULES)
def test_errors_are_one_sentence_and_have_an_exit_code(entry, monkeypatch, capfd):
    monkeypatch.delenv("TLLA_DEBUG", raising=False)
    for error, code, sentence in (
        (InputError("SEED must be\na number"), 2, "error: SEED must be\\na number"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'"),
        (FloatingPointError("the loss is nan"), 1, "error: the loss is nan"),
        (MemoryError(), 1, "error: there is not enough memory"),
        (KeyboardInterrupt(), 130, "stopped"),
    ):
        assert steps(entry, monkeypatch, raises(error)).main([]) == code
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(sentence)
    with pytest.raises(KeyError):  # a mistake in the program keeps its traceback
        steps(entry, monkeypatch, raises(KeyError("x"))).main([])
    monkeypatch.setenv("TLLA_DEBUG", "1")  # shows the others', too
    with pytest.raises(InputError, match="wrong"):
        steps(entry, monkeypatch, raises(InputError("wrong"))).main([])


@pytest.mark.parametrize("entry", MODULES)
def test_signals_stop_every_command_with_130(entry, monkeypatch, capfd):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a script's start leaves it
    for number in (signal.SIGINT, signal.SIGTERM):
        assert steps(entry, monkeypatch, lambda: os.kill(os.getpid(), number)).main([]) == 130  # noqa: B023
        assert capfd.readouterr().err.startswith("stopped")


MACHINE = {  # as torch and the system say it
    "killed": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "fewer workers"),
    "gone": (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "fewer workers"),
    "bus": (
        RuntimeError(
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit."
        ),
        "--shm-size",
    ),
    "shm": (
        RuntimeError("unable to write to file </torch_7_1_0>: No space left on device (28)"),
        "--shm-size",
    ),
    "shm of a worker": (
        RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\n"
            "Original Traceback (most recent call last):\n  File x\n"
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_7_1_0>: Success (0)"
        ),
        "--shm-size",
    ),
    "files": (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    "files of torch": (
        RuntimeError("unable to open shared memory object </torch_7_1> in read-write mode: Too many open files (24)"),
        "ulimit -n",
    ),
    "ancdata": (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
    "threads": (RuntimeError("can't start new thread"), "ulimit -u"),
    "disk": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
    "memory": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "smaller batches"),
    "gpu memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "smaller batches"),
    "gpu memory of a library": (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"),
        "smaller batches",
    ),
    "rights": (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied: '/x'"),
}


def test_what_a_machine_runs_out_of_is_one_sentence_with_what_to_do(monkeypatch, capfd):
    for entry, (error, advice) in zip(itertools.cycle(MODULES), MACHINE.values()):  # all commands share the code
        assert steps(entry, monkeypatch, raises(error)).main([]) == (2 if isinstance(error, OSError) else 1)
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ") and advice in line


class Kills(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class Fails(Kills):
    def __getitem__(self, index):
        raise OSError(errno.EMFILE, "Too many open files", "x.png")


@pytest.mark.parametrize(("dataset", "code", "says"), [(Kills(), 1, "was killed"), (Fails(), 2, "ulimit -n")])
def test_a_real_worker_that_ends_is_one_sentence(dataset, code, says, capfd):
    """So that torch's words of today are those of the table."""
    assert command_line.call(lambda: list(DataLoader(dataset, num_workers=1))) == code
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))
    assert says in line


def test_a_reader_that_leaves_ends_a_command_quietly():
    """As head does."""
    script = "import sys; from tlla.command_line import call; sys.exit(call(lambda: print('x' * 10**6)))"
    command = f'{sys.executable} -W ignore -c "{script}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.stdout) == ("", "141\n")


NAMES = ("TRAINER.NAME", "DATASET.NAME", "TEST.SPLIT", "TRAINER.VIEWS.PROTOCOL")  # only certain texts
TEXTS = ("2024", "{}", "'quoted'", "1e3", "007", "None", "True", "[1, 2]", "-1", "a b")
FLAGS = {
    "OUTPUT_DIR": "--output-dir",
    "DATASET.ROOT": "--root",
    "MODEL.BACKBONE.NAME": "--backbone",
    "RESUME": "--resume",
}


def value(argv: list[str], key: str) -> object:
    node = train.build_cfg(train.parse_args(argv))
    for name in key.split("."):
        node = node[name]
    return node


def leaves(node, prefix=""):
    for name, content in node.items():
        yield from leaves(content, f"{prefix}{name}.") if hasattr(content, "items") else [(prefix + name, content)]


@pytest.mark.parametrize("text", TEXTS)
def test_a_setting_that_is_a_text_is_taken_as_it_is(place, tmp_path, text):
    """From flags, from pairs and from YAML, whatever yacs would make of it; for every key whose default is a text."""
    base = place.argv("SAPT", "x")
    for key, flag in FLAGS.items():
        assert value([*base, f"{flag}={text}"], key) == text
    keys = [key for key, content in leaves(train.build_cfg(train.parse_args(base))) if isinstance(content, str)]
    keys = [key for key in keys if key not in NAMES]
    assert len(keys) > 30
    cfg = dict(leaves(train.build_cfg(train.parse_args([*base, *(word for key in keys for word in (key, text))]))))
    assert {key: cfg[key] for key in keys} == dict.fromkeys(keys, text)
    tree: dict = {}
    for key in keys:
        *path, name = key.split(".")
        functools.reduce(lambda node, part: node.setdefault(part, {}), path, tree)[name] = text
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    cfg = dict(leaves(train.build_cfg(train.parse_args([*base, "--config-file", str(tmp_path / "c.yaml")]))))
    left = set(keys) - {"OUTPUT_DIR", "DATASET.ROOT"}  # which the base gives by flags
    assert {key: cfg[key] for key in left} == dict.fromkeys(left, text)


def test_a_plain_yaml_value_is_the_text_that_the_file_has(place, tmp_path):
    for text in ("2024", "007", "1e3", "2024-11-26", "yes", "0x10", "1_000"):
        (tmp_path / "c.yaml").write_text(f"DATASET: {{TEMPLATE: {text}}}\n")
        assert value([*place.argv("SAPT", "x"), "--config-file", str(tmp_path / "c.yaml")], "DATASET.TEMPLATE") == text


def test_the_folders_of_a_run_may_be_numbers(place, capfd, tmp_path, monkeypatch):
    """A run, its test, and what reads its record again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").symlink_to(place.folder / "data")
    argv = place.argv("ZeroshotCLIP", "x", "--output-dir", "20241126", "--root", "2024", "DATASET.TEMPLATE", "{}")
    accepted(capfd, "train", *argv)
    assert (tmp_path / "20241126/results.json").is_file()
    from report.reopen import _config
    from tlla.records.record import read_record

    cfg = _config(read_record("20241126"), ())
    assert (cfg.OUTPUT_DIR, cfg.DATASET.ROOT, cfg.DATASET.TEMPLATE) == ("20241126", "2024", "{}")


def test_flags_come_before_pairs(place, capfd):
    sentence = refused(capfd, "train", *place.argv("SAPT", "x", "SEED", "1", "--eval-only"))
    assert sentence == "--eval-only follows KEY VALUE pairs: put flags before them"
    refused(capfd, "train", *place.argv("SAPT", "x", "OPTIM.LR=1"), says=("'OPTIM.LR=1'", "with a space"))
    refused(capfd, "datasets", "check", "OxfordPets", "--root", "x", "--opts", "SEED=1", says=("'SEED=1'",))


@pytest.mark.parametrize("encoding", ("utf-16", "utf-8-sig"))
def test_a_list_of_class_names_or_a_config_of_another_encoding_is_read(place, tmp_path, encoding):
    from tlla.predict.inputs import _names_in

    (tmp_path / "names.txt").write_text("größer\n鳥\n", encoding)
    assert _names_in(tmp_path / "names.txt") == ["größer", "鳥"]
    (tmp_path / "c.yaml").write_text("DATASET: {TEMPLATE: größer}\n", encoding)
    assert value([*place.argv("SAPT", "x"), "--config-file", str(tmp_path / "c.yaml")], "DATASET.TEMPLATE") == "größer"


@pytest.mark.parametrize("encoding", ("utf-16", "utf-8-sig"))
def test_a_log_of_another_encoding_is_read(capfd, tmp_path, encoding):
    """PowerShell's > writes UTF-16."""
    for seed in (1, 2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "log.txt").write_text(f"Finish training\n=> result\n* accuracy: {70 + seed}.0%\n", encoding)
    assert "* accuracy: 71.50% +- 0.50%" in accepted(capfd, "parse", tmp_path).out


@pytest.mark.parametrize("what", ("script", "trainers", "toolkit"))
def test_two_checkouts_are_not_mixed(tmp_path, what):
    """The files of a copy with the tlla of this one, as a PYTHONPATH or a shared environment gives it."""
    (tmp_path / "tlla").mkdir()
    (tmp_path / "tlla/__init__.py").touch()
    (tmp_path / "toolkit/dassl").mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    files = {"script": "scripts/demo.py", "trainers": "trainers/__init__.py", "toolkit": "toolkit/dassl/__init__.py"}
    with pytest.raises(InputError) as caught:
        command_line.check_same_tree(str(REPO / "train.py"), str(tmp_path / files[what]))
    assert str(tmp_path) in str(caught.value) and str(REPO) in str(caught.value)


def test_whose_dassl_it_is_does_not_matter(tmp_path):
    command_line.check_same_tree(None, str(tmp_path / "Dassl.pytorch/dassl/__init__.py"), str(REPO / "a/b/c.py"))


def test_a_script_of_another_checkout_ends_with_one_sentence(tmp_path):
    (tmp_path / "tlla").mkdir()
    (tmp_path / "tlla/__init__.py").touch()
    (tmp_path / "other.py").write_text("from tlla.command_line import start\nstart(__file__)\n")
    command = [sys.executable, "-P", "other.py"] if sys.version_info >= (3, 11) else None
    if command is None:
        pytest.skip("python -P is of 3.11")
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "from another checkout" in done.stderr


@pytest.mark.parametrize("package", ("trainers", "datasets"))
def test_packages_ask_whether_they_are_of_one_tree(package):
    text = (REPO / package / "__init__.py").read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert "check_same_tree(__file__, dassl.__file__)" in map(ast.unparse, calls)
