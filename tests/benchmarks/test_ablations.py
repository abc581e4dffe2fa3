import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import ablations
from benchmarks.ablation_maps import score_checkpoint
from benchmarks.ablation_plan import CLAIMS, VARIANTS
from benchmarks.ablation_verdict import Outcome, decided, differences
from salience.runtime.commands import parse_pairs, parse_settings
from salience.runtime.tables import entry
from salience.training.networks import NETWORKS
from salience.training.recipes import RECIPES
from tests.conftest import save_scenes, small_checkpoint

SETS = ("ecssd", "horses", "coseg")


def outcome(f: float, mae: float, *, seeds: int = 3, pictures: int = 40, noise: float = 0.02) -> Outcome:
    rng = np.random.default_rng(0)
    curves = f + noise * rng.normal(size=(seeds, pictures, 1)) - np.linspace(0, 0.3, 256)
    errors = mae + noise * rng.normal(size=(seeds, pictures))
    return Outcome(curves.astype(np.float32), errors.astype(np.float32))


@pytest.mark.parametrize(
    ("form", "without", "verdict"),
    [
        ((0.8, 0.10), (0.7, 0.10), "holds"),
        ((0.8, 0.08), (0.8, 0.10), "holds"),
        ((0.7, 0.10), (0.8, 0.10), "does not hold"),
        ((0.8, 0.12), (0.8, 0.10), "does not hold"),
        ((0.8, 0.10), (0.8, 0.10), "not decidable here"),
        ((0.9, 0.12), (0.8, 0.10), "not decidable here"),
    ],
)
def test_a_claim_holds_where_one_score_gains_and_none_loses(
    form: tuple[float, float], without: tuple[float, float], verdict: str
) -> None:
    found = decided(outcome(*form), outcome(*without))
    assert found["verdict"] == verdict
    assert bool(found["reason"]) == (verdict == "not decidable here")


def test_what_differs_less_than_seeds_do_is_not_decided() -> None:
    rng = np.random.default_rng(3)
    seeds = rng.normal(scale=0.05, size=(2, 3, 1, 1))
    curves = [np.broadcast_to(0.8 + part, (3, 40, 256)).astype(np.float32) for part in seeds]
    errors = [np.broadcast_to(0.1 - part[..., 0], (3, 40)).astype(np.float32) for part in seeds]
    first, second = (Outcome(c, e) for c, e in zip(curves, errors, strict=True))
    assert decided(first, second)["verdict"] == "not decidable here"


def test_differences_are_those_of_the_scores_and_lie_in_their_intervals() -> None:
    form, without = outcome(0.81, 0.11), outcome(0.8, 0.12, noise=0.05)
    f, mae = differences(form, without)
    assert f.value == pytest.approx(np.mean(form.f_max()) - np.mean(without.f_max()), abs=1e-6)
    assert mae.value == pytest.approx(np.mean(form.mae()) - np.mean(without.mae()), abs=1e-6)
    for found in (f, mae):
        assert found.low < found.value < found.high


def test_every_variant_is_one_that_can_be_trained_and_every_claim_has_its_two() -> None:
    for variant in VARIANTS:
        recipe = entry(RECIPES, variant.method, what="method")
        parse_settings(recipe, parse_pairs(list(variant.recipe), "recipe"), "recipe")
        network = entry(NETWORKS, variant.method, what="method").settings_type
        parse_settings(network, parse_pairs(list(variant.network), "network"), "network")
    names = {(variant.method, variant.name) for variant in VARIANTS}
    trained = [claim for claim in CLAIMS if claim.study in NETWORKS and claim.study != "cgd"]
    assert {(claim.study, name) for claim in trained for name in (claim.form, claim.without)} == names


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three sets of four scenes, two of them the test part."""
    splits = {}
    for name in SETS:
        save_scenes(tmp_path / "data" / name, 4)
        splits[name] = {"train": ["right/00", "left/01"], "test": ["right/02", "left/03"], "val": []}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(splits))
    return tmp_path / "data"


@pytest.mark.parametrize(("method", "pictures"), [("multis", 6), ("gicd", 2)])
def test_a_network_is_scored_on_the_test_parts(tmp_path: Path, data: Path, method: str, pictures: int) -> None:
    import torch

    threads = torch.get_num_threads()
    found = score_checkpoint(small_checkpoint(tmp_path, method), method, data, threads=threads)
    assert found.curves.shape == (1, pictures, 256)
    assert found.errors.shape == (1, pictures)
    assert 0 < found.mae()[0] < 1


def arguments(tmp_path: Path, *more: str) -> list[str]:
    fixed = ["--data", str(tmp_path / "data"), "--weights", "w.safetensors", "--output", str(tmp_path / "runs")]
    return [*fixed, "--methods", "multis", "--seeds", "4", "5", *more]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Training and scoring replaced by what they leave; the commands that were run."""
    commands: list[list[str]] = []

    def train(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        folder = Path(command[command.index("--output") + 1])
        record = [{"epoch": 0, "loss": 1.0, "scores": {"f_max": 0.5, "mae": 0.2}, "rate": 0.1, "seconds": 2.0}]
        (folder / "history.json").write_text(json.dumps(record))
        return SimpleNamespace(returncode=0)

    def score(path: Path, *_: Any, **__: Any) -> Outcome:
        return outcome(0.8 if "whole" in str(path) else 0.7, 0.1, seeds=1)

    monkeypatch.setattr(ablations, "subprocess", SimpleNamespace(run=train))
    monkeypatch.setattr(ablations, "score_checkpoint", score)
    return commands


def test_what_is_done_is_not_done_again(tmp_path: Path, trained: list[list[str]]) -> None:
    ablations.main(arguments(tmp_path, "--json", str(tmp_path / "found.json")))
    assert len(trained) == 2 * 3
    assert all("--resume" in command for command in trained)
    assert len({command[command.index("--output") + 1] for command in trained}) == 6
    (tmp_path / "runs/multis/mean-fusion/seed5/scores.npz").unlink()
    ablations.main(arguments(tmp_path, "--json", str(tmp_path / "found.json")))
    assert len(trained) == 7
    assert "fusion=mean" in trained[-1]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [claim["verdict"] for claim in found["claims"]] == ["holds", "holds"]
    assert found["claims"][0]["rows"][0]["seeds"] == [4, 5]
    assert len(found["claims"][0]["rows"][0]["scores"]["f_max"]) == 2
    assert {run["seconds"] for run in found["runs"]} == {2.0}


def test_a_training_that_fails_is_named_and_the_others_are_kept(
    tmp_path: Path, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = vars(ablations)["subprocess"].run

    def fails(command: list[str], **options: Any) -> Any:
        return SimpleNamespace(returncode=3) if "fusion=mean" in command else works(command, **options)

    monkeypatch.setattr(ablations, "subprocess", SimpleNamespace(run=fails))
    with pytest.raises(SystemExit, match=r"mean-fusion/seed4: training ended with exit code 3.*log\.txt"):
        ablations.main(arguments(tmp_path))
    assert len(list((tmp_path / "runs").rglob("scores.npz"))) == 4
