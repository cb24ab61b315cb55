"""The code blocks of the documentation, and the commands of a shell block.

A shell block runs in a real bash, so that loops, exports, globs and pipes mean what they mean to a reader; globs find
what earlier blocks have left. Its PATH has harmless tools and a stand-in for each program of NOTED, which only notes
its arguments. Any other program is "command not found".
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
SHELL = ("bash", "sh", "console", "shell")
NOTED = ("python", "python3", "pip", "git", "torchrun", "head")
HARMLESS = ("bash", "basename", "cat", "dirname", "find", "ls", "mkdir", "sed")
STAND_IN = r"""#!/bin/bash
if [ "$2" = venv ]; then mkdir -p "$3/bin" && : > "$3/bin/activate"; fi
[ -p /dev/stdin ] && cat > "$HOME/stdin"
printf '%s\0' "$PWD" "$DATA" "$OUT" "$JOBS" "${0##*/}" "$@" $'\n' >> "$HOME/calls"
"""


class Block(NamedTuple):
    """A fenced block; `place` is file:line."""

    place: str
    language: str
    text: str


def files() -> list[str]:
    """All pages with commands."""
    pages = sorted(path.relative_to(REPO).as_posix() for path in (REPO / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", "DATASETS.md", *pages]


def blocks(file: str) -> list[Block]:
    """The fenced blocks of a page in order; blocks in lists lose their indentation."""
    text, found = (REPO / file).read_text(encoding="utf-8"), []
    for match in re.finditer(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```\s*$", text, re.M | re.S):
        body = re.sub(f"^{match[1]}", "", match[3], flags=re.M)
        found.append(Block(f"{file}:{text.count(chr(10), 0, match.start()) + 1}", match[2], body))
    return found


def script(block: Block) -> str:
    """A shell block's commands: of a console session, what follows `$ `, with continued lines."""
    if block.language != "console":
        return block.text
    return "".join(re.findall(r"^\$ ((?:.*\\\n)*.*\n)", block.text, re.M))


def calls(text: str, folder: Path, home: Path) -> list[tuple[list[str], Path, dict[str, str]]]:
    """What a script starts, in order: words, folder, variables. What it pipes into the last one is in home/stdin."""
    shutil.rmtree(home / "bin", ignore_errors=True)
    (home / "bin").mkdir()
    for name in HARMLESS:
        (home / "bin" / name).symlink_to(shutil.which(name))
    for name in NOTED:
        (home / "bin" / name).write_text(STAND_IN)
        (home / "bin" / name).chmod(0o755)
    for name in ("calls", "stdin"):
        (home / name).write_text("")
    env = {"PATH": f"{home}/bin", "HOME": str(home), "DATA": f"{home}/data", "VIRTUAL_ENV": f"{home}/venv"}
    done = subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", text],
        **{"cwd": folder, "env": env, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr
    found = []
    for part in (home / "calls").read_text().split("\0\n\0")[:-1]:
        where, data, out, jobs, *words = part.split("\0")
        seen = {name: value for name, value in (("DATA", data), ("OUT", out), ("JOBS", jobs)) if value}
        found.append((words, Path(where), seen))
    return found
