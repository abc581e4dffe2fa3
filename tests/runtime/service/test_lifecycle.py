"""A service from its start to its end: readiness, a changed bundle, a token, what it counts and logs, SIGTERM."""

import io
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from salience.runtime import load
from tests.runtime.service.running import Running, running


@pytest.fixture(scope="module")
def picture(jpegs: dict[str, Path]) -> bytes:
    return jpegs["coffee"].read_bytes()


def status_of(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_ready_only_when_every_model_is_warm(bundles: dict[str, Path], picture: bytes, tmp_path: Path) -> None:
    with running(
        tmp_path, "--bundle", f"m={bundles['multis']}", "--bundle", f"g={bundles['gicd']}", wait=False
    ) as found:
        seen, early = set(), set()
        end = time.monotonic() + 60
        while 200 not in seen and time.monotonic() < end:
            try:
                ready, _ = status_of(f"{found.url}/v2/health/ready")
            except OSError:
                time.sleep(0.01)
                continue
            seen.add(ready)
            if ready == 503:
                live, _ = status_of(f"{found.url}/v2/health/live")
                early.add(status_of(f"{found.url}/api/predict/g", picture)[0])
                assert live == 200
        warm = [event["model"] for event in found.events() if event["event"] == "model ready"]
        assert status_of(f"{found.url}/api/predict/m", picture)[0] == 200
    assert seen == {503, 200}
    assert 503 in early
    assert early <= {503, 200}
    assert warm == ["m", "g"]


def test_a_bundle_that_cannot_be_loaded_ends_the_service(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bundles["multis"], folder)
    graph = next(path for path in folder.glob("saliency*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with running(tmp_path, "--bundle", str(folder), wait=False) as found:
        assert found.process.wait(60) == 1
        assert found.log.read_text().splitlines()[-1].startswith("error: ")


def test_a_taken_port_is_one_sentence(bundles: dict[str, Path], tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with running(tmp_path, "--bundle", str(bundles["multis"]), "--port", str(port), wait=False) as found:
            assert found.process.wait(60) == 1
            told = found.log.read_text()
    assert told.startswith(f"error: 127.0.0.1:{port}: cannot be listened at")
    assert "Traceback" not in told


def test_a_changed_bundle_is_served_and_a_broken_one_refused(
    bundles: dict[str, Path], picture: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundles["multis"], folder)

    def exchange(source: Path) -> None:
        shutil.copytree(source, tmp_path / "next")
        folder.rename(tmp_path / "last")
        (tmp_path / "next").rename(folder)
        shutil.rmtree(tmp_path / "last")

    first, second = (load(bundles[name]).predict(picture).grey().tobytes() for name in ("multis", "arn"))
    with running(tmp_path, "--bundle", f"m={folder}", "--reload", "0.1") as found:
        assert pixels(found, picture) == first
        exchange(bundles["arn"])
        wait_for(found, "bundle loaded")
        assert pixels(found, picture) == second
        broken = tmp_path / "broken"
        shutil.copytree(bundles["multis"], broken)
        next(broken.glob("saliency*.onnx")).write_bytes(b"half of it")
        exchange(broken)
        wait_for(found, "bundle refused")
        assert pixels(found, picture) == second
        counted = status_of(f"{found.url}/metrics")[1].decode()
    assert 'salience_reloads_total{model="m",result="loaded"} 1.0' in counted
    assert 'salience_reloads_total{model="m",result="refused"} 1.0' in counted


def test_a_bundle_copied_file_by_file_is_served_when_it_is_whole(
    bundles: dict[str, Path], picture: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundles["multis"], folder)
    wanted = load(bundles["arn"]).predict(picture).grey().tobytes()
    with running(tmp_path, "--bundle", f"m={folder}", "--reload", "0.1") as found:
        before = pixels(found, picture)
        shutil.copy(bundles["arn"] / "manifest.json", folder)
        wait_for(found, "bundle refused")
        assert pixels(found, picture) == before
        for file in bundles["arn"].iterdir():
            shutil.copy(file, folder)
        wait_for(found, "bundle loaded")
        assert pixels(found, picture) == wanted


def pixels(found: Running, picture: bytes) -> bytes:
    status, data = status_of(f"{found.url}/api/predict/m", picture)
    assert status == 200, data
    return Image.open(io.BytesIO(data)).tobytes()


def wait_for(found: Running, event: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not any(each["event"] == event for each in found.events()):
        assert time.monotonic() < end, found.log.read_text()
        time.sleep(0.05)


def test_a_token_guards_what_costs(bundles: dict[str, Path], picture: bytes, tmp_path: Path) -> None:
    grpc: Any = pytest.importorskip("tritonclient.grpc")
    with running(tmp_path, "--bundle", f"m={bundles['multis']}", SALIENCE_TOKEN="open sesame") as found:
        right = {"Authorization": "Bearer open sesame"}
        for path, data in (("/api/predict/m", picture), ("/api/models", None), ("/v2/models", None)):
            status, told = status_of(found.url + path, data)
            assert status == 401
            assert "Authorization: Bearer" in json.loads(told)["error"]
            assert status_of(found.url + path, data, {"Authorization": "Bearer open sesam"})[0] == 401
            assert status_of(found.url + path, data, right)[0] == 200
        assert status_of(f"{found.url}/v2/health/ready")[0] == 200
        with grpc.InferenceServerClient(f"{found.host}:{found.grpc_port}") as client:
            assert client.is_server_ready()
            with pytest.raises(Exception, match="UNAUTHENTICATED"):
                client.get_model_metadata("m")
            assert client.get_model_metadata("m", headers={"authorization": "Bearer open sesame"}).name == "m"
        assert "sesame" not in found.log.read_text()


def test_what_is_counted_and_logged(bundles: dict[str, Path], picture: bytes, tmp_path: Path) -> None:
    with running(tmp_path, "--bundle", f"m={bundles['multis']}") as found:
        for _ in range(3):
            assert status_of(f"{found.url}/api/predict/m", picture)[0] == 200
        assert status_of(f"{found.url}/v2/models/m/infer", b"no picture")[0] == 400
        assert status_of(f"{found.url}/api/predict/another", picture)[0] == 404
        end, counted = time.monotonic() + 10, ""
        while 'status="404"' not in counted and time.monotonic() < end:  # what is answered is counted right after
            counted = status_of(f"{found.url}/metrics")[1].decode()
        requests = [event for event in found.events() if event["event"] == "request"]
    assert 'salience_requests_total{model="m",protocol="http",status="200"} 3.0' in counted
    assert 'salience_requests_total{model="m",protocol="http",status="400"} 1.0' in counted
    assert 'salience_requests_total{model="",protocol="http",status="404"} 1.0' in counted
    assert 'salience_pictures_total{model="m"} 3.0' in counted
    assert 'salience_batch_size_count{model="m"} 3.0' in counted
    for stage in ("queue", "decode", "infer", "encode", "total"):
        assert f'salience_stage_seconds_count{{model="m",stage="{stage}"}} 3.0' in counted
    assert "salience_in_flight 0.0" in counted
    assert [event["status"] for event in requests] == [200, 200, 200, 400, 404]
    assert [event["bytes"] for event in requests] == [len(picture)] * 3 + [10, len(picture)]


def test_sigterm_loses_no_accepted_request(bundles: dict[str, Path], picture: bytes, tmp_path: Path) -> None:
    """Requests whose bytes have all arrived are answered, though the service is told to stop meanwhile."""
    answers: list[int] = []
    with running(tmp_path, "--bundle", f"m={bundles['cgd']}", "--calls", "1") as found:

        def ask() -> None:
            answers.append(status_of(f"{found.url}/api/predict/m", picture)[0])

        clients = [threading.Thread(target=ask) for _ in range(12)]
        for client in clients:
            client.start()
        end = time.monotonic() + 30
        while "salience_in_flight 12.0" not in status_of(f"{found.url}/metrics")[1].decode() and not answers:
            assert time.monotonic() < end
        waiting = 12 - len(answers)
        code = found.stop(40)
        for client in clients:
            client.join(30)
        events = found.events()
    assert waiting > 3, "the load was over before the signal"
    assert answers == [200] * 12
    assert code == 0
    assert [event["event"] for event in events if event["event"] in ("draining", "stopped")] == ["draining", "stopped"]


def test_sigterm_ends_the_service_though_a_thread_is_stuck(
    bundles: dict[str, Path], picture: bytes, tmp_path: Path
) -> None:
    """As in a decoder that does not return, which no thread can be made to leave."""
    stuck = "import time, salience.runtime.service.served as s; s._prepare = lambda adapter, unit: time.sleep(120)"
    arguments = ("--bundle", f"m={bundles['multis']}", "--grace", "1", "--timeout", "0.5")
    with running(tmp_path, *arguments, before=stuck) as found:
        assert status_of(f"{found.url}/api/predict/m", picture)[0] == 504
        start = time.monotonic()
        assert found.stop(20) == 1
        assert 1 <= time.monotonic() - start < 15
        assert found.events()[-1]["event"] == "stopped by force"


def test_too_many_are_told_to_come_again(bundles: dict[str, Path], picture: bytes, tmp_path: Path) -> None:
    answers: list[tuple[int, str | None]] = []

    with running(tmp_path, "--bundle", f"m={bundles['cgd']}", "--calls", "1", "--queue", "3") as found:

        def ask() -> None:
            request = urllib.request.Request(f"{found.url}/api/predict/m", picture)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answers.append((answer.status, None))
            except urllib.error.HTTPError as error:
                answers.append((error.code, error.headers["Retry-After"]))

        clients = [threading.Thread(target=ask) for _ in range(24)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        assert status_of(f"{found.url}/api/predict/m", picture)[0] == 200
    assert len(answers) == 24
    assert {status for status, _ in answers} == {200, 503}
    assert all(after is not None and int(after) >= 1 for status, after in answers if status == 503)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--cuda-graph",), "cuda_graph: is for a GPU"),
        (("--provider-option", "use_tf32=1"), "provider option use_tf32: is for a GPU"),
        (("--provider", "cuda"), "provider 'cuda': does not run on device 'cpu'"),
    ],
    ids=["graphs", "option", "provider"],
)
def test_options_of_a_gpu_reach_the_engine(
    bundles: dict[str, Path], tmp_path: Path, option: tuple[str, ...], told: str
) -> None:
    with running(tmp_path, "--bundle", str(bundles["multis"]), "--device", "cpu", *option, wait=False) as found:
        assert found.process.wait(60) == 1
        assert found.log.read_text().splitlines()[-1].startswith(f"error: {told}")


def test_a_name_that_is_there_twice_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("--bundle", f"m={bundles['multis']}", "--bundle", f"m={bundles['arn']}")
    with running(tmp_path, *arguments, wait=False) as found:
        assert found.process.wait(60) == 1
        assert "there is a model m already" in found.log.read_text()
