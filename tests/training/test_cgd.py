"""The classifier of `cgd` and how it is fine-tuned: its input, its last layer, table 1, and what travels on."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError
from salience.training.backbone import load_weights
from salience.training.checkpoint import CheckpointHeader, build_network, load_checkpoint, save_checkpoint
from salience.training.data.scenes import KINDS, scenes_of_kinds
from salience.training.fit import fit
from salience.training.networks.cgd import Classifier, ClassifierSettings, imagenet_names
from salience.training.optim import build_optimiser
from salience.training.preprocessing import Preprocessing
from salience.training.recipes.cgd import ClassifierRecipe, ClassScorer, Strategy
from salience.training.run_state import LAST_FILE, FitSettings

SIZE = (64, 64)
SEVEN = tuple("abcdefg")
LAST_LAYERS = {
    "vgg16": "classifier.6",
    "mobilenet_v2": "classifier.1",
    "squeezenet1_0": "classifier.1",
    "timm:tf_efficientnet_lite0": "classifier",
    "timm:resnet18": "fc",
}


def classifier(**settings: Any) -> Classifier:
    torch.manual_seed(0)
    network = build_network("cgd", settings).eval()
    assert isinstance(network, Classifier)
    return network


@torch.no_grad()
def test_it_takes_grey_levels_and_normalises_them_itself() -> None:
    network = classifier(backbone="squeezenet1_0")
    levels = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(1)).float()
    normalised = torchvision.transforms.functional.normalize(levels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    plain = torchvision.models.squeezenet1_0(weights=None).eval()
    plain.load_state_dict(network.backbone.state_dict())
    expected = plain(normalised)
    assert float(expected.std()) > 1e-3
    # The same sums; division and subtraction may be in another order.
    torch.testing.assert_close(network(levels).logits, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_preprocessing_does_nothing_but_the_resize() -> None:
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    found = Preprocessing(size=SIZE, **Classifier.input_scale)(image)
    # (x / 255) / (1 / 255) in fp32.
    torch.testing.assert_close(found, image.float(), rtol=1e-6, atol=1e-5)


def test_its_normalisation_is_a_setting_and_no_weight() -> None:
    network = classifier(backbone="squeezenet1_0", mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    levels = torch.full((1, 3, 2, 2), 255.0)
    assert network.normalise(levels)[0, :, 0, 0].tolist() == [2.0, 1.0, 0.5]
    assert all(name.startswith("backbone.") for name in network.state_dict())
    # In half precision it stays exact.
    assert network.half().normalise(levels).dtype == torch.float32


def test_the_normalisation_is_that_of_timms_weights() -> None:
    with torch.device("meta"):
        network = classifier(backbone="timm:tf_efficientnet_lite0")
    assert (network.settings.mean, network.settings.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    levels = torch.tensor([0.0, 127.5, 255.0]).expand(1, 3, 1, 3)
    assert network.normalise(levels)[0, 0, 0].tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("backbone", LAST_LAYERS)
def test_another_number_of_classes_renews_the_last_layer(backbone: str) -> None:
    with torch.device("meta"):
        whole, other = (classifier(backbone=backbone, **changes) for changes in ({}, {"classes": SEVEN}))
    assert whole.fresh == ()
    assert other.fresh == (f"backbone.{LAST_LAYERS[backbone]}.",)
    shapes = {name: tuple(value.shape) for name, value in whole.state_dict().items()}
    changed = {name: tuple(v.shape) for name, v in other.state_dict().items() if tuple(v.shape) != shapes[name]}
    assert shapes.keys() == other.state_dict().keys()
    assert changed.keys() == {f"{other.fresh[0]}weight", f"{other.fresh[0]}bias"}
    assert {shape[0] for shape in changed.values()} == {7}
    assert other(torch.zeros(2, 3, *SIZE, device="meta")).logits.shape == (2, 7)


@pytest.mark.parametrize("classes", [tuple(f"thing {index}" for index in range(1000)), imagenet_names()[::-1]])
def test_a_thousand_other_classes_renew_the_last_layer(classes: tuple[str, ...]) -> None:
    with torch.device("meta"):
        network = classifier(backbone="mobilenet_v2", classes=classes)
    assert network.fresh == ("backbone.classifier.1.",)


def test_a_new_layer_tells_its_classes_apart() -> None:
    network = classifier(backbone="squeezenet1_0", classes=SEVEN)
    logits = network(torch.rand(1, 3, *SIZE) * 255).logits
    assert logits.shape == (1, 7)
    assert float(logits.detach().std()) > 0


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "squeezenet1_0"])
def test_weights_load_without_the_last_layer(tmp_path: Path, backbone: Any) -> None:
    torch.manual_seed(1)
    source = getattr(torchvision.models, backbone)(weights=None).state_dict()
    save_file(source, tmp_path / "w.safetensors")
    network = classifier(backbone=backbone, classes=SEVEN)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    last = f"{LAST_LAYERS[backbone]}."
    with pytest.raises(CheckpointError, match=rf"{last}bias has shape \(1000,\), {backbone} needs \(7,\)"):
        load_weights(network.backbone, tmp_path / "w.safetensors", architecture=backbone)
    skip = tuple(name.removeprefix("backbone.") for name in network.fresh)
    load_weights(network.backbone, tmp_path / "w.safetensors", architecture=backbone, skip=skip)
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith(last) else source[name]), name


@pytest.mark.parametrize(("strategy", "factor"), [("all", 1.0), ("last-faster", 0.1), ("last", 0.0)])
def test_the_strategies_of_table_1(strategy: Strategy, factor: float) -> None:
    network = classifier(backbone="mobilenet_v2", classes=SEVEN)
    settings = ClassifierRecipe(strategy=strategy).defaults()
    last, rest = build_optimiser(network, settings).param_groups
    assert {id(p) for p in last["params"]} == {id(p) for p in network.backbone.classifier[1].parameters()}  # type: ignore[union-attr,index]
    assert len(rest["params"]) == len(list(network.parameters())) - 2
    assert rest["lr"] == pytest.approx(factor * last["lr"])
    assert all(p.requires_grad == (factor > 0) for p in rest["params"])
    assert all(p.requires_grad for p in last["params"])


@pytest.mark.parametrize("strategy", ["all", "last-faster", "last"])
def test_what_a_step_changes(tmp_path: Path, strategy: Strategy) -> None:
    network = classifier(backbone="mobilenet_v2", classes=tuple(sorted(KINDS)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recipe = ClassifierRecipe(strategy=strategy)
    optimiser = recipe.defaults().model_copy(update={"epochs": 1, "batch": 4, "rate": 0.1, "schedule": "constant"})
    header = CheckpointHeader(
        method="cgd",
        network=network.settings.model_dump(),
        preprocessing=Preprocessing(size=SIZE, **Classifier.input_scale),
    )
    fit(
        network, recipe, header, train=scenes_of_kinds(4, seed=0), validate=scenes_of_kinds(2, seed=1),
        settings=FitSettings(tmp_path, optimiser), fabric=Fabric(accelerator="cpu", devices=1),
    )  # fmt: skip
    after = load_file(tmp_path / LAST_FILE)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    fresh = {name for name in after if name.startswith(network.fresh)}
    assert fresh <= changed
    statistics = {name for name in after if "running_" in name}
    assert statistics
    if strategy == "last":
        assert changed == fresh, "the rest is frozen, the statistics of its batch norm too"
    else:
        assert statistics <= changed
        assert {name for name in after if name.endswith("weight")} <= changed


def test_names_travel_in_the_checkpoint(tmp_path: Path) -> None:
    network = classifier(backbone="squeezenet1_0", classes=("Ä", "b, c", "7"), std=(1.0, 1.0, 1.0))
    header = CheckpointHeader(
        method="cgd", network=network.settings.model_dump(), preprocessing=Preprocessing(size=SIZE)
    )
    save_checkpoint(tmp_path / "c.safetensors", network, header)
    _, loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert isinstance(loaded, Classifier)
    assert loaded.settings == network.settings
    image = torch.rand(1, 3, *SIZE) * 255
    with torch.no_grad():
        torch.testing.assert_close(loaded(image).logits, network(image).logits, rtol=0, atol=0)


def test_imagenets_names_are_torchvisions() -> None:
    names = ClassifierSettings().classes
    assert names == imagenet_names()
    assert len(names) == 1000
    assert (names[0], names[999]) == ("tench", "toilet tissue")


def test_one_class_is_none() -> None:
    with pytest.raises(CheckpointError, match=r"network settings of cgd: classes: .*at least 2"):
        build_network("cgd", {"classes": ("cat",)})


def test_a_module_of_ones_own() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network = Classifier(ClassifierSettings(classes=("dark", "bright"), mean=(0, 0, 0), std=(1, 1, 1)), module)
    assert network.backbone is module
    assert network.fresh == ()
    image = torch.rand(4, 3, 5, 6) * 255
    torch.testing.assert_close(network(image).logits, module(image / 255))


def test_scores_against_a_count_by_hand() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(23, 9)), generator.integers(0, 9, 23)
    logits[np.arange(23), labels] += 0.7
    ranks = [(row > row[label]).sum() for row, label in zip(logits, labels, strict=True)]
    scorer = ClassScorer()
    for part in (slice(0, 10), slice(10, 11), slice(11, 23)):
        scorer.add(torch.from_numpy(logits[part]), {"label": torch.from_numpy(labels[part])})
    expected = {"top1": sum(r < 1 for r in ranks) / 23, "top5": sum(r < 5 for r in ranks) / 23}
    assert scorer.scores() == expected
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert list(scorer.scores()) == ["top1", "top5"], "the first decides which epoch is best"


def test_scores_of_few_classes_and_of_none() -> None:
    assert ClassScorer().scores() == {"top1": 0.0, "top5": 0.0}
    scorer = ClassScorer()
    scorer.add(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), {"label": torch.tensor([0, 0])})
    assert scorer.scores() == {"top1": 0.5, "top5": 1.0}


def test_the_loss_is_cross_entropy_of_the_logits() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])

    class Fixed(nn.Module):
        def forward(self, image: Tensor) -> Any:
            from salience.training.networks.cgd import ClassifierOutput

            return ClassifierOutput(logits)

    batch: Mapping[str, Tensor] = {"image": torch.zeros(2, 3, 4, 4), "label": torch.tensor([0, 1])}
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    loss, prediction = ClassifierRecipe().loss(Fixed(), batch)
    assert float(loss) == pytest.approx(-np.log(p[[0, 1], [0, 1]]).mean(), rel=1e-5)
    assert torch.equal(prediction, logits)
    smooth: NDArray[Any] = np.full((2, 3), 0.3 / 3)
    smooth[[0, 1], [0, 1]] += 0.7
    loss, _ = ClassifierRecipe(smoothing=0.3).loss(Fixed(), batch)
    assert float(loss) == pytest.approx(-(smooth * np.log(p)).sum(axis=1).mean(), rel=1e-5)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    from salience.training.cli import main

    monkeypatch.setattr(sys, "argv", ["train.py", "cgd", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code in (0, None)


def test_training_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    save_file(torchvision.models.squeezenet1_0(weights=None).state_dict(), tmp_path / "squeezenet.safetensors")
    run_cli(
        monkeypatch, "--synthetic", "16", "--backbone", "squeezenet1_0", "--weights",
        str(tmp_path / "squeezenet.safetensors"), "--size", "64", "64", "--epochs", "1", "--batch", "4",
        "--recipe", "strategy=last", "--accelerator", "cpu", "--output", str(tmp_path / "run"),
    )  # fmt: skip
    assert "validation top1 " in capsys.readouterr().out
    header, network = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert isinstance(network, Classifier)
    assert network.settings.classes == tuple(sorted(KINDS))
    assert header.network["backbone"] == "squeezenet1_0"
    assert header.preprocessing == Preprocessing(size=SIZE, **Classifier.input_scale)
    assert header.training["backbone_weights"] == "squeezenet.safetensors"
    assert header.training["recipe"]["strategy"] == "last"
    (epoch,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert set(epoch["scores"]) == {"top1", "top5"}
    source = load_file(tmp_path / "squeezenet.safetensors")
    state = network.backbone.state_dict()
    assert torch.equal(state["features.3.squeeze.weight"], source["features.3.squeeze.weight"])
    assert state["classifier.1.weight"].shape[0] == len(KINDS)
