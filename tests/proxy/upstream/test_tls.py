"""TLS: names are checked, trust is required, HTTP/1.1 alone is offered."""

import ssl

import pytest
import trustme

from proxy.upstream import UpstreamUnreachable, system_ssl_context


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority):
    context = system_ssl_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def tls_server(authority, serve):
    """Start a TLS server whose certificate names `host`."""

    async def start(handle, host="upstream.example"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host).configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return await serve(handle, ssl=context)

    return start


async def resolve(host, port):
    return ["127.0.0.1"]


async def test_an_answer_over_tls_and_its_connection_reused(
    tls_server, make_pool, send, answer_all, trusting
):
    peer = await tls_server(answer_all())
    pool = make_pool(f"https://upstream.example:{peer.port}", resolve=resolve, ssl_context=trusting)
    for _ in range(3):
        async with await send(pool) as answer:
            assert await answer.read(2) == b"ok"
    assert (len(peer.accepted), pool.connections_idle) == (1, 1)
    server_side = peer.accepted[0].writer.get_extra_info("ssl_object")
    assert server_side.selected_alpn_protocol() == "http/1.1"


async def test_a_large_body_both_ways_over_tls(tls_server, make_pool, send, trusting):
    body = bytes(range(256)) * 8192

    async def echo(connection):
        request = await connection.request()
        got = request.partition(b"\r\n\r\n")[2]
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(got) + got)

    peer = await tls_server(echo)
    pool = make_pool(f"https://upstream.example:{peer.port}", resolve=resolve, ssl_context=trusting)
    async with await send(pool, body) as answer:
        assert await answer.read(len(body)) == body


@pytest.mark.parametrize("is_name_wrong", [True, False])
async def test_a_certificate_for_another_name_or_from_a_stranger_gets_no_request(
    tls_server, make_pool, send, answer_all, trusting, is_name_wrong
):
    peer = await tls_server(
        answer_all(), host="other.example" if is_name_wrong else "upstream.example"
    )
    pool = make_pool(
        f"https://upstream.example:{peer.port}",
        resolve=resolve,
        ssl_context=trusting if is_name_wrong else None,
    )
    sent = []
    with pytest.raises(UpstreamUnreachable) as failed:
        await send(pool, on_sent=lambda: sent.append(1))
    assert (failed.value.sent, sent, pool.connections_open) == (False, [], 0)
    assert "certificate" in failed.value.detail.lower()


async def test_a_server_that_does_not_speak_tls_is_unreachable(serve, make_pool, send, trusting):
    async def talk(connection):
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    peer = await serve(talk)
    pool = make_pool(f"https://upstream.example:{peer.port}", resolve=resolve, ssl_context=trusting)
    with pytest.raises(UpstreamUnreachable):
        await send(pool)
    assert pool.connections_open == 0


async def test_a_close_while_idle_is_seen_over_tls(
    until, tls_server, make_pool, send, answer_all, trusting
):
    peer = await tls_server(answer_all())
    pool = make_pool(f"https://upstream.example:{peer.port}", resolve=resolve, ssl_context=trusting)
    await (await send(pool)).aclose()
    peer.accepted[0].writer.close()
    await until(lambda: pool.connections_open == 0)
    async with await send(pool) as answer:
        assert answer.status == 200
    assert len(peer.accepted) == 2
