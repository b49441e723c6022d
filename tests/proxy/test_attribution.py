"""Labels: sent in headers, fixed or required by a policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.attribution import LABELS, NONE, Attribution, read_attribution, resolve
from proxy.errors import Problem

EVERY = Attribution(
    feature="f",
    agent="a",
    end_user="u",
    session="s",
    environment="e",
    request_class="batch",
    tags=(("k", "v"),),
)


def refused(attribution: Attribution, fixed: dict[str, str], required: list[str]) -> Problem:
    with pytest.raises(Problem) as raised:
        resolve(attribution, fixed, required)
    return raised.value


def test_without_a_policy_only_the_class_is_filled_in() -> None:
    assert resolve(NONE, {}, ()) == Attribution(request_class="interactive")
    assert resolve(EVERY, {}, ()) is EVERY


def test_a_session_comes_from_its_header() -> None:
    headers = {b"x-comptroller-session": b"s-1", b"x-comptroller-class": b"background"}
    assert resolve(read_attribution(headers), {}, ["session"]) == Attribution(
        session="s-1", request_class="background"
    )


@pytest.mark.parametrize("label", LABELS)
def test_a_fixed_label_is_filled_in(label: str) -> None:
    resolved = resolve(NONE, {label: "batch"}, [label])
    assert getattr(resolved, LABELS[label]) == "batch"
    same = replace(NONE, **{LABELS[label]: "batch"})  # type: ignore[arg-type]
    assert resolve(same, {label: "batch"}, ()) == resolved


@pytest.mark.parametrize("label", LABELS)
def test_a_header_cannot_change_a_fixed_label(label: str) -> None:
    problem = refused(EVERY, {label: "other"}, [])
    name = f"x-comptroller-{label.replace('_', '-')}"
    assert (problem.status, problem.code, problem.param) == (403, "attribution_not_allowed", name)
    assert problem.should_retry is False
    # What the policy fixes is not told to somebody who guesses.
    assert "other" not in problem.message


@pytest.mark.parametrize("label", LABELS)
def test_a_required_label_must_be_sent(label: str) -> None:
    problem = refused(NONE, {}, [label])
    name = f"x-comptroller-{label.replace('_', '-')}"
    assert (problem.status, problem.code, problem.param) == (400, "attribution_required", name)
    assert name in problem.message
    assert resolve(EVERY, {}, [label]) is EVERY


def test_the_first_missing_label_is_named() -> None:
    required = ["session", "end_user", "class"]
    assert refused(NONE, {}, required).param == "x-comptroller-end-user"
    assert refused(NONE, {"end_user": "u"}, required).param == "x-comptroller-session"
    assert refused(Attribution(end_user="u", session="s"), {}, required).param == (
        "x-comptroller-class"
    )


def test_a_contradiction_is_named_before_what_is_missing() -> None:
    problem = refused(Attribution(agent="a"), {"agent": "b"}, ["feature"])
    assert problem.code == "attribution_not_allowed"


def test_tags_stay() -> None:
    tagged = Attribution(tags=(("k", "v"),))
    assert resolve(tagged, {"agent": "a"}, ()).tags == (("k", "v"),)
