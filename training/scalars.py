"""The records of a run for TensorBoard."""

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from salience.runtime.errors import BackendUnavailableError

from .run_state import EpochRecord


def check_tensorboard() -> None:
    """Raise BackendUnavailableError unless TensorBoard is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BackendUnavailableError(
            "--tensorboard: the package tensorboard is not installed; run: pip install 'salience[training]'"
        )


class ScalarLog:
    """Writes loss, rate, images per second and validation scores of each epoch into `folder`; None: nothing.

    `start` is how many epochs are there already: what earlier logs say of later ones TensorBoard then ignores.
    """

    def __init__(self, folder: Path | None, *, start: int) -> None:
        self._writer: Any = None
        if folder is not None:
            check_tensorboard()
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, record: EpochRecord) -> None:
        """Add an epoch, counted from 1."""
        if self._writer is None:
            return
        values = {"loss": record.loss, "rate": record.rate, "images_per_second": record.images_per_second}
        values |= {f"validation/{name}": value for name, value in record.scores.items()}
        for name, value in values.items():
            self._writer.add_scalar(name, value, record.epoch + 1)
        self._writer.flush()
