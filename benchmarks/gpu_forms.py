"""What the GPU check times: five methods at the papers' sizes with random weights, by plain PyTorch and by ours."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.forms import Call, Form, Workload, engine_call
from benchmarks.gpu_material import build_bundle, torch_detector, works
from benchmarks.gpu_record import Setting
from benchmarks.networks import write_checkpoint
from benchmarks.peers import TorchForms
from salience.runtime import load

Open = Callable[[], Call]

# As the papers measure.
ITERATIONS = {"lps": 3, "cgd": 10}
_SIZES = {"lps": (256, 256)}
_QUICK_SIZE = (64, 64)
_COMPILED = ("tensorrt-rtx", "tensorrt")
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def workload_of(method: str, setting: Setting) -> Workload:
    """The method's network with random weights and its fp16 bundle, in the check's folder; VGG16 but for `quick`."""
    size = _QUICK_SIZE if setting.quick else _SIZES.get(method, (224, 224))
    workload = Workload(
        method,
        "mobilenet_v2" if setting.quick else "vgg16",
        size,
        setting.folder / f"speed-{method}",
        iterations=ITERATIONS.get(method, 1),
    )
    if not workload.checkpoint.exists():
        workload.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(workload)
    build_bundle(workload.checkpoint, workload.bundle("fp16"), "fp16", engine="onnxruntime")
    return workload


def forms(workload: Workload, batch: int, setting: Setting) -> dict[str, Open]:
    """By name, what opens each form."""
    found: dict[str, Open] = {
        f"PyTorch eager, {precision}": partial(torch_call, workload, batch, precision, setting.device)
        for precision in _DTYPES
    }
    found["salience, PyTorch"] = partial(_on_torch, workload, batch, setting.device)
    if setting.device != "cpu":
        found["salience, PyTorch, CUDA graphs"] = partial(_on_torch, workload, batch, setting.device, replayed=True)
    if works("onnxruntime", setting.device):
        found["salience, ONNX Runtime"] = partial(_on_engine, workload, batch, setting.device, "onnxruntime")
        if setting.device != "cpu":
            found["salience, ONNX Runtime, CUDA graphs"] = partial(
                _on_engine, workload, batch, setting.device, "onnxruntime", cuda_graph=True
            )
    for backend in _COMPILED:
        if works(backend, setting.device):
            found[f"salience, {backend}"] = partial(_on_engine, workload, batch, setting.device, backend)
    return found


def torch_call(workload: Workload, batch: int, precision: str, device: str, *, compile_it: bool = False) -> Call:
    """Plain PyTorch, weights and inputs on the device in this type, mixed for fp16; see `peers.TorchForms`."""
    plain = TorchForms(workload).module(Form("compile" if compile_it else "eager", batch, 1))
    module: nn.Module = plain.to(device, _DTYPES[precision])
    inputs = [torch.from_numpy(values).to(device, _DTYPES[precision]) for values in workload.inputs(batch)]
    takes_gradients = workload.method in ("cgd", "gicd")

    def call() -> Tensor:
        mixed = torch.autocast(torch.device(device).type, torch.float16, enabled=precision == "fp16")
        with torch.inference_mode(mode=not takes_gradients), mixed:
            found: Tensor = module(*inputs)
        return found

    return call


def _on_torch(workload: Workload, batch: int, device: str, *, replayed: bool = False) -> Call:
    detector = torch_detector(workload.checkpoint, workload.bundle("fp16"), "fp16", device, replayed=replayed)
    return engine_call(detector, workload, batch)


def _on_engine(workload: Workload, batch: int, device: str, backend: Any, **options: Any) -> Call:
    bundle = workload.bundle("fp16")
    if backend in _COMPILED:
        bundle = build_bundle(workload.checkpoint, workload.bundle(f"fp16-{backend}"), "fp16", engine=backend)
    detector = load(bundle, backend=backend, device=device, precision="fp16", kernels="none", **options)
    return engine_call(detector, workload, batch)
