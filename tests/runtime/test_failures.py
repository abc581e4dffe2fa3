"""What libraries say when they fail, in their own words, becomes one sentence with the remedy."""

import re

import pytest

from salience.runtime import BackendUnavailableError, EngineError
from salience.runtime.backends.failures import failure

SAID = "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'/c' "
FAILURES: list[tuple[str, type[EngineError], str]] = [
    (f"{SAID}Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 93952",
     EngineError, "smaller batch or another precision.*gpu_mem_limit"),
    ("CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);", EngineError, "batch"),
    ("cuMemAlloc failed: out of memory", EngineError, "smaller batch"),
    ("std::bad_alloc", EngineError, "smaller batch"),
    ("[virtualMemoryBuffer.cpp::resizePhysical] Requested amount of GPU memory (8 bytes) could not be allocated.",
     EngineError, "smaller batch"),
    ("Invalid device ID: 3, must be between 0 (inclusive) and 1 (exclusive).", BackendUnavailableError, "nvidia-smi"),
    ("CUDA failure 101: invalid device ordinal ; GPU=32 ;", BackendUnavailableError, "no GPU of this number"),
    (f"{SAID}Status Message: CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution on "
     "the device", BackendUnavailableError, "no code for this GPU's architecture"),
    ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", BackendUnavailableError,
     "update the NVIDIA driver"),
    ("This session cannot use the graph capture feature as requested by the user as all compute graph nodes have not "
     "been partitioned to the CUDAExecutionProvider", EngineError, r"leave cuda_graph \(--cuda-graph\) out"),
    ("CUDA failure 900: operation not permitted when stream is capturing ; expr=cudaMalloc; out of memory", EngineError,
     "leave cuda_graph"),
    ('Unknown provider option: "use_tf23".', EngineError, "leave the provider option out, or look up its name"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "remedy"), FAILURES, ids=[text[:40] for text, _, _ in FAILURES])
def test_what_a_library_says_becomes_a_sentence_with_the_remedy(
    text: str, kind: type[EngineError], remedy: str
) -> None:
    error = failure("engine: failed while running", RuntimeError(f"{text}\nand a stack"))
    assert type(error) is kind
    assert re.fullmatch(
        rf"engine: failed while running \({re.escape(text.rstrip(' .;'))}\); .*{remedy}[^\n]*\.", str(error)
    )


def test_what_is_not_known_is_told_as_it_is() -> None:
    assert str(failure("engine: failed", RuntimeError("first\nlast"), line=-1)) == "engine: failed (last)."
    assert str(failure("engine: failed", KeyError())) == "engine: failed (KeyError)."
