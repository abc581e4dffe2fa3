"""The report's folder: what its files hold, and that they hold it whatever the files are called."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience import __version__
from salience.runtime.errors import ImageError
from salience.runtime.evaluation.command import Evaluation, ImageResult, compare_maps, evaluate_maps, load_stored_map
from salience.runtime.evaluation.comparison import Comparison, write_comparison
from salience.runtime.evaluation.figures import draw_contact_sheet, draw_curves, extremes, printable
from salience.runtime.evaluation.pairs import Pair
from salience.runtime.evaluation.report import Report, write_report
from tests.html_page import Page

FILES = ["contact_sheet.png", "curves.png", "report.html", "scores.json"]


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def make_pairs(folder: Path, *names: str, with_pictures: bool = True) -> list[Pair]:
    """Maps that get worse from name to name, each of its own size."""
    random = np.random.default_rng(0)
    pairs = []
    for index, name in enumerate(names):
        mask = np.zeros((20 + index, 30), np.uint8)
        mask[5:15, 8:20] = 255
        noise = random.integers(0, 40 + 12 * index, mask.shape)
        saliency = np.clip(mask * 0.6 + noise, 0, 255).astype(np.uint8)
        picture = random.integers(0, 256, (*mask.shape, 3)).astype(np.uint8)
        pairs.append(
            Pair(
                name,
                save(folder / f"set/maps/{name}.png", saliency),
                save(folder / f"set/masks/{name}.png", mask),
                save(folder / f"set/images/{name}.png", picture) if with_pictures else None,
            )
        )
    return pairs


def evaluate(pairs: list[Pair]) -> Evaluation:
    return evaluate_maps(pairs, load_stored_map, normalise=True)


def report_on(folder: Path, pairs: list[Pair]) -> Path:
    maps, masks = folder / "set/maps", folder / "set/masks"
    evaluation = evaluate(pairs)
    page = write_report(folder / "report", evaluation, load_stored_map, maps=maps, masks=masks, part="test")
    return page.parent


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def test_folder_is_made_and_holds_the_four_files(tmp_path: Path) -> None:
    folder = report_on(tmp_path, make_pairs(tmp_path, "a", "b", "c"))
    assert sorted(path.name for path in folder.iterdir()) == FILES
    size_of((folder / "curves.png").read_bytes())
    size_of((folder / "contact_sheet.png").read_bytes())


def test_scores_file_round_trips_with_its_evidence(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, "a", "b/c")
    report = Report.model_validate_json((report_on(tmp_path, pairs) / "scores.json").read_text())
    evaluation = evaluate(pairs)
    assert report.scores == evaluation.scores
    assert report.curves == evaluation.curves
    assert [image.name for image in report.images] == ["a", "b/c"]
    assert [image.f_max for image in report.images] == [result.f_max for result in evaluation.images]
    assert report.evidence.model_dump() == {
        "salience": __version__,
        "images": 2,
        "failures": 0,
        "resized": 0,
        "normalised": True,
        "maps": "set/maps",
        "masks": "set/masks",
        "part": "test",
        "detector": None,
    }


def test_page_is_well_formed_and_asks_for_nothing(tmp_path: Path) -> None:
    text = (report_on(tmp_path, make_pairs(tmp_path, "a", "b", "c")) / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("img") == 2
    assert all(address.startswith("data:") for address in page.addresses)
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert "color-scheme: light dark" in text
    names = {"max F", "max F of mean PR", "mean of max F", "adaptive F", "mean F"}
    assert {*names, "own max F", __version__, "a"} <= set(page.words)


def test_names_are_escaped(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, "<script>alert(1)<&'$title\"$x$ 雪 é", "b")
    page = Page((report_on(tmp_path, pairs) / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert pairs[0].name in page.words


def test_names_that_are_no_text(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, "a\nb", "c\udcff")
    folder = report_on(tmp_path, pairs)
    images = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["images"]
    assert [image["name"] for image in images] == [
        "a\N{REPLACEMENT CHARACTER}b",
        "c\N{REPLACEMENT CHARACTER}",
    ]
    assert printable("plain name-1.2 雪") == "plain name-1.2 雪"


def test_sources_are_in_the_page_and_the_scores_file(tmp_path: Path) -> None:
    folder = report_on(tmp_path, make_pairs(tmp_path, "left/a", "right/a", "right/b"))
    report = Report.model_validate_json((folder / "scores.json").read_text())
    assert {name: scores.images for name, scores in report.sources.items()} == {"left": 1, "right": 2}
    assert report.mean_of_sources
    means = [scores.mae for scores in report.sources.values()]
    assert report.mean_of_sources.mae == pytest.approx(sum(means) / 2)
    page = Page((folder / "report.html").read_text())
    assert {"source", "left", "right", "mean of sources", "all images"} <= set(page.words)


def test_scores_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    written = json.loads((report_on(tmp_path, make_pairs(tmp_path, "a")) / "scores.json").read_text())
    added = [name for name in written["scores"] if name.endswith(("_precision", "_recall", "_of_max", "_of_mean_pr"))]
    assert len(added) == 10
    for name in added:
        del written["scores"][name]
    del written["sources"], written["mean_of_sources"]
    assert Report.model_validate(written).scores.f_max == written["scores"]["f_max"]


def test_comparison_has_a_row_and_a_line_for_each_method(tmp_path: Path) -> None:
    pairs = {name: make_pairs(tmp_path / name, "a", "b") for name in ("first", "<second>")}
    load_maps = dict.fromkeys(pairs, load_stored_map)
    found = compare_maps(pairs, load_maps, normalise=True)
    maps = {name: tmp_path / name / "set/maps" for name in pairs}
    page_path = write_comparison(tmp_path / "report", found, load_maps, maps=maps, masks=tmp_path / "first/set/masks")
    folder = page_path.parent
    written = Comparison.model_validate_json((folder / "scores.json").read_text())
    assert {name: report.scores for name, report in written.methods.items()} == {
        name: evaluation.scores for name, evaluation in found.items()
    }
    size_of((folder / "curves.png").read_bytes())
    page = Page(page_path.read_text())
    assert {"method", "first", "<second>", "max F of mean PR", "max F: recall"} <= set(page.words)
    assert all(address.startswith("data:") for address in page.addresses)
    for name in pairs:
        assert sorted(path.name for path in (folder / name).iterdir()) == FILES


def test_failures_are_in_the_page_and_the_scores_file(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, "a", "b")
    pairs[0].source.write_bytes(pairs[0].source.read_bytes()[:60])
    folder = report_on(tmp_path, pairs)
    report = Report.model_validate_json((folder / "scores.json").read_text())
    assert (report.evidence.images, report.evidence.failures) == (1, 1)
    assert report.failures[0].name == "a"
    page = Page((folder / "report.html").read_text())
    assert {"1 not scored", "a", report.failures[0].reason} <= set(page.words)


def test_sheet_has_a_column_less_without_pictures(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(14)]
    with_pictures = make_pairs(tmp_path, *names)
    without = [Pair(pair.name, pair.source, pair.mask) for pair in with_pictures]
    evaluation = evaluate(with_pictures)
    wide = size_of(draw_contact_sheet(evaluation, load_stored_map))
    narrow = size_of(draw_contact_sheet(evaluate(without), load_stored_map))
    assert wide[1] == narrow[1]
    assert wide[0] > narrow[0]


def test_sheet_survives_a_missing_or_broken_picture(tmp_path: Path) -> None:
    first, second, third = make_pairs(tmp_path, "a", "b", "c")
    assert first.picture
    first.picture.write_bytes(first.picture.read_bytes()[:60])
    pairs = [first, Pair(second.name, second.source, second.mask), third]
    size_of(draw_contact_sheet(evaluate(pairs), load_stored_map))


@pytest.mark.parametrize("shape", [(1, 2), (400, 3), (3, 400)])
def test_sheet_takes_any_shape_and_long_names(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    image[0, 0] = 255
    path = save(tmp_path / "a.png", image)
    width, height = size_of(draw_contact_sheet(evaluate([Pair("deep/" * 60 + "a", path, path)]), load_stored_map))
    assert width > 100
    assert height > 100


def test_sheet_shows_the_map_at_the_size_of_its_mask(tmp_path: Path) -> None:
    (pair,) = make_pairs(tmp_path, "a", with_pictures=False)
    evaluation = evaluate([pair])
    white = draw_contact_sheet(evaluation, lambda _: np.full((3, 900), 255, np.uint8))
    same = draw_contact_sheet(evaluation, lambda _: np.full((20, 30), 255, np.uint8))
    assert white == same


@pytest.mark.parametrize(("count", "best", "worst"), [(1, 1, 0), (2, 1, 1), (5, 3, 2), (12, 6, 6), (40, 6, 6)])
def test_best_and_worst_share_no_image(count: int, best: int, worst: int) -> None:
    values = np.random.default_rng(count).permutation(count) / count
    images = [ImageResult(Pair(str(f), Path(), Path()), mae=0.1, f_max=f) for f in values.tolist()]
    found = extremes(images)
    assert (len(found.best), len(found.worst)) == (best, worst)
    ranked = sorted(values.tolist())
    assert [result.f_max for result in found.best] == ranked[::-1][:best]
    assert [result.f_max for result in found.worst] == ranked[:worst]


def test_equal_images_are_ranked_by_mae_and_name() -> None:
    images = [
        ImageResult(Pair(name, Path(), Path()), mae=mae, f_max=0.5)
        for name, mae in (("c", 0.1), ("a", 0.2), ("b", 0.1), ("d", 0.3))
    ]
    found = extremes(images)
    assert [result.pair.name for result in found.best + found.worst] == ["b", "c", "d", "a"]


def test_report_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, "a", "b")
    folder = report_on(tmp_path, pairs)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluation = evaluate(pairs[:1])
    pairs[0].mask.unlink()
    with pytest.raises(ImageError):
        write_report(folder, evaluation, load_stored_map, maps=tmp_path, masks=tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_curves_draw_the_same_each_time(tmp_path: Path) -> None:
    curves = evaluate(make_pairs(tmp_path, "a")).curves
    assert draw_curves(curves) == draw_curves(curves)


def test_pyplot_is_never_loaded_and_matplotlib_only_to_draw(tmp_path: Path) -> None:
    make_pairs(tmp_path, "a", with_pictures=False)
    code = """
import sys
from pathlib import Path
from salience.runtime.evaluation.command import evaluate_maps, load_stored_map
from salience.runtime.evaluation.pairs import find_pairs
from salience.runtime.evaluation.report import write_report

root = Path(sys.argv[1])
maps, masks = root / "set/maps", root / "set/masks"
found = evaluate_maps(find_pairs(maps, masks).pairs, load_stored_map, normalise=True)
assert "matplotlib" not in sys.modules
assert "torch" not in sys.modules
write_report(root / "report", found, load_stored_map, maps=maps, masks=masks)
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
