"""What a graph in bfloat16 needs: weights rounded once, types that the exporter loses, layers that no builder has."""

import itertools

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(module: nn.Module) -> None:
    """Put batch norms into the convolutions before them, while both are fp32.

    The exporter would do it after rounding both to 8 bits, of which a norm's are wrong for a whole channel: the maps of
    trained `multis` were .14 off instead of .056, those of `arn` .058 instead of .051. It still does where the two do
    not follow each other in one `Sequential`.
    """
    for row in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for place, (layer, norm) in enumerate(itertools.pairwise(list(row))):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                row[place], row[place + 1] = fuse_conv_bn_eval(layer.eval(), norm.eval()), nn.Identity()


def settle_types(model: ModelProto) -> None:
    """Give convolutions bfloat16 weights and biases again, and compute transposed ones in fp32.

    The exporter folds batch norms into convolutions by NumPy, where bfloat16 becomes fp32, and notes the types that
    follow. TensorRT and TensorRT-RTX know no transposed convolution in bfloat16; its weights are stored in it all the
    same, and the builders fold the casts.
    """
    _narrow(model)
    nodes = [
        step for node in model.graph.node for step in (_widened(node) if node.op_type == "ConvTranspose" else [node])
    ]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)


def _narrow(model: ModelProto) -> None:
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    names = {name for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose") for name in node.input[1:]}
    for tensor in model.graph.initializer:
        if tensor.name in names and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(bfloat16), tensor.name))


def _widened(node: NodeProto) -> list[NodeProto]:
    """`node` from and to bfloat16, with fp32 between."""
    name = node.output[0]
    inside = NodeProto()
    inside.CopyFrom(node)
    del inside.input[:], inside.output[:]
    inside.input.extend(f"{name}.from{place}" for place in range(len(node.input)))
    inside.output.append(f"{name}.fp32")
    casts = [_cast(old, new, TensorProto.FLOAT) for old, new in zip(node.input, inside.input, strict=True)]
    return [*casts, inside, _cast(inside.output[0], name, TensorProto.BFLOAT16)]


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], to=kind)
