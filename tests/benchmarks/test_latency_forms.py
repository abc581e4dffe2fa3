"""What `benchmarks.latency` calls computes what it says, and as much of it as it counts."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import nn

from benchmarks.arithmetic import convolutions, measure_peak, operations
from benchmarks.forms import Form, OurForms, Workload
from benchmarks.fresh import in_new_process
from benchmarks.latency import main
from benchmarks.latency_record import Record
from benchmarks.networks import write_bundle, write_calibration, write_checkpoint
from benchmarks.peers import NoRandomValues, PlainDescent, TorchForms, paper_maps, reason
from salience.export.bundle import file_entries, write_manifest
from salience.export.operations import multiply_adds
from salience.runtime.low_level import Descent
from salience.runtime.manifest import GraphEntry, Manifest, TensorSpec
from salience.training.networks.cgd import ClassifierOutput
from salience.training.networks.gicd import GradientInduced, GradientInducedSettings

PRODUCT = 5 * 7 * 2  # multiplications and additions of (1, 5) by (5, 7)


def bundle_of_products(folder: Path, *graphs: str) -> None:
    """A bundle whose graphs are each one product of a matrix."""
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 5))
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[batch, 5] x) => (float[batch, 7] y) {y = MatMul (x, w)}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((5, 7), np.float32), "w"))
    model.graph.node[0].name = "product"
    folder.mkdir()
    for graph in graphs:
        onnx.save(model, folder / f"{graph}.onnx")
    entries = {name: GraphEntry(inputs=(spec,), outputs=(spec,), files={"fp32": f"{name}.onnx"}) for name in graphs}
    manifest = Manifest(
        method="lps", created="", input_size=(64, 64), default_precision="fp32", graphs=entries,
        files=file_entries(folder), provenance={},
    )  # fmt: skip
    write_manifest(folder, manifest)


@pytest.mark.parametrize(
    ("method", "graphs", "batch", "products"),
    [
        ("multis", ("preprocess", "saliency", "postprocess"), 8, 1),
        ("lps", ("embed", "refine", "prior"), 1, 1 + 10),
        ("cgd", ("descend",), 1, 10),
        ("gicd", ("embed", "consensus", "segment"), 1, 2 + 1 / 4),
        ("gicd", ("embed", "consensus", "segment"), 8, 2 + 1 / 8),
    ],
)
def test_operations_are_those_of_one_picture(
    method: str, graphs: tuple[str, ...], batch: int, products: float, tmp_path: Path
) -> None:
    workload = Workload(method, "vgg16", (64, 64), tmp_path)
    bundle_of_products(workload.bundle("fp32"), *graphs)
    assert operations(workload, "fp32", batch) == 2 * round(products * PRODUCT / 2)


@pytest.mark.parametrize("kind", ["fp32", "int8", "uint8"])
def test_the_peak_counts_what_its_convolutions_compute(kind: str) -> None:
    model = convolutions(kind, 8, 10)
    for index, node in enumerate(model.graph.node):
        node.name = str(index)
    assert sum(multiply_adds(model).values()) == 4 * 8 * 8 * 9 * 10 * 10


def test_the_peak_is_the_best_of_all() -> None:
    found = measure_peak(1, channels=8, positions=8, side=16)
    assert found.fp32 == max(value for name, value in found.by.items() if name.startswith("fp32"))
    assert found.int8 == max(value for name, value in found.by.items() if "int8" in name)
    assert len(found.by) == 7


class Linear(nn.Module):
    """A classifier whose gradient is known: its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.tensor([[[[2.0, -1.0], [1.0, 0.5]]], [[[-3.0, 0.0], [0.0, 1.0]]]])

    def forward(self, image: torch.Tensor) -> ClassifierOutput:
        return ClassifierOutput((image[:, None] * self.weight[None]).sum(dim=(2, 3, 4)))


def test_the_plain_descent_follows_the_clamped_gradient() -> None:
    network = Linear()
    image = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[-1.0, 0.0], [0.0, 0.0]]]])  # seen as classes 0 and 1
    one = PlainDescent(network, Descent(iterations=1, step=2.0, gamma=1.0))(image)
    gradients = network.weight.relu() / network.weight.relu().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(one, image - 2 * gradients)
    # From the second step on the other class is held where it was.
    two = PlainDescent(network, Descent(iterations=2, step=2.0, gamma=1.0))
    alone = torch.cat([two(image[:1]), two(image[1:])])
    torch.testing.assert_close(two(image), alone)
    change = network(one).logits - network(image).logits
    pull = network.weight + torch.stack([change[0, 1] * network.weight[1], change[1, 0] * network.weight[0]])
    pull = pull.relu() / pull.relu().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(two(image), one - 2 * pull)


def test_the_paper_s_maps_by_autograd_are_the_network_s() -> None:
    torch.manual_seed(0)
    network = GradientInduced(GradientInducedSettings(backbone="mobilenet_v2", width=4)).eval().requires_grad_(False)
    images = torch.randn(3, 3, 32, 64)
    torch.testing.assert_close(paper_maps(network, images), network(images).saliency, rtol=1e-4, atol=1e-5)


def test_networks_can_be_made_without_random_values() -> None:
    values = torch.full((2, 2), 3.0)
    with NoRandomValues():
        nn.init.normal_(tensor=values)
        nn.init.kaiming_normal_(values)
        assert nn.Linear(2, 3).weight.shape == (3, 2)
    assert (values == 3).all()
    nn.init.normal_(values)
    assert (values != 3).all()


def test_the_reason_is_the_first_sentence_at_the_bottom() -> None:
    error = RuntimeError("Step 1/3 failed")
    error.__cause__ = ValueError("\x1b[96mNo kernel for it.\x1b[0m Report it at some address.")
    assert reason(error) == "ValueError: No kernel for it"
    assert reason(KeyError()) == "KeyError"


def test_a_new_process_that_fails_says_why(tmp_path: Path) -> None:
    workload = Workload("multis", "vgg16", (64, 64), tmp_path)
    with pytest.raises(RuntimeError, match="BundleError"):
        in_new_process("memory", workload, Form("salience", 1, 1, "onnxruntime"))


@pytest.mark.parametrize(
    ("method", "batch", "count"), [("multis", 3, 3), ("lps", 2, 2), ("gicd", 1, 4), ("gicd", 8, 8)]
)
def test_prepared_pictures_are_the_plain_inputs(method: str, batch: int, count: int) -> None:
    workload = Workload(method, "vgg16", (32, 64), Path())
    inputs, prepared = workload.inputs(batch), workload.prepared(batch)
    assert len(prepared) == count
    names = ("tensor", "prior") if method == "lps" else ("tensor",)
    for name, values in zip(names, inputs, strict=True):
        assert np.array_equal(np.concatenate([getattr(row, name) for row in prepared]), values)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["multis", "arn", "lps", "cgd", "gicd"])
def test_eager_and_ours_compute_the_same(method: str, tmp_path: Path) -> None:
    workload = Workload(method, "mobilenet_v2", (64, 64), tmp_path, iterations=2)
    write_checkpoint(workload)
    write_bundle(workload, "fp32", write_calibration(tmp_path / "calibration"))
    ours: Any = OurForms(workload).open(Form("salience", 2, 1, "onnxruntime"))()
    expected: Any = TorchForms(workload).open(Form("eager", 2, 1))()
    if method == "cgd":
        ours = np.stack([found.image for found in ours])
    if method == "gicd":
        ours = np.stack([values for _, _, values in sorted(ours, key=lambda item: item[0])])
    ours = ours[:, -1] if method == "lps" else ours
    assert ours.shape == expected.shape
    # Random weights amplify the rounding of other convolution algorithms; other arithmetic is off by a tenth or more.
    assert np.linalg.norm(ours - expected.numpy()) < 2e-3 * np.linalg.norm(expected.numpy())


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["latency", "--methods", "multis", "--backbone", "mobilenet_v2", "--size", "64", "64", "--batches", "1",
               "--threads", "1", "--rounds", "2", "--no-peers", "--json", str(tmp_path / "run.json"), "--markdown",
               str(tmp_path / "run.md"), "--plot", str(tmp_path / "run.png")]  # fmt: skip
    monkeypatch.setattr("sys.argv", command)
    main()
    found = Record.read(tmp_path / "run.json")
    assert [row.form for row in found.rows if row.reason] == []
    assert {len(row.samples_ms) for row in found.rows} == {2}
    assert all(row.peak_bytes and row.cold_start_s and row.to_eager for row in found.rows)
    assert all(row.share_of_peak for row in found.rows if row.kind == "salience")
    assert (tmp_path / "run.md").read_text().count("| salience, ") == 4
