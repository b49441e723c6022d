"""A request that can be priced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.routing import Deployment
from proxy.rulings import Ruling
from proxy.wire.openai_chat import ChatRequest

# Tokens that stay free ahead of a stream. At 500 tokens a second it is an eighth of a second, in
# which a stream is extended, or closed and heard to be closed.
STEP_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request with who serves it, at what price and under which rules.

    `output_tokens` bounds each of its choices; `injected_cap` is the cap that a rule gives it.
    """

    chat: ChatRequest
    deployment: Deployment
    price: int
    output_tokens: int
    ruling: Ruling
    injected_cap: int | None = None

    @property
    def output_tokens_max(self) -> int:
        """The most output tokens, of all choices together."""
        return self.output_tokens * self.chat.choices

    @property
    def step_tokens(self) -> int:
        """Tokens that stay free ahead of its stream: at least what comes after an abort."""
        return max(STEP_TOKENS, self.deployment.abort_tail_tokens)

    @property
    def streams(self) -> str:
        """How the answer comes: as a stream that its hold can follow, or in one piece."""
        if not self.deployment.follows_streams:
            return "plain"
        return "stream" if self.chat.streams else "assembled"
