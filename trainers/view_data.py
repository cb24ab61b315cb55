"""Test images with all their views."""

from collections.abc import Sequence
from typing import Any

from dassl.utils import read_image
from torch.utils.data import Dataset

from tlla.errors import InputError
from tlla.views import ViewConfig, make_views


class ViewDataset(Dataset):
    """Items are dicts: img (V, 3, H, W), label, index. The views depend on the seed and the index alone."""

    def __init__(self, items: Sequence[Any], config: ViewConfig):
        self.items = items
        self.config = config

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        try:
            image = read_image(item.impath)
        except (OSError, ValueError) as error:  # Pillow raises either
            raise InputError(f"cannot read image {index} of the set, {item.impath}: {error}") from error
        return {"img": make_views(image, index, self.config), "label": item.label, "index": index}
