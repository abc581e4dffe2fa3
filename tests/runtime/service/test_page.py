"""The page of the service in a browser, with a stand-in for the server."""

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from salience.runtime.images import decode
from salience.runtime.png_writer import encode_png
from salience.runtime.saliency import SaliencyMap
from tests.runtime.service.page_server import CLASSES, MODELS, Refused, StandIn, foreseen, served
from tests.runtime.service.page_visit import GREY, WHITE, Visit, brightness, colours, halves

sync_api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn([dict(model) for model in MODELS], foreseen, examples={"square": halves()})


@pytest.fixture
def opened(browser: Any, stand_in: StandIn) -> Iterator[Callable[..., Visit]]:
    """Settings of a browser's context -> the page, open in it."""
    contexts: list[Any] = []
    with served(stand_in) as url:

        def open_page(script: str = "", **settings: Any) -> Visit:
            contexts.append(browser.new_context(**settings))
            if script:
                contexts[-1].add_init_script(script)
            return Visit.open(contexts[-1], url)

        yield open_page
        for context in contexts:
            context.close()


@pytest.fixture
def visit(opened: Callable[..., Visit]) -> Visit:
    return opened()


@pytest.mark.parametrize("view", ["Map", "Overlay"])
def test_a_view_is_what_the_server_renders(visit: Visit, view: str) -> None:
    picture = halves()
    visit.give(cup=picture)
    visit.done("cup")
    visit.show("cup", view)

    rendered = brightness(picture).render("map" if view == "Map" else "overlay")
    wanted = [np.broadcast_to(rendered[20, column], 3) for column in (20, 60)]

    # Two levels: the browser blends in 8 bits.
    np.testing.assert_allclose(colours(visit.card("cup").locator(".frame")), wanted, atol=2)
    assert visit.card("cup").locator("img.map").first.evaluate("i => [i.naturalWidth, i.naturalHeight]") == [80, 60]


def test_the_cutout_lets_a_checkerboard_through(visit: Visit) -> None:
    picture = halves(left=(255, 250, 255))
    visit.give(cup=picture)
    visit.done("cup")
    visit.show("cup", "Cutout")

    seen = colours(visit.card("cup").locator(".frame"), across=np.linspace(0.6, 0.9, 60).tolist())

    grounds = {(255, 255, 255), (224, 224, 231)}
    through = {tuple(round(0.2 * 51 + 0.8 * level) for level in ground) for ground in grounds}
    assert all(any(np.abs(np.subtract(pixel, ground)).max() <= 2 for ground in through) for pixel in seen)
    assert len(set(seen)) > 1
    np.testing.assert_allclose(colours(visit.card("cup").locator(".frame"))[0], (255, 250, 255), atol=2)


def test_the_slider_reveals_the_original_by_keyboard(visit: Visit) -> None:
    visit.give(cup=halves())
    frame = visit.done("cup").locator(".frame")
    visit.show("cup", "Overlay", original="End")
    assert colours(frame) == [WHITE, GREY]
    slider = visit.card("cup").get_by_role("slider", name="Original against overlay of cup.png")
    slider.press("Home")
    tinted = colours(frame)
    assert [np.abs(np.subtract(*pair)).max() > 20 for pair in zip(tinted, (WHITE, GREY), strict=True)] == [True, True]
    for _ in range(5):
        slider.press("PageUp")

    assert colours(frame) == [WHITE, tinted[1]]
    assert slider.get_attribute("aria-valuetext") == "50 % original"


def test_many_pictures_go_two_at_a_time_and_stay_in_order(visit: Visit, stand_in: StandIn) -> None:
    stand_in.delay_s = 0.1
    visit.give(**{f"p{number}": halves(left=(50 * number, 0, 0)) for number in range(5)})
    visit.done(*(f"p{number}" for number in range(5)))

    assert stand_in.most_at_once == 2
    assert visit.page.get_by_role("heading", level=2).all_inner_texts() == [f"p{number}.png" for number in range(5)]
    expect(visit.page.locator("#status")).to_have_text("5 of 5 done")


def test_a_group_is_one_request(visit: Visit, stand_in: StandIn) -> None:
    first, second = halves(WHITE, WHITE), halves((0, 0, 0), (0, 0, 0))
    visit.choose_model("gicd")
    visit.give(first=first, second=second)
    visit.done("first", "second")
    visit.show("second", "Map")

    assert colours(visit.card("second").locator(".frame"))[0] == (128, 128, 128)
    name, cutout = visit.download("second", "cutout")
    assert name == "second-cutout.png"
    assert cutout == encode_png(SaliencyMap(np.full((60, 80), 0.5, np.float32), decode(second)).cutout())
    _, other = visit.download("first", "cutout")
    assert decode(other)[0, 0].tolist() == [255, 255, 255]
    assert [(sent.texts["kind"], sent.names) for sent in stand_in.sent] == [
        ("map", ("first.png", "second.png")),
        ("cutout", ("first.png", "second.png")),
    ]


def test_a_group_too_large_is_not_sent(visit: Visit, stand_in: StandIn) -> None:
    visit.choose_model("gicd")
    visit.give(a=halves(), b=halves(), c=halves(), d=halves())

    expect(visit.card("d").locator(".error")).to_have_text("The group has 4 pictures, and this server takes at most 3.")
    assert stand_in.sent == []


def test_a_prior_is_another_models_map(visit: Visit, stand_in: StandIn) -> None:
    picture = halves()
    visit.choose_model("better")
    visit.give(cup=picture)
    visit.done("cup")
    visit.show("cup", "Map")

    first, second = stand_in.sent
    assert (first.model, second.model) == ("multis", "better")
    assert second.files["prior"] == [encode_png(brightness(picture).grey())]
    np.testing.assert_allclose(colours(visit.card("cup").locator(".frame")), [(0, 0, 0), (204, 204, 204)], atol=1)


def test_a_prior_is_a_file_of_ones_own(visit: Visit, stand_in: StandIn) -> None:
    prior = halves((0, 0, 0), WHITE)
    visit.choose_model("better")
    visit.page.get_by_label("Prior", exact=True).select_option("A file of mine")
    visit.give(cup=halves())
    expect(visit.card("cup").locator(".error")).to_contain_text("choose its file")
    visit.page.get_by_label("File of the prior").set_input_files(
        [{"name": "prior.png", "mimeType": "image/png", "buffer": prior}]
    )
    visit.page.get_by_role("button", name="Run again: cup.png").click()
    visit.done("cup")

    assert [(sent.model, sent.files["prior"]) for sent in stand_in.sent] == [("better", [prior])]
    expect(visit.card("cup").locator(".error")).to_be_hidden()


def test_a_class_is_found_or_asked_for(visit: Visit, stand_in: StandIn) -> None:
    visit.choose_model("cgd")
    visit.give(cup=halves((200, 0, 0), (100, 0, 90)))
    expect(visit.done("cup").locator(".seen")).to_have_text("red, scarlet 93 %")
    field = visit.page.get_by_role("combobox", name="Class")
    field.fill("blue")
    visit.page.get_by_role("button", name="Run all again").click()
    expect(visit.card("cup").locator(".seen")).to_have_text("blue 93 %")
    field.fill("tabby")
    visit.page.get_by_role("button", name="Run all again").click()

    expect(visit.card("cup").locator(".error")).to_contain_text("class 'tabby': none of that name")
    names = visit.page.locator("#class-names option").evaluate_all("options => options.map(o => o.value)")
    assert names == list(CLASSES)
    assert [sent.texts.get("class") for sent in stand_in.sent] == [None, "blue"]


@pytest.mark.parametrize(
    ("refused", "shown"),
    [
        (Refused(400, "image bad.png: is <b>not</b> a picture."), "image bad.png: is <b>not</b> a picture."),
        (Refused(413, "request: too large."), "request: too large."),
        (Refused(502, None), "The server answered 502 Bad Gateway."),
    ],
)
def test_an_error_stands_at_its_picture(visit: Visit, stand_in: StandIn, refused: Refused, shown: str) -> None:
    stand_in.refused["bad.png"] = refused
    visit.give(good=halves(), bad=halves())
    visit.done("good")

    expect(visit.card("bad").get_by_role("alert")).to_have_text(shown)
    expect(visit.card("good").locator(".error")).to_be_hidden()
    expect(visit.page.locator("#status")).to_have_text("1 of 2 done, 1 failed")
    assert visit.card("bad").get_by_role("alert").inner_text() == shown


def test_a_file_too_large_is_not_sent(visit: Visit, stand_in: StandIn) -> None:
    expect(visit.page.locator("#limits")).to_contain_text("up to 1 MiB and 150 megapixels each")
    visit.give(huge=bytes(stand_in.limit_bytes * 3 // 2))

    expect(visit.card("huge").get_by_role("alert")).to_have_text(
        "huge.png: has 1.5 MiB, and this server takes at most 1 MiB."
    )
    assert not any("predict" in url for url in visit.asked)


def test_a_busy_server_is_asked_again(visit: Visit, stand_in: StandIn) -> None:
    stand_in.refusals = [Refused(503, "queue: is full.", retry_after_s=1)]
    visit.give(cup=halves())
    expect(visit.card("cup").locator(".busy")).to_have_text("The server is busy; again in 1 s")
    visit.done("cup")

    expect(visit.card("cup").locator(".busy")).to_be_hidden()
    assert len([url for url in visit.asked if "predict" in url]) == 2


def test_a_server_that_stays_busy_is_left_alone(visit: Visit, stand_in: StandIn) -> None:
    stand_in.refusals = [Refused(503, "queue: is full.", retry_after_s=0)] * 9
    visit.give(cup=halves())

    expect(visit.card("cup").get_by_role("alert")).to_have_text("queue: is full.")
    assert len(stand_in.refusals) == 4


def test_a_server_that_is_gone_is_said(visit: Visit, stand_in: StandIn) -> None:
    visit.page.locator("#files:not(:disabled)").wait_for()
    visit.page.context.set_offline(True)
    visit.give(cup=halves())

    expect(visit.card("cup").get_by_role("alert")).to_contain_text("The server cannot be reached")
    assert not stand_in.sent


def test_a_token_is_asked_for_once_and_forgotten(opened: Callable[..., Visit], stand_in: StandIn) -> None:
    stand_in.token = "open sesame"  # noqa: S105 - of the stand-in
    visit = opened()
    field = visit.page.get_by_label("Token of this server")
    field.fill("wrong")
    field.press("Enter")
    expect(field).to_have_value("")
    expect(visit.page.locator("#token-reason")).to_have_text("token: is missing or wrong.")
    field.fill(stand_in.token)
    field.press("Enter")
    visit.give(cup=halves())
    visit.done("cup")

    expect(field).to_be_hidden()
    kept = "[document.cookie, localStorage.length, sessionStorage.length, location.search + location.hash]"
    assert visit.page.evaluate(kept) == ["", 0, 0, ""]
    stand_in.token = "another"  # noqa: S105 - of the stand-in
    visit.give(second=halves(), third=halves())
    field.fill("another")
    field.press("Enter")
    visit.done("second", "third")
    expect(field).to_be_hidden()


@pytest.mark.parametrize("kind", ["map", "mask", "cutout"])
def test_a_download_is_the_servers_file(visit: Visit, stand_in: StandIn, kind: Any) -> None:
    picture = halves()
    visit.give(**{"my.cup": picture})
    visit.done("my.cup")

    assert visit.download("my.cup", kind) == (f"my.cup-{kind}.png", encode_png(brightness(picture).render(kind)))
    assert [sent.texts["kind"] for sent in stand_in.sent] == ["map"] if kind == "map" else ["map", kind]


def test_a_download_that_fails_leaves_the_result(visit: Visit, stand_in: StandIn) -> None:
    visit.give(cup=halves())
    visit.done("cup")
    stand_in.refusals = [Refused(504, "request: took too long.")]
    visit.card("cup").get_by_role("button", name="Mask").click()

    expect(visit.card("cup").get_by_role("alert")).to_have_text("request: took too long.")
    expect(visit.card("cup").locator(".tiles")).to_be_visible()
    assert visit.download("cup", "mask")[0] == "cup-mask.png"
    expect(visit.card("cup").locator(".error")).to_be_hidden()


def test_timing_is_told(visit: Visit) -> None:
    visit.give(cup=halves())
    told = visit.done("cup").locator(".timing").inner_text()

    assert re.sub(r"\s+", " ", told).startswith("decode 1.2 ms queue 0.3 ms infer 31 ms encode 2.0 ms transfer")
    assert re.search(r"total\s+\d", told)
    expect(visit.card("cup").locator(".about")).to_have_text("80 × 60 pixels · multis, fp32")


def test_a_picture_is_dropped_or_an_example_clicked(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Example: square").click()
    visit.page.locator(".card[data-state=done]").wait_for()
    dropped = visit.page.evaluate_handle(
        """data => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([new Uint8Array(data)], "dropped.png", { type: "image/png" }));
            return dropped;
        }""",
        list(halves()),
    )
    visit.page.locator("#drop").dispatch_event("drop", {"dataTransfer": dropped})
    visit.done("dropped")

    assert visit.page.get_by_role("heading", level=2).all_inner_texts() == ["dropped.png", "square.jpg"]


def test_a_format_that_the_browser_lacks_still_gives_a_map(visit: Visit) -> None:
    buffer = io.BytesIO()
    Image.fromarray(decode(halves())).save(buffer, "TIFF")
    visit.give(scan=buffer.getvalue())
    card = visit.done("scan")

    expect(card.locator(".blind-note")).to_be_visible()
    expect(card.get_by_role("slider")).to_be_hidden()
    assert colours(card.locator(".frame")) == [WHITE, GREY]


def test_what_is_removed_is_freed(opened: Callable[..., Visit], stand_in: StandIn) -> None:
    visit = opened(
        """globalThis.held = new Set();
        const { createObjectURL, revokeObjectURL } = URL;
        URL.createObjectURL = (blob) => { const url = createObjectURL(blob); held.add(url); return url; };
        URL.revokeObjectURL = (url) => { held.delete(url); revokeObjectURL(url); };"""
    )
    visit.give(a=halves(), b=halves())
    visit.done("a", "b")
    visit.page.locator(".example img").evaluate("image => image.decode()")
    assert visit.page.evaluate("held.size") == 4
    visit.page.get_by_role("button", name="Run all again").click()
    visit.done("a", "b")
    assert visit.page.evaluate("held.size") == 4
    visit.page.get_by_role("button", name="Remove: a.png").click()
    assert visit.page.evaluate("held.size") == 2
    stand_in.delay_s = 0.3
    visit.give(c=halves())
    visit.page.get_by_role("button", name="Clear").click()
    expect(visit.page.locator("#results")).to_be_hidden()
    assert visit.page.evaluate("held.size") == 0
    assert visit.complaints == []


def test_nothing_leaves_the_origin_and_the_console_is_silent(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Example: square").click()
    for name in ("multis", "better", "gicd", "cgd"):
        visit.choose_model(name)
        visit.give(**{f"{name}-1": halves(), f"{name}-2": halves()})
        visit.done(f"{name}-1", f"{name}-2")
    visit.download("cgd-1", "mask")

    assert visit.complaints == []
    assert len(visit.asked) > 15
    assert [url for url in visit.asked if not url.startswith((visit.url, f"blob:{visit.url}", "data:"))] == []


def test_a_phone_needs_no_scrolling_sideways(opened: Callable[..., Visit]) -> None:
    visit = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    width = "document.scrollingElement.scrollWidth"
    visit.page.locator(".example img").wait_for()
    assert visit.page.evaluate(width) == 360
    for name in ("better", "cgd"):
        visit.choose_model(name)
        visit.give(**{f"{name}-{'long-' * 12}": halves()})
        visit.page.locator("[data-state=done]").nth(0 if name == "better" else 1).wait_for()
        assert visit.page.evaluate(width) == 360


def test_one_picture_has_the_page_for_itself_and_two_share_it(opened: Callable[..., Visit]) -> None:
    visit = opened(viewport={"width": 1280, "height": 900})
    visit.give(first=halves())
    parts = [visit.done("first").locator(part).bounding_box() for part in (".stage", ".side")]
    assert parts[0]["x"] + parts[0]["width"] <= parts[1]["x"]
    assert parts[0]["height"] >= 0.7 * parts[0]["width"]
    visit.give(second=halves())
    boxes = [visit.done(name).bounding_box() for name in ("second", "first")]

    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]


def test_dark_and_light_differ(opened: Callable[..., Visit]) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        visit = opened(color_scheme=scheme)
        visit.page.locator(".model").first.wait_for()
        grounds.append(colours(visit.page.locator("footer"), across=[0.99])[0])

    assert min(grounds[0]) > 230
    assert max(grounds[1]) < 30


def test_motion_stops_where_it_is_not_wanted(opened: Callable[..., Visit], stand_in: StandIn) -> None:
    stand_in.delay_s = 0.5
    names = []
    for wish in ("no-preference", "reduce"):
        visit = opened(reduced_motion=wish)
        visit.give(cup=halves())
        names.append(visit.card("cup").locator(".dots").evaluate("dots => getComputedStyle(dots).animationName"))

    assert names == ["turn", "none"]


# The place that has the focus, and whether a ring shows there.
FOCUS = """() => {
    const at = document.activeElement;
    const ring = at.matches(".slider") ? getComputedStyle(at.closest(".frame"), "::after")
        : getComputedStyle(at.matches(".unseen") ? at.closest("label") : at);
    const shown = ring.outlineStyle !== "none" && parseFloat(ring.outlineWidth) >= 2;
    return [at.id || at.dataset.kind || at.getAttribute("aria-label") || at.value, shown];
}"""


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    visit.choose_model("cgd")
    visit.give(cup=halves())
    visit.done("cup")
    visit.page.locator("h1").click()
    reached = []
    for _ in range(15):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate(FOCUS))

    places = ["cgd", "class-name", "files", "Example: square", "all-again", "clear", "Run again: cup.png"]
    places += ["Remove: cup.png", "Original against cutout of cup.png", "cutout", "map", "mask", "cutout"]
    assert reached[: len(places)] == [[place, True] for place in places]


ENTRIES = "async data => Object.fromEntries(await Promise.all([...await (await import('/page/archive.js'))"
ENTRIES += (
    ".storedEntries(new Blob([new Uint8Array(data)]), 'text/plain')].map(async ([n, b]) => [n, await b.text()])))"
)


def zipped(compression: int, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = comment
        for name, text in (("1.png", "one"), ("zwölf.png", "twelve " * 9)):
            archive.writestr(name, text)
    return buffer.getvalue()


def test_a_stored_archive_is_read(visit: Visit) -> None:
    for comment in (b"", b"said at the end"):
        found = visit.page.evaluate(ENTRIES, list(zipped(zipfile.ZIP_STORED, comment)))
        assert found == {"1.png": "one", "zwölf.png": "twelve " * 9}


def test_what_is_no_stored_archive_is_said(visit: Visit) -> None:
    for data in (zipped(zipfile.ZIP_DEFLATED), zipped(zipfile.ZIP_STORED)[40:], b"no archive", b""):
        with pytest.raises(sync_api.Error, match="not a whole archive of stored pictures"):
            visit.page.evaluate(ENTRIES, list(data))


def test_the_page_is_light() -> None:
    page = Path(__file__).parents[3] / "runtime" / "service" / "page"

    assert sum(path.stat().st_size for path in page.iterdir()) < 64_000
