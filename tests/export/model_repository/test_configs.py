"""Configurations as Triton's own protobuf reads them. The server itself was not run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format

from salience.export.model_repository.text_format import Word, message_text
from salience.runtime.bundle import Bundle
from salience.runtime.manifest import HOST_GRAPHS
from salience.runtime.methods import METHODS

from .stand_in import TYPES, model_config_type, parse_config

# By graph, whether several requests may share a call.
BATCHED = {"saliency", "embed", "consensus", "segment"}


def declared(specs: Any, batch: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and dims by name."""
    kinds = specs[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return {s.name: (kinds[s.data_type].name, (*([-1] if batch else []), *s.dims)) for s in specs}


def real(values: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Likewise, of an ONNX file's inputs or outputs."""
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        kind = next(name for name, known in TYPES.items() if dtype == known)
        found[value.name] = (kind, tuple(-1 if d.dim_param else d.dim_value for d in tensor.shape.dim))
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_configurations_say_what_the_files_are(write: Callable[..., Path], method: str, precision: str) -> None:
    repository = write(method, precision=precision, max_batch=4)
    bundle = Bundle(repository / "eye" / "1" / "bundle")
    assert {model.name for model in repository.iterdir()} == {"eye", *(f"eye_{g}" for g in bundle.manifest.graphs)}
    for graph in bundle.manifest.graphs:
        config = parse_config(repository / f"eye_{graph}")
        model = onnx.load(repository / f"eye_{graph}" / "1" / "model.onnx")
        batched = config.max_batch_size > 0
        assert batched == (graph in BATCHED), graph
        assert declared(config.input, batched) == real(model.graph.input)
        assert declared(config.output, batched) == real(model.graph.output)
        assert config.platform == "onnxruntime_onnx"


def test_graphs_share_calls_where_their_first_dimension_is_a_batch(write: Callable[..., Path]) -> None:
    repository = write("lps", max_batch=6, max_delay_us=250, instances=3, device="gpu")
    embed, refine = (parse_config(repository / f"eye_{graph}") for graph in ("embed", "refine"))
    assert embed.max_batch_size == 6
    assert list(embed.dynamic_batching.preferred_batch_size) == [3, 6]
    assert embed.dynamic_batching.max_queue_delay_microseconds == 250
    assert [group.count for group in embed.instance_group] == [1]
    assert refine.max_batch_size == 0
    assert not refine.HasField("dynamic_batching")
    assert [group.count for group in refine.instance_group] == [3]


def test_one_picture_a_call_needs_no_batching(write: Callable[..., Path]) -> None:
    config = parse_config(write("multis", max_batch=1) / "eye_saliency")
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_host_graphs_and_the_public_model_stay_on_the_cpu(write: Callable[..., Path], device: str) -> None:
    repository = write("lps", device=device)
    for model in repository.iterdir():
        (group,) = parse_config(model).instance_group
        on_cpu = model.name == "eye" or model.name.removeprefix("eye_") in HOST_GRAPHS or device == "cpu"
        assert group.kind == (group.KIND_CPU if on_cpu else group.KIND_GPU), model.name


@pytest.mark.parametrize(
    ("method", "inputs", "outputs"),
    [
        ("multis", {"image", "image_pixels"}, {"saliency", "saliency_pixels"}),
        ("lps", {"image", "image_pixels", "prior", "prior_pixels"}, {"saliency", "saliency_pixels"}),
        ("cgd", {"image", "image_pixels"}, {"saliency", "saliency_pixels", "class", "probability"}),
    ],
)
def test_the_public_model_takes_pictures(
    write: Callable[..., Path], method: str, inputs: set[str], outputs: set[str]
) -> None:
    config = parse_config(write(method, instances=5) / "eye")
    assert {spec.name for spec in config.input} == inputs
    assert all(spec.optional for spec in config.input)
    assert {spec.name for spec in config.output} == outputs
    assert (config.backend, config.max_batch_size, config.instance_group[0].count) == ("python", 0, 5)
    assert config.parameters["precision"].string_value == "fp32"


def test_texts_are_read_back_as_they_were() -> None:
    odd = 'quote " and \\ and \n and é \0'
    text = message_text({"name": odd, "input": [{"name": "x", "data_type": Word("TYPE_FP32"), "dims": [-1, 3]}]})
    parsed = text_format.Parse(text, model_config_type()())
    assert parsed.name == odd
    assert list(parsed.input[0].dims) == [-1, 3]
