"""Jigsaws with distractors: halves, classes, ground truth, shares of hand-made maps, and failures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import distractors
from benchmarks.distractors import LEAST_MASS, measure, measure_all, rows_of
from benchmarks.jigsaws import Jigsaw, compose, labels_of, pair_up, read_classes
from benchmarks.method_maps import Grey
from salience.runtime import DataError, SaliencyMap
from salience.runtime.evaluation.image_metrics import ImageScorer

COUNTS = {"coseg": ("Bus", "Cow"), "horses": ("",), "ecssd": ("",)}
LEVELS = {"coseg/Bus": 200, "coseg/Cow": 150, "horses": 100, "ecssd": 50}


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of each class, of several sizes: a rectangle in the grey level of the class on black."""
    splits: dict[str, dict[str, list[str]]] = {}
    for name, groups in COUNTS.items():
        names = [f"{group}/{index}" if group else str(index) for group in groups for index in range(12)]
        for place, stem in enumerate(names):
            mask = np.zeros((20 + 2 * place, 30 + place), np.uint8)
            mask[4:12, 5:20] = 255
            if (name, stem) == ("horses", "0"):
                mask[:] = 0  # no object
            level = LEVELS[f"{name}/{stem.partition('/')[0]}" if "/" in stem else name]
            save(tmp_path / name / "images" / f"{stem}.png", np.dstack(3 * [mask // 255 * np.uint8(level)]))
            save(tmp_path / name / "masks" / f"{stem}.png", mask)
        splits[name] = {"val": names}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


def pairings_of(data: Path, seed: int = 0, exclude: Sequence[str] = ()) -> Any:
    return pair_up(*read_classes(data, part="val", exclude=exclude), seed=seed)


def of_image(image: Grey) -> SaliencyMap:
    """Everything that is not black."""
    return SaliencyMap((image[..., 0] > 0).astype(np.float32), image)


def test_halves_are_equal_and_the_truth_is_the_groups_object(data: Path) -> None:
    shapes = set()
    for group, pairings in pairings_of(data).items():
        for pairing in pairings:
            jigsaw = compose(pairing)
            assert jigsaw.image.shape == (*jigsaw.truth.shape, 3)
            assert jigsaw.other_half.mean() == 0.5
            assert int(jigsaw.truth.sum()) == 8 * 15
            assert set(jigsaw.image[jigsaw.truth].ravel().tolist()) == {LEVELS[f"coseg/{group}"]}
            assert not (jigsaw.truth & jigsaw.other_half).any()
            assert jigsaw.other_object.any()
            assert not (jigsaw.other_object & ~jigsaw.other_half).any()
            assert jigsaw.image[jigsaw.other_object].max() in set(LEVELS.values()) - {LEVELS[f"coseg/{group}"]}
            shapes.add((pairing.above, pairing.first))
            height, width = jigsaw.truth.shape
            own = ~jigsaw.other_half
            expected = own[: height // 2] if pairing.above else own[:, : width // 2]
            assert expected.all() if pairing.first else not expected.any()
    assert len(shapes) == 4


def test_five_other_classes_with_an_object(data: Path) -> None:
    for group, pairings in pairings_of(data).items():
        labels = labels_of(pairings)
        assert [pairing.pair.name for pairing in pairings] == sorted(f"{group}/{index}" for index in range(12))
        # Another group, horses, and images of ecssd, each of which is a class; the classes take turns.
        assert group not in labels
        assert len({pairing.partner.source for pairing in pairings}) == 12
        assert len(labels) >= 5
        assert all(pairing.partner.source != data / "horses/images/0.png" for pairing in pairings)
        assert {name for name in labels if "/" not in name} == {"Bus", "Cow", "horses"} - {group}


def test_too_few_classes_are_named(data: Path) -> None:
    groups, others = read_classes(data, part="val")
    with pytest.raises(DataError, match="group Bus: distractors of 2 other classes, expected 5 or more"):
        pair_up(groups, {"horses": others["horses"]}, seed=0)


def test_pairings_depend_on_the_seed_alone(data: Path) -> None:
    assert pairings_of(data) == pairings_of(data)
    assert pairings_of(data, seed=1) != pairings_of(data)


def test_excluded_images_are_no_distractors(data: Path) -> None:
    found = pairings_of(data, exclude=[f"ecssd/{index}" for index in range(8)])
    labels = {label for members in found.values() for label in labels_of(members)}
    assert {label for label in labels if "/" in label} == {f"ecssd/{index}" for index in range(8, 12)}


def hand_made() -> Jigsaw:
    """A jigsaw of 20 x 40: objects of 10 x 10 in the left half, of the group, and in the right half."""
    truth, half, other = np.zeros((3, 20, 40), np.bool_)
    truth[5:15, 5:15], half[:, 20:], other[5:15, 25:35] = True, True, True
    return Jigsaw(np.zeros((20, 40, 3), np.uint8), truth, half, other)


@pytest.mark.parametrize(
    ("own", "distractor", "background", "shares"),
    [(1, 0, 0, (0, 0)), (0, 1, 0, (1, 1)), (1, 0.5, 0, (1 / 3, 1 / 3)), (0.2, 0.2, 0.2, (0.5, 0.125))],
)
def test_shares_of_hand_made_maps(
    own: float, distractor: float, background: float, shares: tuple[float, float]
) -> None:
    jigsaw = hand_made()
    values = np.full((20, 40), background, np.float32)
    values[jigsaw.truth], values[jigsaw.other_object] = own, distractor
    found = measure(SaliencyMap(values, jigsaw.image), jigsaw, "Bus", ImageScorer(full=False))
    assert (found.half, found.distractor) == pytest.approx(shares)
    assert not found.failed


def test_nearly_empty_maps_are_failures() -> None:
    jigsaw, scorer = hand_made(), ImageScorer(full=False)
    records = []
    for mass in (0.9 * LEAST_MASS, 1.1 * LEAST_MASS):
        values = np.zeros((20, 40), np.float32)
        values[10, 10] = mass * values.size
        records.append(measure(SaliencyMap(values, jigsaw.image), jigsaw, "Bus", scorer))
    empty, faint = records
    assert (empty.failed, empty.half, empty.distractor, empty.metrics.best.f) == (True, 1, 1, 0)
    assert (faint.failed, faint.half, faint.distractor) == (False, 0, 0)
    assert faint.metrics.best.f > 0
    row, _ = rows_of({"mine": [empty, faint]})
    assert (row.failures, row.half, row.images) == (1, 0.5, 2)
    assert row.f_max == pytest.approx(faint.metrics.best.f / 2)


def test_methods_are_compared_and_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def by_group(images: Sequence[Grey]) -> list[SaliencyMap]:
        """The objects of the grey level that all images of the group have."""
        seen.append(len(images))
        level = max(set.intersection(*(set(image.ravel().tolist()) for image in images)))
        return [SaliencyMap((image[..., 0] == level).astype(np.float32), image) for image in images]

    def alone(images: Sequence[Grey]) -> list[SaliencyMap]:
        return [of_image(image) for image in images]

    stand_ins = {"group": by_group, "alone": alone, "none": lambda images: [of_image(0 * image) for image in images]}
    monkeypatch.setattr(distractors, "methods_of", lambda bundles, singles: stand_ins)
    output, sheet = tmp_path / "found.json", tmp_path / "sheet.png"
    distractors.main(
        ["--data", str(data), "--bundle", "gicd=DIR", "--json", str(output), "--sheet", str(sheet), "--seed", "4"]
    )
    found = json.loads(output.read_text())
    assert seen == [12, 12]
    assert (found["part"], found["seed"]) == ("val", 4)
    assert {group: sum(classes.values()) for group, classes in found["classes"].items()} == {"Bus": 12, "Cow": 12}
    assert "cpu" in found["evidence"]
    rows = {(row["maps"], row["group"]): row for row in found["rows"]}
    assert len(rows) == 9
    best, other, empty = (rows[name, "all"] for name in stand_ins)
    assert (best["half"], best["f_max"], best["mae"], best["failures"]) == pytest.approx((0, 1, 0, 0), abs=0.02)
    assert 0.3 < other["half"] < 0.7
    assert other["f_max"] < 0.8
    assert (empty["half"], empty["distractor"], empty["f_max"], empty["failures"]) == (1, 1, 0, 24)
    with Image.open(sheet) as image:
        assert image.size == (120 * 5, 120 * 6)


def test_results_are_the_same_again(data: Path) -> None:
    methods = {"alone": lambda images: [of_image(image) for image in images]}
    first, second = ([*rows_of(measure_all(pairings_of(data), methods)[0])] for _ in range(2))
    assert first == second
