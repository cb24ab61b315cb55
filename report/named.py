"""Runs on the command line, with a name if the user gives one: NAME=RUN, or RUN alone."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from report.tables.runs import label
from tlla.errors import InputError
from tlla.records.origins import Origins
from tlla.records.record import Record, read_record

HELP = "folder of a finished run, or NAME=folder; runs of one name are seeds (or datasets) of one curve"


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """--set KEY VALUE, as often as needed: keys and values in turn."""
    look = {"metavar": ("KEY", "VALUE"), "help": "a config key of all runs"}
    parser.add_argument("--set", nargs=2, action="extend", default=[], **look)


def named_runs(arguments: Sequence[str]) -> dict[str, list[Record]]:
    """The records of each name's runs, as ordered in the command line; without a name it is the method, as in tables.

    Args:
        arguments: As given by the user. A folder whose path has an equals sign is taken as it is.

    Raises:
        InputError: A folder does not exist, or is named twice.
    """
    found: dict[str, list[Record]] = {}
    for argument in arguments:
        name, _, folder = ("", "", argument) if Path(argument).is_dir() else argument.rpartition("=")
        path = Path(folder)
        if not path.is_dir():
            raise InputError(f"there is no folder {folder}: name the folder of a finished run, or NAME=folder")
        if any(path.resolve() == other.folder.resolve() for runs in found.values() for other in runs):
            raise InputError(f"{folder} is given twice: name each run once")
        record = read_record(path)
        found.setdefault(name or label(record, Origins([record]).of(record)), []).append(record)
    return found
