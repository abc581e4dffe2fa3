"""Every method's graphs against PyTorch, on inputs and batches that were not traced, in every precision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from salience.export.graph import Graph, MethodExport
from salience.export.graphs import GRAPHS
from salience.export.operators import DOMAIN
from salience.export.tracing import check_precision, trace
from salience.export.verify import reference_type
from salience.runtime.errors import ExportError
from salience.runtime.manifest import HOST_GRAPHS, GraphEntry, Manifest, Precision, Verification
from salience.runtime.methods import METHODS
from salience.runtime.tables import entry
from salience.training.checkpoint import load_checkpoint
from salience.training.networks import NETWORKS
from salience.training.recipes import RECIPES

onnxruntime = pytest.importorskip("onnxruntime")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "fp16-weights")
# What each method's graphs are, and the nodes of the `salience` domain in them.
NODES = {
    ("multis", "saliency"): ["MaxoutFusion"],
    ("arn", "saliency"): [],
    ("lps", "embed"): ["CentredNorm", "SubpixelConcat"],
    ("lps", "refine"): ["AnchorDistance"],
    ("cgd", "descend"): ["ReluBackward"],
    ("gicd", "embed"): [],
    ("gicd", "consensus"): [],
    ("gicd", "segment"): [],
}
FP32_NODES = {"CentredNorm", "ReluBackward"}
SLOW = pytest.mark.slow
EACH_GRAPH = pytest.mark.parametrize(("method", "name"), NODES)


@pytest.fixture(scope="module")
def graph_of(checkpoints: dict[str, Path]) -> Callable[[str, str], Graph]:
    def found(method: str, name: str) -> Graph:
        header, network = load_checkpoint(checkpoints[method])
        export: MethodExport = entry(GRAPHS, method, what="method")()
        return {graph.name: graph for graph in export.graphs(network, header.preprocessing.size)}[name]

    return found


def load_model(bundle: Path, name: str, precision: Precision) -> onnx.ModelProto:
    return onnx.load(bundle / (f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"))


def graph_entry(bundle: Path, name: str, precision: Precision = "fp32") -> GraphEntry:
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_bytes())
    return manifest.graphs[name].at(precision)


def run(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], batch: int) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    values = {i.name: feeds[i.name].astype(kinds[i.type]) for i in session.get_inputs()}
    free = [i.name for i in session.get_inputs() if i.shape[0] == "batch"]
    parts = []
    for start in range(0, len(feeds[free[0]]), batch):
        cut = {name: values[name][start : start + batch] for name in free}
        parts.append(session.run(None, values | cut))
    columns = zip(session.get_outputs(), zip(*parts, strict=True), strict=True)
    joined = [np.concatenate(column) if output.shape[0] == "batch" else column[0] for output, column in columns]
    return [output.astype(np.float32) for output in joined]


def images_of(graph: Graph, batch: int) -> Tensor:
    """Network input that no check of the build has seen."""
    size = (64, 96)
    assert graph.feeds is not None or graph.inputs[0].shape[2:] == size
    return torch.from_numpy(np.random.default_rng(batch).standard_normal((batch, 3, *size), dtype=np.float32))


@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=SLOW), 3, pytest.param(5, marks=SLOW)])
@pytest.mark.parametrize("precision", PRECISIONS)
@EACH_GRAPH
def test_graphs_equal_pytorch(
    graph_of: Callable[[str, str], Graph],
    bundle_of: Callable[[str], Path],
    method: str,
    name: str,
    precision: Precision,
    batch: int,
) -> None:
    graph = graph_of(method, name)
    # One decision of a ReLU that flips is a part of a gradient, so it takes several pictures to judge one.
    count = 10 if graph.takes_gradients else batch
    reference = reference_type(graph)(graph, images_of(graph, count))
    expected = list(reference.expected.values())
    found = run(load_model(bundle_of(method), name, precision), reference.feeds, batch)
    errors = [np.linalg.norm(got - want) / np.linalg.norm(want) for got, want in zip(found, expected, strict=True)]
    assert max(errors) < reference.tolerance(precision)
    if batch > 1:
        # At its iteration 1 `refine` gives the mean of the map and of the prior, which is the same in all pictures.
        least = 0.005 if name == "refine" else 0.01
        spread = expected[0].std(axis=0).mean() / np.abs(expected[0]).mean()
        assert float(spread) > least, "what ignores the picture would agree with anything"
    if precision == "fp16" or (precision == "fp16-weights" and any(True for _ in graph.module.parameters())):
        assert max(errors) > 1e-6, "a half-precision file cannot be this exact: is it fp32?"


@EACH_GRAPH
def test_precisions_are_in_the_file(bundle_of: Callable[[str], Path], method: str, name: str) -> None:
    for precision in PRECISIONS:
        model = load_model(bundle_of(method), name, precision)
        matrices = [
            w for w in model.graph.initializer
            if sum(side > 1 for side in w.dims) > 1 and w.data_type != TensorProto.INT64
        ]  # fmt: skip
        wanted = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
        assert {w.data_type for w in matrices} <= {wanted}
        interface = graph_entry(bundle_of(method), name, precision)
        for values, specs in ((model.graph.input, interface.inputs), (model.graph.output, interface.outputs)):
            kinds = [onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name for v in values]
            assert kinds == [spec.dtype for spec in specs]


def test_a_file_of_another_precision_is_told(bundle: Path) -> None:
    with pytest.raises(ExportError, match="not fp16"):
        check_precision(load_model(bundle, "saliency", "fp32"), "fp16")
    with pytest.raises(ExportError, match="not fp32"):
        check_precision(load_model(bundle, "saliency", "fp16"), "fp32")


def test_fp16_computes_in_fp16(bundle: Path) -> None:
    """Between the casts at both ends no tensor is fp32."""
    model = onnx.inliner.inline_local_functions(load_model(bundle, "saliency", "fp16"))
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    outside = {v.name for v in (*model.graph.input, *model.graph.output)}
    inner = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info if v.name not in outside}
    assert inner
    assert TensorProto.FLOAT not in inner.values()


def test_what_stays_on_the_device_is_half_as_large_in_fp16(bundle_of: Callable[[str], Path]) -> None:
    entries = [graph_entry(bundle_of("lps"), name, "fp16") for name in ("embed", "refine")]
    kinds = [{s.name: s.dtype for s in (*e.inputs, *e.outputs)} for e in entries]
    assert [kind["embedding"] for kind in kinds] == ["float16", "float16"]
    assert kinds[1]["prior"] == kinds[1]["next_prior"] == "float32"


@EACH_GRAPH
def test_operators_of_ours_are_nodes_with_their_bodies(
    bundle_of: Callable[[str], Path], method: str, name: str
) -> None:
    for precision in PRECISIONS:
        model = load_model(bundle_of(method), name, precision)
        wanted = [n for n in NODES[method, name] if precision != "fp16" or n not in FP32_NODES]
        assert sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN}) == wanted
        assert [(f.domain, f.name) for f in model.functions] == [(DOMAIN, operator) for operator in wanted]
        for function in model.functions:
            assert not [node for node in function.node if node.domain not in ("", "ai.onnx")]


@EACH_GRAPH
def test_the_batch_is_free_and_the_rest_fixed(bundle_of: Callable[[str], Path], method: str, name: str) -> None:
    for precision in PRECISIONS:
        model = load_model(bundle_of(method), name, precision)
        interface = graph_entry(bundle_of(method), name)
        for values, specs in ((model.graph.input, interface.inputs), (model.graph.output, interface.outputs)):
            for value, spec in zip(values, specs, strict=True):
                dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                assert dims == list(spec.shape)
                assert dims[0] == "batch" or (len(dims) == 1 and "batch" not in spec.shape)


@pytest.mark.parametrize("method", GRAPHS)
def test_files_hold_no_paths_of_the_machine_that_made_them(bundle_of: Callable[[str], Path], method: str) -> None:
    for file in bundle_of(method).iterdir():
        assert b"site-packages" not in file.read_bytes(), file.name
        assert str(Path.home()).encode() + b"/" not in file.read_bytes(), file.name


@pytest.mark.parametrize("method", GRAPHS)
def test_every_comparison_of_the_build_is_recorded(bundle_of: Callable[[str], Path], method: str) -> None:
    bundle = bundle_of(method)
    record = Verification.model_validate_json((bundle / "verification.json").read_bytes())
    assert record.passed
    graphs = [name for owner, name in NODES if owner == method]
    found = {(c.graph, c.precision, c.backend, c.batch) for c in record.tensors if c.graph in graphs}
    backends, batches = ("onnxruntime", "openvino"), (1, 2, 5)
    assert found == {(g, p, b, n) for g in graphs for p in PRECISIONS for b in backends for n in batches}
    assert {c.graph for c in record.tensors} - set(graphs) <= set(HOST_GRAPHS)
    # Gradients have an allowance of their own, see `verify.GradientReference`.
    exact = [c for c in record.tensors if c.graph in graphs and c.precision == "fp32" and c.graph != "descend"]
    assert all(c.relative < 1e-4 for c in exact)


def test_an_exporter_failure_is_one_sentence(graph_of: Callable[[str, str], Graph]) -> None:
    class Impossible(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if bool(image.sum() > 0) else -image

    graph = graph_of("multis", "saliency")
    broken = Graph("saliency", Impossible(), Impossible(), graph.inputs, graph.outputs)
    with pytest.raises(ExportError, match=r"graph saliency \(fp32\)"):
        trace(broken, "fp32")


def test_every_method_stands_in_every_table() -> None:
    assert NETWORKS.keys() == RECIPES.keys() == GRAPHS.keys() == METHODS.keys()
    assert {method for method, _ in NODES} == GRAPHS.keys()
