"""Parts of a GPU check that end in every way that parts can end, and a machine on which all of them can run.

    python -m tests.benchmarks.gpu_fakes ARGUMENTS

checks the parts good, slow and wrong on that machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import mock

from benchmarks import gpu
from benchmarks.gpu_machine import Gpu, Machine
from benchmarks.gpu_parts import Part
from benchmarks.gpu_probe import Found
from benchmarks.gpu_record import Row, Setting

CARD = Gpu(
    index=0, name="NVIDIA Test", driver="580.1", memory_bytes=2**34, capability="9.0", clock_mhz=1980.0,
    memory_clock_mhz=None, power_w=700.0,
)  # fmt: skip
MACHINE = Machine(gpus=(CARD,), found={"gpu": Found(version=CARD.name), "tool": Found(reason="no tool; install one")})
NO_GPU = Machine(gpus=(), found={"gpu": Found(reason="no GPU: nvidia-smi is not here"), "tool": Found(version="1")})


def part(function: str, *, needs: tuple[str, ...] = ("gpu",), seconds: float = 60) -> Part:
    return Part(function, f"the part {function}", needs, seconds, f"tests.benchmarks.gpu_fakes:{function}")


def good(setting: Setting) -> Iterator[Row]:
    sys.stdout.write("a library's noise\n")
    yield Row(method="multis", form=setting.device, measure="relative error", value=1e-5, limit=1e-4, passed=True)
    yield Row(
        method="multis", form=setting.device, batch=8, measure="speed", value=1234.5, unit="images/s", note="a\u2028b"
    )


def wrong(setting: Setting) -> Iterator[Row]:
    yield from good(setting)
    yield Row(
        method="arn", form="fp16", measure="relative error", value=float("nan"), limit=1e-4, passed=False, note="odd"
    )


def raising(setting: Setting) -> Iterator[Row]:
    yield from good(setting)
    raise ValueError(f"{setting.folder}/engine is too old\nand more")


def crashing(setting: Setting) -> Iterator[Row]:
    yield from good(setting)
    sys.stderr.write("driver: illegal address\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGSEGV)


def slow(setting: Setting) -> Iterator[Row]:
    child = subprocess.Popen(["sleep", "600"])
    yield Row(measure="child", value=child.pid)
    time.sleep(600)


def cut(setting: Setting) -> Iterator[Row]:
    """Ended while it writes a row."""
    yield from good(setting)
    with (setting.folder / "cut.jsonl").open("a") as rows:
        rows.write('{"measure": "sp')
    os.kill(os.getpid(), signal.SIGKILL)


def silent(setting: Setting) -> Iterator[Row]:
    yield from ()


def elsewhere(setting: Setting) -> Iterator[Row]:
    yield Row(form="engine", measure="builds for this GPU", note="compute capability 9.0 is not served")


if __name__ == "__main__":
    with mock.patch.object(gpu, "look", return_value=MACHINE):
        gpu.main(parts=[part("good"), part("slow"), part("wrong")])
