"""What is written, and what is refused. The server itself was not run."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from salience.export.model_repository.configs import Serving
from salience.export.model_repository.repository import write_repository
from salience.runtime.bundle import Bundle
from salience.runtime.errors import BundleError, ExportError, SalienceError
from salience.runtime.manifest import MANIFEST_FILE, EngineEntry, FileEntry, Manifest

from .stand_in import parse_config

ENGINE = b"stands for an engine of TensorRT"


def with_engine(bundle: Path, folder: Path, profile: tuple[int, int, int]) -> Path:
    """A copy of a bundle of `multis` with an engine of TensorRT."""
    copytree(bundle, folder)
    (folder / "saliency.engine").write_bytes(ENGINE)
    manifest = Bundle(folder).manifest
    engine = EngineEntry(
        graph="saliency", precision="fp16", builder="tensorrt", builder_version="10.13", targets=("8.9",),
        profile=profile, file="saliency.engine", build_s=1.0, bytes=len(ENGINE),
    )  # fmt: skip
    stored = FileEntry(sha256=hashlib.sha256(ENGINE).hexdigest(), bytes=len(ENGINE))
    changes = {"engines": (engine,), "files": manifest.files | {"saliency.engine": stored}}
    changed: Manifest = manifest.model_copy(update=changes)
    (folder / MANIFEST_FILE).write_text(changed.model_dump_json())
    return folder


def test_the_repository_holds_the_bundle(write: Callable[..., Path], bundle: Path) -> None:
    repository = write("multis", precision="fp16")
    carried = Bundle(repository / "eye" / "1" / "bundle")
    assert carried.manifest == Bundle(bundle).manifest
    served = (repository / "eye_saliency" / "1" / "model.onnx").read_bytes()
    assert served == carried.graph_file("saliency", "fp16").read_bytes()
    assert [path.name for path in repository.parent.iterdir()] == ["models"]


def test_engines_of_tensorrt_are_served_where_there_are_some(bundle: Path, tmp_path: Path) -> None:
    compiled = with_engine(bundle, tmp_path / "compiled", (1, 4, 16))
    serving = Serving(name="eye", precision="fp16", backend="tensorrt", max_batch=8)
    names = write_repository(Bundle(compiled), tmp_path / "models", serving)
    assert names == ["eye", "eye_preprocess", "eye_postprocess", "eye_saliency"]
    assert (tmp_path / "models" / "eye_saliency" / "1" / "model.plan").read_bytes() == ENGINE
    config = parse_config(tmp_path / "models" / "eye_saliency")
    assert config.platform == "tensorrt_plan"
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4, 8]
    assert parse_config(tmp_path / "models" / "eye_preprocess").platform == "onnxruntime_onnx"


@pytest.mark.parametrize(("profile", "precision"), [((1, 2, 4), "fp16"), ((2, 4, 16), "fp16"), ((1, 4, 16), "fp32")])
def test_engines_that_do_not_fit_are_told_before_anything_is_written(
    bundle: Path, tmp_path: Path, profile: tuple[int, int, int], precision: str
) -> None:
    compiled = Bundle(with_engine(bundle, tmp_path / "compiled", profile))
    serving = Serving(name="eye", precision=precision, backend="tensorrt", max_batch=8)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=r"was built for batches of|has no engine of TensorRT"):
        write_repository(compiled, tmp_path / "models", serving)
    assert [path.name for path in tmp_path.iterdir()] == ["compiled"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": "int8"}, "saliency has no int8 file, only fp32, fp16, fp16-weights"),
        ({"name": "../eye"}, "cannot name a model"),
        ({"backend": "tensorrt", "device": "cpu"}, "runs on a GPU"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    write: Callable[..., Path], tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(SalienceError, match=says):
        write("multis", **changes)
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays(bundle: Path, tmp_path: Path) -> None:
    serving = Serving(name="eye", precision="fp32")
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ExportError, match="exists and is not empty"):
            write_repository(Bundle(bundle), taken, serving)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_that_changes_meanwhile_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    copytree(bundle, tmp_path / "bundle")
    opened = Bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "saliency.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"saliency\.onnx is damaged"):
        write_repository(opened, tmp_path / "models", Serving(name="eye", precision="fp32"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_command_line(repository: Path, bundle: Path, tmp_path: Path) -> None:
    script = repository / "export" / "triton_repository.py"
    command = [sys.executable, str(script), str(bundle), "--output", str(tmp_path / "models")]
    first, second = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "multis, multis_preprocess, multis_postprocess, multis_saliency" in first.stdout
    assert (tmp_path / "models" / "multis" / "1" / "model.py").is_file()
    assert second.returncode == 1
    assert second.stderr.startswith("error: output ")
    assert "Traceback" not in second.stderr


def test_writing_and_serving_load_little() -> None:
    code = "import sys, salience.export.model_repository.cli, salience.runtime.triton_model; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "onnx", "onnxruntime", "tritonclient", "kserve", "prometheus_client", "cupy", "skimage"}
    assert not heavy & {name.split(".")[0] for name in done.stdout.split()}
