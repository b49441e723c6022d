"""The page of headers names every header that callers can send and answers can have."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/headers.md").read_text()
REQUESTS, ANSWERS = (
    set(re.findall(r"^\| `(x-comptroller-[a-z-]+)` \|", section, re.MULTILINE))
    for section in PAGE.split("## Answers")
)
NAME = re.compile(r'b"(x-comptroller-[a-z-]+)"')
# Where headers of requests are read.
READERS = ("attribution.py", "confirmations.py")


def _written(*names: str) -> set[str]:
    paths = [path for path in (ROOT / "proxy").rglob("*.py") if path.name in names or not names]
    return {name for path in paths for name in NAME.findall(path.read_text())}


def test_every_header_of_requests_is_on_the_page_and_no_other() -> None:
    read = _written(*READERS) - {"x-comptroller-"}
    assert read == REQUESTS


def test_every_header_of_answers_is_on_the_page_and_no_other() -> None:
    assert _written() - REQUESTS - {"x-comptroller-"} == ANSWERS
