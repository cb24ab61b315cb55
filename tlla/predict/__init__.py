"""Predicting one's own images from the command line: python predict.py, or python -m tlla.predict."""

from .command import main, parse_args

__all__ = ["main", "parse_args"]
