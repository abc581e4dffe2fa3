"""Batches from worker processes."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from salience.runtime.errors import SalienceError


def batches(loader: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Yield batches with `image` in channels-last order.

    Raises:
        SalienceError: a worker raised one; its message is the last line alone, without the worker's traceback.
    """
    try:
        for batch in loader:
            if "image" in batch:
                batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            yield batch
    except SalienceError as error:
        raise type(error)(str(error).strip().splitlines()[-1].split("Error: ", 1)[-1]) from None
