"""The example dashboard in a browser, at another origin, while an application spends."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from selenium.webdriver.common.by import By

from comptroller.demo import FLAT_MODEL
from tests.browser.chromium import Browser
from tests.browser.dashboard import PERSISTED_DOCUMENTS, build, served, sign_in
from tests.serving import Demo, demo

HELLO = [{"role": "user", "content": "Hello"}]
CHANGE = """mutation($input: BudgetUpsertInput!) { budgetUpsert(input: $input) {
  budget { version } errors { code } } }"""
BUDGETS = """{ organization(slug: "demo") {
  budgets { nodes { scope { kind id } period limit version } } } }"""
ROWS = By.CSS_SELECTOR, "tbody tr"
LOAD_MORE = By.XPATH, "//button[.='Load more']"


def address(server: Demo) -> str:
    return f"http://127.0.0.1:{server.port}"


def spend(server: Demo, requests: int) -> int:
    """Ask as an application does; gives how many were refused."""
    client = openai.OpenAI(
        base_url=f"{address(server)}/v1", api_key=server.secrets["COMPTROLLER_KEY"]
    )
    refused = 0
    for _ in range(requests):
        try:
            client.chat.completions.create(model=FLAT_MODEL, messages=HELLO, max_tokens=1)
        except openai.APIStatusError as error:
            refused += error.status_code == 402
    return refused


def ask(server: Demo, query: str, **variables: Any) -> Any:
    answer = httpx.post(
        f"{address(server)}/graphql",
        json={"query": query, "variables": variables},
        headers={"authorization": f"Bearer {server.secrets['COMPTROLLER_TOKEN']}"},
        timeout=60,
    )
    return answer.json()["data"]


def team_budget(server: Demo) -> dict[str, Any]:
    nodes = ask(server, BUDGETS)["organization"]["budgets"]["nodes"]
    return next(each for each in nodes if each["scope"]["kind"] == "TEAM")


def change_elsewhere(server: Demo, limit: str) -> None:
    """Change the team's budget as somebody else would, at the same time."""
    budget = team_budget(server)
    wanted = {
        "scope": {"teamId": budget["scope"]["id"]},
        "period": budget["period"],
        "limit": limit,
        "expectedVersion": budget["version"],
    }
    assert ask(server, CHANGE, input=wanted)["budgetUpsert"]["errors"] == []


def enter(browser: Browser, origin: str, server: Demo) -> None:
    sign_in(browser, origin, address(server), server.secrets["COMPTROLLER_TOKEN"])
    until_live(browser)


def until_live(browser: Browser) -> None:
    browser.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".badge.live"))
    browser.until(lambda driver: driver.find_elements(By.ID, "last-minute"))


def until_last_minute(browser: Browser, amount: str) -> None:
    def shown(driver: Any) -> bool:
        text = driver.find_element(By.ID, "last-minute").text
        return Decimal(text.removesuffix(" USD")) == Decimal(amount)

    browser.until(shown)


def open_team_budget(browser: Browser) -> None:
    path = "//li[.//strong='Research']//button"
    browser.until(lambda driver: driver.find_element(By.XPATH, path)).click()
    browser.until(lambda driver: driver.find_element(By.CSS_SELECTOR, "dialog[open]"))


def save_limit(browser: Browser, limit: str) -> None:
    field = browser.driver.find_element(By.NAME, "limit")
    field.clear()
    field.send_keys(limit)
    browser.driver.find_element(By.CSS_SELECTOR, "dialog button[type=submit]").click()


def until_rows(browser: Browser, count: int) -> None:
    browser.until(lambda driver: len(driver.find_elements(*ROWS)) == count)


@pytest.mark.timeout(240)
def test_the_page_follows_an_application_that_spends(browser: Browser, tmp_path: Path) -> None:
    page = build(tmp_path / "page")
    with served(page) as origin, demo(tmp_path, COMPTROLLER_CORS_ORIGINS=origin) as server:
        enter(browser, origin, server)
        until_last_minute(browser, "0")

        assert spend(server, 8) == 0
        until_last_minute(browser, "0.40")
        browser.until_text("0.40 USD spent, 19.60 USD left")  # the team
        browser.until_text("0.40 USD spent, 0.60 USD left")  # the key
        until_rows(browser, 8)
        browser.screenshot("dashboard-live")

        refuse_and_change_a_budget(browser, server)
        meet_somebody_faster(browser, server)
        read_back(browser, server)
        assert hosts(browser) == {urlsplit(origin).netloc, urlsplit(address(server)).netloc}
        assert browser.complaints() == []

        server.stop()
        browser.until_text("Stale, reconnecting…")
        browser.screenshot("dashboard-stale")
    again = {"COMPTROLLER_CORS_ORIGINS": origin, "COMPTROLLER_PORT": str(server.port)}
    with demo(tmp_path, **again):
        until_live(browser)
        revoke_token(server)
        browser.until_text("Token refused")


def refuse_and_change_a_budget(browser: Browser, server: Demo) -> None:
    open_team_budget(browser)
    save_limit(browser, "1e3")
    browser.until_text("Enter an amount such as 250.00.")
    save_limit(browser, "-5")
    browser.until_text("Must be")
    browser.screenshot("dashboard-refused")
    assert team_budget(server)["limit"] == "20.00"
    save_limit(browser, "4.00")
    browser.until_text("0.40 USD spent, 3.60 USD left")
    assert team_budget(server)["limit"] == "4.00"


def meet_somebody_faster(browser: Browser, server: Demo) -> None:
    open_team_budget(browser)
    change_elsewhere(server, "3.00")
    save_limit(browser, "9.00")
    browser.until_text("STALE_VERSION")
    browser.screenshot("dashboard-stale-version")
    assert team_budget(server)["limit"] == "3.00"
    browser.driver.find_element(By.XPATH, "//button[.='Show it as it is now']").click()
    browser.until_text("Now 3.00 USD a month.")
    save_limit(browser, "0.40")
    browser.until_text("0.40 USD spent, 0.00 USD left")


def read_back(browser: Browser, server: Demo) -> None:
    """See refusals live, then all of it in two pages after a reload."""
    assert spend(server, 17) == 17
    until_rows(browser, 25)
    browser.driver.refresh()
    until_live(browser)
    until_rows(browser, 20)
    browser.until(lambda driver: driver.find_element(*LOAD_MORE)).click()
    until_rows(browser, 25)
    assert browser.driver.find_elements(*LOAD_MORE) == []
    browser.screenshot("dashboard-refusals")


def revoke_token(server: Demo) -> None:
    own = ask(server, "{ viewer { accessTokens { nodes { id } } } }")["viewer"]["accessTokens"]
    [token] = own["nodes"]
    revoke = """mutation($id: ID!) { accessTokenRevoke(input: {accessTokenId: $id}) {
      errors { code } } }"""
    assert ask(server, revoke, id=token["id"])["accessTokenRevoke"]["errors"] == []


def hosts(browser: Browser) -> set[str]:
    return {urlsplit(each).netloc for each in browser.addresses() if not each.startswith("data:")}


@pytest.mark.timeout(120)
def test_ids_of_documents_are_enough_where_only_trusted_ones_are_answered(
    browser: Browser, tmp_path: Path
) -> None:
    page = build(tmp_path / "page", VITE_TRUSTED_DOCUMENTS="true")
    with (
        served(page) as origin,
        demo(
            tmp_path,
            COMPTROLLER_CORS_ORIGINS=origin,
            COMPTROLLER_TRUSTED_DOCUMENTS_FILE=str(PERSISTED_DOCUMENTS),
            COMPTROLLER_TRUSTED_DOCUMENTS_ONLY="true",
        ) as server,
    ):
        enter(browser, origin, server)
        spend(server, 1)
        until_last_minute(browser, "0.05")
        until_rows(browser, 1)
        assert browser.complaints() == []
