"""Two processes train as one does with batches twice as large."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from salience.runtime.errors import SalienceError
from salience.training.checkpoint import build_network, load_checkpoint
from salience.training.devices import open_fabric
from salience.training.run_state import HISTORY_FILE, LAST_FILE
from tests.small_runs import weights_of

REPOSITORY = Path(__file__).resolve().parents[2]
COMMON = (
    "--synthetic", "8", "--backbone", "mobilenet_v2", "--size", "64", "64", "--epochs", "2", "--optimiser", "sgd",
    "--rate", "0.05", "--schedule", "constant", "--accelerator", "cpu", "--seed", "3", "--freeze-norm", "--average",
    "0.5",
)  # fmt: skip
# Without what each process has of its own: draws of dropout, and statistics of batch norm in new layers.
METHODS = {
    "multis": ("--recipe", "iou=1", "--network", "width=4", "hidden=8", "dropout=0"),
    "arn": ("--recipe", "iou=1", "--network", "width=32"),
}


def command(method: str, output: Path, batch: int) -> list[str]:
    return [
        "training/train.py", method, *COMMON, *METHODS[method], "--accumulate", "2", "--batch", str(batch),
        "--output", str(output),
    ]  # fmt: skip


def train(launcher: list[str], method: str, output: Path, batch: int, *extra: str) -> str:
    """In processes of its own, with one thread each; what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        [*launcher, *command(method, output, batch), *extra], cwd=REPOSITORY, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_equal(alone: Path, together: Path) -> None:
    """fp32 sums in another order differ by about 1e-8; the weights have moved by 1000 times the tolerance."""
    header, _ = load_checkpoint(alone / LAST_FILE)
    torch.manual_seed(3)
    start = build_network(header.method, header.network).state_dict()
    one, two = weights_of(alone / LAST_FILE), weights_of(together / LAST_FILE)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 1e-3
    histories = [json.loads((folder / HISTORY_FILE).read_text()) for folder in (alone, together)]
    for first, second in zip(*histories, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["scores"] == pytest.approx(second["scores"], abs=1e-4)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    train([sys.executable], "multis", tmp_path / "alone", 2)
    text = train([sys.executable], "multis", tmp_path / "together", 1, "--devices", "2")
    check_equal(tmp_path / "alone", tmp_path / "together")
    assert text.count("best.safetensors") == 1  # the first process speaks for both
    header, _ = load_checkpoint(tmp_path / "together" / LAST_FILE)
    assert header.training["devices"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_torchrun_starts_the_processes_as_well(tmp_path: Path, method: str) -> None:
    train([sys.executable], method, tmp_path / "alone", 2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train(torchrun, method, tmp_path / "together", 1)
    check_equal(tmp_path / "alone", tmp_path / "together")
    header, _ = load_checkpoint(tmp_path / "together" / LAST_FILE)
    assert header.training["devices"] == 2


def test_torchrun_and_devices_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SalienceError, match=r"--devices 4: torchrun has started 2 processes"):
        open_fabric("cpu", 4, "32-true")
