"""Logs can be read by machines, and tell no secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from comptroller.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def _fail(secret: str) -> None:
    raise ValueError(f"a text of {len(secret)} characters")


def test_a_traceback_shows_code_and_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    key = "ck_live_" + "a" * 36
    try:
        _fail(key)
    except ValueError:
        structlog.get_logger("test").exception("failed", request_id="req_1")
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "failed"
    assert line["level"] == "error"
    assert line["request_id"] == "req_1"
    assert "ValueError: a text of 44 characters" in line["exception"]
    assert key not in json.dumps(line)


def test_what_a_caller_sends_cannot_begin_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("test").warning("refused", model="gpt\n{}\x1b[2J")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert json.loads(text)["model"] == "gpt\n{}\x1b[2J"
