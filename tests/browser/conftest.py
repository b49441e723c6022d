"""One browser for all tests here; each test gets it with an empty window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Browser, running_browser


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """The browser, on an empty page in a window of its own, with nothing in its logs."""
    driver = shared_browser.driver
    before = driver.current_window_handle
    driver.switch_to.new_window("window")
    driver.set_window_size(1360, 900)
    shared_browser.addresses()
    shared_browser.complaints()
    yield shared_browser
    driver.close()
    driver.switch_to.window(before)
