"""The benchmark of thresholds, specks and empty maps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import mask_threshold
from benchmarks.mask_rules import DEFAULT, REFERENCE, RULES, box_iou, mask_iou, masks_of
from benchmarks.mask_texts import mask_maximums, mask_rules, mask_specks
from salience.runtime import SaliencyMap
from salience.runtime.bundle import DEFAULT_BUNDLE

pytest.importorskip("onnxruntime")
PRIORS = {"ecssd": "priors_csnet", "coseg": "priors_contrast"}


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sets of two images: a bright rectangle on a dark ground. Of each, only the first is for validation."""
    for name, priors in PRIORS.items():
        for index in range(2):
            mask = np.zeros((60, 80), dtype=np.uint8)
            mask[10:50, 10:70] = 255
            save(tmp_path / name / "images" / f"Cup/{index}.png", np.dstack([mask, mask // 2, mask // 4 + 40]))
            save(tmp_path / name / "masks" / f"Cup/{index}.png", mask)
            save(tmp_path / name / priors / f"Cup/{index}.png", mask // 2 + 20)
    parts = {name: {"val": ["Cup/0"], "test": ["Cup/1"]} for name in PRIORS}
    (tmp_path / "splits.json").write_text(json.dumps(parts))
    return tmp_path


def test_all_is_measured_and_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "masks.json"
    monkeypatch.setattr(mask_threshold, "_TIMED", (30, 40))
    options = ["--bundle", f"mine={DEFAULT_BUNDLE}", "--rounds", "1", "--json", str(output)]
    mask_threshold.main(["--data", str(data), *options])
    found = json.loads(output.read_text())
    stored = [row for row in found["rules"] if row["maps"] == "CSNet, stored maps"]
    assert [row["rule"] for row in stored] == [*RULES, DEFAULT]
    assert {row["images"] for row in found["rules"]} == {1}
    # A prior of 147 on 20 of 255: half of its maximum separates them, and twice its mean does not.
    ious = {row["rule"]: row["iou"] for row in stored}
    assert ious[DEFAULT] == ious["fixed .5"] == ious["Otsu"] == 1
    assert ious["twice the mean"] == 0
    assert {row["rule"] for row in stored if row["empty"]} == {"fixed .6", "fixed .7", "twice the mean"}
    assert {row["iou"] for row in found["specks"] if row["maps"] == "CSNet, stored maps"} == {1}
    kinds = [row["kind"] for row in found["maximums"]]
    assert kinds == [
        "validation images of ecssd",
        "validation images of coseg",
        "uniform",
        "gradient",
        "pattern",
        "noise",
    ]
    assert len(found["times"]) == 4
    for text, word in ((mask_rules, "1.0000"), (mask_specks, ".050"), (mask_maximums, "gradient")):
        assert word in text(found)


def test_rules_of_a_map_with_a_large_object() -> None:
    values = np.full((10, 10), 0.05, dtype=np.float32)
    values[:, :6] = 0.95
    masks = masks_of(SaliencyMap(values, np.zeros((10, 10, 3), dtype=np.uint8)))
    assert not masks["twice the mean"].any()
    for name in (DEFAULT, REFERENCE, "Otsu", "twice the mean, at most .5"):
        assert masks[name].sum() == 60, name


def test_intersection_over_union() -> None:
    one, other = np.zeros((2, 4, 4), dtype=np.bool_)
    assert mask_iou(one, other) == 1
    one[:2], other[1:3] = True, True
    assert mask_iou(one, other) == 1 / 3
    assert box_iou((0, 0, 2, 4), (1, 0, 3, 4)) == 1 / 3
    assert box_iou((0, 0, 2, 4), (2, 0, 3, 4)) == 0
    assert box_iou((0, 0, 2, 4), None) == 0
