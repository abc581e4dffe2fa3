"""`load` and `predict`: whatever the source, one map of the picture's size; whatever the request, that or an error."""

import hashlib
import io
import json
import logging
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import (
    BackendUnavailableError,
    Bundle,
    BundleError,
    Detector,
    EngineError,
    ImageError,
    SalienceError,
    SaliencyMap,
    load,
)
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.methods import METHODS

Photos = dict[str, NDArray[np.uint8]]

# Batches are summed in another order than single pictures; 1e-5 is a 400th of a grey level.
SAME = 1e-5


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return load(bundle, threads=1)


def assert_map(found: SaliencyMap, image: NDArray[np.uint8]) -> None:
    assert found.values.shape == image.shape[:2]
    assert found.values.dtype == np.float32
    assert 0 <= found.values.min() <= found.values.max() <= 1
    np.testing.assert_array_equal(found.image, image)


def test_every_source_gives_the_same_map(detector: Detector, photos: Photos, tmp_path: Path) -> None:
    image, path = photos["coffee"], tmp_path / "coffee.png"
    Image.fromarray(image).save(path)
    expected = detector.predict(image)
    assert_map(expected, image)
    assert np.ptp(expected.values) > 0.1  # a flat map would agree with anything
    with path.open("rb") as file, Image.open(path) as pil_image:
        for source in (path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes()), pil_image):
            found = detector.predict(source)
            assert_map(found, image)
            np.testing.assert_array_equal(found.values, expected.values)


def test_batch_of_mixed_sizes_is_each_by_itself(detector: Detector, photos: Photos) -> None:
    images = [photos["coffee"], photos["chelsea"][:40], np.zeros((1, 1, 3), np.uint8), photos["rocket"][:, :7]]
    found = detector.predict_batch(images)
    assert len(found) == len(images)
    for image, one in zip(images, found, strict=True):
        assert_map(one, image)
        np.testing.assert_allclose(one.values, detector.predict(image).values, rtol=0, atol=SAME)


def test_empty_batch(detector: Detector) -> None:
    assert detector.predict_batch([]) == []
    assert detector.infer([]).shape == (0, 1, *detector.bundle.manifest.input_size)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_extreme_shapes(detector: Detector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert_map(detector.predict(image), image)


def test_picture_that_cannot_be_read(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        detector.predict(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="not a picture"):
        detector.predict_batch([np.zeros((4, 4), np.uint8), b"text"])


def test_map_with_nan_is_an_error_not_a_picture(detector: Detector, photos: Photos) -> None:
    prepared = detector.prepare(photos["coffee"])
    values = detector.infer([prepared])[0]
    values[0, 3, 3] = np.nan
    with pytest.raises(SalienceError, match="holds NaN or infinity; use another precision or backend"):
        detector.finish(prepared, values)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_sixteen_threads_get_what_one_gets(bundle: Path, photos: Photos, backend: Any) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    shared = load(bundle, backend=backend, threads=1)
    images = [photos[name][offset:] for offset in range(0, 40, 5) for name in ("coffee", "chelsea", "rocket")]
    expected = [shared.predict(image).values for image in images]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(shared.predict, images * 2))
    for one, values in zip(found, expected * 2, strict=True):
        np.testing.assert_array_equal(one.values, values)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "fp16-weights"])
def test_precision_that_was_asked_for_runs(bundle: Path, precision: Any) -> None:
    loaded = load(bundle, precision=precision, backend="onnxruntime", threads=1)
    assert loaded.precision == precision
    assert Path(loaded.bundle.graph_file("saliency", precision)).name in loaded.backend
    assert precision in repr(loaded)


def test_auto_is_the_default_precision_on_the_first_backend_that_works(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load(bundle)
    assert loaded.precision == loaded.bundle.manifest.default_precision
    assert loaded.backend.startswith("onnxruntime ")
    assert type(loaded).__name__ == METHODS["multis"].partition(":")[2]
    assert not caplog.records


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backend_that_was_asked_for_runs(bundle: Path, backend: Any) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    assert load(bundle, backend=backend, device="cpu", threads=1).backend.startswith(f"{backend} ")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"backend": "tflite"}, "backend 'tflite' is not known: choose one of onnxruntime, openvino, tensorrt"),
        ({"precision": "int3"}, "precision 'int3' is not known: choose one of auto, fp32, fp16, fp16-weights"),
        ({"device": "tpu"}, "device 'tpu': expected cpu, cuda or cuda:N"),
        ({"device": "cpu:1"}, "device 'cpu:1': expected cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "device 'cuda:x': expected"),
        ({"device": "cuda:-1"}, "device 'cuda:-1': expected"),
        ({"threads": 0}, "threads 0: expected at least 1"),
        ({"provider": "metal"}, "provider 'metal': expected cpu, cuda, tensorrt or tensorrt-rtx"),
        ({"device": "cuda", "provider": "cpu"}, "provider 'cpu': does not run on device 'cuda'"),
        ({"device": "cpu", "provider": "cuda"}, "provider 'cuda': does not run on device 'cpu'"),
        ({"device": "cuda", "backend": "openvino"}, "openvino: device cuda is not served"),
        ({"device": "cpu", "backend": "tensorrt-rtx"}, "tensorrt-rtx: device cpu is not served"),
    ],
    ids=str,
)
def test_request_that_nothing_serves_is_an_error_that_says_why(
    bundle: Path, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(SalienceError, match=message):
        load(bundle, **request_)


def test_precision_that_the_bundle_lacks(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["graphs"]["saliency"]["files"]["fp16"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"no fp16 file, only fp32, fp16-weights; build it with"):
        load(folder, precision="fp16")


def test_method_that_this_version_lacks(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "copy")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"method": "multis"', '"method": "later"'))
    with pytest.raises(SalienceError, match=f"method 'later' is not known: choose one of {', '.join(METHODS)}"):
        load(folder)


def test_gpu_that_is_not_there_names_the_remedy(bundle: Path) -> None:
    if OnnxRuntimeEngine.unavailable(EngineOptions(device="cuda")) is None:
        pytest.skip("ONNX Runtime has a GPU here")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[gpu\]'") as caught:
            load(bundle, device=device, backend="onnxruntime")
        assert f"no CUDAExecutionProvider for device {device}" in str(caught.value)
        # Of all backends each says why it is not the one.
        with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[gpu\]'") as caught:
            load(bundle, device=device)
        assert "tensorrt-rtx: " in str(caught.value)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_that_is_not_there_is_an_error(bundle: Path, backend: Any) -> None:
    # Here a package, the driver or the engine file is missing; the message says which, and what to do.
    with pytest.raises(BackendUnavailableError, match=f"^{backend}: .*(pip install|driver|GPU|build it with)"):
        load(bundle, backend=backend)


@pytest.mark.parametrize("openvino", [True, False])
def test_no_engine_installed_names_both_extras(bundle: Path, monkeypatch: pytest.MonkeyPatch, openvino: bool) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if not openvino:
        monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError) as caught:
        load(bundle)
    for extra in ("pip install 'salience[cpu]'", "pip install 'salience[gpu]'"):
        assert extra in str(caught.value)


def test_folder_that_an_uninstalled_wheel_leaves_is_no_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `pip uninstall onnxruntime` beside onnxruntime-gpu leaves an empty namespace package.
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(BackendUnavailableError, match="onnxruntime is not installed"):
        load(bundle, backend="onnxruntime")


def test_provider_that_fails_to_start_is_passed_over_by_name_or_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # ONNX Runtime with CUDA on a machine without a driver: the provider is listed, and the session falls to the CPU.
    import onnxruntime

    session, available = onnxruntime.InferenceSession, ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **_: session(path, options, providers=["CPUExecutionProvider"]),
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(BackendUnavailableError, match="CUDAExecutionProvider failed to start"):
        load(bundle, device="cuda", backend="onnxruntime")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "salience"):
        assert "CPUExecutionProvider" in load(bundle).backend
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ["onnxruntime is passed over"]


def test_engine_says_what_it_was_fed_and_what_it_expects(bundle: Path) -> None:
    engine = OnnxRuntimeEngine.open(Bundle(bundle), "saliency", "fp32", EngineOptions(threads=1))
    good = np.zeros((1, 3, 64, 96), np.float32)
    assert engine.run({"input": good})["saliency"].shape == (1, 1, 64, 96)
    wrong: list[tuple[dict[str, NDArray[Any]], str]] = [
        ({}, "inputs none given, expected input"),
        ({"image": good}, "inputs image given, expected input"),
        ({"input": good, "prior": good}, "inputs input, prior given, expected input"),
        ({"input": good.astype(np.float64)}, r"got float64 .*expected float32 \(batch, 3, 64, 96\)"),
        ({"input": good[0]}, r"got float32 \(3, 64, 96\), expected"),
        ({"input": good[:, :1]}, r"got float32 \(1, 1, 64, 96\), expected"),
        ({"input": good[..., ::2]}, r"got float32 \(1, 3, 64, 48\), expected"),
    ]
    for feeds, message in wrong:
        with pytest.raises(EngineError, match=message):
            engine.run(feeds)


def test_strided_input_is_read_right(bundle: Path) -> None:
    engine = OnnxRuntimeEngine.open(Bundle(bundle), "saliency", "fp32", EngineOptions(threads=1))
    feed = np.random.default_rng(0).standard_normal((2, 3, 64, 96), dtype=np.float32)
    expected = engine.run({"input": feed})["saliency"]
    np.testing.assert_array_equal(engine.run({"input": np.asfortranarray(feed)})["saliency"], expected)
    np.testing.assert_array_equal(engine.run({"input": feed[::-1]})["saliency"], expected[::-1])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_file_that_is_no_graph_is_an_engine_error(bundle: Path, tmp_path: Path, backend: Any) -> None:
    from salience.runtime.backends import BACKENDS
    from salience.runtime.tables import entry

    engine_type = entry(BACKENDS, backend, what="backend")
    if reason := engine_type.unavailable(EngineOptions()):
        pytest.skip(reason)
    path = tmp_path / "saliency.onnx"
    path.write_bytes(b"no graph")
    interface = Bundle(bundle).manifest.graphs["saliency"]
    with pytest.raises(EngineError, match=f"{backend}: cannot load saliency.onnx"):
        engine_type.open_graph(path, interface, EngineOptions())


@pytest.mark.slow
def test_100_megapixels(detector: Detector) -> None:
    image = np.zeros((10_000, 10_000, 3), dtype=np.uint8)
    image[3000:6000, 3000:6000] = (200, 40, 90)
    found = detector.predict(image)
    assert_map(found, image)
    small = detector.predict(np.ascontiguousarray(image[::25, ::25])).values
    # Away from edges a picture of even colours is the same at any size.
    np.testing.assert_allclose(found.values[::2500, ::2500], small[::100, ::100], atol=0.02)


def test_an_engine_that_fails_to_load_is_passed_over_only_where_nothing_was_chosen(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = OnnxRuntimeEngine.open_graph.__func__  # type: ignore[attr-defined]

    def fail_on_the_network(cls: type, path: Path, *arguments: object) -> object:
        if path.name == "saliency.onnx":
            raise EngineError("onnxruntime: cannot load saliency.onnx (broken kernel).")
        return genuine(cls, path, *arguments)

    monkeypatch.setattr(OnnxRuntimeEngine, "open_graph", classmethod(fail_on_the_network))
    with pytest.raises(EngineError, match="broken kernel"):
        load(bundle, backend="onnxruntime", device="cpu")
    assert load(bundle).backend.startswith("openvino")
    assert any("broken kernel" in record.getMessage() for record in caplog.records)


def test_a_graph_that_no_engine_reads_is_an_engine_error(tmp_path: Path) -> None:
    bundle = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (name,) = manifest["graphs"]["saliency"]["files"].values()
    (bundle / name).write_bytes(b"no graph")
    manifest["files"][name] = {"sha256": hashlib.sha256(b"no graph").hexdigest(), "bytes": 8}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"onnxruntime: cannot load saliency\..*onnx") as caught:
        load(bundle, backend="onnxruntime", device="cpu")
    assert type(caught.value) is EngineError
