"""What leaves export for `gicd`: three graphs, run one after the other, against the network on a whole group."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from salience.export.compilers.trt import compile_tensorrt_rtx
from salience.export.graph import Graph
from salience.export.graphs.gicd import GUIDE_SCALE, Consensus, GradientInducedExport
from salience.export.tracing import trace
from salience.runtime.bundle import Bundle
from salience.runtime.errors import CheckpointError
from salience.runtime.manifest import Precision
from salience.training.checkpoint import load_checkpoint
from salience.training.networks.gicd import GradientInduced
from tests.released_gicd import small_vgg

onnxruntime = pytest.importorskip("onnxruntime")
SIZE = (64, 96)
Arrays = dict[str, NDArray[Any]]
# Products of another order, in fp32; measured 3e-5 on VGG16 and 3e-6 on MobileNetV2. The maps span .5 or more.
TOLERANCE = 1e-4
# (backbone, induction)
FORMS = [
    ("mobilenet_v2", "released"),
    ("vgg16", "paper"),
    ("vgg16", "released"),
    pytest.param("vgg16", "off", marks=pytest.mark.slow),
]
NAMES = ("embed", "consensus", "segment")
Networks = Callable[[str, Any], GradientInduced]
Models = Callable[[str, str, Precision, str], onnx.ModelProto]
EACH_FORM = pytest.mark.parametrize(("backbone", "induction"), FORMS, ids=str)


@pytest.fixture(scope="module")
def network_of(checkpoints: dict[str, Path]) -> Networks:
    """Backbone and induction -> a small network; those on VGG16 have the same weights."""

    @cache
    def found(backbone: str, induction: Any) -> GradientInduced:
        if backbone == "vgg16":
            return small_vgg(induction=induction)
        network = load_checkpoint(checkpoints["gicd"])[1]
        assert isinstance(network, GradientInduced)
        assert network.settings.induction == induction
        return network

    return found


@pytest.fixture(scope="module")
def model_of(network_of: Networks, bundle_of: Callable[[str], Path]) -> Models:
    """Backbone, induction, precision and graph -> what was exported; on MobileNetV2, by the build."""

    @cache
    def found(backbone: str, induction: str, precision: Precision, name: str) -> onnx.ModelProto:
        if backbone == "mobilenet_v2":
            return onnx.load(Bundle(bundle_of("gicd")).graph_file(name, precision))
        if name != "segment" and induction != "paper":  # the others know nothing of it
            return found(backbone, "paper", precision, name)
        return trace(graphs_of(network_of(backbone, induction))[name], precision)

    return found


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """A group of three, (3, 3, H, W)."""
    rng = np.random.default_rng(5)
    values = rng.standard_normal((3, 3, *SIZE), dtype=np.float32)
    for index in range(3):
        values[index, :, 10 + 5 * index : 40, 20 : 60 + 10 * index] += 2
    return values


def graphs_of(network: GradientInduced, **options: Any) -> dict[str, Graph]:
    return {graph.name: graph for graph in GradientInducedExport(**options).graphs(network, SIZE)}


def graphs_in_a_row(models: Models, backbone: str, induction: str, precision: Precision) -> "Chain":
    return Chain({name: models(backbone, induction, precision, name) for name in NAMES})


class Chain:
    """The three graphs, as the runtime lets them follow each other."""

    def __init__(self, models: dict[str, onnx.ModelProto]) -> None:
        self.sessions = {
            name: onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            for name, model in models.items()
        }

    def run(self, graph: str, feeds: Arrays) -> Arrays:
        session = self.sessions[graph]
        assert {value.name for value in session.get_inputs()} == feeds.keys()
        return dict(zip((v.name for v in session.get_outputs()), session.run(None, feeds), strict=True))

    def maps(self, images: NDArray[np.float32], *, alone: bool = False) -> NDArray[np.float32]:
        """Maps (N, 1, H, W) of one group, or of each picture alone."""
        embedded = self.run("embed", {"input": images})
        logits = embedded.pop("logits")
        total = logits if alone else logits.astype(np.float64).sum(axis=0, keepdims=True)
        total = (total - total.max(axis=1, keepdims=True)).astype(np.float32)
        guide = self.run("consensus", {"total": total})["guide"]
        guide = guide if alone else np.repeat(guide, len(images), axis=0)
        saliency: NDArray[np.float32] = self.run("segment", {**embedded, "guide": guide})["saliency"]
        return saliency


@EACH_FORM
def test_the_graphs_in_a_row_are_the_network_on_a_group(
    network_of: Networks, model_of: Models, images: NDArray[np.float32], backbone: str, induction: str
) -> None:
    network = network_of(backbone, induction)
    chain = graphs_in_a_row(model_of, backbone, induction, "fp32")
    with torch.no_grad():
        together = network(torch.from_numpy(images)).saliency.numpy()
        alone = network(torch.from_numpy(images), torch.arange(3)).saliency.numpy()
    assert np.ptp(together) > 0.5
    assert (np.abs(together - alone).max() > 50 * TOLERANCE) == (induction != "off")
    assert np.abs(chain.maps(images) - together).max() < TOLERANCE
    assert np.abs(chain.maps(images, alone=True) - alone).max() < TOLERANCE
    # A group of two, which was not traced either.
    with torch.no_grad():
        pair = network(torch.from_numpy(images[:2])).saliency.numpy()
    assert np.abs(chain.maps(images[:2]) - pair).max() < TOLERANCE


@pytest.mark.parametrize(
    ("backbone", "induction", "precision"),
    [
        ("mobilenet_v2", "released", "fp16"),
        ("mobilenet_v2", "released", "fp16-weights"),
        ("vgg16", "paper", "fp16"),
        pytest.param("vgg16", "paper", "fp16-weights", marks=pytest.mark.slow),
        pytest.param("vgg16", "released", "fp16", marks=pytest.mark.slow),
        pytest.param("vgg16", "off", "fp16", marks=pytest.mark.slow),
    ],
)
def test_half_precision_keeps_the_maps(
    network_of: Networks,
    model_of: Models,
    images: NDArray[np.float32],
    backbone: str,
    induction: str,
    precision: Precision,
) -> None:
    network = network_of(backbone, induction)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).saliency.numpy()
    found = graphs_in_a_row(model_of, backbone, induction, precision).maps(images)
    assert found.dtype == np.float32
    # Eleven bits, through some thirty layers of random weights: measured 1e-3.
    assert np.abs(found - expected).mean() < 5e-3
    assert np.abs(found - expected).max() > 1e-5, "a half-precision file cannot be this exact: is it fp32?"


def test_gates_leave_only_where_the_classifier_has_hidden_layers(
    network_of: Networks, model_of: Models, images: NDArray[np.float32]
) -> None:
    gates: dict[str, int]
    for backbone, induction, gates in (
        ("vgg16", "paper", {"gate1": 16, "gate2": 24}),
        ("mobilenet_v2", "released", {}),
    ):
        network = network_of(backbone, induction)
        graphs = graphs_of(network)
        shapes = {spec.name: spec.shape for spec in graphs["embed"].outputs}
        assert {name: shape[1] for name, shape in shapes.items() if name.startswith("gate")} == gates
        assert {spec.name for spec in graphs["segment"].inputs} == (shapes.keys() - {"logits"}) | {"guide"}
        found = graphs_in_a_row(model_of, backbone, induction, "fp32").run("embed", {"input": images})
        with torch.no_grad():
            embedding = network.embed(torch.from_numpy(images))
        for index, gate in enumerate(embedding.gates, start=1):
            assert set(np.unique(found[f"gate{index}"])) == {0, 1}
            np.testing.assert_array_equal(found[f"gate{index}"], gate.numpy())
        for index, feature in enumerate(embedding.features, start=1):
            assert found[f"f{index}"].shape == tuple(feature.shape)
            np.testing.assert_allclose(found[f"f{index}"], feature.numpy(), rtol=0, atol=1e-3)


def test_large_logits_and_small_shares_survive_half_precision() -> None:
    torch.manual_seed(0)
    consensus = Consensus(torch.randn(1000, 64) * 0.05)
    total = 30 * torch.randn(4, 1000)
    total -= total.amax(dim=1, keepdim=True)
    flat = torch.zeros(1, 1000)  # shares of .001, and products far below 1
    for values in (total, flat):
        expected = values.double().softmax(dim=1) @ consensus.weight.double()
        found = consensus(values)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
        half = Consensus(consensus.weight.half())(values)
        assert half.dtype == torch.float32
        # Weights of 11 bits.
        assert float((half.double() - expected).norm() / expected.norm()) < 2e-3
    assert np.log2(GUIDE_SCALE) % 1 == 0, "scaling must be exact"


def test_the_released_order_leaves_with_a_49th_of_the_first_matrix(model_of: Models) -> None:
    sizes = {}
    for induction in ("paper", "released"):
        weights = model_of("vgg16", induction, "fp32", "segment").graph.initializer
        sizes[induction] = sum(int(np.prod(weight.dims)) for weight in weights)
    # It has 49 positions, of which the released order needs the sum alone.
    assert sizes["paper"] - sizes["released"] >= 48 * 512 * 24


@torch.no_grad()
def test_induction_may_be_chosen_at_export(network_of: Networks, images: NDArray[np.float32]) -> None:
    trained, pictures = network_of("vgg16", "paper"), torch.from_numpy(images)
    embedding = trained.embed(pictures)
    for induction in ("released", "off"):
        graphs = graphs_of(trained, induction=induction)
        chosen = network_of("vgg16", induction)
        guide = chosen.guide(embedding.logits.sum(dim=0, keepdim=True).softmax(dim=1)).expand(3, -1)
        found = graphs["segment"].module(*embedding.features, *embedding.gates, guide)
        expected = chosen(pictures).saliency
        assert float((found - expected).abs().max()) < TOLERANCE
        assert float((found - trained(pictures).saliency).abs().max()) > 50 * TOLERANCE
    assert trained.settings.induction == "paper"


def test_a_size_that_the_backbone_cannot_halve_is_named(
    network_of: Networks,
) -> None:
    with pytest.raises(CheckpointError, match="input size 60 x 96: both sides must be positive multiples of 32"):
        GradientInducedExport().graphs(network_of("mobilenet_v2", "released"), (60, 96))


def test_the_bundle_has_the_graphs_that_the_runtime_runs(bundle_of: Callable[[str], Path]) -> None:
    manifest = Bundle(bundle_of("gicd")).manifest
    assert set(manifest.graphs) == {"preprocess", "postprocess", "embed", "consensus", "segment"}
    embed, consensus, segment = (manifest.graphs[name] for name in ("embed", "consensus", "segment"))
    shapes = {spec.name: spec.shape for spec in embed.outputs}
    assert shapes == {
        "f1": ("batch", 16, 32, 48), "f2": ("batch", 24, 16, 24), "f3": ("batch", 32, 8, 12),
        "f4": ("batch", 96, 4, 6), "f5": ("batch", 1280, 2, 3), "logits": ("batch", 1000),
    }  # fmt: skip
    assert [spec.shape for spec in consensus.inputs] == [("batch", 1000)]
    assert [spec.shape for spec in consensus.outputs] == [("batch", 1280)]
    assert {spec.name: spec.shape for spec in segment.inputs} == {
        **{name: shape for name, shape in shapes.items() if name != "logits"}, "guide": ("batch", 1280),
    }  # fmt: skip
    # What stays on the device is half as large in fp16; what the host reads is fp32 all the same.
    kinds = {spec.name: spec.dtype for spec in embed.at("fp16").outputs}
    assert kinds == {**dict.fromkeys(("f1", "f2", "f3", "f4", "f5"), "float16"), "logits": "float32"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["embed", "consensus", "segment"])
@pytest.mark.parametrize(("backbone", "induction"), FORMS[:2], ids=str)
def test_tensorrt_rtx_builds_every_graph(
    model_of: Models, tmp_path: Path, backbone: str, induction: str, name: str, precision: Precision
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'salience[tensorrt-rtx]'")
    file = tmp_path / f"{name}.onnx"
    onnx.save(model_of(backbone, induction, precision, name), file)
    engine = compile_tensorrt_rtx(file, profile=(1, 2, 4))
    assert len(engine.plan) > 1000
    assert engine.profile == (1, 2, 4)
