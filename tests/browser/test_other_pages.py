"""The pages of `evaluate` and `tune` in a real Chromium: their policy lets in all that they show, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from dictalake.evaluation import evaluation_page, tuning_page
from dictalake.evaluation.assessment import describe
from tests.browser.chromium import BROWSER, DRIVER, MISSING
from tests.browser.test_report_page import complaints, requests
from tests.unit.evaluation.test_evaluation_page import make

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason=MISSING)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.browser.chromium import open_chromium

    with open_chromium() as browser:
        yield browser


def write_evaluation(folder: Path) -> Path:
    assessed = [make("r", "no effusion", "effusion", 0.5)]
    shown = list(evaluation_page.show_mistakes(assessed))
    page = folder / "evaluation.html"
    page.write_text(evaluation_page.render_page({"lm": {"medasr": describe(assessed)}}, [], {"lm": shown}, {"lm": []}, []))
    return page


def write_tuning(folder: Path) -> Path:
    page = folder / "tuning.html"
    svg = Markup('<svg viewBox="0 0 9 9" style="fill: red"><rect width="9" height="9"/></svg>')
    page.write_text(tuning_page.render_page("tuning", [("a", ["b"], [["c"]])], [("d", svg)]))
    return page


@pytest.mark.parametrize("write", [write_evaluation, write_tuning])
def test_a_page_is_shown_as_it_was_meant(browser: Any, tmp_path: Path, write: Any) -> None:
    page = write(tmp_path)
    browser.get(page.as_uri())
    assert requests(browser)[-1] == page.as_uri()
    assert complaints(browser) == []
    assert browser.find_element("css selector", "svg").size["width"] > 0
    # What its policy is for: a picture of elsewhere is not fetched, one inside of the page is shown.
    browser.execute_script(
        "for (const src of arguments) document.body.append(Object.assign(new Image(), {src}))", PIXEL, REMOTE
    )
    browser.execute_async_script(
        "const done = arguments[0]; const all = [...document.images];"
        "Promise.all(all.map(i => i.decode().catch(() => null))).then(() => done())"
    )
    assert browser.execute_script("return [...document.images].map(image => image.naturalWidth)") == [1, 0]
    assert any("Content Security Policy" in complaint for complaint in complaints(browser))


PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
REMOTE = "http://tracker.invalid/pixel.png"
