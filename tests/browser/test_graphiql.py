"""GraphiQL in a browser that reaches nothing but this server."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import openai
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from controlplane.api.nodes import NodeKind, global_id
from tests.browser.chromium import Browser
from tests.stack import Stack

RUN = By.CSS_SELECTOR, ".graphiql-execute-button"


def open_explorer(browser: Browser, stack: Stack) -> None:
    browser.driver.get(f"{stack.address}/graphiql")
    browser.until(lambda driver: driver.find_elements(*RUN))
    browser.until_text("cpat_…")


def enter(browser: Browser, tool: str, value: dict[str, object]) -> None:
    """Replace what one of the editors below the document contains."""
    browser.driver.find_element(By.XPATH, f"//button[.='{tool}']").click()
    editor = browser.until(
        lambda driver: next(
            (
                each
                for each in driver.find_elements(
                    By.CSS_SELECTOR, ".graphiql-editor-tool .monaco-editor"
                )
                if each.is_displayed()
            ),
            None,
        )
    )
    editor.click()
    keys = ActionChains(browser.driver)
    keys.key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(json.dumps(value))
    # The editor closes brackets and quotes by itself: take away what it left behind the cursor.
    keys.key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys(Keys.END)
    keys.key_up(Keys.SHIFT).key_up(Keys.CONTROL).send_keys(Keys.DELETE).perform()


def open_tab(browser: Browser, name: str) -> None:
    path = f"//*[contains(@class, 'graphiql-tab-button')][.='{name}']"
    browser.driver.find_element(By.XPATH, path).click()
    browser.until_text(f"{name}(" if name != "WhoAmI" else name)


def test_queries_and_subscriptions_run_without_any_other_host(
    browser: Browser, stack: Stack
) -> None:
    open_explorer(browser, stack)
    assert browser.driver.title == "GraphiQL · Comptroller"
    assert len(browser.driver.find_elements(By.CSS_SELECTOR, ".graphiql-tab")) == 10
    browser.driver.find_element(*RUN).click()
    browser.until_text("UNAUTHENTICATED")

    enter(browser, "Headers", {"Authorization": f"Bearer {stack.admin_token}"})
    browser.driver.find_element(*RUN).click()
    browser.until_text("ada@")
    browser.screenshot("graphiql-query")

    # The token entered in one tab serves the others.
    open_tab(browser, "LiveSpend")
    place = global_id(NodeKind.ORGANIZATION, stack.organization_id, stack.organization_id)
    enter(browser, "Variables", {"organizationId": place})
    browser.driver.find_element(*RUN).click()
    browser.until_text('"lastMinute": "0.00"')
    _key_id, secret = stack.key()
    openai.OpenAI(base_url=stack.base_url, api_key=secret).chat.completions.create(
        model="sim-flat-0.05", messages=[{"role": "user", "content": "Hello"}]
    )
    browser.until_text('"lastMinute": "0.05"')
    browser.screenshot("graphiql-subscription")

    asked = browser.addresses()
    assert f"{stack.address}/graphql" in asked
    assert f"{stack.address.replace('http', 'ws')}/graphql" in asked
    remote = {each for each in asked if urlsplit(each).scheme not in {"data", "blob"}}
    assert {urlsplit(each).netloc for each in remote} == {urlsplit(stack.address).netloc}
    [refused] = browser.complaints()
    assert "401 (Unauthorized)" in refused


def test_the_token_dies_with_the_browser_tab(browser: Browser, stack: Stack) -> None:
    open_explorer(browser, stack)
    enter(browser, "Headers", {"Authorization": f"Bearer {stack.admin_token}"})
    browser.driver.find_element(*RUN).click()
    browser.until_text("ada@")
    kept = browser.driver.execute_script("return JSON.stringify({...localStorage})")
    assert stack.admin_token not in kept
    assert browser.driver.get_cookies() == []
    browser.driver.switch_to.new_window("tab")
    open_explorer(browser, stack)
    browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[-1])
