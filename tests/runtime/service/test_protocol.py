"""The same maps over every protocol as from `predict`, to the bit, for all five methods."""

import base64
import io
import json
import subprocess
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import ClampedDescentDetector, GroupDetector, PromoterDetector, SaliencyMap, load
from tests.runtime.service.running import METHODS, Running

ITERATIONS = 3
OBJECT = "car"


@pytest.fixture(scope="module")
def pictures(jpegs: dict[str, Path]) -> list[bytes]:
    return [path.read_bytes() for path in jpegs.values()]


@pytest.fixture(scope="module")
def priors(pictures: list[bytes]) -> list[bytes]:
    """The brightness of each picture, as a PNG of another size."""
    found = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("L").resize((50, 40)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture(scope="module")
def expected(bundles: dict[str, Path], pictures: list[bytes], priors: list[bytes]) -> dict[str, list[SaliencyMap]]:
    """What the detectors themselves make of the pictures."""
    found: dict[str, list[SaliencyMap]] = {}
    for method in METHODS:
        detector = load(bundles[method])
        match detector:
            case PromoterDetector():
                pairs = zip(pictures, priors, strict=True)
                found[method] = [detector.promote(image, prior, ITERATIONS) for image, prior in pairs]
            case GroupDetector():
                found[method] = detector.predict_group(pictures)
            case ClampedDescentDetector():
                found[method] = [detector.locate(image, OBJECT) for image in pictures]
            case _:
                found[method] = [detector.predict(image) for image in pictures]
    return found


def parameters(method: str) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {"lps": {"iterations": ITERATIONS}, "cgd": {"class": OBJECT}}
    return own.get(method, {})


def decoded(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_triton_clients_get_what_predict_gives(
    protocol: str,
    method: str,
    service: Running,
    pictures: list[bytes],
    priors: list[bytes],
    expected: dict[str, list[SaliencyMap]],
) -> None:
    client: Any = pytest.importorskip(f"tritonclient.{protocol}")
    address = f"{service.host}:{service.port if protocol == 'http' else service.grpc_port}"
    inputs = []
    for name, data in (("image", pictures), *((("prior", priors),) if method == "lps" else ())):
        tensor = client.InferInput(name, [len(data)], "BYTES")
        tensor.set_data_from_numpy(np.array(data, dtype=object))
        inputs.append(tensor)
    with client.InferenceServerClient(address) as connection:
        assert connection.is_server_live()
        assert connection.is_server_ready()
        assert connection.is_model_ready(method)
        found = connection.infer(method, inputs, parameters=parameters(method))
        maps = [decoded(data) for data in found.as_numpy("saliency")]
        assert len(maps) == len(pictures)
        for mine, theirs in zip(maps, expected[method], strict=True):
            np.testing.assert_array_equal(mine, theirs.grey())
        if method == "cgd":
            assert list(found.as_numpy("class")) == [OBJECT.encode()] * len(pictures)
            shares = [getattr(each, "probability", None) for each in expected[method]]
            np.testing.assert_allclose(found.as_numpy("probability"), np.array(shares, np.float32), rtol=1e-6)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_arrays_are_answered_with_arrays(protocol: str, service: Running, bundles: dict[str, Path]) -> None:
    client: Any = pytest.importorskip(f"tritonclient.{protocol}")
    address = f"{service.host}:{service.port if protocol == 'http' else service.grpc_port}"
    batch = np.random.default_rng(3).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    detector = load(bundles["arn"])
    with client.InferenceServerClient(address) as connection:
        for array in (batch, batch[0]):
            tensor = client.InferInput("image", list(array.shape), "UINT8")
            tensor.set_data_from_numpy(array)
            found = connection.infer("arn", [tensor]).as_numpy("saliency")
            wanted = np.stack([detector.predict(each).grey() for each in array.reshape(-1, 70, 90, 3)])
            np.testing.assert_array_equal(found, wanted.reshape(array.shape[:-1]))


@pytest.mark.parametrize("method", METHODS)
def test_curl_sends_pictures_as_they_are(
    method: str, service: Running, jpegs: dict[str, Path], priors: list[bytes], expected: dict[str, Any], tmp_path: Path
) -> None:
    command = ["curl", "--silent", "--fail-with-body", "--output", str(tmp_path / "result")]
    files = list(jpegs.values()) if method == "gicd" else list(jpegs.values())[:1]
    for path in files:
        command += ["--form", f"image=@{path}"]
    if method == "lps":
        (tmp_path / "prior.png").write_bytes(priors[0])
        command += ["--form", f"prior=@{tmp_path / 'prior.png'}"]
    for name, value in parameters(method).items():
        command += ["--form", f"{name}={value}"]
    done = subprocess.run([*command, f"{service.url}/api/predict/{method}"], capture_output=True, timeout=60)
    data = (tmp_path / "result").read_bytes()
    assert done.returncode == 0, data
    if method == "gicd":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [archive.read(f"{number}.png") for number in range(1, len(files) + 1)]
    else:
        found = [data]
    for mine, theirs in zip(found, expected[method][: len(files)], strict=True):
        np.testing.assert_array_equal(decoded(mine), theirs.grey())


@pytest.mark.parametrize("kind", ["mask", "cutout", "overlay"])
def test_a_picture_as_the_body_in_every_kind(
    kind: Any, service: Running, pictures: list[bytes], expected: dict[str, list[SaliencyMap]]
) -> None:
    request = urllib.request.Request(f"{service.url}/api/predict/multis?kind={kind}", pictures[0])
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = decoded(answer.read())
        stages = answer.headers["Server-Timing"]
    np.testing.assert_array_equal(found, expected["multis"][0].render(kind))
    assert [part.partition(";")[0] for part in stages.split(", ")] == ["queue", "decode", "infer", "encode"]


def test_json_carries_pictures_as_base64(
    service: Running, pictures: list[bytes], expected: dict[str, list[SaliencyMap]]
) -> None:
    data = [base64.b64encode(picture).decode() for picture in pictures[:2]]
    body = {"id": "a7", "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": data}]}
    found = post_json(f"{service.url}/v2/models/multis/infer", body)
    (output,) = found["outputs"]
    assert (found["id"], output["name"], output["datatype"], output["shape"]) == ("a7", "saliency", "BYTES", [2])
    for mine, theirs in zip(output["data"], expected["multis"], strict=False):
        np.testing.assert_array_equal(decoded(base64.b64decode(mine)), theirs.grey())


def test_metadata_names_the_tensors(service: Running) -> None:
    found = get_json(f"{service.url}/v2/models/lps")
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in found["inputs"]] == [
        ("image", "BYTES", [-1]),
        ("prior", "BYTES", [-1]),
    ]
    assert [tensor["name"] for tensor in get_json(f"{service.url}/v2/models/cgd")["outputs"]] == [
        "saliency",
        "class",
        "probability",
    ]
    assert sorted(get_json(f"{service.url}/v2/models")["models"]) == sorted(METHODS)


def test_the_page_is_told_what_there_is(service: Running) -> None:
    found = get_json(f"{service.url}/api/models")
    takes = {model["name"]: model["takes"] for model in found["models"]}
    assert takes == {"multis": "image", "arn": "image", "lps": "prior", "gicd": "group", "cgd": "class"}
    classes = {model["name"]: model["classes"] for model in found["models"]}
    assert OBJECT in classes.pop("cgd")
    assert not any(classes.values())
    assert found["limits"]["bytes"] == 4_000_000


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def post_json(url: str, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
