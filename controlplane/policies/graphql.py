"""Rules in the API."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import enumeration, mutation
from controlplane.api.given import given
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt
from controlplane.api.scopes import ScopeInput, SpendScope, scope_of
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.limits.subjects import Scope
from controlplane.policies import models, service
from controlplane.policies.models import OnCut, RefusalDetail
from controlplane.policies.values import NAMES, RuleChanges


class RequestLabel(StrEnum):
    """What a request can be labelled with."""

    FEATURE = "feature"
    AGENT = "agent"
    END_USER = "end_user"
    SESSION = "session"
    ENVIRONMENT = "environment"
    CLASS = "class"


class RequestClass(StrEnum):
    """How urgent a request is."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    BACKGROUND = "background"


enumeration(
    RequestLabel,
    "RequestLabel",
    "What a request can be labelled with.",
    {
        RequestLabel.FEATURE: "What of the application it is for: `x-comptroller-feature`.",
        RequestLabel.AGENT: "The agent that asks: `x-comptroller-agent`.",
        RequestLabel.END_USER: "The person it is for: `x-comptroller-end-user`.",
        RequestLabel.SESSION: "What it is part of: `x-comptroller-session`.",
        RequestLabel.ENVIRONMENT: "Where it is from: `x-comptroller-environment`.",
        RequestLabel.CLASS: "How urgent it is: `x-comptroller-class`.",
    },
)
enumeration(
    RequestClass,
    "RequestClass",
    "How urgent a request is.",
    {
        RequestClass.INTERACTIVE: "Somebody waits for it.",
        RequestClass.BATCH: "One of many that may take their time.",
        RequestClass.BACKGROUND: "Nobody waits for it.",
    },
)
enumeration(
    OnCut,
    "OnCut",
    "What a caller who wants JSON gets of an answer that a limit has cut.",
    {
        OnCut.PARTIAL: "What was generated, with `finish_reason` `length`.",
        OnCut.ERROR: "Status 402; what was generated is charged all the same.",
    },
)
enumeration(
    RefusalDetail,
    "RefusalDetail",
    "Of which limits a refusal shows cap and use.",
    {
        RefusalDetail.OWN: "Of those that the key's owner may see.",
        RefusalDetail.ALL: "Of all.",
        RefusalDetail.NONE: "Of none.",
    },
)


@strawberry.type(description="A label that requests have, whatever their callers say.")
class FixedLabel:
    """A label that requests have."""

    label: RequestLabel = strawberry.field(description="Which label.")
    value: str = strawberry.field(description="What it says.")


@strawberry.input(description="A label that requests shall have, whatever their callers say.")
class FixedLabelInput:
    """A label that requests shall have."""

    label: RequestLabel = strawberry.field(description="Which label.")
    value: str = strawberry.field(
        description="What it says, 1 to 200 characters; of a class one of `RequestClass`, in "
        "lower case."
    )


@strawberry.type(
    description="What the requests of a scope may be. Each of a key, its team and its organization "
    "may have one, and a request must be allowed by all."
)
class Rule(Node):
    """What the requests of a scope may be."""

    scope: SpendScope = strawberry.field(description="Whose requests it is about.")
    models: list[str] | None = strawberry.field(
        description="Models that are allowed; null: all, an empty list: none."
    )
    tiers: list[str] | None = strawberry.field(
        description="Tiers of models that are allowed; null: all, an empty list: none."
    )
    providers: list[str] | None = strawberry.field(
        description="Providers that are allowed; null: all, an empty list: none."
    )
    providers_blocked: list[str] = strawberry.field(description="Providers that are not allowed.")
    features_blocked: list[str] = strawberry.field(description="Features that are not allowed.")
    classes_blocked: list[RequestClass] = strawberry.field(
        description="Classes of requests that are not allowed."
    )
    endpoints_blocked: list[str] = strawberry.field(
        description="Paths of the proxy that are not allowed."
    )
    tokens_per_request_max: BigInt | None = strawberry.field(
        description="Most tokens in one request, its answer included; the least of all holds."
    )
    retry_storm_max: int | None = strawberry.field(
        description="After so many requests with the same body in 60 seconds that failed or were "
        "refused, further ones are refused; the narrowest scope's holds."
    )
    output_tokens_default: BigInt | None = strawberry.field(
        description="Most tokens of an answer whose caller sets no maximum; the narrowest "
        "scope's holds."
    )
    hold_wait_s: int | None = strawberry.field(
        description="How many seconds a request may wait for others to end before it is refused; "
        "the narrowest scope's holds, else 30."
    )
    on_cut: OnCut | None = strawberry.field(
        description="What becomes of a JSON answer that a limit cuts; the narrowest scope's "
        "holds, else what was generated is sent."
    )
    refusal_detail: RefusalDetail | None = strawberry.field(
        description="What refusals show; the narrowest scope's holds, else `OWN`."
    )
    fixed: list[FixedLabel] = strawberry.field(
        description="Labels that requests have, whatever their callers say; the widest scope's "
        "holds."
    )
    required: list[RequestLabel] = strawberry.field(
        description="Labels without which requests are refused."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


@strawberry.input(description="What to change of a scope's rule; what is left out stays.")
class RuleSetInput:
    """What to change of a scope's rule."""

    scope: ScopeInput = strawberry.field(description="An organization, a team or a key.")
    models: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Models to allow, at most 1000; null allows all, an empty list none.",
    )
    tiers: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Tiers of models to allow; null allows all, an empty list none.",
    )
    providers: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Providers to allow; null allows all, an empty list none.",
    )
    providers_blocked: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="All providers to block; null: none."
    )
    features_blocked: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="All features to block; null: none."
    )
    classes_blocked: list[RequestClass] | None = strawberry.field(
        default=strawberry.UNSET, description="All classes of requests to block; null: none."
    )
    endpoints_blocked: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="All paths to block, such as `/v1/chat/completions`; null: none.",
    )
    tokens_per_request_max: BigInt | None = strawberry.field(
        default=strawberry.UNSET,
        description="Most tokens in one request, 1 to 1000000000; null: no maximum here.",
    )
    retry_storm_max: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Equal requests in 60 seconds that may fail, 1 to 1000; null: as wider scopes "
        "say.",
    )
    output_tokens_default: BigInt | None = strawberry.field(
        default=strawberry.UNSET,
        description="Most tokens of an answer whose caller sets no maximum, 1 to 1000000000; "
        "null: as wider scopes say.",
    )
    hold_wait_s: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds to wait for others to end, 0 to 300; null: as wider scopes say.",
    )
    on_cut: OnCut | None = strawberry.field(
        default=strawberry.UNSET,
        description="What becomes of a JSON answer that is cut; null: as wider scopes say.",
    )
    refusal_detail: RefusalDetail | None = strawberry.field(
        default=strawberry.UNSET, description="What refusals show; null: as wider scopes say."
    )
    fixed: list[FixedLabelInput] | None = strawberry.field(
        default=strawberry.UNSET, description="All labels to fix; null: none."
    )
    required: list[RequestLabel] | None = strawberry.field(
        default=strawberry.UNSET, description="All labels to require; null: none."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where there is no rule."
    )

    def changes(self) -> RuleChanges:
        """Read what was given.

        Raises `InvalidInput`.
        """
        found: dict[str, Any] = {
            name: getattr(self, name) for name in NAMES if given(getattr(self, name))
        }
        for name in ("providers_blocked", "features_blocked", "endpoints_blocked"):
            if name in found:
                found[name] = found[name] or ()
        for name in ("classes_blocked", "required"):
            if name in found:
                found[name] = [each.value for each in found[name] or ()]
        if "fixed" in found:
            found["fixed"] = _fixed(found["fixed"] or ())
        return cast("RuleChanges", found)


@strawberry.type(description="The rule, or why nothing was changed.")
class RulePayload:
    """The rule, or why nothing was changed."""

    rule: Rule | None = strawberry.field(description="The rule; null when errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


def rule_of(row: models.Rule) -> Rule:
    """Show a rule."""
    return Rule(
        id=global_id(NodeKind.RULE, row.organization_id, row.id),
        scope=scope_of(row.organization_id, Scope(row.scope_kind, row.scope_id)),
        models=row.models,
        tiers=row.tiers,
        providers=row.providers,
        providers_blocked=row.providers_blocked,
        features_blocked=row.features_blocked,
        classes_blocked=[RequestClass(each) for each in row.classes_blocked],
        endpoints_blocked=row.endpoints_blocked,
        tokens_per_request_max=_big(row.tokens_per_request_max),
        retry_storm_max=row.retry_storm_max,
        output_tokens_default=_big(row.output_tokens_default),
        hold_wait_s=row.hold_wait_s,
        on_cut=row.on_cut,
        refusal_detail=row.refusal_detail,
        fixed=[
            FixedLabel(label=RequestLabel(label), value=value)
            for label, value in sorted(row.fixed.items())
        ],
        required=[RequestLabel(each) for each in row.required],
        version=row.version,
    )


async def load_rule(info: Info, organization_id: UUID, scope: Scope) -> Rule | None:
    """Load the rule that a scope has itself."""
    row = await info.context.loaders.rules.load((organization_id, scope))
    return None if row is None else rule_of(row)


@strawberry.type
class PolicyMutation:
    """Changes to policy."""

    @mutation("Set what the requests of a scope may be.")
    async def rule_set(self, info: Info, input: RuleSetInput) -> RulePayload:  # noqa: A002
        """Set what the requests of a scope may be."""

        async def change(work: Work) -> models.Rule:
            organization_id, scope = input.scope.located()
            return await service.set_rule(
                work,
                organization_id,
                scope,
                input.changes(),
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return RulePayload(rule=None if row is None else rule_of(row), errors=errors)


def _big(value: int | None) -> BigInt | None:
    return None if value is None else BigInt(value)


def _fixed(labels: Sequence[FixedLabelInput]) -> dict[str, str]:
    found = {each.label.value: each.value for each in labels}
    if len(found) != len(labels):
        raise InvalidInput("A label is given twice.", field=("fixed",))
    return found
