"""PyTorch module -> ONNX model, with a free batch dimension."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from salience.runtime.errors import ExportError
from salience.runtime.manifest import Precision, TensorSpec

from .bfloat16 import settle_types
from .graph import Graph
from .masks import name_masks
from .operators import DOMAIN, DOMAIN_VERSION, attach_functions
from .opset import BF16_OPSET, IR_VERSION, OPSET
from .reverse_mode import capture
from .rewrites import REWRITES, Rewrite

# torch.export treats sizes 0 and 1 as special, so the example batch is larger; no check uses it.
TRACED_BATCH = 3


def trace(graph: Graph, precision: Precision, rewrites: Sequence[Rewrite] = REWRITES) -> ModelProto:
    """Export `graph` in `precision`, then change it by `rewrites`.

    Raises:
        ExportError: the exporter fails, or the result is not what it should be.
    """
    if precision == "fp16-weights":
        return halve_weights(trace(graph, "fp32", rewrites))
    if precision == "int8":
        raise ExportError(f"graph {graph.name}: int8 is made of its fp32 file by export.int8, which calibrates.")
    opset = BF16_OPSET if precision == "bf16" else OPSET
    module, interface = graph.at(precision), graph.entry({precision: graph.name}).at(precision)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    dynamic = tuple({0: batch} if spec.shape[0] == "batch" else {} for spec in graph.inputs)
    examples = tuple(
        torch.zeros(_shape(spec, TRACED_BATCH), dtype=getattr(torch, spec.dtype)) for spec in interface.inputs
    )
    module.eval()
    if graph.takes_gradients:
        module = capture(module, examples, batched=[i for i, s in enumerate(graph.inputs) if s.shape[0] == "batch"])
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=opset,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_shapes=(dynamic,),  # the module takes *inputs, which counts as one argument
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"graph {graph.name} ({precision}): PyTorch's exporter failed ({error}).") from error
    if program is None:
        raise ExportError(f"graph {graph.name} ({precision}): PyTorch's exporter returned nothing.")
    model = finish(program.model_proto, graph.name, opset)
    if precision == "bf16":
        settle_types(model)
    for rewrite in rewrites:
        rewrite(model)
    name_masks(model)
    onnx.checker.check_model(model)
    check_interface(model, interface.inputs, interface.outputs)
    if any(True for _ in graph.module.parameters()):
        check_precision(model, precision)
    return model


def finish(model: ModelProto, name: str, opset: int) -> ModelProto:
    """Attach function bodies, pin versions, drop the exporter's notes, and check."""
    attach_functions(model)
    model.ir_version = IR_VERSION
    model.graph.name = name
    domains = {"": opset} | ({DOMAIN: DOMAIN_VERSION} if model.functions else {})
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in domains.items())
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model)
    return model


def check_interface(model: ModelProto, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    """Raise ExportError unless names, types and shapes of `model` are those given."""
    for values, specs in ((model.graph.input, inputs), (model.graph.output, outputs)):
        got = [(v.name, v.type.tensor_type.elem_type, *map(_dimension, v.type.tensor_type.shape.dim)) for v in values]
        want = [(spec.name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), *spec.shape) for spec in specs]
        if got != want:
            raise ExportError(f"graph {model.graph.name}: its interface is {got}, expected {want}.")


def check_precision(model: ModelProto, precision: Precision) -> None:
    """Raise ExportError unless every weight has the type that `precision` promises.

    Biases, constants of shapes and single numbers may have another; a weight has more than one dimension.
    """
    wanted = {"fp32": TensorProto.FLOAT, "bf16": TensorProto.BFLOAT16}.get(precision, TensorProto.FLOAT16)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
    weights = [w for w in model.graph.initializer if sum(side > 1 for side in w.dims) > 1 and w.data_type in floats]
    wrong = [w.name for w in weights if w.data_type != wanted]
    if wrong or not weights:
        raise ExportError(f"graph {model.graph.name}: not {precision}; weights of another type: {wrong or 'all'}.")


def halve_weights(model: ModelProto) -> ModelProto:
    """A copy of an fp32 `model` whose weights are stored as fp16, each with a Cast to fp32 behind it.

    Runtimes fold the casts when they load, so it runs at the speed of `model` from half the space.

    Raises:
        ExportError: a weight does not fit the range of fp16.
    """
    halved = ModelProto()
    halved.CopyFrom(model)
    casts = []
    for weight in halved.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ExportError(f"graph {model.graph.name}: weight {name} exceeds fp16's range; export it as fp32.")
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    onnx.checker.check_model(halved)
    if casts:
        check_precision(halved, "fp16-weights")
    return halved


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if isinstance(side, str) else side for side in spec.shape)


def _dimension(dim: "onnx.TensorShapeProto.Dimension") -> int | str:
    return dim.dim_param or dim.dim_value
