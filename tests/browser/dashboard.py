"""The example dashboard, built and served from an origin of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from selenium.webdriver.common.by import By

from tests.browser.chromium import Browser
from tests.npm import DASHBOARD_CLIENT, install, npm

PERSISTED_DOCUMENTS = DASHBOARD_CLIENT / "src/gql/persisted-documents.json"


def build(folder: Path, **variables: str) -> Path:
    """Build the page into a folder."""
    install(DASHBOARD_CLIENT)
    npm(DASHBOARD_CLIENT, "run", "codegen")
    npm(DASHBOARD_CLIENT, "run", "build", "--", "--outDir", str(folder), **variables)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a port of its own; gives the origin."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def sign_in(browser: Browser, origin: str, address: str, token: str) -> None:
    """Open the page and sign in."""
    browser.driver.get(origin)
    endpoint = browser.until(lambda driver: driver.find_element(By.NAME, "endpoint"))
    endpoint.clear()
    endpoint.send_keys(address)
    browser.driver.find_element(By.NAME, "token").send_keys(token)
    browser.driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
