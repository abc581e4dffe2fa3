"""Throughput and choices: what their tables say, and that small runs give figures."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import choices, throughput
from benchmarks.speed_texts import choices as choices_text
from benchmarks.speed_texts import throughput as throughput_text
from salience.runtime import load
from salience.runtime.backends import onnxrt
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.manifest import GraphEntry, TensorSpec


def throughput_row(form: str, rate: float, **changes: Any) -> dict[str, Any]:
    row = {"network": "vgg16 int8", "size": "400 x 300", "pictures": 600, "form": form, "images_per_s": rate}
    return {**row, "cpu": 0.875, "to_loop": rate / 20, "over_engine": 40 / rate - 1, **changes}


def test_throughput_is_told_beside_the_loop_and_the_engine() -> None:
    rows = [
        throughput_row(form, rate)
        for form, rate in (("engine alone", 40.0), ("one by one", 20.0), ("salience predict", 36.0))
    ]
    found = throughput_text({"rounds": 3, "evidence": {"cores": 2, "cpu": "a CPU"}, "rows": rows})
    assert "| vgg16 int8 | 600 of 400 x 300 | 20.0, CPU 88% | 36.0, CPU 88% | 1.8 | +11% |" in found
    assert "2 cores of a CPU, medians of 3 rounds" in " ".join(found.split())


def test_choices_have_a_column_for_each_backend_and_precision() -> None:
    row = {"choice": "join_products", "what": "gicd embed", "milliseconds": 90.0, "other_milliseconds": 100.0}
    rows = [
        {**row, "backend": backend, "precision": precision, "ratio": ratio}
        for backend, precision, ratio in (("onnxruntime", "fp32", 0.9), ("openvino", "int8", 1.0))
    ]
    assert choices_text({"rows": rows}).splitlines() == [
        "| choice | timed | onnxruntime fp32 | openvino int8 |",
        "|---|---|---|---|",
        "| join_products | gicd embed | .9 | 1 |",
    ]


def test_a_small_folder_is_measured(tmp_path: Path) -> None:
    pictures = throughput.write_pictures(tmp_path / "pictures", "40 x 30", 6)
    rows = throughput.measure("packaged", DEFAULT_BUNDLE, "40 x 30", pictures, 1)
    assert [row.form for row in rows] == ["engine alone", "one by one", "salience predict"]
    assert all(row.pictures == 6 and row.images_per_s > 0 and 0 < row.cpu <= 1.5 for row in rows)
    assert rows[1].to_loop == 1
    assert rows[0].over_engine == 0


def test_the_engine_alone_neither_decodes_nor_writes(tmp_path: Path) -> None:
    pictures = throughput.write_pictures(tmp_path / "pictures", "40 x 30", 3)
    alone = throughput.EngineOnly(load(threads=1), sorted(pictures.iterdir()))
    prepared = alone.prepare(tmp_path / "there is no such file.jpg")
    (values,) = alone.infer([prepared])
    assert values.shape == (1, *prepared.tensor.shape[-2:])
    alone.finish(prepared, values).save(tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


@pytest.mark.parametrize("values", [{"enable_mem_pattern": False}, {"CONFIG": {}}], ids=str)
def test_sessions_have_the_settings_that_are_compared(values: dict[str, Any]) -> None:
    import onnxruntime

    before = onnxrt.CONFIG
    with choices.sessions_with("onnxruntime", values):
        assert values.get("CONFIG", before) == onnxrt.CONFIG
        assert onnxruntime.SessionOptions().enable_mem_pattern is values.get("enable_mem_pattern", True)
        load()
    assert before == onnxrt.CONFIG
    assert onnxruntime.SessionOptions().enable_mem_pattern is True


def test_a_choice_is_compared_by_medians() -> None:
    found = choices.row("a", "b", "onnxruntime", "fp32", {"made": [0.1, 0.2, 0.9], "other": [0.4, 0.4, 0.1]})
    assert (found.milliseconds, found.other_milliseconds, found.ratio) == (200, 400, 0.5)


def test_rewritten_graphs_are_opened_as_engines_run_them(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[batch, 2] x) => (float[batch, 2] y) { y = Neg (x) }'
    model = onnx.parser.parse_model(text)
    x, y = (TensorSpec(name=name, dtype="float32", shape=("batch", 2)) for name in "xy")
    interface = GraphEntry(inputs=(x,), outputs=(y,), files={"fp32": "g.onnx"})
    call = choices.opened(model, interface, "onnxruntime", {"x": np.ones((1, 2), np.float32)}, tmp_path)
    np.testing.assert_array_equal(call()["y"], [[-1, -1]])  # type: ignore[index]
