"""What the GPU check reads of the program that checks the CUDA kernels."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import gpu_kernels
from benchmarks.gpu_kernels import read_table
from benchmarks.gpu_record import Setting
from salience.runtime.errors import SalienceError


def printed(repository: Path, *cells: object) -> str:
    """A line as the program prints it."""
    source = (repository / "benchmarks/native/kernels_gpu.cpp").read_text()
    form = re.findall(r'printf\("(%-22s %-22s %9\.1f[^"]*)\\n"', source)
    assert len(form) == 1
    return str(form[0] % cells)


def test_the_kernels_table_is_read(repository: Path) -> None:
    head = [
        "NVIDIA H200, compute capability 9.0\n",
        "operator   sizes   MB   launched   replayed   us   copy us   of copy\n",
    ]
    lines = [
        printed(repository, "MaxoutFusion, fp16", "3 x 8 x 50176", 3.2, 9.8e-4, 0.0, 4.1, 3.9, 95.2, "right"),
        printed(repository, "ReluBackward", "67108864", 805.3, 0.0, float("inf"), 250.2, 240.1, 96, "WRONG"),
        printed(
            repository, "SubpixelConcat of many", "5 x 256 x 2240 x 22400", 12345678.9, 0.0, 0.0, 1.0, 1.0, 101, "right"
        ),
    ]
    rows = list(read_table([*head, *lines]))
    checks = [row for row in rows if row.passed is not None]
    assert [(row.form, row.value, row.passed) for row in checks] == [
        ("MaxoutFusion, fp16, 3 x 8 x 50176", 9.8e-4, True),
        ("ReluBackward, 67108864", float("inf"), False),
        ("SubpixelConcat of many, 5 x 256 x 2240 x 22400", 0.0, True),
    ]
    assert {row.measure: row.value for row in rows if row.form == "ReluBackward, 67108864"} == {
        "largest difference": float("inf"), "moved": 805.3, "time": 250.2, "of a copy's speed": 96,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", ["kernels_gpu: got no GPU (no driver), expected one.", "operator sizes", "Segmentation"]
)
def test_what_is_no_table_is_an_error(line: str) -> None:
    with pytest.raises(SalienceError, match=re.escape(line)):
        list(read_table([line]))


@pytest.mark.parametrize(
    ("verdict", "code", "message"),
    [("right", 0, ""), ("WRONG", 1, ""), ("right", 1, "ended with exit code 1"), ("stopped", 1, "stopped")],
)
def test_the_programs_rows_come_however_it_ends(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int, message: str
) -> None:
    line = printed(repository, "ReluBackward", "64", 0.8, 0.0, 0.0, 2.2, 1.1, 50, verdict)
    head = ["NVIDIA H200, compute capability 9.0", "operator sizes"]
    (tmp_path / "table").write_text("\n".join([*head, "stopped" if verdict == "stopped" else line, ""]))
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $CUDA_VISIBLE_DEVICES > {tmp_path}/card\ncat {tmp_path}/table\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(gpu_kernels, "_PROGRAM", program)
    monkeypatch.setattr(gpu_kernels, "build", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    rows = gpu_kernels.kernels(Setting(device="cuda:1", folder=tmp_path))
    if verdict != "stopped":
        assert next(rows).passed == (verdict == "right")
    with pytest.raises(SalienceError, match=message) if message else nullcontext():
        list(rows)
    assert (tmp_path / "card").read_text() == "7\n"


def test_a_build_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "cmake/fetch_headers.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho nothing to fetch from\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(gpu_kernels, "ROOT", tmp_path)
    with pytest.raises(SalienceError, match=r"cmake/fetch_headers\.sh ended with exit code 3"):
        gpu_kernels.build()
    assert "nothing to fetch from" in capsys.readouterr().err
