"""What a run may do beside training: stop early, log, start from a checkpoint, repeat itself."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from salience.runtime.errors import BackendUnavailableError, CheckpointError, SalienceError
from salience.training.checkpoint import build_network, file_sha256, initial_network, load_checkpoint
from salience.training.options import NetworkOptions
from salience.training.preparation import make_network
from salience.training.run_state import (
    BEST_FILE,
    HISTORY_FILE,
    LAST_FILE,
    STATE_FILE,
    EpochRecord,
    hours,
    images_per_second,
)
from salience.training.trainer import Trained, Trainer
from tests.conftest import SIZE, SMALL_SETTINGS
from tests.small_runs import NETWORK, run, weights_of

SCORES = (0.5, 0.7, 0.6, 0.7, 0.8)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs that take no time and score SCORES; which of them were trained."""
    trained: list[int] = []

    def train(trainer: Trainer, data: Any, progress: Any) -> Trained:
        trained.append(data.epoch)
        return Trained(1.0, 20.0, {})

    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(Trainer, "validate", lambda trainer, data: {"f_max": SCORES[len(trainer.run.history)]})
    return trained


def history_of(folder: Path) -> list[EpochRecord]:
    return [EpochRecord.model_validate(record) for record in json.loads((folder / HISTORY_FILE).read_text())]


def test_a_run_stops_when_the_score_rises_no_more_and_says_so(tmp_path: Path, scripted: list[int]) -> None:
    run(tmp_path, epochs=5, stop_after=2)
    assert [record.stopped for record in history_of(tmp_path)] == [False, False, False, True]


def test_a_run_that_has_stopped_is_not_resumed_but_with_more_patience(tmp_path: Path, scripted: list[int]) -> None:
    first = run(tmp_path, epochs=5, stop_after=2)
    assert run(tmp_path, epochs=5, stop_after=2, resume=True) == first
    assert scripted == [0, 1, 2, 3]
    run(tmp_path, epochs=5, stop_after=3, resume=True)
    assert scripted == [0, 1, 2, 3, 4]
    assert not any(record.stopped for record in history_of(tmp_path))


def test_the_last_epoch_of_a_whole_run_does_not_count_as_stopped(tmp_path: Path, scripted: list[int]) -> None:
    run(tmp_path, epochs=4, stop_after=2)
    assert not history_of(tmp_path)[-1].stopped


def test_a_run_that_is_cut_and_resumed_stops_where_it_would_have_and_logs_every_epoch_once(
    tmp_path: Path, scripted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from salience.training import fit as module

    original = module._write_epoch

    def stop_in_second_epoch(run: Any, *others: Any) -> None:
        if len(run.history) == 2:
            raise KeyboardInterrupt
        original(run, *others)

    monkeypatch.setattr(module, "_write_epoch", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, epochs=5, stop_after=2, tensorboard=True)
    monkeypatch.setattr(module, "_write_epoch", original)
    run(tmp_path, epochs=5, stop_after=2, tensorboard=True, resume=True)
    assert [record.stopped for record in history_of(tmp_path)] == [False, False, False, True]
    log = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(log.Tags()["scalars"]) == {"loss", "rate", "images_per_second", "validation/f_max"}
    found = [(event.step, event.value) for event in log.Scalars("validation/f_max")]
    assert found == [(epoch + 1, pytest.approx(SCORES[epoch])) for epoch in range(4)]


def test_without_tensorboard_the_error_says_how_to_get_it(
    tmp_path: Path, scripted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"salience\[training\]"):
        run(tmp_path, epochs=1, tensorboard=True)


def test_a_state_without_newer_settings_counts_as_having_their_defaults(tmp_path: Path, scripted: list[int]) -> None:
    run(tmp_path, epochs=3)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    del state["fingerprint"]["optimiser"]["freeze_norm"]
    torch.save(state, tmp_path / STATE_FILE)
    assert run(tmp_path, epochs=3, resume=True) == [1.0] * 3
    with pytest.raises(CheckpointError, match=r"optimiser\.rate was 0\.002, is 0\.1"):
        run(tmp_path, epochs=3, rate=0.1, resume=True)
    with pytest.raises(CheckpointError, match=r"optimiser\.freeze_norm was False, is True"):
        run(tmp_path, epochs=3, optimiser={"freeze_norm": True}, resume=True)


def test_hours_and_images_per_second_are_of_the_whole_run() -> None:
    """An older record has no images per second."""
    old = EpochRecord(epoch=0, loss=1, scores={"f_max": 0.5}, rate=0.1, seconds=1800)
    new = [old.model_copy(update={"images_per_second": rate}) for rate in (10.0, 30.0)]
    assert hours([old, *new]) == 1.5
    assert images_per_second([old, *new]) == pytest.approx(15)  # two epochs of N images in N / 10 + N / 30 s
    assert images_per_second([old]) == 0


def test_frozen_batch_norm_is_the_backbones_alone(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, images=8, accumulate=1, optimiser={"freeze_norm": True})
    torch.manual_seed(0)
    network = build_network("multis", NETWORK)
    trained = weights_of(tmp_path / LAST_FILE)
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    first = {name: value for name, value in network.state_dict().items() if name in trained}
    kept = {name for name in first if torch.equal(first[name], trained[name])}
    frozen = {name for name in first if name.rpartition(".")[0] in norms}
    assert {name for name in frozen if name.startswith("backbone.")} <= kept
    assert {name for name in frozen if not name.startswith("backbone.")}.isdisjoint(kept)
    assert len(kept) < len(first) - 10


def test_limited_epochs_run_through_the_whole_schedule(tmp_path: Path) -> None:
    """The cosine ends at the last step that is taken, not at that of whole epochs."""
    run(tmp_path, epochs=2, accumulate=1, limit_steps=2, optimiser={"warmup": 0.0})
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["schedule"]["last_epoch"] == 4
    assert state["schedule"]["_last_lr"] == [0.0, 0.0]


@pytest.mark.parametrize("method", SMALL_SETTINGS)
def test_a_run_can_start_from_a_checkpoint(checkpoints: dict[str, Path], method: str) -> None:
    header, network = initial_network(checkpoints[method], method=method, changes={})
    _, source = load_checkpoint(checkpoints[method])
    assert header.preprocessing.size == SIZE
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_classifier_for_other_classes_gets_a_new_last_layer(checkpoints: dict[str, Path]) -> None:
    _, network = initial_network(checkpoints["cgd"], method="cgd", changes={"classes": ("cat", "fox")})
    _, source = load_checkpoint(checkpoints["cgd"])
    found, given = network.state_dict(), source.state_dict()
    different = {name for name in found if found[name].shape != given[name].shape or (found[name] != given[name]).any()}
    assert different == {"backbone.classifier.1.weight", "backbone.classifier.1.bias"}


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("arn", {}, "a checkpoint of multis, expected one of arn"),
        ("multis", {"width": "8"}, r"tensors do not fit .*heads\.0.*leave --backbone and --network"),
        ("multis", {"norm": "false"}, "tensors do not fit"),
        ("multis", {"depth": "3"}, "depth"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_sentence(
    checkpoint: Path, method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as found:
        initial_network(checkpoint, method=method, changes=changes)
    assert "\n" not in str(found.value)


@pytest.fixture
def indeterminate_again() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_the_same_command_gives_the_same_bytes(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    indeterminate_again: None,
) -> None:
    """From a checkpoint, whose network and size are the defaults."""
    from salience.training.cli import main

    for name in ("first", "second"):
        command = [
            "train.py", "multis", "--synthetic", "4", "--batch", "2", "--epochs", "1", "--accelerator", "cpu",
            "--initial", str(checkpoint), "--rate", "0.001", "--deterministic", "--output", str(tmp_path / name),
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    for file in (BEST_FILE, LAST_FILE):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    header, _ = load_checkpoint(tmp_path / "first" / BEST_FILE)
    assert header.preprocessing.size == SIZE
    assert header.network["width"] == SMALL_SETTINGS["multis"]["width"]
    assert header.training["initial"] == {"file": checkpoint.name, "sha256": file_sha256(checkpoint)}
    assert header.training["devices"] == 1
    assert "images/s, devices: 1" in capsys.readouterr().out


def test_a_checkpoint_says_what_it_cost(tmp_path: Path, scripted: list[int]) -> None:
    run(tmp_path, epochs=2)
    header, _ = load_checkpoint(tmp_path / LAST_FILE)
    assert header.training["images_per_second"] == pytest.approx(20)
    assert header.training["hours"] == pytest.approx(hours(history_of(tmp_path)))


def test_synchronised_batch_norm_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(SalienceError, match="--sync-norm: works on GPUs alone"):
        run(tmp_path, epochs=1, sync_norm=True)


@pytest.mark.parametrize(("convention", "order"), [("caffe", "bgr"), ("matconvnet", "rgb")])
def test_weights_of_other_frameworks_bring_their_input(convention: Any, order: str) -> None:
    """Into the preprocessing; into the settings of a network that normalises its input itself."""
    mean, std = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3
    options = NetworkOptions(backbone="mobilenet_v2", convention=convention, size=(64, 64))
    _, preprocessing = make_network("multis", {}, options)
    assert (preprocessing.order, preprocessing.mean, preprocessing.std) == (order, mean, std)
    network, preprocessing = make_network("cgd", {}, options)
    assert (network.settings.order, network.settings.mean, network.settings.std) == (order, mean, std)
    assert (preprocessing.order, preprocessing.std) == ("rgb", (1 / 255,) * 3)
    image = 255 * torch.rand(1, 3, 4, 4)
    expected = image - torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    expected = expected.flip(1) if order == "bgr" else expected
    assert torch.allclose(network.normalise(image), expected, atol=1e-3)
