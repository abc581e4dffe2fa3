"""Parquet files: which column, which rows, and files that are damaged."""

from pathlib import Path

import pytest

from salience.runtime.errors import BackendUnavailableError, DataError
from salience.runtime.scale import columns

from .samples import read_table, write_table

pyarrow = pytest.importorskip("pyarrow")


def test_the_first_column_of_bytes_counts(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", rows=2, id=[1, 2, 3], name=["a", "b", "c"], image=[b"1", b"2", b"3"],
                       other=[b"x"] * 3)  # fmt: skip
    assert columns.row_counts(path, None) == ("image", [2, 1])
    assert columns.row_counts(path, "other") == ("other", [2, 1])
    for wrong in ("name", "missing"):
        with pytest.raises(DataError, match="those of bytes are image, other"):
            columns.row_counts(path, wrong)


@pytest.mark.parametrize(
    "values",
    [
        [b"111", b"222", b"333"],
        [{"bytes": value, "path": "1.jpg"} for value in (b"111", b"222", b"333")],
        pyarrow.array([b"111", b"222", b"333"], "large_binary"),
        pyarrow.array([b"111", b"222", b"333"], pyarrow.binary(3)),
    ],
)
def test_bytes_come_in_several_forms(tmp_path: Path, values: object) -> None:
    path = write_table(tmp_path / "t.parquet", rows=2, image=values)
    assert columns.row_counts(path, None) == ("image", [2, 1])
    assert list(columns.read_rows(path, 0, "image", 2)) == [b"111", b"222"]
    assert list(columns.read_rows(path, 1, "image", 1)) == [b"333"]


def test_rows_without_bytes_or_with_too_many_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LIMIT_BYTES", 3)
    values = [{"bytes": b"1234"}, {"bytes": None}, None, {"bytes": b"123"}]
    path = write_table(tmp_path / "t.parquet", rows=4, image=values)
    found = list(columns.read_rows(path, 0, "image", 4))
    assert "has 4 bytes, the limit is 3" in str(found[0])
    assert all("holds no bytes" in str(each) for each in found[1:3])
    assert found[3] == b"123"


def test_a_damaged_row_group_gives_an_error_for_every_row_that_is_left(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", rows=50, image=[bytes([index]) * 3000 for index in range(50)])
    data = bytearray(path.read_bytes())
    start = len(data) // 8
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    found = list(columns.read_rows(path, 0, "image", 50))
    assert len(found) == 50
    assert any(isinstance(each, DataError) for each in found)


@pytest.mark.parametrize("data", [b"", b"no table" * 100])
def test_what_is_no_table_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        columns.row_counts(path, None)


def test_more_rows_than_bytes_are_not_believed(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", rows=100_000, image=[b"x"] * 100_000)
    with pytest.raises(DataError, match="claims 100000 rows"):
        columns.row_counts(path, None)


def test_written_parts_are_joined_and_their_errors_found(tmp_path: Path) -> None:
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for first, part in zip((0, 2), parts, strict=True):
        with columns.write_table(part) as table:
            table.add(first, b"png")
            table.add(first + 1, DataError("broken"))
    columns.join_parts(parts, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == [
        {"row": row, "saliency": None if row % 2 else b"png", "error": "broken" if row % 2 else None}
        for row in range(4)
    ]
    assert columns.stored_errors(tmp_path / "t.parquet", 4) == {1: "broken", 3: "broken"}
    assert columns.stored_errors(tmp_path / "t.parquet", 5) is None
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-10])
    assert columns.stored_errors(tmp_path / "t.parquet", 4) is None


def test_without_pyarrow_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[ray\]'"):
        columns.load_arrow()
