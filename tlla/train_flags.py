r"""CoOp's command line: builds the config and the trainer, then trains or evaluates.

    python train.py --trainer SAPT --config-file configs/trainers/SAPT/emoji.yaml \
        --dataset-config-file configs/datasets/emoji.yaml --output-dir output/emoji/SAPT/seed1 --seed 1

Later settings win: defaults, dataset config, trainer config, flags, KEY VALUE pairs. Exit codes: 0 done, 1 the run
failed, 2 the input was wrong, 130 it was stopped; set TLLA_DEBUG=1 to see the traceback of an error.
"""

import argparse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """CoOp's flags; without a flag the config's value stays.

    >>> parse_args(["--trainer", "SAPT", "--eval-only", "SEED", "2"]).opts
    ['SEED', '2']
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the datasets")
    parser.add_argument("--output-dir", help="folder of the run's results")
    parser.add_argument(
        "--resume",
        help="run to resume, whatever its settings (default: the output folder, if its settings are the same)",
    )
    parser.add_argument("--seed", type=int, help="0 or more fixes the randomness; negative: random")
    parser.add_argument("--source-domains", nargs="+", help="source domains")
    parser.add_argument("--target-domains", nargs="+", help="target domains")
    parser.add_argument("--transforms", nargs="+", help="data augmentation")
    parser.add_argument("--config-file", action="append", default=[], help="config of the method; the last wins")
    parser.add_argument("--dataset-config-file", help="config of the dataset")
    parser.add_argument("--trainer", help="SAPT, TLLA, CoOp, CoCoOp, ZeroshotCLIP, TPT, ZERO, Compare ...")
    parser.add_argument(
        "--backbone", help="a CLIP: a name such as ViT-B/16, a file of weights, or open_clip:<name>/<tag>"
    )
    parser.add_argument("--head", help="name of a head (not used by the methods here)")
    parser.add_argument("--eval-only", action="store_true", help="test without training")
    parser.add_argument("--model-dir", default="", help="run whose prompt --eval-only tests")
    parser.add_argument("--load-epoch", type=int, help="epoch of that run (default: the newest)")
    parser.add_argument("--fresh", action="store_true", help="ignore the partial results of a killed test")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, e.g. TRAINER.SAPT.RHO 0.1")
    return parser.parse_args(argv)
