"""Debian's Chromium, driven headless, cut off from every host but this one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")
WAIT_TIMEOUT_S = 20
SCREENSHOTS_VARIABLE = "COMPTROLLER_TEST_SCREENSHOTS"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    # Whatever a page asks of another host fails, as on a machine without internet.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """A browser window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def until(self, condition: Callable[[webdriver.Chrome], T]) -> T:
        """Wait until a condition gives something; fails with what the page shows."""
        waiting = WebDriverWait(self.driver, WAIT_TIMEOUT_S, 0.05, [StaleElementReferenceException])
        try:
            return waiting.until(condition)
        except TimeoutException as failure:
            shown = f"The page shows:\n{self.text()}\nIt complains: {self.complaints()}"
            raise AssertionError(shown) from failure

    def until_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.until(lambda _: text in self.text())

    def text(self) -> str:
        """Give what the page shows; the editors of GraphiQL draw every space as unbreakable."""
        shown: str = self.driver.execute_script("return document.body.innerText")
        return shown.replace("\u00a0", " ")

    def addresses(self) -> set[str]:
        """Tell which addresses have been asked for since this was last called."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        wanted = {
            "Network.requestWillBeSent": lambda each: each["request"]["url"],
            "Network.webSocketCreated": lambda each: each["url"],
        }
        return {
            wanted[each["method"]](each["params"]) for each in messages if each["method"] in wanted
        }

    def complaints(self) -> list[str]:
        """Give what the page wrote to the console as an error since this was last called."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] == "SEVERE"]

    def screenshot(self, name: str) -> None:
        """Take a picture, when a folder for them is named."""
        folder = os.environ.get(SCREENSHOTS_VARIABLE)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def _log(self, kind: str) -> list[dict[str, str]]:
        return self.driver.get_log(kind)  # type: ignore[no-any-return]


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """Run a browser with a fresh profile; the driver is named, so nothing is downloaded."""
    options = Options()
    options.binary_location = _binary("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1360,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, Service(_binary("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"The browser tests need {name}: run scripts/test_tools.py first.")
    return found
