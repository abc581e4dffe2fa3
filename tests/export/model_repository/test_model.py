"""The public model in a stand-in for Triton, see `stand_in`. The server itself was not run."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import ClampedDescentDetector, GroupDetector, PromoterDetector, load
from salience.runtime.backends.bls import BlsEngine
from salience.runtime.backends.engine import EngineOptions
from salience.runtime.low_level import PRESETS
from salience.runtime.methods import METHODS

from .stand_in import ClientRequest, Server, TritonModelException

SERVED = [*((method, "cpu") for method in METHODS), ("lps", "gpu"), ("cgd", "gpu"), ("gicd", "gpu")]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encoded."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def texts(*values: bytes) -> NDArray[Any]:
    """A BYTES tensor."""
    return np.array(values, dtype=object)


def pixels_of(element: bytes) -> NDArray[np.uint8]:
    """Decoded."""
    return np.asarray(Image.open(io.BytesIO(element)))


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (size, 50, 3), dtype=np.uint8) for size in (40, 70, 90)]


@pytest.fixture
def serve(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Server, Any]]:
    """Method and changes of `Serving` -> a server with its repository, and the public model."""

    def served(method: str, **changes: Any) -> tuple[Server, Any]:
        server = Server(write(method, **changes))
        server.install(monkeypatch)
        return server, server.open("eye")

    return served


def expected_maps(bundle: Path, pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """What the library makes of pictures; of `lps` with the first colour as the prior, in two rounds."""
    detector = load(bundle, backend="onnxruntime", device="cpu", precision="fp32")
    if isinstance(detector, GroupDetector):
        return [found.grey() for found in detector.predict_group(pictures)]
    if isinstance(detector, PromoterDetector):
        return [detector.promote(picture, picture[..., 0], 2).grey() for picture in pictures]
    if isinstance(detector, ClampedDescentDetector):
        return [detector.locate(picture, "dog", preset=PRESETS["paper"]).grey() for picture in pictures]
    return [detector.predict(picture).grey() for picture in pictures]


PARAMETERS: dict[str, dict[str, Any]] = {"lps": {"iterations": 2}, "cgd": {"class": "dog", "preset": "paper"}}


def priors_of(method: str, pictures: list[NDArray[np.uint8]]) -> dict[str, Any]:
    return {"prior": texts(*(png(picture[..., 0]) for picture in pictures))} if method == "lps" else {}


@pytest.mark.parametrize(("method", "device"), SERVED)
def test_encoded_pictures_give_the_librarys_maps(
    serve: Callable[..., tuple[Server, Any]],
    bundle_of: Callable[[str], Path],
    pictures: list[NDArray[np.uint8]],
    method: str,
    device: str,
) -> None:
    server, model = serve(method, device=device)
    inputs = {"image": texts(*map(png, pictures)), **priors_of(method, pictures)}
    request = server.request("eye", inputs, **PARAMETERS.get(method, {}))
    (response,) = server.execute("eye", model, [request])
    found = [pixels_of(element) for element in response.array("saliency")]
    expected = expected_maps(bundle_of(method), pictures)
    assert len({image.tobytes() for image in expected}) == len(pictures)  # maps that say something
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert {batch for _, batch in server.calls} == {1}


@pytest.mark.parametrize("method", METHODS)
def test_pixels_give_pixels(
    serve: Callable[..., tuple[Server, Any]],
    bundle_of: Callable[[str], Path],
    pictures: list[NDArray[np.uint8]],
    method: str,
) -> None:
    server, model = serve(method)
    inputs = {"image_pixels": pictures[0]} | ({"prior_pixels": pictures[0][..., :1]} if method == "lps" else {})
    (response,) = server.execute("eye", model, [server.request("eye", inputs, **PARAMETERS.get(method, {}))])
    (expected,) = expected_maps(bundle_of(method), pictures[:1])
    np.testing.assert_array_equal(response.array("saliency_pixels")[..., 0], expected)


@pytest.mark.parametrize(("method", "rounds", "reads"), [("lps", 4, 1), ("cgd", 10, 3)])
def test_loops_leave_their_tensors_on_the_device(
    serve: Callable[..., tuple[Server, Any]],
    pictures: list[NDArray[np.uint8]],
    method: str,
    rounds: int,
    reads: int,
) -> None:
    server, model = serve(method, device="gpu")
    parameters: dict[str, Any] = {"iterations": rounds} if method == "lps" else {"preset": "paper"}
    inputs = {"image": texts(png(pictures[0])), **priors_of(method, pictures[:1])}
    (response,) = server.execute("eye", model, [server.request("eye", inputs, **parameters)])
    assert not response.has_error()
    stepped = "eye_refine" if method == "lps" else "eye_descend"
    assert [name for name, _ in server.calls].count(stepped) == rounds
    # What the last round left, and nothing before it.
    assert server.device_reads == reads


def test_objects_have_names_and_probabilities(
    serve: Callable[..., tuple[Server, Any]], bundle_of: Callable[[str], Path], pictures: list[NDArray[np.uint8]]
) -> None:
    server, model = serve("cgd")
    (response,) = server.execute("eye", model, [server.request("eye", {"image": texts(*map(png, pictures))})])
    detector: Any = load(bundle_of("cgd"), backend="onnxruntime", device="cpu")
    expected = [detector.locate(picture) for picture in pictures]
    assert [name.decode() for name in response.array("class")] == [found.label for found in expected]
    np.testing.assert_allclose(response.array("probability"), [found.classes(1)[0][1] for found in expected], rtol=1e-6)


@pytest.mark.parametrize(("kind", "channels"), [("map", 1), ("mask", 1), ("cutout", 4), ("overlay", 3)])
def test_kinds(
    serve: Callable[..., tuple[Server, Any]],
    bundle: Path,
    pictures: list[NDArray[np.uint8]],
    kind: Any,
    channels: int,
) -> None:
    server, model = serve("multis")
    threshold = {"threshold": "0.5"} if kind == "mask" else {}
    request = server.request("eye", {"image_pixels": pictures[0]}, kind=kind, **threshold)
    (response,) = server.execute("eye", model, [request])
    found = response.array("saliency_pixels")
    expected = load(bundle, backend="onnxruntime", device="cpu").predict(pictures[0])
    assert found.shape == (40, 50, channels)
    limit = 0.5 if threshold else None
    np.testing.assert_array_equal(found, expected.render(kind, threshold=limit).reshape(found.shape))


def test_a_bad_request_fails_alone(serve: Callable[..., tuple[Server, Any]], pictures: list[NDArray[np.uint8]]) -> None:
    server, model = serve("multis")
    whole, cut = png(pictures[0]), png(pictures[1])[:300]
    requests = [server.request("eye", {"image": texts(data)}) for data in (whole, cut, whole)]
    first, second, third = server.execute("eye", model, requests)
    assert first.array("saliency")[0] == third.array("saliency")[0]
    failure = second.error()
    assert failure is not None
    assert failure.code() == "INVALID_ARG"
    assert failure.message().startswith("image from memory: cannot be ")
    assert not second.output_tensors()


@pytest.mark.parametrize(
    ("method", "names", "parameters", "says"),
    [
        ("multis", [], {}, "got 0 pictures, expected 1 to 64"),
        ("multis", ["image", "image_pixels"], {}, "image: is given, and image_pixels too"),
        ("multis", ["image"], {"iterations": 2}, "iterations: is for lps"),
        ("multis", ["image"], {"kinds": "mask"}, "parameter kinds: "),
        ("multis", ["image"], {"kind": "mask", "threshold": 7}, "parameter threshold: "),
        ("lps", ["image"], {}, "prior: got 0, expected 1"),
        ("cgd", ["image"], {"class": "unicorn"}, "class 'unicorn': none of that name"),
    ],
)
def test_what_a_client_can_mend_is_an_invalid_argument(
    serve: Callable[..., tuple[Server, Any]],
    pictures: list[NDArray[np.uint8]],
    method: str,
    names: list[str],
    parameters: dict[str, Any],
    says: str,
) -> None:
    server, model = serve(method)
    known = {"image": texts(png(pictures[0])), "image_pixels": pictures[0]}
    request = server.request("eye", {name: known[name] for name in names}, **parameters)
    (response,) = server.execute("eye", model, [request])
    failure = response.error()
    assert failure is not None
    assert (failure.code(), says in failure.message()) == ("INVALID_ARG", True), failure.message()


@pytest.mark.parametrize("how", ["broken", "missing"])
def test_a_network_that_fails_is_the_servers_mistake(
    serve: Callable[..., tuple[Server, Any]], pictures: list[NDArray[np.uint8]], how: str
) -> None:
    server, model = serve("multis")
    if how == "broken":
        server.broken.add("eye_saliency")
    else:
        del server.configs["eye_saliency"]
    request = server.request("eye", {"image": texts(png(pictures[0]))})
    (response,) = server.execute("eye", model, [request])
    failure = response.error()
    assert failure is not None
    assert failure.code() == "INTERNAL"
    wanted = "failed while running (out of memory)" if how == "broken" else "cannot be called (Model eye_saliency"
    assert failure.message().startswith(f"triton model eye_saliency: {wanted}")


def test_a_mistake_in_the_model_keeps_its_traceback_in_the_log(
    serve: Callable[..., tuple[Server, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    server, model = serve("multis")
    (response,) = server.execute("eye", model, [ClientRequest([], {"kind": ["map"]})])
    assert response.error() is not None
    broken = ClientRequest([], {})
    broken.parameters = lambda: "{"  # type: ignore[method-assign]
    (response,) = server.execute("eye", model, [broken])
    failure = response.error()
    assert failure is not None
    assert failure.code() == "INTERNAL"
    assert "JSONDecodeError" in failure.message()
    assert "\n" not in failure.message()
    assert "Traceback" in caplog.text


def test_a_damaged_bundle_is_not_served(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    repository = write("multis")
    (repository / "eye" / "1" / "bundle" / "preprocess.onnx").write_bytes(b"x")
    server = Server(repository)
    server.install(monkeypatch)
    with pytest.raises(TritonModelException, match=r"preprocess\.onnx is damaged"):
        server.open("eye")


def test_a_parameter_that_is_wrong_is_told(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    repository = write("multis")
    server = Server(repository)
    server.install(monkeypatch)
    server.configs["eye"].parameters["precision"].string_value = "fp64"
    with pytest.raises(TritonModelException, match="parameter precision is 'fp64', expected one of fp32, fp16"):
        server.open("eye")


def test_without_cupy_a_gpu_is_refused_when_the_model_is_loaded(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(write("multis", device="gpu"))
    server.install(monkeypatch)
    monkeypatch.setattr("salience.runtime.backends.bls.find_spec", lambda name: None)
    with pytest.raises(TritonModelException, match="pip install cupy-cuda12x"):
        server.open("eye")


def test_outside_the_server_the_engine_says_so() -> None:
    assert "triton_python_backend_utils" not in sys.modules
    reason = BlsEngine.unavailable(EngineOptions())
    assert reason is not None
    assert "inside Triton Inference Server" in reason


def test_the_stand_in_is_strict(serve: Callable[..., tuple[Server, Any]]) -> None:
    server, _ = serve("multis", max_batch=2)
    tensor = sys.modules["triton_python_backend_utils"].Tensor
    good = np.zeros((2, 3, 64, 96), np.float32)
    assert not server.infer("eye_saliency", ["saliency"], [tensor("input", good)]).has_error()
    for array in (good[:0], np.concatenate([good, good]), good[0], good.astype(np.float64), good[..., :-1]):
        assert server.infer("eye_saliency", ["saliency"], [tensor("input", array)]).has_error(), array.shape
    assert server.infer("eye_saliency", ["other"], [tensor("input", good)]).has_error()
    assert server.infer("eye_saliency", ["saliency"], [tensor("x", good)]).has_error()
