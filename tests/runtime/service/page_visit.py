"""A browser at the page, as its tests use it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from salience.runtime.images import decode
from salience.runtime.saliency import SaliencyMap
from tests.runtime.service.page_server import png

CHROMIUM = Path("/usr/bin/chromium")
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
GREY: Colour = (51, 51, 51)


@dataclass(frozen=True, eq=False)
class Visit:
    """A page that is open, with what it asked for and what its console said."""

    page: Any
    url: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, context: Any, url: str) -> "Visit":
        """Go to `url` in a new page."""
        visit = cls(context.new_page(), url)
        visit.page.set_default_timeout(8000)
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on("console", lambda message: visit.complaints.append(f"{message.type}: {message.text}"))
        visit.page.goto(url)
        return visit

    def choose_model(self, name: str) -> None:
        """Click the model of that name."""
        self.page.locator(".model", has=self.page.get_by_text(name, exact=True)).click()

    def give(self, **files: bytes) -> None:
        """Choose files by the form, named as the arguments with .png."""
        chosen = [{"name": f"{name}.png", "mimeType": "image/png", "buffer": data} for name, data in files.items()]
        self.page.locator("#files:not(:disabled)").set_input_files(chosen)

    def card(self, name: str) -> Any:
        """The card of a file, by its name without .png."""
        return self.page.locator(".card", has=self.page.get_by_role("heading", name=f"{name}.png", exact=True))

    def done(self, *names: str) -> Any:
        """Wait until the cards have their results; the last of them."""
        for name in names:
            self.card(name).and_(self.page.locator("[data-state=done]")).wait_for()
        return self.card(names[-1])

    def show(self, name: str, view: str, *, original: str = "Home") -> None:
        """Choose a card's view and move its slider to an end: none of the original at Home, all of it at End."""
        self.card(name).locator(".tiles label", has_text=view).click()
        self.card(name).get_by_role("slider").press(original)

    def download(self, name: str, kind: str) -> tuple[str, bytes]:
        """File name and bytes of what the button of that kind brings."""
        with self.page.expect_download() as coming:
            self.card(name).locator(f".downloads [data-kind={kind}]").click()
        return coming.value.suggested_filename, Path(coming.value.path()).read_bytes()


def halves(left: Colour = WHITE, right: Colour = GREY) -> bytes:
    """A picture of two colours, as PNG."""
    pixels = np.empty((60, 80, 3), dtype=np.uint8)
    pixels[:, :40], pixels[:, 40:] = left, right
    return png(Image.fromarray(pixels))


def brightness(picture: bytes) -> SaliencyMap:
    """The result for one picture of the stand-in."""
    image = decode(picture)
    return SaliencyMap(image.mean(axis=2, dtype=np.float32) / 255, image)


def colours(place: Any, across: Sequence[float] = (0.25, 0.75)) -> list[Colour]:
    """What a user sees in `place`, at fractions of its width and a third of its height."""
    with Image.open(io.BytesIO(place.screenshot(animations="disabled"))) as seen:
        rgb = np.asarray(seen.convert("RGB"))
    row = rgb[len(rgb) // 3]
    return [tuple(int(level) for level in row[int(fraction * len(row))]) for fraction in across]  # type: ignore[misc]
