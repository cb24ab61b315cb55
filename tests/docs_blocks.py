"""The code blocks of the documentation, and a bash whose `python`, `pip` ... ask this process instead.

A shell block runs in a real bash, so that continued lines, comments, exports and pipes mean what they mean to a reader.
Its PATH holds a few harmless tools and stand-ins for all else: a stand-in sends its arguments here, waits, and prints
what it gets back. What is in neither is "command not found", so a new program needs a rule.
"""

import io
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
SHELL = ("bash", "sh", "console", "shell")
ASKING = ("python", "python3", "pip", "git", "torchrun", "mkdocs", "ruff", "sbatch")
HARMLESS = (
    "bash",
    "basename",
    "cat",
    "cp",
    "dirname",
    "find",
    "head",
    "ls",
    "mkdir",
    "mv",
    "sed",
    "sort",
    "tail",
    "wc",
)
VARIABLES = ("DATA", "OUT", "JOBS")
STAND_IN = r"""#!/bin/bash
[ -p /dev/stdin ] && cat > "$DOCS/stdin"
{ printf '%s\0' "$(basename "$0")" "$PWD" "$DATA" "$OUT" "$JOBS" "$@"; printf '\1\0'; } > "$DOCS/request"
{ read -r code; cat; } < "$DOCS/reply"
exit "$code"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    file: str  # in the repository
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Call:
    """What a shell block asked for: the program, its arguments, where, and the variables it saw."""

    program: str
    args: tuple[str, ...]
    folder: Path
    env: dict[str, str]
    input: io.BytesIO  # what is piped into it

    def __str__(self) -> str:
        return " ".join((self.program, *self.args))


def files() -> list[str]:
    """All pages with commands."""
    pages = sorted(path.relative_to(REPO).as_posix() for path in (REPO / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", "DATASETS.md", *pages]


def blocks(file: str) -> list[Block]:
    """The fenced blocks of a page in order; blocks in lists lose their indentation."""
    text, found = (REPO / file).read_text(encoding="utf-8"), []
    for match in re.finditer(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```\s*$", text, re.M | re.S):
        body = re.sub(f"^{match[1]}", "", match[3], flags=re.M)
        found.append(Block(file, text.count("\n", 0, match.start()) + 1, match[2], body))
    return found


def commands(block: Block) -> str:
    """A shell block's script: of a console session, what follows `$ `, with continued lines."""
    if block.language != "console":
        return block.text
    lines, more = [], False
    for line in block.text.splitlines():
        if more or line.startswith("$ "):
            lines.append(line.removeprefix("$ "))
            more = line.endswith("\\")
    return "\n".join(lines) + "\n"


class Bash:
    """Runs scripts; `answer` gets each Call and returns an exit code and what is printed."""

    def __init__(self, folder: Path, answer: Callable[[Call], tuple[int, str]]):
        self.answer = answer
        self.tools, self.pipes = folder / "bin", folder / "pipes"
        self.tools.mkdir(parents=True)
        self.pipes.mkdir()
        for name in HARMLESS:
            (self.tools / name).symlink_to(shutil.which(name))
        for name in ASKING:
            (self.tools / name).write_text(STAND_IN)
            (self.tools / name).chmod(stat.S_IRWXU)
        for name in ("request", "reply"):
            os.mkfifo(self.pipes / name)

    def run(self, script: str, folder: Path, home: Path) -> subprocess.CompletedProcess:
        """Runs a script from a folder; stops at the first failure."""
        outer = {"PATH": str(self.tools), "DOCS": str(self.pipes), "HOME": str(home), "DATA": str(home / "data")}
        outer |= {"VIRTUAL_ENV": str(home / "venv"), "LANG": "C.UTF-8"}
        process = subprocess.Popen(
            ["/bin/bash", "-e", "-o", "pipefail", "-c", script],
            **{"cwd": folder, "env": outer, "text": True},
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        printed: list[str] = []

        def wait() -> None:
            printed.append(process.communicate()[0])
            with open(self.pipes / "request", "w") as request:
                request.write("")  # ends the last reading

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        while (request := (self.pipes / "request").read_text()) != "":
            name, where, *values = request.removesuffix("\1\0").split("\0")[:-1]
            seen = dict(zip(VARIABLES, values, strict=False))
            env = {name: value for name, value in seen.items() if value}
            call = Call(name, tuple(values[len(VARIABLES) :]), Path(where), env, self._piped())
            code, text = self.answer(call)
            (self.pipes / "reply").write_text(f"{code}\n{text}")
        waiting.join()
        return subprocess.CompletedProcess(script, process.returncode, printed[0])

    def _piped(self) -> io.BytesIO:
        path = self.pipes / "stdin"
        found = path.read_bytes() if path.is_file() else b""
        path.unlink(missing_ok=True)
        return io.BytesIO(found)
