"""Predicts your own images: python predict.py IMAGES ... --classes NAME ... (or python -m tlla.predict).

    python predict.py photos/ --classes cat dog horse
    python predict.py photos/ --prompt output/SAPT/seed1 --csv predictions.csv --explain views/
    find photos -name '*.jpg' -print0 | python predict.py - -0 --classes-file names.txt --method zero

IMAGES are files, folders (searched recursively), patterns, or - for paths on the standard input. The table is printed
to the standard output, everything else to stderr. Files are written atomically at the end; until then the rows are in
FILE.<fingerprint>.part, from which the same command resumes if it was stopped.
Exit codes: 0 done, 1 some images could not be read, 2 the input was wrong, 130 stopped.
"""

import argparse
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the arguments of predict.py.

    >>> parse_args(["photos/", "--classes", "cat", "dog"]).classes
    ['cat', 'dog']
    """
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", help="files, folders, patterns, or - (put them before --classes)")
    parser.add_argument("-0", "--null", action="store_true", help="paths on the standard input end with NUL")
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="the class names (default: those of the checkpoint or of the descriptions)",
    )
    names.add_argument("--classes-file", metavar="FILE", help="text with one class name a line")
    names.add_argument("--classes-from", metavar="FOLDER", help="folder whose subfolders' names are the classes")
    parser.add_argument(
        "--prompt",
        help='template, imagenet7, imagenet80, .json of descriptions, checkpoint, run (default: "a photo of a {}.")',
    )
    parser.add_argument("--load-epoch", type=int, metavar="N", help="epoch of that run (default: the newest)")
    parser.add_argument("--backbone", help="a CLIP by name or file (default: the checkpoint's, else ViT-B/16)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "amp"),
        help="of the encoders; auto: amp (fp16) on a GPU, fp32 on a CPU",
    )
    parser.add_argument("--method", default="tlla", help="tlla (STSS), single, zero, mta, tpt ... (docs/methods.md)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="the method's settings: top_s=8 lam=0.5"
    )
    parser.add_argument("--views", type=int, default=64, help="views per image (default: 64)")
    parser.add_argument("--margin", type=float, default=0.0, help="lead of a vote that needs no more views (0: off)")
    parser.add_argument("--crop-scale", type=float, nargs=2, default=(0.08, 1.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--augmix", action="store_true", help="apply AugMix to the views")
    parser.add_argument("--seed", type=int, default=0, help="seed of views and perturbations (default: 0)")
    parser.add_argument("--batch-views", type=int, default=512, help="views encoded at once; less needs less memory")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default: 2)")
    parser.add_argument("--top-k", type=int, default=3, help="classes shown per image (default: 3)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line per image")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON object per image")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="draw each image's views and their votes")
    parser.add_argument("--fresh", action="store_true", help="do not resume from the rows of a stopped run")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")
    return parser.parse_args(argv)
