import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from salience.runtime.errors import CheckpointError, DataError
from salience.training.checkpoint import CheckpointHeader, build_network, load_checkpoint, save_checkpoint
from salience.training.optim import OptimiserSettings, Schedule, build_optimiser
from salience.training.preprocessing import Preprocessing
from salience.training.recipes import RECIPES
from salience.training.recipes.multis import MultiScaleRecipe
from salience.training.run_state import BEST_FILE, LAST_FILE, STATE_FILE
from salience.training.trainer import Trainer
from tests.small_runs import NETWORK, SIZE, run, weights_of

# One that learns from pictures alone and one that learns in two stages; the others take a minute together.
METHODS = [
    method if method in ("multis", "lps") else pytest.param(method, marks=pytest.mark.slow) for method in RECIPES
]


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_and_leaves_a_loadable_checkpoint(tmp_path: Path, method: str) -> None:
    epochs, images = (8, 24) if method == "multis" else (5, 8)  # its two losses take turns at first
    rate = {"cgd": 0.003, "multis": 0.01}.get(method, 0.02)  # all layers of cgd learn at this rate
    losses = run(tmp_path, epochs=epochs, method=method, images=images, rate=rate, accumulate=1, augmentation="none")
    assert losses[-1] < 0.95 * losses[0]
    header, network = load_checkpoint(tmp_path / BEST_FILE)
    assert header.method == method
    assert header.training["epochs"] == 1 + header.training["validation"]["epoch"]
    assert not network.training
    assert [r["loss"] for r in json.loads((tmp_path / "history.json").read_text())] == losses


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accumulation and a moving average, which is what the checkpoint has; the loss is that of the other."""
    whole = run(tmp_path / "whole", epochs=3, method=method, images=16, optimiser={"average": 0.9})

    calls = []
    original = Trainer.validate

    def stop_in_second_epoch(trainer: Trainer, data: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(trainer, data)

    monkeypatch.setattr(Trainer, "validate", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", epochs=3, method=method, images=16, optimiser={"average": 0.9})
    monkeypatch.undo()
    torch.manual_seed(12345)
    assert run(tmp_path / "cut", epochs=3, method=method, images=16, optimiser={"average": 0.9}, resume=True) == whole
    first, second = weights_of(tmp_path / "whole" / LAST_FILE), weights_of(tmp_path / "cut" / LAST_FILE)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="other settings"):
        run(tmp_path, epochs=1, resume=True, seed=4)


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    (tmp_path / STATE_FILE).write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match=r"state\.pt: cannot be read"):
        run(tmp_path, epochs=1, resume=True)


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    assert run(tmp_path / "none", epochs=1) == run(tmp_path / "two", epochs=1, workers=2)


def test_accumulation_stands_for_the_larger_batch() -> None:
    """Without batch norm, two passes of 2 give the gradient of one pass of 4."""
    torch.manual_seed(0)
    network = build_network("multis", {"backbone": "vgg16", "width": 2, "hidden": 4, "dropout": 0.0})
    recipe = MultiScaleRecipe()
    batch = {
        "image": torch.randn(4, 3, 32, 32),
        "mask": (torch.rand(4, 1, 32, 32) > 0.5).float(),
        "scales": torch.ones(4, 3),
    }
    recipe.loss(network, batch)[0].backward()
    whole = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (recipe.loss(network, {k: v[half] for k, v in batch.items()})[0] / 2).backward()
    for name, p in network.named_parameters():
        if name in whole:
            assert p.grad is not None
            assert torch.allclose(p.grad, whole[name], rtol=1e-3, atol=1e-6), name


def test_too_few_images_for_one_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower --accumulate"):
        run(tmp_path, epochs=1, accumulate=30)


def test_the_plateau_schedule_drops_the_rate() -> None:
    network = build_network("multis", NETWORK)
    settings = OptimiserSettings(schedule="plateau", patience=1, rate=0.01)
    optimiser = build_optimiser(network, settings)
    schedule = Schedule(optimiser, settings, steps=10)
    for loss in (1.0, 1.0, 1.0):
        schedule.step_epoch(loss)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.001, 0.001])


def test_the_cosine_schedule_rises_and_falls_to_zero() -> None:
    network = build_network("multis", NETWORK)
    settings = OptimiserSettings(optimiser="adamw", schedule="cosine", rate=1.0, backbone_rate=0.1, warmup=0.2)
    optimiser = build_optimiser(network, settings)
    schedule = Schedule(optimiser, settings, steps=20)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        schedule.step_batch()
    new = [rate for rate, _ in rates]
    assert max(new) == pytest.approx(1.0)
    assert new[0] < 0.3
    assert new[-1] < 0.02
    assert [b / n for n, b in rates] == pytest.approx([0.1] * 20)


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    network = build_network("multis", NETWORK).eval()
    header = CheckpointHeader(
        method="multis", network=NETWORK, preprocessing=Preprocessing(size=SIZE), training={"epochs": 2}
    )
    save_checkpoint(tmp_path / "half.safetensors", network, header, dtype=torch.float16)
    loaded_header, loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded_header == header
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded.state_dict()[name], value.half().float()), name


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"a": 1}'])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        load_checkpoint(path)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"training/train\.py"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_unknown_settings_are_named() -> None:
    with pytest.raises(CheckpointError, match="depth"):
        build_network("multis", {"depth": 3})


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_picture_is_one_sentence(
    tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from salience.training.cli import main

    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for stem in "abc":
            (tmp_path / kind / f"{stem}.png").write_bytes(f"not {stem}".encode())
    command = [
        "train.py",
        "multis",
        "--data",
        str(tmp_path),
        "--backbone",
        "mobilenet_v2",
        "--size",
        "32",
        "32",
        "--batch",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "2", "--workers", workers, "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: image ")
    assert "not a picture" in error


def train(output: Path, *extra: str) -> subprocess.Popen[bytes]:
    repository = Path(__file__).resolve().parents[2]
    command = [
        sys.executable, "training/train.py", "multis", "--synthetic", "24", "--backbone", "mobilenet_v2",
        "--size", "64", "64", "--epochs", "3", "--batch", "8", "--optimiser", "adamw", "--rate", "0.001",
        "--schedule", "cosine", "--average", "0.9", "--network", "width=4", "norm=true", "--accelerator", "cpu",
        "--output", str(output), *extra,
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    cut = train(tmp_path / "cut")
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / STATE_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert len(json.loads((tmp_path / "cut" / "history.json").read_text())) < 3
    resumed, whole = train(tmp_path / "cut", "--resume"), train(tmp_path / "whole")
    for process in (resumed, whole):
        text, _ = process.communicate(timeout=240)
        assert process.returncode == 0, text.decode()
    histories = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("cut", "whole")]
    assert [r["loss"] for r in histories[0]] == [r["loss"] for r in histories[1]]
    first, second = (weights_of(tmp_path / name / LAST_FILE) for name in ("cut", "whole"))
    assert all(torch.equal(first[key], second[key]) for key in first)


SMALL_CPU = ("multis", "--synthetic", "8", "--size", "32", "32", "--accelerator", "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["multis"], "none given"),
        (["nothing", "--synthetic", "8"], "choose one of multis"),
        (["gicd", "--synthetic", "3"], "classes=classifier"),
        (["cgd", "--synthetic", "8", "--recipe", "strategy=none"], "strategy"),
        (["multis", "--synthetic", "8", "--network", "depth=3"], "depth"),
        (["multis", "--synthetic", "8", "--recipe", "alpha=much"], "alpha"),
        (["multis", "--synthetic", "8", "--network", "width"], "expected NAME=VALUE"),
        (["multis", "--synthetic", "8", "--size", "100", "100"], "multiples of 16"),
        (["lps", "--synthetic", "8", "--size", "98", "96"], "multiples of 4"),
        (["lps", "--synthetic", "8", "--network", "stride=much"], "stride"),
        (["arn", "--synthetic", "8", "--network", "width=48"], "width"),
        (["multis", "--synthetic", "8", "--weights", "nowhere.safetensors"], "nowhere"),
        (["multis", "--data", "nowhere"], "no such folder"),
        (["multis", "--synthetic", "8", "--size", "32", "32", "--accelerator", "abacus"], "abacus"),
        (["multis", "--synthetic", "8", "--size", "32", "32", "--precision", "8"], "32-true, bf16-mixed, 16-mixed"),
        ([*SMALL_CPU, "--precision", "16-mixed"], "choose bf16-mixed"),
        (["multis", "--synthetic", "8", "--initial", "nowhere.safetensors"], "nowhere"),
        (["multis", "--synthetic", "8", "--initial", "a", "--weights", "b"], "give one of them"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from salience.training.cli import main

    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
