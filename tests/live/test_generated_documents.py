"""Documents made from the schema, thousands of fields wide: no fault, nobody else's data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from graphql import (
    ArgumentNode,
    IntValueNode,
    StringValueNode,
    ValueNode,
    Visitor,
    parse,
    print_ast,
    visit,
)
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.graphql import nodes

from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.schema import SDL_PATH
from controlplane.tenancy.service import create_member, create_team
from tests.stack import Stack

# Written into everything of the other organization that has a text, and into no request.
MARK = "unseen"
EXAMPLES = {"Query.organization": 400, "Query.node": 60}
EXAMPLES_ELSE = 15

AMOUNTS = ["0", "1", "0.000000001", "12.34", "9223372036.854775807", "-1", "1e9", "NaN", ""]
INSTANTS = ["2026-03-14T09:26:53Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "x"]
COUNTS = ["0", "1", "9223372036854775807", "9223372036854775808", "-1", ""]
for name, texts in (("Money", AMOUNTS), ("DateTime", INSTANTS), ("BigInt", COUNTS)):
    schemathesis.graphql.scalar(name, st.sampled_from(texts).map(nodes.String))


@pytest.fixture
def foreign(installation: Stack, stack: Stack) -> Stack:
    """Another organization, with a name in everything that must not be seen."""
    tenant = installation.tenant(f"far-{stack.organization_id.hex[-12:]}")

    async def name_things(work: Any) -> None:
        await create_team(work, tenant.organization_id, name=f"{MARK} team", slug="far")
        await create_member(
            work, tenant.organization_id, email=f"{MARK}@far.example", team_id=tenant.team_id
        )

    tenant.change(name_things)
    return tenant


def slug_of(tenant: Stack) -> str:
    place = global_id(NodeKind.ORGANIZATION, tenant.organization_id, tenant.organization_id)
    query = "query($id: ID!) { node(id: $id) { ... on Organization { slug } } }"
    slug: str = tenant.graphql(query, id=place)["node"]["slug"]
    return slug


def names_of(tenant: Stack, key_id: Any) -> list[str]:
    """List global ids of what an organization has, with the right kind and with wrong ones."""
    place = tenant.organization_id
    things = (place, tenant.team_id, tenant.member_id, key_id)
    return [global_id(kind, place, each) for kind in NodeKind for each in things]


class Aim(Visitor):
    """Puts what names something, and pages of a size that may be, in place of what is made up."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], ids: Any, slugs: Any) -> None:
        super().__init__()
        self._draw = draw
        self._ids = st.one_of(st.none(), st.sampled_from(ids))
        self._slugs = st.one_of(st.none(), *[st.just(each) for each in slugs])
        self._sizes = st.one_of(st.none(), st.integers(0, 101), st.integers(1, 100))

    def leave_argument(self, node: ArgumentNode, *_args: Any) -> ArgumentNode | None:
        if node.name.value == "first":
            size = self._draw(self._sizes)
            return None if size is None else argument(node, IntValueNode(value=str(size)))
        if node.name.value == "slug":
            slug = self._draw(self._slugs)
            return None if slug is None else argument(node, StringValueNode(value=slug))
        return None

    def enter_string_value(self, node: StringValueNode, *_args: Any) -> StringValueNode:
        return StringValueNode(value=self._draw(self._ids) or node.value)


def argument(node: ArgumentNode, value: ValueNode) -> ArgumentNode:
    return ArgumentNode(name=node.name, value=value)


@pytest.mark.timeout(120)
def test_generated_documents(stack: Stack, foreign: Stack) -> None:
    key_id, _secret = stack.key()
    foreign_key_id, _secret = foreign.key()
    slugs = [slug_of(stack), slug_of(foreign)]
    known = [*names_of(stack, key_id), *names_of(foreign, foreign_key_id)]
    desk = stack.comptroller.control.api._handler.desk
    seen: dict[int, int] = {}
    filled = 0

    with httpx.Client(
        base_url=stack.address, headers={"authorization": f"Bearer {stack.admin_token}"}
    ) as client:

        def ask(text: str, data: st.DataObject) -> None:
            nonlocal filled
            document = visit(parse(text), Aim(data.draw, known, slugs))
            desk.buckets._buckets.clear()
            response = client.post("/graphql", json={"query": print_ast(document)}, timeout=30)
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
            body = json.loads(response.content)
            assert response.status_code in {200, 400, 422}, body
            assert response.headers["x-request-id"]
            codes = {each["extensions"]["code"] for each in body.get("errors", ())}
            assert codes <= {"BAD_USER_INPUT", "NOT_FOUND", "FORBIDDEN", "QUERY_TOO_EXPENSIVE"}
            filled += any(f'"{each}":[{{' in response.text for each in ("nodes", "edges"))
            assert MARK not in response.text

        schema = schemathesis.graphql.from_file(SDL_PATH.read_text())
        for found in schema.get_all_operations():
            operation = found.ok()

            @seed(20260314)
            @settings(
                max_examples=EXAMPLES.get(operation.label, EXAMPLES_ELSE),
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy(), st.data())
            def run(case: schemathesis.Case, data: st.DataObject) -> None:
                ask(case.body, data)  # type: ignore[arg-type]

            run()
    # Most were executed: what is refused by validation alone would prove little.
    assert seen[200] > sum(seen.values()) / 2
    assert filled > 0
