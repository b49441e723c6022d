"""`simulate-provider` as a process of its own, on uvloop."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice

import httpx
import pytest
from click.testing import CliRunner

from comptroller.simulator.cli import simulate_provider

START = "from comptroller.simulator.cli import simulate_provider; simulate_provider()"


PLAIN = {"verify": False, "timeout": 60}


def started(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, "--port", "0", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with started("--json", "--output", "uniform:3:3", "--abort-tail-tokens", "2") as running:
        yield running
        running.kill()


def test_it_says_when_it_is_ready_answers_and_stops_on_sigterm(
    process: subprocess.Popen[str],
) -> None:
    ready = json.loads(process.stdout.readline())
    document = {"model": "sim-flat-0.05", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx.post(f"{ready['base_url']}/chat/completions", json=document, **PLAIN)
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert httpx.get(ready["bill"], **PLAIN).json()["total"] == "0.05"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_resets_and_aborts_are_the_same_on_uvloop(process: subprocess.Popen[str]) -> None:
    ready = json.loads(process.stdout.readline())
    url = f"{ready['base_url']}/chat/completions"
    for fault, stream in (("reset_before_head", False), ("reset_mid_answer", True)):
        content = f"[[sim fault={fault}]]"
        document = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
        with pytest.raises(httpx.ReadError):
            httpx.post(url, json={**document, "stream": stream}, **PLAIN)
    content = "[[sim output=50 fault=stall_mid_answer after_chunks=5]]"
    document = {"model": "gpt-4.1", "messages": [{"role": "user", "content": content}]}
    with httpx.stream("POST", url, json={**document, "stream": True}, **PLAIN) as answer:
        # All that is sent before it stalls: whoever leaves earlier may be noticed earlier.
        lines = answer.iter_lines()
        shown = (line for line in lines if '"content":"' in line and '"content":""' not in line)
        assert len(list(islice(shown, 5))) == 5
    bill = httpx.get(f"{ready['bill']}?when=idle", **PLAIN).json()
    assert bill["by_model"]["gpt-4.1"]["completion_tokens"] == 5 + 2


def test_the_ready_line_is_a_sentence_for_people() -> None:
    with started() as process:
        line = process.stdout.readline()
        process.terminate()
    assert line.startswith("Simulated provider ready at http://127.0.0.1:")


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(simulate_provider, ["--port", port])
    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot listen on 127.0.0.1: ")


@pytest.mark.parametrize("option", [("--output", "many"), ("--pace", "-1"), ("--port", "65536")])
def test_an_option_out_of_range_is_refused(option: tuple[str, str]) -> None:
    assert CliRunner().invoke(simulate_provider, option).exit_code == 2
