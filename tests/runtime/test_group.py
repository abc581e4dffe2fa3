"""Groups of any size: maps that no order, chunk or memory changes, and features that stay on the device."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import GroupDetector, ImageError, Prepared, SalienceError, load
from salience.runtime.backends.onnxrt import OnnxRuntimeEngine
from salience.runtime.backends.ov import OpenVinoEngine
from salience.runtime.backends.session import Session
from salience.runtime.driver import LoopPool
from salience.runtime.manifest import Precision
from salience.runtime.methods.gicd import GroupPass, Sessions
from tests.conftest import FLOAT_PRECISIONS, SIZE

from .encoded import encode
from .small_graphs import CPU_BACKENDS

Photos = dict[str, NDArray[np.uint8]]
Detectors = Callable[..., GroupDetector]

# Batches are summed in another order than single pictures: measured 4e-6; 1e-5 is a 400th of a grey level.
SAME = 1e-5
# fp32 sums of another order than PyTorch's; measured 6e-6. The maps span .5 or more.
AS_TORCH = 1e-4


@pytest.fixture(scope="module")
def detectors(bundle_of: Callable[[str], Path]) -> Detectors:
    """Backend and precision -> the detector of the small `gicd` bundle."""

    @cache
    def loaded(backend: Any = "onnxruntime", precision: Precision = "fp32") -> GroupDetector:
        if backend == "openvino":
            pytest.importorskip("openvino")
        found = load(bundle_of("gicd"), backend=backend, precision=precision, device="cpu", threads=1)
        assert isinstance(found, GroupDetector)
        return found

    return loaded


@pytest.fixture(scope="module")
def detector(detectors: Detectors) -> GroupDetector:
    return detectors()


def cuts(photos: Photos, count: int) -> list[NDArray[np.uint8]]:
    """Pieces of the photographs, each of another size."""
    rng, sources = np.random.default_rng(0), list(photos.values())
    found = []
    for index in range(count):
        image = sources[index % len(sources)]
        height, width = (int(side) for side in rng.integers(40, 130, 2))
        top, left = (int(rng.integers(0, side - 130)) for side in image.shape[:2])
        found.append(image[top : top + height, left : left + width])
    return found


@pytest.fixture(scope="module")
def prepared(detector: GroupDetector, photos: Photos) -> list[Prepared]:
    return [detector.prepare(image) for image in cuts(photos, 40)]


def maps_of(detector: GroupDetector, prepared: Sequence[Prepared], **options: Any) -> NDArray[np.float32]:
    """What a pass over a group gives, (N, h, w), in the group's order."""
    group = GroupPass(detector, prepared.__getitem__, len(prepared), **options)
    found = dict.fromkeys(range(len(prepared)), np.full((1, *SIZE), np.nan, np.float32))
    for index, member, values in group.maps():
        assert member is prepared[index]
        found[index] = values
    assert not group.failures
    return np.concatenate(list(found.values()))


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=SAME)


def chunk_bytes(detector: GroupDetector, batch: int = 1) -> int:
    """What the features of a chunk of pictures take."""
    specs = [spec for name, spec in detector.engines["embed"].outputs.items() if name != "logits"]
    sides = [spec.shape[1:] for spec in specs]
    return batch * sum(int(np.prod([s for s in side if isinstance(s, int)])) * 4 for side in sides)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_maps_are_those_of_the_network(
    detectors: Detectors, checkpoints: dict[str, Path], prepared: list[Prepared], backend: str, count: int
) -> None:
    torch = pytest.importorskip("torch")
    from salience.training.checkpoint import load_checkpoint

    _, network = load_checkpoint(checkpoints["gicd"])
    with torch.no_grad():
        tensors = torch.from_numpy(np.concatenate([p.tensor for p in prepared[:count]]))
        expected = network(tensors).saliency.numpy()[:, 0]
        alone = network(tensors, torch.arange(count)).saliency.numpy()[:, 0]
    assert np.ptp(expected) > 0.5
    assert count == 1 or np.abs(expected - alone).max() > 100 * AS_TORCH, "the group must count"
    found = maps_of(detectors(backend), prepared[:count])
    np.testing.assert_allclose(found, expected, rtol=0, atol=AS_TORCH)


@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_precision(detectors: Detectors, prepared: list[Prepared], backend: str, precision: Precision) -> None:
    detector = detectors(backend, precision)
    assert detector.precision == precision
    found = maps_of(detector, prepared[:4])
    expected = maps_of(detectors(), prepared[:4])
    # Weights of 11 bits, in fp16 activations too: measured 1e-2 at a few pixels and 1e-3 on average.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)
    assert np.abs(found - expected).mean() < 5e-3
    assert precision == "fp32" or np.abs(found - expected).max() > 0


MEMORIES = (0, 200_000, 10**9)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("count", range(1, 9))
def test_neither_order_nor_chunks_nor_memory_matter(
    detectors: Detectors, prepared: list[Prepared], backend: str, count: int
) -> None:
    detector, group = detectors(backend), prepared[:count]
    expected = maps_of(detector, group)

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.permutations(range(count)), st.sampled_from([1, 2, 3, 7]), st.sampled_from(MEMORIES))
    def check(order: list[int], batch: int, memory_bytes: int) -> None:
        found = maps_of(detector, [group[i] for i in order], batch=batch, memory_bytes=memory_bytes)
        assert_same(found, expected[order])

    check()


@pytest.mark.slow
@pytest.mark.parametrize("count", range(9, 41))
def test_neither_matters_in_larger_groups(detector: GroupDetector, prepared: list[Prepared], count: int) -> None:
    group, expected = prepared[:count], maps_of(detector, prepared[:count])
    for seed, (batch, memory_bytes) in enumerate(((1, 0), (2, 10**9), (3, 2_000_000), (7, 4_000_000), (count, 0))):
        order = np.random.default_rng(seed).permutation(count)
        found = maps_of(detector, [group[i] for i in order], batch=batch, memory_bytes=memory_bytes)
        assert_same(found, expected[order])


def test_the_consensus_of_a_group_is_the_same_in_any_order(detector: GroupDetector) -> None:
    """Bit for bit: sums are exact, also of logits that nearly cancel each other."""
    rng = np.random.default_rng(0)
    large = rng.normal(0, 1e4, (25, 1000)).astype(np.float32)
    logits = np.concatenate([large, np.nextafter(-large, np.float32(0)).astype(np.float32)])[None]
    expected = detector.guide(logits)
    for _ in range(3):
        np.testing.assert_array_equal(detector.guide(logits[:, rng.permutation(50)]), expected)
    # No order of fp32 sums gives that.
    others = [logits[0, rng.permutation(50)].sum(axis=0, dtype=np.float32) for _ in range(2)]
    assert np.abs(others[0] - others[1]).max() > 1e-3


def test_what_all_logits_share_is_no_matter_of_rounding(detector: GroupDetector) -> None:
    logits = (np.random.default_rng(0).integers(-8, 9, (1, 100, 1000)) / 128).astype(np.float32)
    expected = detector.guide(logits)
    assert np.isfinite(expected).all()
    # These sums are some 800,000, where fp32 has steps of 1/16.
    np.testing.assert_array_equal(detector.guide(logits + np.float32(8192)), expected)
    assert np.abs(detector.guide(logits[:, :50]) - expected).max() > 1e-3


def test_duplicates_have_one_map_and_count_twice(detector: GroupDetector, prepared: list[Prepared]) -> None:
    first, second = prepared[:2]
    found = maps_of(detector, [first, second, second])
    assert_same(found[1], found[2])
    once = maps_of(detector, [first, second])
    assert np.abs(found[:2] - once).max() > 100 * SAME
    # Twice everything is a sharper consensus, and all the same.
    all_alike = maps_of(detector, [first] * 4, batch=3)
    assert np.isfinite(all_alike).all()
    assert_same(all_alike[0], all_alike[3])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_group_of_one_is_a_picture_by_itself(detectors: Detectors, photos: Photos, backend: str) -> None:
    detector, images = detectors(backend), cuts(photos, 3)
    (found,) = detector.predict_group(images[:1])
    assert_same(found.values, detector.predict(images[0]).values)
    batch = detector.predict_batch(images)
    for image, together in zip(images, batch, strict=True):
        assert_same(together.values, detector.predict(image).values)
    group = detector.predict_group(images)
    assert max(np.abs(a.values - b.values).max() for a, b in zip(group, batch, strict=True)) > 100 * SAME


def test_no_pictures(detector: GroupDetector) -> None:
    assert detector.predict_batch([]) == []
    with pytest.raises(SalienceError, match=r"^group: pictures is 0, expected at least 1\.$"):
        detector.predict_group([])


@pytest.mark.parametrize("options", [{"batch": 0}, {"memory_bytes": -1}])
def test_settings_out_of_range_are_named(detector: GroupDetector, photos: Photos, options: dict[str, int]) -> None:
    with pytest.raises(SalienceError, match=r"^group: \w+ is -?\d, expected at least \d\.$"):
        detector.predict_group(list(photos.values()), **options)


def test_pictures_of_any_size_and_kind(detector: GroupDetector, photos: Photos, tmp_path: Path) -> None:
    coffee = photos["coffee"][::4, ::4]
    Image.fromarray(coffee).save(tmp_path / "coffee.png")
    grey = coffee.mean(axis=2).astype(np.uint8)
    sources: list[Any] = [
        coffee, tmp_path / "coffee.png", encode(coffee), Image.fromarray(coffee), grey,
        Image.fromarray(coffee).convert("RGBA"), Image.fromarray(coffee).convert("CMYK"),
        Image.fromarray(coffee).convert("P"), grey / np.float32(255), grey.astype(np.uint16) * 257, grey > 99,
        coffee[:1, :1], coffee[:, :1], coffee[:2], np.zeros((300, 20, 3), np.uint8),
    ]  # fmt: skip
    found = detector.predict_group(sources, batch=4)
    assert len(found) == len(sources)
    for source, saliency in zip(sources, found, strict=True):
        image = detector.prepare(source).image
        assert saliency.values.shape == image.shape[:2]
        np.testing.assert_array_equal(saliency.image, image)
        assert 0 <= saliency.values.min() <= saliency.values.max() <= 1
    for same in found[1:4]:
        assert_same(same.values, found[0].values)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_broken_picture_is_named(detector: GroupDetector, photos: Photos, place: int) -> None:
    images: list[Any] = cuts(photos, 3)
    images.insert(place, b"no picture")
    with pytest.raises(ImageError, match=rf"^picture {place + 1} of the group: .*[.?]$") as caught:
        detector.predict_group(images)
    assert "\n" not in str(caught.value)


class Shelf:
    """Prepared pictures, some of which cannot be read, at all or any more."""

    def __init__(self, prepared: Sequence[Prepared], *, broken: Sequence[int] = (), fading: Sequence[int] = ()) -> None:
        self.prepared, self.broken, self.fading = prepared, broken, fading
        self.reads: Counter[int] = Counter()

    def __call__(self, index: int) -> Prepared:
        self.reads[index] += 1
        if index in self.broken or (index in self.fading and self.reads[index] > 1):
            raise ImageError(f"image {index}: cannot be read.")
        return self.prepared[index]


@pytest.mark.parametrize("memory_bytes", MEMORIES)
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("broken", [[0], [2], [4], [0, 1], [1, 3, 4]], ids=str)
def test_a_group_goes_on_without_broken_pictures(
    detector: GroupDetector, prepared: list[Prepared], broken: list[int], batch: int, memory_bytes: int
) -> None:
    shelf = Shelf(prepared[:5], broken=broken)
    group = GroupPass(detector, shelf, 5, batch=batch, memory_bytes=memory_bytes)
    found = {index: values for index, _, values in group.maps()}
    others = [index for index in range(5) if index not in broken]
    assert sorted(found) == others
    assert sorted(group.failures) == broken
    assert all(str(error) == f"image {i}: cannot be read." for i, error in group.failures.items())
    expected = maps_of(detector, [prepared[index] for index in others])
    assert_same(np.concatenate([found[index] for index in others]), expected)
    assert max(shelf.reads.values()) <= 2


@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_but_broken_pictures(detector: GroupDetector, prepared: list[Prepared], batch: int) -> None:
    group = GroupPass(detector, Shelf(prepared, broken=range(4)), 4, batch=batch)
    assert list(group.maps()) == []
    assert sorted(group.failures) == [0, 1, 2, 3]


@pytest.mark.parametrize("memory_bytes", MEMORIES)
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("fading", [[0], [2], [0, 1, 2, 3, 4]], ids=str)
def test_a_picture_that_vanishes_between_the_passes_is_a_failure_of_its_own(
    detector: GroupDetector, prepared: list[Prepared], fading: list[int], batch: int, memory_bytes: int
) -> None:
    group = GroupPass(detector, Shelf(prepared[:5], fading=fading), 5, batch=batch, memory_bytes=memory_bytes)
    found = {index: values for index, _, values in group.maps()}
    others = [index for index in range(5) if index not in fading]
    assert sorted(found) == others
    assert sorted(group.failures) == fading
    # It was there when the consensus was found.
    expected = maps_of(detector, prepared[:5])
    for index, values in found.items():
        assert_same(values[0], expected[index])


def test_what_stops_the_program_is_no_failure_of_a_picture(detector: GroupDetector, prepared: list[Prepared]) -> None:
    def interrupted(index: int) -> Prepared:
        if index == 2:
            raise KeyboardInterrupt
        return prepared[index]

    with pytest.raises(KeyboardInterrupt):
        list(GroupPass(detector, interrupted, 4).maps())


@pytest.mark.parametrize("memory_bytes", MEMORIES)
def test_maps_that_are_not_wanted_count_for_the_consensus_alone(
    detector: GroupDetector, prepared: list[Prepared], memory_bytes: int
) -> None:
    expected, shelf = maps_of(detector, prepared[:6]), Shelf(prepared[:6])
    group = GroupPass(detector, shelf, 6, batch=2, memory_bytes=memory_bytes)
    found = {index: values for index, _, values in group.maps({1, 4}.__contains__)}
    assert sorted(found) == [1, 4]
    for index, values in found.items():
        assert_same(values[0], expected[index])
    assert shelf.reads == {0: 2, 1: 2, 2: 1, 3: 1, 4: 2, 5: 2}


def test_threads_that_read_ahead_change_nothing(detector: GroupDetector, prepared: list[Prepared]) -> None:
    expected = maps_of(detector, prepared[:8])
    np.testing.assert_array_equal(maps_of(detector, prepared[:8], workers=4), expected)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What sessions do, as graph, verb and tensor; and any single run of an engine, which copies everything."""
    seen: list[tuple[str, str, str]] = []

    def watch(owner: Any, verb: str, name: str | None = None) -> None:
        genuine = getattr(owner, verb)

        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = re.search(r"(\w+)(\.fp16)?\.onnx", self.label)
            assert found
            seen.append((found[1], name or verb, args[0] if args and isinstance(args[0], str) else ""))
            return genuine(self, *args, **kwargs)

        monkeypatch.setattr(owner, verb, watched)

    for verb in ("feed", "read", "run", "take", "put"):
        watch(Session, verb)
    for kind in (OnnxRuntimeEngine, OpenVinoEngine):
        watch(kind, "_run", "single run")
    return seen


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(("batch", "chunks"), [(1, 7), (3, 3), (7, 1)])
def test_features_never_cross_to_the_host(
    detectors: Detectors, prepared: list[Prepared], events: list[Any], backend: str, batch: int, chunks: int
) -> None:
    detector = detectors(backend)
    names = [name for name in detector.engines["embed"].outputs if name != "logits"]
    assert len(names) == 5
    for memory_bytes, passes in ((10**9, 1), (0, 2)):
        events.clear()
        maps_of(detector, prepared[:7], batch=batch, memory_bytes=memory_bytes)
        assert Counter(events) == Counter(
            {
                ("embed", "feed", "input"): passes * chunks,
                ("embed", "run", ""): passes * chunks,
                ("embed", "read", "logits"): passes * chunks,
                **{("embed", "take", name): passes * chunks for name in names},
                ("consensus", "single run", ""): 1,
                **{("segment", "put", name): chunks for name in names},
                ("segment", "feed", "guide"): chunks,
                ("segment", "run", ""): chunks,
                ("segment", "read", "saliency"): chunks,
            }
        )


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_next_group_finds_the_sessions_open(
    detectors: Detectors, prepared: list[Prepared], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their buffers are large, and making them costs time; what a group leaves in them is not seen by the next."""
    detector = detectors(backend)
    engine_type = type(detector.engines["embed"])
    opened: list[int] = []
    genuine = engine_type.session

    def counted(self: Any, batch: int) -> Any:
        opened.append(batch)
        return genuine(self, batch)

    monkeypatch.setattr(engine_type, "session", counted)
    monkeypatch.setattr(detector, "sessions", LoopPool(lambda batch: Sessions(detector.engines, batch)))
    groups = [prepared[:5], prepared[5:10], prepared[10:14], prepared[14:19]]
    found = [maps_of(detector, group, batch=2) for group in groups]
    # Chunks of two for all groups, and of one, which three of them end with.
    assert sorted(opened) == [1, 1, 2, 2]
    for group, maps in zip(groups, found, strict=True):
        monkeypatch.setattr(detector, "sessions", LoopPool(lambda batch: Sessions(detector.engines, batch)))
        np.testing.assert_array_equal(maps, maps_of(detector, group, batch=2))


def test_groups_at_once_have_sessions_of_their_own(detector: GroupDetector, prepared: list[Prepared]) -> None:
    groups = [prepared[start : start + 4] for start in range(0, 40, 4)]
    expected = [maps_of(detector, group) for group in groups]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda group: maps_of(detector, group), groups))
    for maps, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(maps, wanted)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kept", [0, 1, 2, 4])
@pytest.mark.parametrize("spare", [0, 1])
def test_what_fits_is_kept_and_the_rest_computed_once_more(
    detector: GroupDetector, prepared: list[Prepared], events: list[Any], monkeypatch: pytest.MonkeyPatch,
    batch: int, kept: int, spare: int,
) -> None:  # fmt: skip
    one, chunks = chunk_bytes(detector, batch), 4
    memory_bytes = kept * one + (one - 1 if spare else 0)
    group = GroupPass(detector, prepared.__getitem__, batch * chunks, batch=batch, memory_bytes=memory_bytes)
    held: list[int] = []
    guide = detector.guide

    def between(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        held.append(sum(tensor.nbytes for features in group._kept.values() for tensor in features.values()))
        return guide(logits)

    monkeypatch.setattr(detector, "guide", between)
    found = np.concatenate([values for _, _, values in group.maps()])
    assert held == [min(kept, chunks) * one]
    assert events.count(("embed", "run", "")) == chunks + (chunks - kept)
    assert not group._kept
    assert_same(found, maps_of(detector, prepared[: batch * chunks]))


def test_fp16_features_take_half_the_memory(detectors: Detectors, prepared: list[Prepared], events: list[Any]) -> None:
    detector = detectors("onnxruntime", "fp16")
    maps_of(detector, prepared[:4], memory_bytes=2 * chunk_bytes(detector))
    # Four of them fit where two of fp32 would.
    assert [event[:2] for event in events].count(("embed", "run")) == 4


def test_five_hundred_pictures(detector: GroupDetector, prepared: list[Prepared], events: list[Any]) -> None:
    places = [index * 7 % 40 for index in range(500)]
    group = GroupPass(
        detector, lambda index: prepared[places[index]], 500, batch=16, memory_bytes=100 * chunk_bytes(detector)
    )
    found = {index: values for index, _, values in group.maps()}
    assert sorted(found) == list(range(500))
    # Six chunks of 16 fit into a memory for 100, and the last one, of 4.
    assert events.count(("embed", "run", "")) == 32 + 32 - 7
    # 500 is 12 rounds of 40 and 20 more: the same picture has the same map wherever it stands.
    for index in range(460):
        assert_same(found[index], found[index + 40])
    assert np.ptp(found[0]) > 0.1
