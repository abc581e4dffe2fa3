"""Options that several commands share: a frozen dataclass, expanded into the parameters of each command.

A field made by `option` carries its help text and limits. `expand_options` is the only place that turns such fields
into Typer parameters.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

R = TypeVar("R")

_KEY = "option"


@dataclass(frozen=True)
class _Option:
    """How a field appears on the command line."""

    help: str
    names: tuple[str, ...]
    given_as: Any
    convert: Callable[[Any], Any] | None
    panel: str | None
    least: float | None
    most: float | None


def option(
    default: Any,
    help: str,
    *names: str,
    given_as: Any = None,
    convert: Callable[[Any], Any] | None = None,
    panel: str | None = None,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """Declare a field of an option group.

    Args:
        default: the field's default; a dict or list is copied.
        help: one sentence.
        names: on the command line, such as "--provider-option"; none: from the field's name.
        given_as: type of what the command line gives, where it differs from the field's.
        convert: from that to the field's value; raises SalienceError.
        panel: heading in the help text.
        min: the least number that is allowed.
        max: the largest.
    """
    metadata = {_KEY: _Option(help, names, given_as, convert, panel, min, max)}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: default.copy(), hash=False, metadata=metadata)
    return field(default=default, metadata=metadata)


def expand_options(command: Callable[..., R]) -> Callable[..., R]:
    """Replace each parameter of `command` whose type is an option group by the options of the group."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups = {name: hint for name, hint in hints.items() if name != "return" and is_dataclass(hint)}
    parameters = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def wrapper(**given: Any) -> R:
        built = {name: _build(group, given) for name, group in groups.items()}
        return command(**given, **built)

    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": hints.get("return")}
    return wrapper


def _parameters(group: Any) -> list[inspect.Parameter]:
    import typer

    hints = get_type_hints(group)
    found = []
    for each in fields(group):
        described: _Option = each.metadata[_KEY]
        shown = typer.Option(
            *described.names, help=described.help, rich_help_panel=described.panel, min=described.least,
            max=described.most,
        )  # fmt: skip
        # Typer shows a default that is None as none; a converted field has another type than its option.
        default = None if described.convert else each.default
        kind = described.given_as or hints[each.name]
        found.append(
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, shown]
            )
        )
    return found


def _build(group: Any, given: dict[str, Any]) -> Any:
    """An instance of `group` from `given`, which loses the group's options."""
    values = {}
    for each in fields(group):
        described: _Option = each.metadata[_KEY]
        value = given.pop(each.name)
        values[each.name] = described.convert(value) if described.convert else value
    return group(**values)
