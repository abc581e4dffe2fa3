"""The figures of both README files are those of the stored measurements."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, latency_record
from benchmarks.figure_texts import ablations
from benchmarks.latency_texts import latency, latency_by_method, photo_steps
from benchmarks.markdown_text import change, error, ratio, share
from benchmarks.quality_rows import NOT_BUILT, Row, with_changes
from benchmarks.quality_texts import int8_ways, pretrained, quality, quality_by_backend
from salience.runtime import DataError
from salience.runtime.evaluation.metrics import Scores


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A copy of the pages and the results."""
    shutil.copytree(repository / figures.RESULTS, tmp_path / figures.RESULTS)
    for page in figures.PAGES:
        shutil.copy(repository / page, tmp_path / page)
    return tmp_path


def check(root: Path) -> int | str | None:
    """What `--check` exits with: 0, or a message, with which Python exits with 1."""
    with pytest.raises(SystemExit) as ended:
        figures.main(["--check", "--root", str(root)])
    return ended.value.code


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_both_pages_are_what_the_results_say(repository: Path) -> None:
    assert check(repository) == 0
    for page in figures.PAGES:
        assert (repository / page).read_text().count("<!-- figures: ") >= 4


@pytest.mark.parametrize("page", figures.PAGES)
def test_any_edited_figure_is_noticed_and_mended(root: Path, page: str) -> None:
    original = (root / page).read_text()
    for block in re.finditer(r"<!-- figures: (\S+) -->.*?(\d)(?=\D*<!-- end -->)", original, flags=re.DOTALL):
        other = str((int(block[2]) + 1) % 10)
        (root / page).write_text(original[: block.start(2)] + other + original[block.end(2) :])
        assert check(root) == f"differ from benchmarks/results: {page}: {block[1]}"
        figures.main(["--root", str(root)])
        assert (root / page).read_text() == original


def test_a_new_measurement_is_noticed(root: Path) -> None:
    def slower(text: str) -> str:
        rows = json.loads(text)
        for row in rows:
            row["to_ours"] *= 2
        return json.dumps(rows)

    edit(root / figures.RESULTS / "lps_speed.json", slower)
    assert (
        check(root) == "differ from benchmarks/results: README.md: export_gains, benchmarks/README.md: promoter_speed"
    )


def test_text_outside_of_blocks_stays(root: Path) -> None:
    edit(root / "README.md", lambda text: f"Max F is .999.\n{text}")
    assert check(root) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figures: nothing -->\n<!-- end -->", "no block is called 'nothing'"),
        ("<!-- figures: groups -->\n<!-- figures: objects -->\n<!-- end -->", "is not closed"),
        ("<!-- figures: groups -->\n", "is not closed"),
        ("<!-- figures: groups -->\n<!-- end -->", "gicd_quality.json cannot be read"),
    ],
)
def test_a_block_that_cannot_be_made_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        figures.fill(text, tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", '{"gicd": {"all": {}}}', "[1]"])
def test_results_of_another_form_are_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "gicd_quality.json").write_text(content)
    with pytest.raises(DataError, match=r"figures groups: .*expected what its benchmark writes"):
        figures.text_of("groups", tmp_path)


def scored(precision: str | None, backend: str | None, f_max: float, mae: float, *, form: str = "") -> Row:
    found = Scores(images=50, mae=mae, f_max=f_max, f_mean=0.5, f_adaptive=0.5, s=0.61, e_mean=0.72, e_max=0.5)
    return Row("cgd", form, "ecssd", precision, backend, scores=found)


def quality_results() -> dict[str, Any]:
    rows = [
        scored(None, None, 0.4, 0.25, form="low-level map alone"),
        scored("fp32", "onnxruntime", 0.7, 0.1),
        scored("fp16-weights", "onnxruntime", 0.7, 0.1002),
        Row("cgd", "", "ecssd", "int8", "onnxruntime", scores=None, reason=NOT_BUILT),
        scored("fp32", "openvino", 0.71, 0.1),
        scored("fp16-weights", "openvino", 0.694, 0.1001),
        Row("cgd", "", "ecssd", "int8", "openvino", scores=None, reason="EngineError: no"),
    ]
    bundles = {"arn": {"int8": {"layers": 93, "fp32": 4, "fp32_share": 0.152}}, "cgd": {}}
    return {"bundles": bundles, "rows": [row.record() for row in with_changes(rows)]}


def test_quality_shows_the_largest_change_on_any_backend() -> None:
    lines = quality(quality_results()).splitlines()
    assert lines[:4] == [
        "| method | set (pictures) | max F | MAE | `fp16-weights` | `int8` |",
        "|---|---|---|---|---|---|",
        "| `cgd`, low-level map alone | ECSSD (50) | .400 | .250 |  |  |",
        "| `cgd` | ECSSD (50) | .700 | .100 | **-.0060**, +.0002 | not built, failed |",
    ]
    text = " ".join(lines[4:])
    assert "on ONNX Runtime and OpenVINO. Bold: by more than .005." in text
    assert text.endswith("Layers that stay fp32 in `int8`, and their part of the multiply-adds: `arn` 4 of 93 (15%).")


def test_quality_by_backend_has_every_combination() -> None:
    head, _, _, line = quality_by_backend(quality_results()).splitlines()
    assert head.endswith("| `fp32`, OpenVINO | `fp16-weights`, OpenVINO | `int8`, OpenVINO |")
    cells = "| .700 | .100 | .610 | .720 | 0, +.0002 | not built | **+.0100**, 0 | **-.0060**, +.0001 | failed |"
    assert line == f"| `cgd` | ECSSD (50) {cells}"


def test_shipped_networks_stand_above_the_maps_of_csnet() -> None:
    base = {"precision": "fp32", "backend": "onnxruntime", "form": "", "f_max": 0.8, "mae": 0.07}
    rows = [
        {**base, "method": "multis", "set": "ecssd"},
        {**base, "method": "multis", "set": "coseg", "f_max": 0.7, "mae": 0.12},
        {**base, "method": "multis", "set": "ecssd", "precision": "fp16", "f_max": 0.1},
        {**base, "method": "multis", "form": "mirror", "set": "ecssd", "f_max": 0.81},
        {**base, "method": "gicd", "set": "coseg"},
        {**base, "method": "lps", "form": "the priors", "set": "ecssd", "precision": None, "backend": None},
    ]
    assert pretrained({"rows": rows}).splitlines()[2:] == [
        "| `multis` | .800 | .0700 |  |  | .700 | .120 |",
        "| `multis`, mirror | .810 | .0700 |  |  |  |  |",
        "| CSNet's maps | .800 | .0700 |  |  |  |  |",
    ]


def test_ablations_have_both_sides_of_a_claim() -> None:
    rows = [
        {"variant": name, "seeds": [1, 2], "scores": {"f_max": [f_max, f_max + 0.02], "mae": [0.1, 0.1]}}
        for name, f_max in (("whole", 0.8), ("without", 0.7))
    ]
    claim = {"method": "arn", "claim": "It helps.", "verdict": "holds", "rows": rows}
    last = ablations({"claims": [claim]}).splitlines()[-1]
    assert last == "| arn | It helps. | .810 / .710 | .1000 / .1000 | 2 | holds |"


def test_ways_to_make_int8_stand_in_lines_and_backends_in_columns() -> None:
    row = {"way": "guess", "map_change": 0.0123, "f_change": -0.004, "f_error": 0.0021}
    rows = [{**row, "backend": "onnxruntime"}, {**row, "backend": "openvino", "f_change": 0.0}]
    assert int8_ways({"rows": rows}).splitlines() == [
        "| all layers int8 by | ONNX Runtime | OpenVINO |",
        "|---|---|---|",
        "| guess | .0123, -.0040 ± .0021 | .0123, 0 ± .0021 |",
    ]


def latency_results() -> dict[str, Any]:
    forms = {"PyTorch eager": ("eager", 1.0), "salience, onnxruntime fp32": ("salience", 0.4712)}
    rows: list[dict[str, Any]] = [
        {"method": method, "form": form, "kind": kind, "batch": batch, "threads": threads, "reason": "",
         "to_eager": to_eager * (1 if threads == 2 else 9), "p50_ms": 51.7, "peak_bytes": 33e6, "cold_start_s": 0.84,
         "share_of_peak": 0.714}
        for method in ("multis", "gicd")
        for form, (kind, to_eager) in forms.items()
        for batch in (1, 8)
        for threads in (1, 2)
    ]  # fmt: skip
    rows[-1].update({"to_eager": None, "reason": "out of memory"})
    settings = {"backbone": "vgg16", "sizes": {"multis": [224, 224], "gicd": [224, 224]}, "iterations": 10, "group": 4}
    peaks = [{"threads": 1, "fp32": 200, "int8": 800}, {"threads": 2, "fp32": 400, "int8": 1600}]
    return {"settings": settings, "rounds": 5, "evidence": {"cpu": "CPU of a test"}, "rows": rows, "peaks": peaks}


def test_latency_reads_what_its_benchmark_writes() -> None:
    results = latency_results()
    assert set(results) <= set(latency_record.Record.model_fields)
    assert set(results["settings"]) <= set(latency_record.Settings.model_fields)
    assert set(results["rows"][0]) <= set(latency_record.Row.model_fields)


def test_latency_shows_ratios_at_most_threads() -> None:
    text = latency(latency_results())
    assert text.splitlines()[:3] == [
        "| time to eager PyTorch's | `multis` | `gicd` |",
        "|---|---|---|",
        "| salience, onnxruntime fp32 | .47 / .47 | .47 / does not run |",
    ]
    assert "vgg16, 224 x 224, random weights, 2 threads of CPU of a test, medians of 5" in " ".join(text.split())


def test_latency_by_method_shows_times_and_memory() -> None:
    lines = latency_by_method(latency_results()).splitlines()
    assert lines[3] == "| `multis` | salience, onnxruntime fp32 | .47 | .47 | 52 ms | 71% | 33 MB | .84 s |"
    assert lines[5] == "| `gicd` | salience, onnxruntime fp32 | .47 | does not run | 52 ms | 71% | 33 MB | .84 s |"
    assert "in the same run: 400 GFLOP/s, 1600 int8 GOP/s" in " ".join(lines)


def test_photo_steps_stand_beside_rembg_s() -> None:
    steps = {"size": [224, 224], "rembg": "rembg 2", "steps": [{"step": "decode", "ours_ms": 4.04, "rembg_ms": None}]}
    lines = photo_steps({"photo_steps": steps}).splitlines()
    assert lines[0] == "| photographs, network input 224 x 224 | salience | rembg 2 |"
    assert lines[2] == "| decode | 4.0 ms | not measured |"


def test_numbers_are_printed_as_the_field_does() -> None:
    assert [share(0.86), share(1), share(-0.0126), error(0.07326), error(0.2044)] == [
        ".860",
        "1.000",
        "-.013",
        ".0733",
        ".204",
    ]
    assert [change(0.00123), change(-0.0003), change(0.00004), change(-0.00004)] == ["+.0012", "-.0003", "0", "0"]
    assert [ratio(0.823), ratio(0.99), ratio(1.0), ratio(4.62), ratio(15.95), ratio(162)] == [
        ".82",
        ".99",
        "1",
        "4.6",
        "16",
        "160",
    ]
