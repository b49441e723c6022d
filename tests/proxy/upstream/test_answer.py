"""Reading an answer: chunks, ends, stalls, resets, bounds, back-pressure, cancellation."""

import asyncio

import pytest

from proxy.upstream import (
    UpstreamBadResponse,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTooLarge,
)

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def open_answer(serve, make_pool, send):
    """Send a request and answer it with these bytes; returns (answer, connection, pool)."""

    async def open_answer(data, head_timeout_s=5.0, method=b"POST", **settings):
        peer = await serve()
        pool = make_pool(peer, **settings)
        task = asyncio.create_task(send(pool, head_timeout_s=head_timeout_s, method=method))
        connection = await peer.next()
        await connection.request()
        await connection.send(data)
        return await task, connection, pool

    return open_answer


async def test_chunks_are_handed_over_as_they_arrive(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)
    async with answer:
        for n in range(5):
            await connection.send(chunk(b"data %d" % n))
            assert await answer.next_chunk() == b"data %d" % n
        await connection.send(END)
        assert await answer.next_chunk() == b""
        assert await answer.next_chunk() == b""
    assert pool.connections_idle == 1


async def test_what_arrived_meanwhile_is_joined(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)
    async with answer:
        await connection.send(chunk(b"a") + chunk(b"b") + chunk(b"c") + END)
        assert await answer.next_chunk() == b"abc"
        assert await answer.next_chunk() == b""
    assert pool.connections_idle == 1


async def test_a_body_until_close_is_read_to_its_end(open_answer):
    answer, connection, pool = await open_answer(b"HTTP/1.1 200 OK\r\n\r\nall")
    async with answer:
        connection.writer.close()
        assert await answer.read(3) == b"all"
    assert pool.connections_open == 0


@pytest.mark.parametrize(
    ("method", "data"),
    [(b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"),
     (b"POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
     (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n")],
)  # fmt: skip
async def test_an_answer_without_body_frees_its_connection(open_answer, method, data):
    answer, _connection, pool = await open_answer(data, method=method)
    async with answer:
        assert await answer.read(1) == b""
    assert pool.connections_idle == 1


async def test_a_body_at_the_bound_is_read_and_one_byte_more_is_refused(open_answer):
    answer, _connection, pool = await open_answer(CHUNKED + chunk(b"12345") + END)
    assert await answer.read(5) == b"12345"
    assert pool.connections_idle == 1
    answer, connection, pool = await open_answer(CHUNKED + chunk(b"123456"))
    with pytest.raises(UpstreamTooLarge) as refused:
        await answer.read(5)
    assert (refused.value.code, refused.value.sent) == ("upstream_response_too_large", True)
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_a_declared_size_over_the_bound_is_refused_before_reading(open_answer):
    answer, connection, pool = await open_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")
    with pytest.raises(UpstreamTooLarge):
        await answer.read(5)
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_a_large_body_is_read_whole_through_a_small_buffer(open_answer):
    body = bytes(range(256)) * 8192
    answer, connection, pool = await open_answer(
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), buffer_bytes_max=1024
    )
    sending = asyncio.create_task(connection.send(body))
    async with answer:
        assert await answer.read(len(body)) == body
    await sending
    assert pool.connections_idle == 1


async def test_a_reader_that_is_slow_bounds_what_is_held(open_answer):
    answer, connection, pool = await open_answer(CHUNKED, buffer_bytes_max=4096)
    piece = b"x" * 65536
    pieces = 0
    async with answer:
        # The sockets' own buffers take a few megabytes; when they are full the server must wait.
        while connection.writer.transport.get_write_buffer_size() < len(piece) and pieces < 1000:
            connection.writer.write(chunk(piece))
            pieces += 1
            await asyncio.sleep(0)
        assert pieces < 1000
        assert answer._reader.buffered_bytes <= 4096 + 256 * 1024
        connection.writer.write(END)
        got_bytes = 0
        while data := await answer.next_chunk():
            got_bytes += len(data)
        assert got_bytes == pieces * len(piece)
    assert pool.connections_idle == 1


async def test_time_spent_not_reading_is_no_stall(until, open_answer):
    answer, connection, _pool = await open_answer(
        CHUNKED, buffer_bytes_max=4, read_idle_timeout_s=0.02
    )
    async with answer:
        await connection.send(chunk(b"12345"))
        await until(lambda: answer._connection._is_paused)
        await asyncio.sleep(0.05)
        assert await answer.next_chunk() == b"12345"
        await connection.send(END)
        assert await answer.next_chunk() == b""


async def test_it_says_whether_something_can_be_read_without_waiting(open_answer, until):
    answer, connection, _ = await open_answer(CHUNKED)
    async with answer:
        assert not answer.has_arrived
        arriving = asyncio.create_task(answer.arrival())
        await connection.send(chunk(b"a"))
        assert await arriving
        assert answer.has_arrived
        assert await answer.next_chunk() == b"a"
        assert not answer.has_arrived
        connection.reset()
        await until(lambda: answer.has_arrived)
        with pytest.raises(UpstreamReset):
            await answer.next_chunk()


async def test_it_remembers_that_the_upstream_had_to_wait(open_answer, until):
    answer, connection, _ = await open_answer(CHUNKED, buffer_bytes_max=8)
    async with answer:
        await connection.send(chunk(b"a" * 7))
        await until(lambda: answer.has_arrived)
        assert not answer.was_held_up
        await connection.send(chunk(b"b"))
        await until(lambda: answer.was_held_up)
        await answer.next_chunk()
        assert answer.was_held_up


async def test_no_head_in_time_is_a_timeout_even_if_bytes_trickle(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool, head_timeout_s=0.05))
    connection = await peer.next()
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    while not task.done():
        connection.writer.write(b"x: y\r\n")
        await asyncio.wait((task,), timeout=0.005)
    with pytest.raises(UpstreamTimeout) as failed:
        await task
    assert (failed.value.sent, failed.value.code, failed.value.status) == (
        True,
        "upstream_timeout",
        504,
    )
    assert pool.connections_open == 0


@pytest.mark.parametrize("start", [b"", chunk(b"first")])
async def test_a_body_that_stalls_is_a_timeout_after_what_arrived(open_answer, start):
    answer, connection, pool = await open_answer(CHUNKED + start, read_idle_timeout_s=0.03)
    async with answer:
        if start:
            assert await answer.next_chunk() == b"first"
        for _ in range(2):
            with pytest.raises(UpstreamTimeout) as failed:
                await answer.next_chunk()
        assert failed.value.sent is True
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_framing_without_body_does_not_hide_a_stall(open_answer):
    answer, connection, _pool = await open_answer(CHUNKED, read_idle_timeout_s=0.05)
    async with answer:
        task = asyncio.create_task(answer.next_chunk())
        await connection.send(b"5;x=")
        while not task.done():
            connection.writer.write(b"y")
            await asyncio.wait((task,), timeout=0.005)
        with pytest.raises(UpstreamTimeout):
            await task


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2"])
async def test_a_close_before_the_head_says_whether_the_answer_had_begun(
    until, serve, make_pool, send, data, is_reset
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    if data:
        await connection.send(data)
        (ours,) = pool._connections
        await until(lambda: ours._reader.is_started)
    if is_reset:
        connection.reset()
    else:
        connection.writer.close()
    with pytest.raises(UpstreamReset) as failed:
        await task
    error = failed.value
    assert (error.sent, error.reused, error.answered) == (True, False, bool(data))
    assert (error.code, error.status) == ("upstream_error", 502)
    assert pool.connections_open == 0
    assert len(peer.accepted) == 1


async def test_a_reused_connection_closed_without_an_answer_is_not_tried_again(
    serve, make_pool, send, ok
):
    peer = await serve()
    pool = make_pool(peer)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    await connection.send(ok)
    await (await task).aclose()
    task = asyncio.create_task(send(pool))
    await connection.request()
    connection.writer.close()
    with pytest.raises(UpstreamReset) as failed:
        await task
    assert (failed.value.sent, failed.value.reused, failed.value.answered) == (True, True, False)
    assert len(peer.accepted) == 1


@pytest.mark.parametrize(
    "head", [CHUNKED + chunk(b"part"), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"]
)
@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_close_inside_the_body_is_a_reset_after_what_arrived(open_answer, head, is_reset):
    answer, connection, pool = await open_answer(head)
    async with answer:
        assert await answer.next_chunk() == b"part"
        if is_reset:
            connection.reset()
        else:
            connection.writer.close()
        with pytest.raises(UpstreamReset) as failed:
            await answer.next_chunk()
        assert failed.value.answered is True
    assert pool.connections_open == 0


async def test_a_malformed_chunk_after_good_ones_is_reported_after_them(open_answer):
    answer, connection, pool = await open_answer(CHUNKED + chunk(b"good"))
    async with answer:
        assert await answer.next_chunk() == b"good"
        await connection.send(b"zz\r\n")
        with pytest.raises(UpstreamBadResponse):
            await answer.next_chunk()
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_a_head_over_the_bound_closes_the_connection(serve, make_pool, send):
    peer = await serve()
    pool = make_pool(peer, header_bytes_max=1024)
    task = asyncio.create_task(send(pool))
    connection = await peer.next()
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2048)
    with pytest.raises(UpstreamBadResponse) as failed:
        await task
    assert failed.value.sent is True
    assert await connection.is_closed()
    assert pool.connections_open == 0


async def test_leaving_before_the_end_closes_the_connection_at_once(open_answer):
    answer, connection, pool = await open_answer(CHUNKED + chunk(b"part"))
    async with answer:
        await answer.next_chunk()
    assert pool.connections_open == 0
    assert await connection.is_closed()
    with pytest.raises(UpstreamReset):
        await answer.next_chunk()


async def test_aborting_wakes_the_one_who_waits(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)
    task = asyncio.create_task(answer.next_chunk())
    await asyncio.sleep(0)
    answer.abort()
    with pytest.raises(UpstreamReset):
        await task
    assert await connection.is_closed()
    assert pool.connections_open == 0
    await answer.aclose()


async def test_an_old_answer_cannot_touch_the_next_exchange(serve, make_pool, send, answer_all):
    peer = await serve(answer_all(CHUNKED + chunk(b"one") + END))
    pool = make_pool(peer)
    old = await send(pool)
    assert await old.read(10) == b"one"
    new = await send(pool)
    old.abort()
    await old.aclose()
    assert await new.read(10) == b"one"
    await new.aclose()
    assert (len(peer.accepted), pool.connections_idle) == (1, 1)


async def test_cancelling_next_chunk_loses_no_byte(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)
    async with answer:
        for n in range(3):
            task = asyncio.create_task(answer.next_chunk())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            await connection.send(chunk(b"%d" % n))
            assert await answer.next_chunk() == b"%d" % n
        await connection.send(END)
        assert await answer.next_chunk() == b""
    assert pool.connections_idle == 1


async def test_cancelling_the_task_that_reads_closes_the_connection(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)

    async def read():
        async with answer:
            await answer.next_chunk()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert pool.connections_open == 0
    assert await connection.is_closed()


async def test_two_readers_at_once_are_refused(open_answer):
    answer, _connection, _pool = await open_answer(CHUNKED)
    async with answer:
        task = asyncio.create_task(answer.next_chunk())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task"):
            await answer.next_chunk()
        task.cancel()
        await asyncio.wait((task,))


async def test_a_forgotten_answer_warns_and_frees_its_connection(open_answer):
    answer, connection, pool = await open_answer(CHUNKED)
    # The loop still holds the result it woke us with.
    await asyncio.sleep(0)
    forget = [answer]
    del answer
    with pytest.warns(ResourceWarning, match="not closed"):
        forget.clear()
    assert pool.connections_open == 0
    assert await connection.is_closed()
