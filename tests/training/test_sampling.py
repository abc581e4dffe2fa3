import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from salience.runtime.errors import DataError
from salience.training.checkpoint import load_checkpoint
from salience.training.cli import main
from salience.training.data.memory import keep_in_memory
from salience.training.data.sampling import DrawOrder, ShareSampler
from salience.training.data.scenes import scenes

SOURCES = ["large"] * 90 + ["small"] * 10


def test_without_weights_every_sample_is_drawn_once() -> None:
    order = DrawOrder(SOURCES, seed=3)
    assert sorted(order.indices(0)) == list(range(100))
    assert order.indices(0) != order.indices(1)
    assert order.drawn(order.indices(0)) == {"large": 90, "small": 10}


def test_sources_are_drawn_by_weight_and_not_by_count() -> None:
    order = DrawOrder(SOURCES, {"large": 1.0, "small": 3.0})
    assert order.drawn(order.indices(0)) == {"large": 25, "small": 75}
    assert order.indices(5) == order.indices(5)
    assert order.indices(5) != order.indices(6)


def test_all_samples_of_a_source_are_drawn_equally_often() -> None:
    order = DrawOrder(SOURCES, {"large": 1.0, "small": 3.0})
    counts = Counter(index for epoch in range(18) for index in order.indices(epoch))
    assert {counts[index] for index in range(90)} == {5}
    assert {counts[index] for index in range(90, 100)} == {135}


def test_uneven_weights_fill_the_epoch() -> None:
    order = DrawOrder(SOURCES, {"large": 1.0, "small": 2.0})
    assert sorted(order.drawn(order.indices(0)).values()) == [33, 67]


@pytest.mark.parametrize("weights", [{"large": 1.0}, {"large": 1.0, "small": 1.0, "third": 1.0}])
def test_a_weight_for_some_sources_alone_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(DataError, match="give every source a weight"):
        DrawOrder(SOURCES, weights)


def test_processes_share_the_draws_in_turn() -> None:
    indices = [5, 3, 8, 1, 9]
    assert [list(ShareSampler(indices, rank=rank, processes=2)) for rank in (0, 1)] == [[5, 8], [3, 1]]


def test_samples_in_memory_are_the_same_but_smaller() -> None:
    plain = scenes(3)
    kept = keep_in_memory(plain, 1000)
    for before, after in zip(plain, kept, strict=True):
        assert after.name == before.name
        for expected, found in zip(before.load(), after.load(), strict=True):
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected)
    image, mask = keep_in_memory(plain, 80)[0].load()
    assert image.shape == (60, 80, 3)
    assert mask.mean() == pytest.approx(plain[0].load()[1].mean(), abs=0.02)


def write_sets(folder: Path) -> None:
    for name, count in (("many", 8), ("few", 4)):
        for index, scene in enumerate(scenes(count, seed=count)):
            image, mask = scene.load()
            for kind, values in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
                path = folder / name / kind / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)


def test_a_run_says_how_often_each_set_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sets(tmp_path)
    arguments = [
        "multis", "--data", f"{tmp_path}/many=1", f"{tmp_path}/few=1", "--val-fraction", "0.25", "--backbone",
        "mobilenet_v2", "--size", "64", "64", "--batch", "1", "--epochs", "2", "--network", "width=4", "--keep", "64",
        "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code in (0, None)
    header, _ = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert header.training["draws"] == {"few": 8, "many": 10}
    assert [record["draws"] for record in json.loads((tmp_path / "run" / "history.json").read_text())] == [
        {"few": 4, "many": 5}
    ] * 2
    assert "draws: few 8, many 10" in capsys.readouterr().out


def test_a_weight_that_is_not_positive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "multis", "--data", f"{tmp_path}=0", "--output", f"{tmp_path}/run"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 1
    assert "expected a positive number" in capsys.readouterr().err
