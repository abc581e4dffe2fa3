"""What runs keep beside their results: how these were made, and what is under way."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..files import write_atomic


def state_folder(output: Path) -> Path:
    """A folder below the output; hidden, so that no search for pictures looks into it."""
    return output / ".salience-batch"


@dataclass(frozen=True)
class State:
    """The state of an output folder.

    Attributes:
        output: the folder of the results.
        identity: of the settings that they are made with, see `Settings.identity`.
    """

    output: Path
    identity: str

    @property
    def attempts(self) -> Path:
        """Where workers count their attempts, see `Attempts`."""
        return state_folder(self.output) / "attempts"

    def begin(self) -> None:
        """Forget the attempts of earlier runs.

        Raises:
            DataError: the folder holds results of other settings.
        """
        if self._record.exists() and self._record.read_bytes() != self.identity.encode():
            raise DataError(
                f"output {self.output}: holds results of another bundle or other options (see {self._record}); "
                "choose another folder."
            )
        shutil.rmtree(self.attempts, ignore_errors=True)

    def note(self) -> None:
        """Say what the results are made with; to be called before the first one is."""
        if not self._record.exists():
            write_atomic(self._record, self.identity.encode())

    @property
    def _record(self) -> Path:
        return state_folder(self.output) / "settings.json"
