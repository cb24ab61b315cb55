"""Package metadata. `trainers/` and `datasets/` travel in the wheel as `tlla.trainers` and `tlla.datasets`."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent

setup(
    name="tlla",
    version="0.1.0",
    description="Sharpness-aware prompt tuning (SAPT) and test-time view selection (STSS) for CLIP, as a Dassl plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[
        *("tlla", "tlla.backbones", "tlla.corruptions", "tlla.landscape", "tlla.methods", "tlla.predict"),
        "tlla.prompts",
        *("tlla.records", "tlla.training", "tlla.views", "tlla.assets", "tlla.datasets", "tlla.datasets.care"),
        *("tlla.trainers", "tlla.trainers.config", "tlla.trainers.harness"),
    ],
    package_dir={"tlla.trainers": "trainers", "tlla.datasets": "datasets", "tlla.assets": "assets"},
    package_data={
        "tlla.datasets": ["data/*.txt"],
        "tlla.assets": ["*.gz", "emoji/*.json", "emoji/*.md", "emoji/**/*.png"],
    },
    install_requires=[
        "dassl",
        "torch>=2.4",
        "torchvision",
        "clip-anytorch",
        "packaging",  # all that clip-anytorch needs of pkg_resources: tlla/backbones/openai_package.py
        "yacs",
        "tabulate",
        "gdown",
        "tqdm",
        "filelock",
        "numpy",
        "psutil",
        "pillow",
        "tensorboard",
        "matplotlib",
    ],
    extras_require={
        "test": [
            *("pytest", "pytest-cov", "pytest-xdist", "hypothesis", "torchmetrics", "open_clip_torch", "transformers"),
            *("playwright", "submitit", "scikit-learn"),
            *("ruff", "mypy", "types-tabulate", "types-tqdm", "build"),
        ],
        "open_clip": ["open_clip_torch"],
        "slurm": ["submitit"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material", "mkdocstrings[python]", "latex2mathml"],
    },
)
