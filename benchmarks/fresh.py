"""Measures one form in a process of its own: peak memory of a call above the loaded model, or the cold start.

    python -m benchmarks.fresh '{"measure": "memory", "workload": {...}, "form": {...}}'

The child prints one number. It is started by its own command, since a child of `multiprocessing` loads first what the
parent's script loads.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from benchmarks.forms import Form, Workload

Measure = Literal["memory", "cold start"]
_ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """In the child: measure what the argument says."""
    given = json.loads(sys.argv[1])
    found = (peak_memory if given["measure"] == "memory" else cold_start)(given["workload"], given["form"])
    print(f"\n{found!r}")


def in_new_process(measure: Measure, workload: "Workload", form: "Form") -> float:
    """Bytes or seconds of one form.

    Raises:
        RuntimeError: the child failed; the message is its last line.
    """
    given = {"measure": measure, "workload": {**asdict(workload), "folder": str(workload.folder)}, "form": asdict(form)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "benchmarks.fresh", json.dumps(given)],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160])
    return float(done.stdout.split()[-1])


def cold_start(workload: dict[str, Any], form: dict[str, Any]) -> float:
    """Seconds to the first result, with all imports but the standard library's."""
    start = time.perf_counter()
    _open(workload, form)()
    return time.perf_counter() - start


def peak_memory(workload: dict[str, Any], form: dict[str, Any]) -> int:
    """Bytes of the first call above what was there after loading."""
    from benchmarks.memory import peak_bytes

    return peak_bytes(_open(workload, form))


def _open(workload: dict[str, Any], form: dict[str, Any]) -> Callable[[], object]:
    from benchmarks.forms import Form, OurForms, Workload

    opened = Workload(**{**workload, "folder": Path(workload["folder"]), "size": tuple(workload["size"])})
    chosen = Form(**form)
    if chosen.kind == "salience":
        return OurForms(opened).open(chosen)
    if chosen.kind == "export":
        from benchmarks.exported import ExportedForms

        return ExportedForms(opened).open(chosen)
    from benchmarks.peers import TorchForms

    return TorchForms(opened).open(chosen)


if __name__ == "__main__":
    main()
