"""Nobody sees or changes anything of another organization, whatever field is asked for.

The schema is walked: a field, a mutation or a subscription that is not covered fails a test.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from graphql import OperationType, get_named_type, is_input_object_type, is_required_argument
from sqlalchemy import select

from controlplane.access.service import caller_of
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.operation import OperationBody
from controlplane.api.schema import make_schema
from controlplane.migrations.tables import METADATA
from tests.controlplane.api.furniture import Furnished, furnish, uuid_of
from tests.controlplane.api.schema_walk import Asked, Walk

CORE = make_schema()._schema
ROLES = ("admin", "billing_viewer", "team_admin", "member")
RANGE = '{from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z"}'
# How the fields that take arguments are asked for; `%NAME%` stands for the id of that type.
EXAMPLES = {
    "Query.node": 'id: "%Team%"',
    "Query.nodes": 'ids: ["%Team%", "%VirtualKey%"]',
    "Query.organization": 'slug: "%slug%"',
    "Organization.team": 'slug: "red"',
    "Organization.budget": 'scope: {teamId: "%Team%"}, period: MONTH',
    "Organization.breaker": 'scope: {teamId: "%Team%"}',
    "Organization.rule": 'scope: {teamId: "%Team%"}',
    "Organization.request": 'requestId: "%requestId%"',
    "Organization.usage": f"range: {RANGE}, groupBy: [TEAM, KEY]",
    **{
        f"{each}.spend": f"range: {RANGE}"
        for each in ("Organization", "Team", "Member", "VirtualKey")
    },
    "Viewer.permissions": 'organizationId: "%Organization%"',
}
# A valid input of every mutation, as the admin of the organization; ids as above.
INPUTS: dict[str, dict[str, Any]] = {
    "costCenterCreate": {"organizationId": "%Organization%", "code": "N", "name": "New"},
    "costCenterUpdate": {"costCenterId": "%CostCenter%", "expectedVersion": 1, "name": "Newer"},
    "teamCreate": {
        "organizationId": "%Organization%",
        "name": "New",
        "costCenterId": "%CostCenter%",
    },
    "teamUpdate": {"teamId": "%Team%", "expectedVersion": 1, "costCenterId": "%CostCenter%"},
    "memberCreate": {
        "organizationId": "%Organization%",
        "email": "new@example.org",
        "teamId": "%Team%",
        "costCenterId": "%CostCenter%",
    },
    "memberUpdate": {
        "memberId": "%Member%",
        "expectedVersion": 1,
        "teamId": "%Team%",
        "costCenterId": "%CostCenter%",
    },
    "virtualKeyCreate": {
        "organizationId": "%Organization%",
        "name": "new",
        "idempotencyKey": "new",
        "ownerId": "%Member%",
        "teamId": "%Team%",
        "costCenterId": "%CostCenter%",
        "poolIds": ["%Pool%"],
    },
    "virtualKeyUpdate": {
        "keyId": "%VirtualKey%",
        "expectedVersion": 1,
        "teamId": "%Team%",
        "ownerId": "%Member%",
        "costCenterId": "%CostCenter%",
        "poolIds": ["%Pool%"],
    },
    "virtualKeyRotate": {"keyId": "%VirtualKey%", "idempotencyKey": "again"},
    "accessTokenCreate": {"name": "new", "idempotencyKey": "new token"},
    "accessTokenRevoke": {"accessTokenId": "%AccessToken%"},
    "virtualKeySetEnabled": {"keyId": "%VirtualKey%", "enabled": False},
    "budgetMove": {
        "fromBudgetId": "%giver%",
        "toBudgetId": "%Budget%",
        "amount": "1",
        "expectedVersions": [1, 1],
        "idempotencyKey": "move",
    },
    "budgetUpsert": {
        "scope": {"keyId": "%VirtualKey%"},
        "budgetId": "%giver%",
        "limit": "3",
        "expectedVersion": 2,
    },
    "rateLimitSet": {
        "scope": {"keyId": "%VirtualKey%"},
        "requestsPerMinute": "5",
        "expectedVersion": 1,
    },
    "budgetArchive": {"budgetId": "%Budget%", "expectedVersion": 2},
    "concurrencyLimitSet": {"scope": {"poolId": "%Pool%"}, "requests": 2},
    "concurrencyLimitArchive": {
        "concurrencyLimitId": "%ConcurrencyLimit%",
        "expectedVersion": 1,
    },
    "poolCreate": {"organizationId": "%Organization%", "name": "new"},
    "poolUpdate": {"poolId": "%Pool%", "name": "newer", "expectedVersion": 1},
    "breakerSet": {"scope": {"memberId": "%Member%"}, "perMinute": "1"},
    "breakerReset": {"breakerId": "%Breaker%", "expectedVersion": 1, "reason": "known"},
    "ruleSet": {"scope": {"organizationId": "%Organization%"}, "models": ["a"]},
    "tenantBudgetSet": {
        "organizationId": "%Organization%",
        "monthlyBudget": "5",
        "policyVersion": "v2",
        "expectedVersion": 1,
    },
    "tenantBudgetRemove": {"organizationId": "%Organization%", "expectedVersion": 2},
    # The last ones, since nothing can be done with these afterwards.
    "poolArchive": {"poolId": "%Pool%", "expectedVersion": 2},
    "costCenterArchive": {"costCenterId": "%CostCenter%", "expectedVersion": 2},
    "virtualKeyRevoke": {"keyId": "%VirtualKey%"},
}
# The same of what only the operator may do. An organization is on its plan since version 2.
OPERATOR_INPUTS: dict[str, dict[str, Any]] = {
    "calibrationSet": {"provider": "one", "model": "m", "ratio": 2, "reason": "seen"},
    "exchangeRateSet": {"currency": "EUR", "rate": "0.92"},
    "installationLimitSet": {"counts": "REQUESTS", "provider": "one", "count": "5"},
    "planCreate": {"name": "New", "fees": [{"currency": "USD", "amount": "0.001"}]},
    "planUpdate": {"planId": "%Plan%", "expectedVersion": 1, "markupPpm": 5},
    "organizationSetPlan": {
        "organizationId": "%Organization%",
        "planId": "%Plan%",
        "expectedVersion": 2,
    },
    "organizationSetCurrency": {
        "organizationId": "%Organization%",
        "currency": "USD",
        "expectedVersion": 2,
    },
    "planArchive": {"planId": "%Plan%", "expectedVersion": 2},
    "walletOpen": {"organizationId": "%Organization%", "idempotencyKey": "new wallet"},
    "walletUpdate": {
        "organizationId": "%Organization%",
        "lowBalanceThreshold": "1",
        "expectedVersion": 1,
    },
    "walletTopUp": {
        "organizationId": "%Organization%",
        "amount": "1",
        "reference": "r",
        "idempotencyKey": "1",
    },
    "walletAdjust": {
        "organizationId": "%Organization%",
        "amount": "-0.1",
        "note": "n",
        "idempotencyKey": "2",
    },
    "walletRefund": {"requestId": "%RequestLog%", "amount": "0.001", "idempotencyKey": "3"},
}
# What the operator may do in no organization of itself, or has been done in these.
OF_NO_ORGANIZATION = frozenset(
    {
        "calibrationSet",
        "exchangeRateSet",
        "installationLimitSet",
        "planCreate",
        "planUpdate",
        "planArchive",
    }
)
DONE_BEFORE = frozenset({"walletOpen"})
# Types that are the operator's: nobody in an organization reaches them.
OPERATOR_TYPES = frozenset(
    {
        "Calibration",
        "CalibrationConnection",
        "CalibrationEdge",
        "ExchangeRate",
        "ExchangeRateConnection",
        "ExchangeRateEdge",
        "InstallationLimit",
        "InstallationLimitEdge",
        "PlanConnection",
        "PlanEdge",
        "PlanFee",
    }
)
# What the operator alone does, in no organization.
OPERATOR_ALONE = {"installationLimitArchive"}
SUBSCRIPTIONS: dict[str, str] = {
    "liveSpend": """subscription($o: ID!, $t: ID!, $m: ID!, $k: ID!) { liveSpend(organizationId: $o,
      scopes: [{organizationId: $o}, {teamId: $t}, {memberId: $m}, {keyId: $k}], intervalMs: 250) {
        seq scopes { scope { kind id } lastHour lastMinute requestsPerMinute refusedPerMinute
          budgets { id limit } breaker { id perMinute } } } }""",
    "requestLog": """subscription($o: ID!) { requestLog(organizationId: $o) {
      seq dropped requests { id servedModel charge keyId teamId memberId } } }""",
}


@pytest.fixture
async def own(api, org) -> Furnished:
    return await furnish(api, org, "acme")


@pytest.fixture
async def other(api, foreign) -> Furnished:
    return await furnish(api, foreign, "globex")


def filled(value: Any, place: Furnished) -> Any:
    """Put ids of an organization into an example."""
    if isinstance(value, dict):
        return {name: filled(each, place) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, place) for each in value]
    if not isinstance(value, str):
        return value
    texts = {"slug": place.slug, "requestId": str(uuid_of(place.ids["RequestLog"]))}
    for name, text in {**place.ids, **place.more, **texts}.items():
        value = value.replace(f"%{name}%", text)
    return value


def walk_of(place: Furnished) -> Walk:
    return Walk(CORE, filled(EXAMPLES, place), place.ids)


def shown_of(other: Furnished, body: Any) -> set[str]:
    """Find what an answer shows of another organization, in plain text or inside an id."""
    text = json.dumps(body)
    found = {mark for mark in other.marks() if mark in text}
    return found | {each for each in _texts(body) if _names(each, other)}


def _texts(body: Any) -> Iterator[str]:
    if isinstance(body, dict):
        for value in body.values():
            yield from _texts(value)
    elif isinstance(body, list):
        for value in body:
            yield from _texts(value)
    elif isinstance(body, str):
        yield body


def _names(text: str, other: Furnished) -> bool:
    with suppress(ValueError):
        return other.organization_id.bytes in urlsafe_b64decode(text + "==")
    return False


def test_the_walk_reaches_every_type_of_the_schema(own: Furnished) -> None:
    walk = walk_of(own)
    payloads = {name for name in walk.unreached() if name.endswith("Payload")}
    fed = {get_named_type(each.type).name for each in CORE.subscription_type.fields.values()}
    only_fed = {"LiveScope"}
    errors = {each.name for each in CORE.get_possible_types(CORE.type_map["UserError"])}
    assert walk.unreached() - payloads - fed - only_fed - errors == set()
    every = set(INPUTS) | set(OPERATOR_INPUTS) | OPERATOR_ALONE
    assert every == set(CORE.mutation_type.fields)
    assert set(SUBSCRIPTIONS) == set(CORE.subscription_type.fields)


@pytest.mark.parametrize("role", ROLES)
async def test_no_field_shows_another_organization(api, org, own, other, role) -> None:
    token = await api.token(getattr(org, role))
    seen: set[str] = set()
    for asked in walk_of(own).documents():
        response = await api.post(token, asked.text)
        body = response.json()
        assert "errors" not in body or _is_forbidden(body), (asked.text, body)
        assert shown_of(other, body) == set(), asked.text
        seen |= _types_in(body)
    if role == "admin":
        # What an admin cannot reach was not looked at; one such field takes the whole answer along.
        unseen = {each.type_name for each in walk_of(own).documents()} - seen - {"Query"}
        assert unseen == OPERATOR_TYPES


@pytest.mark.parametrize("role", ROLES)
async def test_ids_of_another_organization_name_nothing(api, org, own, other, role) -> None:
    token = await api.token(getattr(org, role))
    before = await everything(api)
    for asked in walk_of(other).documents():
        body = (await api.post(token, asked.text)).json()
        assert shown_of(other, body) == set(), asked.text
        if asked.is_by_id:
            assert _is_empty(body.get("data"), asked), (asked.text, body)
    for name in other.ids.values():
        text = "query($id: ID!) { node(id: $id) { __typename id } }"
        assert await api.ask(token, text, id=name) == {"node": None}
    assert await everything(api) == before


def _id_paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _id_paths(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from _id_paths(each, path)
    elif isinstance(value, str) and value.startswith("%"):
        yield path


async def test_no_mutation_touches_another_organization(api, own, other) -> None:
    before = await everything(api)
    for name, example in INPUTS.items():
        for path in _id_paths(example):
            mixed = filled(example, own)
            _replace(mixed, path, _at(filled(example, other), path))
            [answer] = (await api.ask(own.token, mutation(name), input=mixed)).values()
            assert [each["code"] for each in answer["errors"]] == ["NOT_FOUND"], (name, path)
            assert await everything(api) == before, (name, path)


async def test_the_same_inputs_with_own_ids_are_accepted(api, own) -> None:
    """Else the refusals above would be refusals of something else."""
    for name, example in INPUTS.items():
        [answer] = (await api.ask(own.token, mutation(name), input=filled(example, own))).values()
        assert answer["errors"] == [], name


async def test_what_is_the_operators_is_refused_in_any_organization(api, own, other) -> None:
    before = await everything(api)
    for name, example in OPERATOR_INPUTS.items():
        for place in (own, other):
            body = (await api.post(own.token, mutation(name), input=filled(example, place))).json()
            is_refused = place is own or name in OF_NO_ORGANIZATION
            assert _code(body) == ("FORBIDDEN" if is_refused else "NOT_FOUND"), (name, place.slug)
            assert await everything(api) == before, name


async def test_the_operator_may_what_is_refused_to_others(api, own) -> None:
    token = await api.operator_token()
    for name, example in OPERATOR_INPUTS.items():
        body = (await api.post(token, mutation(name), input=filled(example, own))).json()
        assert _code(body) == ("CONFLICT" if name in DONE_BEFORE else None), (name, body)
    seen: set[str] = set()
    for asked in walk_of(own).documents():
        seen |= _types_in((await api.post(token, asked.text)).json())
    # Fees are walked through a plan that this test has archived by now.
    assert seen >= OPERATOR_TYPES - {"PlanFee"}


def _code(body: Any) -> str | None:
    """Read the code of the fault, or of the first error that can be mended."""
    if "errors" in body:
        return str(body["errors"][0]["extensions"]["code"])
    [answer] = body["data"].values()
    return answer["errors"][0]["code"] if answer["errors"] else None


def test_every_id_of_an_input_is_tried() -> None:
    for name, field in CORE.mutation_type.fields.items():
        if name in OPERATOR_ALONE:
            continue
        kind = get_named_type(field.args["input"].type)
        tried = {path[0] for path in _id_paths({**INPUTS, **OPERATOR_INPUTS}[name])}
        for each, value in kind.fields.items():
            inner = get_named_type(value.type)
            holds_id = inner.name == "ID" or _is_scope(inner)
            assert not holds_id or each in tried, f"{name}.{each}: give an example in INPUTS"


@pytest.mark.parametrize("name", sorted(SUBSCRIPTIONS))
async def test_a_subscription_shows_its_own_organization_alone(api, org, own, other, name) -> None:
    answer = await first_answer(api, own.token, name, own)
    assert answer["data"] is not None
    assert shown_of(other, answer) == set()


@pytest.mark.parametrize("name", sorted(SUBSCRIPTIONS))
@pytest.mark.parametrize("variable", ["o", "t", "m", "k"])
async def test_a_subscription_to_another_organization_finds_nothing(
    api, own, other, name, variable
) -> None:
    if f"${variable}:" not in SUBSCRIPTIONS[name]:
        pytest.skip("takes no such id")
    answer = await first_answer(
        api, own.token, name, own, {variable: variables_of(other)[variable]}
    )
    assert [each["extensions"]["code"] for each in answer["errors"]] == ["NOT_FOUND"]


async def first_answer(
    api, token: str, name: str, place: Furnished, changed: dict[str, str] | None = None
) -> Any:
    """Listen until the first answer or the errors; traffic of both organizations comes meanwhile."""
    plane = api.plane
    async with plane.database.read() as session:
        caller = await caller_of(
            session, token, plane.installation.pepper, plane.installation.now()
        )
    variables = {**variables_of(place), **(changed or {})}
    body = OperationBody(query=SUBSCRIPTIONS[name], variables=variables)
    operation = plane.api.desk.accept(body, caller, (OperationType.SUBSCRIPTION,), "")
    woken = asyncio.Event()
    listener = plane.api.fan_out.listen(operation, caller, "test", woken.set)
    async with asyncio.timeout(20):
        while not listener.pending and not listener.is_over:
            woken.clear()
            await api.traffic()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await woken.wait()
    plane.api.fan_out.leave(operation, caller, listener)
    return json.loads(listener.pending[0]) if listener.pending else {"errors": listener.errors}


def variables_of(place: Furnished) -> dict[str, str]:
    names = {"o": "Organization", "t": "Team", "m": "Member", "k": "VirtualKey"}
    return {short: place.ids[name] for short, name in names.items()}


def mutation(name: str) -> str:
    field = CORE.mutation_type.fields[name]
    kind = get_named_type(field.args["input"].type).name
    return f"mutation($input: {kind}!) {{ {name}(input: $input) {{ errors {{ code message field }} }} }}"


async def everything(api) -> dict[str, list[Any]]:
    """Read every row of every table."""
    async with api.plane.database.read() as session:
        return {
            table.name: sorted(map(repr, (await session.execute(select(table))).all()))
            for table in METADATA.sorted_tables
        }


def _is_scope(kind: Any) -> bool:
    return is_input_object_type(kind) and kind.name == "ScopeInput"


def _is_forbidden(body: Any) -> bool:
    return {each["extensions"]["code"] for each in body["errors"]} <= {"FORBIDDEN", "NOT_FOUND"}


def _is_empty(data: Any, asked: Asked) -> bool:
    """Tell that the way to the type ended in nothing."""
    return (
        data is None
        or all(each is None for each in data.values())
        or asked.type_name not in (_types_in(data))
    )


def _types_in(body: Any) -> set[str]:
    if isinstance(body, dict):
        own = {body["__typename"]} if "__typename" in body else set()
        return own.union(*(_types_in(each) for each in body.values()))
    if isinstance(body, list):
        return set().union(*(_types_in(each) for each in body))
    return set()


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value[0][name] if isinstance(value, list) else value[name]
    return value


def _replace(value: Any, path: tuple[str, ...], new: Any) -> None:
    for name in path[:-1]:
        value = value[0][name] if isinstance(value, list) else value[name]
    value[path[-1]] = new


def test_required_arguments_have_examples() -> None:
    """The walk fails without them; this says so by name."""
    for name in CORE.query_type.fields:
        field = CORE.query_type.fields[name]
        needed = [each for each, value in field.args.items() if is_required_argument(value)]
        assert not needed or f"Query.{name}" in EXAMPLES


def test_ids_are_told_apart() -> None:
    """The look for foreign ids would find one."""
    place, row = UUID(int=1), UUID(int=2)
    text = global_id(NodeKind.TEAM, place, row)
    assert _names(text, Furnished("x", place, "", {}))
    assert not _names(text, Furnished("x", UUID(int=3), "", {}))
    assert uuid_of(text) == row
