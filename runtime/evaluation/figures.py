"""Pictures of an evaluation, as PNG bytes: its curves, and its best and worst images."""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import BackendUnavailableError, ImageError
from ..images import decode, decode_mask
from ..png_writer import encode_png
from .command import Evaluation, ImageResult, LoadMap, fit_to
from .metrics import Curves
from .pairs import Pair

SHOWN = 6
CELL = (160, 220)
CAPTION_HEIGHT, HEADING_HEIGHT = 26, 36
GAP, MARGIN = 6, 16
# Colours that the colour-blind can tell apart (Okabe and Ito), then the same dashed and dotted.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":")
_THRESHOLDS = np.arange(255, -1, -1)


def draw_curves(curves: Curves) -> bytes:
    """PNG of the mean precision-recall curve and of the image-averaged F over the threshold.

    Both mark max F, the maximum of the averaged F; the first also marks the maximum F of the curve itself.
    """
    figure, left, right = _curve_panels((10, 4.4))
    thresholds, best = _THRESHOLDS, int(np.argmax(curves.f))
    f_of_mean = curves.f_of_mean_pr
    highest = int(np.argmax(f_of_mean))
    marker: dict[str, Any] = {"linestyle": "none", "zorder": 3, "clip_on": False}
    red, orange = {"color": "tab:red", "marker": "o", **marker}, {"color": "tab:orange", "marker": "D", **marker}
    left.plot(curves.recall, curves.precision, color="tab:blue")
    left.plot(curves.recall[best], curves.precision[best], label=f"max F, {curves.f[best]:.4f}", **red)
    label = f"max F of mean PR, {f_of_mean[highest]:.4f}"
    left.plot(curves.recall[highest], curves.precision[highest], label=label, **orange)
    right.plot(thresholds, curves.f, color="tab:blue")
    right.plot(thresholds[best], curves.f[best], label=f"max F, at threshold {thresholds[best]}", **red)
    for axes in (left, right):
        axes.legend(loc="lower center")
    return figure_png(figure)


def draw_many_curves(curves: Mapping[str, Curves]) -> bytes:
    """PNG of the curves of several rows by name, as `draw_curves` has them, the max F of each marked."""
    figure, left, right = _curve_panels((10, 4.6 + 0.22 * ((len(curves) + 2) // 3)))
    for index, (name, curve) in enumerate(curves.items()):
        best = int(np.argmax(curve.f))
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": _DASHES[index // len(COLOURS) % 3],
        }
        style |= {"markevery": [best], "marker": "o", "markersize": 4}
        left.plot(curve.recall, curve.precision, label=f"{name} (max F {curve.f[best]:.3f})", **style)
        right.plot(_THRESHOLDS, curve.f, **style)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure_png(figure)


def figure_png(figure: Any) -> bytes:
    """PNG of a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def new_figure(size: tuple[float, float]) -> Any:
    """An empty figure of matplotlib, on white; `size` (width, height) in inches.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError(
            "report: matplotlib is not installed; run: pip install 'salience[evaluate]'"
        ) from error
    return Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")


def _curve_panels(size: tuple[float, float]) -> tuple[Any, Any, Any]:
    """A figure with an empty panel for precision and recall, and one for F over the threshold."""
    figure = new_figure(size)
    left, right = figure.subplots(1, 2)
    left.set(title="Mean precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1))
    right.set(title="Image-averaged F over the threshold", xlabel="threshold", ylabel="F (beta² = 0.3)", xlim=(0, 255))
    for axes in (left, right):
        axes.set_ylim(0, 1)
        axes.grid(color="0.9")
    return figure, left, right


class Tile(NamedTuple):
    """A row of a contact sheet; `scores` stands above it, beside the pair's name."""

    pair: Pair
    scores: str


def draw_contact_sheet(evaluation: Evaluation, load_map: LoadMap) -> bytes:
    """PNG of the images of largest and of smallest F at their own best threshold, up to 6 of each, none in both.

    A row is picture, mask and map (as given, at the mask's size), with name, own max F and MAE above; the pictures'
    column is left out where no pair has one.
    """
    best, worst = extremes(evaluation.images)
    blocks = {
        heading: [Tile(result.pair, f"own max F {result.f_max:.3f}   MAE {result.mae:.3f}") for result in results]
        for heading, results in (("Best by own max F", best), ("Worst by own max F", worst))
    }
    return draw_blocks(blocks, load_map)


def draw_blocks(blocks: Mapping[str, Sequence[Tile]], load_map: LoadMap) -> bytes:
    """PNG of blocks of rows side by side, each under its heading; those without rows are left out."""
    with_pictures = any(tile.pair.picture for tiles in blocks.values() for tile in tiles)
    drawn = [
        _draw_block(heading, tiles, load_map, with_pictures=with_pictures) for heading, tiles in blocks.items() if tiles
    ]
    width = sum(block.width for block in drawn) + MARGIN * (len(drawn) + 1)
    sheet = Image.new("RGB", (width, max(block.height for block in drawn) + 2 * MARGIN), "white")
    left = MARGIN
    for block in drawn:
        sheet.paste(block, (left, MARGIN))
        left += block.width + MARGIN
    return encode_png(np.asarray(sheet))


class Extremes(NamedTuple):
    """Images of largest F, best first, and of smallest F, worst first."""

    best: tuple[ImageResult, ...]
    worst: tuple[ImageResult, ...]


def extremes(images: Sequence[ImageResult], shown: int = SHOWN) -> Extremes:
    """Up to `shown` images from either end of the ranking by F, then MAE, then name; none is in both."""
    ranked = sorted(images, key=lambda result: (-result.f_max, result.mae, result.pair.name))
    best = min(shown, (len(ranked) + 1) // 2)
    worst = min(shown, len(ranked) - best)
    return Extremes(tuple(ranked[:best]), tuple(ranked[::-1][:worst]))


def printable(text: str) -> str:
    """File names may hold line breaks and bytes that are no text; reports show a mark in their place."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _draw_block(heading: str, rows: Sequence[Tile], load_map: LoadMap, *, with_pictures: bool) -> Image.Image:
    height, width = CELL
    columns = ["picture", "mask", "map"] if with_pictures else ["mask", "map"]
    pitch = CAPTION_HEIGHT + height + GAP
    block = Image.new("RGB", (len(columns) * (width + GAP) - GAP, HEADING_HEIGHT + len(rows) * pitch - GAP), "white")
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), f"{heading}: {', '.join(columns)}", fill="black", font=ImageFont.load_default(20))
    for index, tile in enumerate(rows):
        top = HEADING_HEIGHT + index * pitch
        _draw_caption(draw, tile, top=top, width=block.width)
        for column, cell in enumerate(_cells(tile.pair, load_map, with_picture=with_pictures)):
            block.paste(cell, (column * (width + GAP), top + CAPTION_HEIGHT))
    return block


def _draw_caption(draw: ImageDraw.ImageDraw, tile: Tile, *, top: int, width: int) -> None:
    """Name at the left, shortened from its front where it is too long; scores at the right."""
    font = ImageFont.load_default(15)
    room = width - draw.textlength(tile.scores, font=font) - 2 * GAP
    name = printable(tile.pair.name)
    shortened = (name if cut == 0 else f"...{name[cut:]}" for cut in itertools.count())
    name = next(text for text in shortened if draw.textlength(text, font=font) <= room)
    middle = top + CAPTION_HEIGHT // 2
    draw.text((0, middle), name, fill="black", font=font, anchor="lm")
    draw.text((width, middle), tile.scores, fill="black", font=font, anchor="rm")


def _cells(pair: Pair, load_map: LoadMap, *, with_picture: bool) -> list[Image.Image]:
    mask = decode_mask(pair.mask)
    saliency = fit_to(load_map(pair), mask.shape)
    cells = [_cell(mask.view(np.uint8) * np.uint8(255)), _cell(saliency)]
    return [_picture_cell(pair.picture), *cells] if with_picture else cells


def _picture_cell(path: Path | None) -> Image.Image:
    """The picture, or a cell that says why there is none: it is shown only, no score depends on it."""
    try:
        if path:
            return _cell(decode(path))
        note = "no picture"
    except ImageError:
        note = "picture cannot be read"
    height, width = CELL
    cell = Image.new("RGB", (width, height), "gainsboro")
    font = ImageFont.load_default(14)
    ImageDraw.Draw(cell).text((width // 2, height // 2), note, fill="black", font=font, anchor="mm")
    return cell


def _cell(image: NDArray[np.uint8]) -> Image.Image:
    """The image, whole, in the middle of a cell."""
    height, width = CELL
    picture = Image.fromarray(image).convert("RGB")
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    cell = Image.new("RGB", (width, height), "gainsboro")
    cell.paste(picture.resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell
