"""Who ended the worker: a picture that kills its process, by lack of memory or a crash, must not do so for ever."""

import json
from pathlib import Path

from ..errors import DataError
from ..files import write_atomic

# A worker may end for other reasons, so that one death proves nothing.
_DEATHS = 2
_ATTEMPTS = 10


class Attempts:
    """Counts how often a unit was begun, in a file that outlives the worker.

    From the second time on, each picture is noted before it is tried; what the last attempt ended at is a suspect.

    Attributes:
        count: of attempts, this one included.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._under_way: str | None = None
        self._suspects: list[str] = []
        self.count = 1
        if path.exists():
            found = json.loads(path.read_bytes())
            self.count = found["count"] + 1
            self._suspects = found["suspects"] + [key for key in [found["under_way"]] if key is not None]
        self._write()

    def check(self, source: Path) -> None:
        """Raise DataError where a unit has had its chances."""
        if self.count > _ATTEMPTS:
            raise DataError(f"{source}: its worker ended {_ATTEMPTS} times; is there memory enough?")

    def begin(self, key: str) -> None:
        """Before a picture.

        Raises:
            DataError: it has ended its worker before.
        """
        deaths = self._suspects.count(key)
        if deaths >= _DEATHS:
            raise DataError(f"{key}: its worker ended {deaths} times at this picture; is there memory enough?")
        if self.count > 1:
            self._under_way = key
            self._write()

    def end(self) -> None:
        """The unit is done."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        found = {"count": self.count, "suspects": self._suspects, "under_way": self._under_way}
        write_atomic(self._path, json.dumps(found).encode())
