"""`gicd` in PyTorch: the closed form against autograd and the released order, groups, and what training changes."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn

from salience.export.reverse_mode import capture, value_and_gradient
from salience.runtime.errors import CheckpointError
from salience.training.checkpoint import CheckpointHeader, build_network, load_checkpoint, save_checkpoint
from salience.training.data.scenes import scenes, scenes_of_kinds
from salience.training.fit import fit
from salience.training.networks.gicd import (
    Embedding,
    GradientInduced,
    GradientInducedSettings,
    RetainingBlock,
    channel_weights,
    consensus,
    resize,
    sharpen,
)
from salience.training.preprocessing import Preprocessing
from salience.training.recipes.gicd import DistractorScorer, GradientInducedRecipe
from salience.training.run_state import LAST_FILE, FitSettings
from tests.released_gicd import released_maps, released_weights, small_vgg

SIZE = (64, 96)
# Of maps in [0, 1]: convolutions of another batch are fp32 sums of another order; measured 2e-5.
SAME = 5e-5


@cache
def mobile(**settings: Any) -> GradientInduced:
    """A small network whose batch norm has seen a few pictures, and whose classifier has a view."""
    torch.manual_seed(1)
    network = build_network("gicd", {"backbone": "mobilenet_v2", "width": 8, "norm": True, **settings})
    assert isinstance(network, GradientInduced)
    nn.init.normal_(_last(network).weight, std=0.2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    nn.Module.train(network)  # all of it, the backbone too
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(6, 3, *SIZE))
    return network.eval()


def _last(network: GradientInduced) -> Any:
    classifier: Any = network.backbone.classifier
    return classifier[-1]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Five pictures of noise, each with a block that stands out."""
    values = torch.randn(5, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for index in range(5):
        values[index, index % 3, 8 * index : 8 * index + 30, 10 * index : 10 * index + 40] += 3
    return values


def blobs(count: int) -> Tensor:
    """Masks (count, 1, H, W) of one object each."""
    masks = torch.zeros(count, 1, *SIZE)
    for index in range(count):
        masks[index, :, 10 + index : 40, 20 : 60 + index] = 1
    return masks


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max())


@torch.no_grad()
@pytest.mark.parametrize(
    ("backbone", "sides"), [("vgg16", (64, 32, 16, 8)), ("mobilenet_v2", (32, 16, 8, 4))], ids=lambda v: str(v)
)
def test_four_maps_of_the_backbones_sizes_and_one_of_the_inputs(backbone: str, sides: tuple[int, ...]) -> None:
    network = small_vgg() if backbone == "vgg16" else mobile()
    output = network(torch.randn(2, 3, 64, 64))
    assert [tuple(saliency.shape) for saliency in output.maps] == [(2, 1, side, side) for side in sides]
    assert output.saliency.shape == (2, 1, 64, 64)
    assert all(0 <= float(saliency.min()) < float(saliency.max()) <= 1 for saliency in output.maps)


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2"])
def test_the_backbones_parameters_are_named_as_in_torchvision(backbone: str) -> None:
    network = small_vgg() if backbone == "vgg16" else mobile()
    with torch.device("meta"):
        wanted = set(getattr(torchvision.models, backbone)(weights=None).state_dict())
    assert set(network.backbone.state_dict()) == wanted


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        # Behind F5 512 x 64 + 64 x 64 and biases; five convolutions of 64 x 64 x 9 with biases a level, and before
        # them one of the level's channels; the last map's 64 weights and bias.
        ({}, 36_992 + 5 * 4 * 36_928 + 9 * 64 * (512 + 256 + 128 + 64) + 4 * 64 + 4 * 65),
        ({"backbone": "mobilenet_v2"}, 86_144 + 5 * 4 * 36_928 + 9 * 64 * (96 + 32 + 24 + 16) + 4 * 64 + 4 * 65),
    ],
)
def test_the_decoders_number_of_parameters_is_exact(settings: dict[str, Any], count: int) -> None:
    if settings:
        network: Any = build_network("gicd", settings)
    else:
        network = small_vgg(width=64)
    decoder = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    assert sum(p.numel() for p in decoder) == count


@pytest.mark.parametrize("settings", [{"induction": "mean"}, {"pooling": "none"}, {"width": 0}, {"dropout": 1}])
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(settings))):
        build_network("gicd", {"backbone": "mobilenet_v2", **settings})


def tops(size: tuple[int, int], channels: int, count: int = 3) -> Tensor:
    """F5 (count, channels, h, w) float64."""
    generator = torch.Generator().manual_seed(4)
    loudness = torch.rand(count, channels, 1, 1, dtype=torch.float64, generator=generator)
    return 3 * loudness * torch.randn(count, channels, *size, dtype=torch.float64, generator=generator).relu()


def similarity(network: GradientInduced, top: Tensor, share: Tensor) -> Tensor:
    """c = e . e_n of each picture, in plain PyTorch: (N, C, h, w), (N, K) -> (N,)."""
    head: Any = network.backbone.classifier
    small = network.settings.backbone == "mobilenet_v2"
    logits: Tensor = head(top.mean(dim=(2, 3)) if small else F.adaptive_avg_pool2d(top, 7).flatten(1))
    return (logits * share).sum(dim=1)


def averaged(gradient: Tensor, induction: str) -> Tensor:
    """Gradients (N, C, h, w) to weights (N, C)."""
    if induction == "paper":
        return gradient.relu().mean(dim=(2, 3))
    weights = gradient.mean(dim=(2, 3)).relu()
    least, largest = weights.amin(dim=1, keepdim=True), weights.amax(dim=1, keepdim=True)
    return (weights - least) / (largest - least)


def closed_form(network: GradientInduced, top: Tensor, share: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The network's own weights (N, C), from F5 itself in place of a picture."""
    monkeypatch.setattr(network.backbone, "forward", lambda top: [top])
    gates = network.embed(top).gates
    guide, matrices = network.guide(share), network.matrices()
    return channel_weights(guide, gates, matrices, top.shape[2:], network.settings.induction)[:, :, 0, 0]


@pytest.mark.parametrize("induction", ["paper", "released"])
@pytest.mark.parametrize(
    ("backbone", "size"),
    # 7 divides the sides, or it does not.
    [("vgg16", (14, 14)), ("vgg16", (7, 28)), ("vgg16", (4, 6)), ("vgg16", (8, 2)), ("mobilenet_v2", (2, 3))],
    ids=str,
)
def test_the_closed_form_is_autograds_gradient(
    backbone: str, size: tuple[int, int], induction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the weights are double, not after: those of `mobile` are shared.
    network = small_vgg(induction=induction) if backbone == "vgg16" else mobile.__wrapped__(induction=induction)
    network.double()
    top = tops(size, network.backbone.levels[-1].channels)
    share = torch.randn(3, _last(network).out_features, dtype=torch.float64).softmax(dim=1)
    asked = top.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(network, asked, share).sum(), asked)
    expected = averaged(gradient, induction)
    found = closed_form(network, top, share, monkeypatch)
    # fp64 has 16 digits; sums of 25,000 products lose three.
    assert distance(found, expected) < 1e-12 * float(expected.max())
    assert bool((expected.std(dim=1) > 0.05 * expected.mean(dim=1)).all())
    if backbone == "vgg16":
        assert not torch.allclose(expected[0], expected[1]), "gates that ignore the picture would agree"


def test_averaging_in_other_sizes_is_exact_up_to_its_own_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    network, top = small_vgg(induction="paper").double(), tops((5, 20), 512)
    share = torch.randn(3, 20, dtype=torch.float64).softmax(dim=1)
    asked = top.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(similarity(network, asked, share).sum(), asked)
    expected = averaged(gradient, "paper")
    # A third, in windows of three, is stored as fp32.
    assert distance(closed_form(network, top, share, monkeypatch), expected) < 1e-7 * float(expected.max())


@pytest.mark.parametrize("induction", ["paper", "released"])
def test_the_closed_form_is_reverse_modes_gradient(induction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second opinion, from the graph of `aten` operators that export makes of any gradient."""

    class Similarity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = network.backbone.classifier

        def forward(self, top: Tensor, share: Tensor) -> Tensor:
            return similarity(network, top, share)

    network = small_vgg(induction=induction).double()
    top, share = tops((14, 14), 512), torch.randn(3, 20, dtype=torch.float64).softmax(dim=1)
    graph = capture(value_and_gradient(Similarity().eval()), (top, share))
    value, gradient = graph(top, share)
    expected = averaged(gradient, induction)
    assert distance(value, similarity(network, top, share)) < 1e-12 * float(value.abs().max())
    # As above.
    assert distance(closed_form(network, top, share, monkeypatch), expected) < 1e-12 * float(expected.max())


def test_maps_are_those_of_the_released_order() -> None:
    network = small_vgg(induction="released")
    pictures = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    pictures[:, :, 60:150, 80:160] += 2
    with torch.no_grad():
        output = network(pictures)
        top = network.embed(pictures).features[-1]
    expected = released_maps(network, pictures)
    weights = released_weights(network, top)
    # Weights that are in use, and neither all nor none of them 0.
    assert 0.1 < float((weights > 0).float().mean()) < 0.9
    assert bool((weights.std(dim=1) > 0.1).all())
    assert min(float(saliency.std()) for saliency in expected) > 0.02
    # Measured 3e-5: fp32 sums of another order, through eight convolutions a level.
    assert max(map(distance, output.maps, expected)) < 1e-4
    assert distance(output.saliency, expected[0]) < 1e-4
    # The tolerance tells the orders apart.
    with torch.no_grad():
        assert distance(small_vgg(induction="paper")(pictures).maps[0], expected[0]) > 0.01


def test_pooling_is_of_the_consensus_alone() -> None:
    with torch.no_grad():
        released, average = (
            small_vgg(pooling=pooling).embed(torch.ones(1, 3, *SIZE)) for pooling in ("max", "average")
        )
    assert all(map(torch.equal, released.gates, average.gates))
    assert not torch.allclose(released.logits, average.logits, atol=1e-3)
    head: Any = small_vgg().backbone.classifier
    expected = head(F.adaptive_avg_pool2d(average.features[-1], 7).flatten(1))
    torch.testing.assert_close(average.logits, expected, rtol=0, atol=1e-4)


def test_the_consensus_is_the_softmax_of_the_sum() -> None:
    logits = torch.tensor([[1.0, 2, 3], [0, 5, 0], [2, 0, 2], [7, 7, 7]])
    found = consensus(logits, torch.tensor([1, 0, 1, 2]))
    expected = torch.stack([logits[1], logits[0] + logits[2], logits[3]]).softmax(dim=1)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_groups_of_a_batch_do_not_see_each_other(images: Tensor) -> None:
    network = mobile()
    together = network(images, torch.tensor([0, 1, 0, 1, 1]))
    for members in ([0, 2], [1, 3, 4]):
        alone = network(images[members])
        for found, expected in zip(together.maps, alone.maps, strict=True):
            assert distance(found[members], expected) < SAME
        # Nor do the maps ignore the group.
        assert distance(network(images).maps[0][members], alone.maps[0]) > 100 * SAME


@torch.no_grad()
@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_the_order_of_a_group_does_not_matter(images: Tensor, order: list[int]) -> None:
    found, expected = mobile()(images[order]).saliency, mobile()(images).saliency
    assert distance(found, expected[order]) < 1e-5  # the same batch: only the sums of the logits differ


@torch.no_grad()
def test_duplicates_have_the_same_map_and_count_twice(images: Tensor) -> None:
    network, twice = mobile(), [0, 1, 1]
    found = network(images[twice]).saliency
    assert distance(found[1], found[2]) < SAME
    assert distance(found[0], network(images[:2]).saliency[0]) > 20 * SAME
    assert bool(network(images[[0, 0, 0]]).saliency.isfinite().all())


@torch.no_grad()
def test_a_group_of_one_and_a_blank_picture(images: Tensor) -> None:
    alone = mobile()(images[:1])
    assert distance(alone.saliency, mobile()(images, torch.arange(5)).saliency[:1]) < SAME
    for network in (mobile(), small_vgg(), small_vgg(induction="released")):
        saliency = network(torch.zeros(2, 3, *SIZE)).saliency
        assert bool(saliency.isfinite().all())


@torch.no_grad()
def test_induction_off_ignores_the_group(images: Tensor) -> None:
    network = mobile(induction="off")
    found = network(images).saliency
    assert distance(found, network(images, torch.arange(5)).saliency) == 0
    vgg = small_vgg(induction="off")
    assert distance(vgg(images[:2]).saliency[:1], vgg(images[:1]).saliency) < SAME
    on = mobile()
    assert distance(on(images).saliency, on(images, torch.arange(5)).saliency) > 100 * SAME


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2"])
def test_no_gradient_flows_through_the_weights(backbone: str, images: Tensor) -> None:
    network = (small_vgg() if backbone == "vgg16" else mobile.__wrapped__()).requires_grad_(True)
    network(images[:2]).saliency.sum().backward()
    assert all(p.grad is None for p in network.backbone.classifier.parameters())
    convolutions = [m.weight.grad for m in network.backbone.source.modules() if isinstance(m, nn.Conv2d)]
    assert all(grad is not None for grad in convolutions)


def test_the_loss_is_that_of_four_maps(images: Tensor) -> None:
    group, masks = torch.tensor([0, 0, 1, 1, 1]), blobs(5)
    batch = {"image": images, "mask": masks, "group": group}
    with torch.no_grad():
        loss, saliency = GradientInducedRecipe().loss(mobile(), batch)
        maps = mobile()(images, group).maps
        weighted, _ = GradientInducedRecipe(bce=0.5).loss(mobile(), batch)
    total = 0.0
    for coarse in maps:
        found = F.interpolate(coarse, size=SIZE, mode="bilinear", align_corners=True)
        for values, mask in zip(found.double(), masks.double(), strict=True):
            both = float((values * mask).sum())
            either = float(values.sum() + mask.sum()) - both
            total += (1 - (both + 1) / (either + 1)) / 2  # of two groups
    # fp32 sums of 6144 numbers.
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert 2.5 < total < 10
    expected = F.interpolate(maps[0], size=SIZE, mode="bilinear", align_corners=True)
    assert distance(saliency, expected) < SAME
    entropy = 5 / 2 * float(F.binary_cross_entropy(expected, masks))
    assert float(weighted - loss) == pytest.approx(0.5 * entropy, rel=1e-4)


@torch.no_grad()
def test_a_group_weighs_as_many_images_as_it_has(images: Tensor) -> None:
    network = mobile(induction="off")  # the map of an image does not depend on its group

    def loss(members: list[int], group: list[int]) -> float:
        batch = {"image": images[members], "mask": blobs(5)[members], "group": torch.tensor(group)}
        return float(GradientInducedRecipe(bce=0.5).loss(network, batch)[0])

    alone = [loss([member], [0]) for member in range(5)]
    # fp32 sums of another order.
    assert loss([0, 1, 2, 3, 4], [0] * 5) == pytest.approx(sum(alone), rel=1e-4)
    assert loss([0, 1, 2, 3, 4], [0, 0, 0, 1, 1]) == pytest.approx(sum(alone) / 2, rel=1e-4)


def test_maps_that_are_the_masks_cost_nothing() -> None:
    masks = blobs(2)

    class Perfect(nn.Module):
        def forward(self, image: Tensor, group: Tensor, size: tuple[int, int]) -> Any:
            return type("Output", (), {"maps": [image[:, :1]] * 4})()

    loss, _ = GradientInducedRecipe().loss(Perfect(), {"image": masks, "mask": masks, "group": torch.zeros(2)})
    assert float(loss) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2"])
def test_kept_features_give_the_loss_of_fresh_ones(backbone: str) -> None:
    network: Any = small_vgg() if backbone == "vgg16" else mobile()
    preprocessing = Preprocessing(size=SIZE)
    given: dict[str, Any] = {"samples": scenes_of_kinds(8), "preprocessing": preprocessing, "augmentation": "none"}
    losses = []
    for cache_size in (0, 1):
        recipe = GradientInducedRecipe(jigsaw=0, most=2, cache=cache_size)
        data: Any = recipe.dataset(network, **given, seed=3, workers=0)
        batch = recipe.collate([data[0], data[3]])
        assert ("image" in batch) == (cache_size == 0)
        with torch.no_grad():
            losses.append((batch["mask"], recipe.loss(network, batch)))
    (mask, (fresh, saliency)), (same, (kept, found)) = losses
    assert torch.equal(mask, same)
    # fp16 has 11 bits: measured 3e-4 of the loss.
    assert float(kept) == pytest.approx(float(fresh), rel=2e-3)
    assert 0 < distance(found, saliency) < 0.05


def test_the_classifier_names_the_classes_of_pictures_in_no_folder() -> None:
    class Named:
        def __init__(self, name: str, scene: Any) -> None:
            self.name, self.load = name, scene.load

    drawn = scenes_of_kinds(8)
    samples = [Named(f"set/{'cats/' if i < 3 else ''}{i}", scene) for i, scene in enumerate(drawn)]
    network, preprocessing = mobile(), Preprocessing(size=SIZE)
    recipe = GradientInducedRecipe(classes="classifier", least=1)
    data: Any = recipe.dataset(network, samples, preprocessing, augmentation="none", seed=0, workers=0)
    groups = {name: [sample.name for sample in members] for name, members in data.groups.items()}
    assert groups.pop("set/cats") == ["set/cats/0", "set/cats/1", "set/cats/2"]
    expected: dict[str, list[str]] = {}
    for sample in samples[3:]:
        image = torch.from_numpy(sample.load()[0].transpose(2, 0, 1).copy())
        with torch.no_grad():
            number = int(network.embed(preprocessing(image)[None]).logits.argmax())
        expected.setdefault(f"class {number}", []).append(sample.name)
    assert groups == expected
    # By folder there would be two classes, and these pictures would be one of them.
    folders: Any = GradientInducedRecipe().dataset(
        network, samples, preprocessing, augmentation="none", seed=0, workers=0
    )
    assert set(folders.groups) == {"set", "set/cats"}


@pytest.mark.parametrize("settings", [{"classes": "classifier", "least": 1}, {"cache": 1}], ids=str)
def test_classes_and_features_are_computed_on_the_networks_device_in_batches(settings: dict[str, Any]) -> None:
    seen: list[tuple[str, int]] = []

    class Elsewhere(nn.Module):
        """Its weights are on another device; what it gives comes back."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, device="meta"))

        def embed(self, images: Tensor) -> Embedding:
            seen.append((images.device.type, len(images)))
            return Embedding((torch.zeros(len(images), 1, 1, 1),), torch.eye(5)[torch.arange(len(images)) % 5], ())

    samples = scenes_of_kinds(20) if "cache" in settings else scenes(20)
    GradientInducedRecipe(**settings).dataset(
        Elsewhere(), samples, Preprocessing(size=SIZE), augmentation="none", seed=0, workers=1
    )
    assert seen == [("meta", 16), ("meta", 4)]


def test_released_induction_is_the_default_and_a_header_decides(tmp_path: Path, repository: Path) -> None:
    assert GradientInducedSettings().induction == "released"
    shipped, network = load_checkpoint(repository / "pretrained" / "gicd-mobilenet_v2.safetensors")
    assert shipped.network["induction"] == "released"
    assert network.settings.induction == "released"  # type: ignore[union-attr]
    file = tmp_path / "paper.safetensors"
    header = CheckpointHeader(method="gicd", network=small_settings("paper"), preprocessing=Preprocessing())
    save_checkpoint(file, build_network("gicd", header.network), header)
    loaded: Any = load_checkpoint(file)[1]
    assert loaded.settings.induction == "paper"


def small_settings(induction: str) -> dict[str, Any]:
    return {"backbone": "mobilenet_v2", "width": 2, "induction": induction}


def test_deep_features_reach_the_decoder_by_default(images: Tensor) -> None:
    spreads = {}
    for induction in ("paper", "released"):
        network = mobile(induction=induction)
        with torch.no_grad():
            embedding = network.embed(images)
            guide = network.guide(consensus(embedding.logits, torch.zeros(5, dtype=torch.int64)))
            weights = channel_weights(guide, embedding.gates, network.matrices(), (2, 3), induction)
            spreads[induction] = float((embedding.features[-1] * weights).std())
    default = GradientInducedSettings().induction
    assert spreads[default] > 5 * spreads["paper"]


def test_validation_takes_groups_whole_and_pictures_in_no_folder_by_themselves() -> None:
    samples = [*scenes_of_kinds(7), *scenes(2)]
    checks = GradientInducedRecipe(most=1).checks(mobile(), samples, Preprocessing(size=SIZE))
    items = [checks[index] for index in range(len(checks))]
    # Groups of several images come again as jigsaws.
    assert [len(item["mask"]) for item in items] == [2, 2, 2, 1, 1, 1, 2, 2, 2]
    assert [bool(item["distractors"].all()) for item in items] == 6 * [False] + 3 * [True]
    recipe = GradientInducedRecipe(distractors=False)
    assert len(recipe.checks(mobile(), samples, Preprocessing(size=SIZE))) == 6


def test_the_score_that_decides_is_the_mean_with_and_without_distractors() -> None:
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :4] = 1
    found = DistractorScorer()
    assert isinstance(GradientInducedRecipe().scorer(), DistractorScorer)
    found.add(mask, {"mask": mask, "distractors": torch.tensor([False, False])})
    assert found.scores() == pytest.approx({"f_max": 1, "mae": 0})
    # A map of both halves: precision .5, recall 1, F = 1.3 * .5 / (.3 * .5 + 1).
    found.add(torch.ones(2, 1, 8, 8), {"mask": mask, "distractors": torch.tensor([True, True])})
    scores = found.scores()
    assert next(iter(scores)) == "f_max"
    distracted = 1.3 * 0.5 / 1.15
    expected = {"f_max": (1 + distracted) / 2, "mae": 0.25, "f_plain": 1, "f_distractors": distracted}
    assert scores == pytest.approx(expected)
    assert [distractor for distractor, _ in found.records] == [False, False, True, True]


def test_classes_by_name_train_and_validate() -> None:
    class Named:
        def __init__(self, name: str, scene: Any) -> None:
            self.name, self.load = name, scene.load

    names = ["pets/Beagle_1", "pets/Beagle_2", "set/Cup/1", "other/cup_7", "plain/1", "plain/2"]
    samples = [Named(name, scene) for name, scene in zip(names, scenes(6), strict=True)]
    recipe = GradientInducedRecipe(classes="names")
    options: dict[str, Any] = {"augmentation": "none", "seed": 0, "workers": 0}
    data: Any = recipe.dataset(mobile(), samples, Preprocessing(size=SIZE), **options)
    assert {name: len(members) for name, members in data.groups.items()} == {"beagle": 2, "cup": 2, "plain": 2}
    checks = recipe.checks(mobile(), samples, Preprocessing(size=SIZE))
    assert checks.names == ["beagle", "cup", "plain/1", "plain/2"]
    assert checks.joined == ["beagle", "cup"]


def test_the_papers_schedule() -> None:
    settings = GradientInducedRecipe().defaults()
    assert (settings.optimiser, settings.rate, settings.betas) == ("adam", 1e-4, (0.9, 0.99))
    assert (settings.schedule, settings.epochs, settings.backbone_rate) == ("halfway", 100, 0)


@pytest.mark.parametrize("cache_size", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_changes_the_decoder_and_nothing_of_the_backbone(tmp_path: Path, cache_size: int) -> None:
    network = mobile.__wrapped__()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recipe = GradientInducedRecipe(most=2, cache=cache_size)
    settings = FitSettings(tmp_path, recipe.defaults().model_copy(update={"epochs": 1, "rate": 0.01}))
    header = CheckpointHeader(method="gicd", network={}, preprocessing=Preprocessing(size=SIZE))
    samples = scenes_of_kinds(8)
    fit(
        network, recipe, header, train=samples, validate=samples[:2], settings=settings,
        fabric=Fabric(accelerator="cpu", devices=1),
    )  # fmt: skip
    trained = load_file(tmp_path / LAST_FILE)
    for name, value in trained.items():
        if name.startswith("backbone."):
            assert torch.equal(value, before[name]), name
        elif name.endswith("weight") and value.dim() == 4:
            assert not torch.equal(value, before[name]), name


def test_in_training_the_backbone_stays_as_it_is() -> None:
    network = mobile.__wrapped__()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network.train()
    assert network.reduce.training
    picture = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        first, second = (network.embed(picture).logits for _ in range(2))
    # Neither batch statistics nor the classifier's dropout.
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_upsampling_aligns_corners() -> None:
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize(maps, (3, 3))[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_sharpness_multiplies_the_logits(sharpness: float) -> None:
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    # The power form rounds a few times more than the sigmoid.
    torch.testing.assert_close(sharpen(logits.sigmoid(), sharpness), (sharpness * logits).sigmoid(), rtol=1e-12, atol=0)
    ends = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(sharpen(ends, sharpness), ends)


def test_without_retaining_a_coarser_map_weighs_no_features() -> None:
    block = RetainingBlock(5, 4, norm=False, retaining=False)
    pyramid, feature = torch.randn(1, 4, 3, 3), torch.randn(1, 5, 6, 6)
    dark, bright = (block(pyramid, torch.full((1, 1, 3, 3), value), feature)[1] for value in (0.0, 1.0))
    assert torch.equal(dark, bright)
    block.retaining = True
    dark, bright = (block(pyramid, torch.full((1, 1, 3, 3), value), feature)[1] for value in (0.0, 1.0))
    assert not torch.equal(dark, bright)
