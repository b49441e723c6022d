"""Which connection a request gets, and what becomes of it."""

import asyncio
import os
import socket
from contextlib import suppress
from functools import partial

import pytest

from proxy.upstream import (
    UpstreamAddressRefused,
    UpstreamConnectTimeout,
    UpstreamPoolExhausted,
    UpstreamReset,
    UpstreamSettings,
    UpstreamUnreachable,
)

HANGING = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"


async def turns(count=5):
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def has_idle(pool, count):
    return pool.connections_idle == count


async def test_requests_in_a_row_use_one_connection(serve, make_pool, send, answer_all):
    peer = await serve(answer_all())
    pool = make_pool(peer)
    for _ in range(5):
        async with await send(pool) as answer:
            assert (answer.status, await answer.read(10)) == (200, b"ok")
    assert (len(peer.accepted), pool.connections_open, pool.connections_idle) == (1, 1, 1)


async def test_what_is_sent_is_one_exact_request(serve, make_pool):
    peer = await serve()
    pool = make_pool(f"{peer.url}/base")
    task = asyncio.create_task(
        pool.send(b"POST", b"/x?y=1", [(b"a", b"b")], b'{"k":1}', head_timeout_s=5)
    )
    connection = await peer.next()
    assert await connection.request() == (
        b"POST /base/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\na: b\r\ncontent-length: 7\r\n\r\n"
        b'{"k":1}' % peer.port
    )
    await connection.send(b"HTTP/1.1 302 Found\r\nlocation: /evil\r\nset-cookie: a=b\r\n"
                          b"content-length: 0\r\n\r\n")  # fmt: skip
    async with await task as answer:
        assert (answer.status, await answer.read(0)) == (302, b"")
    second = asyncio.create_task(pool.send(b"GET", b"/", [], b"", head_timeout_s=5))
    assert (
        await connection.request()
        == b"GET /base/ HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % peer.port
    )
    second.cancel()
    await asyncio.wait((second,))
    assert len(peer.accepted) == 1


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
async def test_a_body_of_any_size_arrives_whole(serve, make_pool, send, size, ok):
    peer = await serve()
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    task = asyncio.create_task(send(make_pool(peer), body))
    connection = await peer.next()
    request = await connection.request()
    assert request.partition(b"\r\n\r\n")[2] == body
    await connection.send(ok)
    async with await task as answer:
        assert await answer.read(2) == b"ok"


async def test_the_connection_used_last_is_reused_first(until, serve, make_pool, send, ok):
    peer = await serve()
    pool = make_pool(peer)
    tasks = [asyncio.create_task(send(pool)) for _ in range(2)]
    first, second = await peer.next(), await peer.next()
    for idle, connection in enumerate((first, second)):
        await connection.request()
        await connection.send(ok)
        await until(partial(has_idle, pool, idle + 1))
    for task in tasks:
        await (await task).aclose()
    third = asyncio.create_task(send(pool))
    assert await second.request()
    await second.send(ok)
    await (await third).aclose()
    assert len(peer.accepted) == 2


async def test_never_more_connections_than_allowed_and_the_rest_wait_in_order(
    serve, make_pool, send, ok
):
    peer = await serve()
    pool = make_pool(peer, connections_max=1)
    tasks = [asyncio.create_task(send(pool, b"%d" % n)) for n in range(4)]
    connection = await peer.next()
    for n in range(4):
        assert (await connection.request()).endswith(b"\r\n\r\n%d" % n)
        assert pool.connections_open == 1
        await connection.send(ok)
        await (await tasks[n]).aclose()
    assert len(peer.accepted) == 1


async def test_the_waiting_list_is_bounded(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer, connections_max=1, waiters_max=1)
    tasks = [asyncio.create_task(send(pool)) for _ in range(2)]
    await (await peer.next()).request()
    with pytest.raises(UpstreamPoolExhausted) as refused:
        await send(pool)
    assert (refused.value.sent, refused.value.code, refused.value.status) == (
        False,
        "overloaded",
        503,
    )
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert pool.connections_open == 0


async def test_waiting_ends_in_time(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer, connections_max=1, wait_timeout_s=0.03)
    holding = asyncio.create_task(send(pool))
    await (await peer.next()).request()
    with pytest.raises(UpstreamPoolExhausted):
        await send(pool)
    holding.cancel()
    await asyncio.wait((holding,))


async def test_a_slot_freed_by_a_broken_connection_goes_to_the_waiter(serve, make_pool, send, ok):
    peer = await serve()
    pool = make_pool(peer, connections_max=1)
    broken = asyncio.create_task(send(pool))
    waiting = asyncio.create_task(send(pool))
    first = await peer.next()
    await first.request()
    first.reset()
    with pytest.raises(UpstreamReset):
        await broken
    second = await peer.next()
    await second.request()
    await second.send(ok)
    async with await waiting as answer:
        assert answer.status == 200


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_passes_it_on(
    serve, make_pool, send, answer_all
):
    peer = await serve(answer_all(HANGING))
    pool = make_pool(peer, connections_max=1)
    held = await send(pool)
    cancelled = asyncio.create_task(send(pool))
    other = asyncio.create_task(send(pool))
    await turns()
    await held.aclose()
    cancelled.cancel()
    async with await other as answer:
        assert answer.status == 200
    with suppress(asyncio.CancelledError):
        await cancelled
    assert cancelled.cancelled()
    assert pool.connections_open == 0


@pytest.mark.parametrize("when", range(30))
async def test_cancelling_send_at_any_turn_leaks_nothing(serve, make_pool, send, answer_all, when):
    peer = await serve(answer_all())
    pool = make_pool(peer, connections_max=1)
    task = asyncio.create_task(send(pool))
    await turns(when)
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        await task.result().aclose()
    assert pool.connections_open == pool.connections_idle
    async with await send(pool) as answer:
        assert await answer.read(2) == b"ok"


async def test_cancelling_send_while_it_waits_for_the_head_closes_the_connection(
    serve, make_pool, send
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.connections_open == 0
    assert await connection.is_closed()


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_connection_closed_while_idle_is_replaced_before_writing(
    until, serve, make_pool, send, ok, is_reset
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    first = await peer.next()
    await first.request()
    await first.send(ok)
    await (await task).aclose()
    if is_reset:
        first.reset()
    else:
        first.writer.close()
    await until(lambda: pool.connections_open == 0)
    task = asyncio.create_task(send(pool))
    second = await peer.next()
    await second.request()
    await second.send(ok)
    async with await task as answer:
        assert answer.status == 200


async def test_a_close_the_loop_has_not_seen_yet_is_noticed_after_a_rest(
    serve, make_pool, send, ok, monkeypatch
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    first = await peer.next()
    await first.request()
    await first.send(ok)
    await (await task).aclose()
    # Straight to the kernel, so that no loop has had a turn to notice.
    raw = socket.socket(fileno=os.dup(first.writer.get_extra_info("socket").fileno()))
    raw.shutdown(socket.SHUT_WR)
    raw.close()
    (connection,) = pool._idle
    assert connection.is_usable() is True
    monkeypatch.setattr("proxy.upstream.connection._TRUSTED_IDLE_S", 0.0)
    assert (connection.is_usable(), connection.is_closed) == (False, False)
    task = asyncio.create_task(send(pool))
    second = await peer.next()
    await second.request()
    await second.send(ok)
    await (await task).aclose()
    assert await first.request() == b""


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"])
async def test_bytes_nobody_asked_for_close_the_idle_connection(serve, make_pool, send, ok, junk):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    await connection.send(ok)
    await (await task).aclose()
    await connection.send(junk)
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_a_second_answer_behind_the_first_is_never_given_to_the_next_request(
    serve, make_pool, send, ok
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    await connection.send(ok + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    async with await task as answer:
        assert await answer.read(9) == b"ok"
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_an_answer_before_the_request_was_written_ends_the_connection(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool, b"x" * 20_000_000))
    connection = await peer.next()
    await connection.reader.readuntil(b"\r\n\r\n")
    await connection.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
    async with await task as answer:
        assert (answer.status, await answer.read(2)) == (413, b"no")
    assert pool.connections_open == 0


async def test_unused_connections_are_closed_in_time(until, serve, make_pool, send, answer_all):
    peer = await serve(answer_all())
    pool = make_pool(peer, idle_timeout_s=0.03)
    await (await send(pool)).aclose()
    assert pool.connections_idle == 1
    await until(lambda: pool.connections_open == 0)


async def test_the_peers_shorter_keep_alive_wins(until, serve, make_pool, send, answer_all):
    peer = await serve(
        answer_all(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 0\r\n\r\n")
    )
    pool = make_pool(peer, idle_timeout_s=3600)
    await (await send(pool)).aclose()
    await until(lambda: pool.connections_open == 0)


async def test_on_sent_runs_once_before_the_first_byte(serve, make_pool, send, ok):
    peer = await serve()
    pool = make_pool(peer)
    seen = []

    def on_sent():
        seen.append(len(peer.accepted))

    task = asyncio.create_task(send(pool, on_sent=on_sent))
    connection = await peer.next()
    await connection.request()
    assert len(seen) == 1
    await connection.send(ok)
    await (await task).aclose()
    assert len(seen) == 1


async def test_when_on_sent_raises_nothing_is_sent_and_the_connection_stays_good(
    serve, make_pool, send, answer_all
):
    peer = await serve(answer_all())
    pool = make_pool(peer)

    def on_sent():
        raise OSError("journal full")

    for _ in range(2):
        with pytest.raises(OSError, match="journal full"):
            await send(pool, on_sent=on_sent)
    assert (pool.connections_open, pool.connections_idle) == (1, 1)
    async with await send(pool) as answer:
        assert answer.status == 200
    assert len(peer.accepted) == 1


async def test_nothing_listening_is_unreachable_and_nothing_was_sent(serve, make_pool, send):
    pool = make_pool("http://127.0.0.1:1")
    sent = []
    with pytest.raises(UpstreamUnreachable) as failed:
        await send(pool, on_sent=lambda: sent.append(1))
    assert (failed.value.sent, failed.value.code, sent) == (False, "upstream_unreachable", [])
    assert pool.connections_open == 0


async def test_a_look_up_without_answer_is_a_connect_timeout(make_pool, send):
    async def resolve(host, port):
        await asyncio.Event().wait()

    pool = make_pool("http://h", resolve=resolve, connect_timeout_s=0.03)
    with pytest.raises(UpstreamConnectTimeout) as failed:
        await send(pool)
    assert (failed.value.sent, failed.value.status) == (False, 504)
    assert pool.connections_open == 0


async def test_the_next_address_is_tried_when_one_refuses(serve, make_pool, send, answer_all):
    peer = await serve(answer_all())

    async def resolve(host, port):
        return ["127.0.0.2", "127.0.0.1"]

    pool = make_pool(f"http://name:{peer.port}", resolve=resolve)
    async with await send(pool) as answer:
        assert answer.status == 200


async def test_a_name_that_leads_to_a_private_address_gets_no_connection(serve, make_pool, send):
    peer = await serve()

    async def resolve(host, port):
        return ["127.0.0.1"]

    pool = make_pool(f"http://innocent.example:{peer.port}", resolve=resolve, private_allowed=())
    with pytest.raises(UpstreamAddressRefused) as refused:
        await send(pool)
    assert refused.value.sent is False
    assert (peer.accepted, pool.connections_open) == ([], 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1"])
async def test_every_way_to_write_loopback_is_refused(serve, make_pool, send, host):
    peer = await serve()
    pool = make_pool(f"http://{host}:{peer.port}", private_allowed=())
    with pytest.raises((UpstreamAddressRefused, UpstreamUnreachable)):
        await send(pool)
    assert peer.accepted == []


async def test_an_address_that_changed_since_the_check_is_not_contacted(serve, make_pool, send):
    peer = await serve()
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolve(host, port):
        return answers.pop(0)

    pool = make_pool(f"http://name:{peer.port}", resolve=resolve, address_ttl_s=1e-9)
    first = asyncio.create_task(send(pool))
    await (await peer.next()).request()
    # The loop's clock counts milliseconds.
    await asyncio.sleep(0.002)
    with pytest.raises(UpstreamAddressRefused):
        await send(pool)
    first.cancel()
    await asyncio.wait((first,))


async def test_closing_ends_what_runs_and_what_waits_and_refuses_what_comes(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer, connections_max=1)
    running = asyncio.create_task(send(pool))
    waiting = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    await pool.aclose()
    with pytest.raises(UpstreamReset):
        await running
    with pytest.raises(UpstreamPoolExhausted):
        await waiting
    with pytest.raises(UpstreamUnreachable):
        await send(pool)
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_closing_while_a_connection_is_opened_leaves_none(make_pool, send):
    asked = asyncio.Event()

    async def resolve(host, port):
        asked.set()
        await asyncio.Event().wait()

    pool = make_pool("http://h", resolve=resolve)
    task = asyncio.create_task(send(pool))
    await asked.wait()
    await pool.aclose()
    with pytest.raises(UpstreamUnreachable):
        await task
    assert pool.connections_open == 0


async def test_proxy_variables_are_not_read(serve, make_pool, send, answer_all, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    peer = await serve(answer_all())
    async with await send(make_pool(peer)) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("field", ["connections_max", "idle_timeout_s", "header_bytes_max"])
def test_a_bound_that_is_not_positive_is_refused(field):
    with pytest.raises(ValueError, match=field):
        UpstreamSettings(**{field: 0})
