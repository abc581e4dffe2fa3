"""What leaves export for `cgd`: the step of the file against autograd written out, and classifiers of any source."""

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from salience.export.graphs.cgd import ClampedDescentExport
from salience.export.pipeline import BuildSettings, build, build_network_bundle
from salience.export.tracing import trace
from salience.runtime import ClampedDescentDetector, load
from salience.runtime.bundle import Bundle
from salience.runtime.errors import CheckpointError, SalienceError
from salience.runtime.low_level import Descent
from salience.runtime.methods.cgd import loop_settings
from salience.training.checkpoint import CheckpointHeader
from salience.training.data.layouts import read_set
from salience.training.networks.cgd import Classifier, ClassifierSettings, imagenet_names
from salience.training.preprocessing import Preprocessing

onnxruntime = pytest.importorskip("onnxruntime")
Arrays = dict[str, NDArray[Any]]
SIZE = (20, 28)
NAMES = tuple("abcdefg")

# Grey levels, for a step of one grey level: fp32 sums against float64, and pixels of 255 are rounded to 1e-5; measured
# 2e-6 to 1e-5. A ReLU or a pooling that decides otherwise is off by .01 and more; in so small a network none does.
STEP_TOLERANCE = 5e-5


def own_module(*, spread: float = 0.3) -> nn.Module:
    """A small classifier with the layers whose backward pass is not plain: poolings that overlap, groups, strides."""
    torch.manual_seed(5)
    last = nn.Linear(108, len(NAMES))
    nn.init.normal_(last.weight, std=spread)
    module = nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(12, 12, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.MaxPool2d(2, 2), nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Dropout(), last,
    )  # fmt: skip
    module.train()
    with torch.no_grad():
        for _ in range(20):
            module(torch.randn(16, 3, *SIZE))
    return module.eval()


@pytest.fixture(scope="module")
def network() -> Classifier:
    return Classifier(ClassifierSettings(classes=NAMES), own_module()).eval()


@pytest.fixture(scope="module")
def descend_file(network: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of `network`."""
    (graph,) = ClampedDescentExport().graphs(network, SIZE)
    path = tmp_path_factory.mktemp("descend") / "descend.onnx"
    onnx.save(trace(graph, "fp32"), path)
    return path


@pytest.fixture(scope="module")
def run(descend_file: Path) -> Callable[[Mapping[str, NDArray[Any]]], Arrays]:
    """One step in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(descend_file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, dict(feeds)), strict=True))


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise in grey levels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 7, generator=generator) * 255
    smooth = nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255)
    return np.asarray(smooth.numpy())


def feeds_of(images: NDArray[np.float32], descent: Descent, **changes: NDArray[Any]) -> Arrays:
    """What the loop feeds at its start; `changes` of it."""
    blank = np.zeros((len(images), len(NAMES)), np.float32)
    start: Arrays = {"image": images, "reference": blank, "target": blank, "iteration": np.zeros(1, np.int64)}
    return {**start, **loop_settings(descent), **changes}


def one_hot(*classes: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.eye(len(NAMES), dtype=np.float32)[list(classes)]
    return found


def logits_of(network: Classifier, images: NDArray[Any]) -> NDArray[np.float64]:
    """In float64, without the code under test but for its classifier."""
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (network.settings.mean, network.settings.std)
    )
    module = own_module().double()
    with torch.no_grad():
        return np.asarray(module((torch.from_numpy(images).double() / 255 - mean) / std).numpy())


def autograd_step(
    network: Classifier, image: Tensor, reference: Tensor, label: int, descent: Descent, iteration: int
) -> tuple[Tensor, float]:
    """Eq. 1 to 3 for one picture (3, H, W) in float64: X(t+1) and F."""
    module = own_module().double()
    x = image.detach().double().clone().requires_grad_()
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (network.settings.mean, network.settings.std)
    )
    a = module(((x / 255 - mean) / std)[None])[0]
    others = [(a[k] - reference[k]) ** 2 for k in range(len(NAMES)) if k != label]
    cost = a[label] + descent.gamma / 2 * torch.stack(others).sum()
    (gradient,) = torch.autograd.grad(cost, x)
    g = gradient.clamp(min=0)
    if descent.scale == "relative":
        g = g / g.max()
    elif descent.scale == "channel":
        g = torch.stack([(c - c.min()) / (c.max() - c.min()) for c in g])
    moved = image.double() - descent.step * descent.decay**iteration * g
    return moved.clamp(0, 255) if descent.clip else moved, float(cost.detach())


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("scale", ["relative", "plain", "channel"])
def test_a_step_is_that_of_autograd(network: Classifier, run: Callable[..., Arrays], scale: Any, clip: bool) -> None:
    images, others = pictures(3, seed=1), pictures(3, seed=2)
    # A gradient is some hundredths of a logit per grey level.
    step = 2000.0 if scale == "plain" else 20.0
    descent = Descent(gamma=3.0, step=step, scale=scale, decay=0.9, clip=clip)
    reference, labels = logits_of(network, others).astype(np.float32), (4, 0, 6)
    found = run(
        feeds_of(images, descent, reference=reference, target=one_hot(*labels), iteration=np.array([2], np.int64))
    )
    np.testing.assert_array_equal(found["next_reference"], reference)
    np.testing.assert_array_equal(found["next_target"], one_hot(*labels))
    assert found["next_iteration"] == [3]
    # fp32 sums against float64; a logit is about 1.
    np.testing.assert_allclose(found["logits"], logits_of(network, images), rtol=0, atol=1e-5)
    for row, label in enumerate(labels):
        start = torch.from_numpy(images[row])
        expected, cost = autograd_step(network, start, torch.from_numpy(reference[row]), label, descent, 2)
        assert 5 < float((start - expected).max()) < 300, "what hardly moves would agree with anything"
        np.testing.assert_allclose(found["next_image"][row], expected.numpy(), rtol=0, atol=20 * STEP_TOLERANCE)
        assert found["cost"][row] == pytest.approx(cost, rel=1e-4)
    assert (found["next_image"].min() < 0) != clip


def test_a_step_never_brightens(run: Callable[..., Arrays]) -> None:
    """The gradient is rectified: about half of it is left out."""
    images = pictures(2)
    moved = run(feeds_of(images, Descent(step=20.0)))["next_image"] - images
    assert moved.max() <= 0
    assert 0.1 < (moved == 0).mean() < 0.9
    np.testing.assert_allclose(moved.min(axis=(1, 2, 3)), [-20, -20], rtol=0, atol=20 * STEP_TOLERANCE)


def test_the_first_call_classifies(network: Classifier, run: Callable[..., Arrays]) -> None:
    images = pictures(6, seed=3)
    expected = logits_of(network, images)
    assert len(set(expected.argmax(axis=1))) > 1, "pictures of one class would prove nothing"
    found = run(feeds_of(images, Descent(), reference=np.full((6, len(NAMES)), 1e3, np.float32)))
    np.testing.assert_array_equal(found["next_target"], one_hot(*expected.argmax(axis=1)))
    np.testing.assert_array_equal(found["next_reference"], found["logits"])
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5)
    # a = o, so the cost is the logit of the class alone.
    np.testing.assert_allclose(found["cost"], expected.max(axis=1), rtol=0, atol=1e-5)


def test_a_class_that_is_given_stays(run: Callable[..., Arrays]) -> None:
    found = run(feeds_of(pictures(2), Descent(), target=one_hot(5, 1)))
    np.testing.assert_array_equal(found["next_target"], one_hot(5, 1))


def test_at_first_nothing_is_clamped(run: Callable[..., Arrays]) -> None:
    """a = o, so the error signal is at l alone, whatever gamma is."""
    images, target = pictures(2), one_hot(2, 3)
    steps = [run(feeds_of(images, Descent(gamma=gamma), target=target)) for gamma in (0.0, 1.0, 1e4)]
    for name in ("next_image", "cost"):
        for step in steps[1:]:
            np.testing.assert_array_equal(step[name], steps[0][name])


def test_the_file_holds_no_gradient(network: Classifier, run: Callable[..., Arrays]) -> None:
    """Another picture, class, gamma or iteration: each gives another direction, and the one of autograd."""
    base: dict[str, Any] = {"seed": 1, "label": 4, "gamma": 2.0, "iteration": 1}
    reference = logits_of(network, pictures(1, seed=9)).astype(np.float32)
    directions = []
    for change in ({}, {"seed": 2}, {"label": 1}, {"gamma": 40.0}, {"iteration": 0}):
        case = base | change
        images, descent = pictures(1, seed=case["seed"]), Descent(gamma=case["gamma"], step=1.0)
        iteration = np.array([case["iteration"]], np.int64)
        feeds = feeds_of(images, descent, reference=reference, target=one_hot(case["label"]), iteration=iteration)
        # At iteration 0 the reference is the picture's own.
        used = reference[0] if case["iteration"] else logits_of(network, images)[0]
        expected, _ = autograd_step(
            network, torch.from_numpy(images[0]), torch.from_numpy(used), case["label"], descent, case["iteration"]
        )
        found = run(feeds)["next_image"]
        np.testing.assert_allclose(found[0], expected.numpy(), rtol=0, atol=STEP_TOLERANCE)
        directions.append(found - images)
    for index, direction in enumerate(directions):
        for other in directions[index + 1 :]:
            assert np.abs(direction - other).max() > 100 * STEP_TOLERANCE


def test_steps_that_are_fed_back_are_those_of_autograd(network: Classifier, run: Callable[..., Arrays]) -> None:
    images, descent = pictures(2, seed=4), Descent(gamma=5.0, step=4.0, decay=0.8)
    feeds = feeds_of(images, descent)
    reference = logits_of(network, images)
    labels = reference.argmax(axis=1)
    expected = [torch.from_numpy(image).double() for image in images]
    costs = []
    for iteration in range(4):
        found = run(feeds)
        feeds |= {name: found[f"next_{name}"] for name in ("image", "reference", "target", "iteration")}
        for row in range(2):
            expected[row], cost = autograd_step(
                network, expected[row], torch.from_numpy(reference[row]), int(labels[row]), descent, iteration
            )
            costs.append((cost, float(found["cost"][row])))
            # Errors of a step grow in those that follow; measured 6e-5 of 12 grey levels.
            np.testing.assert_allclose(found["next_image"][row], expected[row].numpy(), rtol=0, atol=1e-3)
    np.testing.assert_allclose([found for _, found in costs], [wanted for wanted, _ in costs], rtol=1e-4)
    # It is a descent: the class fades.
    assert costs[-1][0] < costs[1][0]
    assert costs[-2][0] < costs[0][0]


@pytest.mark.parametrize("level", [0.0, 127.0, 255.0])
def test_flat_pictures_have_a_gradient(run: Callable[..., Arrays], level: float) -> None:
    """In every window of the poolings all values are equal, but for rounding."""
    images = np.full((1, 3, *SIZE), level, np.float32)
    found = run(feeds_of(images, Descent(step=5.0)))
    assert all(np.isfinite(values).all() for values in found.values())
    assert (found["next_image"] - images).min() == pytest.approx(-5, abs=STEP_TOLERANCE)


def test_ties_go_where_autograd_sends_them() -> None:
    """The pooling sees the pixels themselves, which are equal in blocks, so that ties are exact on every machine."""
    torch.manual_seed(0)
    linear = nn.Linear(3 * 11 * 15, len(NAMES))
    module = nn.Sequential(nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), nn.Flatten(), linear)
    (graph,) = ClampedDescentExport().graphs(Classifier(ClassifierSettings(classes=NAMES), module).eval(), SIZE)
    session = onnxruntime.InferenceSession(trace(graph, "fp32").SerializeToString())
    coarse = torch.randint(0, 256, (1, 3, 5, 7), generator=torch.Generator().manual_seed(1)).float()
    for image in (nn.functional.interpolate(coarse, SIZE), torch.full((1, 3, *SIZE), 128.0)):
        network = Classifier(ClassifierSettings(classes=NAMES), module)
        x = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).logits[0, 3], x)
        expected = image - gradient.clamp(min=0) / gradient.max()
        feeds = feeds_of(image.numpy(), Descent(step=1.0), target=one_hot(3))
        found = session.run(["next_image"], feeds)[0]
        assert int((gradient == 0).sum()) > 100, "without ties every pixel of a picture would count"
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=STEP_TOLERANCE)


@pytest.mark.parametrize("scale", ["relative", "plain", "channel"])
def test_without_a_gradient_the_picture_stays(scale: Any) -> None:
    network = Classifier(ClassifierSettings(classes=NAMES), own_module(spread=0.0)).eval()
    (graph,) = ClampedDescentExport().graphs(network, SIZE)
    images = pictures(2)
    feeds = feeds_of(images, Descent(scale=scale))
    found = graph.module(*(torch.from_numpy(feeds[spec.name]) for spec in graph.inputs))
    np.testing.assert_array_equal(found[0].detach().numpy(), images)


def test_a_batch_is_each_by_itself(run: Callable[..., Arrays]) -> None:
    images, descent = pictures(5, seed=6), Descent(gamma=2.0, step=10.0)
    settings = {"reference": pictures(5, seed=7).mean(axis=(2, 3)).repeat(3, 1)[:, : len(NAMES)] / 100}
    settings |= {"target": one_hot(0, 1, 2, 3, 4)}
    iteration = np.ones(1, np.int64)
    together = run(feeds_of(images, descent, iteration=iteration, **settings))
    for row in range(5):
        part = slice(row, row + 1)
        alone = run(feeds_of(images[part], descent, iteration=iteration, **{k: v[part] for k, v in settings.items()}))
        for name in ("next_image", "logits", "cost"):
            np.testing.assert_allclose(together[name][part], alone[name], rtol=1e-5, atol=10 * STEP_TOLERANCE)


@pytest.mark.slow
def test_the_operators_are_those_of_every_engine(descend_file: Path, bundle_of: Callable[[str], Path]) -> None:
    """TensorRT has no max pooling with indices, and no scattering worth its name."""
    for path in (descend_file, bundle_of("cgd") / "descend.onnx"):
        nodes = onnx.load(path).graph.node
        operators = {node.op_type for node in nodes}
        assert not operators & {"ScatterElements", "ScatterND", "GatherND", "GatherElements", "MaxUnpool", "Loop", "If"}
        assert not operators & {"ConvTranspose", "NonZero", "OneHot", "Unique"}
        pools = [node for node in nodes if node.op_type == "MaxPool"]
        assert pools
        assert all(len(node.output) == 1 for node in pools)
        assert {node.domain for node in nodes} == {""}


def test_tensorrt_rtx_builds_an_engine(descend_file: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from salience.export.compilers.trt import compile_tensorrt_rtx

    engine = compile_tensorrt_rtx(descend_file, profile=(1, 1, 4), targets=("8.6",))
    assert len(engine.plan) > 10_000


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SqueezeNet's weights as torchvision saves them, of no training."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_0.safetensors"
    save_file(torchvision.models.squeezenet1_0(weights=None).state_dict(), path)
    return path


def test_weights_of_torchvision_are_a_classifier(torchvision_file: Path, tmp_path: Path) -> None:
    header, network = ClampedDescentExport(classifier="squeezenet1_0").load(torchvision_file)
    assert (header.method, header.preprocessing.size) == ("cgd", (224, 224))
    assert header.network["classes"] == imagenet_names()
    assert not network.training
    for key, value in network.state_dict().items():
        assert key.startswith("backbone.")
        assert torch.equal(value, torchvision_state(torchvision_file)[key.removeprefix("backbone.")])
    own = [f"thing {index}" for index in range(1000)]
    (tmp_path / "names.txt").write_text("\n".join([*own, "", " "]), encoding="utf-8")
    named = ClampedDescentExport(classifier="squeezenet1_0", names=tmp_path / "names.txt")
    _, network = named.load(torchvision_file)
    assert named.classes(network) == tuple(own)  # type: ignore[arg-type]


def torchvision_state(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(path)
    return found


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a timm classifier in fp16, as timm names them, with true batch statistics."""
    from salience.training.timm_backbone import create_model

    torch.manual_seed(0)
    model = create_model("tf_efficientnet_lite0")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file({name: tensor.half() for name, tensor in model.state_dict().items() if tensor.ndim}, path)
    return path


def test_fp16_weights_of_timm_are_a_classifier_in_fp32(timm_file: Path) -> None:
    header, network = ClampedDescentExport(classifier="timm:tf_efficientnet_lite0").load(timm_file)
    assert header.network["backbone"] == "timm:tf_efficientnet_lite0"
    assert (header.network["mean"], header.network["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert header.preprocessing.size == (224, 224)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    source = torchvision_state(timm_file)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, source[name.removeprefix("backbone.")].float()), name


@pytest.mark.slow
def test_weights_of_timm_become_a_bundle(timm_file: Path, tmp_path: Path) -> None:
    """The build compares the step with float64, in batches that were not traced; "same" padding differs by side."""
    settings = BuildSettings(
        output=tmp_path / "cgd", size=(48, 64), precisions=("fp32", "fp16"),
        options={"classifier": "timm:tf_efficientnet_lite0"},
    )  # fmt: skip
    manifest = build("cgd", timm_file, settings, step=lambda name: nullcontext())
    assert manifest.classes == imagenet_names()
    detector = load(tmp_path / "cgd", threads=1)
    assert isinstance(detector, ClampedDescentDetector)
    assert detector.locate(np.zeros((20, 30, 3), np.uint8), "tabby").logits.shape == (1000,)


@pytest.mark.slow
def test_weights_of_torchvision_become_a_bundle(torchvision_file: Path, tmp_path: Path) -> None:
    settings = BuildSettings(output=tmp_path / "cgd", size=(32, 48), options={"classifier": "squeezenet1_0"})
    manifest = build("cgd", torchvision_file, settings, step=lambda name: nullcontext())
    assert manifest.classes == imagenet_names()
    assert manifest.provenance["options"] == {"classifier": "squeezenet1_0"}
    assert "classes" not in manifest.provenance["network"]
    assert manifest.provenance["training"]["backbone_weights"] == "squeezenet1_0.safetensors"
    detector = load(tmp_path / "cgd", threads=1)
    assert isinstance(detector, ClampedDescentDetector)
    found = detector.locate(np.zeros((20, 30, 3), np.uint8), "tabby")
    assert (found.label, found.logits.shape) == ("tabby", (1000,))


def is_one_sentence(error: BaseException) -> bool:
    return re.fullmatch(r"[^\n]+[.?]", str(error)) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": "squeezenet1_0", "names": "short.txt"}, r"short\.txt: got 3 lines, expected 1000"),
        ({"classifier": "squeezenet1_0", "names": "gone.txt"}, r"gone\.txt: cannot be read as text"),
        ({"classifier": "squeezenet1_0", "names": "latin.txt"}, r"latin\.txt: cannot be read as text"),
        ({"classifier": "mobilenet_v2"}, r"tensors of mobilenet_v2 are missing"),
        ({"classifier": "resnet50"}, r"--option: classifier: .*vgg16, mobilenet_v2, squeezenet1_0 or timm:NAME"),
        ({}, r"only files written by training/train\.py"),
        ({"names": "short.txt"}, r"names .*short\.txt: .*classifier"),
        ({"classes": "5"}, r"--option: classes: .* known: classifier, names"),
    ],
)
def test_mistakes_with_weights_are_one_sentence(
    torchvision_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("cat\ndog\ncar\n")
    Path("latin.txt").write_bytes("café\n".encode("latin-1") * 1000)
    settings = BuildSettings(output=tmp_path / "out", options=options)
    with pytest.raises(SalienceError, match=message) as caught:
        build("cgd", torchvision_file, settings, step=lambda name: nullcontext())
    assert is_one_sentence(caught.value)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_file_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for name, message in (
        ("broken.safetensors", "cannot be read as safetensors"),
        ("w.pth", "expected a .safetensors"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            ClampedDescentExport(classifier="squeezenet1_0").load(tmp_path / name)
        assert is_one_sentence(caught.value)


def test_a_module_of_ones_own_is_served(network: Classifier, tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=SIZE, **Classifier.input_scale)
    header = CheckpointHeader(method="cgd", network=network.settings.model_dump(), preprocessing=preprocessing)
    manifest = build_network_bundle(
        header, network, ClampedDescentExport(), BuildSettings(output=tmp_path / "own"),
        step=lambda name: nullcontext(), source={"module": "of these tests"},
    )  # fmt: skip
    assert Bundle(tmp_path / "own").manifest.classes == manifest.classes == NAMES
    assert manifest.provenance["module"] == "of these tests"
    detector = load(tmp_path / "own", threads=1)
    assert isinstance(detector, ClampedDescentDetector)
    # The picture has the network's size, so grey levels reach it as they are.
    tensor = pictures(1, seed=8).round()
    image = tensor[0].astype(np.uint8).transpose(1, 2, 0)
    found, expected = detector.locate(image), logits_of(network, tensor)[0]
    np.testing.assert_allclose(found.logits, expected, rtol=0, atol=1e-5)
    assert found.label == NAMES[expected.argmax()]
    # The map of PyTorch, which the check by metric takes for the truth; within half a grey level.
    with torch.no_grad():
        wanted = ClampedDescentExport().predict(network, torch.from_numpy(tensor), image)[0, 0].numpy()
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=2e-3)
    assert found.values.std() > 0.1


def test_the_check_by_metric_feeds_both_sides_alike(
    network: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs_folder: Path
) -> None:
    """PyTorch gets what the bundle makes of a picture: a grey level in a few pixels gives another map."""
    fed: list[Tensor] = []
    genuine = ClampedDescentExport.predict

    def predict(self: Any, network: Any, tensor: Tensor, image: Any) -> Tensor:
        fed.append(tensor)
        return genuine(self, network, tensor, image)

    monkeypatch.setattr(ClampedDescentExport, "predict", predict)
    preprocessing = Preprocessing(size=SIZE, **Classifier.input_scale)
    header = CheckpointHeader(method="cgd", network=network.settings.model_dump(), preprocessing=preprocessing)
    settings = BuildSettings(output=tmp_path / "own", images=pairs_folder)
    build_network_bundle(header, network, ClampedDescentExport(), settings, step=lambda name: nullcontext(), source={})
    record = Bundle(tmp_path / "own").verification()
    assert record
    assert record.passed
    assert [check.precision for check in record.metrics] == ["fp32"]
    detector = load(tmp_path / "own", threads=1)
    samples = read_set(pairs_folder)
    assert len(fed) == len(samples)
    for tensor, sample in zip(fed, samples, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), detector.prepare(sample.load()[0]).tensor)
