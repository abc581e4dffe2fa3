"""Where, when and with what something was measured."""

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from salience.runtime.backends.engine import available_cores

# Of x86 CPUs: what int8 and bf16 products run on.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
TOOLS = ("torch", "onnx", "onnxruntime", "openvino", "salience")
_ROOT = Path(__file__).resolve().parents[1]


class Evidence(BaseModel):
    """What another machine would need to know to compare its figures.

    Attributes:
        cpu: its model.
        cores: that this process may use.
        flags: those of `CPU_FLAGS` that it has.
        memory_bytes: of the machine.
        load: processes that wanted to run in the minute before, on average; idle machines have less than one a core.
        system: operating system and kernel.
        python: its version.
        versions: of `TOOLS`, as far as they are installed.
        commit: of this project, None outside of a clone.
        changed: whether the working tree differs from that commit.
        date: in UTC.
        command: as it was typed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_bytes: int | None
    load: float | None
    system: str
    python: str
    versions: dict[str, str]
    commit: str | None
    changed: bool | None
    date: str
    command: str

    @classmethod
    def gather(cls) -> Self:
        """Of this process."""
        cpu, flags = read_cpu(_read("/proc/cpuinfo"))
        status = _git("status", "--porcelain")
        return cls(
            cpu=cpu or platform.processor() or platform.machine(),
            cores=available_cores(),
            flags=flags,
            memory_bytes=read_memory(_read("/proc/meminfo")),
            load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            system=platform.platform(),
            python=platform.python_version(),
            versions={tool: version for tool in TOOLS if (version := version_of(tool))},
            commit=_git("rev-parse", "HEAD"),
            changed=None if status is None else bool(status),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join(map(without_folders, _command())),
        )


def read_cpu(text: str) -> tuple[str, tuple[str, ...]]:
    """Model and flags from the text of /proc/cpuinfo (Linux); empty where it has none."""
    rows = [line.partition(":") for line in text.splitlines()]
    found = {key.strip(): value.strip() for key, _, value in rows}
    present = set(found.get("flags", "").split())
    return found.get("model name", ""), tuple(flag for flag in CPU_FLAGS if flag in present)


def without_folders(word: str) -> str:
    """A word of a command line, absolute paths in it by their last name alone: where a file lay says nothing."""
    return re.sub(r"(^|=)/(?:[^/=]+/)*([^/=]+)/?", r"\1\2", word)


def read_memory(text: str) -> int | None:
    """Bytes from the text of /proc/meminfo (Linux)."""
    sizes = [int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemTotal:")]
    return sizes[0] if sizes else None


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text() if file.is_file() else ""


def version_of(distribution: str) -> str | None:
    """Of an installed distribution; None for none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git prints, None where it fails or is missing."""
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)  # noqa: S603, S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _command() -> list[str]:
    """The command line; modules run by `python -m` have their path in place of their name."""
    script = Path(sys.argv[0])
    if script.parent == Path(__file__).parent:
        return ["python", "-m", f"benchmarks.{script.stem}", *sys.argv[1:]]
    return [script.name, *sys.argv[1:]]
