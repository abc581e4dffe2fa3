"""Cost curves: what the fits find, and that a stored slope which is not that of its points is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from benchmarks import curves
from benchmarks.curve_calls import batch_calls, kept_pictures
from benchmarks.curve_plot import draw
from benchmarks.curve_record import PANELS, Curve, Record
from benchmarks.slopes import REFERENCE_PIXELS, Line, Power, worst_residual
from salience.runtime import load
from salience.runtime.manifest import TensorSpec

BATCHES = (1, 2, 4, 8, 16)
PIXELS = tuple(side * side for side in (128, 224, 320, 448))


class Clock:
    """Stands still but for calls that take their time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def call(self, cost_ms: float) -> Callable[[], None]:
        def run() -> None:
            self.now_s += cost_ms / 1e3

        return run


def made_record() -> Record:
    """5 ms and 3 a picture, and 10 ms at 224 x 224, with an exponent of 1.5; a group whose memory is full at 20."""
    line = {x: [5 + 3.0 * x, 4 + 3.0 * x, 9 + 3.0 * x] for x in BATCHES}
    power = {x: [10 * (x / REFERENCE_PIXELS) ** 1.5] for x in PIXELS}
    group = {x: [7.0 + 2 * min(x, 20)] for x in (4, 8, 16, 32)}
    return Record(
        backbone="vgg16", backend="onnxruntime", precision="fp32", threads=2, processor="a processor",
        versions={"onnxruntime": "1.0"}, rounds=3, side=224,
        curves=(
            Curve.of("batch", "multis", line), Curve.of("size", "arn", power),
            Curve.of("memory", "memory 512 MB", group, limit=20),
        ),
    )  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    made_record().write(tmp_path / "record.json")
    return tmp_path / "record.json"


def test_a_line_is_found_again() -> None:
    fit = Line.of(BATCHES, [5 + 3 * x for x in BATCHES])
    assert fit.numbers() == pytest.approx((5, 3))
    assert fit.at(100) == pytest.approx(305)


def test_a_line_is_of_least_squares() -> None:
    """By hand: the mean of x is 1, of y 4/3; slope = (1 * 4/3 + 1 * 2/3) / 2 = 1."""
    fit = Line.of([0, 1, 2], [0, 2, 2])
    assert fit.numbers() == pytest.approx((1 / 3, 1))
    assert worst_residual(fit, [1, 2], [2, 2]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("exponent", [1.0, 1.4, 2.0])
def test_a_power_law_is_found_again(exponent: float) -> None:
    values = [10 * (x / REFERENCE_PIXELS) ** exponent for x in PIXELS]
    fit = Power.of(PIXELS, values)
    assert fit.numbers() == pytest.approx((10, exponent))
    assert worst_residual(fit, PIXELS, values) < 1e-9  # rounding


def test_noise_leaves_the_slope_near() -> None:
    noise = np.random.default_rng(0).uniform(0.98, 1.02, len(BATCHES))
    assert Line.of(BATCHES, ((5 + 3 * np.array(BATCHES)) * noise).tolist()).slope == pytest.approx(3, rel=0.05)


def test_one_place_has_no_slope() -> None:
    with pytest.raises(ValueError, match=r"got 2 values at \[4\], expected"):
        Line.of([4, 4], [1, 2])
    with pytest.raises(ValueError, match="not positive"):
        Power.of([1, 4], [0, 2])


def test_measured_slopes_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still between calls: fixed cost and slope come out as they went in, per picture."""
    monkeypatch.setattr(curves, "PAUSE_S", 0)
    clock = Clock()
    calls = {name: {x: clock.call(5 + slope * x) for x in BATCHES} for name, slope in (("multis", 3), ("arn", 4))}
    found = curves.measure(calls, 2, label="batch", clock=clock)
    assert {len(samples) for points in found.values() for samples in points.values()} == {2}
    multis, arn = (Curve.of("batch", name, samples) for name, samples in found.items())
    assert multis.fit.numbers() == pytest.approx((5, 3))
    assert arn.fit.numbers() == pytest.approx((5, 4))
    assert multis.describe() == "5 + 3 ms per picture"


def test_every_round_visits_every_point_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "PAUSE_S", 0)
    clock, visited = Clock(), list[int]()

    def point(x: int) -> Callable[[], None]:
        def run() -> None:
            visited.append(x)
            clock.now_s += 2 * curves.VISIT_S  # so that no visit repeats it

        return run

    curves.measure({"multis": {x: point(x) for x in BATCHES}}, 3, label="batch", clock=clock)
    rounds = [tuple(visited[start : start + len(BATCHES)]) for start in range(0, len(visited), len(BATCHES))]
    assert len(rounds) == 4  # the first one warms up
    assert {tuple(sorted(one)) for one in rounds} == {BATCHES}
    assert len(set(rounds)) > 1


def test_short_calls_are_repeated() -> None:
    clock, count = Clock(), 0

    def call() -> None:
        nonlocal count
        count += 1
        clock.now_s += 1.0 if count == 1 else 0.02

    assert curves.visit(call, clock) == 1.0
    assert curves.visit(call, clock) == pytest.approx(0.02)
    assert count >= 1 + curves.VISIT_S / 0.02


def test_a_fit_stops_where_memory_is_full() -> None:
    curve = made_record().curves[2]
    assert curve.limit == 20
    assert curve.fit.numbers() == pytest.approx((7, 2))
    bent = Curve.of("memory", "all points", dict(zip(curve.x, curve.samples, strict=True)))
    assert bent.fit.numbers()[1] < 1.6
    assert bent.worst > 0.1


@pytest.mark.parametrize("limit", [32, 100, 4, 1, None])
def test_a_limit_that_leaves_all_or_nothing_counts_for_nothing(limit: int | None) -> None:
    curve = Curve.of("group", "memory 0", {x: [2.0 * x] for x in (4, 8, 16, 32)}, limit=limit)
    assert curve.limit is None
    assert curve.fit.numbers() == pytest.approx((0, 2))


def test_a_stored_record_is_read_again(stored: Path) -> None:
    assert Record.read(stored) == made_record()


@pytest.mark.parametrize(
    ("curve", "part", "name"), [(0, "slope", "multis"), (0, "fixed", "multis"), (1, "exponent", "arn")]
)
def test_a_stored_slope_that_is_not_the_points_is_refused(stored: Path, curve: int, part: str, name: str) -> None:
    record = json.loads(stored.read_text())
    record["curves"][curve]["fit"][part] *= 1.01
    stored.write_text(json.dumps(record))
    with pytest.raises(SystemExit, match=f"curve {name}: its fit is .*{part}.* its points give .* measure it again"):
        Record.read(stored)


def test_a_stored_point_that_was_changed_is_refused(stored: Path) -> None:
    record = json.loads(stored.read_text())
    record["curves"][0]["samples"][2] = [1.0, 1.0, 1.0]
    stored.write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="curve multis: its medians are not those of its samples"):
        Record.read(stored)


def test_table_and_figure_of_a_stored_record(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "curves.png"
    monkeypatch.setattr("sys.argv", ["curves", "--record", str(stored), "--plot", str(figure)])
    curves.main()
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        "multis",
        "5 + 3 ms per picture",
        "pixels^1.50",
        "224²: 10",
        "up to 20",
        "vgg16, onnxruntime, fp32, 2 threads",
    ):
        assert text in printed
    pixels = imread(figure)
    assert pixels.shape[:2] == (1200, 1500)
    assert pixels[..., :3].min() < 0.5


def test_slopes_stand_in_the_legends() -> None:
    texts: list[str] = []
    for curve in made_record().curves:
        axes = Figure().subplots()
        draw(axes, curve.panel, [curve])
        legend = axes.get_legend()
        assert legend is not None
        texts += [text.get_text() for text in legend.get_texts()]
        assert axes.get_xlabel() == PANELS[curve.panel].x_label
    assert texts == [
        "multis: 5 + 3 ms per picture", "arn: pixels^1.50", "memory 512 MB: 7 + 2 MB per picture", "full at N = 20",
    ]  # fmt: skip


def test_a_slope_needs_two_points(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        curves.parse(["--sizes", "224", "224"])
    assert "--sizes: got [224, 224], expected two different positive numbers" in capsys.readouterr().err


def test_calls_take_the_batch_that_they_stand_for() -> None:
    calls = batch_calls(load(backend="onnxruntime"), [1, 3])
    found: dict[int, Any] = {batch: call() for batch, call in calls.items()}
    assert {batch: maps.shape[0] for batch, maps in found.items()} == {1: 1, 3: 3}


def test_kept_pictures_are_those_whose_features_fit() -> None:
    """2 * 3 * 4 floats of features and 8 of a gate are 128 bytes a picture; logits go to the host."""
    shapes = {"f1": ("batch", 2, 3, 4), "gate1": ("batch", 8), "logits": ("batch", 1000)}
    outputs = {name: TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()}
    detector: Any = SimpleNamespace(engines={"embed": SimpleNamespace(outputs=outputs)})
    assert [kept_pictures(detector, memory) for memory in (0, 127, 128, 300)] == [0, 0, 1, 2]


@pytest.mark.slow
def test_all_panels_of_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "curves.json"
    arguments = (
        "--backbone mobilenet_v2 --side 64 --batches 1 2 --groups 2 3 --iterations 1 4 --sizes 64 128 --rounds 1"
    )
    monkeypatch.setattr("sys.argv", ["curves", *arguments.split(), "--json", str(record)])
    curves.main()
    found = {(curve.panel, curve.name): curve for curve in Record.read(record).curves}
    assert {panel for panel, _ in found} == set(PANELS)
    assert found["size", "arn"].x == (64**2, 128**2)
    # Nothing is timed at 0, and four steps cost more than one.
    assert all(min(curve.median) > 0 for (panel, _), curve in found.items() if panel != "memory")
    assert found["iterations", "cgd"].fit.numbers()[1] > 0
