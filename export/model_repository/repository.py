"""Write a model repository: a folder for every model, and the bundle beside the public one."""

import re
import shutil
from pathlib import Path

from salience.runtime.backends.engine import EngineOptions
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.bundle import Bundle
from salience.runtime.errors import ExportError
from salience.runtime.manifest import HOST_GRAPHS, MANIFEST_FILE, EngineEntry, Precision
from salience.runtime.methods import METHODS
from salience.runtime.tables import entry
from salience.runtime.triton_interface import BUNDLE_FOLDER, graph_model

from ..bundle import new_folder
from .configs import Serving, graph_config, makes_batches, public_config
from .text_format import Message, message_text

VERSION = "1"
_MODEL = Path(__file__).with_name("public_model.py")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def write_repository(bundle: Bundle, output: Path, serving: Serving) -> list[str]:
    """Write the models of `bundle` to the new folder `output`, whole or not at all.

    Returns:
        The names of the models, the public one first.

    Raises:
        BundleError: the bundle is damaged, or lacks the precision.
        ExportError: `output` is taken, or the bundle cannot be served so.
    """
    _check(output, serving)
    entry(METHODS, bundle.manifest.method, what="method")
    # Before anything is written: what a graph cannot be served by is told.
    for graph in bundle.manifest.graphs:
        _source(bundle, graph, serving)
    with new_folder(output) as folder:
        public = folder / serving.name / VERSION
        _copy_bundle(bundle, public / BUNDLE_FOLDER)
        copied = Bundle(public / BUNDLE_FOLDER)
        shutil.copyfile(_MODEL, public / "model.py")
        _write_config(public.parent, public_config(bundle.manifest.method, serving))
        for graph in bundle.manifest.graphs:
            _write_graph(folder, copied, graph, serving)
    return [serving.name, *(graph_model(serving.name, graph) for graph in bundle.manifest.graphs)]


def _write_graph(folder: Path, bundle: Bundle, graph: str, serving: Serving) -> None:
    source, engine = _source(bundle, graph, serving)
    model = folder / graph_model(serving.name, graph)
    (model / VERSION).mkdir(parents=True)
    shutil.copyfile(source, model / VERSION / ("model.onnx" if engine is None else "model.plan"))
    interface = bundle.manifest.graphs[graph].at(_precision(graph, serving))
    _write_config(model, graph_config(graph, interface, serving, engine))


def _source(bundle: Bundle, graph: str, serving: Serving) -> tuple[Path, EngineEntry | None]:
    """The file that is served, and what the bundle says of it where it is an engine."""
    precision = _precision(graph, serving)
    path = bundle.graph_file(graph, precision)
    if serving.backend == "onnxruntime" or graph in HOST_GRAPHS:
        refusal = OnnxRuntimeEngine.refuses(precision, EngineOptions())
        if refusal:
            raise ExportError(f"{refusal}.")
        return path, None
    key = (graph, precision, serving.backend)
    engine = next((e for e in bundle.manifest.engines if (e.graph, e.precision, e.builder) == key), None)
    if engine is None:
        raise ExportError(
            f"bundle {bundle.path}: {graph} {precision} has no engine of TensorRT; build it on the GPU that will serve "
            f"it: python export/build_engine.py {bundle.manifest.method} --precision {precision} --engine tensorrt"
        )
    low, _, high = engine.profile
    largest = serving.max_batch if makes_batches(bundle.manifest.graphs[graph]) else 1
    if low > 1 or largest > high:
        raise ExportError(
            f"engine {engine.file}: was built for batches of {low} to {high}, expected 1 to {largest}; "
            "choose another --max-batch, or build it with another --batch."
        )
    return bundle.path / engine.file, engine


def _precision(graph: str, serving: Serving) -> Precision:
    return "fp32" if graph in HOST_GRAPHS else serving.precision


def _copy_bundle(bundle: Bundle, target: Path) -> None:
    target.mkdir(parents=True)
    for name in (*bundle.manifest.files, MANIFEST_FILE):
        shutil.copyfile(bundle.path / name, target / name)


def _write_config(model: Path, config: Message) -> None:
    (model / "config.pbtxt").write_text(message_text(config))


def _check(output: Path, serving: Serving) -> None:
    if not _NAME.fullmatch(serving.name):
        raise ExportError(
            f"--name {serving.name!r}: cannot name a model, expected up to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or digit."
        )
    if serving.backend == "tensorrt" and serving.device == "cpu":
        raise ExportError("--backend tensorrt: runs on a GPU, got --device cpu; leave one of them out.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ExportError(f"output {output}: exists and is not empty; choose another folder or remove it.")
