"""The page as the service itself gives it, with all five methods behind it."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from salience.runtime import PromoterDetector, load
from tests.runtime.service.page_visit import Visit
from tests.runtime.service.running import METHODS, Running


@pytest.fixture
def visit(browser: Any, service: Running) -> Iterator[Visit]:
    context = browser.new_context()
    yield Visit.open(context, f"{service.url}/")
    context.close()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_an_example(visit: Visit, service: Running, method: str) -> None:
    visit.choose_model(method)
    visit.page.get_by_role("button", name="chelsea").click()
    visit.page.locator(".card[data-state=done]").wait_for()
    assert all(address.startswith((service.url, "blob:", "data:")) for address in visit.asked)
    assert not visit.complaints


def test_a_prior_comes_from_another_model(visit: Visit, bundles: dict[str, Path], jpegs: dict[str, Path]) -> None:
    picture = jpegs["coffee"].read_bytes()
    visit.choose_model("lps")
    visit.page.get_by_label("Prior", exact=True).select_option(label="Map of arn")
    visit.give(coffee=picture)
    visit.done("coffee")
    _, data = visit.download("coffee", "map")
    prior = io.BytesIO()
    Image.fromarray(load(bundles["arn"]).predict(picture).grey()).save(prior, "PNG")
    promoter = load(bundles["lps"])
    assert isinstance(promoter, PromoterDetector)
    wanted = promoter.promote(picture, prior.getvalue()).grey()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), wanted)


def test_what_is_no_picture_is_said_at_its_card(visit: Visit) -> None:
    visit.give(letter=b"Dear all")
    visit.card("letter").and_(visit.page.locator("[data-state=failed]")).wait_for()
    assert "not a picture of a known format" in visit.card("letter").locator(".error").inner_text()
