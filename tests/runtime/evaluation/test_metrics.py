"""The scores, against values worked out by hand, against PySODMetrics and against an independent tool."""

import json
import os
import re
from pathlib import Path

import numpy as np
import py_sod_metrics
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from py_sod_metrics.utils import prepare_data

from salience.runtime.errors import DataError
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.images import decode_grey, decode_mask

DATA = os.environ.get("SALIENCE_DATA", "")
REFERENCES = Path(DATA) / "metric_refs"
needs_data = pytest.mark.skipif(not DATA, reason="SALIENCE_DATA does not name a folder with metric_refs/")

HALF = np.arange(64).reshape(8, 8) % 8 < 4
"""Left half salient: at threshold 0 everything is, so precision is 1/2 and recall 1."""
F_AT_ZERO = 1.3 * 0.5 / (0.3 * 0.5 + 1)


def as_map(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def score(*pairs: tuple[NDArray[np.uint8], NDArray[np.bool_]], normalise: bool = True) -> Scores:
    accumulator = MetricAccumulator(normalise=normalise)
    for saliency, mask in pairs:
        accumulator.add(saliency, mask)
    return accumulator.scores()


def test_perfect_map() -> None:
    found = score((as_map(HALF), HALF))
    assert found.images == 1
    assert found.mae == 0
    assert found.f_max == found.f_adaptive == 1
    assert found.f_mean == pytest.approx((255 + F_AT_ZERO) / 256)
    assert found.auc == 1
    assert found.s == pytest.approx(1)
    assert found.f_weighted == pytest.approx(1)
    # E divides by one pixel less than there are.
    assert found.e_max == found.e_adaptive == pytest.approx(64 / 63)


def test_inverted_map() -> None:
    found = score((as_map(~HALF), HALF))
    assert found.mae == 1
    assert found.f_max == pytest.approx(F_AT_ZERO)
    assert found.f_mean == pytest.approx(F_AT_ZERO / 256)
    assert found.f_adaptive == found.auc == 0


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_map_tells_nothing(level: int) -> None:
    found = score((np.full((8, 8), level, np.uint8), HALF))
    assert found.mae == pytest.approx(0.5)
    assert found.f_max == pytest.approx(F_AT_ZERO)
    assert found.auc == pytest.approx(0.5)
    # Up to its own level everything is salient, above it nothing.
    assert found.f_mean == pytest.approx(F_AT_ZERO * (level + 1) / 256)


def test_empty_mask() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    found = score((ramp, np.zeros((8, 8), np.bool_)))
    assert found.mae == pytest.approx(ramp.mean() / 255)
    assert found.f_max == found.f_mean == found.f_adaptive == found.f_weighted == 0
    assert found.auc is None
    nothing = score((np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.bool_)))
    assert nothing.mae == 0
    assert nothing.s == 1


def test_full_mask() -> None:
    found = score((np.full((8, 8), 255, np.uint8), np.ones((8, 8), np.bool_)))
    assert found.mae == 0
    assert found.f_max == found.f_mean == found.f_adaptive == found.s == 1
    assert found.auc is None


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (7, 0), (7, 7), (3, 3)])
def test_object_of_one_pixel(place: tuple[int, int]) -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[place] = True
    found = score((as_map(mask), mask))
    assert (found.mae, found.f_max, found.f_adaptive, found.auc) == (0, 1, 1, 1)
    # The reference is NaN for an object in the last row or column.
    assert found.s is not None
    assert 0.9 < found.s <= 1


def test_image_of_one_pixel_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2 pixels"):
        score((np.full((1, 1), 255, np.uint8), np.ones((1, 1), np.bool_)))


def test_other_size_is_refused_and_not_counted() -> None:
    accumulator = MetricAccumulator()
    with pytest.raises(DataError, match=r"\(8, 9\).*\(8, 8\)"):
        accumulator.add(np.zeros((8, 9), np.uint8), HALF)
    accumulator.add(as_map(HALF), HALF)
    assert accumulator.scores().images == len(accumulator.image_scores()) == 1


def test_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="no image was scored"):
        MetricAccumulator().scores()


def test_basic_metrics_only() -> None:
    accumulator = MetricAccumulator(full=False)
    accumulator.add(as_map(HALF), HALF)
    found = accumulator.scores()
    assert found.f_max == 1
    assert (found.s, found.e_max, found.f_weighted, found.auc) == (None, None, None, None)


def test_image_scores_keep_their_order() -> None:
    accumulator = MetricAccumulator(full=False)
    for saliency in (as_map(HALF), as_map(~HALF), np.full((8, 8), 51, np.uint8)):
        accumulator.add(saliency, HALF)
    found = accumulator.image_scores()
    assert [image["mae"] for image in found] == pytest.approx([0, 1, 0.5])
    assert [image["f_max"] for image in found] == pytest.approx([1, F_AT_ZERO, F_AT_ZERO])


def test_f_max_is_the_largest_of_the_averaged_curve() -> None:
    dim = np.where(HALF, 100, 0).astype(np.uint8)
    bright = np.where(HALF, 255, 150).astype(np.uint8)
    found = score((dim, HALF), (bright, HALF), normalise=False)
    # Each map has a perfect threshold of its own; at any threshold one of them is wrong.
    assert found.f_max == pytest.approx((1 + F_AT_ZERO) / 2)


def test_conventions_of_f_on_two_maps() -> None:
    quarter = np.arange(64).reshape(8, 8) % 8 < 2
    # A perfect map, and one that finds half of its object at level 255 and the whole image at level 0.
    found = score((as_map(HALF), HALF), (as_map(quarter), HALF))
    f_of_half = 1.3 * 1 * 0.5 / (0.3 * 1 + 0.5)
    assert (found.f_max, found.f_max_precision, found.f_max_recall) == pytest.approx(((1 + f_of_half) / 2, 1, 0.75))
    mean_pr = (found.f_max_of_mean_pr, found.f_max_of_mean_pr_precision, found.f_max_of_mean_pr_recall)
    assert mean_pr == pytest.approx((1.3 * 0.75 / (0.3 + 0.75), 1, 0.75))
    # The second map's threshold of twice its mean is .5, so level 255 alone is salient.
    adaptive = (found.f_adaptive, found.f_adaptive_precision, found.f_adaptive_recall)
    assert adaptive == pytest.approx(((1 + f_of_half) / 2, 1, 0.75))


def test_mean_of_max_takes_each_map_at_its_own_threshold() -> None:
    dim = np.where(HALF, 100, 0).astype(np.uint8)
    bright = np.where(HALF, 255, 150).astype(np.uint8)
    found = score((dim, HALF), (bright, HALF), normalise=False)
    own = (found.f_mean_of_max, found.f_mean_of_max_precision, found.f_mean_of_max_recall)
    assert own == pytest.approx((1, 1, 1))
    # At 255 to 151 the mean precision and recall are 1/2 (the first map is empty), at 100 to 1 they are 3/4 and 1.
    mean_pr = (found.f_max_of_mean_pr, found.f_max_of_mean_pr_precision, found.f_max_of_mean_pr_recall)
    assert mean_pr == pytest.approx((1.3 * 0.75 / (0.3 * 0.75 + 1), 0.75, 1))


def test_an_image_measured_once_counts_in_two_accumulators() -> None:
    total, part = MetricAccumulator(), MetricAccumulator(keep_curves=False)
    total.add(as_map(~HALF), HALF)
    part.include(total.add(as_map(HALF), HALF))
    assert (total.scores().images, part.scores().images) == (2, 1)
    assert part.scores() == score((as_map(HALF), HALF))
    with pytest.raises(DataError, match="not kept"):
        part.image_curves()
    with pytest.raises(DataError, match="full set"):
        part.include(MetricAccumulator(full=False).add(as_map(HALF), HALF))


def test_curves_run_from_the_highest_threshold_down() -> None:
    accumulator = MetricAccumulator(full=False)
    accumulator.add(np.where(HALF, 255, 0).astype(np.uint8), HALF)
    curves = accumulator.curves()
    assert len(curves.f) == len(curves.precision) == len(curves.recall) == 256
    assert (curves.precision[0], curves.recall[0], curves.false_positive_rate[0]) == (1, 1, 0)
    assert (curves.precision[-1], curves.recall[-1], curves.false_positive_rate[-1]) == (0.5, 1, 1)


def test_normalisation_stretches_each_map() -> None:
    faint = np.where(HALF, 60, 40).astype(np.uint8)
    assert score((faint, HALF)).mae == 0
    assert score((faint, HALF), normalise=False).mae == pytest.approx((195 + 40) / 2 / 255)


def test_auc_of_a_random_map() -> None:
    random = np.random.default_rng(0)
    saliency = random.integers(0, 256, (200, 200)).astype(np.uint8)
    # Its standard deviation is 0.003 for 20,000 pixels of each kind.
    assert score((saliency, random.random((200, 200)) < 0.5)).auc == pytest.approx(0.5, abs=0.015)


def test_auc_leaves_out_masks_of_one_kind() -> None:
    empty = np.zeros((8, 8), np.bool_)
    assert score((as_map(HALF), HALF), (as_map(HALF), empty), (as_map(HALF), ~empty)).auc == 1


maps_of_6_by_5 = arrays.arrays(np.uint8, (6, 5), elements=st.integers(0, 255))
masks_of_6_by_5 = arrays.arrays(np.bool_, (6, 5))


@given(saliency=maps_of_6_by_5, mask=masks_of_6_by_5)
def test_auc_is_the_chance_of_ranking_two_pixels_rightly(saliency: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    found = score((saliency, mask), normalise=False).auc
    if mask.all() or not mask.any():
        assert found is None
        return
    difference = saliency[mask].astype(int)[:, None] - saliency[~mask].astype(int)[None]
    assert found == pytest.approx(np.mean((np.sign(difference) + 1) / 2), abs=1e-9)


@given(saliency=maps_of_6_by_5, mask=masks_of_6_by_5)
def test_any_map_has_finite_scores(saliency: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    values = score((saliency, mask)).model_dump(exclude_none=True, exclude={"images"})
    # E exceeds 1 by one pixel in 30.
    assert all(0 <= value <= 30 / 29 + 1e-9 for value in values.values())


@given(saliency=maps_of_6_by_5, mask=masks_of_6_by_5)
def test_normalisation_is_that_of_the_reference(saliency: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    stretched, truth = prepare_data(saliency, as_map(mask))
    reference = py_sod_metrics.WeightedFmeasure()
    reference.step(stretched, truth, normalize=False)
    error = py_sod_metrics.MAE()
    error.step(saliency, as_map(mask))
    found = score((saliency, mask))
    assert found.mae == error.get_results()["mae"] == np.abs(stretched - truth).mean()
    assert found.f_weighted == reference.get_results()["wfm"]


def pairs_below(predictions: Path, masks: Path) -> list[tuple[Path, Path]]:
    return [(predictions / mask.name, mask) for mask in sorted(masks.glob("*.png"))]


def score_files(predictions: Path, masks: Path, *, normalise: bool = True) -> Scores:
    pairs = [(decode_grey(prediction), decode_mask(mask)) for prediction, mask in pairs_below(predictions, masks)]
    assert pairs
    return score(*pairs, normalise=normalise)


def call_reference(predictions: Path, masks: Path) -> dict[str, float]:
    """PySODMetrics as its README shows it, with its older F class, which shares no code with ours."""
    with pytest.warns(UserWarning, match="FmeasureV2"):
        f = py_sod_metrics.Fmeasure()
    mae, s, e, weighted = (
        py_sod_metrics.MAE(),
        py_sod_metrics.Smeasure(),
        py_sod_metrics.Emeasure(),
        py_sod_metrics.WeightedFmeasure(),
    )
    for prediction, mask in pairs_below(predictions, masks):
        for metric in (f, mae, s, e, weighted):
            metric.step(decode_grey(prediction), decode_grey(mask))
    fm, pr, em = f.get_results()["fm"], f.get_results()["pr"], e.get_results()["em"]
    with np.errstate(invalid="ignore"):
        f_of_mean_pr = np.nan_to_num(1.3 * pr["p"] * pr["r"] / (0.3 * pr["p"] + pr["r"]))
    best = fm["curve"].argmax()
    return {
        "maxF-precision": pr["p"][best],
        "maxF-recall": pr["r"][best],
        "maxF-of-mean-PR": f_of_mean_pr.max(),
        "mean-of-maxF": np.max(f.changeable_fms, axis=1).mean(),
        "MAE": mae.get_results()["mae"],
        "maxFm": fm["curve"].max(),
        "meanFm": fm["curve"].mean(),
        "adpFm": fm["adp"],
        "Smeasure": s.get_results()["sm"],
        "maxEm": em["curve"].max(),
        "meanEm": em["curve"].mean(),
        "adpEm": em["adp"],
        "wFmeasure": weighted.get_results()["wfm"],
    }


def by_reference_name(scores: Scores) -> dict[str, float | None]:
    return {
        "maxF-precision": scores.f_max_precision,
        "maxF-recall": scores.f_max_recall,
        "maxF-of-mean-PR": scores.f_max_of_mean_pr,
        "mean-of-maxF": scores.f_mean_of_max,
        "MAE": scores.mae,
        "maxFm": scores.f_max,
        "meanFm": scores.f_mean,
        "adpFm": scores.f_adaptive,
        "Smeasure": scores.s,
        "maxEm": scores.e_max,
        "meanEm": scores.e_mean,
        "adpEm": scores.e_adaptive,
        "wFmeasure": scores.f_weighted,
    }


@needs_data
def test_agrees_with_pysodmetrics_as_installed_and_as_published() -> None:
    folder = REFERENCES / "pysodmetrics/test_data"
    found = by_reference_name(score_files(folder / "preds", folder / "masks"))
    assert found == pytest.approx(call_reference(folder / "preds", folder / "masks"), abs=1e-6)
    versions = json.loads((folder.parent / "version_performance.json").read_text())
    # Newer versions list only what they added, so each score is taken from the newest that has it.
    published = {name: value for scores in versions.values() for name, value in scores.items()}
    shared = found.keys() & published.keys()
    assert {"maxFm", "adpFm", "meanFm", "MAE", "Smeasure", "wFmeasure"} <= shared
    assert {name: found[name] for name in shared} == pytest.approx({name: published[name] for name in shared}, abs=1e-6)


@needs_data
@pytest.mark.parametrize("data_set", ["Dataset_1", "Dataset_2"])
@pytest.mark.parametrize("method", ["Method_1", "Method_2"])
def test_agrees_with_an_independent_tool(data_set: str, method: str) -> None:
    root = REFERENCES / "zyjwuyan"
    masks, predictions = root / "gt" / data_set, root / "pred_maps" / method / data_set
    found = score_files(predictions, masks)
    assert by_reference_name(found) == pytest.approx(call_reference(predictions, masks), abs=1e-6)

    (line,) = re.findall(rf".*\[{data_set} .*\[{method} .*", (root / "score/result.txt").read_text())
    theirs = {name: float(value) for value, name in re.findall(r"\[([\d.]+) ([\w-]+)\]", line)}
    # They print 4 digits. S differs in how a centroid is rounded, the means in the number of thresholds.
    rounding = 5.1e-5
    tolerances = {
        "max-fmeasure": (found.f_max, rounding),
        "adp-fmeasure": (found.f_adaptive, rounding),
        "max-Emeasure": (found.e_max, rounding),
        "adp-Emeasure": (found.e_adaptive, rounding),
        "S-measure_alpha05": (found.s, 2e-4 + rounding),
        "mae": (found.mae, 2e-4 + rounding),
        "mean-fmeasure": (found.f_mean, 1.5e-3),
        "mean-Emeasure": (found.e_mean, 1.5e-3),
    }
    for name, (ours, tolerance) in tolerances.items():
        assert ours == pytest.approx(theirs[name], abs=tolerance), name

    # They take MAE of maps as they are; then each image agrees, but for their single precision.
    log = (root / f"score/log/{data_set}_{method}_MAE.txt").read_text()
    errors = [float(value) for value in re.findall(r"^\S+\.png +(\S+)$", log, re.MULTILINE)]
    assert len(errors) == found.images
    unstretched = score_files(predictions, masks, normalise=False)
    assert unstretched.mae == pytest.approx(np.mean(errors), abs=1e-7)
