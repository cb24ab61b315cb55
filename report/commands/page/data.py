"""All that a page shows of one run, as plain values for JSON."""

from typing import Any

from .facts import main_facts, version_facts, vote_words
from .gallery import gallery
from .measure import Measured
from .summary import run_tables


def run_data(measured: Measured, limit: int) -> dict[str, Any]:
    """Facts, tables, and at most `limit` images with their views."""
    method = measured.method
    return {
        "trainer": measured.record.trainer,
        "method": measured.record.method["name"],
        "dataset": measured.record.content["dataset"],
        "facts": main_facts(measured),
        "versions": version_facts(measured),
        "kept": method.top_s,
        "vote": vote_words(measured),
        "augmix": measured.trainer.tester.config.augmix,
        **run_tables(measured),
        "images": gallery(measured, limit),
    }
