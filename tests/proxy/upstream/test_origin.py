"""Base URLs and request heads."""

import pytest

from proxy.upstream.origin import Origin


def test_a_base_url_gives_host_port_and_prefix():
    origin = Origin.parse("https://API.example.com/v1/")
    assert (origin.host, origin.port, origin.tls) == ("api.example.com", 443, True)
    assert (origin.host_header, origin.prefix) == (b"API.example.com", b"/v1")
    assert Origin.parse("http://[::1]:8080").host == "::1"
    assert Origin.parse("http://h:8080").host_header == b"h:8080"


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "h", "https://", "https://u:p@h", "https://h?x=1", "https://h#x", "https://h/a b",
     "http://h:99999", "http://b\u00fccher.example", "file:///etc/passwd", "http://a..b",
     f"http://{'a' * 64}.example"],
)  # fmt: skip
def test_another_kind_of_url_is_refused(url):
    with pytest.raises(ValueError, match=r".+"):
        Origin.parse(url)


def test_a_head_is_exactly_these_bytes():
    origin = Origin.parse("http://h:81/v1")
    head = origin.request_head(b"POST", b"/chat?x=1", [(b"accept", b"*/*"), (b"x", b"")], 3)
    assert head == (
        b"POST /v1/chat?x=1 HTTP/1.1\r\nhost: h:81\r\naccept: */*\r\nx: \r\n"
        b"content-length: 3\r\n\r\n"
    )


def test_only_a_request_that_may_have_a_body_declares_its_length():
    origin = Origin.parse("http://h")
    assert origin.request_head(b"GET", b"/", [], 0) == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    assert b"content-length: 0\r\n" in origin.request_head(b"POST", b"/", [], 0)


@pytest.mark.parametrize(
    "header",
    [(b"x", b"a\r\ny: b"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x", b"a\0b"), (b"x y", b"a"),
     (b"x:", b"a"), (b"", b"a"), (b"x\r\ny", b"a"), (b"Host", b"evil"), (b"content-length", b"0"),
     (b"Transfer-Encoding", b"chunked"), (b"transfer-encoding ", b"chunked"),
     (b"connection", b"close"), (b"expect", b"100-continue")],
)  # fmt: skip
def test_a_header_that_changes_the_framing_is_refused(header):
    with pytest.raises(ValueError, match=r".+"):
        Origin.parse("http://h").request_head(b"POST", b"/", [header], 0)


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"GET", b"/a b"), (b"GET", b"/a\r\nx: y"), (b"GET", b"http://evil/"), (b"GET", b""),
     (b"GET /x", b"/"), (b"", b"/"), (b"GET", b"/\xc3\xbc")],
)  # fmt: skip
def test_a_request_line_with_more_than_a_path_is_refused(method, path):
    with pytest.raises(ValueError, match=r".+"):
        Origin.parse("http://h").request_head(method, path, [], 0)
