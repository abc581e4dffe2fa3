"""The cores that a process may use."""

import os
from pathlib import Path

import pytest

from salience.runtime.backends import engine


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("1 0", None)],
)
def test_a_quota_counts_begun_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert engine.quota_cores(tmp_path / "cpu.max") == cores


def test_no_more_than_the_quota_and_no_more_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(engine, "_CPU_QUOTA", tmp_path / "cpu.max")
    assert engine.available_cores() == 64
    (tmp_path / "cpu.max").write_text("300000 100000")
    assert engine.available_cores() == 3
    (tmp_path / "cpu.max").write_text("9900000 100000")
    assert engine.available_cores() == 64
