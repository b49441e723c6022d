"""The server below the answers: framing, credentials, history, what is refused by name."""

import asyncio
import json

import httpx
import pytest

from comptroller.simulator import RunningSimulator, SimulatorSettings, simulator
from comptroller.simulator.connection import HEAD_BYTES_MAX, PIPELINED_MAX
from comptroller.simulator.history import BODY_SHOWN_BYTES_MAX

PATH = "/v1/chat/completions"
ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[sim output=2]]"}]}
ECHO = {"model": "bench-echo", "messages": [{"role": "user", "content": "hello"}]}


async def exchanged(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


def post(document: object, extra: str = "") -> bytes:
    content = json.dumps(document).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\n{extra}content-length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def test_pipelined_requests_are_answered_in_order(running: RunningSimulator) -> None:
    close = "connection: close\r\n"
    sent = post(ASKED) + post(ECHO) + b"GET /livez HTTP/1.1\r\n\r\n" + post(ASKED, close)
    answer = await exchanged(running.port, sent)
    order = [answer.index(word) for word in (b"-aaaaaaaaaaaaaaab", b"bench-echo", b'"ok"')]
    assert order == sorted(order)
    assert answer.count(b"HTTP/1.1 200 OK") == 4


async def test_more_pipelined_requests_than_allowed_end_the_connection(
    running: RunningSimulator,
) -> None:
    stalled = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "[[sim fault=stall_before_head]]"}],
    }
    sent = post(stalled) + b"GET /livez HTTP/1.1\r\n\r\n" * (PIPELINED_MAX + 1)
    assert (await exchanged(running.port, sent)).startswith(b"HTTP/1.1 429")
    await running.idle()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_broken_framing_is_refused(running: RunningSimulator, sent: bytes) -> None:
    assert (await exchanged(running.port, sent)).startswith(b"HTTP/1.1 400")
    assert running.requests() == []


async def test_a_head_over_its_maximum_is_refused(running: RunningSimulator) -> None:
    sent = b"GET /livez HTTP/1.1\r\nx: " + b"a" * HEAD_BYTES_MAX
    assert (await exchanged(running.port, sent)).startswith(b"HTTP/1.1 431")


async def test_a_body_is_read_up_to_its_maximum() -> None:
    size = len(json.dumps(ASKED).encode())
    async with simulator(SimulatorSettings(body_bytes_max=size)) as running:
        fits = await exchanged(running.port, post(ASKED, "connection: close\r\n"))
        longer = await exchanged(running.port, post({**ASKED, "x": 1}))
    assert fits.startswith(b"HTTP/1.1 200")
    assert longer.startswith(b"HTTP/1.1 413")


async def test_a_client_that_asks_first_is_told_to_continue(running: RunningSimulator) -> None:
    extra = "expect: 100-continue\r\nconnection: close\r\n"
    answer = await exchanged(running.port, post(ASKED, extra))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_only_the_credential_that_was_set_is_accepted() -> None:
    async with (
        simulator(SimulatorSettings(api_key="right")) as running,
        httpx.AsyncClient(base_url=running.address, verify=False) as http,
    ):
        for document in (ASKED, ECHO):
            for key, status in (("right", 200), ("wrong", 401)):
                answer = await http.post(
                    PATH, json=document, headers={"authorization": f"Bearer {key}"}
                )
                assert answer.status_code == status
            assert (await http.post(PATH, json=document)).status_code == 401
        assert running.bill()["requests"] == 2
        assert (await http.get("/livez")).status_code == 200


async def test_the_history_shows_what_arrived_without_secrets(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    headers = {"authorization": "Bearer top-secret", "x-tag": "kept"}
    await http.post(PATH, json={**ASKED, "user": "x" * BODY_SHOWN_BYTES_MAX}, headers=headers)
    (seen,) = (await http.get("/_simulator/requests")).json()["requests"]
    shown = dict(seen["headers"])
    assert shown["x-tag"] == "kept"
    assert shown["authorization"].startswith("redacted, sha256 ")
    assert "top-secret" not in json.dumps(seen)
    assert seen["body_start"].startswith('{"model":"gpt-4o"')
    assert len(seen["body_start"]) == BODY_SHOWN_BYTES_MAX < seen["body_bytes"]
    assert (seen["status"], seen["fate"], seen["is_left"]) == (200, "answered", False)


async def test_the_history_forgets_the_oldest() -> None:
    async with (
        simulator(SimulatorSettings(requests_kept_max=2)) as running,
        httpx.AsyncClient(base_url=running.address, verify=False) as http,
    ):
        for path in ("/a", "/b", "/c"):
            assert (await http.get(path)).status_code == 404
        assert [seen["path"] for seen in running.requests()] == ["/b", "/c"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", PATH, 405),
        ("POST", "/v1/models", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/_simulator/nowhere", 404),
        ("GET", "/livez", 200),
    ],
)
async def test_routes_answer_what_they_are(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await http.request(method, path)).status_code == status


async def test_bench_echo_is_one_kilobyte_and_on_the_bill(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    answer = await http.post(PATH, json=ECHO)
    assert len(answer.content) == 1024
    usage = answer.json()["usage"]
    bill = running.bill()["by_model"]["bench-echo"]
    assert bill["completion_tokens"] == usage["completion_tokens"] > 0
    assert bill["prompt_tokens"] == usage["prompt_tokens"] == 7
    assert bill["nanos"] == 7 * 150 + usage["completion_tokens"] * 600


async def test_bench_echo_streams_and_faults_like_the_others(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    answer = await http.post(PATH, json={**ECHO, "stream": True, "max_tokens": 100})
    assert answer.content.count(b'"content":" ') == 64  # the default length
    running.add_fault("unavailable", model="bench-echo", times=1)
    assert (await http.post(PATH, json=ECHO)).status_code == 503
    assert (await http.post(PATH, json=ECHO)).status_code == 200


async def test_leaving_the_context_ends_what_is_open() -> None:
    async with httpx.AsyncClient(verify=False, timeout=60) as http:
        async with simulator() as running:
            content = "[[sim fault=stall_before_head]]"
            document = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
            asked = asyncio.create_task(
                http.post(f"{running.base_url}/chat/completions", json=document)
            )
            await running.generating(1)
        with pytest.raises(httpx.ReadError):
            await asked
