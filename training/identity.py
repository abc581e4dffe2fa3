"""What two runs must share for one to continue the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Identity:
    """The settings of a run: `models` by name, and `others`, which are numbers, names or None."""

    models: Mapping[str, BaseModel]
    others: Mapping[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """As numbers, text, lists and dictionaries, to be saved."""
        return {name: model.model_dump(mode="json") for name, model in self.models.items()} | dict(self.others)

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """Where `values` of another run differ, as `optimiser.rate was 0.1, is 0.2`.

        A setting that is newer than what was saved counts as its default, anything else that is newer as equal.
        """
        was = _flat({name: self._filled(name, value) for name, value in saved.items()})
        now = _flat({name: value for name, value in self.values.items() if name in saved})
        return [
            f"{name} was {was.get(name)}, is {now.get(name)}"
            for name in sorted(was.keys() | now.keys())
            if was.get(name) != now.get(name)
        ]

    def _filled(self, name: str, value: Any) -> Any:
        """`value`, with defaults for the settings that it lacks."""
        model = self.models.get(name)
        try:
            return type(model).model_validate(value).model_dump(mode="json") if model else value
        except ValidationError:
            return value


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of settings as `optimiser.rate`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat
