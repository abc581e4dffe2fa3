"""The full report: intervals, what goes in beside the scores, and that no text breaks its pages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.method_maps import accumulate, pairs_of
from benchmarks.quality_rows import Row
from benchmarks.quality_studies import STORED, STUDIES, stored_studies
from benchmarks.report import Contents, report_blocks, report_record, write_report
from benchmarks.report_blocks import Block, Grid, Heading, Pictures, Text, as_html, as_markdown
from benchmarks.report_contents import best_single, comparisons
from benchmarks.report_detail import detail_of, extremes
from benchmarks.report_intervals import f_max_difference, f_max_estimate, mean_difference, mean_estimate
from benchmarks.report_runs import read_ablations, read_run
from salience.runtime.errors import DataError
from tests.html_page import Page

HOSTILE = '<script>alert(1)</script> | *a* & "b"\n# c'
HEADER: dict[str, Any] = {
    "evidence": {"commit": None, "changed": None, "date": "today", "cpu": "c", "cores": 1, "system": "s",
                 "versions": {}},
    "metrics": "m", "part": "test", "limit": None, "bundles": {"a": {"backbone": None, "precisions": ["fp32"]}},
}  # fmt: skip
EPOCHS = [
    {"epoch": 0, "loss": 2.0, "scores": {"f_max": 0.6, "mae": 0.2}, "rate": 0.1, "seconds": 1800.0},
    {"epoch": 1, "loss": 1.0, "scores": {"f_max": 0.7, "mae": 0.1}, "rate": 0.1, "seconds": 1800.0,
     "images_per_second": 12.5},
    {"epoch": 2, "loss": 0.5, "scores": {"f_max": 0.65, "mae": 0.1}, "rate": 0.1, "seconds": 3600.0},
]  # fmt: skip
CLAIM = {
    "claim": HOSTILE, "method": "arn", "verdict": "holds", "reason": "it does",
    "rows": [{"variant": "with", "seeds": [0, 1], "scores": {"f_max": [0.7, 0.8], "mae": [0.1, 0.1]}},
             {"variant": "untrained", "seeds": [], "pictures": 9, "scores": {"f_max": [0.3], "mae": [0.4]}}],
}  # fmt: skip


def save(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_intervals_hold_the_value_and_narrow_with_more_pictures() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, 400)
    few, many = mean_estimate(values[:25]), mean_estimate(values)
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 2
    # Of a mean it is the normal interval, to the noise of 2000 samples.
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    curves = rng.uniform(0.5, 0.9, (60, 1)) - np.linspace(-0.2, 0.2, 256) ** 2
    found = f_max_estimate(curves)
    assert found.value == pytest.approx(curves.mean(axis=0).max())
    assert found.low <= found.value <= found.high


def test_differences_are_of_pairs() -> None:
    """Pictures differ much, the methods little: only pairs tell the two apart."""
    curves = np.random.default_rng(0).uniform(0.2, 0.9, (50, 1)).repeat(256, axis=1)
    same, better = f_max_difference(curves, curves), f_max_difference(curves + 0.01, curves)
    assert (same.value, same.low, same.high, same.sign) == (0, 0, 0, 0)
    assert (better.low, better.high) == pytest.approx((0.01, 0.01))
    assert (better.sign, mean_difference(curves[:, 0], curves[:, 0] + 0.01).sign) == (1, -1)
    assert f_max_estimate(curves).high - f_max_estimate(curves).low > 0.05


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_no_picture_is_in_two_sheets(count: int) -> None:
    found = extremes(range(count))
    shown = [*found["best"], *found["median"], *found["worst"]]
    assert len(shown) == len(set(shown))
    assert found["best"][0] == 0
    assert count == 1 or found["worst"][0] == count - 1
    assert count < 40 or list(found["median"]) == [17, 18, 19, 20, 21, 22]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """A good and a bad method, and stored maps between the two, on pictures with a name that breaks pages."""
    folder, rng = tmp_path_factory.mktemp("set") / "ecssd", np.random.default_rng(0)
    for index, name in enumerate(("a", "b", "<i>c&", "d")):
        mask = np.zeros((40, 60), dtype=np.uint8)
        mask[10:30, 10 + index : 30] = 255
        for kind, values in (("images", rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{name}.png")
    pairs = pairs_of(folder)
    found = []
    for title, shift, stored in (("good", 0, False), ("stored", 4, True), ("bad", 9, False)):
        maps = [np.roll(np.asarray(Image.open(pair.mask)), shift, axis=1) for pair in pairs]
        metrics = accumulate(pairs, ({"": values} for values in maps))[""]
        precision = None if stored else "fp32"
        detail = detail_of(pairs, metrics, maps)
        row = Row(title, "", "ecssd", precision, precision, metrics.scores(), yardstick=stored, detail=detail)
        found.append(row)
    return [*found, Row("good", "", "ecssd", "int8", "onnxruntime", None, reason="not built")]


def test_methods_are_compared_with_stored_maps_of_the_same_pictures(rows: list[Row]) -> None:
    found = comparisons(rows)
    assert [(c.row.method, c.yardstick.method, c.f_max.sign, c.mae.sign) for c in found] == [
        ("good", "stored", 1, -1),
        ("bad", "stored", -1, 1),
    ]
    best = best_single(found, {"bad", "stored"})
    assert best
    assert best.row.method == "bad"
    assert best_single(found, ()) is None


def test_the_report_has_every_row_and_no_picture_in_text(rows: list[Row], tmp_path: Path) -> None:
    ablations = read_ablations(save(tmp_path / "a.json", {"runs": [1], "claims": [CLAIM]}))
    save(tmp_path / "run1/history.json", EPOCHS)
    runs = [read_run("arn", tmp_path / "run1")] * 2
    contents = Contents(HEADER, rows, frozenset({"good"}), ablations, runs)
    html = write_report(tmp_path / "report", contents)
    text, markdown = html.read_text(), (html.parent / "report.md").read_text()
    page, record = Page(text), json.loads((html.parent / "report.json").read_text())
    for words in (page.words, markdown):
        for word in ("good", "bad", "stored", "not built", "Ablations", "Training", ".7500 ± .0707", ".3000"):
            assert word in words if isinstance(words, str) else any(word in part for part in words)
    assert "<i>c&" in page.words
    assert not {"script", "i"} & set(page.tags)
    assert "://" not in text
    files = {address for address in page.addresses if not address.startswith(("data:", "#"))}
    assert files == {str(path.relative_to(html.parent)) for path in html.parent.rglob("*.png")}
    assert len(files) == 2 + 3 * 3
    assert (html.parent / "sheets/.gitignore").read_text() == "*\n"
    assert "![" not in markdown
    assert not [word for word in ("png", "base64", str(tmp_path)) if word in json.dumps(record) + markdown]
    assert [row["method"] for row in record["rows"]] == ["stored", "good", "bad", "good"]
    assert record["rows"][3]["reason"] == "not built"
    assert len(record["sets"]["ecssd"]["names"]) == len(record["rows"][0]["pictures"]["s"]) == 4


def test_a_picture_is_scored_at_the_rows_threshold(rows: list[Row]) -> None:
    for row in rows[:3]:
        assert row.detail
        assert row.scores
        assert row.detail.f.mean() == pytest.approx(row.scores.f_max)
        assert row.detail.mae.mean() == pytest.approx(row.scores.mae)
        assert row.detail.s.mean() == pytest.approx(row.scores.s)
    assert rows[0].detail
    assert rows[0].detail.kinds == ((),) * 4


def test_a_report_without_any_score_is_one_too(rows: list[Row], tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, Contents(HEADER, rows[3:], frozenset())).read_text())
    assert "not built" in page.words
    assert not {"Ablations", "Training"} & set(page.words)


def test_hostile_text_stays_text() -> None:
    blocks: list[Block] = [
        Heading(2, HOSTILE),
        Text(HOSTILE),
        Grid([HOSTILE], [[HOSTILE]], HOSTILE),
        Pictures([("a.png", HOSTILE)]),
    ]
    page = Page(as_html(HOSTILE, blocks))
    assert "script" not in page.tags
    shown = HOSTILE.replace("\n", "\N{REPLACEMENT CHARACTER}")
    assert page.words.count(shown) == 5
    markdown = as_markdown(HOSTILE, blocks)
    assert "<script" not in markdown.replace(r"\<script", "")
    assert all(line.count("|") - line.count(r"\|") == 2 for line in markdown.splitlines() if line.startswith("|"))


def test_hours_and_the_best_epoch_of_a_run(tmp_path: Path) -> None:
    save(tmp_path / "history.json", EPOCHS)
    run = read_run("arn", tmp_path)
    assert (run.hours, run.best.epoch) == (2, 1)
    blocks = report_blocks(Contents(HEADER, [], frozenset(), runs=[run]))
    (grid,) = (b for b in blocks if isinstance(b, Grid) and "hours" in b.columns)
    assert grid.rows == [[f"arn, {tmp_path.name}", "3", "2.00", "12.5", "2", ".700", ".100", "0.5000"]]
    assert report_record(Contents(HEADER, [], frozenset(), runs=[run]))["training"][0]["hours"] == 2


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_ablations, None, "cannot be read"),
        (read_ablations, '{"runs": [', "Invalid JSON"),
        (read_ablations, {"runs": [], "claims": [{**CLAIM, "verdict": "maybe"}]}, "claims.0.verdict"),
        (
            read_ablations,
            {"runs": [], "claims": [{**CLAIM, "rows": [{**CLAIM["rows"][0], "seeds": [0]}]}]},  # type: ignore[dict-item]
            "a score for each seed",
        ),
        (lambda path: read_run("arn", path.parent), None, "expected the folder of a run"),
        (lambda path: read_run("arn", path.parent), [], "no epoch yet"),
        (lambda path: read_run("arn", path.parent), [{"epoch": 0}], "not the record of a run"),
    ],
)
def test_damaged_files_are_a_sentence(read: Callable[[Path], object], text: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    if text is not None:
        save(path, text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_stored_maps_are_of_the_pictures_of_the_studies() -> None:
    assert {study.set_name for study in STUDIES} <= set(STORED)
    found = {(study.set_name, study.sources, study.most) for study in stored_studies(["multis", "cgd", "gicd"])}
    assert found == {
        ("ecssd", "priors_csnet", None),
        ("horses", "priors_csnet", None),
        ("coseg", "priors_contrast", None),
        ("ecssd", "priors_csnet", 50),
    }
