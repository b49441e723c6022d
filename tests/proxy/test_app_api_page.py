"""The page about what applications can ask: its examples are what a running server answers."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from controlplane.limits.models import ScopeKind
from proxy.estimates import COUNTED_BYTES_MAX, Estimate
from proxy.limits import LimitAnswer, LimitsAnswer
from tests.proxy.asking import ask, headers
from tests.proxy.test_estimates import estimate
from tests.stack import Stack

PAGE = (Path(__file__).parents[2] / "docs/reference/app-api.md").read_text()
REQUEST, ALLOWED, REFUSED, LISTED = map(
    json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
)
# What the simulated installation has in place of what users have.
STAND_INS = {"openai": "simulator"}


def agree(written: Any, answered: Any) -> bool:
    """Compare an example with an answer; `…` stands for any rest, an instant for any other."""
    if isinstance(written, dict):
        return written.keys() == answered.keys() and all(
            agree(value, answered[name]) for name, value in written.items()
        )
    if isinstance(written, list):
        return len(written) == len(answered) and all(map(agree, written, answered))
    if isinstance(written, str) and isinstance(answered, str):
        start, ellipsis, _ = written.partition("…")
        if ellipsis:
            is_id = re.fullmatch(r"[0-9a-f]{4}", start)
            return len(answered) > len(start) and bool(is_id or answered.startswith(start))
        if is_instant(written):
            return is_instant(answered)
    return bool(STAND_INS.get(str(written), written) == answered)


def is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def test_the_estimates_are_what_is_answered(stack: Stack) -> None:
    key_id, secret = stack.key()
    allowed = estimate(stack, secret, REQUEST).json()
    assert agree(ALLOWED, allowed), allowed
    stack.budget(stack.scope(ScopeKind.KEY, key_id), REFUSED["refusal"]["limit"]["cap"])
    refused = estimate(stack, secret, REQUEST).json()
    assert agree(REFUSED, refused), refused


def test_the_list_of_limits_is_what_is_answered(stack: Stack) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "10")
    stack.budget(stack.scope(ScopeKind.ORGANIZATION), "5000")
    assert ask(stack, secret=secret, model="sim-flat-0.05").status_code == 200
    address = f"{stack.base_url}/comptroller/limits"
    listed = httpx.get(address, headers=headers(secret)).json()
    listed["data"] = [each for each in listed["data"] if each["kind"] == "budget"]
    assert agree(LISTED, listed), listed


def test_the_comparison_sees_what_differs() -> None:
    assert not agree({"a": 1}, {"a": 1, "b": 2})
    assert not agree(["x…"], ["y…"])
    assert not agree("2026-04-01T00:00:00+00:00", "soon")
    assert not agree("0.05", "0.06")
    assert not agree("0197…", None)


def test_every_field_is_explained() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE))))
    shown = {"object", "currency", "policy_version", "as_of", "data"}
    for answer in (Estimate, LimitAnswer, LimitsAnswer):
        assert {field.name for field in msgspec.structs.fields(answer)} - shown - told <= {
            "limit_id"
        }
    assert f"{COUNTED_BYTES_MAX // 1024} KiB" in PAGE
