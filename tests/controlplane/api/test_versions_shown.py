"""The version that is shown, none included, is the one to send back."""

from __future__ import annotations

from controlplane.api.nodes import NodeKind, global_id

BREAKER = "query($id: ID!) { node(id: $id) { ... on Team { breaker { version } } } }"
BREAKER_SET = """mutation($input: BreakerSetInput!) { breakerSet(input: $input) {
  breaker { perMinute version } errors { code } } }"""
RULE = "query($id: ID!) { node(id: $id) { ... on Team { modelRule { version } } } }"
RULE_SET = """mutation($input: ModelRuleSetInput!) { modelRuleSet(input: $input) {
  modelRule { allow version } errors { code } } }"""


async def test_a_breaker_that_nobody_has_set_is_set_at_the_version_shown(api, org) -> None:
    token, team = await api.token(org.admin), global_id(NodeKind.TEAM, org.id, org.team)
    version = (await api.ask(token, BREAKER, id=team))["node"]["breaker"]["version"]
    wanted = {"scope": {"teamId": team}, "perMinute": "5", "expectedVersion": version}
    done = (await api.ask(token, BREAKER_SET, input=wanted))["breakerSet"]
    assert done == {"breaker": {"perMinute": "5.00", "version": 1}, "errors": []}
    again = (await api.ask(token, BREAKER_SET, input=wanted | {"perMinute": "6"}))["breakerSet"]
    assert again == {"breaker": None, "errors": [{"code": "STALE_VERSION"}]}


async def test_a_lifted_model_rule_is_set_again_as_one_that_never_was(api, org) -> None:
    token, team = await api.token(org.admin), global_id(NodeKind.TEAM, org.id, org.team)

    async def put(allow: list[str] | None, version: int | None) -> object:
        wanted = {"scope": {"teamId": team}, "allow": allow, "expectedVersion": version}
        return (await api.ask(token, RULE_SET, input=wanted))["modelRuleSet"]

    await put(["a"], None)
    assert await put(None, 1) == {"modelRule": {"allow": None, "version": 2}, "errors": []}
    assert await api.ask(token, RULE, id=team) == {"node": {"modelRule": None}}
    assert await put(["b"], 1) == {"modelRule": None, "errors": [{"code": "STALE_VERSION"}]}
    assert await put(["b"], None) == {"modelRule": {"allow": ["b"], "version": 3}, "errors": []}
    assert await put(["c"], None) == {"modelRule": None, "errors": [{"code": "STALE_VERSION"}]}
