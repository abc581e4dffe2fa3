"""What the GPU check finds of a machine: from texts, from programs that stand in, and from packages that break."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_machine, gpu_probe
from benchmarks.gpu_machine import Gpu, Machine, ending, list_gpus, look, probe, read_gpus, read_version
from benchmarks.gpu_probe import PROBES, Found
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.errors import BackendUnavailableError, EngineError

H200 = "0, NVIDIA H200, 580.159.03, 143771, 9.0, 1980, 3201, 700.00\n"
T4 = "1, Tesla T4, 580.159.03, [N/A], [Not Supported], [N/A], 5001, [Unknown Error]\n"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that prints the file `answer`, and ends with the code in the file `code`."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/answer\nexit $(cat {tmp_path}/code)\n')
    program.chmod(0o755)
    (tmp_path / "answer").write_text(H200)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_a_card_is_read_from_what_the_driver_prints() -> None:
    first, second = read_gpus(H200 + T4)
    assert first == Gpu(
        index=0, name="NVIDIA H200", driver="580.159.03", memory_bytes=143771 * 2**20, capability="9.0",
        clock_mhz=1980, memory_clock_mhz=3201, power_w=700,
    )  # fmt: skip
    assert (second.index, second.memory_bytes, second.capability, second.clock_mhz) == (1, None, None, None)
    assert (second.memory_clock_mhz, second.power_w) == (5001, None)
    assert read_gpus("\n") == ()


@pytest.mark.parametrize("text", ["No devices were found", "0, NVIDIA H200, 580", H200.replace("143771", "much")])
def test_another_answer_is_said(text: str) -> None:
    with pytest.raises(BackendUnavailableError, match=r"nvidia-smi answered '.+', expected index,name,.*; update"):
        read_gpus(text)


def test_the_driver_is_asked_for_what_is_read(stand_in: Path) -> None:
    assert list_gpus() == read_gpus(H200)
    asked = (stand_in / "asked").read_text().split()
    assert asked[0].startswith("--query-gpu=")
    assert len(asked[0].split(",")) == len(H200.split(","))
    assert asked[1] == "--format=csv,noheader,nounits"


@pytest.mark.parametrize("answer", ["NVIDIA-SMI has failed: no driver\nsecond line\n", "\n"])
def test_a_driver_that_fails_is_quoted(stand_in: Path, answer: str) -> None:
    (stand_in / "answer").write_text(answer)
    (stand_in / "code").write_text("9")
    wanted = "no driver" if answer.strip() else "returned non-zero exit status 9"
    with pytest.raises(BackendUnavailableError, match=rf"nvidia-smi failed \(.*{wanted}"):
        list_gpus()


def test_a_driver_that_hangs_is_left_alone(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stand_in / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(gpu_machine, "_ASK_S", 0.2)
    with pytest.raises(BackendUnavailableError, match=r"did not answer within 0\.2 s"):
        list_gpus()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fine", None),
        ("crashing", "importing it was ended by SIGABRT"),
        ("leaving", "importing it ends the process"),
        ("odd", "importing it ends the process"),
        ("hanging", "did not answer within 2 s"),
    ],
)
def test_a_package_that_breaks_its_process_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str | None
) -> None:
    monkeypatch.setattr(gpu_machine, "_PROBE", "tests.benchmarks.fake_probe")
    monkeypatch.setattr(gpu_machine, "_PROBE_S", 2 if name == "hanging" else 60)
    found = probe(name)
    assert found.version == ("1.2" if name == "fine" else None)
    assert found.reason is None if reason is None else reason in str(found.reason)


def test_a_package_that_raises_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Found:
        raise OSError("libcudart.so.13: cannot open\nmore")

    monkeypatch.setitem(PROBES, "cupy", broken)
    monkeypatch.setattr("sys.argv", ["gpu_probe", "cupy"])
    gpu_probe.main()
    found = Found(**json.loads(capsys.readouterr().out))
    assert found.reason == "cupy is broken here (OSError: libcudart.so.13: cannot open); install it again"


@pytest.mark.parametrize("reason", [None, "no CUDAExecutionProvider; run: pip"])
def test_two_wheels_of_onnxruntime_are_a_warning_or_the_reason(
    monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    monkeypatch.setattr(gpu_probe, "version_of", {"onnxruntime": "1.31", "onnxruntime-gpu": "1.30"}.get)
    monkeypatch.setattr(OnnxRuntimeEngine, "unavailable", lambda options: reason)
    found = PROBES["onnxruntime-gpu"]()
    assert found.reason == reason
    assert str(found.version).startswith("onnxruntime 1.31 beside onnxruntime-gpu 1.30")
    assert ("overwrite each other" in str(found.version)) == (reason is None)


def test_every_package_is_looked_for_and_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_machine, "probe", lambda name: Found(version=f"{name} 1"))
    monkeypatch.setattr("benchmarks.gpu_machine.shutil.which", lambda name: None)
    found = look().found
    assert set(found) == {"driver", "gpu", "nvcc", "cmake", *PROBES}
    missing = {name: item.reason for name, item in found.items() if item.reason}
    assert set(missing) == {"driver", "gpu", "nvcc", "cmake"}
    assert all("install" in str(reason) for reason in missing.values())


def test_the_card_that_is_asked_for_has_to_be_there(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_machine, "probe", lambda name: Found())
    (stand_in / "answer").write_text(H200 + T4)
    first, second, third = (look(device).found for device in ("cuda", "cuda:1", "cuda:2"))
    assert str(first["gpu"].version).startswith("NVIDIA H200, compute capability 9.0")
    assert str(second["gpu"].version).startswith("Tesla T4")
    assert third["gpu"].reason == "no GPU of number 2: the driver shows 2; choose another device"
    assert third["driver"].reason is None
    with pytest.raises(EngineError, match="expected cpu, cuda or cuda:N"):
        look("cuda:one")


def test_the_first_need_that_is_missing_is_the_reason() -> None:
    missing = {name: Found(reason=f"no {name}") for name in ("b", "c")}
    machine = Machine(gpus=(), found={"a": Found(version="1"), **missing})
    assert machine.lacks(["a"]) is None
    assert machine.lacks(["a", "c", "b"]) == "no c"
    assert machine.lacks(["b or a"]) is None
    assert machine.lacks(["a", "b or c"]) == "no b"


def test_versions_and_endings_are_read() -> None:
    nvcc = "nvcc: NVIDIA\nCuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0\n"
    assert read_version(nvcc) == "13.0.88"
    assert read_version("cmake version 3.25.1\n\nCMake suite") == "3.25.1"
    assert read_version("no number") is None
    assert [ending(code) for code in (-11, 77)] == ["was ended by SIGSEGV", "ended with exit code 77"]
