"""What static policy holds for the requests of a key."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from core_rs import Engine, Principal

# One for each key and policy; a policy change makes the old ones useless, so they are let go.
CACHED_MAX: Final = 65_536


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """The rules of a key, its team and its organization, merged by the engine."""

    tokens_per_request_max: int | None
    retry_storm_max: int | None
    output_tokens_default: int | None
    hold_wait_s: int
    on_cut: Literal["partial", "error"]
    refusal_detail: Literal["own", "all", "none"]
    fixed: dict[str, str]
    required: list[str]


class Rulings:
    """Reads rulings once for each key and policy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._decoder = msgspec.json.Decoder(Ruling)
        self._known: dict[tuple[int, str, str | None], Ruling] = {}

    def of(self, principal: Principal) -> Ruling:
        """Tell what holds for a key; its team is named because a key may move.

        Raises `EngineError`.
        """
        name = (principal.key, principal.policy_version, principal.team_id)
        ruling = self._known.get(name)
        if ruling is None:
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            ruling = self._decoder.decode(self._engine.ruling_json(principal.key))
            self._known[name] = ruling
        return ruling
