"""The best monotone curve: its families, the choice by hand-computed MAE, and the frozen curve on other images."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.monotone_curve import (
    PRIOR,
    Curve,
    LevelCounts,
    best_curves,
    candidates,
    finalists,
    isotonic_curve,
    measure,
    parse_set,
    record,
)
from salience.runtime.evaluation.metrics import MetricAccumulator
from salience.runtime.evaluation.pairs import Pair

HALF = np.arange(64).reshape(8, 8) % 8 < 4
"""Left half salient."""


def graded(inside: int, outside: int) -> NDArray[np.uint8]:
    """Levels `inside` and `outside` the object, with one pixel of each end of the range."""
    saliency = np.where(HALF, inside, outside).astype(np.uint8)
    saliency[0, 0], saliency[0, 7] = 255, 0
    return saliency


def save_set(folder: Path, maps: dict[str, NDArray[np.uint8]]) -> list[Pair]:
    pairs = []
    for name, saliency in maps.items():
        for kind, image in (("priors", saliency), ("masks", HALF.astype(np.uint8) * np.uint8(255))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / kind / f"{name}.png")
        pairs.append(Pair(name, folder / f"priors/{name}.png", folder / f"masks/{name}.png"))
    return pairs


def test_curves_keep_the_ends_and_never_fall() -> None:
    curves = candidates()
    assert len({curve.name for curve in curves}) == len(curves)
    for curve in curves:
        values = np.array(curve.values)
        assert (values[0], values[-1]) == (0, 1), curve.name
        assert (np.diff(values) >= 0).all(), curve.name


@pytest.mark.parametrize("curve", candidates()[::40], ids=lambda curve: curve.name)
def test_mae_of_level_counts_is_that_of_the_maps(curve: Curve) -> None:
    random = np.random.default_rng(0)
    counts, metrics = LevelCounts(), MetricAccumulator(full=False)
    for _ in range(3):
        saliency = random.integers(0, 200, (12, 10)).astype(np.uint8)
        mask = random.random((12, 10)) < 0.4
        counts.add(saliency, mask)
        metrics.add(curve.apply(saliency), mask)
    # A curve's table has 8 bits.
    assert counts.mae(np.array(curve.values)) == pytest.approx(metrics.scores().mae, abs=0.5 / 255)


def test_isotonic_regression_pools_levels_that_fall() -> None:
    counts = LevelCounts()
    # Share of the object: level 0: 0 of 4, level 100: 2 of 4, level 150: 1 of 4, level 255: 4 of 4.
    saliency = np.repeat([[0, 100, 150, 255]], 4, axis=0).astype(np.uint8)
    mask = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]], np.bool_)
    counts.add(saliency, mask)
    values = isotonic_curve(counts).values
    assert [values[level] for level in (0, 100, 150, 255)] == pytest.approx([0, 0.375, 0.375, 1])


def test_a_separating_curve_is_chosen(tmp_path: Path) -> None:
    pairs = save_set(tmp_path, {"a": graded(150, 100), "b": graded(160, 90)})
    found = best_curves(pairs)
    assert list(found) == ["mae", "f_weighted", "s"]
    assert found["mae"].value == pytest.approx(0, abs=1e-9)
    assert found["f_weighted"].value > 0.99
    saliency = graded(155, 95)
    assert (found["mae"].curve.apply(saliency) == HALF * np.uint8(255)).all()


def test_every_family_has_a_finalist() -> None:
    curves = candidates()
    chosen = finalists(curves, {curve: float(index) for index, curve in enumerate(curves)}, count=8)
    assert chosen[0].family == "identity"
    assert [curve.family for curve in chosen[1:5]] == ["logistic", "power", "ramp", "step"]
    assert len(chosen) == 9


def test_the_test_part_chooses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    save_set(folder, {"val": graded(150, 100), "test": graded(90, 60)})
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"set": {"val": ["val"], "test": ["test"]}}))
    choices, rows = measure(folder, "priors", splits=splits)
    assert next(iter(rows)) == PRIOR
    assert choices["mae"].value == pytest.approx(0, abs=1e-9)
    (name,) = [name for name in rows if "best MAE" in name]
    # The frozen curve cuts between 100 and 150, so it removes the test map's object but for one pixel.
    assert rows[name].mae == pytest.approx(31 / 64)
    written = record(choices, rows)
    assert json.loads(json.dumps(written)) == written


def test_set_is_parsed() -> None:
    assert parse_set("ecssd=/data/ecssd:priors") == ("ecssd", Path("/data/ecssd"), "priors")
    with pytest.raises(SystemExit, match="expected NAME=FOLDER:PRIORS"):
        parse_set("ecssd=/data/ecssd")
