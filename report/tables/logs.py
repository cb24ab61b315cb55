"""Mean and spread over the log.txt of several seeds, as CoOp's parse_test_res.py prints them (CoOp, CoCoOp, MaPLe ...).

Upstream: KaiyangZhou/CoOp, parse_test_res.py. Same numbers and lines. Differs: a run without a result, with a result
that is no number, an empty folder and two runs of one seed are named and left out, where upstream skips them without a
word, stops, or averages them; "Finished training", which older versions of Dassl print, is understood, too.
"""

import os
import re
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tlla.errors import InputError
from tlla.files import read_text
from tlla.records.store import RESULTS, TESTED, has_result

TRAINED = ("Finish training", "Finished training")
SETTINGS = re.compile(r"\*\* Arguments \*\*.*?(?=\*\* System info \*\*|Collecting env info|\Z)", re.DOTALL)
PLACES = re.compile(r"^\s*(output_dir|resume):.*$", re.MULTILINE | re.IGNORECASE)  # differ between equal runs
CORRUPTED = re.compile(r"^\s*(?:corruption|severity): *(.*?) *$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Log:
    """One run's log."""

    path: str  # as CoOp's script writes it
    value: float = float("nan")  # the last one after the end signal
    reason: str = ""  # why the run does not count; "" if it does
    count: int = 0  # results after the end signal
    settings: str = ""  # arguments and config; "" if it does not print them

    @property
    def folder(self) -> Path:
        """The run's."""
        return Path(self.path).parent


def read_log(path: str, keyword: str, test_log: bool) -> Log:
    """Reads the last ``* <keyword>: <number>%`` after the end of training, or of the test with `test_log`."""
    if not os.path.isfile(path):
        return Log(path, reason="there is no log.txt" if visible(os.path.dirname(path)) else "the folder is empty")
    text = read_text(Path(path), errors="replace")
    pattern = re.compile(rf"\* {keyword}: (?P<number>[^\s%]+)%")
    lines = list(map(str.strip, text.splitlines()))
    start = next((i for i, line in enumerate(lines) if line in (TESTED if test_log else TRAINED)), None)
    found = [match["number"] for line in lines[start:] if (match := pattern.search(line))] if start is not None else []
    settings = PLACES.sub("", match[0]) if (match := SETTINGS.search(text)) else ""
    if not found:
        return Log(path, reason=_why_nothing(lines, keyword, start is not None, test_log), settings=settings)
    try:
        value = float(found[-1])
    except ValueError:
        return Log(path, reason=f"its {keyword} {found[-1]!r} is no number", settings=settings)
    return Log(path, value, "" if np.isfinite(value) else f"its {keyword} is {found[-1]}", len(found), settings)


def _why_nothing(lines: list[str], keyword: str, ended: bool, test_log: bool) -> str:
    signal = TESTED[0] if test_log else TRAINED[0]
    if ended:
        return f"no {keyword!r} follows {signal!r}: the log was cut, or it needs another --keyword"
    hint = "; the log of a test needs --test-log" if not test_log and TESTED[0] in lines else ""
    return f"no line {signal!r}: the run has crashed or is still running{hint}"


def summarize_folder(directory: str, keyword: str, test_log: bool, ci95: bool) -> Generator[str, None, float]:
    """Yields the lines about a folder of runs, <directory>/<run>/log.txt, and returns their mean.

    Raises:
        InputError: There is no result in it.
    """
    yield f"Parsing files in {directory}"
    runs = [os.path.join(directory, name) for name in visible(directory)]
    runs = [run for run in runs if os.path.isdir(run)]
    logs = _without_twins([read_log(os.path.join(run, "log.txt"), keyword, test_log) for run in runs])
    values = [log.value for log in logs if not log.reason]
    for log in logs:
        if not log.reason:
            yield f"file: {log.path}. {keyword}: {log.value:.2f}%. "
    yield from _remarks(logs)
    if not values:
        raise InputError(f"nothing found in {directory}: {_advice(directory, runs)}")
    if len({tuple(CORRUPTED.findall(log.settings)) for log in logs if log.settings and not log.reason}) > 1:
        yield "NOTE: the mean is over images of several corruptions or severities: --table keeps them apart"
    mean = float(np.mean(values))
    spread = np.std(values) * (1.96 / np.sqrt(len(values)) if ci95 else 1)
    yield from ("===", f"Summary of directory: {directory}", f"* {keyword}: {mean:.2f}% +- {spread:.2f}%", "===")
    return mean


def _without_twins(logs: list[Log]) -> list[Log]:
    """Gives a reason against complete runs of the same settings, the seed among them."""
    groups: dict[str, list[Log]] = defaultdict(list)
    for log in logs:
        if log.settings and not log.reason:
            groups[log.settings].append(log)
    twins = {log.path: [o.folder.name for o in group if o is not log] for group in groups.values() for log in group}
    return [
        replace(log, reason=f"same seed and settings as {', '.join(others)}: remove all but one") if others else log
        for log in logs
        for others in [twins.get(log.path)]
    ]


def _remarks(logs: list[Log]) -> Iterator[str]:
    for log in logs:
        others = sorted(path for path in log.folder.glob("log.txt-*") if has_result(path))
        beside = f"{', '.join(path.name for path in others)} beside it has a result"
        if log.reason:
            yield f"LEFT OUT: {log.path}: {log.reason}{f' ({beside})' if others else ''}"
        elif others:
            yield f"NOTE: {log.path}: only this log counts; {beside}, too"
        if log.count > 1:
            yield f"NOTE: {log.path}: the last of its {log.count} results counts"


def _advice(directory: str, runs: list[str]) -> str:
    if next(Path(directory).rglob(RESULTS), None):
        return "there are results.json in or below it, which --table reads"
    if os.path.isfile(os.path.join(directory, "log.txt")):
        return "it is the folder of one run: name the folder that holds the runs of all seeds"
    if any(next(Path(run).glob("*/log.txt"), None) for run in runs):
        return "the runs are one level deeper: add --multi-exp"
    return "none of its folders has a log.txt with a result" if runs else "it has no folders of runs"


def visible(directory: str) -> list[str]:
    """Sorted names of what is in a folder, without hidden files. InputError if there is no such folder."""
    if not os.path.isdir(directory):
        raise InputError(f"there is no folder {directory}")
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def report(directory: str, keyword: str, test_log: bool, ci95: bool, multi_exp: bool) -> Iterator[str]:
    """What CoOp's script prints, line by line. InputError if nothing can be averaged."""
    try:
        re.compile(keyword)
    except (re.error, OverflowError) as error:
        raise InputError(f"--keyword {keyword!r} is no regular expression: {error}") from error
    if not multi_exp:
        yield from summarize_folder(directory, keyword, test_log, ci95)
        return
    folders = [os.path.join(directory, name) for name in visible(directory)]
    means = []
    for folder in filter(os.path.isdir, folders):
        means.append((yield from summarize_folder(folder, keyword, test_log, ci95)))
    if not means:
        raise InputError(f"nothing found in {directory}: it has no folders of experiments")
    yield from ("Average performance", f"* {keyword}: {np.mean(means):.2f}%")
