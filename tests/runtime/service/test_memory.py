"""Freed memory goes back to the system."""

import ctypes
import platform
from pathlib import Path

import pytest

from salience.runtime.service.memory import trim_heap


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps pieces between others")
def test_freed_pieces_between_others_are_given_back() -> None:
    pieces = [bytes([1]) * 60_000 for _ in range(2000)]
    kept = pieces[::10]
    del pieces
    before = resident_bytes()
    assert trim_heap()
    assert resident_bytes() < before - 80_000_000
    assert len(kept) == 200


def test_a_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert trim_heap() is False
