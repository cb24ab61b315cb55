"""Images for training and for tests without views, read as everything else here reads them."""

import contextlib
from collections.abc import Sequence
from typing import Any

from dassl.data import DatasetWrapper
from PIL import Image

from tlla.errors import InputError
from tlla.views.read_image import read_image


def read_item(items: Sequence[Any], index: int) -> Image.Image:
    """The image of an item, upright RGB, corrupted if the items say so; InputError says which cannot be read."""
    try:
        image = read_image(items[index].impath)
    except InputError as error:
        raise InputError(f"{error} (item {index} of {len(items)})") from error
    return items.corrupt(image, index) if hasattr(items, "corrupt") else image


class ImageDataset(DatasetWrapper):
    """Dassl's items, read by `tlla.views.read_image.read_image`: Dassl's own reader takes other ground and turn."""

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item, image = self.data_source[idx], read_item(self.data_source, idx)
        transforms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
        with getattr(self, "item_seed", contextlib.nullcontext)(idx):  # our toolkit's: the same item in every worker
            images = [self._transform_image(transform, image) if transform else image for transform in transforms]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        output |= {f"img{number}" if number > 1 else "img": one for number, one in enumerate(images, start=1)}
        if self.cfg.DATALOADER.RETURN_IMG0:
            output["img0"] = self.to_tensor(image)
        return output
