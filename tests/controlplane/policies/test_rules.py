"""Rules say what requests may be; below an organization's admins they can only be narrowed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.errors import InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.events import OrganizationChanged
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.policies.models import OnCut, RefusalDetail, Rule
from controlplane.policies.narrowing import refuse_widening
from controlplane.policies.service import set_rule
from controlplane.policies.snapshot import organization_snapshot
from controlplane.policies.values import (
    LABEL_LENGTH_MAX,
    NAMES_MAX,
    RETRY_STORM_MAX,
    TOKENS_MAX,
    RuleValues,
)
from controlplane.scope import owned
from core_rs import Engine
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything

FULL: dict[str, Any] = {
    "models": ["b", "a"],
    "tiers": ["standard"],
    "providers": [],
    "providers_blocked": ["x"],
    "features_blocked": ["y", "y"],
    "classes_blocked": ["batch"],
    "endpoints_blocked": ["/v1/embeddings"],
    "tokens_per_request_max": 8_000,
    "retry_storm_max": 5,
    "output_tokens_default": 512,
    "hold_wait_s": 0,
    "on_cut": OnCut.ERROR,
    "refusal_detail": RefusalDetail.NONE,
    "fixed": {"feature": "search", "class": "interactive"},
    "required": ["end_user", "agent"],
}


def everywhere(org) -> Scope:
    return Scope(ScopeKind.ORGANIZATION, org.id)


def team(org) -> Scope:
    return Scope(ScopeKind.TEAM, org.team)


async def rules_in_snapshot(database, org, installation) -> list[dict[str, Any]]:
    async with database.read() as session:
        raw = await organization_snapshot(session, org.id, installation.settings)
    return json.loads(raw)["rules"]


async def test_a_rule_is_written_as_the_engine_reads_it(work_as, org, database, installation):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), FULL)
    async with database.read() as session:
        raw = await organization_snapshot(session, org.id, installation.settings)
    Engine().load_organization(raw, b"[]", installation.clock.wall_ns(), 0)
    assert await rules_in_snapshot(database, org, installation) == [
        {
            "scope": {"kind": "team", "id": str(org.team)},
            "models": ["a", "b"],
            "tiers": ["standard"],
            "providers": [],
            "providers_blocked": ["x"],
            "features_blocked": ["y"],
            "classes_blocked": ["batch"],
            "endpoints_blocked": ["/v1/embeddings"],
            "tokens_per_request_max": 8000,
            "retry_storm_max": 5,
            "output_tokens_default": 512,
            "hold_wait_s": 0,
            "on_cut": "error",
            "refusal_detail": "none",
            "fixed": {"class": "interactive", "feature": "search"},
            "required": ["agent", "end_user"],
        }
    ]


async def test_what_is_left_out_stays_and_nothing_new_is_no_event(
    work_as, org, database, published
):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), {"models": ["a"], "hold_wait_s": 5})
    async with work_as(org.admin) as work:
        row = await set_rule(work, org.id, team(org), {"models": None}, expected_version=1)
    assert (row.models, row.hold_wait_s, row.version) == (None, 5, 2)
    before = await everything(database)
    published.clear()
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), {"hold_wait_s": 5}, expected_version=2)
    assert await everything(database) == before
    assert published == []


async def test_a_change_is_on_record_and_published(work_as, org, database, published):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), {"features_blocked": ["search"]})
    assert published == [OrganizationChanged(org.id, policy=True)]
    async with database.read() as session:
        event = await session.scalar(select(AdminEvent).where(AdminEvent.action == "rule.set"))
    assert event.before is None
    assert event.after["features_blocked"] == ["search"]


AT_THE_LIMIT: list[tuple[str, Any, Any]] = [
    ("models", [f"m{index}" for index in range(NAMES_MAX)], [str(i) for i in range(NAMES_MAX + 1)]),
    ("tiers", ["é" * 100], ["é" * 100 + "x"]),
    ("providers_blocked", [], [""]),
    ("classes_blocked", ["background"], ["urgent"]),
    ("endpoints_blocked", ["/v1/chat/completions"], ["v1/chat/completions"]),
    ("tokens_per_request_max", TOKENS_MAX, TOKENS_MAX + 1),
    ("tokens_per_request_max", 1, 0),
    ("retry_storm_max", RETRY_STORM_MAX, RETRY_STORM_MAX + 1),
    ("retry_storm_max", 1, 0),
    ("output_tokens_default", TOKENS_MAX, TOKENS_MAX + 1),
    ("output_tokens_default", 1, 0),
    ("hold_wait_s", 300, 301),
    ("hold_wait_s", 0, -1),
    ("fixed", {"agent": "a" * LABEL_LENGTH_MAX}, {"agent": "a" * (LABEL_LENGTH_MAX + 1)}),
    ("fixed", {"class": "batch"}, {"class": "urgent"}),
    ("fixed", {}, {"tag": "x"}),
    ("required", ["class"], ["tag"]),
]


@pytest.mark.parametrize(("name", "fits", "fails"), AT_THE_LIMIT)
async def test_each_field_has_its_range(work_as, org, database, name, fits, fails):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, everywhere(org), {name: fits})
    before = await everything(database)
    with pytest.raises(InvalidInput) as caught:
        async with work_as(org.admin) as work:
            await set_rule(work, org.id, everywhere(org), {name: fails}, expected_version=1)
    first, *others = name.split("_")
    assert caught.value.field == (first + "".join(each.capitalize() for each in others),)
    assert await everything(database) == before


async def test_members_have_no_rules_and_strangers_no_scopes(work_as, org, foreign, database):
    before = await everything(database)
    refused = [
        (org.admin, Scope(ScopeKind.MEMBER, member_id(org.member)), InvalidInput),
        (org.admin, Scope(ScopeKind.TEAM, foreign.team), NotFound),
        (org.billing_viewer, everywhere(org), NotPermitted),
        (org.team_admin, everywhere(org), NotFound),
        (org.team_admin, Scope(ScopeKind.TEAM, org.other_team), NotFound),
        (org.member, team(org), NotFound),
    ]
    for caller, scope, reason in refused:
        with pytest.raises((reason, NotPermitted)):
            async with work_as(caller) as work:
                await set_rule(work, org.id, scope, {"models": []})
    with pytest.raises(StaleVersion):
        async with work_as(org.admin) as work:
            await set_rule(work, org.id, team(org), {"models": []}, expected_version=1)
    assert await everything(database) == before


SAID = RuleValues(
    models=["a", "b"],
    features_blocked=["x"],
    tokens_per_request_max=100,
    retry_storm_max=5,
    output_tokens_default=50,
    hold_wait_s=20,
    on_cut=OnCut.PARTIAL,
    refusal_detail=RefusalDetail.OWN,
    fixed={"feature": "search"},
    required=["agent"],
)
NARROWER: list[dict[str, Any]] = [
    {"models": ["a"]},
    {"models": []},
    {"tiers": ["economy"]},
    {"providers": []},
    {"features_blocked": ["x", "y"]},
    {"classes_blocked": ["batch"]},
    {"tokens_per_request_max": 99},
    {"retry_storm_max": 4},
    {"output_tokens_default": 1},
    {"hold_wait_s": 0},
    {"refusal_detail": RefusalDetail.NONE},
    {"fixed": {"feature": "search", "agent": "a"}},
    {"required": ["agent", "end_user"]},
]
WIDER: list[dict[str, Any]] = [
    {"models": None},
    {"models": ["a", "c"]},
    {"features_blocked": []},
    {"features_blocked": ["y"]},
    {"tokens_per_request_max": 101},
    {"tokens_per_request_max": None},
    {"retry_storm_max": 6},
    {"retry_storm_max": None},
    {"output_tokens_default": 51},
    {"output_tokens_default": None},
    {"hold_wait_s": 21},
    {"hold_wait_s": None},
    {"on_cut": OnCut.ERROR},
    {"on_cut": None},
    {"refusal_detail": RefusalDetail.ALL},
    {"fixed": {"feature": "chat"}},
    {"fixed": {}},
    {"required": []},
]


@pytest.mark.parametrize("changes", NARROWER)
async def test_a_teams_admin_may_narrow(work_as, org, changes):
    await _team_said(work_as, org)
    async with work_as(org.team_admin) as work:
        await set_rule(work, org.id, team(org), changes, expected_version=1)


@pytest.mark.parametrize("changes", WIDER)
async def test_a_teams_admin_may_not_widen_and_an_admin_may(work_as, org, database, changes):
    await _team_said(work_as, org)
    before = await everything(database)
    with pytest.raises(NotPermitted):
        async with work_as(org.team_admin) as work:
            await set_rule(work, org.id, team(org), changes, expected_version=1)
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), changes, expected_version=1)


async def _team_said(work_as, org) -> None:
    async with work_as(org.admin) as work:
        changes = {name: getattr(SAID, name) for name in SAID.__slots__}
        await set_rule(work, org.id, team(org), changes)


@pytest.mark.parametrize(
    ("above", "wanted", "passes"),
    [
        # Where the narrowest scope decides, a wider rule must not be loosened by a new one.
        ({"retry_storm_max": 5}, {"retry_storm_max": 6}, False),
        ({"retry_storm_max": 5}, {"retry_storm_max": 5}, True),
        ({}, {"retry_storm_max": 1000}, True),
        ({"output_tokens_default": 9}, {"output_tokens_default": 10}, False),
        ({}, {"hold_wait_s": 31}, False),
        ({}, {"hold_wait_s": 30}, True),
        ({"hold_wait_s": 60}, {"hold_wait_s": 31}, True),
        ({}, {"refusal_detail": RefusalDetail.ALL}, False),
        ({"refusal_detail": RefusalDetail.ALL}, {"refusal_detail": RefusalDetail.OWN}, True),
        ({"refusal_detail": RefusalDetail.NONE}, {"refusal_detail": RefusalDetail.OWN}, False),
        ({}, {"on_cut": OnCut.ERROR}, True),
        ({"on_cut": OnCut.PARTIAL}, {"on_cut": OnCut.ERROR}, False),
        # The least of all holds, or all lists do: what is set here loosens nothing.
        ({"tokens_per_request_max": 5}, {"tokens_per_request_max": 6}, True),
        ({"models": ["a"]}, {"models": ["b"]}, True),
        ({"fixed": {"feature": "search"}}, {"fixed": {"feature": "search"}}, True),
        ({"fixed": {"feature": "search"}}, {"fixed": {"feature": "chat"}}, False),
        ({"fixed": {"feature": "search"}}, {"fixed": {"agent": "chat"}}, True),
    ],
)
def test_a_new_rule_loosens_nothing_that_a_wider_one_says(above, wanted, passes):
    for wider in ([RuleValues(**above)], [RuleValues(), RuleValues(**above)]):
        if passes:
            refuse_widening(RuleValues(), RuleValues(**wanted), wider)
        else:
            with pytest.raises(NotPermitted):
                refuse_widening(RuleValues(), RuleValues(**wanted), wider)


async def test_a_key_is_narrowed_under_its_team(work_as, org, database):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), {"retry_storm_max": 5})
        made = await create_key(work, org.id, NewKey("k", team_id=org.team), idempotency_key="1")
    scope = Scope(ScopeKind.KEY, made.key.id)
    before = await everything(database)
    with pytest.raises(NotPermitted):
        async with work_as(org.team_admin) as work:
            await set_rule(work, org.id, scope, {"retry_storm_max": 6})
    assert await everything(database) == before
    async with work_as(org.team_admin) as work:
        await set_rule(work, org.id, scope, {"retry_storm_max": 4})


async def _rule_of_key(database, org) -> Rule | None:
    async with database.read() as session:
        return await session.scalar(owned(Rule, org.id).where(Rule.scope_kind == ScopeKind.KEY))


@pytest.mark.parametrize(("team_says", "storm"), [(None, 5), (3, 3), (9, 5)])
async def test_a_key_of_an_agent_fixes_it_and_cuts_off_retries(
    work_as, org, database, team_says, storm
):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, team(org), {"retry_storm_max": team_says})
    async with work_as(org.member) as work:
        new = NewKey("k", agent="crawler", allowed_models=("a",))
        await create_key(work, org.id, new, idempotency_key="1")
    row = await _rule_of_key(database, org)
    assert (row.fixed, row.retry_storm_max, row.models) == ({"agent": "crawler"}, storm, ["a"])


async def test_a_key_of_no_agent_has_no_rule(work_as, org, database):
    async with work_as(org.admin) as work:
        await create_key(work, org.id, NewKey("k"), idempotency_key="1")
    assert await _rule_of_key(database, org) is None


@pytest.mark.parametrize("agent", ["", "a" * 201, "other"])
async def test_an_agent_that_cannot_be_makes_no_key(work_as, org, database, agent):
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, everywhere(org), {"fixed": {"agent": "crawler"}})
    before = await everything(database)
    with pytest.raises(InvalidInput) as caught:
        async with work_as(org.admin) as work:
            await create_key(work, org.id, NewKey("k", agent=agent), idempotency_key="1")
    assert caught.value.field == ("agent",)
    assert await everything(database) == before
