"""A real Chromium without a window and without a network, and pictures of pages taken by it.

python -m tests.browser.chromium report.html infra/pictures/report.png
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "Chromium and its driver are not installed: `make browser` does it (Debian, as root), or says how"


@contextmanager
def open_chromium(
    width: int = 1180, height: int = 900, *, dark: bool = False, is_offline: bool = True
) -> Iterator[webdriver.Chrome]:
    """A browser that reaches no network: every name resolves to nothing. Unless it ``is_offline`` it reaches 127.0.0.1."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless=new",
        "--disable-dev-shm-usage",
        f"--host-resolver-rules=MAP * ~NOTFOUND{'' if is_offline else ', EXCLUDE 127.0.0.1'}",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    if os.geteuid() == 0:  # Chromium refuses root with its sandbox; the page is ours, and without a network
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": is_offline, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield browser
    finally:
        browser.quit()


def take_picture(page: Path, out: Path, height: int | None = None, *, dark: bool = False) -> None:
    """A PNG of the page from its top, ``height`` CSS pixels of it or all."""
    with open_chromium(dark=dark) as browser:
        browser.get(page.resolve().as_uri())
        width, whole = browser.execute_script("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or whole, whole), "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        out.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int)
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    take_picture(arguments.page, arguments.out, arguments.height, dark=arguments.dark)


if __name__ == "__main__":
    main()
