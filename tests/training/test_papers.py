"""What training/PAPERS.md tells a reader to type exists, fits, and finds its data."""

import functools
import itertools
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from salience.export import cli as export
from salience.export.graphs import GRAPHS
from salience.runtime import cli as runtime
from salience.runtime.commands import parse_pairs, parse_settings
from salience.runtime.evaluation.pairs import find_pairs
from salience.runtime.tables import entry
from salience.training import cli as training
from salience.training.data.folders import split_by_file
from salience.training.networks import NETWORKS
from salience.training.recipe import Recipe
from salience.training.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "training" / "PAPERS.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
LINES = re.findall(r"^    (\S(?:.*\\\n)*.*)$", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), flags=re.MULTILINE)
COMMANDS = [shlex.split(line.replace("\\\n", " ")) for line in LINES]
TOOLS = {"training/train.py": training, "export/build_engine.py": export}
# Folders of the page's data, with pictures and masks as they lie in each.
FOLDERS = {
    "MSRA10K_Imgs_GT": ("Imgs", "Imgs"),
    "DUTS-TR": ("DUTS-TR-Image", "DUTS-TR-Mask"),
    "DUTS_class": ("img", "gt"),
    "DUT-OMRON": ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "ECSSD": ("images", "ground_truth_mask"),
    "HKU-IS": ("imgs", "gt"),
    "PASCAL-S": ("datasets/imgs/pascal", "datasets/masks/pascal"),
    "VOCdevkit/VOC2012": ("JPEGImages", "SegmentationClass"),
}
STEMS = [f"{group}/{index}" for group in ("cow", "horse") for index in range(4)]


def tool_of(command: list[str]) -> Any:
    return runtime if command[0] == "salience" else TOOLS.get(command[1])


def parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command line's function is called with."""
    seen: list[dict[str, Any]] = []
    for registered in tool_of(command).app.registered_commands:
        assert registered.callback

        def record(*, taken: Any = registered.callback, **given: Any) -> None:
            seen.append({"function": taken.__name__} | given)

        monkeypatch.setattr(registered, "callback", functools.wraps(registered.callback)(record))
    monkeypatch.setattr(sys, "argv", command[0 if command[0] == "salience" else 1 :])
    with pytest.raises(SystemExit) as done:
        tool_of(command).main()
    assert done.value.code in (0, None)
    (found,) = seen
    return found


def settings(model: type[BaseModel], given: list[str] | None) -> BaseModel:
    return parse_settings(model, parse_pairs(given, "given"), "given")


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's data, tiny."""
    root = tmp_path_factory.mktemp("data")
    for folder, (images, masks) in FOLDERS.items():
        for index, stem in enumerate(STEMS):
            name = stem if folder == "DUTS_class" else stem.replace("/", "")
            write(root / folder / images / f"{name}.jpg", np.full((8, 8, 3), 20 * index, np.uint8))
            write(root / folder / masks / f"{name}.png", np.eye(8, dtype=np.uint8) * np.uint8(15))
    voc = root / "VOCdevkit" / "VOC2012"
    names = [stem.replace("/", "") for stem in STEMS]
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox>"
    for name in names:
        (voc / "Annotations").mkdir(exist_ok=True)
        content = f"<annotation><object><name>{name[:-1]}</name>{box}</object></annotation>"
        (voc / "Annotations" / f"{name}.xml").write_text(content)
    for part, listed in {"Main/trainval": names, "Segmentation/val": names[::3]}.items():
        path = voc / "ImageSets" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(listed))
    return root


@pytest.fixture
def prepared(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data, where the page's pieces of Python were run."""
    monkeypatch.chdir(data)
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(code.replace("6000", "5").replace("3500", "4"), {})  # noqa: S102
    return data


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] not in ("mkdir", "cp")], ids=" ".join)
def test_a_command_fits(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed(command, monkeypatch)
    if found["function"] == "train":
        settings(entry(RECIPES, found["method"], what="method"), found["recipe_option"])
        settings(entry(NETWORKS, found["method"], what="method").settings_type, found["network_option"])
        assert found["data"]
    elif found["function"] == "build_engine":
        settings(entry(GRAPHS, found["method"], what="method"), found["option"])


def test_each_method_is_trained_exported_and_scored() -> None:
    assert set(SECTIONS) == {"Data", *RECIPES}
    for method in RECIPES:
        text = SECTIONS[method]
        assert f"    python training/train.py {method} " in text
        assert f"    python export/build_engine.py {method} " in text
        assert "    salience evaluate " in text
        assert "not measured" in text


def test_what_is_exported_and_served_was_made_before() -> None:
    made: set[str] = set()
    for words in COMMANDS:
        options = dict(itertools.pairwise(words))
        wanted = {options.get("--checkpoint", ""), options.get("--weights", "")} - {"", "torchvision"}
        assert {str(Path(path).parent) for path in wanted} <= made, words
        assert {path for name, path in options.items() if name in ("--bundle", "--predictions")} <= made, words
        made.add(options.get("--output", ""))
        if words[1] == "export/build_engine.py" and "--output" not in words:
            made.add(f"bundles/{words[2]}")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[1] == "training/train.py"], ids=" ".join)
def test_training_finds_its_data(prepared: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = parsed(command, monkeypatch)
    recipe = settings(entry(RECIPES, found["method"], what="method"), found["recipe_option"])
    assert isinstance(recipe, Recipe)
    samples = [sample for root in found["data"] for sample in recipe.read(Path(root))]
    assert len(samples) == len(STEMS) * len(found["data"])
    if found["splits"]:
        parts = [{sample.name for sample in split_by_file(samples, found["splits"], part)} for part in ("train", "val")]
        assert all(parts)
        assert parts[0].isdisjoint(parts[1])


def test_evaluation_finds_its_pictures(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    for command in COMMANDS:
        if "--images" in command and command[1] == "evaluate":
            found = parsed(command, monkeypatch)
            pairs = find_pairs(found["images"], found["masks"], splits=found["splits"], part=found["part"])
            assert pairs.pairs
            checked += 1
    assert checked >= 8


def test_the_split_of_voc_keeps_its_test_pictures_apart(prepared: Path) -> None:
    split = json.loads(Path("voc.json").read_text())["VOC2012"]
    assert split["val"] == ["cow0", "cow3", "horse2"]
    assert split["train"] == ["cow1", "cow2", "horse0", "horse1", "horse3"]
    pairs = find_pairs(Path("VOC2012-val/images"), Path("VOC2012-val/masks")).pairs
    assert [pair.name for pair in pairs] == split["val"]
    assert np.array_equal(np.asarray(Image.open(pairs[0].mask)) > 128, np.eye(8) > 0)
