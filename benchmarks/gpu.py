"""Checks and measures everything of this project that runs on an NVIDIA GPU, and lists what cannot run with its reason.

    python -m benchmarks.gpu --output gpu.json --report gpu.md

Each part runs in a process of its own, for a limited time. Without a GPU no part runs, which is no failure.
"""

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence import Evidence
from benchmarks.gpu_machine import Machine, look
from benchmarks.gpu_part import INTERRUPTED, in_child
from benchmarks.gpu_parts import PARTS, Part
from benchmarks.gpu_record import PartResult, Record, Setting
from benchmarks.gpu_texts import report
from salience.runtime.commands import report_errors
from salience.runtime.files import write_atomic

SECONDS = 450
# A part that gets less than this cannot even import what it needs.
_LEAST_S = 3


@dataclass
class Progress:
    """What is known while the check goes on.

    Attributes:
        output, report: files that hold it at any time; None for none.
        record: with the parts that ended, and all others as not run.
    """

    output: Path | None
    report: Path | None
    record: Record

    def add(self, *ended: PartResult) -> None:
        """Take in parts that ended, and write the files, so that nothing is lost however the check ends."""
        by_name = {part.name: part for part in ended}
        parts = tuple(by_name.get(part.name, part) for part in self.record.parts)
        self.record = self.record.model_copy(update={"parts": parts})
        if self.output:
            self.record.write(self.output)
        if self.report:
            write_atomic(self.report, report(self.record).encode())


@report_errors
def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> None:
    """Run the parts that can run; exit code 1 if one failed, 2 for wrong arguments, 130 if interrupted."""
    options = _parser(parts).parse_args(arguments)
    if options.list:
        print("\n".join(f"{part.name:<16} {part.seconds:4.0f} s  {part.title}" for part in parts))
        return
    evidence, machine = Evidence.gather(), look(options.device)
    for name, found in machine.found.items():
        print(f"{name:<26} {found.reason or found.version or 'found'}", flush=True)
    unknown = tuple(_not_run(part, "the check did not come to it") for part in parts)
    record = Record(evidence=evidence, machine=machine, device=options.device, quick=options.quick, parts=unknown)
    progress = Progress(options.output, options.report, record)
    progress.add()
    wanted = {part.name for part in parts if part.name in (options.only or [part.name])} - set(options.skip)
    with tempfile.TemporaryDirectory(prefix="salience-gpu-") as folder, suppress(KeyboardInterrupt):
        setting = Setting(device=options.device, folder=Path(folder), quick=options.quick)
        for result in run(parts, machine, setting, wanted=wanted, seconds=options.seconds):
            print(f"{result.name:<16} {result.status:<12} {result.seconds:6.1f} s  {result.reason}", flush=True)
            progress.add(result)
        sys.exit(1 if progress.record.failed else 0)
    sys.exit(130)


def run(
    parts: Sequence[Part], machine: Machine, setting: Setting, *, wanted: set[str], seconds: float
) -> Iterator[PartResult]:
    """The `wanted` of all parts in turn, as each ends, all within `seconds`; what one leaves is for those after it.

    Raises:
        KeyboardInterrupt: a part was interrupted, after its result.
    """
    end = time.monotonic() + seconds
    why_not = {part: machine.lacks(part.needs) or ("" if part.name in wanted else "it was left out") for part in parts}
    later = sum(part.seconds for part in parts if not why_not[part])
    for part in parts:
        left = end - time.monotonic()
        if why_not[part] or left < _LEAST_S:
            yield _not_run(part, why_not[part] or f"no time was left of {seconds:.0f} s")
            continue
        later -= part.seconds
        result = in_child(part, setting, min(left, max(part.seconds, left - later)))
        yield result
        if INTERRUPTED in result.reason:
            raise KeyboardInterrupt


def _not_run(part: Part, reason: str) -> PartResult:
    return PartResult(name=part.name, title=part.title, status="not run", reason=reason)


def _parser(parts: Sequence[Part]) -> argparse.ArgumentParser:
    names = [part.name for part in parts]
    parser = argparse.ArgumentParser(description="Everything that runs on an NVIDIA GPU: checks and speed.")
    parser.add_argument("--output", type=Path, help="JSON, written again after every part")
    parser.add_argument("--report", type=Path, help="the same as Markdown")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=names, help="these parts; see --list")
    parser.add_argument("--skip", nargs="+", metavar="PART", choices=names, default=[], help="not these parts")
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS, help="for all parts together (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="few pictures and rounds")
    parser.add_argument("--device", type=_device, default="cuda", help="cuda or cuda:N")
    parser.add_argument("--list", action="store_true", help="print the parts, and run none")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, more than 0")
    return seconds


def _device(text: str) -> str:
    if not re.fullmatch(r"cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: expected cuda or cuda:N")
    return text


if __name__ == "__main__":
    # Whoever ends the check gets what it has found, and no child is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
