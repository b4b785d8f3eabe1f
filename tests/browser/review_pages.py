"""How the tests of `dictalake review` find rows of a lake, open its pages, press, read and wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dictalake.lake.query import connect, open_lake

WAIT_S = 30


def find_rows(lake: Path, name: str) -> list[dict[str, Any]]:
    """The rows that count of a file of the demo."""
    with connect(str(lake)) as database:
        found = database.execute("SELECT recording_id, fingerprint FROM transcripts WHERE source.uri LIKE ?", [f"%{name}"])
        [(recording_id, fingerprint)] = found.fetchall()
    rows = open_lake(str(lake)).to_table().to_pylist()
    return [row for row in rows if (row["recording_id"], row["fingerprint"]) == (recording_id, fingerprint)]


def await_title(browser: Any, words: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT_S).until(lambda one: words in one.title)


def await_true(browser: Any, condition: str) -> None:
    """Waits until ``condition``, in JavaScript, holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(lambda one: one.execute_script(f"return Boolean({condition})"))


def see(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def press(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def open_page(browser: Any, address: str, path: str) -> None:
    browser.get(address.split("/enter")[0] + path)


def open_recording(browser: Any, address: str, lake: Path, name: str) -> dict[str, Any]:
    """Its row; returns when the sound is there."""
    row = find_rows(lake, name)[-1]
    open_page(browser, address, f"/recordings/{row['recording_id']}")
    await_true(browser, "document.getElementById('sound-state').textContent === 'The sound is ready.'")
    return row


def write(browser: Any, text: str) -> None:
    field = browser.find_element("css selector", "textarea[name=text]")
    field.clear()
    field.send_keys(text)
