"""The parts of the GPU check: what the others share, then the most valuable first."""

from dataclasses import dataclass

from salience.runtime.methods import METHODS


@dataclass(frozen=True)
class Part:
    """Something that runs in a process of its own.

    Attributes:
        name: for the command line.
        title: what it looks at.
        needs: names of `gpu_machine.Machine.found`; "A or B" is either.
        seconds: after which it is stopped.
        run: "module:function" of a function that takes a `Setting` and yields rows as it finds them.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    seconds: float
    run: str


_TORCH = ("gpu", "torch-cuda")
_ENGINE = ("gpu", "onnxruntime-gpu")
_COMPILER = ("nvcc", "cmake")
_SPEED_S = {"multis": 20, "arn": 25, "lps": 35, "gicd": 35, "cgd": 30}

PARTS = (
    Part("prepare", "bundles that the other parts share", _TORCH, 70, "benchmarks.gpu_prepare:prepare"),
    Part("pytorch", "PyTorch on the GPU against the CPU, five methods, fp32, fp16, bf16", _TORCH, 30,
         "benchmarks.gpu_checks:pytorch"),
    Part("onnxruntime", "ONNX Runtime CUDA with I/O binding against the CPU", _ENGINE, 25,
         "benchmarks.gpu_checks:onnxruntime"),
    Part("tensorrt-rtx", "TensorRT-RTX engines against the CPU", ("gpu", "tensorrt_rtx", "pycuda"), 20,
         "benchmarks.gpu_checks:tensorrt_rtx"),
    Part("tensorrt", "TensorRT engines against the CPU", ("gpu", "tensorrt", "pycuda"), 25,
         "benchmarks.gpu_checks:tensorrt"),
    Part("providers", "ONNX Runtime's TensorRT and TensorRT-RTX providers against the CPU",
         ("gpu", "onnxruntime-tensorrt or onnxruntime-tensorrt-rtx"), 15, "benchmarks.gpu_checks:providers"),
    Part("loops", "the loops of lps, cgd and gicd copy nothing of a picture's size", _TORCH, 10,
         "benchmarks.gpu_loops:loops"),
    Part("graphs", "CUDA graphs of a step", _TORCH, 10, "benchmarks.gpu_loops:graphs"),
    Part("arrays", "DLPack in and out of torch and cupy", (*_ENGINE, "torch-cuda"), 6, "benchmarks.gpu_loops:arrays"),
    Part("kernels", "CUDA kernels against the CPU's: values, a captured graph, time against a copy",
         ("gpu", *_COMPILER), 40, "benchmarks.gpu_kernels:kernels"),
    Part("operators", "fused CUDA operators in ONNX Runtime", (*_ENGINE, *_COMPILER), 12,
         "benchmarks.gpu_checks:operators"),
    Part("errors", "what goes wrong is said: out of memory, no such GPU", _ENGINE, 9, "benchmarks.gpu_checks:errors"),
    Part("peak", "the card's matrix peak and copy bandwidth", _TORCH, 8, "benchmarks.gpu_speed:peak"),
    *(Part(f"speed-{method}", f"speed of {method}", _TORCH, _SPEED_S[method], f"benchmarks.gpu_speed:{method}")
      for method in METHODS),
    Part("compiled", "speed of torch.compile", (*_TORCH, "triton"), 25, "benchmarks.gpu_speed:compiled"),
)  # fmt: skip
