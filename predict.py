"""Predicts one's own images: python predict.py --help. The same as python -m tlla.predict."""

import runpy

if __name__ == "__main__":
    runpy.run_module("tlla.predict", run_name="__main__")
