"""One HTTP/1.1 response, from bytes to status, headers and body pieces.

llhttp does the grammar with all its leniencies off; on top of it stand the bounds and the rules of
RFC 9112 § 6.3 that matter when the sender is not trusted: one framing per message, `chunked` as the
only transfer coding, HTTP/1.0 and 1.1 only, no switching of protocols.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.upstream.errors import UpstreamBadResponse, UpstreamError

INTERIM_ANSWERS_MAX = 8
"""1xx answers that are skipped before the final one."""

_LENGTH_DIGITS_MAX = 18
_STATUS_MIN = 100
_FINAL_STATUS_MIN = 200
_STATUS_MAX = 599
_SWITCHING_PROTOCOLS = 101
_WITHOUT_BODY = frozenset((204, 304))
_KEEP_ALIVE_DIGITS_MAX = 6
_VERSIONS = frozenset(("1.0", "1.1"))
_FRAMING_HEADERS = frozenset((b"content-length", b"transfer-encoding", b"keep-alive"))


class ResponseReader:
    """Read one response; made for each exchange, so nothing of an earlier answer can remain.

    `headers` have lower-case names in the order received. `keep_alive_s` is what the peer offered
    with `keep-alive: timeout=`, if anything. `excess` is true once bytes came after the end,
    `was_held_up` once reading was paused because the buffer was full.
    """

    __slots__ = (
        "_bodiless", "_bytes_max", "_chunked", "_fault", "_head_bytes", "_idle_bytes",
        "_interim_answers", "_parser", "_pieces", "buffered_bytes", "complete", "content_length",
        "error", "excess", "head_complete", "headers", "keep_alive", "keep_alive_s",
        "received_bytes", "status", "until_close", "was_held_up",
    )  # fmt: skip

    def __init__(self, *, bodiless: bool, header_bytes_max: int) -> None:
        """`bodiless`: the request was HEAD, so the answer ends with its head."""
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._bodiless = bodiless
        self._bytes_max = header_bytes_max
        self._chunked = False
        self._fault: UpstreamError | None = None
        self._head_bytes = 0
        self._idle_bytes = 0
        self._interim_answers = 0
        self._pieces: list[bytes] = []
        self.buffered_bytes = 0
        self.complete = False
        self.content_length: int | None = None
        self.error: UpstreamError | None = None
        self.excess = False
        self.head_complete = False
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = False
        self.keep_alive_s: int | None = None
        self.received_bytes = 0
        self.status = 0
        self.until_close = False
        self.was_held_up = False

    @property
    def is_started(self) -> bool:
        """Whether any byte of the answer has arrived."""
        return self.head_complete or self._idle_bytes > 0

    def has_head(self) -> bool:
        """Return whether the final head is known. Raises the error that ended the exchange."""
        if self.error is not None:
            raise self.error
        return self.head_complete

    def is_over(self) -> bool:
        """Return whether the answer is whole. Raises the error that ended the exchange."""
        if self.error is not None:
            raise self.error
        return self.complete

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Raises UpstreamBadResponse; nothing may be fed after that."""
        parser = self._parser
        if parser is None:
            self.excess = True
            return
        received_bytes = self.received_bytes
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self.complete:
                raise self._fault or _bad(f"not HTTP/1.1: {error}") from error
            self.excess = True
        if self.complete:
            # The parser holds our methods and we hold the parser: a cycle for every request.
            self._parser = None
        elif self.received_bytes == received_bytes:
            self._count_idle(len(data))
        else:
            self._idle_bytes = 0

    def end_of_input(self) -> bool:
        """Note that the peer closed; return whether that is a proper end of this answer."""
        if self.head_complete and self.until_close:
            self.complete = True
            self._parser = None
        return self.complete

    def take(self) -> bytes:
        """Return all body bytes buffered so far and forget them."""
        pieces = self._pieces
        self.buffered_bytes = 0
        if len(pieces) == 1:
            return pieces.pop()
        joined = b"".join(pieces)
        pieces.clear()
        return joined

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Refuse a second answer in the same bytes."""
        if self.complete:
            self.excess = True
            raise ValueError("bytes after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are counted and dropped."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._bytes_max:
            self._refuse("headers larger than the bound")
        if self.head_complete:
            return
        name = name.lower()
        if name in _FRAMING_HEADERS:
            self._note_framing(name, value)
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide how the body ends."""
        parser = self._parser
        if parser is None:
            return
        status = parser.get_status_code()
        if status < _FINAL_STATUS_MIN:
            self._skip_interim(status)
            return
        if status > _STATUS_MAX or parser.get_http_version() not in _VERSIONS:
            self._refuse("status or version out of range")
        self.status = status
        self.keep_alive = parser.should_keep_alive()
        self.head_complete = True
        self._head_bytes = 0
        if self._bodiless:
            self.complete = True
        elif self.content_length is None and not self._chunked and status not in _WITHOUT_BODY:
            self.until_close = True

    def on_body(self, body: bytes) -> None:
        """Buffer a piece of the body."""
        if self.complete:
            self.excess = True
            return
        size = len(body)
        self._pieces.append(body)
        self.buffered_bytes += size
        self.received_bytes += size

    def on_message_complete(self) -> None:
        """Note the end; an interim answer's end is none."""
        if self.head_complete:
            self.complete = True

    def _note_framing(self, name: bytes, value: bytes) -> None:
        value = value.strip(b" \t").lower()
        if name == b"keep-alive":
            self.keep_alive_s = _keep_alive_s(value)
        elif self._chunked or self.content_length is not None:
            self._refuse("more than one framing header")
        elif name == b"transfer-encoding":
            if value != b"chunked":
                self._refuse("a transfer coding other than chunked")
            self._chunked = True
        elif not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX:
            self._refuse("content-length is not a length")
        else:
            self.content_length = int(value)

    def _skip_interim(self, status: int) -> None:
        self._interim_answers += 1
        if (
            status == _SWITCHING_PROTOCOLS
            or status < _STATUS_MIN
            or self._interim_answers > INTERIM_ANSWERS_MAX
        ):
            self._refuse("interim answers that cannot be skipped")
        self.headers.clear()
        self._chunked = False
        self.content_length = None

    def _count_idle(self, size: int) -> None:
        # An unfinished header, trailer or chunk extension is buffered below us, so that bytes
        # which never become body or head must be bounded here.
        self._idle_bytes += size
        if self._idle_bytes > self._bytes_max:
            raise _bad("framing larger than the bound")

    def _refuse(self, detail: str) -> None:
        self._fault = _bad(detail)
        raise self._fault


def _bad(detail: str) -> UpstreamBadResponse:
    return UpstreamBadResponse(detail, sent=True)


def _keep_alive_s(value: bytes) -> int | None:
    for part in value.split(b","):
        name, _, seconds = part.strip().partition(b"=")
        if name == b"timeout" and seconds.isdigit() and len(seconds) <= _KEEP_ALIVE_DIGITS_MAX:
            return int(seconds)
    return None
