"""What the project does on one GPU, in minutes: ``python -m benchmarks.gpu --minutes 8 --out gpu.json``."""
