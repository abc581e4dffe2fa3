"""Look up an entry of a stage's table; a table maps a public name to `package.module:attribute`."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from .errors import SalienceError


def entry(table: Mapping[str, str], name: str, *, what: str) -> Any:
    """The object that `table` names, imported now.

    Args:
        table: name -> `package.module:attribute`.
        name: the key.
        what: the kind of thing, for the message ("method", "backend").

    Raises:
        SalienceError: the table has no such name; the message lists those it has.
    """
    if name not in table:
        raise SalienceError(f"{what} {name!r} is not known: choose one of {', '.join(table)}.")
    return pkgutil.resolve_name(table[name])
