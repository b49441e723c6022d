"""Where requests of one pool go, and the bytes of a request head.

Grammar: RFC 9112 § 3 and § 5. The caller's header list is an allow-list already; what is refused
here would let a header value start a second request, so it is a programming error, not bad input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

Headers = Sequence[tuple[bytes, bytes]]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"/[!-~]*")
# The pool frames the message and owns the connection; a second opinion is request smuggling.
_OWN_HEADERS = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"proxy-connection",
    )
)
_NAMES_CACHED_MAX = 1024
_BODY_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream, and the path its base URL starts with."""

    host: str
    port: int
    tls: bool
    host_header: bytes
    prefix: bytes

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """Read `http(s)://host[:port][/prefix]`.

        Raises ValueError for any other scheme, for user info, query or fragment, and for a host
        that no resolver could be asked for.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an upstream's base URL starts with http:// or https:// and a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an upstream's base URL has no user info, query or fragment")
        prefix = parts.path.rstrip("/").encode("ascii")
        if not parts.netloc.isascii() or (prefix and not _TARGET.fullmatch(prefix)):
            raise ValueError("an upstream's base URL is written in ASCII without spaces")
        # Resolvers encode names so, and raise something else than a failed look-up if they cannot.
        parts.hostname.encode("idna")
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname.rstrip("."), port, tls, parts.netloc.encode("ascii"), prefix)

    def request_head(self, method: bytes, path: bytes, headers: Headers, body_bytes: int) -> bytes:
        """Return the request line and headers of one HTTP/1.1 request.

        `path` comes after the base URL's own path. Raises ValueError if a part could be read as
        more than it is, or if a header is given that the pool writes itself.
        """
        lines = [_request_line(method, self.prefix, path), self.host_header]
        for name, value in headers:
            lines.append(_field_start(name))
            lines.append(value)
        if body_bytes or method in _BODY_METHODS:
            lines.append(b"\r\ncontent-length: %d" % body_bytes)
        lines.append(b"\r\n\r\n")
        head = b"".join(lines)
        _check_lines(head, 3 + len(headers) + (body_bytes > 0 or method in _BODY_METHODS))
        return head


@lru_cache(maxsize=_NAMES_CACHED_MAX)
def _request_line(method: bytes, prefix: bytes, path: bytes) -> bytes:
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(path):
        raise ValueError("method or path is not a valid request line")
    return b"".join((method, b" ", prefix, path, b" HTTP/1.1\r\nhost: "))


@lru_cache(maxsize=_NAMES_CACHED_MAX)
def _field_start(name: bytes) -> bytes:
    if not _TOKEN.fullmatch(name) or name.lower() in _OWN_HEADERS:
        raise ValueError(f"header {name!r} may not be sent by the caller")
    return b"\r\n" + name + b": "


def _check_lines(head: bytes, lines: int) -> None:
    if head.count(b"\r") != lines or head.count(b"\n") != lines or b"\0" in head:
        raise ValueError("a header value contains a line break or NUL")
