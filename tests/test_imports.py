"""What may import what, and what importing may load."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

STAGES = ("runtime", "training", "export")
MAY_IMPORT = {"runtime": {"runtime"}, "training": {"training", "runtime"}, "export": {"export", "training", "runtime"}}


def modules(repository: Path, stage: str) -> list[Path]:
    return sorted((repository / stage).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of what a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_imports_point_down_only(repository: Path, stage: str) -> None:
    for path in modules(repository, stage):
        crossed = {name.split(".")[1] for name in imported(path) if name.startswith("salience.")}
        assert crossed <= MAY_IMPORT[stage], path
        assert not {name.split(".")[0] for name in imported(path)} & set(STAGES), f"{path}: bare stage name"


def test_the_runtime_names_no_torch(repository: Path) -> None:
    for path in modules(repository, "runtime"):
        assert not {name.split(".")[0] for name in imported(path)} & {"torch", "torchvision", "lightning_fabric"}, path


@pytest.mark.parametrize("stage", STAGES)
def test_no_module_bears_a_librarys_name(repository: Path, stage: str) -> None:
    """`python export/build_engine.py` puts export/ first on sys.path."""
    libraries = {"onnx", "onnxruntime", "openvino", "tensorrt", "torch", "numpy", "typer", "rich", "PIL", "lightning",
                 "triton", "ray", "kserve", "av"}  # fmt: skip
    found = {path.stem for path in (repository / stage).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not found & (libraries | sys.stdlib_module_names)


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_runtime_is_light() -> None:
    loaded = loaded_by("import salience.runtime")
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "matplotlib", "skimage",
             "py_sod_metrics", "typer", "rich", "scipy"}  # fmt: skip
    assert not loaded & heavy


def test_importing_the_runtime_is_fast() -> None:
    """Under .5 s; the best of three, since the machine may be busy."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import salience.runtime"], check=True)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append((bare - start) - (time.perf_counter() - bare))
    assert min(times) < 0.5


def test_each_stage_is_one_package_under_one_name(repository: Path) -> None:
    for stage in STAGES:
        link = repository / "src" / "salience" / stage
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == repository / stage
    import salience.export
    import salience.runtime
    import salience.training

    assert salience.runtime.__name__ == "salience.runtime"
    assert not {name for name in sys.modules if name.split(".")[0] in STAGES}
