"""Export a pre-training checkpoint to assets/emoji_clip.pt.gz: OpenAI's state-dict layout, fp16, gzipped.

python -m scripts.emoji.export --work DIR --name run
"""

import argparse
import gzip
import io
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from tlla.backbones.openai_package import build_model
from tlla.command_line import call

from .assets import WEIGHTS

LIMIT = 20_000_000  # bytes
UNKNOWN_SIZE = 0.02  # standard deviation of CLIP's token embeddings before training


def openai_layout(checkpoint: dict) -> dict[str, Tensor]:
    """The averaged weights in fp16, with the vocabulary spread to OpenAI's 49,408 rows.

    Words that no caption used get rows of random signs: so they differ from each other, and take one bit a number in
    the file. With equal rows, all unknown class names would have the same features.
    """
    weights = dict(checkpoint["average"])
    embedding = weights["token_embedding.weight"]
    signs = torch.randint(2, (49408, embedding.shape[1]), generator=torch.Generator().manual_seed(0))
    full = UNKNOWN_SIZE * (2.0 * signs - 1)
    full[torch.tensor(checkpoint["tokens"])] = embedding
    weights["token_embedding.weight"] = full
    return {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Gzip without a time stamp: the same weights give the same bytes."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    path.write_bytes(gzip.compress(buffer.getvalue(), compresslevel=9, mtime=0))
    if path.stat().st_size > LIMIT:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {LIMIT}; train a smaller model")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a file that `write` wrote."""
    with gzip.open(path) as file:
        return torch.load(io.BytesIO(file.read()), weights_only=True)


def exported_model(path: Path = WEIGHTS) -> nn.Module:
    """The model as a user gets it: through OpenAI's build_model, then in fp32."""
    return build_model(read_weights(path)).float().eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="run")
    args = parser.parse_args()
    checkpoint = torch.load(args.work / args.name / "weights.pt", weights_only=True)
    write_weights(openai_layout(checkpoint), WEIGHTS)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes, step {checkpoint['progress'][0]}")


if __name__ == "__main__":
    sys.exit(call(main))
