"""Split files: which images train, which validate, which test.

JSON, `{"<set>": {"train": [names], "val": [...], "test": [...]}}`; names are paths below `<set>/images`
without suffix. Other keys are passed over.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import DataError

Part = Literal["train", "val", "test"]


class _Split(BaseModel):
    """What a split file says of one set; parts it does not have are None."""

    train: list[str] | None = None
    val: list[str] | None = None
    test: list[str] | None = None


def read_part(path: Path, part: Part, *, set_name: str) -> set[str]:
    """The names that split file `path` gives to `part` of a set.

    Raises:
        DataError: the file cannot be read, or gives none.
    """
    sets = _read(path)
    names: list[str] | None = getattr(sets[set_name], part) if set_name in sets else None
    if not names:
        raise DataError(
            f"splits {path}: no names for {part!r} of the set {set_name!r} (the folder above images and masks); "
            f"the file has the sets {', '.join(sorted(sets)) or 'none'}."
        )
    return set(names)


def listed_sets(path: Path) -> frozenset[str]:
    """Return the sets that a split file names; errors as `read_part`."""
    return frozenset(_read(path))


def _read(path: Path) -> dict[str, _Split]:
    try:
        table = TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
        return {name: _Split.model_validate(value) for name, value in table.items() if isinstance(value, dict)}
    except (OSError, ValidationError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise DataError(f"splits {path}: {detail}; expected JSON, a list of names for each part of a set.") from error
