"""An organization's policy as the real engine decides by it, without a proxy in front."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from controlplane.clock import ManualClock
from controlplane.db import Database
from controlplane.ledger.queries import counter_sums
from controlplane.policies.snapshot import organization_snapshot
from controlplane.settings import ControlSettings
from core_rs import Admission, Ask, Diversion, Engine, Principal, Refusal, Settlement, Waiting

DIGEST = hashlib.sha256(b"secret").digest()
Decided = Admission | Refusal | Waiting | Diversion


class Enforced:
    """The engine with one key of an organization; `load` puts the policy of this moment in force."""

    def __init__(
        self,
        database: Database,
        organization_id: UUID,
        settings: ControlSettings,
        clock: ManualClock,
    ) -> None:
        self.engine = Engine()
        self._database = database
        self._organization_id = organization_id
        self._settings = settings
        self._clock = clock
        self._number = 0

    async def load(self) -> None:
        """Read the policy, seed counters that are new from the ledger, and put it in force."""
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        async with self._database.read() as session:
            raw = await organization_snapshot(session, self._organization_id, self._settings)
            missing = json.loads(self.engine.missing_counters(raw, wall_ns, mono_ns))
            seeds = await counter_sums(session, self._organization_id, missing)
        self.engine.load_organization(raw, json.dumps(seeds).encode(), wall_ns, mono_ns)
        secret = {"digest": DIGEST.hex(), "expires_at_ns": None}
        key = {
            "id": str(UUID(int=1)),
            "organization_id": str(self._organization_id),
            "team_id": None,
            "member_id": None,
            "cost_center_id": None,
            "pools": [],
            "state": "active",
            "expires_at_ns": None,
            "secrets": [secret],
        }
        self.engine.load_keys(json.dumps([key]).encode())

    def ask(self, cost_nanos: int = 1, **wanted: Any) -> Decided:
        """Ask for a request of this cost, which is also its bound."""
        self._number += 1
        asked = Ask(
            **{
                "model": "big",
                "provider": "p",
                "input_tokens": 1,
                "output_tokens_max": 0,
                "bound_nanos": cost_nanos,
                "input_nanos": cost_nanos,
                "output_picos": 0,
                **wanted,
            }
        )
        name = self._number.to_bytes(16, "big")
        return self.engine.admit(
            self._key.key, name, asked, self._clock.wall_ns(), self._clock.mono_ns()
        )

    def spend(self, cost_nanos: int, **wanted: Any) -> Settlement:
        """Let a request pass, and end at this cost."""
        decided = self.ask(cost_nanos, **wanted)
        assert isinstance(decided, Admission), decided
        return self.settle(cost_nanos)

    def settle(self, cost_nanos: int) -> Settlement:
        """End the request that was admitted last."""
        name = self._number.to_bytes(16, "big")
        return self.engine.settle(
            self._key.organization,
            name,
            cost_nanos,
            1,
            None,
            self._clock.wall_ns(),
            self._clock.mono_ns(),
        )

    @property
    def _key(self) -> Principal:
        found = self.engine.authenticate(DIGEST, self._clock.wall_ns())
        assert found is not None
        return found
