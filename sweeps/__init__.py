"""Sweeps: plans of many runs of train.py, and who runs what of them is not done. See ``python -m sweeps --help``."""
