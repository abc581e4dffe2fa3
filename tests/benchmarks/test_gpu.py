"""The GPU check's own logic, on parts that end in every way that parts can end."""

import importlib
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_machine import Machine
from benchmarks.gpu_part import in_child
from benchmarks.gpu_parts import PARTS, Part
from benchmarks.gpu_probe import PROBES
from benchmarks.gpu_record import PartResult, Record, Row, Setting
from benchmarks.gpu_texts import report

from .gpu_fakes import MACHINE, NO_GPU, part


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(device="cpu", folder=tmp_path)


def read(path: Path) -> Record:
    return Record.model_validate_json(path.read_bytes())


def check(monkeypatch: pytest.MonkeyPatch, machine: Machine, parts: list[Part], *arguments: str) -> int:
    """What the command exits with."""
    monkeypatch.setattr(gpu, "look", lambda device: machine)
    with pytest.raises(SystemExit) as ended:
        gpu.main(arguments, parts)
    return int(str(ended.value.code))


@pytest.mark.parametrize(
    ("function", "status", "rows", "reason"),
    [
        ("good", "passed", 2, ""),
        ("wrong", "failed", 3, "1 of 2 checks failed, the first: arn, fp16, relative error (odd)"),
        ("raising", "failed", 2, "the part ended with exit code 1: ValueError: engine is too old"),
        ("crashing", "failed", 2, "the part was ended by SIGSEGV: driver: illegal address"),
        ("cut", "failed", 2, "the part was ended by SIGKILL"),
        ("silent", "failed", 0, "it found nothing"),
        ("elsewhere", "not run", 1, "compute capability 9.0 is not served"),
        ("missing", "failed", 0, "the part ended with exit code 1: AttributeError: module "),
    ],
)
def test_a_part_ends_in_its_own_process(setting: Setting, function: str, status: str, rows: int, reason: str) -> None:
    result = in_child(part(function), setting, 60)
    assert (result.name, result.status, len(result.rows)) == (function, status, rows)
    assert result.reason.startswith(reason)
    assert bool(result.reason) == bool(reason)
    assert {row.part for row in result.rows} <= {function}
    if rows > 1:
        assert result.rows[0].form == "cpu"


def test_a_part_that_takes_too_long_is_stopped_with_all_it_started(setting: Setting) -> None:
    started = time.monotonic()
    result = in_child(part("slow"), setting, 5)
    assert time.monotonic() - started < 15
    assert (result.status, result.reason) == ("not finished", "it was stopped after 5 s")
    (row,) = result.rows
    assert not lives(int(row.value or 0))


def test_a_wrong_result_counts_even_if_time_runs_out() -> None:
    result = PartResult.judged("a", "b", 4, (Row(measure="error", passed=False, note="odd"),), stopped="it was stopped")
    assert result.status == "failed"
    assert result.reason == "1 of 1 checks failed, the first: error (odd); it was stopped"


def lives(process: int) -> bool:
    """Whether it goes on; one that has ended may wait for its parent to notice."""
    stat = Path(f"/proc/{process}/stat")
    end = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def test_the_check_fails_if_a_part_fails_and_keeps_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [part("crashing"), part("good"), part("elsewhere"), part("silent", needs=("gpu", "tool"))]
    files = ("--output", str(tmp_path / "new/gpu.json"), "--report", str(tmp_path / "gpu.md"))
    assert check(monkeypatch, MACHINE, parts, *files) == 1
    record = read(tmp_path / "new/gpu.json")
    assert [found.status for found in record.parts] == ["failed", "passed", "not run", "not run"]
    assert record.parts[3].reason == "no tool; install one"
    assert [len(found.rows) for found in record.parts] == [2, 2, 1, 0]
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[-4:]] == [found.name for found in parts]
    assert (tmp_path / "gpu.md").read_text() == report(record)


def test_without_a_gpu_nothing_runs_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "in_child", lambda *given: pytest.fail("a part was started"))
    assert check(monkeypatch, NO_GPU, [part("crashing"), part("good")], "--output", str(tmp_path / "gpu.json")) == 0
    found = read(tmp_path / "gpu.json").parts
    assert [(each.status, each.reason) for each in found] == [("not run", "no GPU: nvidia-smi is not here")] * 2


def test_the_file_holds_every_part_at_any_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output, seen = tmp_path / "gpu.json", list[list[str]]()

    def child(part: Part, setting: Setting, limit_s: float) -> PartResult:
        seen.append([each.status for each in read(output).parts])
        return PartResult.judged(part.name, part.title, 1, (Row(measure="speed", value=1),))

    monkeypatch.setattr(gpu, "in_child", child)
    assert check(monkeypatch, MACHINE, [part("good"), part("wrong")], "--output", str(output)) == 0
    assert seen == [["not run", "not run"], ["passed", "not run"]]


@pytest.mark.parametrize(
    ("seconds", "limits", "statuses"),
    [
        (100, [60, 40], ["not finished", "not finished", "not run"]),
        # What the others do not need is the first one's, and what it leaves is the next one's.
        (250, [130, 60, 60], ["not finished"] * 3),
    ],
)
def test_parts_share_the_time(
    seconds: float, limits: list[float], statuses: list[str], setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [0.0], list[float]()

    def child(part: Part, setting: Setting, limit_s: float) -> PartResult:
        given.append(limit_s)
        now[0] += limit_s
        return PartResult.judged(part.name, part.title, limit_s, (), stopped="late")

    monkeypatch.setattr(gpu, "in_child", child)
    monkeypatch.setattr("benchmarks.gpu.time.monotonic", lambda: now[0])
    parts = [part("good", seconds=60), part("slow", seconds=60), part("wrong", seconds=60)]
    results = list(gpu.run(parts, MACHINE, setting, wanted={"good", "slow", "wrong"}, seconds=seconds))
    assert given == limits
    assert [found.status for found in results] == statuses
    late = [found.reason for found in results if found.status == "not run"]
    assert late == [f"no time was left of {seconds} s"] * statuses.count("not run")


def test_only_and_skip_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = []

    def child(part: Part, setting: Setting, limit_s: float) -> PartResult:
        ran.append(part.name)
        return PartResult.judged(part.name, part.title, 1, (Row(measure="speed", value=1),))

    monkeypatch.setattr(gpu, "in_child", child)
    parts, output = [part("good"), part("slow"), part("wrong")], tmp_path / "gpu.json"
    chosen = ("--only", "good", "wrong", "--skip", "good", "--output", str(output))
    assert check(monkeypatch, MACHINE, parts, *chosen) == 0
    assert ran == ["wrong"]
    assert [each.reason for each in read(output).parts] == ["it was left out", "it was left out", ""]


@pytest.mark.parametrize(
    "arguments",
    [["--only", "nothing"], ["--device", "cpu"], ["--device", "cuda:x"], ["--seconds", "-1"], ["--seconds", "x"]],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(monkeypatch, MACHINE, [part("good")], *arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "in_child", lambda *given: pytest.fail("a part was started"))
    (tmp_path / "file").touch()
    assert check(monkeypatch, MACHINE, [part("good")], "--output", str(tmp_path / "file/gpu.json")) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_an_interrupted_check_keeps_what_it_has(repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.gpu_fakes", "--output", str(output)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.DEVNULL) as process:
        while not any(file.stat().st_size for file in tmp_path.glob("*/slow.jsonl")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    first, second, third = read(output).parts
    assert (first.status, len(first.rows)) == ("passed", 2)
    assert (second.status, second.reason, len(second.rows)) == ("not finished", "the check was interrupted", 1)
    assert (third.status, third.reason) == ("not run", "the check did not come to it")
    assert not lives(int(second.rows[0].value or 0))
    assert list(tmp_path.iterdir()) == [output]


def test_the_parts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--list"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [each.name for each in PARTS]


def test_parts_are_known_fit_the_time_and_ask_for_what_is_looked_for() -> None:
    assert sum(each.seconds for each in PARTS) <= gpu.SECONDS
    names = [each.name for each in PARTS]
    assert len(names) == len(set(names))
    assert names[:3] == ["prepare", "pytorch", "onnxruntime"]
    looked_for = {"gpu", "nvcc", "cmake", *PROBES}
    for each in PARTS:
        assert each.needs[0] == "gpu"
        assert {name for need in each.needs for name in need.split(" or ")} <= looked_for


@pytest.mark.parametrize("each", PARTS, ids=[each.name for each in PARTS])
def test_a_part_takes_a_setting_and_yields_rows(each: Part) -> None:
    module, _, name = each.run.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert inspect.isgeneratorfunction(function)
    assert [parameter.annotation for parameter in inspect.signature(function).parameters.values()] == [Setting]
