"""What runs in each worker's process: a detector that is opened once, and unit after unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SalienceError
from ..images import ImageSource
from ..png_writer import encode_png
from .attempts import Attempts
from .settings import Settings
from .state import State
from .units import Failure, Report, Unit


@dataclass(frozen=True)
class Done:
    """What a worker says of a unit.

    Attributes:
        unit: its name.
        report: what came of it.
        attempts: how often it was begun, 1 unless a worker died.
        fatal: why this worker can do nothing at all.
        engine: in words.
    """

    unit: str
    report: Report
    attempts: int = 1
    fatal: str | None = None
    engine: str = ""


class Worker:
    """Opens the bundle and does units, see `Unit`.

    Args:
        settings: how maps are made.
        state: of the folder that the results go to.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings, self._state = settings, state
        self._fatal: str | None = None
        try:
            detector, self._predict = settings.open()
            self._engine = f"{detector.backend}, {detector.precision}"
        except SalienceError as error:
            # Ray would start a worker that raises again and again.
            self._fatal = str(error)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Done]]:
        """The units of a batch, as Ray Data hands them over, and what came of each."""
        return {"done": [self._do(unit) for unit in batch["unit"]]}

    def _do(self, unit: Unit) -> Done:
        if self._fatal:
            return Done(unit.name, Report(), fatal=self._fatal)
        self._state.note()
        attempts = Attempts(self._state.attempts / f"{unit.name}.json")
        report = unit.earlier() or self._run(unit, attempts)
        attempts.end()
        return Done(unit.name, report, attempts.count, engine=self._engine)

    def _run(self, unit: Unit, attempts: Attempts) -> Report:
        def attempt(key: str, source: ImageSource) -> bytes | SalienceError:
            try:
                attempts.begin(key)
                return self._map(source)
            except SalienceError as error:
                return error
            # One picture may not take the others with it.
            except Exception as error:
                return SalienceError(f"{type(error).__name__}: {error}")

        try:
            attempts.check(unit.source)
            return unit.run(attempt)
        except (SalienceError, OSError) as error:
            return Report(failures=[Failure(unit.source, "", str(error))])

    def _map(self, source: ImageSource) -> bytes:
        settings = self._settings
        return encode_png(self._predict(source).render(settings.kind, threshold=settings.threshold))
