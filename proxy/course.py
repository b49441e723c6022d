"""What is known of one request while it runs, and the record made of it at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec

from controlplane.clock import Clock
from controlplane.ledger.records import (
    Crossing,
    Decision,
    DecisionRecord,
    LedgerEntry,
    UsageSource,
    invoice_period,
)
from core_rs import ENGINE_VERSION, Admission, Principal, Refusal, Settlement
from proxy.attribution import NONE, Attribution
from proxy.errors import Problem
from proxy.routing import Deployment
from proxy.serving import header_id
from proxy.wire.openai_chat import ChatRequest

IDS_CACHED_MAX: Final = 65_536


class Measured(msgspec.Struct, frozen=True, gc=False):
    """What a request cost at its provider, in nano units and tokens, and how that is known."""

    cost_nanos: int
    input_tokens: int
    output_tokens: int
    source: UsageSource
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens together, as token limits count them."""
        return self.input_tokens + self.output_tokens


NOTHING: Final = Measured(0, 0, 0, "none")


class Step(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """A step of a limit that a request went through; `model` is what it was downgraded to."""

    limit_id: str
    percent: int
    action: str
    model: str | None = None


@dataclass(slots=True)
class Course:
    """One authenticated request from its admission to its record."""

    request_id: bytes
    route: str
    principal: Principal
    currency: str
    price_version: str
    wall_ns: int
    mono_ns: int
    attribution: Attribution = NONE
    chat: ChatRequest | None = None
    deployment: Deployment | None = None
    admission: Admission | None = None
    refusal: Refusal | None = None
    problem: Problem | None = None
    injected_cap: int | None = None
    steps: list[Step] = field(default_factory=list)
    waited_ns: int = 0
    extensions: int = 0
    cut_limit_id: str | None = None
    upstream_status: int | None = None
    first_byte_at_ns: int | None = None
    client_left: bool = False

    @property
    def header_id(self) -> bytes:
        """The request id as callers see it, in `x-request-id`."""
        return header_id(self.request_id)

    @property
    def is_assembled(self) -> bool:
        """Whether an answer in one piece was put together from a stream."""
        chat, admission = self.chat, self.admission
        return admission is not None and admission.extendable and not (chat and chat.streams)

    def record(
        self, clock: Clock, measured: Measured = NOTHING, settlement: Settlement | None = None
    ) -> DecisionRecord:
        """Make the one record of this request; `settlement` when money was booked or could be."""
        now_ns = clock.wall_ns()
        chat, deployment, problem = self.chat, self.deployment, self.problem
        admission, labels = self.admission, self.attribution
        # The key may have been moved since it was looked up: counters and record must agree.
        bearer = admission or self.refusal or self.principal
        return DecisionRecord(
            id=self.request_id,
            organization_id=_uuid(self.principal.organization_id),
            key_id=_uuid(self.principal.key_id),
            team_id=_optional_uuid(bearer.team_id),
            member_id=_optional_uuid(bearer.member_id),
            cost_center_id=_optional_uuid(bearer.cost_center_id),
            end_user=labels.end_user,
            agent=labels.agent,
            session=labels.session,
            route=self.route,
            feature=labels.feature,
            environment=labels.environment,
            request_class=labels.request_class,
            tags=msgspec.json.encode(dict(labels.tags)) if labels.tags else b"{}",
            policy_version=bearer.policy_version,
            requested_model=chat.model if chat else None,
            model=deployment.model if deployment and admission else None,
            served_model=deployment.upstream_model if deployment and admission else None,
            provider=deployment.provider if deployment else None,
            tier=deployment.tier if deployment else None,
            currency=self.currency,
            invoice_period=invoice_period(self.wall_ns),
            price_version=self.price_version,
            input_tokens=measured.input_tokens,
            output_tokens=measured.output_tokens,
            cached_tokens=measured.cached_tokens,
            cache_write_tokens=measured.cache_write_tokens,
            reasoning_tokens=measured.reasoning_tokens,
            cost_nanos=measured.cost_nanos,
            charge_nanos=settlement.spend_nanos if settlement else measured.cost_nanos,
            usage_source=measured.source,
            decision=self._decision(),
            code=problem.code if problem else None,
            http_status=problem.status if problem else self.upstream_status or 0,
            admitted_at_ns=self.wall_ns,
            finished_at_ns=now_ns,
            latency_ns=clock.mono_ns() - self.mono_ns,
            first_byte_at_ns=self.first_byte_at_ns,
            streamed=chat.streams if chat else False,
            assembled=self.is_assembled,
            upstream_status=self.upstream_status,
            client_disconnected=self.client_left,
            output_cap=self.injected_cap or (chat.output_tokens_cap if chat else None),
            engine_version=ENGINE_VERSION,
            error_code=problem.code if problem and not self.refusal else None,
            entry=_entry(settlement, now_ns),
            seq=settlement.seq if settlement else 0,
            crossings=_crossings(settlement, now_ns),
            **self._enforcement(),
        )

    def _enforcement(self) -> dict[str, Any]:
        """Tell what limits held, saw and did."""
        refusal, facts = self.refusal, self._holds()
        if refusal is not None:
            facts["limit_id"] = _optional_uuid(refusal.limit_id)
            facts["limit_scope"] = refusal.scope_kind
        if self.steps:
            facts["steps"] = msgspec.json.encode(self.steps)
        return facts | {
            "rate_limit_bucket": self._rate_bucket(),
            "over_limit_action": self._over_limit_action(),
            "waited_ns": self.waited_ns,
            "extensions": self.extensions,
            "cut_limit_id": _optional_uuid(self.cut_limit_id),
            "seen": self._seen(),
        }

    def _holds(self) -> dict[str, Any]:
        admission = self.admission
        if admission is None:
            return {}
        return {
            "held_nanos": admission.spend_nanos,
            "bound_nanos": admission.bound_nanos,
            "calibration": admission.calibration,
            "remaining_nanos": admission.remaining_spend_nanos,
            "pools": ",".join(each.replace("-", "") for each in admission.pool_ids),
        }

    def _decision(self) -> Decision:
        if self.admission is None:
            return "refused"
        return "allowed" if self.problem is None else "failed"

    def _seen(self) -> bytes:
        decision = self.admission or self.refusal
        return decision.seen_json() if decision else b"[]"

    def _over_limit_action(self) -> str | None:
        """Name in order what limits did to the request, whether or not it passed."""
        actions = [step.action for step in self.steps]
        if self.waited_ns and "queue" not in actions:
            actions.append("wait")
        if self.refusal is not None:
            actions.append("reject")
        if self.cut_limit_id is not None:
            actions.append("cut")
        return ",".join(dict.fromkeys(actions)) or None

    def _rate_bucket(self) -> str | None:
        admission = self.admission
        if admission is None or admission.requests_limit is None:
            return None
        return f"requests {admission.requests_remaining}/{admission.requests_limit}"


def _entry(settlement: Settlement | None, now_ns: int) -> LedgerEntry | None:
    if settlement is None:
        return None
    return LedgerEntry(settled_at_ns=now_ns, overrun_nanos=settlement.overrun_nanos)


def _crossings(settlement: Settlement | None, now_ns: int) -> tuple[Crossing, ...]:
    if settlement is None:
        return ()
    return tuple(
        Crossing(_uuid(limit_id), starts_at_ns, percent, settled, cap, now_ns if repeat else 0)
        for limit_id, starts_at_ns, percent, repeat, settled, cap in settlement.crossed
    )


@lru_cache(IDS_CACHED_MAX)
def _uuid(text: str) -> UUID:
    return UUID(text)


def _optional_uuid(text: str | None) -> UUID | None:
    return None if text is None else _uuid(text)
