"""`dictalake review` in a real Chromium over the lake of the demo: what a person hears, reads, corrects and takes away."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dictalake.cli.main import run_command
from dictalake.config.sections import Lake
from dictalake.lake.contract import without_docs
from dictalake.lake.corrections import CorrectionRecord, Corrections
from dictalake.lake.embeddings import KEY, EmbeddingTable, Encoder
from dictalake.lake.query import connect
from dictalake.lake.schema import EMBEDDINGS, make_transcripts
from dictalake.lake.staged_files import write_staged
from dictalake.lake.table import TranscriptTable
from dictalake.review import listing
from dictalake.review.measure import list_next
from dictalake.review.recording_page import count
from dictalake.review.snapshot import Snapshot
from dictalake.review.words import time_words
from tests.browser.chromium import BROWSER, DRIVER, MISSING
from tests.browser.review_pages import WAIT_S, await_title, await_true, find_rows, open_page, open_recording, press, see, write
from tests.browser.test_report_page import complaints, requests
from tests.extracted_lake import add_extractions, make_extraction
from tests.review_server import serving

pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason=MISSING)

AXE = (Path(__file__).parent / "assets/axe.min.js").read_text(encoding="utf-8")
FOUND = "ct-chest-staging.mp3"
NEAR = (FOUND, "echo-0311.wav", "well-child.wav")


@pytest.fixture(scope="module")
def lake(demo_lake: Path) -> Path:
    """The demo's, in which one recording has other readings too."""
    place = Lake.model_validate({"uri": str(demo_lake)})
    [row] = find_rows(demo_lake, "ct-head-0415.flac")
    reading = {"acoustic_score": -1.0, "lm_score": -0.5, "total_score": -1.5}
    nbest = [{"text": row["text_raw"], **reading}, {"text": f"{row['text_raw']} zebra", **reading}]
    TranscriptTable(place).commit(write_staged(make_transcripts([{**row, "attempt": 1, "nbest": nbest}]), place))
    add_findings(place, find_rows(demo_lake, FOUND)[-1])
    add_vectors(place, [find_rows(demo_lake, name)[-1] for name in NEAR])
    return demo_lake


def add_findings(lake: Lake, row: dict[str, Any]) -> None:
    """An extraction from a row, by hand: its third to fifth word, and its last two."""
    text, items = row["text"], []
    tokens = [match.span() for match in re.finditer(r"\S+", text)]
    timed = time_words(text, row["words"])
    starts = [token.start_s for token in timed if not token.is_space]
    for first, last in ((2, 4), (len(tokens) - 2, len(tokens) - 1)):
        start, end = tokens[first][0], tokens[last][1]
        at = {"start_char": start, "end_char": end, "start_s": starts[first], "end_s": None, "places": 1, "confidence": 0.9}
        items.append(
            {"term": f"finding {first}", "negated": first == 2, "certainty": "certain", "quote": text[start:end], **at}
        )
    of_row = {"transcript_fingerprint": row["fingerprint"], "transcript_attempt": row["attempt"]}
    of_row["recorded_month"] = row["recorded_month"]
    empty: dict[str, Any] = {name: [] for name in ("medications", "lab_values", "follow_ups", "impressions")}
    add_extractions(lake, make_extraction(row["recording_id"], findings=items, **empty, **of_row))


def add_vectors(lake: Lake, rows: list[dict[str, Any]]) -> None:
    """Vectors of two numbers, each a little further from the first."""
    made = [
        {
            **{name: row.get(name) for name in KEY},
            "encoder": "0123456789ab",
            "section": 0 if not row["sections"] else 1,
            "start": 0,
            "end": 20,
            "vector": np.array([np.cos(place), np.sin(place)], "<f2").tobytes(),
            "at": datetime.now(UTC),
        }
        for place, row in enumerate(rows)
    ]
    table = pa.Table.from_pylist(made, schema=without_docs(EMBEDDINGS))
    EmbeddingTable(lake).commit(table, Encoder("0123456789ab", "two numbers", 2))


@pytest.fixture(scope="module")
def address(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # of the search
        environment.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))  # of saved views
        with serving(str(lake)) as address:
            yield address


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    from tests.browser.chromium import open_chromium

    with open_chromium(1280, is_offline=False) as browser:
        browser.set_script_timeout(WAIT_S)
        browser.get(address)
        await_title(browser, "Overview")
        yield browser


@pytest.fixture(autouse=True)
def nothing_leaves_the_machine(browser: Any, address: str) -> Iterator[None]:
    """Each test ends without a script's error, and without a request to anything but the server."""
    yield
    origin = address.split("/enter")[0]
    assert [url for url in requests(browser) if not url.startswith(origin)] == []
    assert [one for one in complaints(browser) if "409" not in one and "favicon" not in one] == []


def test_the_address_opens_the_overview_and_no_page_says_the_token_again(browser: Any, address: str) -> None:
    assert address.split("token=")[1] not in browser.current_url
    open_page(browser, address, "/")
    assert "29" in see(browser, ".tiles")
    assert "Patient data" in see(browser, ".banner")
    assert "not_audio" in see(browser, "main")


def test_words_are_found_and_never_stand_in_an_address(browser: Any, address: str) -> None:
    open_page(browser, address, "/recordings")
    browser.find_element("name", "words").send_keys("effusion")
    press(browser, ".filters button")
    await_true(browser, "location.search.includes('search=')")
    assert {"effusion"} == {one.text.lower() for one in browser.find_elements("css selector", "mark")}
    assert "effusion" not in browser.current_url
    assert browser.title == "Recordings – dictalake review"


def test_a_filter_leaves_what_it_says_and_its_link_gives_the_same_list(browser: Any, address: str) -> None:
    from selenium.webdriver.support.ui import Select

    open_page(browser, address, "/recordings")
    for name, value in (("column", "specialty"), ("operator", "is"), ("sort", "longest first")):
        Select(browser.find_element("name", name)).select_by_visible_text(value)
    browser.find_element("name", "value").send_keys("cardiology")
    press(browser, ".filters button")
    await_true(browser, "location.search.includes('cardiology')")
    rows = [one.text for one in browser.find_elements("css selector", ".list tbody tr")]
    assert rows
    assert all("cardiology" in row for row in rows)
    browser.get(browser.find_element("link text", "Link to this list").get_attribute("href"))
    assert [one.text for one in browser.find_elements("css selector", ".list tbody tr")] == rows


def test_a_view_gets_a_name_and_its_link_gives_the_same_list(browser: Any, address: str) -> None:
    open_page(browser, address, "/recordings?f=specialty~eq~cardiology&sort=longest")
    rows = [one.text for one in browser.find_elements("css selector", ".list tbody tr")]
    press(browser, ".views summary")
    browser.find_element("css selector", ".views input[name=name]").send_keys("Hearts")
    press(browser, ".views form.filters button")
    await_true(browser, "document.querySelector('.views a')")
    open_page(browser, address, "/recordings")
    press(browser, ".views li a")
    await_true(browser, "location.search.includes('cardiology')")
    assert [one.text for one in browser.find_elements("css selector", ".list tbody tr")] == rows
    press(browser, ".views li button")
    await_true(browser, "!document.querySelector('.views a')")


def test_a_list_leads_forward_and_back(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_ROWS", 10)
    open_page(browser, address, "/recordings")
    pages = []
    for way in ("next", "next", "prev", "prev"):
        pages.append([one.text for one in browser.find_elements("css selector", ".list tbody tr")])
        press(browser, f".pager a[rel={way}]")
    pages.append([one.text for one in browser.find_elements("css selector", ".list tbody tr")])
    assert pages[0] == pages[4] != pages[1] == pages[3]
    assert browser.find_elements("css selector", ".pager a[rel=prev]") == []


def test_a_finding_lights_its_quote_and_is_heard_at_a_click(browser: Any, address: str, lake: Path) -> None:
    row = open_recording(browser, address, lake, FOUND)
    first, second = browser.find_elements("css selector", "button.quote")
    assert "finding 2, absent" in see(browser, ".items")
    words = row["text"].split()

    def lit() -> list[str]:
        return [one.text for one in browser.find_elements("css selector", "#machine .quoted")]

    browser.execute_script("arguments[0].focus()", second)
    assert lit() == words[-2:]
    browser.execute_script("arguments[0].blur()", second)
    assert lit() == []
    first.click()
    assert lit() == words[2:5]
    await_true(browser, "!document.getElementById('audio').paused")
    assert browser.execute_script("return document.getElementById('audio').currentTime") >= float(first.get_attribute("data-s"))
    press(browser, "#play")


def test_more_like_this_leads_to_the_nearest_or_says_what_to_do(browser: Any, address: str, lake: Path) -> None:
    nearest = find_rows(lake, NEAR[1])[-1]["recording_id"]
    open_recording(browser, address, lake, FOUND)
    press(browser, "#similar")
    await_title(browser, "More like this")
    assert len(browser.find_elements("css selector", ".list tbody tr")) == 2
    press(browser, ".list tbody a")
    await_true(browser, f"location.pathname.endsWith('{nearest}')")
    other = find_rows(lake, "ward-round.wav")[-1]["recording_id"]
    open_page(browser, address, f"/recordings/{other}/similar")
    assert "dictalake embed LAKE" in see(browser, "main .warn")


def test_the_lit_word_is_the_one_that_sounds(browser: Any, address: str, lake: Path) -> None:
    row = open_recording(browser, address, lake, "ct-chest-staging.mp3")
    press(browser, "#play")
    await_true(browser, "document.getElementById('audio').currentTime > 0.3")
    press(browser, "#play")
    spoken = [word for word in row["words"] if not word["word"].startswith("{")]
    for word in (spoken[2], spoken[len(spoken) // 2], spoken[-1]):
        middle = (word["start_s"] + word["end_s"]) / 2
        browser.execute_script("document.getElementById('audio').currentTime = arguments[0]", middle)
        await_true(browser, f"document.querySelector('#machine .lit')?.dataset.s == {round(word['start_s'], 3)}")
        letters = "".join(letter for letter in see(browser, "#machine .lit").lower() if letter.isalnum())
        assert letters == "".join(letter for letter in word["word"].lower() if letter.isalnum())


def test_a_word_is_heard_when_it_is_clicked_and_keys_move_the_sound(browser: Any, address: str, lake: Path) -> None:
    open_recording(browser, address, lake, "ct-chest-staging.mp3")
    word = browser.find_elements("css selector", "#machine .w")[6]
    word.click()
    await_true(browser, "!document.getElementById('audio').paused")
    assert browser.execute_script("return document.getElementById('audio').currentTime") >= float(word.get_attribute("data-s"))
    keys = browser.find_element("css selector", "textarea[name=text]")
    keys.send_keys("\ue00c")  # Escape
    await_true(browser, "document.getElementById('audio').paused")
    keys.send_keys("\ue033")  # F3
    assert see(browser, "#speed") == "0.9×"
    press(browser, "#loop")
    assert browser.find_element("id", "loop").get_attribute("aria-pressed") == "true"
    press(browser, "#loop")
    before = browser.execute_script("const a = document.getElementById('audio'); a.currentTime = 4; return a.currentTime")
    keys.send_keys("\ue031")  # F1
    await_true(browser, f"Math.abs(document.getElementById('audio').currentTime - {before} + 2) < 0.2")


def test_other_readings_and_other_fingerprints_are_shown(browser: Any, address: str, lake: Path) -> None:
    open_recording(browser, address, lake, "ct-head-0415.flac")
    press(browser, "#machine ~ details summary")
    assert see(browser, "#machine ~ details ins") == "zebra"
    assert "of the words differ" in see(browser, "article")


def test_a_correction_is_saved_shown_and_undone(browser: Any, address: str, lake: Path) -> None:
    row = open_recording(browser, address, lake, "echo-0311.wav")
    write(browser, f"{row['text'].strip()} Zebra stripes.")
    press(browser, "#correction button.main")
    await_true(browser, "document.getElementById('corrected')")
    assert see(browser, "#corrected").endswith("Zebra stripes.")
    assert see(browser, "#changes ins") == "Zebra stripes."
    with connect(str(lake)) as database:
        question = "SELECT text_corrected, corrected_by FROM transcripts WHERE recording_id = ?"
        [(text, who)] = database.execute(question, [row["recording_id"]]).fetchall()
    assert (text.endswith("Zebra stripes."), who) == (True, "Ann")
    press(browser, "#undo")
    await_true(browser, "!document.getElementById('corrected')")
    with connect(str(lake)) as database:
        assert database.execute(question, [row["recording_id"]]).fetchall() == [(None, None)]


def test_who_saves_second_is_told_and_shown_both(browser: Any, address: str, lake: Path) -> None:
    row = open_recording(browser, address, lake, "well-child.wav")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    open_page(browser, address, f"/recordings/{row['recording_id']}")
    write(browser, "The first word.")
    press(browser, "#correction button.main")
    await_true(browser, "document.getElementById('corrected')")
    browser.close()
    browser.switch_to.window(first)
    write(browser, "The second word.")
    press(browser, "#correction button.main")
    await_title(browser, "Somebody else saved first")
    assert see(browser, "#their-text") == "The first word."
    assert browser.find_element("css selector", "textarea").get_attribute("value") == "The second word."
    press(browser, "button.main")
    await_true(browser, "document.getElementById('corrected')")
    assert see(browser, "#corrected") == "The second word."


def test_the_queue_gives_one_recording_after_another_and_its_corrections_measure_the_lake(
    browser: Any, address: str, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = set()
    open_page(browser, address, "/queue?sampling=random")
    for _ in range(3):
        press(browser, "#next")
        await_title(browser, "Recording –")
        seen.add(browser.current_url)
        press(browser, "#correction button[value=next]")
        await_title(browser, "Queue")
    assert len(seen) == 3
    open_page(browser, address, "/")
    assert "by 3 recordings drawn at random" in see(browser, "main")
    manifest = tmp_path / "references.csv"
    assert run_command("corrections", ["export", str(lake), "--format", "manifest", "--out", str(manifest)]) == 0
    with manifest.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) >= 3
    capsys.readouterr()
    with connect(str(lake)) as database:
        [(production,)] = database.execute("SELECT fingerprint FROM promotions WHERE place = 0").fetchall()
    folder = lines[0]["uri"].split("/recordings/")[0]
    keys = [
        "--archive.allowed",
        folder,
        "--lake.uri",
        str(lake),
        "--run",
        f"{production}=machine",
        "--normaliser",
        "words",
        "--format",
        "json",
    ]
    assert run_command("evaluate", [str(manifest), *keys]) == 0
    assert "machine" in capsys.readouterr().out


def test_a_quarter_of_the_time_finds_much_more_than_a_quarter_of_the_errors(demo_lake: Path) -> None:
    snapshot = Snapshot(Lake.model_validate({"uri": str(demo_lake.parent / "untouched")}))
    snapshot.refresh()
    order = list_next(snapshot, "Ann", "worst", 30.0, 1000)
    errors = []
    for one in order:
        row = snapshot.read_rows(one.recording_id)[0]
        found = count(dict(row["metadata"])["reference"], row["text_raw"])
        errors.append(found.substitutions + found.deletions + found.insertions)
    cost_s = [1.5 * one.duration_s + 15 for one in order]
    in_time = [sum(cost_s[: place + 1]) <= sum(cost_s) / 4 for place in range(len(order))]
    assert sum(error for error, is_in in zip(errors, in_time, strict=True) if is_in) > 0.45 * sum(errors)


def test_a_correction_is_compared_with_the_machines_text(browser: Any, address: str, lake: Path) -> None:
    row, corrections = find_rows(lake, "ward-round.wav")[-1], Corrections(Lake.model_validate({"uri": str(lake)}))
    last = corrections.find_last(row["recording_id"])  # whom the queue named was corrected before
    replaced = None if last is None else last.correction_id
    said = {"recording_id": row["recording_id"], "event": "corrected", "who": "Bob", "text": "Zebra stripes."}
    corrections.save(CorrectionRecord(**said, replaces=replaced))
    open_page(browser, address, f"/compare?recording={row['recording_id']}&left=correction&right={row['fingerprint']}")
    assert "Word error rate" in see(browser, ".tiles")
    assert "Zebra stripes." in see(browser, "#diff ~ .text del")
    open_page(browser, address, f"/recordings/{row['recording_id']}/similar")
    assert "the corrected text has no vectors yet" in see(browser, "main .warn")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_no_page_has_a_barrier_or_is_wider_than_the_screen(
    browser: Any, address: str, lake: Path, width: int, scheme: str
) -> None:
    row, found = find_rows(lake, "ct-head-0415.flac")[-1], find_rows(lake, FOUND)[-1]
    pages = ("/", "/recordings", f"/recordings/{row['recording_id']}", "/queue", f"/compare?recording={row['recording_id']}")
    pages += (f"/recordings/{found['recording_id']}", f"/recordings/{found['recording_id']}/similar")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for path in pages:
        open_page(browser, address, path)
        browser.execute_script(AXE)
        found = browser.execute_async_script("axe.run().then((all) => arguments[0](all.violations))")
        told = [(one["id"], node["html"]) for one in found for node in one["nodes"]]
        assert told == [], json.dumps((path, scheme, width))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, path
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
