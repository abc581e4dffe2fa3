"""int8 bundles: which pictures make and judge them, which layers stay fp32, what the record says."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from salience.export import sensitivity
from salience.export.cli import PRETRAINED
from salience.export.int8 import _split, find_pictures
from salience.export.pipeline import BuildSettings, build
from salience.export.quantization import check_int8
from salience.export.sensitivity import LIMIT, STANDARD_ERRORS, Chooser, Layer, _by_worth, paired_changes
from salience.runtime.bundle import Bundle
from salience.runtime.detector import load
from salience.runtime.errors import ExportError
from salience.runtime.evaluation.metrics import MetricAccumulator
from salience.runtime.manifest import MetricCheck, Quantization, Verification
from salience.training.data.layouts import read_set
from tests.conftest import save_scenes

pytest.importorskip("onnxruntime")


def made(method: str, checkpoint: Path, output: Path, **settings: Any) -> Bundle:
    chosen: dict[str, Any] = {"precisions": ("fp32", "int8"), "verify": False, **settings}
    build(method, checkpoint, BuildSettings(output=output, **chosen), step=lambda name: nullcontext())
    return Bundle(output)


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of the pretrained `multis`, on sixty scenes, a third of which judge; layers are tried on one, to be quick."""
    folder = tmp_path_factory.mktemp("int8")
    (checkpoint,) = PRETRAINED.glob("multis-*.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "TRIED", 1)
        return made("multis", checkpoint, folder / "multis", calibration=save_scenes(folder, 60), verify=True)


def record_of(bundle: Bundle) -> Verification:
    record = bundle.verification()
    assert record is not None
    return record


def quantization_of(bundle: Bundle) -> Quantization:
    found = record_of(bundle).quantization
    assert found is not None
    return found


@pytest.mark.slow
def test_the_record_says_how_the_layers_were_chosen(int8_bundle: Bundle) -> None:
    found = quantization_of(int8_bundle)
    assert (found.calibrated, found.corrected, found.tuned) == (20, 16, 20)
    kept = [layer for layer in found.layers if layer.kept]
    changes = {Layer(layer.graph, layer.layer): layer.relative for layer in found.layers if layer.relative is not None}
    costs = {Layer(layer.graph, layer.layer): layer.multiply_adds for layer in found.layers}
    assert {layer.layer for layer in kept} == {layer.name for layer in _by_worth(changes, costs)[: len(kept)]}
    chosen = [trial for trial in found.trials if trial.kept == len(kept)]
    assert [trial.backend for trial in chosen] == ["onnxruntime"]
    (trial,) = chosen
    assert found.limit == LIMIT
    assert abs(trial.f_change) + STANDARD_ERRORS * trial.f_error <= found.limit
    assert abs(trial.mae_change) + STANDARD_ERRORS * trial.mae_error <= found.limit
    assert all(layer.multiply_adds > 0 for layer in found.layers)
    # Layers are tried alone where not all together may be int8.
    assert all((layer.relative or 0) > 0 if kept else layer.relative is None for layer in found.layers)
    assert 0 <= found.kept_share < 1


@pytest.mark.slow
def test_the_file_has_the_chosen_layers_in_int8(int8_bundle: Bundle) -> None:
    model = onnx.load(int8_bundle.graph_file("saliency", "int8"))
    check_int8(model, [layer.layer for layer in quantization_of(int8_bundle).layers if not layer.kept])
    assert [node.op_type for node in model.graph.node if node.domain == "salience"] == ["MaxoutFusion"]
    sizes = {name: int8_bundle.graph_file("saliency", name).stat().st_size for name in ("fp32", "int8")}
    assert sizes["int8"] < 0.6 * sizes["fp32"]


@pytest.mark.slow
def test_int8_is_judged_by_metric(int8_bundle: Bundle) -> None:
    record = record_of(int8_bundle)
    assert record.passed
    (check,) = [check for check in record.metrics if check.precision == "int8"]
    assert check.images == 20
    assert {c.batch for c in record.tensors if c.precision == "int8"} == {1, 2, 5}


@pytest.mark.slow
def test_int8_serves(int8_bundle: Bundle, photos: dict[str, Any]) -> None:
    exact = load(int8_bundle.path, precision="fp32").predict(photos["coffee"]).values
    found = load(int8_bundle.path, precision="int8").predict(photos["coffee"]).values
    assert 1e-6 < np.abs(found - exact).mean() < 0.05


def test_int8_alone_needs_no_fp32_file(checkpoints: dict[str, Path], pairs_folder: Path, tmp_path: Path) -> None:
    bundle = made("lps", checkpoints["lps"], tmp_path / "lps", precisions=("int8",), calibration=pairs_folder)
    files = {name: entry.files for name, entry in bundle.manifest.graphs.items()}
    assert files["embed"] == {"int8": "embed.int8.onnx"}
    assert files["refine"] == {"int8": "refine.onnx"}  # it has no layers
    assert not (tmp_path / "lps" / "embed.onnx").exists()
    assert not record_of(bundle).passed  # nothing was compared


@pytest.mark.slow
@pytest.mark.parametrize("method", ["arn", "cgd", "gicd", "lps", "multis"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_method_runs_in_int8(
    checkpoints: dict[str, Path], pairs_folder: Path, tmp_path: Path, method: str, engine: Any, photos: dict[str, Any]
) -> None:
    bundle = made(method, checkpoints[method], tmp_path / method, calibration=pairs_folder)
    prior = np.linspace(0, 1, 96, dtype=np.float32)[None].repeat(64, axis=0)
    found = []
    for precision in ("fp32", "int8"):
        detector: Any = load(bundle.path, precision=precision, backend=engine)
        if method == "lps":
            found.append(detector.promote(photos["coffee"], prior).values)
        elif method == "cgd":  # gradients through rounded values are other ones; what the classifier says is not
            found.append(np.array([share for _, share in sorted(detector.locate(photos["coffee"]).classes(1000))]))
        else:
            found.append(detector.predict(photos["coffee"]).values)
    assert 0 < np.abs(found[0] - found[1]).mean() < 0.1 * np.abs(found[0]).max()


@pytest.mark.slow
def test_int8_of_a_gradient_graph_leaves_the_backward_pass(
    checkpoints: dict[str, Path], pairs_folder: Path, tmp_path: Path
) -> None:
    bundle = made("cgd", checkpoints["cgd"], tmp_path / "cgd", calibration=pairs_folder)
    plain, found = (onnx.load(bundle.graph_file("descend", precision)) for precision in ("fp32", "int8"))
    convolutions = [node for node in plain.graph.node if node.op_type == "Conv"]
    dequantised = {name for n in found.graph.node if n.op_type == "DequantizeLinear" for name in n.output}
    int8 = [n for n in found.graph.node if n.op_type == "Conv" and set(n.input[:2]) <= dequantised]
    assert 0.3 * len(convolutions) < len(int8) < 0.7 * len(convolutions)


def test_int8_needs_pictures(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pass --calibration DIR"):
        made("multis", checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_calibrates_does_not_judge(pairs_folder: Path, tmp_path: Path) -> None:
    """Compared by content: a copy under another name is the same picture."""
    others = tmp_path / "others"
    sample = read_set(pairs_folder)[0]
    for kind, source in (("images", sample.image), ("masks", sample.masks[0])):
        (others / kind).mkdir(parents=True)
        shutil.copy(source, others / kind / f"renamed{source.suffix}")
    settings = BuildSettings(output=tmp_path / "out", calibration=pairs_folder, images=others)
    with pytest.raises(ExportError, match="1 of 1 are in --calibration too, such as others/renamed"):
        find_pictures(settings.calibration, settings.images, verify=settings.verify)


def test_without_other_pictures_a_third_is_held_out(pairs_folder: Path, tmp_path: Path) -> None:
    found = find_pictures(pairs_folder, None, verify=True)
    assert (len(found.calibration), len(found.judged)) == (8, 4)
    assert not {sample.name for sample in found.calibration} & {sample.name for sample in found.judged}


@pytest.mark.parametrize(("count", "calibrating", "choosing"), [(1, 1, 1), (2, 1, 1), (9, 5, 4), (300, 32, 268)])
def test_what_gives_ranges_does_not_choose_the_layers(count: int, calibrating: int, choosing: int) -> None:
    samples: list[Any] = [SimpleNamespace(name=f"{index:03}") for index in range(count)]
    first, others = _split(samples)
    assert (len(first), len(others)) == (calibrating, choosing)
    assert count == 1 or not {sample.name for sample in first} & {sample.name for sample in others}


def test_layers_stay_fp32_by_what_they_gain_for_what_they_cost() -> None:
    large, small, tiny, calm = (Layer("saliency", name) for name in ("large", "small", "tiny", "calm"))
    changes = {large: 0.4, small: 0.3, tiny: 0.02, calm: 0.1}
    # A layer of next to no multiply-adds costs as much as one of a hundredth of all.
    assert _by_worth(changes, {large: 700, small: 50, tiny: 0, calm: 250}) == [small, large, tiny, calm]
    assert _by_worth(changes, dict.fromkeys(changes, 0)) == [large, small, calm, tiny]


class Counting(Chooser):
    """Its scores hold with `needed` layers in fp32 or more."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.asked: list[int] = []

    def _holds(self, order: Sequence[Layer], kept: int, samples: Any, expected: Any) -> bool:
        self.asked.append(kept)
        return kept >= self.needed


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 19])
def test_the_fewest_layers_are_kept(needed: int) -> None:
    order = [Layer("saliency", str(index)) for index in range(40)]
    chooser = Counting(needed)
    assert chooser._fewest(order, [], None) == needed  # type: ignore[arg-type]
    assert len(chooser.asked) <= 10
    assert 0 not in chooser.asked  # it is known not to hold


def test_where_no_layer_may_be_int8_the_build_says_so() -> None:
    order = [Layer("saliency", str(index)) for index in range(5)]
    with pytest.raises(ExportError, match=r"int8: with 4 of 5 layers in fp32.* as far as 0 pictures tell"):
        Counting(100)._fewest(order, [], None)  # type: ignore[arg-type]


class Scored(Chooser):
    """Knows how scores change with so many layers in fp32 (max F, MAE), and how much each layer changes alone."""

    def __init__(self, *changes: tuple[float, float], worse_only: bool = False, error: float = 0) -> None:
        self.found = changes
        self.error = error
        self.worse_only = worse_only
        self.ranked = False
        self.detectors, self.calibrated, self.corrected, self.models, self.trials = [], 3, 2, {}, []

    def candidates(self) -> list[Layer]:
        return [Layer("saliency", name) for name in "abc"]

    def rank(self, images: Any) -> dict[Layer, float]:
        self.ranked = True
        return dict(zip(self.candidates(), (0.1, 0.3, 0.2), strict=True))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scored], Quantization]:
    """What a `Scored` chooses; one engine serves, whose scores are those that it knows."""

    def choose(chooser: Scored) -> Quantization:
        kept: list[int] = []
        chooser.detectors = [SimpleNamespace(engines={"saliency": SimpleNamespace(name="cpu")})]  # type: ignore[list-item]
        monkeypatch.setattr(chooser, "quantized", lambda chosen: kept.append(3 - len(chosen)))
        monkeypatch.setattr(sensitivity, "with_graphs", lambda detector, models: detector)
        monkeypatch.setattr(sensitivity, "multiply_adds", lambda model: {})
        monkeypatch.setattr(sensitivity, "measure_maps", lambda samples, predict: None)

        def changes(before: Any, after: Any) -> dict[str, float]:
            f_change, mae_change = chooser.found[kept[-1]]
            error = chooser.error
            return {"f_change": f_change, "mae_change": mae_change, "f_error": error, "mae_error": error}

        monkeypatch.setattr(sensitivity, "paired_changes", changes)
        chooser.serve = lambda detector, image: image  # type: ignore[assignment, return-value]
        chooser.models = {"saliency": None}  # type: ignore[dict-item]
        return chooser.choose([])

    return choose


def test_all_layers_are_int8_where_the_scores_hold(scores: Callable[[Scored], Quantization]) -> None:
    chooser = Scored((-0.99 * LIMIT, 0.99 * LIMIT))
    found = scores(chooser)
    assert not chooser.ranked
    assert [layer.kept for layer in found.layers] == [False] * 3


def test_a_change_counts_with_its_standard_error(scores: Callable[[Scored], Quantization]) -> None:
    assert not any(layer.kept for layer in scores(Scored((-0.4 * LIMIT, 0), error=0.35 * LIMIT)).layers)
    with pytest.raises(ExportError, match="may still change"):
        scores(Scored(*[(-0.4 * LIMIT, 0.0)] * 3, error=0.37 * LIMIT))


def measured(maps: Sequence[Any], masks: Sequence[Any]) -> MetricAccumulator:
    found = MetricAccumulator(full=False, normalise=False)
    for values, mask in zip(maps, masks, strict=True):
        found.add(values, mask)
    return found


def test_changes_and_their_standard_errors() -> None:
    rng = np.random.default_rng(0)
    masks = [np.arange(64).reshape(8, 8) < 20 for _ in range(400)]
    before = [np.where(mask, 200, 50).astype(np.uint8) for mask in masks]
    shifts = rng.integers(0, 21, len(masks))
    after = [values + np.uint8(shift) * ~mask for values, shift, mask in zip(before, shifts, masks, strict=True)]
    many = paired_changes(measured(before, masks), measured(after, masks))
    exact, found = (measured(maps, masks).scores() for maps in (before, after))
    assert many["mae_change"] == pytest.approx(found.mae - exact.mae)
    assert many["f_change"] == pytest.approx(found.f_max - exact.f_max)
    spread = np.std(shifts) / 255 * 44 / 64
    assert many["mae_error"] == pytest.approx(spread / np.sqrt(400), rel=0.1)
    few = paired_changes(measured(before[:25], masks[:25]), measured(after[:25], masks[:25]))
    assert few["mae_error"] == pytest.approx(spread / np.sqrt(25), rel=0.4)


def test_equal_changes_have_no_error() -> None:
    mask = np.arange(64).reshape(8, 8) < 20
    before, after = ([np.where(mask, 200, level).astype(np.uint8)] * 5 for level in (50, 60))
    found = paired_changes(measured(before, [mask] * 5), measured(after, [mask] * 5))
    assert found["mae_error"] == pytest.approx(0, abs=1e-12)
    assert found["f_error"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("change", [(-0.01, 0), (0, 0.01), (0.01, 0), (0, -0.01)])
def test_the_layer_that_changes_most_stays_fp32(
    scores: Callable[[Scored], Quantization], change: tuple[float, float]
) -> None:
    found = scores(Scored(change, (0, 0)))
    assert {layer.layer: layer.kept for layer in found.layers} == {"a": False, "b": True, "c": False}


def test_better_scores_hold_where_the_maps_are_other_ones(scores: Callable[[Scored], Quantization]) -> None:
    assert not any(layer.kept for layer in scores(Scored((0.05, -0.04), worse_only=True)).layers)
    for worse in ((-0.01, -0.04), (0.05, 0.01)):
        assert any(layer.kept for layer in scores(Scored(worse, (0.05, -0.04), worse_only=True)).layers)


@pytest.mark.parametrize(
    ("f_max", "mae", "either_way", "worse_only"),
    [(0.8, 0.1, True, True), (0.9, 0.1, False, True), (0.8, 0.05, False, True), (0.7, 0.1, False, False),
     (0.8, 0.2, False, False), (float("nan"), 0.1, False, False)],
)  # fmt: skip
def test_a_metric_check_bounds_both_changes_or_what_is_worse(
    f_max: float, mae: float, either_way: bool, worse_only: bool
) -> None:
    check = MetricCheck(
        precision="int8", backend="cpu", images=9, f_max_reference=0.8, f_max=f_max, mae_reference=0.1, mae=mae,
        tolerance=5e-3,
    )  # fmt: skip
    assert check.passed is either_way
    assert check.model_copy(update={"worse_only": True}).passed is worse_only
