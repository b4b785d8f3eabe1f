"""Takes the pictures of docs/review.md: the pages of `dictalake review` over the demo's lake, in Chromium.

python -m jobs.picture_review DEMO_LAKE docs/pictures

The findings on the page of a recording are written by hand here, as a language model would answer, and checked as its answers
are.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from dictalake.config.sections import Lake
from dictalake.extraction.checking import check_answers
from dictalake.extraction.parts import split_text
from dictalake.extraction.timing import WordTimes
from dictalake.lake.query import connect
from tests.browser.chromium import open_chromium
from tests.extracted_lake import add_extractions, make_extraction
from tests.review_server import serving

_SIZE = (1280, 900)


def main() -> int:
    lake, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dictalake-pictures-") as folder:
        copy = shutil.copytree(lake, Path(folder) / "lake")
        with connect(str(copy)) as database:
            question = "SELECT * EXCLUDE dicom FROM transcripts WHERE source.uri LIKE '%ct-chest-staging.mp3'"
            [row] = database.sql(question).to_arrow_table().to_pylist()
        recording_id = row["recording_id"]
        _add_findings(Lake.model_validate({"uri": str(copy)}), row)
        os.environ["XDG_DATA_HOME"] = folder  # of saved views
        with serving(str(copy)) as address, open_chromium(*_SIZE, is_offline=False) as browser:
            _take_all(browser, address, recording_id, out)
    return 0


_FOUND: dict[str, list[dict[str, Any]]] = {
    "findings": [
        {
            "term": "lobulated mass",
            "side": "left",
            "anatomy": "left upper lobe",
            "measurement": 4.3,
            "unit": "cm",
            "quote": "lobulated mass in the left upper lobe measures four point three centimeters",
        },
        {"term": "nodules", "side": "right", "change": "new", "quote": "Smaller nodules in the right lower lobe"},
        {
            "term": "lymph nodes",
            "measurement": 19,
            "unit": "mm",
            "quote": "lymph nodes are enlarged, the largest nineteen millimeters",
        },
        {"term": "pleural effusion", "negated": True, "quote": "no pleural effusion"},
    ],
    "follow_ups": [{"what": "bronchoscopy", "quote": "Tissue sampling by bronchoscopy is suggested"}],
}


def _add_findings(lake: Lake, row: dict[str, Any]) -> None:
    text = row["text"]
    checked = check_answers("picture", text, split_text(text, 10_000), [json.dumps(_FOUND)], WordTimes(text, row["words"]))
    of_row = {"transcript_fingerprint": row["fingerprint"], "transcript_attempt": row["attempt"]}
    made = {"kind": "openai", "model": "medgemma-1.5-4b-it", "extracted_at": row["provenance"]["transcribed_at"]}
    counts = {"offered": checked.offered, "dropped": list((+checked.dropped).items())}
    of_row |= {"recorded_month": row["recorded_month"], "provenance": made}
    add_extractions(lake, make_extraction(row["recording_id"], **checked.items, **of_row, **counts))


def _take_all(browser: Any, address: str, recording_id: str, out: Path) -> None:
    origin = address.split("/enter")[0]
    browser.get(address)
    _await(browser, "document.title.includes('Overview')")
    browser.get(f"{origin}/queue?sampling=random")
    browser.find_element("id", "next").click()
    for _ in range(6):  # as if every word were right
        _await(browser, "document.title.startsWith('Recording –')")
        browser.find_element("css selector", "#correction button[value=next]").click()
        _await(browser, "document.title.startsWith('Queue')")
        browser.find_element("id", "next").click()
    browser.get(f"{origin}/recordings/{recording_id}")
    _await(browser, "document.getElementById('sound-state').textContent === 'The sound is ready.'")
    browser.execute_script("document.querySelector('button.quote').focus()")
    middle = "Number(document.querySelectorAll('#machine .w')[40].dataset.s) + 0.05"
    browser.execute_script(f"document.getElementById('audio').currentTime = {middle}")
    _await(browser, "document.querySelector('#machine .lit')")
    _take(browser, out / "review-findings.png", 1000)
    field = browser.find_element("css selector", "textarea")
    text = field.get_attribute("value")
    field.clear()
    field.send_keys(f"{text.strip()} No other finding.")
    browser.find_element("css selector", "#correction button.main").click()
    _await(browser, "document.getElementById('corrected')")
    _await(browser, "document.getElementById('sound-state').textContent === 'The sound is ready.'")
    middle = "Number(document.querySelectorAll('#machine .w')[14].dataset.s) + 0.05"
    browser.execute_script(f"document.getElementById('audio').currentTime = {middle}")
    _await(browser, "document.querySelector('#machine .lit')")
    _take(browser, out / "review-recording.png", 1250)
    for name, path, height in (
        ("overview", "/", 1250),
        ("recordings", "/recordings?f=status~eq~ok", 900),
        ("queue", "/queue", 800),
        ("compare", f"/compare?recording={recording_id}", 620),
    ):
        browser.get(origin + path)
        _take(browser, out / f"review-{name}.png", height)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{origin}/recordings/{recording_id}")
    _await(browser, "document.getElementById('sound-state').textContent === 'The sound is ready.'")
    _take(browser, out / "review-narrow.png", 1100)


def _await(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30).until(lambda one: one.execute_script(f"return Boolean({condition})"))


def _take(browser: Any, path: Path, height: int) -> None:
    width = browser.execute_script("return document.documentElement.clientWidth")
    whole = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, whole), "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    sys.exit(main())
