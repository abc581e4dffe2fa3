"""The service on Ray Serve: maps by HTTP and by handle, and what it answers to bad requests and to overload."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import BackendUnavailableError, Detector, EngineError, ImageError, SalienceError
from salience.runtime.bundle import DEFAULT_BUNDLE
from salience.runtime.load_options import LoadOptions
from salience.runtime.scale.deployment import Arguments, Service, build_app
from salience.runtime.scale.settings import Settings

from .samples import BROKEN, is_map_of, jpegs

# Ray warns of its own deprecated parts.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bundel": "x"}, "bundel: Extra inputs are not permitted; known: bundle, backend"),
        ({"gpus": "2"}, "gpus: Input should be less than or equal to 1"),
        ({"min_replicas": "3"}, "max_replicas 1 is below min_replicas 3"),
        ({"bundle": "missing"}, "missing: no readable"),
    ],
)
def test_arguments_are_checked_before_anything_starts(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(SalienceError, match=message):
        build_app(arguments)


def test_a_replica_with_a_part_of_a_gpu_uses_it() -> None:
    assert Arguments.model_validate({"gpus": "0.5"}).settings().load.device == "cuda"
    assert Arguments().settings().load.device == "cpu"


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'salience\[ray\]'"):
        build_app({})


class HalfBroken:
    """An engine that fails on batches, and on pictures of 0."""

    def infer(self, prepared: list[int]) -> list[str]:
        if len(prepared) > 1 or prepared == [0]:
            raise EngineError("engine failed")
        return [f"map of {prepared[0]}"]


def test_a_picture_does_not_take_its_batch_with_it_and_the_health_tells_of_the_engine() -> None:
    pytest.importorskip("ray")
    service = Service(Settings(DEFAULT_BUNDLE, load=LoadOptions(threads=1)), 4, 0.01)
    service._detector = HalfBroken()  # type: ignore[assignment]
    first, failed, last = service._infer_all([1, 0, 2])  # type: ignore[list-item]
    assert (first, last) == ("map of 1", "map of 2")
    assert isinstance(failed, EngineError)
    service.check_health()
    service._infer_all([0])  # type: ignore[list-item]
    with pytest.raises(EngineError, match="engine failed"):
        service.check_health()


@pytest.fixture(scope="module")
def service(cluster: Any) -> Iterator[tuple[str, Any]]:
    """Address and handle of a service that takes one request at a time, and lets one wait."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    handle = serve.run(build_app({"max_ongoing": "1", "max_queued": "1", "batch": "2"}))
    yield f"http://127.0.0.1:{port}/", handle
    serve.shutdown()


def post(address: str, body: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as answer:
            assert answer.headers["content-type"] == "image/png"
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_map_is_that_of_the_detector(
    service: tuple[str, Any], detector: Detector, photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    address, handle = service
    (picture,) = jpegs(photos, 1)
    for kind in ("map", "overlay"):
        status, png = post(f"{address}?kind={kind}", picture)
        assert status == 200
        assert is_map_of(detector, png, picture, kind)
        assert is_map_of(detector, handle.predict.remote(picture, kind).result(), picture, kind)
    with pytest.raises(ImageError, match="not a picture"):
        handle.predict.remote(BROKEN).result()


def test_a_bad_request_is_one_sentence(service: tuple[str, Any], photos: Mapping[str, NDArray[np.uint8]]) -> None:
    address, _ = service
    (picture,) = jpegs(photos, 1)
    for query, body, sentence in [
        ("", BROKEN, "not a picture of a known format"),
        ("", b"", "not a picture of a known format"),
        ("?kind=sketch", picture, "kind 'sketch' is not known"),
        ("?size=2", picture, "parameter size: expected"),
    ]:
        status, answer = post(address + query, body)
        assert status == 400
        assert sentence in json.loads(answer)["error"]
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(address, timeout=60)


def test_overload_is_answered_at_once_and_passes(
    service: tuple[str, Any], photos: Mapping[str, NDArray[np.uint8]]
) -> None:
    address, _ = service
    (picture,) = jpegs(photos, 1)
    with ThreadPoolExecutor(12) as clients:
        found = [status for status, _ in clients.map(lambda _: post(address, picture), range(24))]
    assert set(found) == {200, 503}
    assert post(address, picture)[0] == 200
