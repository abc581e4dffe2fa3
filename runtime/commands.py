"""What every command line of the project shares: errors as one sentence, and the right exit code."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import SalienceError

P = ParamSpec("P")
R = TypeVar("R")
ModelT = TypeVar("ModelT", bound=BaseModel)


def report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a SalienceError, or an error of the file system, into a sentence on standard error and exit code 1."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except SalienceError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None
        except BrokenPipeError:
            # Whoever read the output has left; typer ends in silence.
            raise
        except OSError as error:
            subject = error.filename2 or error.filename
            reason = error.strerror or str(error)
            print(f"error: {subject}: {reason}." if subject else f"error: {reason}.", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None

    return wrapper


def repeat_flags(arguments: Sequence[str], flags: frozenset[str]) -> list[str]:
    """Write `--data A B` as `--data A --data B`, which is the form that typer reads.

    Args:
        arguments: the command line, without the program's name.
        flags: the options that take several values.
    """
    spelled: list[str] = []
    current = ""
    for argument in arguments:
        if argument.startswith("-"):
            current = argument if argument in flags else ""
        elif current and spelled[-1] != current:
            spelled.append(current)
        spelled.append(argument)
    return spelled


def parse_pairs(options: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """`["width=32"]` -> `{"width": "32"}`; the settings' types turn the text into values.

    Raises:
        SalienceError: one of `options`, all given with `flag`, is not NAME=VALUE.
    """
    found = {}
    for option in options or []:
        name, equals, value = option.partition("=")
        if not equals:
            raise SalienceError(f"{flag} {option}: expected NAME=VALUE.")
        found[name] = value
    return found


def parse_settings(model: type[ModelT], values: dict[str, Any], flag: str) -> ModelT:
    """`values`, given with `flag`, as a checked `model`.

    Raises:
        SalienceError: a name is not known or a value not possible; the message lists the known names.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SalienceError(f"{flag}: {problems}; known: {', '.join(model.model_fields) or 'none'}.") from error
