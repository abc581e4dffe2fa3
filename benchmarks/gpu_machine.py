"""What of all that a GPU check needs is on this machine, with a reason and a remedy for each thing that is not."""

import csv
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.gpu_probe import PROBES, Found
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.errors import BackendUnavailableError

ROOT = Path(__file__).resolve().parents[1]
_FIELDS = "index,name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.memory,power.limit"
_ASK_S, _PROBE_S = 20, 90
_PROBE = "benchmarks.gpu_probe"
# Where NVIDIA's installer puts it, which is often not on the PATH.
_NVCC = "/usr/local/cuda/bin/nvcc"


class Gpu(BaseModel):
    """A card, as nvidia-smi describes it; None for what it does not say.

    Attributes:
        index: N of `cuda:N` in the order of the PCI bus.
        name: of the model.
        driver: its version.
        memory_bytes: in all.
        capability: CUDA compute capability, such as "9.0".
        clock_mhz: the highest of its multiprocessors.
        memory_clock_mhz: the highest of its memory.
        power_w: what it may draw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    name: str
    driver: str
    memory_bytes: int | None
    capability: str | None
    clock_mhz: float | None
    memory_clock_mhz: float | None
    power_w: float | None


class Machine(BaseModel):
    """The cards, and what was found of everything that parts need, by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: tuple[Gpu, ...]
    found: dict[str, Found]

    def lacks(self, needs: Iterable[str]) -> str | None:
        """Why the first of `needs` that is missing is missing; None where all are there.

        "A or B" asks for either, and gives the reason of A.
        """
        for need in needs:
            reasons = [self.found[name].reason for name in need.split(" or ")]
            if all(reasons):
                return reasons[0]
        return None


def look(device: str = "cuda") -> Machine:
    """Look for everything at once; what does not answer in time is missing.

    Raises:
        EngineError: `device` is no device.
    """
    with ThreadPoolExecutor() as pool:
        packages = {name: pool.submit(probe, name) for name in PROBES}
        gpus, driver, gpu = _cards(EngineOptions(device=device).device_index)
        tools = {"nvcc": _tool("nvcc", find_nvcc()), "cmake": _tool("cmake", shutil.which("cmake"))}
        found = {"driver": driver, "gpu": gpu, **{name: asked.result() for name, asked in packages.items()}, **tools}
    return Machine(gpus=gpus, found=found)


def probe(name: str) -> Found:
    """Ask for a package in a process of its own."""
    try:
        done = _ask([sys.executable, "-m", _PROBE, name], _PROBE_S)
        return Found.model_validate_json(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Found(reason=f"{name} did not answer within {_PROBE_S} s; import it by hand to see why")
    except subprocess.CalledProcessError as error:
        return Found(reason=f"{name} is broken here: importing it {ending(error.returncode)}; install it again")
    except (IndexError, ValidationError):
        return Found(reason=f"{name} is broken here: importing it ends the process; install it again")


def list_gpus() -> tuple[Gpu, ...]:
    """The cards that the driver shows.

    Raises:
        BackendUnavailableError: there is no driver, or it does not answer.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise BackendUnavailableError("nvidia-smi is not here; install NVIDIA's driver where there is a GPU")
    try:
        done = _ask([program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"], _ASK_S)
        return read_gpus(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailableError(f"nvidia-smi did not answer within {_ASK_S} s; restart the machine") from error
    except (OSError, subprocess.CalledProcessError) as error:
        texts = (getattr(error, "stdout", None), getattr(error, "stderr", None), str(error))
        said = next(text.strip() for text in texts if text and text.strip()).splitlines()[0]
        raise BackendUnavailableError(f"nvidia-smi failed ({said}); install the driver again, or restart") from error


def read_gpus(text: str) -> tuple[Gpu, ...]:
    """The cards from the text that nvidia-smi answers with, a line each.

    Raises:
        BackendUnavailableError: the text is of another form.
    """
    lines = [[cell.strip() for cell in line] for line in csv.reader(text.strip().splitlines())]
    try:
        return tuple(_gpu(*line) for line in lines)
    except (TypeError, ValueError) as error:
        raise BackendUnavailableError(
            f"nvidia-smi answered {text.strip().splitlines()[0]!r}, expected {_FIELDS}; update the driver"
        ) from error


def find_nvcc() -> str | None:
    """The CUDA compiler, on the PATH or where NVIDIA's installer puts it."""
    return shutil.which("nvcc") or shutil.which(_NVCC)


def read_version(text: str) -> str | None:
    """The version in what a tool prints for `--version`: the most detailed number with dots."""
    return max(re.findall(r"\d+(?:\.\d+)+", text), key=len, default=None)


def ending(code: int) -> str:
    """How a process ended, in words: a negative code is that of a signal."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _cards(wanted: int) -> tuple[tuple[Gpu, ...], Found, Found]:
    """All cards, the driver, and the card number `wanted`."""
    try:
        gpus = list_gpus()
    except BackendUnavailableError as error:
        return (), Found(reason=str(error)), Found(reason=f"no GPU: {error}")
    driver = Found(version=gpus[0].driver if gpus else None)
    if wanted >= len(gpus):
        return (
            gpus,
            driver,
            Found(reason=f"no GPU of number {wanted}: the driver shows {len(gpus)}; choose another device"),
        )
    card = gpus[wanted]
    return gpus, driver, Found(version=f"{card.name}, compute capability {card.capability}")


def _tool(name: str, path: str | None) -> Found:
    if path is None:
        return Found(reason=f"{name} is not installed; install {_PACKAGES[name]}")
    try:
        return Found(version=read_version(_ask([path, "--version"], _ASK_S).stdout))
    except (OSError, subprocess.SubprocessError) as error:
        return Found(reason=f"{name} does not answer ({error}); install {_PACKAGES[name]} again")


_PACKAGES = {"nvcc": "NVIDIA's CUDA toolkit", "cmake": "CMake 3.22 or later"}


def _gpu(index: str, name: str, driver: str, memory: str, capability: str, *rest: str) -> Gpu:
    clock, memory_clock, power = map(_number, rest)
    mebibytes = _number(memory)
    return Gpu(
        index=int(index), name=name, driver=driver, clock_mhz=clock, memory_clock_mhz=memory_clock, power_w=power,
        memory_bytes=None if mebibytes is None else int(mebibytes * 2**20),
        capability=capability if _number(capability) else None,
    )  # fmt: skip


def _number(cell: str) -> float | None:
    """None for "[N/A]" and its like."""
    return None if cell.startswith("[") else float(cell)


def _ask(command: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """What a program prints."""
    return subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=True, timeout=limit_s
    )
