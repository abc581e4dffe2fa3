"""Scoring a list of pairs: sizes, broken files, what is counted."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from salience.runtime.errors import DataError, EngineError
from salience.runtime.evaluation.command import compare_maps, evaluate_maps, fit_to, load_stored_map
from salience.runtime.evaluation.metrics import Scores
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.evaluation.tables import comparison_rows, comparison_table, scores_json, scores_table

LEFT = np.repeat([[255, 0]], 8, axis=0).repeat(4, axis=1).astype(np.uint8)


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def make_pair(folder: Path, name: str, saliency: NDArray[np.uint8], mask: NDArray[np.uint8] = LEFT) -> Pair:
    source = save(folder / f"maps/{name}.png", saliency)
    return Pair(name, source, save(folder / f"masks/{name}.png", mask))


def test_scores_and_list_are_in_order(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, "b", LEFT), make_pair(tmp_path, "a", 255 - LEFT)]
    done: list[tuple[int, int]] = []
    found = evaluate_maps(pairs, load_stored_map, normalise=True, progress=lambda *counts: done.append(counts))
    assert [(result.pair.name, result.mae) for result in found.images] == [("b", 0), ("a", 1)]
    assert found.scores.images == 2
    assert found.scores.mae == 0.5
    assert (found.failures, found.resized, found.normalised) == ((), 0, True)
    assert done == [(1, 2), (2, 2)]


def test_map_of_another_size_is_brought_to_the_mask(tmp_path: Path) -> None:
    large = LEFT.repeat(16, axis=0).repeat(8, axis=1)
    small = LEFT[:2, 3:5]
    pairs = [
        make_pair(tmp_path, "large", large),
        make_pair(tmp_path, "small", small),
        make_pair(tmp_path, "same", LEFT),
    ]
    found = evaluate_maps(pairs, load_stored_map, normalise=True)
    assert found.resized == 2
    assert not found.failures
    assert [result.f_max for result in found.images] == [1, 1, 1]


def test_resize_is_bilinear() -> None:
    wide = fit_to(np.array([[0, 200]], np.uint8), (3, 4))
    assert wide.shape == (3, 4)
    assert wide.tolist() == [[0, 50, 150, 200]] * 3


@pytest.mark.parametrize("saliency", [np.zeros((8, 8), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_map_of_another_kind_is_refused(saliency: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match=r"expected \(H, W\) uint8"):
        fit_to(saliency, (8, 8))


def test_broken_files_are_named_and_the_rest_is_scored(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, name, LEFT) for name in ("cut", "good", "empty", "mask", "gone")]
    whole = pairs[0].source.read_bytes()
    pairs[0].source.write_bytes(whole[: len(whole) // 2])
    pairs[2].source.write_bytes(b"")
    pairs[3].mask.write_text("no image")
    pairs[4].source.unlink()
    found = evaluate_maps(pairs, load_stored_map, normalise=True)
    assert [failure.name for failure in found.failures] == ["cut", "empty", "mask", "gone"]
    assert all(failure.reason for failure in found.failures)
    assert [result.pair.name for result in found.images] == ["good"]
    assert (found.scores.images, found.scores.f_max) == (1, 1)


def test_nothing_scored_is_an_error(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "a", LEFT)
    pair.source.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 1 maps could be scored.*the first failed so: image .*a\.png"):
        evaluate_maps([pair], load_stored_map, normalise=True)
    with pytest.raises(DataError, match="none of 0 maps"):
        evaluate_maps([], load_stored_map, normalise=True)


def test_a_failing_engine_is_not_taken_for_a_broken_file(tmp_path: Path) -> None:
    def fail(pair: Pair) -> NDArray[np.uint8]:
        raise EngineError("engine: out of memory.")

    with pytest.raises(EngineError):
        evaluate_maps([make_pair(tmp_path, "a", LEFT)], fail, normalise=True)


def shown(scores: Scores) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(scores_table(scores))
    return console.export_text()


def test_table_shows_the_scores_that_were_taken() -> None:
    basic = shown(Scores(images=1, mae=0.06254, f_max=0.896, f_mean=0.85, f_adaptive=0.84))
    assert "Scores of 1 image " in basic
    assert re.search(r"MAE +│ 0\.0625 +│ +│ +│ mean absolute error, lower is better", basic)
    assert "AUC" not in basic
    full = shown(Scores(images=1200, mae=0, f_max=1, f_mean=1, f_adaptive=1, s=0.5, auc=0.98765))
    assert "Scores of 1200 images " in full
    assert re.search(r"AUC +│ 0\.9877", full)


def test_table_names_each_f_with_its_precision_and_recall() -> None:
    scores = Scores(
        images=2, mae=0, f_max=0.7, f_max_precision=0.71, f_max_recall=0.72, f_max_of_mean_pr=0.8, f_mean_of_max=0.9,
        f_mean=0.6, f_adaptive=0.5, f_adaptive_precision=0.51, f_adaptive_recall=0.52,
    )  # fmt: skip
    text = shown(scores)
    assert re.search(r"max F +│ 0\.7000 +│ +0\.7100 +│ 0\.7200", text)
    assert re.search(r"max F of mean PR +│ 0\.8000", text)
    assert re.search(r"mean of max F +│ 0\.9000", text)
    assert re.search(r"adaptive F +│ 0\.5000 +│ +0\.5100 +│ 0\.5200", text)
    assert re.search(r"mean F +│ 0\.6000", text)


def test_methods_are_scored_on_the_same_images(tmp_path: Path) -> None:
    good = [make_pair(tmp_path / "good", name, LEFT) for name in ("a", "b", "c")]
    bad = [make_pair(tmp_path / "bad", name, 255 - LEFT) for name in ("a", "b", "c")]
    bad[1].source.write_bytes(b"")
    done: list[tuple[int, int]] = []
    found = compare_maps(
        {"good": good, "bad": bad},
        dict.fromkeys(("good", "bad"), load_stored_map),
        normalise=True,
        progress=lambda *counts: done.append(counts),
    )
    assert [(name, evaluation.scores.images, evaluation.scores.mae) for name, evaluation in found.items()] == [
        ("good", 2, 0),
        ("bad", 2, 1),
    ]
    for evaluation in found.values():
        assert [failure.name for failure in evaluation.failures] == ["b"]
        assert str(bad[1].source) in evaluation.failures[0].reason
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_sources_have_rows_and_a_mean_of_equal_weights(tmp_path: Path) -> None:
    names_and_maps = [("cats/1", LEFT), ("cats/2", LEFT), ("cats/3", LEFT), ("dogs/1", 255 - LEFT)]
    pairs = [make_pair(tmp_path, name, saliency) for name, saliency in names_and_maps]
    found = evaluate_maps(pairs, load_stored_map, normalise=True)
    assert {name: (scores.images, scores.mae) for name, scores in found.groups.items()} == {
        "cats": (3, 0),
        "dogs": (1, 1),
    }
    assert found.mean_of_groups
    assert (found.scores.mae, found.mean_of_groups.mae, found.mean_of_groups.images) == (0.25, 0.5, 4)
    written = scores_json(found)
    assert written["mae"] == 0.25
    assert written["sources"]["dogs"]["mae"] == 1
    assert written["mean_of_sources"]["mae"] == 0.5


def test_sources_are_automatic_and_can_be_asked_for(tmp_path: Path) -> None:
    flat = [make_pair(tmp_path, name, LEFT) for name in ("a", "b")]
    nested = [*flat, make_pair(tmp_path, "c/d/e", LEFT)]
    assert not evaluate_maps(flat, load_stored_map, normalise=True).groups
    assert list(evaluate_maps(flat, load_stored_map, normalise=True, per_group=True).groups) == ["."]
    assert list(evaluate_maps(nested, load_stored_map, normalise=True).groups) == [".", "c"]
    assert not evaluate_maps(nested, load_stored_map, normalise=True, per_group=False).groups


def test_comparison_shows_no_column_that_nobody_has() -> None:
    basic = Scores(images=3, mae=0.1, f_max=0.9, f_mean=0.8, f_adaptive=0.7)
    table = comparison_rows({"a": basic, "b": basic}, title="method")
    assert table.head == ("method", "images", "MAE", "max F", "adaptive F", "mean F")
    assert table.rows[1] == ("b", "3", "0.1000", "0.9000", "0.7000", "0.8000")


def test_comparison_fits_a_terminal_of_80_columns() -> None:
    one = dict.fromkeys(Scores.model_fields, 0.12345) | {"images": 1200}
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(comparison_table({"method": Scores.model_validate(one)}, title="Scores", heading="method"))
    (line,) = [line for line in console.export_text().splitlines() if "1200" in line]
    assert line.split() == ["method", "1200", "0.1235", *["0.123"] * 7]
