"""Peak memory of a call: the high-water mark of this process, set back before it (Linux)."""

from collections.abc import Callable
from pathlib import Path


def peak_bytes(call: Callable[[], object]) -> int:
    """By how much the resident memory rose above where it stood, at most, while `call` ran."""
    # 5 sets the high-water mark to the present size (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
