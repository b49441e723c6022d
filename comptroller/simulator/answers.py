"""The JSON that the simulated provider writes, in the shapes of OpenAI's API."""

from dataclasses import dataclass
from typing import Any

import msgspec

from comptroller.simulator.generation import Choice

encode = msgspec.json.encode
_FINGERPRINT = "fp_simulator"
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> bytes:
    """Write an error in the shape that OpenAI's SDKs read."""
    default = "api_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    error = {
        "message": message,
        "type": _ERROR_TYPES.get(status, default),
        "param": param,
        "code": code,
    }
    return encode({"error": error})


def usage(prompt_tokens: int, completion_tokens: int, reasoning_tokens: int = 0) -> dict[str, Any]:
    """Write a usage object, with the details that newer SDKs know."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


@dataclass(frozen=True, slots=True)
class ChatShapes:
    """The answers to one chat request: the same id, model and time in every frame."""

    completion_id: str
    model: str
    created_s: int
    include_usage: bool

    def completion(self, choices: tuple[Choice, ...], shown_usage: dict[str, Any] | None) -> bytes:
        """Write the whole answer as one JSON document."""
        whole = self._head("chat.completion")
        whole["choices"] = [_message(index, choice) for index, choice in enumerate(choices)]
        if shown_usage is not None:
            whole["usage"] = shown_usage
        return encode(whole)

    def opening(self, index: int, choice: Choice) -> bytes:
        """Write the frame that opens a choice: the role, and the call if it is one."""
        delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if choice.tool is not None:
            called = {"name": choice.tool, "arguments": ""}
            call = {"index": 0, "id": choice.call_id, "type": "function", "function": called}
            delta = {"role": "assistant", "content": None, "tool_calls": [call]}
        return self._frame(index, delta)

    def around_piece(self, index: int, choice: Choice) -> tuple[bytes, bytes]:
        """Write what stands before and after the JSON string of each piece of a choice.

        Only the text differs from frame to frame, and building the rest again for each took four
        fifths of the time of a fast stream.
        """
        delta: dict[str, Any] = {"content": ""}
        if choice.tool is not None:
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}
        text = b'"content":""' if choice.tool is None else b'"arguments":""'
        before, _, after = self._frame(index, delta).partition(text)
        return before + text[:-2], after

    def closing(self, index: int, choice: Choice) -> bytes:
        """Write the frame that says why a choice ended."""
        return self._frame(index, {}, choice.finish_reason)

    def usage_frame(self, shown_usage: dict[str, Any]) -> bytes:
        """Write the extra frame that carries the usage and no choice."""
        frame = self._head("chat.completion.chunk")
        frame["choices"] = []
        frame["usage"] = shown_usage
        return sse(encode(frame))

    def _frame(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        frame = self._head("chat.completion.chunk")
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        frame["choices"] = [choice]
        if self.include_usage:
            frame["usage"] = None
        return sse(encode(frame))

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
        }


def sse(data: bytes) -> bytes:
    """Wrap one document as a server-sent event."""
    return b"data: " + data + b"\n\n"


DONE = sse(b"[DONE]")


def _message(index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool is not None:
        called = {"name": choice.tool, "arguments": choice.text}
        message["content"] = None
        message["tool_calls"] = [{"id": choice.call_id, "type": "function", "function": called}]
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
    }
