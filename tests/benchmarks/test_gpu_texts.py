"""A record of the GPU check as its JSON file, as Markdown and as README's block."""

from pathlib import Path

import pytest

from benchmarks.evidence import Evidence
from benchmarks.gpu_machine import Machine
from benchmarks.gpu_record import PartResult, Record, Row
from benchmarks.gpu_texts import gpu, number, report

from .gpu_fakes import MACHINE, NO_GPU


def record(machine: Machine, *parts: PartResult) -> Record:
    evidence = Evidence.gather().model_copy(
        update={"commit": "0123456789abcdef", "changed": False, "date": "2026-11-22T10"}
    )
    return Record(evidence=evidence, machine=machine, device="cuda", quick=False, parts=parts)


def speed(form: str, batch: int, measure: str, value: float | None, unit: str, note: str = "") -> Row:
    return Row(method="arn", form=form, batch=batch, measure=measure, value=value, unit=unit, note=note)


def example() -> Record:
    rows = [speed("eager", 1, "speed", 812.34, "images/s"), speed("eager", 1, "p50", 1.2345, "ms")]
    rows += [speed("eager", 32, "speed", 12345.6, "images/s"), speed("ours", 1, "speed", None, "", "out of memory")]
    checks = [Row(method="arn", form="fp16", measure="relative error", value=1.234e-5, limit=2e-3, passed=True)]
    checks += [Row(form="batch | 9", measure="a sentence", passed=False, note="said nothing")]
    return record(
        MACHINE,
        PartResult.judged("kept", "maps", 12, tuple(checks)),
        PartResult.judged("speed-arn", "speed of arn", 30, tuple(rows)),
        PartResult.judged("peak", "peaks", 5, (Row(form="copy", measure="peak", value=4300.4, unit="GB/s"),)),
        PartResult(name="tool", title="tools", status="not run", reason="no tool"),
    )


def test_the_report_has_what_is_there_and_every_row() -> None:
    text = report(example())
    assert "Checked on NVIDIA Test, driver 580.1; commit 0123456789ab, 2026-11-22." in text
    assert "| tool |  | no tool; install one |" in text
    assert (
        "| kept | maps | failed | 12 | 1 of 2 checks failed, the first: batch \\| 9, a sentence (said nothing) |"
        in text
    )
    assert "| arn | fp16 |  | relative error | 1.23e-05 | .002 | yes |  |" in text
    assert "| method | form | speed, batch 1 | p50, batch 1 | speed, batch 32 |" in text
    assert "| arn | eager | 812 images/s | 1.23 ms | 12300 images/s |" in text
    assert "| arn | ours | out of memory |  |  |" in text
    assert "| tool | tools | not run | 0 | no tool |" in text


def test_the_figures_say_what_was_run_where_and_what_never_was() -> None:
    text = gpu(example().model_dump(mode="json"))
    assert text.startswith("Checked on NVIDIA Test, driver 580.1;")
    assert "| maps | failed | 1 of 2 | 1 of 2 checks failed" in text
    assert "| speed of arn | passed |  |  |" in text
    assert "| arn | eager | 812 images/s | 1.23 ms | 12300 images/s |" in text
    assert "\n\nThe card reached: copy 4300 GB/s.\n\n" in text
    assert text.endswith("Not run (no tool): tools.")


def test_without_a_gpu_the_figures_say_so() -> None:
    parts = [PartResult(name=name, title=f"{name} maps", status="not run", reason="no GPU") for name in ("a", "b")]
    results = record(NO_GPU, *parts).model_dump(mode="json")
    assert gpu(results) == (
        "Checked on a machine without a GPU; commit 0123456789ab, 2026-11-22.\n\nNot run (no GPU): a maps; b maps."
    )
    with pytest.raises(ValueError, match="validation error"):
        gpu({**results, "other": 1})


def test_numbers_have_three_digits_that_count() -> None:
    values = (0, 1, 0.5, 0.12345, 0.0012345, 1.5e-7, -2.5e-3, 9.999, 99.96, 12345.6, 7.8e9)
    texts = ["0", "1", ".5", ".123", ".00123", "1.5e-07", "-.0025", "10", "100", "12300", "7.8e+09"]
    assert [number(value) for value in values] == texts
    assert [number(value) for value in (float("inf"), float("nan"))] == ["infinite", "no number"]


def test_a_number_that_is_none_survives_the_file(tmp_path: Path) -> None:
    rows = (
        Row(measure="error", value=float("inf"), passed=False),
        Row(measure="error", value=float("nan"), passed=False),
    )
    record(MACHINE, PartResult.judged("a", "b", 1, rows)).write(tmp_path / "gpu.json")
    first, second = Record.model_validate_json((tmp_path / "gpu.json").read_bytes()).parts[0].rows
    assert first.value == float("inf")
    assert second.value is not None
    assert second.value != second.value
