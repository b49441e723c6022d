"""The version that is shown, none included, is the one to send back."""

from __future__ import annotations

from controlplane.api.nodes import NodeKind, global_id

BREAKER = "query($id: ID!) { node(id: $id) { ... on Team { breaker { version } } } }"
BREAKER_SET = """mutation($input: BreakerSetInput!) { breakerSet(input: $input) {
  breaker { perMinute version } errors { code } } }"""
RULE = "query($id: ID!) { node(id: $id) { ... on Team { rule { version } } } }"
RULE_SET = """mutation($input: RuleSetInput!) { ruleSet(input: $input) {
  rule { models version } errors { code } } }"""


async def test_a_breaker_that_nobody_has_set_is_set_at_the_version_shown(api, org) -> None:
    token, team = await api.token(org.admin), global_id(NodeKind.TEAM, org.id, org.team)
    version = (await api.ask(token, BREAKER, id=team))["node"]["breaker"]["version"]
    wanted = {"scope": {"teamId": team}, "perMinute": "5", "expectedVersion": version}
    done = (await api.ask(token, BREAKER_SET, input=wanted))["breakerSet"]
    assert done == {"breaker": {"perMinute": "5.00", "version": 1}, "errors": []}
    again = (await api.ask(token, BREAKER_SET, input=wanted | {"perMinute": "6"}))["breakerSet"]
    assert again == {"breaker": None, "errors": [{"code": "STALE_VERSION"}]}


async def test_a_rule_that_says_nothing_is_shown_and_set_at_its_version(api, org) -> None:
    token, team = await api.token(org.admin), global_id(NodeKind.TEAM, org.id, org.team)

    async def put(models: list[str] | None, version: int | None) -> object:
        wanted = {"scope": {"teamId": team}, "models": models, "expectedVersion": version}
        return (await api.ask(token, RULE_SET, input=wanted))["ruleSet"]

    stale = {"rule": None, "errors": [{"code": "STALE_VERSION"}]}
    assert await api.ask(token, RULE, id=team) == {"node": {"rule": None}}
    await put(["a"], None)
    assert await put(None, 1) == {"rule": {"models": None, "version": 2}, "errors": []}
    assert await api.ask(token, RULE, id=team) == {"node": {"rule": {"version": 2}}}
    assert await put(["b"], 1) == stale
    assert await put(["b"], None) == stale
    assert await put(["b"], 2) == {"rule": {"models": ["b"], "version": 3}, "errors": []}
