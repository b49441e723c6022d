"""The limits an application is shown: those of its key's path, with the figures it may see."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from comptroller.simulator.running import RunningSimulator
from controlplane.keys.service import revoke_key, set_key_enabled
from controlplane.limits.models import Period, ScopeKind
from tests.proxy.asking import ask, headers
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack

FIGURES = {"cap", "used", "held", "remaining"}


def listed(stack: Stack, secret: str) -> httpx.Response:
    return httpx.get(f"{stack.base_url}/comptroller/limits", headers=headers(secret))


def limits(stack: Stack, secret: str) -> list[dict[str, Any]]:
    answer = listed(stack, secret)
    assert answer.status_code == 200
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def test_the_limits_of_the_path_are_listed_narrowest_first(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key(requests_per_minute=5)
    for kind in (ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.MEMBER, ScopeKind.KEY):
        stack.budget(stack.scope(kind, key_id), "1.00", period=Period.DAY)
    stack.budget(stack.scope(ScopeKind.KEY, stack.key()[0]), "7.00")
    answer = listed(stack, secret)
    found = answer.json()
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-comptroller-policy-version"] == found["policy_version"]
    assert found.keys() == {"object", "data", "currency", "policy_version", "as_of"}
    assert (found["object"], found["currency"]) == ("list", "USD")
    assert abs(datetime.fromisoformat(found["as_of"]) - datetime.now(UTC)) < timedelta(minutes=1)
    budgets = [each for each in found["data"] if each["kind"] == "budget"]
    assert [each["scope"] for each in budgets] == ["key", "member", "team", "organization"]
    owners = [key_id, stack.member_id, stack.team_id, stack.organization_id]
    assert [UUID(each["scope_id"]) for each in budgets] == owners
    assert {each["mode"] for each in budgets} == {"hard"}
    assert {each["window"] for each in budgets} == {"calendar_day"}
    assert all(each["time_zone"] and each["where"] is None for each in budgets)
    [rate] = [each for each in found["data"] if each["kind"] == "rate"]
    assert (rate["resource"], rate["cap"], rate["remaining"]) == ("requests", 5, 5)
    assert (rate["resets_at"], rate["open"]) == (None, None)
    assert_untouched(stack, provider)


def test_figures_are_those_of_the_books(stack: Stack) -> None:
    key_id, secret = stack.key(requests_per_minute=5)
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.12", period=Period.DAY)
    assert ask(stack, secret=secret, model="sim-flat-0.05").status_code == 200
    by_kind = {each["kind"]: each for each in limits(stack, secret) if each["scope"] == "key"}
    budget, rate = by_kind["budget"], by_kind["rate"]
    figures = ("cap", "used", "held", "remaining")
    assert [budget[name] for name in figures] == ["0.12", "0.05", "0.00", "0.07"]
    assert [rate[name] for name in figures] == [5, 1, 0, 4]
    ends = datetime.fromisoformat(budget["resets_at"])
    assert timedelta() < ends - datetime.now(UTC) <= timedelta(days=1)
    empties = datetime.fromisoformat(rate["resets_at"])
    assert timedelta(seconds=30) < empties - datetime.now(UTC) <= timedelta(seconds=61)


def test_figures_show_only_where_refusals_would_tell_them(stack: Stack) -> None:
    owned = stack.key()[1]
    team = stack.key(member_id=None)[1]
    for kind in (ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.MEMBER):
        stack.budget(stack.scope(kind), "0.06")
    assert ask(stack, secret=owned, model="sim-flat-0.05").status_code == 200
    shown = {each["scope"]: each for each in limits(stack, owned) if each["kind"] == "budget"}
    assert {scope: shown[scope].keys() & FIGURES for scope in shown} == {
        "member": FIGURES,
        "team": set(),
        "organization": set(),
    }
    assert all(each["resets_at"] for each in shown.values())
    shown = {each["scope"]: each for each in limits(stack, team) if each["kind"] == "budget"}
    assert {scope: shown[scope].keys() & FIGURES for scope in shown} == {
        "team": FIGURES,
        "organization": set(),
    }
    assert shown["team"]["remaining"] == "0.01"


def test_an_open_breaker_says_when_it_closes_whoever_asks(stack: Stack) -> None:
    _, secret = stack.key()
    stack.breaker(stack.scope(ScopeKind.ORGANIZATION), minute="0.05")

    def minute(scope: str) -> dict[str, Any]:
        [found] = [
            each
            for each in limits(stack, secret)
            if (each["kind"], each["scope"], each["window"]) == ("breaker", scope, "rolling_60s")
        ]
        return found

    assert (minute("organization")["open"], minute("organization")["resets_at"]) == (False, None)
    assert ask(stack, secret=secret, model="sim-flat-0.05").status_code == 200
    breaker = minute("organization")
    assert (breaker["open"], breaker["mode"]) == (True, "metered")
    assert breaker.keys().isdisjoint(FIGURES)
    refused = ask(stack, secret=secret, model="sim-flat-0.05")
    said = refused.json()["error"]["limit"]["resets_at"]
    drift = datetime.fromisoformat(said) - datetime.fromisoformat(breaker["resets_at"])
    assert abs(drift) < timedelta(seconds=1)
    assert minute("member")["remaining"] == "0.00"


def test_a_key_sees_nothing_of_another_organization(stack: Stack, installation: Stack) -> None:
    other = installation.tenant(f"other-{stack.organization_id.hex}")
    other.budget(other.scope(ScopeKind.ORGANIZATION), "0.01")
    _, foreign = other.key()
    _, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.ORGANIZATION), "5.00")
    mine = {each["limit_id"] for each in limits(stack, secret)}
    theirs = {each["limit_id"] for each in limits(other, foreign)}
    assert mine
    assert theirs
    assert mine.isdisjoint(theirs)
    text = listed(stack, secret).text
    strangers = (other.organization_id, other.team_id, other.member_id)
    assert not any(str(stranger) in text for stranger in strangers)


def test_only_keys_that_work_are_shown_limits(stack: Stack) -> None:
    (disabled_id, disabled), (revoked_id, revoked) = stack.key(), stack.key()
    organization = stack.organization_id
    stack.change(lambda work: set_key_enabled(work, organization, disabled_id, enabled=False))
    stack.change(lambda work: revoke_key(work, organization, revoked_id))
    told = [listed(stack, secret) for secret in (disabled, revoked, "ck_live_nothing")]
    codes = [(answer.status_code, answer.json()["error"]["code"]) for answer in told]
    assert codes == [(403, "key_disabled"), (401, "invalid_api_key"), (401, "invalid_api_key")]
    assert told[1].json() == told[2].json()
    assert {answer.headers["x-should-retry"] for answer in told} == {"false"}


def test_nothing_is_shown_of_an_organization_whose_policy_is_not_in_force(stack: Stack) -> None:
    _, secret = stack.key()
    currencies = stack.comptroller.proxy._feed.currencies
    currency = currencies.pop(str(stack.organization_id))
    try:
        answer = listed(stack, secret)
    finally:
        currencies[str(stack.organization_id)] = currency
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "enforcement_unavailable")
    assert json.loads(answer.headers["x-should-retry"]) is True
