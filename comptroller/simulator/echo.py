"""`bench-echo`: one fixed kilobyte of JSON, answered with as little work as there is.

It is the upstream of benchmarks, so what it costs must not hide what is measured. Documents are
written without a task, a plan or a log line; they are on the bill under the model's name, not by
request id. Streams of this model are ordinary ones.
"""

import msgspec

from comptroller.simulator.answers import ChatShapes, usage
from comptroller.simulator.billing import Bill
from comptroller.simulator.generation import Choice, Piece
from comptroller.simulator.models import ECHO_MODEL, Model

BODY_BYTES = 1024
# The least a prompt can have, so that no bound of a caller is below it.
PROMPT_TOKENS = 7
_QUOTED = f'"{ECHO_MODEL}"'.encode()


class _Head(msgspec.Struct):
    model: str
    stream: bool | None = None


_read_head = msgspec.json.Decoder(_Head).decode


class Echo:
    """The fixed answer and its fixed price."""

    def __init__(self, model: Model, bill: Bill, words: tuple[str, ...], created_s: int) -> None:
        self._model = model
        self._bill = bill
        body, self._tokens = _fixed_body(words, created_s)
        head = (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            f"x-request-id: chatcmpl-{ECHO_MODEL}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._answer = head.encode() + body

    def answer(self, body: bytes) -> bytes | None:
        """Bill and give the whole HTTP answer; None where the request is not for this."""
        if _QUOTED not in body:
            return None
        try:
            head = _read_head(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if head.model != ECHO_MODEL or head.stream:
            return None
        line = self._bill.open(self._model, None, PROMPT_TOKENS)
        self._bill.generated(line, self._tokens)
        self._bill.close()
        return self._answer


def _fixed_body(words: tuple[str, ...], created_s: int) -> tuple[bytes, int]:
    """Fill a completion with words up to the size, the rest with white space; count the words."""
    shapes = ChatShapes(f"chatcmpl-{ECHO_MODEL}", ECHO_MODEL, created_s, include_usage=False)
    pieces: tuple[Piece, ...] = ()
    body = b""
    for word in words:
        longer = (*pieces, Piece(word))
        fuller = shapes.completion((Choice(longer, "stop"),), usage(PROMPT_TOKENS, len(longer)))
        if len(fuller) > BODY_BYTES:
            break
        pieces, body = longer, fuller
    return body.ljust(BODY_BYTES), len(pieces)
