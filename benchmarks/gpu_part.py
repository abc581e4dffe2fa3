"""Runs one part of the GPU check in a process of its own, which may crash or hang without harm to the others.

    python -m benchmarks.gpu_part benchmarks.gpu_speed:peak '{"device": "cuda", "folder": "."}' rows.jsonl

adds each row to the file as soon as it is found.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu_machine import ROOT, ending
from benchmarks.gpu_parts import Part
from benchmarks.gpu_record import PartResult, Row, Setting

INTERRUPTED = "the check was interrupted"
_SHOWN_LINES = 30


def main() -> int:
    """In the child: what goes wrong is the last line of standard error."""
    run, setting, file = sys.argv[1:]
    module, _, name = run.partition(":")
    try:
        with Path(file).open("w", encoding="utf-8") as rows:
            for row in getattr(importlib.import_module(module), name)(Setting.model_validate_json(setting)):
                print(row.model_dump_json(), file=rows, flush=True)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or ["it gave no reason"])[0]
        print(f"{type(error).__name__}: {first}", file=sys.stderr)
        return 1
    return 0


def in_child(part: Part, setting: Setting, limit_s: float) -> PartResult:
    """Run a part for at most `limit_s` seconds; its rows so far are kept however it ends.

    What a child that failed wrote last to standard error is printed there too.
    """
    file, log = (setting.folder / f"{part.name}.{suffix}" for suffix in ("jsonl", "log"))
    command = [sys.executable, "-m", "benchmarks.gpu_part", part.run, setting.model_dump_json(), str(file)]
    # CUDA counts the fastest card first, nvidia-smi goes by the bus.
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **os.environ}
    started = time.monotonic()
    with log.open("wb") as errors:
        child = subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
        stopped = _wait(child, limit_s)
    seconds = round(time.monotonic() - started, 2)
    rows = _read_rows(file, part.name)
    if stopped or child.returncode == 0:
        return PartResult.judged(part.name, part.title, seconds, rows, stopped=stopped)
    said = _last_lines(log)
    print("\n".join(said), file=sys.stderr)
    reason = ": ".join([f"the part {ending(child.returncode)}", *(_shown(line, setting.folder) for line in said[-1:])])
    return PartResult(name=part.name, title=part.title, status="failed", reason=reason, seconds=seconds, rows=rows)


def _wait(child: subprocess.Popen[bytes], limit_s: float) -> str:
    """Until the child ends; why it was stopped, else nothing. No process that it started lives on."""
    try:
        child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"it was stopped after {limit_s:.0f} s"
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return ""


def _read_rows(file: Path, part: str) -> tuple[Row, ...]:
    """Whole lines alone: the child may have been stopped within one."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []
    rows = map(Row.model_validate_json, lines)
    return tuple(row.model_copy(update={"part": part, "note": _shown(row.note, file.parent)}) for row in rows)


def _shown(text: str, folder: Path) -> str:
    """Text without the folders where this check happens to run: they say nothing elsewhere."""
    return text.replace(f"{folder}/", "").replace(f"{ROOT}/", "")


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-_SHOWN_LINES:]


if __name__ == "__main__":
    sys.exit(main())
