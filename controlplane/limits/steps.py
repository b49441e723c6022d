"""What a limit does as it fills up: percents of its cap, and an action at each.

Below 100 a step compares what is settled with the percent; at 100 it means that a request does
not fit. Steps are kept, and written into the snapshot, as JSON objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.columns import Json
from controlplane.errors import InvalidInput
from controlplane.inputs import checked_number
from controlplane.limits.models import Mode
from controlplane.limits.where import checked_name

STEPS_MAX = 16
FULL_PERCENT = 100
TIMEOUT_S_MAX = 300
COOLDOWN_S_MAX = 31 * 86_400
REFUSAL_STATUSES = frozenset({402, 403, 429})

_CODE = re.compile(r"[a-z][a-z0-9_]{0,59}")


class StepAction(StrEnum):
    """What happens at a step."""

    NOTIFY = "notify"
    DOWNGRADE = "downgrade"
    CONFIRM = "confirm"
    QUEUE = "queue"
    REFUSE = "refuse"


# A soft limit never refuses; a shadow limit only measures.
_ALLOWED = {
    Mode.HARD: frozenset(StepAction),
    Mode.SOFT: frozenset({StepAction.NOTIFY, StepAction.DOWNGRADE, StepAction.CONFIRM}),
    Mode.SHADOW: frozenset({StepAction.NOTIFY}),
    Mode.METERED: frozenset({StepAction.NOTIFY}),
}
_AT_CAP = frozenset({StepAction.QUEUE, StepAction.REFUSE})


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it is asked for; `timeout_s` of queue, `code` and `status` of refuse."""

    percent: int
    action: StepAction
    model: str | None = None
    timeout_s: int | None = None
    code: str | None = None
    status: int | None = None

    def form(self) -> Json:
        """Write the step as the engine reads it."""
        found: Json = {"percent": self.percent, "action": self.action.value}
        if self.action is StepAction.DOWNGRADE:
            found["model"] = self.model
        if self.action is StepAction.QUEUE:
            found["timeout_s"] = self.timeout_s
        if self.action is StepAction.REFUSE:
            found |= {"code": self.code, "status": self.status}
        return found


def step_of(form: Json) -> Step:
    """Read a step that was checked before."""
    return Step(**{**form, "action": StepAction(form["action"])})


def checked_steps(steps: Sequence[Step], mode: Mode) -> list[Json]:
    """Accept the steps of a limit, in order; that a hard limit refuses in the end is implied.

    Raises `InvalidInput`.
    """
    if len(steps) > STEPS_MAX:
        raise InvalidInput(f"At most {STEPS_MAX} steps.", field=("steps",))
    percents = [each.percent for each in steps]
    if percents != sorted(percents):
        raise InvalidInput("Give steps in the order of their percents.", field=("steps",))
    if len({(each.percent, each.action) for each in steps}) != len(steps):
        raise InvalidInput("An action is given twice at one percent.", field=("steps",))
    if any(each.action is StepAction.REFUSE for each in steps[:-1]):
        raise InvalidInput("Nothing comes after refusing.", field=("steps",))
    return [_checked(each, mode).form() for each in steps]


def checked_cooldown_s(cooldown_s: int | None, mode: Mode) -> int | None:
    """Accept how long a soft limit is quiet after it has told that it is passed.

    Raises `InvalidInput`.
    """
    if cooldown_s is None:
        return None
    if mode is not Mode.SOFT:
        raise InvalidInput("Only a soft limit has a cooldown.", field=("cooldownSeconds",))
    return checked_number(cooldown_s, "cooldownSeconds", 1, COOLDOWN_S_MAX)


def _checked(step: Step, mode: Mode) -> Step:
    action = step.action
    _check_place(step, mode)
    _refuse_strangers(step)
    if action is StepAction.DOWNGRADE:
        return Step(step.percent, action, model=_checked_model(step.model))
    if action is StepAction.QUEUE:
        return Step(step.percent, action, timeout_s=_checked_timeout_s(step.timeout_s))
    if action is StepAction.REFUSE:
        return Step(step.percent, action, code=_code(step.code), status=_status(step.status))
    return step


def _check_place(step: Step, mode: Mode) -> None:
    checked_number(step.percent, "percent", 1, FULL_PERCENT)
    if step.action not in _ALLOWED[mode]:
        raise InvalidInput(f"A {mode.value} limit does not {step.action.value}.", field=("steps",))
    if step.action in _AT_CAP and step.percent != FULL_PERCENT:
        raise InvalidInput(f"To {step.action.value} is a step at 100 percent.", field=("steps",))
    if step.action is StepAction.CONFIRM and mode is Mode.HARD and step.percent == FULL_PERCENT:
        raise InvalidInput(
            "What does not fit a hard limit cannot be confirmed; ask below 100 percent.",
            field=("steps",),
        )


def _refuse_strangers(step: Step) -> None:
    """Refuse what belongs to another action: it would be left out without a word."""
    given = (
        (step.model, StepAction.DOWNGRADE, "model"),
        (step.timeout_s, StepAction.QUEUE, "timeoutSeconds"),
        (step.code, StepAction.REFUSE, "code"),
        (step.status, StepAction.REFUSE, "status"),
    )
    for value, action, name in given:
        if value is not None and step.action is not action:
            raise InvalidInput(f"Only to {action.value} takes it.", field=("steps", name))


def _checked_model(model: str | None) -> str:
    if model is None:
        raise InvalidInput("Name the model to downgrade to.", field=("steps", "model"))
    return checked_name(model, "steps", "model")


def _checked_timeout_s(timeout_s: int | None) -> int:
    if timeout_s is None:
        raise InvalidInput("Say how long to wait.", field=("steps", "timeoutSeconds"))
    return checked_number(timeout_s, "timeoutSeconds", 1, TIMEOUT_S_MAX)


def _code(code: str | None) -> str | None:
    if code is not None and _CODE.fullmatch(code) is None:
        raise InvalidInput(
            "Use 1 to 60 lower-case letters, digits and underscores.", field=("steps", "code")
        )
    return code


def _status(status: int | None) -> int | None:
    if status is not None and status not in REFUSAL_STATUSES:
        raise InvalidInput("Use 402, 403 or 429.", field=("steps", "status"))
    return status
