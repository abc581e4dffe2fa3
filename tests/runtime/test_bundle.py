"""A bundle is what its manifest says, or an error of one sentence that says what is not."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.runtime import Bundle, BundleError


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return shutil.copytree(bundle, tmp_path / "copy")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def refusal(folder: Path) -> str:
    """The one sentence in which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        Bundle(folder)
    message = str(caught.value)
    assert message.startswith(f"bundle {folder}")
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_good_bundle(bundle: Path) -> None:
    opened = Bundle(str(bundle))
    assert opened.manifest.method == "multis"
    assert opened.precisions() == ("fp32", "fp16", "fp16-weights")
    assert opened.graph_file("saliency", "fp16") == bundle / "saliency.fp16.onnx"
    record = opened.verification()
    assert record is not None
    assert record.passed
    assert {check.backend for check in record.tensors} == {"onnxruntime", "openvino"}


def test_missing_folder_file_in_its_place_and_empty_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    for name, reason in [
        ("gone", "No such file"),
        ("file", "Not a directory"),
        ("empty", "No such file"),
        ("odd", "Is a directory"),
    ]:
        message = refusal(tmp_path / name)
        assert "no readable manifest.json" in message
        assert reason in message
        assert "export/build_engine.py" in message


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{}", b"[" * 100_000])
def test_manifest_that_is_no_manifest(copy: Path, text: bytes) -> None:
    (copy / "manifest.json").write_bytes(text)
    assert "its manifest does not fit this version of salience" in refusal(copy)


def test_a_hostile_name_breaks_no_line_of_the_message(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"two\nlines": 1}))
    message = refusal(copy)
    assert "two\\nlines: Extra inputs are not permitted" in message
    assert "\n" not in message


def test_huge_manifest_is_not_read(copy: Path) -> None:
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: it would not fit in memory
    assert "larger than 4 MB" in refusal(copy)


@pytest.mark.parametrize("version", [0, 2, "1.0", None])
def test_other_format_version_is_named(copy: Path, version: object) -> None:
    def from_the_future(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = version
        manifest["another_key"] = {}

    edit(copy, from_the_future)
    message = refusal(copy)
    assert "format_version: Input should be 1" in message
    assert "build the bundle again" in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.pop("method"), "method"),
        (lambda m: m.update(default_precision="int3"), "default_precision"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["graphs"]["saliency"].update(files={}), "graphs.saliency.files"),
        (lambda m: m["files"]["saliency.onnx"].update(sha256="abc"), "files.saliency.onnx.sha256"),
        (lambda m: m["files"]["saliency.onnx"].update(bytes=-1), "files.saliency.onnx.bytes"),
    ],
)
def test_field_that_does_not_fit_is_named(copy: Path, change: Callable[[dict[str, Any]], object], named: str) -> None:
    edit(copy, change)
    assert f"{named}: " in refusal(copy)


@pytest.mark.parametrize("name", ["saliency.onnx", "preprocess.onnx", "verification.json"])
def test_one_changed_byte(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert f"{name} is damaged" in refusal(copy)


@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_file(copy: Path, size: int) -> None:
    os.truncate(copy / "saliency.onnx", size)
    message = refusal(copy)
    assert "saliency.onnx is damaged" in message
    assert f"{size} bytes" in message


def test_longer_file(copy: Path) -> None:
    with (copy / "saliency.onnx").open("ab") as file:
        file.write(b"\0")
    assert "saliency.onnx is damaged" in refusal(copy)


def test_missing_file_and_folder_in_its_place(copy: Path) -> None:
    (copy / "saliency.onnx").unlink()
    assert "saliency.onnx is missing" in refusal(copy)
    (copy / "saliency.onnx").mkdir()
    assert "saliency.onnx is missing" in refusal(copy)


def test_link_is_refused_even_to_the_same_bytes(copy: Path, bundle: Path) -> None:
    (copy / "saliency.onnx").unlink()
    (copy / "saliency.onnx").symlink_to(bundle / "saliency.onnx")
    assert "saliency.onnx is missing or a link" in refusal(copy)


def test_linked_folder_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert Bundle(tmp_path / "link").manifest.method == "multis"


@pytest.mark.parametrize("place", ["files", "graph"])
@pytest.mark.parametrize(
    "name",
    ["../outside.onnx", "/tmp/outside.onnx", "a/b.onnx", "C:x", "..", ".", "", "..\\x", "\\\\host\\x", "x" * 201],  # noqa: S108
)
def test_name_that_leaves_the_folder(copy: Path, name: str, place: str) -> None:
    data = b"bytes outside"
    (copy.parent / "outside.onnx").write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def change(manifest: dict[str, Any]) -> None:
        if place == "files":
            manifest["files"][name] = entry
        else:
            manifest["graphs"]["saliency"]["files"]["fp32"] = name

    edit(copy, change)
    assert "its manifest does not fit" in refusal(copy)


def test_file_without_checksum_is_named(copy: Path) -> None:
    shutil.copy(copy / "saliency.onnx", copy / "other.onnx")
    edit(copy, lambda m: m["graphs"]["saliency"]["files"].update(fp32="other.onnx"))
    assert "other.onnx has no checksum" in refusal(copy)


def test_engine_without_checksum_is_named(copy: Path) -> None:
    engine = {
        "graph": "saliency", "precision": "fp32", "builder": "tensorrt-rtx", "builder_version": "1", "targets": ["8.6"],
        "profile": [1, 1, 16], "file": "saliency.engine", "build_s": 1.0, "bytes": 1,
    }  # fmt: skip
    edit(copy, lambda m: m.update(engines=[engine]))
    assert "saliency.engine has no checksum" in refusal(copy)


def test_file_that_nothing_names_is_not_looked_at(copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    assert Bundle(copy).manifest.method == "multis"


def test_file_that_cannot_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, which tests may run as.
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert "cannot be read (Permission denied)" in refusal(copy)


def test_graph_and_precision_that_a_bundle_lacks(copy: Path) -> None:
    opened = Bundle(copy)
    with pytest.raises(BundleError, match=r"no graph 'decoder'; it has preprocess, postprocess, saliency"):
        opened.graph_file("decoder", "fp32")
    edit(copy, lambda m: m["graphs"]["saliency"]["files"].pop("fp16"))
    with pytest.raises(
        BundleError, match=r"saliency has no fp16 file, only fp32.*build_engine\.py multis --precision fp16"
    ):
        Bundle(copy).graph_file("saliency", "fp16")


def test_verification_record_is_optional_but_whole(copy: Path) -> None:
    data = b"{}"
    (copy / "verification.json").write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(copy, lambda m: m["files"].update({"verification.json": entry}))
    with pytest.raises(BundleError, match=r"verification\.json is damaged \(passed: Field required"):
        Bundle(copy).verification()
    edit(copy, lambda m: m["files"].pop("verification.json"))
    assert Bundle(copy).verification() is None
