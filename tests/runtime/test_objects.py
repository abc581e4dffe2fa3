"""The parameters of `cgd` as people give them, and a detector of `cgd` as a pipeline wants it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from salience.runtime import ClampedDescentDetector, SalienceError, load
from salience.runtime.jobs import plan_jobs
from salience.runtime.low_level import PRESETS, Descent, Preset, PresetName, Refinement
from salience.runtime.methods.cgd import ObjectMap
from salience.runtime.objects import ObjectFinder, choose_preset
from salience.runtime.pipeline import run_jobs

QUICK = Preset(Descent(iterations=2))


@pytest.mark.parametrize("name", get_args(PresetName))
def test_a_preset_as_it_is(name: PresetName) -> None:
    assert choose_preset(name, {}) == PRESETS[name]


def test_presets_differ() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    assert len(set(PRESETS.values())) == len(PRESETS)


def test_text_becomes_what_the_parameter_is() -> None:
    changes = {
        "iterations": "7", "gamma": "2", "step": "1e1", "scale": "plain", "decay": ".5", "clip": "true",
        "per_channel": "TRUE", "theta": "0", "theta_unit": "otsu", "cut": "1", "smooth": "0", "refine": "False",
        "superpixels": "50", "compactness": "3.5", "sigma": "7", "alpha": "1", "gain": "2.5", "prune": "0.25",
    }  # fmt: skip
    found = choose_preset("default", changes)
    assert found.descent == Descent(iterations=7, gamma=2.0, step=10.0, scale="plain", decay=0.5, clip=True)
    assert found.refinement == Refinement(
        per_channel=True, theta=0.0, theta_unit="otsu", cut=True, smooth=False, refine=False, superpixels=50,
        compactness=3.5, sigma=7.0, alpha=1.0, gain=2.5, prune=0.25,
    )  # fmt: skip
    fields = {field.name for part in (Descent, Refinement) for field in dataclasses.fields(part)}
    assert changes.keys() == fields, "a new parameter belongs here"
    for part in (found.descent, found.refinement):
        for name, value in dataclasses.asdict(part).items():
            assert type(value) is type(getattr(type(part)(), name)), name


def test_values_are_taken_as_they_are() -> None:
    found = choose_preset("released", {"iterations": 3, "clip": True, "theta": 0.5, "scale": "relative"})
    assert found.descent == dataclasses.replace(PRESETS["released"].descent, iterations=3, clip=True, scale="relative")
    assert found.refinement == dataclasses.replace(PRESETS["released"].refinement, theta=0.5)


def test_the_tables_preset_stays() -> None:
    before = dataclasses.replace(PRESETS["default"])
    assert choose_preset("default", {"gamma": "9"}) != before
    assert PRESETS["default"] == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iteration": "3"}, r"^parameter iteration: not known, choose from iterations, gamma, .*, prune\.$"),
        ({"a": 1, "gamma": 2, "b": 3}, r"^parameter a, b: not known"),
        ({"": "3"}, "not known"),
        ({"__class__": "x"}, "^parameter __class__: not known"),
        ({"__init__": "x"}, "^parameter __init__: not known"),
        ({"iterations": "many"}, r"^parameter iterations=many: expected a number\.$"),
        ({"iterations": "2.5"}, r"^parameter iterations=2\.5: expected a number"),
        ({"iterations": ""}, "^parameter iterations=: expected a number"),
        ({"iterations": "0"}, r"^iterations 0: expected a number at least 1\.$"),
        ({"iterations": -3}, "^iterations -3: expected"),
        ({"clip": "perhaps"}, r"^parameter clip=perhaps: expected true or false\.$"),
        ({"gamma": "-1"}, r"^gamma -1\.0: expected a number at least 0"),
        ({"gamma": "nan"}, "^gamma nan: expected"),
        ({"step": "inf"}, "^step inf: expected"),
        ({"step": "0"}, r"^step 0\.0: expected a number above 0"),
        ({"decay": "1.01"}, r"^decay 1\.01: expected a number above 0 and at most 1"),
        ({"scale": "large"}, r"^scale 'large' is not known: choose one of relative, plain, channel\.$"),
        ({"theta_unit": "x"}, "^theta_unit 'x' is not known: choose one of mean, otsu, otsu_max"),
        ({"alpha": "2"}, "^alpha 2.0: expected a number at least 0 and at most 1"),
        ({"prune": "1"}, "^prune 1.0: expected"),
        ({"superpixels": "0"}, "^superpixels 0: expected"),
        ({"sigma": "0"}, "^sigma 0.0: expected"),
    ],
)
def test_what_cannot_be_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SalienceError, match=message) as caught:
        choose_preset("default", changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset() -> None:
    with pytest.raises(SalienceError, match=r"^preset 'best': not known, choose one of default, paper, released\.$"):
        choose_preset("best", {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def detector(bundle_of: Callable[[str], Path]) -> ClampedDescentDetector:
    found = load(bundle_of("cgd"), backend="onnxruntime", precision="fp32", device="cpu", threads=1)
    assert isinstance(found, ClampedDescentDetector)
    return found


def test_a_finder_finds_what_locate_finds(detector: ClampedDescentDetector, photo_folder: Path) -> None:
    source = photo_folder / "coffee.jpg"
    for target in (None, "dog", 4):
        finder = ObjectFinder(detector, target, QUICK)
        expected = detector.locate(source, target, preset=QUICK)
        np.testing.assert_array_equal(finder.locate(source).values, expected.values)
        prepared = finder.prepare(source)
        assert prepared.source == source
        (found,) = finder.infer([prepared])
        whole = finder.finish(prepared, found)
        assert whole.label == expected.label
        np.testing.assert_array_equal(whole.values, expected.values)
    assert (finder.backend, finder.precision) == (detector.backend, "fp32")


def test_a_finder_tells_each_picture_of_a_pipeline(
    detector: ClampedDescentDetector, photo_folder: Path, tmp_path: Path
) -> None:
    told: dict[str, ObjectMap] = {}
    finder = ObjectFinder(detector, "dog", QUICK, lambda source, found: told.update({source.stem: found}))
    assert run_jobs(finder, plan_jobs([str(photo_folder)], tmp_path), batch=3) == []
    assert told.keys() == {"astronaut", "chelsea", "coffee", "rocket"} == {path.stem for path in tmp_path.iterdir()}
    assert {found.label for found in told.values()} == {"dog"}
    for stem, found in told.items():
        expected = detector.locate(photo_folder / f"{stem}.jpg", "dog", preset=QUICK)
        # Three pictures at once are summed in another order.
        np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-5)


def test_a_finder_of_no_class_is_refused_at_once(detector: ClampedDescentDetector) -> None:
    with pytest.raises(SalienceError, match=r"class 'zebra': none of that name"):
        ObjectFinder(detector, "zebra")
