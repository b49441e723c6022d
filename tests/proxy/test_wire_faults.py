"""Requests that break HTTP: told apart from ours and never a status 500, never a cost."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from itertools import count

import pytest

from comptroller.simulator.running import RunningSimulator
from tests.proxy.raw_http import (
    BODY,
    CHUNKED,
    JSON,
    LENGTH,
    PATH,
    Answer,
    ask,
    chunk,
    connected,
    head,
    read_answer,
)
from tests.proxy.untouched import assert_untouched, wait_until
from tests.stack import Stack, running_stack

BODY_BYTES_MAX = 4096
LAST_CHUNK = b"0\r\n\r\n"
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, shared_provider: RunningSimulator
) -> Iterator[Stack]:
    """An installation with small bounds."""
    with running_stack(
        tmp_path_factory.mktemp("impatient"),
        shared_provider,
        organization=False,
        body_idle_timeout_s=1,
        body_timeout_s=2,
        body_bytes_max=BODY_BYTES_MAX,
    ) as running:
        yield running


@pytest.fixture
def strict(impatient: Stack, provider: RunningSimulator) -> Stack:
    """A new organization in it."""
    return impatient.tenant(f"strict-{next(_NUMBERS)}")


def _assert_problem(answer: Answer, status: int, code: str, *, retry: str = "false") -> None:
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == retry
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([LENGTH, b"content-length: 5"], 400),
        ([b"content-length: 5, 5"], 400),
        ([b"content-length: -5"], 400),
        ([b"content-length: +5"], 400),
        ([b"content-length: " + b"9" * 5000], 400),
        ([b"transfer-encoding: gzip"], 400),
        ([b"transfer-encoding: chunked, gzip"], 400),
        ([b"transfer-encoding: xchunked"], 400),
        ([b"transfer-encoding: identity", LENGTH], 400),
        ([b"x-note: a\x01b", LENGTH], 400),
        ([b"x-note: a\x00b", LENGTH], 400),
        ([b"x-note: a\x7fb", LENGTH], 400),
        ([b"x-note: a\rb", LENGTH], 400),
        ([b"x-note: a\r\n folded", LENGTH], 400),
        ([b"x-note : a", LENGTH], 400),
        ([b"x\x01note: a", LENGTH], 400),
        ([b"x-%d: a" % number for number in range(300)], 431),
        ([b"x-note: " + b"a" * 300_000], 431),
    ],
)
def test_what_is_not_http_is_refused_by_the_server_without_a_body(
    strict: Stack, provider: RunningSimulator, lines: list[bytes], status: int
) -> None:
    answer = ask(strict, head(strict.key()[1], JSON, *lines) + BODY)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.headers["connection"] == "close"
    assert_untouched(strict, provider)


def test_an_address_that_is_too_long_is_refused_by_the_server(
    strict: Stack, provider: RunningSimulator
) -> None:
    answer = ask(strict, head(strict.key()[1], method=b"GET", path=b"/v1/" + b"a" * 65_536))
    assert (answer.status, answer.body) == (414, b"")
    assert_untouched(strict, provider)


@pytest.mark.parametrize(
    "lines",
    [
        [b"transfer-encoding: gzip, chunked"],
        [b"transfer-encoding: gzip", CHUNKED],
        [CHUNKED, CHUNKED],
        [b"transfer-encoding: chunked, chunked"],
        [b"content-encoding: gzip", b"content-encoding: identity", CHUNKED],
        [b"content-type: text/plain", CHUNKED],
        [b"x-comptroller-feature: a", b"x-comptroller-feature: b", CHUNKED],
        [b"x-note: " + b"a" * 66_000, CHUNKED],
        [b"x-%d: " % number + b"a" * 1000 for number in range(66)] + [CHUNKED],
    ],
)
def test_a_head_with_two_readings_is_refused_before_its_key_is_looked_at(
    strict: Stack, provider: RunningSimulator, lines: list[bytes]
) -> None:
    for secret in (strict.key()[1], "ck_live_unknown"):
        answer = ask(strict, head(secret, JSON, *lines) + chunk(BODY) + LAST_CHUNK)
        _assert_problem(answer, 400, "invalid_header")
    assert_untouched(strict, provider)


def test_a_length_beside_chunks_does_not_hide_a_second_request(
    strict: Stack, provider: RunningSimulator
) -> None:
    """The server takes the chunks, drops the length and closes: RFC 9112, section 6.1."""
    hidden = head(strict.key()[1], JSON, LENGTH) + BODY
    for lines in ([LENGTH, CHUNKED], [CHUNKED, b"content-length: 5"]):
        before = provider.bill()["requests"]
        request = head(strict.key()[1], JSON, *lines) + chunk(BODY) + LAST_CHUNK + hidden
        with connected(strict) as connection:
            connection.sendall(request)
            assert read_answer(connection).status == 200
            assert connection.recv(1) == b""
        assert provider.bill()["requests"] == before + 1


def test_a_body_of_a_length_written_with_many_zeros_is_read(strict: Stack) -> None:
    length = b"content-length: " + b"0" * 5000 + b"%d" % len(BODY)
    assert ask(strict, head(strict.key()[1], JSON, length) + BODY).status == 200


def test_a_declared_size_is_refused_before_the_body_and_the_key(
    strict: Stack, provider: RunningSimulator
) -> None:
    for size in (b"%d" % (BODY_BYTES_MAX + 1), b"0" * 5000 + b"9" * 19):
        for secret in (strict.key()[1], None):
            answer = ask(strict, head(secret, JSON, b"content-length: " + size))
            _assert_problem(answer, 413, "request_too_large")
    assert_untouched(strict, provider)


def test_bodies_are_taken_up_to_the_bound_and_refused_above_it(
    strict: Stack, provider: RunningSimulator
) -> None:
    secret = strict.key()[1]
    whole = BODY.ljust(BODY_BYTES_MAX)
    answer = ask(strict, head(secret, JSON, CHUNKED) + chunk(whole + b" ") + LAST_CHUNK)
    _assert_problem(answer, 413, "request_too_large")
    assert_untouched(strict, provider, ["request_too_large"])
    assert ask(strict, head(secret, JSON, CHUNKED) + chunk(whole) + LAST_CHUNK).status == 200
    length = b"content-length: %d" % BODY_BYTES_MAX
    assert ask(strict, head(secret, JSON, length) + whole).status == 200


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n" + BODY,
        b"-5\r\n" + BODY,
        b"f" * 17 + b"\r\n" + BODY,
        b"%x\r\n%sXX" % (len(BODY), BODY) + LAST_CHUNK,
        chunk(BODY) + b"0\r\nnot a trailer\r\n\r\n",
    ],
)
def test_malformed_chunks_get_400(strict: Stack, provider: RunningSimulator, chunks: bytes) -> None:
    answer = ask(strict, head(strict.key()[1], JSON, CHUNKED) + chunks)
    _assert_problem(answer, 400, "malformed_json")
    assert_untouched(strict, provider, ["malformed_json"])


@pytest.mark.parametrize(
    ("lines", "begun"),
    [
        ([LENGTH], b""),
        ([LENGTH], BODY[:-1]),
        ([CHUNKED], chunk(BODY)),
        ([CHUNKED], chunk(BODY)[:-9]),
        ([CHUNKED], chunk(BODY) + b"0\r\n"),
    ],
)
def test_a_body_that_ends_early_gets_400_on_a_connection_that_still_reads(
    strict: Stack, provider: RunningSimulator, lines: list[bytes], begun: bytes
) -> None:
    with connected(strict) as connection:
        connection.sendall(head(strict.key()[1], JSON, *lines) + begun)
        connection.shutdown(socket.SHUT_WR)
        answer = read_answer(connection)
        assert connection.recv(1) == b""
    _assert_problem(answer, 400, "malformed_json")
    assert_untouched(strict, provider, ["malformed_json"])


def test_a_body_that_stalls_gets_408(strict: Stack, provider: RunningSimulator) -> None:
    requests = (
        head(strict.key()[1], JSON, LENGTH),
        head(strict.key()[1], JSON, LENGTH) + BODY[:5],
        head(strict.key()[1], JSON, CHUNKED) + chunk(BODY),
    )
    for request in requests:
        answer = ask(strict, request)
        _assert_problem(answer, 408, "request_timeout", retry="true")
        assert answer.headers["connection"] == "close"
    assert_untouched(strict, provider, ["request_timeout"] * 3)


def test_a_body_that_trickles_gets_408_at_its_whole_time(
    strict: Stack, provider: RunningSimulator
) -> None:
    with connected(strict) as connection:
        connection.sendall(head(strict.key()[1], JSON, b"content-length: 4096"))
        sent = _trickle(connection)
        answer = read_answer(connection)
    _assert_problem(answer, 408, "request_timeout", retry="true")
    # It was never idle for a whole second, so it was the whole time that ran out.
    assert 4 < sent < 40
    assert_untouched(strict, provider, ["request_timeout"])


def _trickle(connection: socket.socket) -> int:
    """Send a byte every 200 ms until there is an answer; gives how many."""
    connection.settimeout(0.2)
    sent = 0
    while True:
        connection.sendall(b" ")
        sent += 1
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        return sent


def test_a_connection_that_breaks_off_in_the_body_leaves_one_record(
    strict: Stack, provider: RunningSimulator
) -> None:
    with connected(strict) as connection:
        reset = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.sendall(head(strict.key()[1], JSON, LENGTH) + BODY[:5])
        # The server takes up connections in order: it has this one when it answers the next.
        assert ask(strict, head(None, JSON, LENGTH) + BODY).status == 401
    wait_until(lambda: len(strict.records()) == 1)
    assert_untouched(strict, provider, ["malformed_json"])


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([], "unsupported_media_type"),
        ([b"content-type: text/plain"], "unsupported_media_type"),
        ([b"content-type: application/jsonp"], "unsupported_media_type"),
        ([b"content-type: multipart/form-data; boundary=x"], "unsupported_media_type"),
        ([JSON, b"content-encoding: gzip"], "unsupported_content_encoding"),
        ([JSON, b"content-encoding: gzip, identity"], "unsupported_content_encoding"),
        ([JSON, b"content-encoding: "], "unsupported_content_encoding"),
    ],
)
def test_bodies_of_another_kind_get_415(
    strict: Stack, provider: RunningSimulator, lines: list[bytes], code: str
) -> None:
    answer = ask(strict, head(strict.key()[1], *lines, LENGTH) + BODY)
    _assert_problem(answer, 415, code)
    assert_untouched(strict, provider, [code])


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-type: application/json; charset=utf-8"],
        [b"Content-Type: Application/JSON"],
        [JSON, b"content-encoding: Identity"],
        [JSON, JSON],
        [JSON, b"expect: 100-continue"],
        [JSON, LENGTH],
    ],
)
def test_heads_that_say_the_same_in_other_words_are_served(
    strict: Stack, lines: list[bytes]
) -> None:
    with connected(strict) as connection:
        connection.sendall(head(strict.key()[1], LENGTH, *lines) + BODY)
        answer = read_answer(connection)
    assert answer.status == 200


@pytest.mark.parametrize(
    "line",
    [
        b"connection: authorization, close",
        b"connection: close, x-api-key, content-type",
        b"connection: content-length",
        b"proxy-authorization: Basic Zm9v",
        b"te: trailers",
        b"upgrade: h2c",
    ],
)
def test_no_header_of_the_caller_reaches_the_provider(
    strict: Stack, provider: RunningSimulator, line: bytes
) -> None:
    seen_before = len(provider.requests())
    secret = strict.key()[1]
    answer = ask(
        strict, head(secret, JSON, LENGTH, line, b"cookie: a=b", b"x-forwarded-for: 9.9.9.9") + BODY
    )
    assert answer.status == 200
    [seen] = provider.requests()[seen_before:]
    assert {name.lower() for name, _ in seen["headers"]} == {
        "host", "content-length", "content-type", "accept-encoding", "user-agent",
        "x-client-request-id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        (b"GET", PATH, "POST"),
        (b"PUT", PATH, "POST"),
        (b"OPTIONS", PATH, "POST"),
        (b"TRACE", PATH, "POST"),
        (b"FOO", b"/v1/models", "GET"),
        (b"POST", b"/v1/models", "GET"),
        (b"DELETE", b"/v1/models", "GET"),
    ],
)
def test_methods_that_do_not_fit_get_405_and_the_one_that_does(
    strict: Stack, provider: RunningSimulator, method: bytes, path: bytes, allow: str
) -> None:
    answer = ask(strict, head(strict.key()[1], method=method, path=path))
    _assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow
    assert_untouched(strict, provider)


def test_a_head_request_gets_the_head_of_the_405(strict: Stack) -> None:
    answer = ask(strict, head(None, method=b"HEAD", path=b"/v1/models"), method="HEAD")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "GET", b"")
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "path",
    [
        b"/v1", b"/v1/", b"/v1/embeddings", b"/v1/chat", b"/v1/chat/completions/x",
        b"/v1/Models", b"/v1/%ff%00", b"/v1/%ed%a0%80", b"/v1/..%2f", b"/v1/" + b"a" * 10_000,
    ],
)  # fmt: skip
def test_routes_that_do_not_exist_get_404(
    strict: Stack, provider: RunningSimulator, path: bytes
) -> None:
    for method in (b"GET", b"POST"):
        answer = ask(strict, head(strict.key()[1], method=method, path=path))
        _assert_problem(answer, 404, "not_found")
    assert_untouched(strict, provider)
