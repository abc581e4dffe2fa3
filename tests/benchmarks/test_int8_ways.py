"""Ways to make int8 are measured on pictures that calibrated none of them."""

import json
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import int8_ways
from tests.conftest import save_scenes

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.mark.slow
def test_each_way_is_scored_on_each_backend(
    bundle: Path, pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = int8_ways.ways
    monkeypatch.setattr(int8_ways, "ways", lambda model, feeds: islice(every(model, feeds), 2))
    output, others = tmp_path / "ways.json", save_scenes(tmp_path / "others", 3)
    folders = ["--calibration", str(pairs_folder), "--images", str(others)]
    int8_ways.main(["--bundle", str(bundle), *folders, "--json", str(output)])
    rows = json.loads(output.read_text())["rows"]
    names = ["ONNX Runtime, MinMax", "ONNX Runtime, MinMax, biases corrected"]
    assert [(row["way"], row["backend"]) for row in rows] == [
        (name, backend) for name in names for backend in ("onnxruntime", "openvino")
    ]
    assert {row["images"] for row in rows} == {3}
    assert all(0 < row["map_change"] < 0.2 for row in rows)
    assert abs(rows[0]["map_change"] - rows[2]["map_change"]) > 1e-5
