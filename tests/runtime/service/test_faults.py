"""Whatever a client sends, the service answers with the right status and one sentence, and stays as it was."""

import base64
import io
import json
import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from salience.runtime.png_writer import encode_png
from tests.runtime.service.running import Running, running

MULTIS = "/api/predict/multis"
INFER = "/v2/models/multis/infer"


@pytest.fixture(scope="module")
def picture(jpegs: dict[str, Path]) -> bytes:
    return jpegs["chelsea"].read_bytes()


def ask(found: Running, path: str, body: bytes | None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and sentence; there must be one where something was wrong."""
    request = urllib.request.Request(found.url + path, body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def v2(inputs: list[dict[str, Any]], data: bytes = b"", **more: Any) -> tuple[bytes, dict[str, str]]:
    """A body of the binary tensor extension, and its headers."""
    told = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"Inference-Header-Content-Length": str(len(told)), "Content-Type": "application/octet-stream"}
    return told + data, headers


def image_tensor(data: bytes, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    return tensor | changes


def prefixed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (MULTIS, b"", 400, "is empty"),
        (MULTIS, b"no picture at all", 400, "image"),
        (MULTIS, bomb(60_000), 400, "megapixels"),
        ("/api/predict/nobody", b"x", 404, "nobody"),
        ("/v2/models/nobody/infer", b"x", 404, "nobody"),
        (f"{MULTIS}?kind=sculpture", b"x", 400, "kind"),
        (f"{MULTIS}?colour=red", b"x", 400, "colour"),
        (f"{MULTIS}?iterations=3", b"x", 400, "is for lps"),
        (f"{MULTIS}?threshold=.5", b"x", 400, "threshold"),
        ("/api/predict/lps?iterations=1000000", b"x", 400, "iterations"),
        ("/api/predict/lps", b"x", 400, "prior"),
        (INFER, b"x", 400, "Inference-Header-Content-Length"),
        ("/v2/repository/models/multis/unload", b"", 400, "loaded by the service itself"),
        ("/v2/repository/models/multis/load", b"", 400, "loaded by the service itself"),
    ],
)
def test_a_wrong_request_is_told_why(service: Running, path: str, body: bytes, status: int, words: str) -> None:
    found, told = ask(service, path, body)
    assert (found, words in told) == (status, True), told
    assert "Traceback" not in told


def test_a_picture_cut_short_is_told(service: Running, picture: bytes) -> None:
    status, told = ask(service, MULTIS, picture[: len(picture) // 2])
    assert status == 400
    assert "whole" in told


def test_an_unknown_class_is_told(service: Running, picture: bytes) -> None:
    status, told = ask(service, "/api/predict/cgd?class=unicorn", picture)
    assert status == 400
    assert "unicorn" in told


def test_a_group_with_a_bad_picture_says_which(service: Running, picture: bytes) -> None:
    body, headers = v2(
        [image_tensor(prefixed(picture) + prefixed(b"bad"), shape=[2])], prefixed(picture) + prefixed(b"bad")
    )
    status, told = ask(service, "/v2/models/gicd/infer", body, headers)
    assert status == 400
    assert "picture 2 of the group" in told


@pytest.mark.parametrize(
    ("changes", "data", "words"),
    [
        ({"datatype": "FP64", "shape": [1, 1, 3]}, bytes(24), "FP64"),
        ({"datatype": "UINT8", "shape": [1, 1, 4]}, bytes(4), "(1, 1, 4)"),
        ({"datatype": "UINT8", "shape": [2, 2, 3]}, bytes(4), "shape"),
        ({"datatype": "UINT8", "shape": [-1, 2, 3]}, bytes(5), "shape"),
        ({"datatype": "UINT8", "shape": ["a"]}, bytes(5), "shape"),
        ({"shape": [2]}, prefixed(b"x"), "holds 1 elements"),
        ({"shape": [10**12]}, prefixed(b"x"), "shape"),
        ({"shape": [0]}, b"", "shape"),
        ({"shape": [1]}, b"\xff\xff\xff\xff", "expected elements"),
        ({"shape": [1]}, bytes(4 * 100_000), "expected elements"),
        ({"name": "picture"}, prefixed(b"x"), "picture"),
        ({"parameters": {"binary_data_size": 10**9}}, b"x", "binary_data_size"),
        ({"parameters": {"binary_data_size": -5}}, b"x", "binary_data_size"),
        ({"parameters": {"binary_data_size": "many"}}, b"x", "cannot be read"),
        ({"parameters": None}, b"", "cannot be read"),
    ],
)
def test_a_wrong_tensor_is_told(service: Running, changes: dict[str, Any], data: bytes, words: str) -> None:
    body, headers = v2([image_tensor(data, **changes)], data)
    status, told = ask(service, INFER, body, headers)
    assert (status, words in told) == (400, True), told


def test_a_large_array_is_not_answered_in_json(service: Running) -> None:
    pixels = np.zeros((1200, 1100, 3), np.uint8)
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1200, 1100, 3],
        "parameters": {"binary_data_size": pixels.nbytes},
    }
    for outputs, status in (([], 200), ([{"name": "saliency", "parameters": {"binary_data": True}}], 200)):
        body, headers = v2([tensor], pixels.tobytes(), outputs=outputs)
        assert ask(service, INFER, body, headers)[0] == status
    body, headers = v2([tensor], pixels.tobytes(), parameters={"kind": "cutout"})
    status, told = ask(service, INFER, body, headers)
    assert status == 400
    assert "ask for binary_data" in told


REPEATED = [
    ({"outputs": [{"name": "saliency"}] * 2}, "outputs: got saliency, saliency; expected some of saliency"),
    ({"outputs": [{"name": "saliency"}] * 5000}, "(5000 in all)"),
    ({"outputs": [{"name": "depth"}]}, "outputs: got depth; expected some of saliency"),
    ({"inputs": 2}, "inputs: got image, image; expected image"),
    ({"inputs": 3000}, "(3000 in all)"),
]


@pytest.mark.parametrize(("changes", "words"), REPEATED)
@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_repeated_and_unknown_tensors_are_refused_before_work(
    service: Running, picture: bytes, form: str, changes: dict[str, Any], words: str
) -> None:
    count = changes.get("inputs", 1)
    outputs = {"outputs": changes["outputs"]} if "outputs" in changes else {}
    before = metrics(service).partition('salience_pictures_total{model="multis"} ')[2].partition("\n")[0]
    if form == "binary":
        first, others = image_tensor(prefixed(picture)), [image_tensor(b"")] * (count - 1)
        body, headers = v2([first, *others], prefixed(picture), **outputs)
    else:
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture).decode()]}
        small = tensor | {"data": ["eA=="]}
        body = json.dumps({"inputs": [tensor, *[small] * (count - 1)], **outputs}).encode()
        headers = {"Content-Type": "application/json"}
    status, told = ask(service, INFER, body, headers)
    assert (status, words in told) == (400, True), told
    assert len(told) < 300
    assert metrics(service).partition('salience_pictures_total{model="multis"} ')[2].partition("\n")[0] == before


@pytest.mark.parametrize("changes", [{"outputs": 2}, {"outputs": 5000}, {"inputs": 2}, {"unknown": 1}])
def test_grpc_refuses_repeated_and_unknown_tensors(service: Running, picture: bytes, changes: dict[str, int]) -> None:
    client: Any = pytest.importorskip("tritonclient.grpc")
    tensor = client.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([picture], dtype=object))
    name = "depth" if "unknown" in changes else "saliency"
    outputs = [client.InferRequestedOutput(name)] * max(changes.get("outputs", 1), 1)
    with client.InferenceServerClient(f"{service.host}:{service.grpc_port}") as connection:
        with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*(in|out)puts: got"):
            connection.infer("multis", [tensor] * changes.get("inputs", 1), outputs=outputs)
        assert connection.infer("multis", [tensor], outputs=[client.InferRequestedOutput("saliency")])


def test_each_output_can_be_asked_for_once(service: Running, picture: bytes) -> None:
    outputs = [{"name": name} for name in ("probability", "saliency", "class")]
    body, headers = v2([image_tensor(prefixed(picture))], prefixed(picture), outputs=outputs)
    assert ask(service, "/v2/models/cgd/infer", body, headers)[0] == 200


@pytest.mark.parametrize("form", ["address", "form", "both"])
def test_a_repeated_parameter_is_refused(service: Running, picture: bytes, form: str) -> None:
    field = b'--cut\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    fields = [(b'image"; filename="a.jpg', picture)] + [(b"kind", b"mask")] * {"address": 0, "form": 2, "both": 1}[form]
    body = b"".join(field % each for each in fields) + b"--cut--\r\n"
    query = {"address": "?kind=map&kind=mask", "form": "", "both": "?kind=map"}[form]
    status, told = ask(service, MULTIS + query, body, {"Content-Type": "multipart/form-data; boundary=cut"})
    assert (status, "parameter kind: is there 2 times" in told) == (400, True), told


def test_a_picture_of_many_scans_holds_nobody_up(service: Running, picture: bytes) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    start = time.monotonic()
    status, told = ask(service, MULTIS, data[:-2] + last * 3000 + data[-2:])
    assert (status, "scans" in told) == (400, True), told
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("length", ["", "-1", "abc", "99999999", "1e3"])
def test_a_wrong_length_of_the_json_is_told(service: Running, picture: bytes, length: str) -> None:
    body, headers = v2([image_tensor(prefixed(picture))], prefixed(picture))
    status, told = ask(service, INFER, body, headers | {"Inference-Header-Content-Length": length})
    assert status == 400
    assert "Inference-Header-Content-Length" in told


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"inputs": 3}', b'{"inputs": [{"name": "image"}]}', b'{"inputs": []}', b"[" * 100_000],
)
def test_json_that_is_no_request_is_told(service: Running, body: bytes) -> None:
    status, told = ask(service, INFER, body, {"Content-Type": "application/json"})
    assert status == 400
    assert told.startswith(("request", "inputs"))


def test_text_that_is_no_base64_is_told(service: Running) -> None:
    body = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["???"]}]}).encode()
    status, told = ask(service, INFER, body, {"Content-Type": "application/json"})
    assert status == 400
    assert "Base64" in told


def test_numbers_out_of_range_are_told(service: Running) -> None:
    tensor = {"name": "image", "shape": [1, 1, 3], "datatype": "UINT8", "data": [1, 2, 300]}
    status, told = ask(service, INFER, json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"})
    assert status == 400
    assert "image" in told


def test_too_large_is_refused_before_it_is_read(service: Running) -> None:
    with closing(HTTPConnection(service.host, service.port, timeout=30)) as connection:
        connection.putrequest("POST", MULTIS)
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert "the limit is 4000000" in json.loads(answer.read())["error"]


def test_only_a_post_may_carry_a_large_body(service: Running) -> None:
    request = urllib.request.Request(f"{service.url}/api/models", bytes(100_000), method="GET")
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(request, timeout=30)


def test_too_large_in_pieces_is_refused(service: Running) -> None:
    def pieces() -> Any:
        for _ in range(100):
            yield bytes(100_000)

    with closing(HTTPConnection(service.host, service.port, timeout=30)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", MULTIS, pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        answer = connection.getresponse()
        assert answer.status == 413
        answer.read()


def test_grpc_tells_wrong_requests(service: Running, picture: bytes) -> None:
    client: Any = pytest.importorskip("tritonclient.grpc")
    bad = client.InferInput("image", [1], "BYTES")
    bad.set_data_from_numpy(np.array([b"no picture"], dtype=object))
    large = client.InferInput("image", [1], "BYTES")
    large.set_data_from_numpy(np.array([bytes(5_000_000)], dtype=object))
    with client.InferenceServerClient(f"{service.host}:{service.grpc_port}") as connection:
        with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*image"):
            connection.infer("multis", [bad])
        with pytest.raises(Exception, match=r"NOT_FOUND.*nobody"):
            connection.infer("nobody", [bad])
        with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*iterations"):
            connection.infer("multis", [bad], parameters={"iterations": 3})
        with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
            connection.infer("multis", [large])
        assert connection.is_server_ready()


def test_slow_clients_are_let_go_and_late_answers_named(
    bundles: dict[str, Path], picture: bytes, tmp_path: Path
) -> None:
    arguments = ("--bundle", f"multis={bundles['multis']}", "--bundle", f"cgd={bundles['cgd']}")
    with running(tmp_path, *arguments, "--timeout", "1", "--calls", "1") as found:
        with socket.create_connection((found.host, found.port), timeout=20) as slow:
            slow.sendall(f"POST {MULTIS} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nabc".encode())
            assert ask(found, MULTIS, picture)[0] == 200
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        statuses = flood(found, "/api/predict/cgd", picture, count=40)
        assert set(statuses) <= {200, 504}
        assert 504 in statuses
        time.sleep(1)
        assert ask(found, MULTIS, picture)[0] == 200


def flood(found: Running, path: str, body: bytes, count: int) -> list[int]:
    """Statuses of so many requests at once."""
    statuses: list[int] = []
    clients = [threading.Thread(target=lambda: statuses.append(ask(found, path, body)[0])) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    return statuses


def test_clients_that_vanish_leave_nothing_behind(service: Running, picture: bytes) -> None:
    head = f"POST /api/predict/cgd HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
    for index in range(40):
        with socket.create_connection((service.host, service.port), timeout=20) as sock:
            sock.sendall((head + picture)[: len(head) + index * len(picture) // 39])
    end = time.monotonic() + 30
    while "salience_in_flight 0.0" not in metrics(service):
        assert time.monotonic() < end, "requests of clients that have gone are still under way"
        time.sleep(0.05)
    assert ask(service, MULTIS, picture)[0] == 200


def metrics(found: Running) -> str:
    with urllib.request.urlopen(f"{found.url}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def seeds(picture: bytes) -> list[tuple[str, bytes, dict[str, str]]]:
    """Whole requests of every form, which fuzzing starts from."""
    binary = v2([image_tensor(prefixed(picture))], prefixed(picture), parameters={"kind": "mask"})
    text = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture).decode()]}
    fields = (b'image"; filename="a.jpg', picture), (b'prior"; filename="b.jpg', picture), (b"iterations", b"2")
    parts = [b'--cut\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in fields]
    form = b"".join(parts) + b"--cut--\r\n"
    return [
        (MULTIS, picture, {"Content-Type": "image/jpeg"}),
        (INFER, *binary),
        (INFER, json.dumps({"inputs": [text]}).encode(), {"Content-Type": "application/json"}),
        ("/api/predict/lps", form, {"Content-Type": "multipart/form-data; boundary=cut"}),
    ]


def mutated(body: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut, doubled or put in, most of them near the start, where the structure is."""
    found = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        place = min(int(chance.expovariate(1 / 150)), len(found) - 1) if found else 0
        match chance.randrange(4):
            case 0 if found:
                found[place] = chance.randrange(256)
            case 1:
                del found[place : place + chance.randint(1, 40)]
            case 2:
                found[place:place] = found[place : place + chance.randint(1, 60)]
            case _:
                found[place:place] = chance.randbytes(chance.randint(1, 20))
    return bytes(found)


def fuzz(found: Running, picture: bytes, count: int, seed: int) -> dict[int, int]:
    """Answers by status to `count` damaged requests."""
    chance, answers = random.Random(seed), dict[int, int]()
    forms = seeds(picture)
    with closing(HTTPConnection(found.host, found.port, timeout=30)) as connection:
        for _ in range(count):
            path, body, headers = chance.choice(forms)
            connection.request("POST", path, mutated(body, chance), headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status >= 400:
                assert json.loads(data)["error"]
            answers[answer.status] = answers.get(answer.status, 0) + 1
    return answers


def bytes_at_rest(found: Running) -> int:
    """Memory once it has had time to give back what it does not need; it looks every second."""
    assert ask(found, MULTIS, encode_png(np.zeros((100, 100), np.uint8)))[0] == 200
    time.sleep(4)
    return found.resident_bytes()


def wait_for_memory(found: Running, limit: int) -> None:
    """Pictures of up to 50 megapixels come by, whose memory is given back when there is nothing to do."""
    end = time.monotonic() + 15
    while (held := found.resident_bytes()) > limit:
        assert time.monotonic() < end, f"{held} bytes are held, expected {limit} at most"
        time.sleep(0.1)


def test_what_a_large_picture_took_is_given_back(service: Running) -> None:
    before = bytes_at_rest(service)
    assert ask(service, MULTIS, encode_png(np.zeros((6000, 6000), np.uint8)))[0] == 200
    assert service.resident_bytes() > before + 100_000_000
    wait_for_memory(service, before + 40_000_000)


def test_ten_thousand_damaged_requests_do_no_harm(service: Running, picture: bytes) -> None:
    assert set(fuzz(service, picture, 500, seed=1)) <= {200, 400, 413}
    before = bytes_at_rest(service)
    answers = fuzz(service, picture, 10_000, seed=2)
    assert set(answers) <= {200, 400, 413}, answers
    assert answers[200] > 200, "fuzzing never came past the checks"
    assert answers[400] > 2000
    assert "salience_in_flight 0.0" in metrics(service)
    assert ask(service, MULTIS, picture)[0] == 200
    # A leak of 4 KB a request would be as much.
    wait_for_memory(service, before + 40_000_000)
