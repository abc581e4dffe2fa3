"""The scores of every method, precision and backend, and their change against fp32."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from benchmarks import quality
from benchmarks.method_maps import group_maps, pairs_of, promoted_maps, score, stored_maps
from benchmarks.quality_rows import MARKED_CHANGE, NOT_BUILT, Row, cells, in_order, with_changes
from benchmarks.quality_studies import STORED, STUDIES
from salience.runtime import DataError, SaliencyMap, load
from salience.runtime.bundle import DEFAULT_BUNDLE, Bundle
from salience.runtime.evaluation.metrics import MetricAccumulator, Scores
from salience.runtime.images import decode, decode_grey, decode_mask
from salience.runtime.manifest import LayerChange, Precision, Quantization

SETS = {"ecssd": "priors_csnet", "horses": "priors_csnet", "coseg": "priors_contrast"}
NAMES = {"ecssd": ("1", "2", "3"), "horses": ("1", "2"), "coseg": ("Aero/1", "Aero/2", "Cow/1")}

BUILT = Bundle(DEFAULT_BUNDLE).manifest.default_precision
LACKING = next(name for name in get_args(Precision) if name not in Bundle(DEFAULT_BUNDLE).precisions())


def write_picture(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sets, small: a bright box on noise, its mask, and a prior that has it at half strength."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, priors in SETS.items():
        for index, stem in enumerate(NAMES[name]):
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[10 + index : 30, 12:40] = 255
            image = rng.integers(0, 120, (48, 64, 3), dtype=np.uint8) + mask[..., None] // 2
            write_picture(folder / name / "images" / f"{stem}.png", image)
            write_picture(folder / name / "masks" / f"{stem}.png", mask)
            write_picture(folder / name / priors / f"{stem}.png", mask // 2 + 20)
    parts = {name: {"test": list(stems), "val": [stems[0]]} for name, stems in NAMES.items()}
    (folder / "splits.json").write_text(json.dumps(parts))
    return folder


def run(data: Path, folder: Path, *options: str, bundle: str = f"multis={DEFAULT_BUNDLE}") -> dict[str, Any]:
    output = folder / "quality.json"
    quality.main(["--bundle", bundle, "--data", str(data), "--json", str(output), *options])
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_rows_hold_the_scores_of_the_maps(data: Path, tmp_path: Path) -> None:
    markdown = tmp_path / "quality.md"
    found = run(data, tmp_path, "--precisions", LACKING, BUILT, "--limit", "2", "--markdown", str(markdown))
    rows = {(row["set"], row["precision"]): row for row in found["rows"]}
    assert set(rows) == {(name, precision) for name in SETS for precision in (LACKING, BUILT)}
    detector, expected = load(backend="onnxruntime"), MetricAccumulator()
    for stem in NAMES["ecssd"][:2]:
        mask = decode_mask(data / "ecssd" / "masks" / f"{stem}.png")
        expected.add(detector.predict(data / "ecssd" / "images" / f"{stem}.png").grey(), mask)
    row, scores = rows["ecssd", BUILT], expected.scores().model_dump()
    assert (row["state"], row["images"], row["change_f_max"]) == ("scored", 2, None)
    for key in ("f_max", "f_mean", "mae", "s", "e_max", "e_mean"):
        assert row[key] == scores[key]
    assert (rows["ecssd", LACKING]["state"], rows["ecssd", LACKING]["f_max"]) == (NOT_BUILT, None)
    lines = markdown.read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert sum(NOT_BUILT in line for line in lines) == 3


def test_the_file_says_how_it_was_made(data: Path, tmp_path: Path) -> None:
    found = run(data, tmp_path, "--precisions", BUILT, "--part", "val")
    assert found["part"] == "val"
    assert {row["images"] for row in found["rows"]} == {1}
    assert found["bundles"]["multis"]["checkpoint"] == "multis-mobilenet_v2.safetensors"
    assert found["evidence"]["commit"]


def test_what_fails_is_a_row_and_the_rest_is_scored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    splits = json.loads((data / "splits.json").read_text())
    del splits["horses"]
    broken = tmp_path / "data"
    broken.mkdir()
    (broken / "splits.json").write_text(json.dumps(splits))
    for name in SETS:
        (broken / name).symlink_to(data / name)
    found = run(broken, tmp_path, "--precisions", BUILT, "--backends", "openvino", "onnxruntime")
    states = {(row["backend"], row["set"]): (row["state"], row["reason"]) for row in found["rows"]}
    assert states["onnxruntime", "ecssd"] == states["onnxruntime", "coseg"] == ("scored", "")
    assert states["onnxruntime", "horses"][0] == "failed"
    assert states["onnxruntime", "horses"][1].startswith("DataError: splits ")
    assert all(
        state == "failed" and "salience[openvino]" in reason
        for (backend, _), (state, reason) in states.items()
        if backend == "openvino"
    )


def test_a_bundle_of_another_method_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds multis, expected arn"):
        run(data, tmp_path, bundle=f"arn={DEFAULT_BUNDLE}")


def scores(f_max: float, mae: float) -> Scores:
    return Scores(images=5, mae=mae, f_max=f_max, f_mean=0.5, f_adaptive=0.5, s=0.5, e_mean=0.5, e_max=0.5)


def row(precision: str | None, backend: str | None, found: Scores | None, *, form: str = "", name: str = "a") -> Row:
    return Row("lps", form, name, precision, backend, scores=found, reason="" if found else NOT_BUILT)


def test_changes_are_against_fp32_on_onnx_runtime_of_the_same_form_and_set() -> None:
    rows = [
        row("int8", "onnxruntime", scores(0.806, 0.1)),
        row("fp32", "onnxruntime", scores(0.8, 0.1)),
        row("int8", "openvino", scores(0.797, 0.106)),
        row("fp32", "openvino", scores(0.8049, 0.0951)),
        row("int8", "openvino", None),
        row("fp32", "onnxruntime", scores(0.5, 0.2), form="T = 10"),
        row("int8", "onnxruntime", scores(0.5, 0.2), form="T = 10"),
        row("int8", "onnxruntime", scores(0.4, 0.2), name="b"),
        row(None, None, scores(0.1, 0.3)),
    ]
    found = with_changes(rows)
    changes = [None if r.changes is None else tuple(round(value, 4) for value in r.changes) for r in found]
    assert changes == [(0.006, 0), None, (-0.003, 0.006), (0.0049, -0.0049), None, None, (0, 0), None, None]
    assert [r.marked for r in found] == [True, False, True, False, False, False, False, False, False]
    assert MARKED_CHANGE == 0.005
    assert [r.record()["state"] for r in found].count(NOT_BUILT) == 1
    assert cells(found[0])[-2:] == ["+.0060 !", "0"]
    assert cells(found[2])[-2:] == ["-.0030", "+.0060 !"]


def test_rows_of_a_set_and_form_stand_together() -> None:
    rows = [
        Row("m", form, name, precision, "onnxruntime", scores=None)
        for precision in ("fp32", "int8")
        for name in ("a", "b")
        for form in ("T = 1", "T = 10")
    ]
    found = [(r.set_name, r.form, r.precision) for r in in_order(rows)]
    assert found[:3] == [("a", "T = 1", "fp32"), ("a", "T = 1", "int8"), ("a", "T = 10", "fp32")]
    assert sorted(found) == sorted((r.set_name, r.form, r.precision) for r in rows)


def test_every_method_is_scored_on_some_set() -> None:
    from salience.runtime.methods import METHODS

    assert {study.method for study in STUDIES} == set(METHODS)


def test_priors_need_their_pictures(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ecssd"
    folder.mkdir()
    for name in ("masks", "priors_csnet"):
        (folder / name).symlink_to(data / "ecssd" / name)
    write_picture(folder / "images" / "1.png", np.zeros((48, 64, 3), dtype=np.uint8))
    pairs = pairs_of(folder, sources="priors_csnet")
    assert [found[""].max() for found in stored_maps(pairs)] == [147] * 3
    with pytest.raises(DataError, match="no picture 2"):
        list(promoted_maps(object(), pairs[1:]))  # type: ignore[arg-type]


class Promoter:
    """Adds a tenth of the prior in every round."""

    def prepare_pair(self, image: Path, prior: Any, *, empty: str) -> tuple[Any, Any]:
        assert (image.parent.parent.name, empty) == ("images", "keep")
        return decode(image), prior

    def refine(self, pairs: list[tuple[Any, Any]], iterations: int, *, every: bool) -> Any:
        assert every
        return np.array([[prior * (1 + t / 10) for t in range(1, iterations + 1)] for _, prior in pairs])

    def finish(self, pair: tuple[Any, Any], values: Any) -> SaliencyMap:
        return SaliencyMap((values / 255).astype(np.float32), pair[0])


def test_promoted_maps_are_those_after_each_of_the_iterations(data: Path) -> None:
    pairs = pairs_of(data / "coseg", sources="priors_contrast")
    for pair, found in zip(pairs, promoted_maps(Promoter(), pairs, iterations=(0, 1, 4)), strict=True):  # type: ignore[arg-type]
        prior = decode_grey(pair.source)
        np.testing.assert_array_equal(found["T = 0"], prior)
        np.testing.assert_array_equal(found["T = 1"], np.rint(prior * 1.1))
        np.testing.assert_array_equal(found["T = 4"], np.rint(prior * 1.4))


class Grouper:
    """Maps that say how large the group is, and which of its members this is."""

    def predict_group(self, images: list[Path]) -> list[SaliencyMap]:
        size = np.ones((48, 64), dtype=np.float32)
        return [
            SaliencyMap(size * np.float32((len(images) * 10 + i) / 255), decode(image))
            for i, image in enumerate(images)
        ]


def test_maps_of_groups_come_in_the_order_of_the_pairs(data: Path) -> None:
    maps = list(group_maps(Grouper(), pairs_of(data / "coseg")))  # type: ignore[arg-type]
    assert [int(found[""].max()) for found in maps] == [20, 21, 10]


def test_as_many_maps_as_pictures_are_scored(data: Path) -> None:
    pairs = pairs_of(data / "ecssd", sources="priors_csnet")
    with pytest.raises(ValueError, match="shorter"):
        score(pairs, stored_maps(pairs[:2]))


@pytest.mark.slow
def test_every_method_runs(data: Path, tmp_path: Path, bundle_of: Callable[[str], Path]) -> None:
    for method in ("arn", "lps", "gicd", "cgd"):
        precisions, backends = ("--precisions", "fp32", "fp16-weights"), ("--backends", "onnxruntime", "openvino")
        found = run(data, tmp_path, *precisions, *backends, bundle=f"{method}={bundle_of(method)}")
        assert {r["state"] for r in found["rows"]} == {"scored"}, method
        # An engine's rounding moves few pixels of such small networks; the exact allowance does not matter.
        same = [r for r in found["rows"] if (r["precision"], r["backend"]) == ("fp32", "openvino")]
        assert same
        assert all(abs(r["change_mae"]) < 0.01 for r in same), method
        yardsticks = [r["form"] for r in found["rows"] if r["precision"] is None]
        assert yardsticks == {"lps": ["the priors"] * 2, "cgd": ["low-level map alone"]}.get(method, [])


def test_the_layers_that_stay_fp32_are_counted() -> None:
    layers = [
        LayerChange(graph="saliency", layer=str(index), relative=None, multiply_adds=10 * index, kept=index == 1)
        for index in range(4)
    ]
    chosen = Quantization(calibrated=9, corrected=9, tuned=9, limit=5e-3, layers=tuple(layers), trials=())
    assert quality.int8_layers(chosen) == {"layers": 4, "fp32": 1, "fp32_share": pytest.approx(1 / 6)}


def test_a_later_run_adds_other_methods(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "quality.json"
    first = run(data, tmp_path, "--precisions", BUILT)
    row = {**first["rows"][0], "method": "arn"}
    output.write_text(json.dumps({**first, "bundles": {"arn": {}}, "rows": [row]}))
    found = run(data, tmp_path, "--precisions", BUILT, "--add")
    assert found["rows"] == [row, *first["rows"]]
    assert list(found["bundles"]) == ["arn", "multis"]
    with pytest.raises(SystemExit, match=r"quality.json holds multis already; write to a new file"):
        run(data, tmp_path, "--add")


def test_a_second_bundle_of_a_method_has_a_label(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "quality.json"
    bundles = [f"multis={DEFAULT_BUNDLE}", f"multis:again={DEFAULT_BUNDLE}"]
    quality.main(
        ["--bundle", *bundles, "--data", str(data), "--precisions", BUILT, "--limit", "1", "--json", str(output)]
    )
    found = json.loads(output.read_text())
    assert [*found["bundles"]] == ["multis", "multis:again"]
    assert {(row["set"], row["form"]) for row in found["rows"]} == {
        (name, form) for name in SETS for form in ("", "again")
    }
    assert len({row["f_max"] for row in found["rows"] if row["set"] == "ecssd"}) == 1


@pytest.mark.parametrize("change", [{"part": "val"}, {"limit": 3}, {"evidence": {"commit": "another"}}])
def test_a_run_is_added_to_one_of_its_kind(data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    output = tmp_path / "quality.json"
    first = run(data, tmp_path, "--precisions", LACKING)
    output.write_text(json.dumps({**first, "bundles": {}, "rows": [], **change}))
    with pytest.raises(SystemExit, match=r"--add: .* is of another"):
        run(data, tmp_path, "--precisions", LACKING, "--add")
    assert json.loads(output.read_text())["rows"] == []


def test_a_report_has_the_methods_and_what_they_are_compared_with(data: Path, tmp_path: Path) -> None:
    found = run(data, tmp_path, "--precisions", LACKING, BUILT, "--report", str(tmp_path / "report"))
    record = json.loads((tmp_path / "report/report.json").read_text())
    rows = {(row["method"], row["set"], row["precision"]): row for row in record["rows"]}
    scored = {(row["method"], row["set"], row["precision"]): row for row in found["rows"]}
    assert rows.keys() == scored.keys() | {(STORED[name][0], name, None) for name in SETS}
    assert rows["multis", "ecssd", LACKING]["reason"] == NOT_BUILT
    for key, row in scored.items():
        if row["state"] == "scored":
            assert rows[key]["f_max"] == pytest.approx(row["f_max"], abs=1e-4)
            assert rows[key]["intervals"]["mae"]["value"] == pytest.approx(row["mae"], abs=1e-4)
            assert len(rows[key]["pictures"]["f"]) == len(record["sets"][key[1]]["names"]) == len(NAMES[key[1]])
    assert len(record["comparisons"]) == len(SETS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "r", "--ablations", "none.json"], "ablations none.json: cannot be read"),
        (["--report", "r", "--runs", "multis=nowhere"], "history nowhere: No such file"),
    ],
)
def test_files_of_a_report_are_read_before_anything_is_scored(
    data: Path, options: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message):
        run(data, tmp_path, *options)
    with pytest.raises(SystemExit):
        run(data, tmp_path, *options[2:])
