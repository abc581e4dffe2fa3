"""Training runs and ablations, read from their files for the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ValidationError, model_validator

from salience.runtime.errors import DataError
from salience.training.curves import read_history
from salience.training.run_state import EpochRecord


@dataclass(frozen=True)
class TrainingRun:
    """The epochs of a run, at least one, and the method that it trained."""

    method: str
    folder: str
    epochs: Sequence[EpochRecord]

    @property
    def best(self) -> EpochRecord:
        """The epoch of the best validation score, which is the one that training keeps."""
        return max(self.epochs, key=lambda epoch: epoch.quality)

    @property
    def hours(self) -> float:
        """That all epochs took together."""
        return sum(epoch.seconds for epoch in self.epochs) / 3600


class VariantScores(BaseModel):
    """A value for each seed."""

    f_max: list[float]
    mae: list[float]


class Variant(BaseModel):
    """One side of a comparison; what is not trained has no seeds, and one value of each score."""

    variant: str
    seeds: list[int]
    pictures: int | None = None
    scores: VariantScores

    @model_validator(mode="after")
    def _one_value_a_seed(self) -> Self:
        if {len(self.scores.f_max), len(self.scores.mae)} != {max(1, len(self.seeds))}:
            raise ValueError(f"variant {self.variant!r}: a score for each seed, and one without seeds")
        return self


class Claim(BaseModel):
    """What is said of a method, and what its ablation found."""

    claim: str
    method: str
    verdict: Literal["holds", "does not hold", "not decidable here"]
    reason: str
    rows: list[Variant]


class Ablations(BaseModel):
    """The JSON file of ablations; of `runs` the report gives the number."""

    runs: list[object]
    claims: list[Claim]


def read_ablations(path: Path) -> Ablations:
    """Read the file.

    Raises:
        DataError: it is missing or damaged.
    """
    expected = "JSON with runs and claims, as the ablations write it"
    try:
        return Ablations.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"ablations {path}: cannot be read ({error.strerror}); expected {expected}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = " ".join(filter(None, [place, first["msg"]]))
        raise DataError(f"ablations {path}: {reason}; expected {expected}.") from error


def read_run(method: str, folder: Path) -> TrainingRun:
    """Read the history of a run.

    Raises:
        DataError: it is missing, damaged or empty.
    """
    return TrainingRun(method, folder.name, read_history(folder))


def unique_titles(runs: Sequence[TrainingRun]) -> list[str]:
    """Method and folder of each run, numbered where two are the same."""
    titles = [f"{run.method}, {run.folder}" for run in runs]
    return [
        f"{title} ({titles[:i].count(title) + 1})" if titles.count(title) > 1 else title
        for i, title in enumerate(titles)
    ]
