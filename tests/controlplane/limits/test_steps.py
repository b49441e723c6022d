"""Steps of limits: what is accepted, and what is refused by name."""

from __future__ import annotations

import pytest

from controlplane.errors import InvalidInput
from controlplane.limits.models import Mode
from controlplane.limits.steps import (
    COOLDOWN_S_MAX,
    STEPS_MAX,
    Step,
    StepAction,
    checked_cooldown_s,
    checked_steps,
    step_of,
)

NOTIFY, DOWNGRADE, CONFIRM, QUEUE, REFUSE = StepAction


def test_steps_are_written_as_the_engine_reads_them() -> None:
    steps = [
        Step(50, NOTIFY),
        Step(80, NOTIFY),
        Step(80, DOWNGRADE, model=" gpt-4o-mini "),
        Step(90, CONFIRM),
        Step(100, DOWNGRADE, model="gpt-4o-mini"),
        Step(100, QUEUE, timeout_s=300),
        Step(100, REFUSE, code="out_of_money", status=402),
    ]
    forms = checked_steps(steps, Mode.HARD)
    assert forms == [
        {"percent": 50, "action": "notify"},
        {"percent": 80, "action": "notify"},
        {"percent": 80, "action": "downgrade", "model": "gpt-4o-mini"},
        {"percent": 90, "action": "confirm"},
        {"percent": 100, "action": "downgrade", "model": "gpt-4o-mini"},
        {"percent": 100, "action": "queue", "timeout_s": 300},
        {"percent": 100, "action": "refuse", "code": "out_of_money", "status": 402},
    ]
    assert [step_of(each).form() for each in forms] == forms


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        (Mode.HARD, [Step(0, NOTIFY)]),
        (Mode.HARD, [Step(101, NOTIFY)]),
        (Mode.HARD, [Step(80, NOTIFY), Step(79, NOTIFY)]),
        (Mode.HARD, [Step(80, NOTIFY), Step(80, NOTIFY)]),
        (Mode.HARD, [Step(80, DOWNGRADE)]),
        (Mode.HARD, [Step(80, DOWNGRADE, model="")]),
        (Mode.HARD, [Step(80, DOWNGRADE, model="é" * 101)]),
        (Mode.HARD, [Step(80, NOTIFY, model="m")]),
        (Mode.HARD, [Step(100, CONFIRM)]),
        (Mode.HARD, [Step(99, QUEUE, timeout_s=1)]),
        (Mode.HARD, [Step(100, QUEUE)]),
        (Mode.HARD, [Step(100, QUEUE, timeout_s=0)]),
        (Mode.HARD, [Step(100, QUEUE, timeout_s=301)]),
        (Mode.HARD, [Step(99, REFUSE)]),
        (Mode.HARD, [Step(100, REFUSE, status=500)]),
        (Mode.HARD, [Step(100, REFUSE, code="No Money")]),
        (Mode.HARD, [Step(100, REFUSE), Step(100, NOTIFY)]),
        (Mode.HARD, [Step(100, NOTIFY, status=402)]),
        (Mode.SOFT, [Step(100, REFUSE)]),
        (Mode.SOFT, [Step(100, QUEUE, timeout_s=1)]),
        (Mode.SHADOW, [Step(80, DOWNGRADE, model="m")]),
        (Mode.METERED, [Step(80, CONFIRM)]),
    ],
)
def test_steps_that_mean_nothing_are_refused(mode: Mode, steps: list[Step]) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_steps(steps, mode)
    assert refused.value.field


def test_a_soft_limit_may_ask_and_downgrade_at_its_cap() -> None:
    steps = [Step(100, NOTIFY), Step(100, CONFIRM), Step(100, DOWNGRADE, model="m")]
    assert [each["action"] for each in checked_steps(steps, Mode.SOFT)] == [
        "notify",
        "confirm",
        "downgrade",
    ]


def test_there_are_at_most_sixteen() -> None:
    steps = [Step(percent, NOTIFY) for percent in range(1, STEPS_MAX + 1)]
    assert len(checked_steps(steps, Mode.HARD)) == 16
    with pytest.raises(InvalidInput):
        checked_steps([*steps, Step(99, NOTIFY)], Mode.HARD)


def test_only_a_soft_limit_has_a_cooldown() -> None:
    assert checked_cooldown_s(None, Mode.HARD) is None
    assert checked_cooldown_s(COOLDOWN_S_MAX, Mode.SOFT) == 2_678_400
    for seconds, mode in [(0, Mode.SOFT), (COOLDOWN_S_MAX + 1, Mode.SOFT), (60, Mode.HARD)]:
        with pytest.raises(InvalidInput):
            checked_cooldown_s(seconds, mode)
