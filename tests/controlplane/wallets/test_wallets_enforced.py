"""Wallets as the engine enforces them: nothing passes that the balance cannot pay."""

from __future__ import annotations

import pytest

from controlplane.wallets.service import adjust, open_wallet, top_up
from core_rs import Admission, Refusal
from tests.controlplane.enforced import Enforced


@pytest.fixture
def enforced(database, org, installation, clock) -> Enforced:
    return Enforced(database, org.id, installation.settings, clock)


async def test_only_what_was_credited_can_be_spent(work_as, operator, org, enforced, clock) -> None:
    await enforced.load()
    enforced.spend(1_000)
    clock.advance_ns(1_000)
    async with work_as(operator) as work:
        await open_wallet(work, org.id, idempotency_key="1")
    await enforced.load()
    refusal = enforced.ask(1)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (402, "prepaid_balance_required")
    assert refusal.waits_for == "top_up"
    async with work_as(operator) as work:
        await top_up(work, org.id, amount_nanos=100, reference="R", idempotency_key="2")
    await enforced.load()
    # What was spent before the wallet was opened is not taken from it.
    enforced.spend(60)
    refused = enforced.ask(41)
    assert isinstance(refused, Refusal)
    assert (refused.cap, refused.used, refused.held, refused.requested) == (100, 60, 0, 41)
    assert isinstance(enforced.ask(40), Admission)
    enforced.settle(30)
    async with work_as(operator) as work:
        await adjust(work, org.id, amount_nanos=-10, note="n", idempotency_key="3", in_use_nanos=90)
    await enforced.load()
    refused = enforced.ask(1)
    assert isinstance(refused, Refusal)
    assert (refused.cap, refused.used) == (90, 90)
