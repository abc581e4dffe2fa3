"""The part of the GPU check that builds the CUDA kernels and reads what `kernels_gpu` finds of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu_machine import ROOT, ending, find_nvcc
from benchmarks.gpu_record import Row, Setting
from salience.runtime.backends.engine import EngineOptions, available_cores
from salience.runtime.errors import SalienceError

_PROGRAM = ROOT / "build/cuda/benchmarks/native/kernels_gpu"
_LIBRARY = ROOT / "build/cuda/runtime/kernels/libsalience_kernels.so"
_CARD = re.compile(r".+, compute capability \d+\.\d+")
_LINE = re.compile(
    r"(?P<operator>\S.*?) +(?P<sizes>\d+(?: x \d+)*) +(?P<megabytes>\d+\.\d) +(?P<launched>\S+) +(?P<replayed>\S+) +"
    r"(?P<us>\d+\.\d) +(?P<copy_us>\d+\.\d) +(?P<of_copy>\d+) % +(?P<verdict>right|WRONG)"
)


def kernels(setting: Setting) -> Iterator[Row]:
    """Every kernel beside the CPU's, launched and replayed from a captured graph, and beside a copy of as many bytes.

    Raises:
        SalienceError: they cannot be built, or the program stops.
    """
    build()
    # The program takes the first card that it sees.
    shown = [card for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    index = EngineOptions(device=setting.device).device_index
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": shown[index] if index < len(shown) else str(index)}
    with subprocess.Popen(  # noqa: S603
        [_PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        wrong = False
        for row in read_table(program.stdout or ()):
            wrong |= row.passed is False
            yield row
    if program.returncode and not wrong:
        raise SalienceError(f"kernels_gpu {ending(program.returncode)}, expected a table that ends; run it by hand.")


def build() -> Path:
    """Build the library of kernels, whose path is given, and `kernels_gpu` into build/cuda, as `make native-cuda` does.

    Raises:
        SalienceError: a step failed.
    """
    _run(["cmake/fetch_headers.sh"])
    _run(["cmake", "--preset", "cuda", f"-DPython3_EXECUTABLE={sys.executable}"])
    _run(["cmake", "--build", "--preset", "cuda", "--parallel", str(available_cores())])
    return _LIBRARY


def read_table(lines: Iterable[str]) -> Iterator[Row]:
    """The rows of each line of what `kernels_gpu` prints, below the card's name and the columns'.

    Raises:
        SalienceError: the program says something else, which is then what went wrong.
    """
    for number, line in enumerate(map(str.strip, lines)):
        found = _LINE.fullmatch(line)
        if found:
            yield from _rows(found)
        elif not (number == 0 and _CARD.fullmatch(line)) and not (number == 1 and line.startswith("operator ")):
            raise SalienceError(line)


def _rows(found: re.Match[str]) -> Iterator[Row]:
    form = f"{found['operator']}, {found['sizes']}"
    worst = max(float(found["launched"]), float(found["replayed"]))
    yield Row(form=form, measure="largest difference", value=worst, passed=found["verdict"] == "right")
    yield Row(form=form, measure="moved", value=float(found["megabytes"]), unit="MB")
    yield Row(form=form, measure="time", value=float(found["us"]), unit="us")
    yield Row(form=form, measure="of a copy's speed", value=float(found["of_copy"]), unit="%")


def _run(command: Sequence[str]) -> None:
    environment = {"CUDACXX": find_nvcc() or "nvcc", **os.environ}
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise SalienceError(
            f"kernels: {command[0]} {ending(done.returncode)}, expected a build; what it said stands above."
        )
