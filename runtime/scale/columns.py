"""Parquet files with pictures: read by row groups, written in parts that are joined."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailableError, DataError, SalienceError
from ..files import atomic_path
from .shards import LIMIT_BYTES

# Rows that are decoded at once, and what a group of written rows may hold.
_READ_ROWS = 8
_GROUP_ROWS, _GROUP_BYTES = 1000, 64 << 20


def load_arrow() -> Any:
    """pyarrow, with its Parquet module; BackendUnavailableError with the remedy where it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError("Parquet files need pyarrow: pip install 'salience[ray]'.") from error
    return pyarrow


def row_counts(path: Path, column: str | None) -> tuple[str, list[int]]:
    """The name of the column of pictures, and the rows of each row group.

    Args:
        path: a Parquet file.
        column: None for the first one that holds bytes, or structs with a field `bytes` as Hugging Face writes them.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    arrow = load_arrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            counts = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
            schema = file.schema_arrow
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"table {path}: cannot be read as Parquet ({_reason(error)}); is the file whole?") from error
    # A map is written of every row, so that a forged count would fill the disk.
    if sum(counts) > path.stat().st_size:
        raise DataError(f"table {path}: claims {sum(counts)} rows, more than it has bytes; is the file whole?")
    found = [field.name for field in schema if _holds_bytes(arrow, field.type)]
    if not found or column not in (None, *found):
        raise DataError(
            f"table {path}: no column {column or 'of bytes'}; those of bytes are {', '.join(found) or 'none'}, "
            f"of {', '.join(schema.names)}."
        )
    return column or found[0], counts


def _holds_bytes(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(arrow, kind.field("bytes").type)
    return any(check(kind) for check in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary))


def read_rows(path: Path, group: int, column: str, count: int) -> Iterator[bytes | DataError]:
    """The pictures of one row group; exactly `count` items, errors in place of what cannot be given."""
    arrow = load_arrow()
    given, problem = 0, DataError(f"table {path}: row group {group} ends too early; is the file whole?")
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_READ_ROWS, row_groups=[group], columns=[column]):
                for value in batch.column(0).slice(0, count - given):
                    given += 1
                    yield _content(path, value)
    except (arrow.ArrowException, OSError, ValueError) as error:
        problem = DataError(f"table {path}: row group {group} cannot be read ({_reason(error)}); is the file whole?")
    for _ in range(given, count):
        yield problem


def _content(path: Path, value: Any) -> bytes | DataError:
    if value.is_valid and hasattr(value, "keys"):
        value = value["bytes"]
    if not value.is_valid:
        return DataError(f"table {path}: the row holds no bytes.")
    size_bytes = value.as_buffer().size
    if size_bytes > LIMIT_BYTES:
        return DataError(f"table {path}: the row has {size_bytes} bytes, the limit is {LIMIT_BYTES}.")
    return bytes(value.as_py())


class TableWriter:
    """Collects rows and writes them, a group at a time."""

    def __init__(self, path: Path) -> None:
        self._arrow = load_arrow()
        self._schema = self._arrow.schema([("row", "int64"), ("saliency", "binary"), ("error", "string")])
        self._file = self._arrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple[int, bytes | None, str | None]] = []
        self._held_bytes = 0

    def add(self, row: int, result: bytes | SalienceError) -> None:
        """One row: its number in the input, and PNG or why there is none."""
        png = None if isinstance(result, SalienceError) else result
        self._rows.append((row, png, str(result) if png is None else None))
        self._held_bytes += len(png or b"")
        if len(self._rows) == _GROUP_ROWS or self._held_bytes > _GROUP_BYTES:
            self._flush()

    def append(self, part: Path) -> None:
        """All rows of a file of this kind."""
        with self._arrow.parquet.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                self._file.write_table(file.read_row_group(group))

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            columns = [list(values) for values in zip(*self._rows, strict=True)]
            self._file.write_table(self._arrow.table(columns, schema=self._schema))
        self._rows, self._held_bytes = [], 0


@contextmanager
def write_table(path: Path) -> Iterator[TableWriter]:
    """A new file that takes its place when the block ends well."""
    with atomic_path(path) as temporary:
        writer = TableWriter(temporary)
        try:
            yield writer
        finally:
            writer.close()


def join_parts(parts: Sequence[Path], path: Path) -> None:
    """Write one file of the rows of several, in their order."""
    with write_table(path) as table:
        for part in parts:
            table.append(part)


def stored_errors(path: Path, count: int) -> dict[int, str] | None:
    """Row number -> error of a file that `write_table` has written; None where it is not whole or has other rows."""
    arrow = load_arrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            if file.metadata.num_rows != count:
                return None
            found = file.read(columns=["row", "error"]).to_pylist()
    except (arrow.ArrowException, OSError, ValueError):
        return None
    return {each["row"]: each["error"] for each in found if each["error"] is not None}


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
