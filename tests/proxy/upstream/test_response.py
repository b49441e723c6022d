"""One response from bytes: every split, every framing attack, every bound."""

import pytest

from proxy.upstream.errors import UpstreamBadResponse
from proxy.upstream.response import INTERIM_ANSWERS_MAX, ResponseReader

HEAD = b"HTTP/1.1 200 OK\r\n"


def read(data, *, piece_bytes=None, bodiless=False, header_bytes_max=65536):
    reader = ResponseReader(bodiless=bodiless, header_bytes_max=header_bytes_max)
    step = piece_bytes or len(data)
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
    return reader


CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    + HEAD
    + b"Transfer-Encoding: chunked\r\nX-One:  a \r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: v\r\n\r\n"
)


@pytest.mark.parametrize("split", range(1, len(CHUNKED)))
def test_a_chunked_answer_is_the_same_split_at_any_byte(split):
    reader = ResponseReader(bodiless=False, header_bytes_max=65536)
    reader.feed(CHUNKED[:split])
    reader.feed(CHUNKED[split:])
    assert (reader.status, reader.complete, reader.keep_alive) == (200, True, True)
    assert reader.headers == [(b"transfer-encoding", b"chunked"), (b"x-one", b"a")]
    assert reader.take() == b"hello!"
    assert reader.excess is False


def test_an_answer_byte_by_byte_is_whole():
    reader = read(CHUNKED, piece_bytes=1)
    assert reader.complete
    assert reader.take() == b"hello!"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: -2\r\n",
        b"Content-Length: 2, 2\r\n",
        b"Content-Length: 0x2\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 9999999999999999999\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length : 2\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\0b\r\n",
        b"X: a\rb\r\n",
        b"X: a\n",
        b"X\r\n",
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(head):
    with pytest.raises(UpstreamBadResponse) as refused:
        read(HEAD + head + b"\r\nok")
    assert refused.value.sent is True
    assert refused.value.code == "upstream_bad_response"


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 000 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 600 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    ],
)
def test_what_is_not_http_1_is_refused(data):
    with pytest.raises(UpstreamBadResponse):
        read(data)


@pytest.mark.parametrize(
    "body",
    [b"0x2\r\nok\r\n", b"-2\r\nok\r\n", b"2\nok\n", b"2\r\nok0\r\n", b"2\r\nokay\r\n",
     b"fffffffffffffffff\r\nok", b"\r\nok", b" 2\r\nok\r\n", b"g\r\n"],
)  # fmt: skip
def test_a_malformed_chunk_is_refused(body):
    with pytest.raises(UpstreamBadResponse):
        read(HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_ends_with_its_head(status):
    reader = read(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n" % status)
    assert (reader.complete, reader.excess, reader.take()) == (True, False, b"")


def test_the_answer_to_head_ends_with_its_head():
    reader = read(HEAD + b"content-length: 2\r\n\r\n", bodiless=True)
    assert (reader.complete, reader.excess, reader.content_length) == (True, False, 2)


def test_a_body_on_the_answer_to_head_is_excess():
    reader = read(HEAD + b"content-length: 2\r\n\r\nok", bodiless=True)
    assert (reader.complete, reader.excess, reader.take()) == (True, True, b"")


@pytest.mark.parametrize("after", [b"x", HEAD, HEAD + b"content-length: 4\r\n\r\nevil"])
@pytest.mark.parametrize("is_split", [False, True])
def test_bytes_after_the_end_are_excess_and_never_body(after, is_split):
    whole = HEAD + b"content-length: 2\r\n\r\nok"
    reader = read(whole if is_split else whole + after)
    if is_split:
        assert reader.excess is False
        reader.feed(after)
    assert (reader.complete, reader.excess, reader.status) == (True, True, 200)
    assert reader.take() == b"ok"


def test_a_body_without_framing_ends_with_the_connection():
    reader = read(HEAD + b"\r\nok")
    assert reader.complete is False
    assert reader.end_of_input() is True
    assert (reader.complete, reader.keep_alive, reader.take()) == (True, False, b"ok")


@pytest.mark.parametrize(
    "data", [b"", HEAD, HEAD + b"content-length: 3\r\n\r\nok",
             HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n"],
)  # fmt: skip
def test_an_early_end_is_not_an_end(data):
    assert read(data or HEAD[:1]).end_of_input() is False


def test_interim_answers_are_skipped_up_to_the_bound():
    interim = b"HTTP/1.1 100 Continue\r\ncontent-length: 9\r\n\r\n"
    final = HEAD + b"content-length: 2\r\n\r\nok"
    assert read(interim * INTERIM_ANSWERS_MAX + final).take() == b"ok"
    with pytest.raises(UpstreamBadResponse):
        read(interim * (INTERIM_ANSWERS_MAX + 1) + final)


def test_headers_pass_at_the_bound_and_not_one_byte_above():
    size = len(b"content-length") + 1 + 4 + len(b"x") + 4
    head = HEAD + b"content-length: 0\r\nx: " + b"a" * 100 + b"\r\n\r\n"
    assert read(head, header_bytes_max=size + 100).complete
    with pytest.raises(UpstreamBadResponse):
        read(head, header_bytes_max=size + 99)


@pytest.mark.parametrize(
    "start",
    [
        HEAD + b"x: ",
        HEAD + b"x",
        b"HTTP/1.1 200 ",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2;x=",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: ",
    ],
)
def test_framing_that_never_ends_is_cut_at_the_bound(start):
    reader = ResponseReader(bodiless=False, header_bytes_max=4096)
    reader.feed(start)
    for _ in range((4096 - len(start)) // 512):
        reader.feed(b"a" * 512)
    with pytest.raises(UpstreamBadResponse):
        reader.feed(b"a" * 4096)


def test_many_trailers_are_cut_at_the_bound():
    reader = read(
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", header_bytes_max=4096
    )
    for _ in range(4096 // 6 - 1):
        reader.feed(b"a: b\r\n")
    with pytest.raises(UpstreamBadResponse):
        reader.feed(b"a: b\r\n" * 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"timeout=5", 5), (b"max=3, Timeout=7", 7), (b"timeout=x", None), (b"timeout=-1", None),
     (b"timeout=99999999999", None), (b"", None)],
)  # fmt: skip
def test_the_offered_keep_alive_is_read_or_ignored(value, expected):
    reader = read(HEAD + b"keep-alive: " + value + b"\r\ncontent-length: 0\r\n\r\n")
    assert (reader.complete, reader.keep_alive_s) == (True, expected)


@pytest.mark.parametrize(
    ("start", "keep_alive"),
    [(b"HTTP/1.1 200 OK\r\n", True), (b"HTTP/1.1 200 OK\r\nconnection: close\r\n", False),
     (b"HTTP/1.0 200 OK\r\n", False), (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n", True)],
)  # fmt: skip
def test_keep_alive_follows_version_and_connection_header(start, keep_alive):
    assert read(start + b"content-length: 0\r\n\r\n").keep_alive is keep_alive
