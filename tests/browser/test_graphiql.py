"""GraphiQL in a browser that reaches nothing but this server."""

from __future__ import annotations

from urllib.parse import urlsplit

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.chromium import Browser
from tests.stack import Stack


def open_explorer(browser: Browser, stack: Stack) -> None:
    browser.driver.get(f"{stack.address}/graphiql")
    browser.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".graphiql-execute-button"))
    browser.until_text("cpat_…")


def test_graphiql_works_without_any_other_host(browser: Browser, stack: Stack) -> None:
    open_explorer(browser, stack)
    browser.screenshot("graphiql-opened")
    print(browser.complaints())
    print(browser.addresses())
