"""Predicts your own images from the command line: python predict.py, or python -m tlla.predict."""
