"""A report in a real Chromium: it is seen whole, it asks the network for nothing, and what a transcript says stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.lake.runs import RunLog, RunRecord
from dictalake.lake.schema import make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from tests.browser.chromium import BROWSER, DRIVER, MISSING
from tests.lake_rows import FINGERPRINT, make_failed_row, make_row

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason=MISSING)

ATTACK = "<script>document.title = 'ran'</script><img src=http://tracker.invalid/pixel.png onerror=\"document.title='ran'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that the command writes of a lake in which a transcript, a reason and a host attack the reader."""
    folder = tmp_path_factory.mktemp("report")
    lake = Lake.model_validate({"uri": str(folder / "lake")})
    quality = {"duration_s": 60.0, "speech_s": 50.0, "uncovered_speech_s": 20.0}
    rows = [make_row(f"r{number}", quality=quality, text=ATTACK) for number in range(20)]
    failed = make_failed_row("bad", error={"stage": "load", "reason": ATTACK, "detail": "", "retryable": False})
    TranscriptTable(lake).commit(write_staged(make_transcripts([*rows, failed]), lake))
    start = RunRecord(run_id="run-1", event="started", job="backfill", fingerprint=FINGERPRINT, host=ATTACK)
    RunLog(lake).append(start, RunRecord(run_id="run-1", event="finished", ok=20, failed=1, wall_s=60.0, speed=20.0))
    out = folder / "report.html"
    assert run_command("report", ["--lake.uri", str(lake.uri), "--out", str(out), "--with-text"]) == 0
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.browser.chromium import open_chromium

    with open_chromium() as browser:
        yield browser


def requests(browser: Any) -> list[str]:
    """Every address that the browser has requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def reasons_of_failure(browser: Any) -> list[str | None]:
    """Why each request other than for a page failed since the last call; None where the browser itself did not refuse it."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"].get("blockedReason") for one in messages if one["method"] == "Network.loadingFailed"]


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    assert requests(browser) == [page.as_uri()]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert complaints(browser) == []


def test_a_page_that_asks_for_something_is_found_out(browser: Any, tmp_path: Path) -> None:
    """The two checks above see what they must see."""
    other = tmp_path / "other.html"
    other.write_text("<img src='http://tracker.invalid/pixel.png'>", encoding="utf-8")
    browser.get(other.as_uri())
    assert requests(browser) == [other.as_uri(), "http://tracker.invalid/pixel.png"]
    assert complaints(browser)


def test_what_a_transcript_says_is_text(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    cells = browser.find_elements("css selector", "td.words")
    words = " ".join(ATTACK.split()[:12])
    assert [cell.text for cell in cells] == [words] * 20  # ten of the run, ten of the lake
    assert browser.title == "dictalake report: run run-1"
    assert browser.execute_script("return [document.scripts.length, document.images.length]") == [0, 0]
    assert ATTACK in browser.find_element("css selector", "h2 + .meta").text  # the host
    assert ATTACK in browser.find_element("css selector", "main").text  # the reason


def unescape(page: Path) -> str:
    """The page as it would be if nothing in it were escaped."""
    harmed = page.read_text(encoding="utf-8")
    for escaped, plain in (("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", '"')):
        harmed = harmed.replace(escaped, plain)
    return harmed


def test_a_script_that_is_not_escaped_would_not_run_either(browser: Any, page: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text(unescape(page), encoding="utf-8")
    browser.get(other.as_uri())
    assert browser.title == "dictalake report: run run-1"
    assert browser.execute_script("return [document.scripts.length > 0, document.images.length > 0]") == [True, True]
    reasons = reasons_of_failure(browser)
    assert len(reasons) >= 20
    assert set(reasons) == {"csp"}, "nothing was asked of a server"


def test_without_the_policy_of_the_page_it_would_run(browser: Any, page: Path, tmp_path: Path) -> None:
    """The check above sees what it must see."""
    other = tmp_path / "other.html"
    policy = re.compile('<meta http-equiv="Content-Security-Policy"[^>]*>')
    assert len(policy.findall(page.read_text(encoding="utf-8"))) == 1
    other.write_text(policy.sub("", unescape(page)), encoding="utf-8")
    browser.get(other.as_uri())
    assert browser.title == "ran"
    assert None in reasons_of_failure(browser)


def test_pictures_are_seen_in_light_and_dark(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    pictures = browser.find_elements("css selector", "svg[role=img]")
    assert len(pictures) == 6  # of the run and of the lake: confidence, length, stages; rows without a time have no speed
    assert all(picture.size["width"] > 300 and picture.size["height"] > 30 for picture in pictures)
    assert all(picture.get_attribute("aria-label") for picture in pictures)
    colours = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        label, body = (browser.find_element("css selector", name) for name in ("svg[role=img] text", "body"))
        colours.append((label.value_of_css_property("fill"), body.value_of_css_property("background-color")))
    (light_ink, light_paper), (dark_ink, dark_paper) = (tuple(map(brightness, pair)) for pair in colours)
    assert light_paper - light_ink > 80
    assert dark_ink - dark_paper > 80


def brightness(colour: str) -> float:
    """Mean of red, green and blue of ``rgb(…)`` or ``rgba(…)``."""
    return sum(float(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3]) / 3


def test_no_part_of_the_page_is_wider_than_the_window(browser: Any, page: Path) -> None:
    for width in (1180, 500):
        browser.set_window_size(width, 900)
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_numbers_behind_a_picture_can_be_opened(browser: Any, page: Path) -> None:
    browser.set_window_size(1180, 900)
    browser.get(page.as_uri())
    details = browser.find_element("css selector", "details")
    table = details.find_element("css selector", "table")
    assert not table.is_displayed()
    details.find_element("css selector", "summary").click()
    assert table.is_displayed()
    assert "20" in table.text
