"""`promote`: a better map of any prior, the one that PyTorch makes; what is no prior is an error of one sentence."""

import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import EngineError, ImageError, PromoterDetector, SalienceError, SaliencyMap, load
from salience.runtime.backends.session import Session
from salience.runtime.manifest import Precision
from tests.conftest import FLOAT_PRECISIONS, SIZE

from .small_graphs import CPU_BACKENDS

Photos = dict[str, NDArray[np.uint8]]
Promoters = Callable[..., PromoterDetector]

# fp32 sums of another order than PyTorch's, over ten iterations; measured 2e-6. The map spans .3 or more.
AS_TORCH = 1e-4
# Batches are summed in another order than single pictures; 1e-5 is a 400th of a grey level.
SAME = 1e-5


@pytest.fixture(scope="module")
def promoters(bundle_of: Callable[[str], Path]) -> Promoters:
    """Backend and precision -> the detector of the small `lps` bundle."""

    @cache
    def loaded(backend: Any, precision: Precision = "fp32") -> PromoterDetector:
        if backend == "openvino":
            pytest.importorskip("openvino")
        found = load(bundle_of("lps"), backend=backend, precision=precision, device="cpu", threads=1)
        assert isinstance(found, PromoterDetector)
        return found

    return loaded


@pytest.fixture(scope="module")
def promoter(promoters: Promoters) -> PromoterDetector:
    return promoters("onnxruntime")


def blob(height: int, width: int, *, y: float = 0.4, x: float = 0.6) -> NDArray[np.uint8]:
    """A smooth object, (height, width) uint8, with some of each region everywhere."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    found: NDArray[np.uint8] = np.rint(20 + 215 * np.exp(-12 * ((rows - y) ** 2 + (columns - x) ** 2))).astype(np.uint8)
    return found


def encode(values: NDArray[Any], format_name: str) -> bytes:
    buffer = io.BytesIO()
    if format_name == "npy":
        np.save(buffer, values)
    else:
        Image.fromarray(values).save(buffer, format_name)
    return buffer.getvalue()


def is_one_sentence(error: BaseException) -> bool:
    return re.fullmatch(r"[^\n]+[.?]", str(error)) is not None and not re.search(r"\. [A-Z]", str(error))


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_map_is_that_of_the_network(
    promoters: Promoters, checkpoints: dict[str, Path], photos: Photos, backend: str, iterations: int
) -> None:
    torch = pytest.importorskip("torch")
    from salience.training.checkpoint import load_checkpoint
    from salience.training.networks.lps import Promoter

    _, network = load_checkpoint(checkpoints["lps"])
    assert isinstance(network, Promoter)
    promoter, image, prior = promoters(backend), photos["coffee"], blob(80, 70)
    pair = promoter.prepare_pair(image, prior)
    with torch.no_grad():
        expected = network.promote(torch.from_numpy(pair.tensor), torch.from_numpy(pair.prior), iterations).numpy()
    assert np.ptp(expected) > 0.1
    found = promoter.refine([pair], iterations)
    assert found.shape == (1, 1, 1, *SIZE)
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=AS_TORCH)
    promoted = promoter.promote(image, prior, iterations)
    np.testing.assert_array_equal(promoted.values, promoter.finish(pair, found[0, 0]).values)
    assert promoted.values.shape == image.shape[:2]
    np.testing.assert_array_equal(promoted.image, image)


@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_precision(promoters: Promoters, photos: Photos, backend: str, precision: Precision) -> None:
    promoter, prior = promoters(backend, precision), blob(64, 96)
    assert promoter.precision == precision
    found = promoter.promote(photos["coffee"], prior, 3).values
    expected = promoters(backend).promote(photos["coffee"], prior, 3).values
    # Weights of 11 bits, in fp16 activations too: measured 6e-3 at a few pixels and 3e-4 on average.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2)
    assert np.abs(found - expected).mean() < 2e-3
    assert precision == "fp32" or np.abs(found - expected).max() > 0


def test_one_iteration_is_the_default_and_the_steps_are_those_of_fewer(
    promoter: PromoterDetector, photos: Photos
) -> None:
    image, prior = photos["chelsea"], blob(30, 40)
    steps = promoter.promote_steps(image, prior, 4)
    assert len(steps) == 4
    for t, step in enumerate(steps, start=1):
        np.testing.assert_array_equal(step.values, promoter.promote(image, prior, t).values)
    np.testing.assert_array_equal(steps[0].values, promoter.promote(image, prior).values)
    assert np.abs(steps[0].values - steps[3].values).max() > SAME


@pytest.mark.parametrize("every", [False, True])
def test_a_batch_is_each_by_itself(promoter: PromoterDetector, photos: Photos, every: bool) -> None:
    images = [photos["coffee"], photos["chelsea"][:40], photos["rocket"][:, :7], np.zeros((1, 1, 3), np.uint8)]
    priors = [blob(9, 9), blob(300, 200, y=0.7), blob(2, 5), blob(64, 96, x=0.1)]
    pairs = [promoter.prepare_pair(image, prior) for image, prior in zip(images, priors, strict=True)]
    together = promoter.refine(pairs, 3, every=every)
    assert together.shape == (4, 3 if every else 1, 1, *SIZE)
    for pair, values in zip(pairs, together, strict=True):
        np.testing.assert_allclose(values, promoter.refine([pair], 3, every=every)[0], rtol=0, atol=SAME)


def test_an_empty_batch(promoter: PromoterDetector) -> None:
    assert promoter.refine([], 3).shape == (0, 1, 1, *SIZE)
    assert promoter.refine([], 3, every=True).shape == (0, 3, 1, *SIZE)


LEVELS = blob(50, 60)
DEEP = LEVELS.astype(np.uint16) * np.uint16(257)  # 65535 is 257 * 255: the same map
FLOATS = LEVELS.astype(np.float32) / np.float32(255)
SOURCES: dict[str, Callable[[Path], Any]] = {
    "png": lambda folder: stored(folder, LEVELS, "PNG"),
    "png, 16 bits": lambda folder: stored(folder, DEEP, "PNG"),
    "tiff, float": lambda folder: stored(folder, FLOATS, "TIFF"),
    "npy, uint8": lambda folder: stored(folder, LEVELS, "npy"),
    "npy, uint16": lambda folder: stored(folder, DEEP, "npy"),
    "npy, float32": lambda folder: stored(folder, FLOATS, "npy"),
    "path as text": lambda folder: str(stored(folder, LEVELS, "PNG")),
    "bytes": lambda _: encode(LEVELS, "PNG"),
    "binary file": lambda _: io.BytesIO(encode(DEEP, "PNG")),
    "PIL image": lambda _: Image.fromarray(LEVELS),
    "uint8": lambda _: LEVELS,
    "(H, W, 1)": lambda _: LEVELS[..., None],
    "uint16": lambda _: DEEP,
    "float64": lambda _: LEVELS / 255,
    "saliency map": lambda _: SaliencyMap(FLOATS, np.zeros((50, 60, 3), np.uint8)),
    "function": lambda _: lambda image: FLOATS,
    "function that gives bytes": lambda _: lambda image: encode(LEVELS, "PNG"),
    "function that gives a saliency map": lambda _: lambda image: SaliencyMap(FLOATS, image),
}


def stored(folder: Path, values: NDArray[Any], format_name: str) -> Path:
    path = folder / f"prior.{format_name.lower()}"
    path.write_bytes(encode(values, format_name))
    return path


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_prior(promoter: PromoterDetector, photos: Photos, tmp_path: Path, source: str) -> None:
    expected = promoter.promote(photos["rocket"], FLOATS, 2)
    found = promoter.promote(photos["rocket"], SOURCES[source](tmp_path), 2)
    # float64 is rounded once more.
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6)


def test_a_mask_is_a_prior(promoter: PromoterDetector, photos: Photos) -> None:
    mask = LEVELS > 128
    expected = promoter.promote(photos["rocket"], mask.astype(np.float32)).values
    np.testing.assert_array_equal(promoter.promote(photos["rocket"], mask).values, expected)
    for half in (np.float16, np.float64):
        np.testing.assert_array_equal(promoter.promote(photos["rocket"], mask.astype(half)).values, expected)


def test_another_detector_makes_the_prior(promoter: PromoterDetector, photos: Photos) -> None:
    other = load(backend="onnxruntime", device="cpu", threads=1)
    prior = other.predict(photos["coffee"])
    expected = promoter.promote(photos["coffee"], prior.values, 2)
    np.testing.assert_array_equal(promoter.promote(photos["coffee"], other.predict, 2).values, expected.values)
    np.testing.assert_array_equal(promoter.promote(photos["coffee"], prior, 2).values, expected.values)


def test_a_function_gets_the_decoded_picture(promoter: PromoterDetector, photos: Photos) -> None:
    seen: list[NDArray[np.uint8]] = []

    def note(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(image)
        return blob(*image.shape[:2])

    found = promoter.promote(encode(photos["coffee"], "PNG"), note)
    (image,) = seen
    np.testing.assert_array_equal(image, photos["coffee"])
    np.testing.assert_array_equal(found.values, promoter.promote(image, blob(400, 600)).values)


def test_an_error_of_the_function_is_the_callers(promoter: PromoterDetector, photos: Photos) -> None:
    with pytest.raises(ZeroDivisionError):
        promoter.promote(photos["coffee"], lambda image: image / (1 // 0))


def test_a_prior_of_any_size_is_stretched_over_the_picture(promoter: PromoterDetector, photos: Photos) -> None:
    row = np.linspace(0, 1, 96, dtype=np.float32)[None]
    expected = promoter.promote(photos["coffee"], np.repeat(row, 64, axis=0), 2).values
    for height in (1, 7, 64, 1000):
        found = promoter.promote(photos["coffee"], np.repeat(row, height, axis=0), 2).values
        np.testing.assert_allclose(found, expected, rtol=0, atol=SAME)


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 5000), (3000, 2000)])
def test_extreme_sizes_of_the_prior(promoter: PromoterDetector, photos: Photos, shape: tuple[int, int]) -> None:
    found = promoter.promote(photos["coffee"], blob(*shape)).values
    assert found.shape == photos["coffee"].shape[:2]
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("level", [1e-3, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_constant_prior_gives_a_half(promoters: Promoters, photos: Photos, backend: str, level: float) -> None:
    for iterations in (1, 3):
        found = promoters(backend).promote(photos["coffee"], np.full((5, 7), level), iterations).values
        # Both anchors are the mean of all pixels, but for rounding: of their sum, divided by a region's weight.
        np.testing.assert_allclose(found, 0.5, rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grain=st.sampled_from([1, 4, 16]),
    power=st.floats(0.2, 6),
    limits=st.sampled_from([(0.0, 1.0), (0.1, 0.6), (0.5, 1.0)]),
    iteration=st.integers(0, 5),
)
def test_an_inverted_prior_gives_the_inverted_map(
    promoters: Promoters,
    photos: Photos,
    backend: str,
    seed: int,
    grain: int,
    power: float,
    limits: tuple[float, float],
    iteration: int,
) -> None:
    promoter = promoters(backend)
    coarse = np.random.default_rng(seed).random((SIZE[0] // grain, SIZE[1] // grain)) ** power
    low, high = limits
    prior = (low + (high - low) * coarse.repeat(grain, 0).repeat(grain, 1)).astype(np.float32)[None, None]
    embedded = promoter.engines["embed"].run({"input": promoter.prepare(photos["coffee"]).tensor})
    found, inverted = (
        promoter.engines["refine"].run({**embedded, "prior": given, "iteration": np.array([iteration])})["next_prior"]
        for given in (prior, 1 - prior)
    )
    # Sums over all pixels, rounded by fp32 and divided by the weight of a region, a seventh of the pixels or more.
    np.testing.assert_allclose(inverted, 1 - found, rtol=0, atol=1e-4)


EMPTY: dict[str, NDArray[Any]] = {
    "float, 0": np.zeros((4, 5)),
    "float, 1": np.ones((4, 5), np.float32),
    "uint8, 0": np.zeros((4, 5), np.uint8),
    "uint16, 65535": np.full((4, 5), 65535, np.uint16),
    "bool, true": np.ones((1, 1), bool),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_empty_prior_is_an_error_or_kept(promoters: Promoters, photos: Photos, backend: str, name: str) -> None:
    promoter, prior = promoters(backend), EMPTY[name]
    level = float(prior.astype(np.float64).max() > 0)
    with pytest.raises(ImageError, match=rf"^prior: is {level:g} everywhere, expected an object and a background") as e:
        promoter.promote(photos["coffee"], prior)
    assert is_one_sentence(e.value)
    for iterations in (1, 4):
        found = promoter.promote(photos["coffee"], prior, iterations, empty="keep").values
        assert found.shape == photos["coffee"].shape[:2]
        # Bringing it back to the picture's size rounds.
        np.testing.assert_allclose(found, level, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (100, 100), (333, 777)])
def test_a_constant_prior_is_exactly_so_at_the_networks_size(
    promoter: PromoterDetector, photos: Photos, shape: tuple[int, int]
) -> None:
    for level in (0.0, 0.3, 1.0):
        prior = promoter.prepare_pair(photos["coffee"], np.full(shape, level), empty="keep").prior
        np.testing.assert_array_equal(prior, np.full((1, 1, *SIZE), level, np.float32))


def test_a_kept_prior_leaves_its_batch_alone(promoter: PromoterDetector, photos: Photos) -> None:
    image, priors = photos["coffee"], [np.zeros((4, 5), np.uint8), blob(40, 50), np.full((4, 5), 255, np.uint8)]
    found = promoter.refine([promoter.prepare_pair(image, prior, empty="keep") for prior in priors], 2)
    assert (found[0] == 0).all()
    assert (found[2] == 1).all()
    expected = promoter.refine([promoter.prepare_pair(image, priors[1])], 2)
    np.testing.assert_allclose(found[1], expected[0], rtol=0, atol=SAME)


def test_keep_changes_nothing_else(promoter: PromoterDetector, photos: Photos) -> None:
    kept = promoter.promote(photos["coffee"], LEVELS, empty="keep").values
    np.testing.assert_array_equal(kept, promoter.promote(photos["coffee"], LEVELS).values)


NO_PRIOR: dict[str, tuple[Any, str]] = {
    "NaN": (np.where(LEVELS > 200, np.nan, 0.5), "values from nan to nan"),
    "infinity": (np.where(LEVELS > 200, np.inf, 0.5), r"values from 0\.5 to inf"),
    "0 to 255": (LEVELS.astype(np.float32), r"values from 20 to \d+, expected \[0, 1\]; divide it"),
    "negative": (FLOATS - 0.5, r"values from -0\.4"),
    "float64 beyond float32": (np.full((2, 2), 1e300), r"values from 1e[+]300"),
    "one dimension": (np.ones(5), r"of shape \(5,\): expected \(H, W\)"),
    "colours": (np.zeros((4, 5, 3), np.uint8), r"of shape \(4, 5, 3\): expected \(H, W\)"),
    "batch": (np.zeros((1, 1, 4, 5), np.float32), r"of shape \(1, 1, 4, 5\)"),
    "nothing": (np.zeros((0, 5)), r"of shape \(0, 5\): expected \(H, W\), not empty"),
    "integers": (np.zeros((4, 5), np.int64), "of type int64: expected uint8, uint16, bool or float"),
    "text": (np.array([["a"]]), "of type <U1"),
    "no picture": (b"text", "not a picture of a known format"),
    "cut picture": (encode(LEVELS, "PNG")[:90], "image from memory: "),
    "missing file": (Path("gone.png"), r"gone\.png: cannot be read \(No such file"),
    "missing npy": (Path("gone.npy"), r"gone\.npy: cannot be read \(No such file"),
    "a list": ([[0.5]], "of type list: expected a path, bytes"),
    "None": (None, "of type NoneType"),
    "map with NaN": (SaliencyMap(np.full((2, 2), np.nan, np.float32), LEVELS), "values from nan to nan"),
    "map of another shape": (SaliencyMap(np.zeros((1, 4, 5, 2), np.float32), LEVELS), r"of shape \(1, 4, 5, 2\)"),
    "function that gives NaN": (lambda image: np.full((2, 2), np.nan), "values from nan to nan"),
    "function that gives nothing": (lambda image: None, "of type NoneType"),
}


@pytest.mark.parametrize("empty", ["error", "keep"])
@pytest.mark.parametrize("name", NO_PRIOR)
def test_what_is_no_prior_is_refused(promoter: PromoterDetector, photos: Photos, name: str, empty: Any) -> None:
    prior, message = NO_PRIOR[name]
    with pytest.raises(ImageError, match=message) as caught:
        promoter.promote(photos["coffee"], prior, empty=empty)
    assert is_one_sentence(caught.value)


def test_a_picture_that_cannot_be_read(promoter: PromoterDetector, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        promoter.promote(tmp_path / "gone.jpg", LEVELS)


@pytest.mark.parametrize("iterations", [0, -1])
def test_at_least_one_iteration(promoter: PromoterDetector, photos: Photos, iterations: int) -> None:
    with pytest.raises(SalienceError, match=f"^iterations {iterations}: expected at least 1.$"):
        promoter.promote(photos["coffee"], LEVELS, iterations)
    with pytest.raises(SalienceError, match=f"^iterations {iterations}: expected at least 1.$"):
        promoter.promote_steps(photos["coffee"], LEVELS, iterations)


def test_an_unknown_choice_for_empty_priors(promoter: PromoterDetector, photos: Photos) -> None:
    with pytest.raises(SalienceError, match=r"^empty 'skip' is not known: choose one of error, keep\.$"):
        promoter.promote(photos["coffee"], LEVELS, empty="skip")  # type: ignore[arg-type]


def test_predict_says_what_to_use(promoter: PromoterDetector, photos: Photos) -> None:
    for call in (promoter.predict, lambda image: promoter.predict_batch([image])):
        with pytest.raises(SalienceError, match=r"holds lps, which promotes a prior; use promote\(") as caught:
            call(photos["coffee"])
        assert is_one_sentence(caught.value)
    assert not promoter.standalone
    with pytest.raises(SalienceError, match="holds lps"):
        promoter.infer([promoter.prepare(photos["coffee"])])


def test_a_pair_is_enough_for_infer(promoter: PromoterDetector, photos: Photos) -> None:
    pairs = [promoter.prepare_pair(photos["coffee"], blob(20, 30, y=y)) for y in (0.2, 0.8)]
    np.testing.assert_array_equal(promoter.infer(pairs), promoter.refine(pairs, 1)[:, 0])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_sixteen_threads_get_what_one_gets(promoters: Promoters, photos: Photos, backend: str) -> None:
    promoter = promoters(backend)
    tasks = [
        (photos[name], blob(20, 30, y=y), iterations)
        for name in ("coffee", "chelsea")
        for y in (0.2, 0.5, 0.8)
        for iterations in (1, 2, 3)
    ]
    expected = [promoter.promote(*task).values for task in tasks]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda task: promoter.promote(*task).values, tasks * 3))
    for one, values in zip(found, expected * 3, strict=True):
        np.testing.assert_array_equal(one, values)


@pytest.fixture
def opened(bundle_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> tuple[PromoterDetector, list[Any]]:
    """A promoter of its own, and the sessions of `refine` that it opens."""
    promoter = load(bundle_of("lps"), backend="onnxruntime", precision="fp32", device="cpu", threads=1)
    assert isinstance(promoter, PromoterDetector)
    sessions: list[Session[Any]] = []
    genuine = promoter.engines["refine"].session

    def noted(batch: int = 1) -> Session[Any]:
        sessions.append(genuine(batch))
        return sessions[-1]

    monkeypatch.setattr(promoter.engines["refine"], "session", noted)
    return promoter, sessions


def test_buffers_are_used_again(opened: tuple[PromoterDetector, list[Any]], photos: Photos) -> None:
    promoter, sessions = opened
    pairs = [promoter.prepare_pair(photos["coffee"], blob(20, 30, y=y)) for y in (0.2, 0.5, 0.8)]
    expected = promoter.refine(pairs[:1], 2)
    for _ in range(3):
        promoter.refine(pairs[1:2], 3)
        np.testing.assert_array_equal(promoter.refine(pairs[:1], 2), expected)
    assert [session.batch for session in sessions] == [1]
    # Each iteration ran on them, and each call fed them once.
    assert sessions[0].copies.to_device == 2 * 7
    assert sessions[0].copies.to_host == 7


def test_buffers_of_another_size_are_let_go(opened: tuple[PromoterDetector, list[Any]], photos: Photos) -> None:
    promoter, sessions = opened
    pairs = [promoter.prepare_pair(photos["coffee"], blob(20, 30, y=y)) for y in (0.2, 0.5, 0.8)]
    for count in (3, 3, 2, 2, 3):
        promoter.refine(pairs[:count], 1)
    assert [session.batch for session in sessions] == [3, 2, 3]


def test_calls_at_once_have_buffers_of_their_own(
    opened: tuple[PromoterDetector, list[Any]], photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoter, sessions = opened
    pair = promoter.prepare_pair(photos["coffee"], LEVELS)
    expected = promoter.refine([pair], 1)
    inside: list[Session[Any]] = []

    def call_within(session: Session[Any]) -> None:
        # What another thread would do just now.
        if not inside:
            inside.append(session)
            np.testing.assert_array_equal(promoter.refine([pair], 1), expected)
        type(session).run(session)

    for _ in range(3):
        for session in sessions:
            monkeypatch.setattr(session, "run", partial(call_within, session))
        inside.clear()
        np.testing.assert_array_equal(promoter.refine([pair], 1), expected)
        assert inside
    # Both are kept for the next two calls at once.
    assert len(sessions) == 2


@pytest.mark.parametrize("failure", [EngineError("engine: out of memory."), KeyboardInterrupt()], ids=repr)
def test_buffers_of_a_failed_call_are_not_used_again(
    opened: tuple[PromoterDetector, list[Any]], photos: Photos, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    promoter, sessions = opened
    expected = promoter.promote(photos["coffee"], LEVELS, 3).values
    run, runs = sessions[0].run, list[int]()

    def fail() -> None:
        runs.append(1)
        if len(runs) == 2:
            raise failure
        run()

    monkeypatch.setattr(sessions[0], "run", fail)
    with pytest.raises(type(failure)):
        promoter.promote(photos["coffee"], LEVELS, 3)
    assert len(runs) == 2
    np.testing.assert_array_equal(promoter.promote(photos["coffee"], LEVELS, 3).values, expected)
    assert len(sessions) == 2
    assert len(runs) == 2


def test_a_map_with_nan_is_an_error_not_a_picture(promoter: PromoterDetector, photos: Photos) -> None:
    pair = promoter.prepare_pair(photos["coffee"], LEVELS)
    with pytest.raises(SalienceError, match="holds NaN or infinity"):
        promoter.finish(pair, np.full((1, *SIZE), np.nan, np.float32))
