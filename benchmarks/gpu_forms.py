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

# A form is opened once, and then gives a call for each batch.
CallOf = Callable[[int], Call]
Open = Callable[[], CallOf]

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


def forms(workload: Workload, setting: Setting) -> dict[str, Open]:
    """By name, what opens each form; those that the others are measured against come first."""
    device, on_gpu = setting.device, setting.device != "cpu"
    found: dict[str, Open] = {
        f"PyTorch eager, {precision}": partial(plain_calls, workload, precision, device) for precision in _DTYPES
    }
    for backend in ("onnxruntime", *_COMPILED):
        if works(backend, device):
            if backend == "onnxruntime" and on_gpu:
                found[f"salience, {backend}, CUDA graphs"] = partial(_calls, workload, device, backend, cuda_graph=True)
            found[f"salience, {backend}"] = partial(_calls, workload, device, backend)
    if on_gpu:
        found["salience, PyTorch, CUDA graphs"] = partial(_torch_calls, workload, device, replayed=True)
    found["salience, PyTorch"] = partial(_torch_calls, workload, device)
    return found


def plain_calls(workload: Workload, precision: str, device: str, *, compile_it: bool = False) -> CallOf:
    """Plain PyTorch, weights and inputs on the device in this type, mixed for fp16; see `peers.TorchForms`."""
    dtype = _DTYPES[precision]
    plain = TorchForms(workload).module(Form("compile" if compile_it else "eager", 1, 1))
    module: nn.Module = plain.to(device, dtype)
    takes_gradients = workload.method in ("cgd", "gicd")

    def call_of(batch: int) -> Call:
        inputs = [torch.from_numpy(values).to(device, dtype) for values in workload.inputs(batch)]

        def call() -> Tensor:
            mixed = torch.autocast(torch.device(device).type, torch.float16, enabled=precision == "fp16")
            with torch.inference_mode(mode=not takes_gradients), mixed:
                found: Tensor = module(*inputs)
            return found

        return call

    return call_of


def _torch_calls(workload: Workload, device: str, *, replayed: bool = False) -> CallOf:
    detector = torch_detector(workload.checkpoint, workload.bundle("fp16"), "fp16", device, replayed=replayed)
    return partial(engine_call, detector, workload)


def _calls(workload: Workload, device: str, backend: Any, **options: Any) -> CallOf:
    bundle = workload.bundle("fp16")
    if backend in _COMPILED:
        bundle = build_bundle(workload.checkpoint, workload.bundle(f"fp16-{backend}"), "fp16", engine=backend)
    detector = load(bundle, backend=backend, device=device, precision="fp16", kernels="none", **options)
    return partial(engine_call, detector, workload)
