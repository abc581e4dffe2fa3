"""Protobuf's text format, of plain values: what a `config.pbtxt` is written in."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias


class Word(str):
    """A text that is written bare: the name of an enumeration's value."""

    __slots__ = ()


Scalar: TypeAlias = "bool | int | str"
Value: TypeAlias = "Scalar | Message | Sequence[int] | Sequence[Message]"
Message: TypeAlias = Mapping[str, Value]


def message_text(message: Message, indent: str = "") -> str:
    """The fields of a message, a line each; a sequence is a repeated field."""
    return "".join(_field(name, value, indent) for name, value in message.items())


def _field(name: str, value: Value, indent: str) -> str:
    if isinstance(value, bool | int | str):
        return f"{indent}{name}: {_scalar(value)}\n"
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{message_text(value, indent + '  ')}{indent}}}\n"
    if all(isinstance(each, int) for each in value):
        return f"{indent}{name}: [{', '.join(map(str, value))}]\n"
    return "".join(_field(name, each, indent) for each in value)


def _scalar(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | Word) else _quoted(value)


def _quoted(text: str) -> str:
    """In quotes, with every byte that is not plain ASCII in octal."""
    plain = set(range(32, 127)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
