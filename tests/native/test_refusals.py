"""What the Python package refuses, the C++ library refuses with the same words."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from salience.runtime import BundleError, SalienceError, load
from salience.runtime.low_level import PRESETS
from salience.runtime.objects import choose_preset

from .library import Library

BundleOf = Callable[[str], Path]
Edited = Callable[[Path], Path]
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def refusal(call: Callable[[], object]) -> tuple[type[Exception], str]:
    """The error of a call."""
    with pytest.raises(SalienceError) as caught:
        call()
    return type(caught.value), str(caught.value)


def prior(value: float = 0.5, **changes: float) -> NDArray[np.float32]:
    values = np.full((4, 6), value, dtype=np.float32)
    for place, changed in changes.items():
        values.flat[int(place[1:])] = changed
    return values


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int8"},
        {"precision": "fp8"},
        {"device": "tpu"},
        {"device": "cuda:one"},
        {"threads": -3},
    ],
)
def test_options_of_load(options: dict[str, Any], library: Library, bundle_of: BundleOf) -> None:
    bundle = bundle_of("multis")
    expected = refusal(lambda: load(bundle, **({"backend": "onnxruntime", "device": "cpu"} | options)))
    assert refusal(lambda: library.load(bundle, **options)) == expected


def test_a_gpu_that_this_build_lacks(library: Library, bundle_of: BundleOf) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    bundle = bundle_of("multis")
    expected = refusal(lambda: load(bundle, backend="onnxruntime", device="cuda"))
    assert refusal(lambda: library.load(bundle, device="cuda")) == expected


def test_a_folder_that_is_no_bundle(library: Library, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    for name in ("gone", "file", "odd", "."):
        expected = refusal(lambda name=name: load(tmp_path / name))  # type: ignore[misc]
        assert refusal(lambda name=name: library.load(tmp_path / name)) == expected  # type: ignore[misc]


def damage(folder: Path, kind: str) -> None:
    graph = folder / "saliency.onnx"
    if kind == "changed":
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
    elif kind == "cut off":
        graph.write_bytes(graph.read_bytes()[:1000])
    elif kind == "gone":
        graph.unlink()
    elif kind == "link":
        graph.rename(folder / "elsewhere")
        graph.symlink_to("elsewhere")
    elif kind == "huge manifest":
        with (folder / "manifest.json").open("r+b") as file:
            file.truncate(1 << 33)
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["files"]["saliency.onnx"]
        (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("kind", ["changed", "cut off", "gone", "link", "huge manifest", "not listed"])
def test_a_damaged_bundle(kind: str, library: Library, bundle_of: BundleOf, edited: Edited) -> None:
    folder = edited(bundle_of("multis"))
    damage(folder, kind)
    expected = refusal(lambda: load(folder, backend="onnxruntime", device="cpu"))
    assert refusal(lambda: library.load(folder)) == expected


@pytest.mark.parametrize(
    ("method", "left_out"), [("multis", "saliency"), ("lps", "prior"), ("lps", "refine"), ("gicd", "consensus")]
)
def test_a_graph_that_is_missing(
    method: str, left_out: str, library: Library, bundle_of: BundleOf, edited: Edited
) -> None:
    folder = edited(bundle_of(method))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["graphs"][left_out]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    # Of a graph that is not the first, Python says that no engine is left to try, for the same reason.
    _, expected = refusal(lambda: load(folder, backend="onnxruntime", device="cpu"))
    assert refusal(lambda: library.load(folder)) == (BundleError, expected)


@pytest.mark.parametrize(
    ("values", "iterations"),
    [
        (prior(0), 1),
        (prior(1), 1),
        (prior(p3=float("nan")), 1),
        (prior(p3=255), 1),
        (prior(p0=-0.5), 1),
        (prior()[:0], 1),
        (prior(), 0),
        (prior(), -2),
    ],
)
def test_priors(values: NDArray[np.float32], iterations: int, library: Library, bundle_of: BundleOf) -> None:
    native, python = library.load(bundle_of("lps")), load(bundle_of("lps"), backend="onnxruntime", device="cpu")
    found = refusal(lambda: native.promote(PICTURE, values, iterations))
    assert found == refusal(lambda: python.promote(PICTURE, values, iterations))  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch", [False, True])
def test_a_prior_is_needed(batch: bool, library: Library, bundle_of: BundleOf) -> None:
    native, python = library.load(bundle_of("lps")), load(bundle_of("lps"), backend="onnxruntime", device="cpu")
    expected = refusal(lambda: python.predict(PICTURE))
    assert refusal(lambda: native.predict_batch([PICTURE] * 2) if batch else native.predict(PICTURE)) == expected


@pytest.mark.parametrize("target", ["wolf", "ca", "", "5", "-1", "do g", "trees", 'it\'s "this"'])
def test_classes(target: str, library: Library, bundle_of: BundleOf) -> None:
    native, python = library.load(bundle_of("cgd")), load(bundle_of("cgd"), backend="onnxruntime", device="cpu")
    found = refusal(lambda: native.locate(PICTURE, target))
    assert found == refusal(lambda: python.locate(PICTURE, target))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("other", {}),
        ("default", {"steps": "3"}),
        ("default", {"gamma": "much"}),
        ("default", {"iterations": "2.5"}),
        ("default", {"refine": "yes"}),
        ("default", {"iterations": "0"}),
        ("paper", {"gamma": "-1"}),
        ("paper", {"gamma": "nan"}),
        ("paper", {"decay": "1.5"}),
        ("released", {"scale": "other"}),
        ("released", {"theta_unit": "other"}),
        ("default", {"superpixels": "0"}),
        ("default", {"compactness": "0"}),
        ("default", {"alpha": "2"}),
        ("default", {"prune": "1"}),
    ],
)
def test_presets(preset: Any, changes: dict[str, str], library: Library, bundle_of: BundleOf) -> None:
    assert "default" in PRESETS
    native = library.load(bundle_of("cgd"))
    found = refusal(lambda: native.locate(PICTURE, preset=preset, changes=changes))
    assert found == refusal(lambda: choose_preset(preset, changes))


@pytest.mark.parametrize(("count", "settings"), [(0, {}), (2, {"batch": 0})])
def test_groups(count: int, settings: dict[str, int], library: Library, bundle_of: BundleOf) -> None:
    native, python = library.load(bundle_of("gicd")), load(bundle_of("gicd"), backend="onnxruntime", device="cpu")
    group = [PICTURE] * count
    found = refusal(lambda: native.predict_group(group, **settings))
    assert found == refusal(lambda: python.predict_group(group, **settings))  # type: ignore[attr-defined]


def test_a_picture_of_a_group_is_named(library: Library, bundle_of: BundleOf) -> None:
    native = library.load(bundle_of("gicd"))
    error, message = refusal(lambda: native.predict_group([PICTURE, PICTURE[:0]]))
    assert error.__name__ == "ImageError"
    assert message.startswith("picture 2 of the group: image array of shape (0, 16, 3): expected (H, W, 3)")


@pytest.mark.parametrize("verb", ["promote", "locate", "predict_group"])
def test_a_verb_of_another_method(verb: str, library: Library, bundle_of: BundleOf) -> None:
    bundle = bundle_of("multis")
    native = library.load(bundle)
    calls: dict[str, Callable[[], object]] = {
        "promote": lambda: native.promote(PICTURE, prior()),
        "locate": lambda: native.locate(PICTURE),
        "predict_group": lambda: native.predict_group([PICTURE]),
    }
    assert refusal(calls[verb])[1].startswith(f"bundle {bundle}: holds multis, expected ")


VALUES: list[Any] = [
    None, True, 0, 1, 2, -1, 1.0, 2.5, 1e3, 10**30, "", "1", " 1_0 ", "1.0", "x", "fp32", "fp16", "../up", "a/b",
    "é" * 200, "0" * 64, [], [1], [1, "h"], ["x"], {}, {"fp32": "saliency.onnx"}, {"x": 1},
]  # fmt: skip


def mutate(value: Any, chance: random.Random) -> Any:
    """One place of a JSON tree changed: replaced, removed, or with something added."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    found = copy.deepcopy(value)
    visit(found)
    node, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[chance.choice(["extra", "tuning", "classes", "half", "fp16", "engines"])] = chance.choice(VALUES)
        case _:
            node[key] = copy.deepcopy(chance.choice(VALUES))
    return found


def outcome(call: Callable[[], object]) -> tuple[str, str]:
    """The kind of error, and the first place in the manifest that it names; "opened" if there is none."""
    try:
        call()
    except SalienceError as error:
        place = str(error).partition("of salience (")[2].partition(": ")[0]
        # Of a union and of a name pydantic adds which part of it.
        return type(error).__name__, place.removesuffix(".int").removesuffix(".[key]")
    return "opened", ""


@pytest.mark.parametrize("seed", range(8))
def test_manifests_that_one_takes_the_other_takes(
    seed: int, library: Library, bundle_of: BundleOf, edited: Edited
) -> None:
    folder = edited(bundle_of("multis"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engines"] = [{
        "graph": "saliency", "precision": "fp16", "builder": "tensorrt", "builder_version": "10.12", "targets": ["8.6"],
        "profile": [1, 1, 8], "file": "saliency.onnx", "build_s": 1.5, "bytes": 3,
    }]  # fmt: skip
    timing = {"precision": "fp32", "backend": "onnxruntime", "threads": 1, "milliseconds": 2.5}
    manifest["tuning"] = {"cores": 2, "rounds": 7, "timings": [timing]}
    manifest["provenance"] = {}
    chance = random.Random(seed)
    for _ in range(60):
        text = json.dumps(mutate(manifest, chance))
        (folder / "manifest.json").write_text(text)
        expected = outcome(lambda: load(folder, backend="onnxruntime", device="cpu"))
        assert outcome(lambda: library.load(folder)) == expected, text
