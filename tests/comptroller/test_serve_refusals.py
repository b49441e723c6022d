"""A set-up that cannot work is refused before anything starts, in one sentence that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comptroller.cli import main

MODEL: dict[str, Any] = {"name": "gpt-4o-mini", "output_tokens_max": 16_384}
UPSTREAM: dict[str, Any] = {
    "name": "openai",
    "provider": "openai",
    "base_url": "https://api.openai.com/v1",
    "models": [MODEL],
}


def _serve(folder: Path, upstreams: Path) -> tuple[int, str]:
    environment = {
        "COMPTROLLER_DATA_DIR": str(folder / "data"),
        "COMPTROLLER_UPSTREAMS_FILE": str(upstreams),
    }
    ran = CliRunner().invoke(main, ["serve"], env=environment)
    return ran.exit_code, ran.output


@pytest.mark.parametrize(
    ("upstream", "why"),
    [
        ({**UPSTREAM, "models": [{**MODEL, "output_tokens_maxx": 1}]}, "output_tokens_maxx"),
        ({**UPSTREAM, "key": "env:COMPTROLLER_TEST_NOT_SET"}, "COMPTROLLER_TEST_NOT_SET"),
        ({**UPSTREAM, "key": "sk-plain"}, "env:NAME"),
        ({**UPSTREAM, "base_url": "ftp://provider.example"}, "http"),
        ({**UPSTREAM, "silence_timeout_s": 0}, "silence_timeout_s"),
        ({**UPSTREAM, "models": [MODEL, MODEL]}, "more than one upstream serves gpt-4o-mini"),
        ({**UPSTREAM, "models": [{**MODEL, "price": {"request": "dear"}}]}, "dear"),
    ],
)
def test_an_upstreams_file_that_cannot_be_used(
    tmp_path: Path, upstream: dict[str, Any], why: str
) -> None:
    path = tmp_path / "upstreams.json"
    path.write_text(json.dumps({"upstreams": [upstream]}))
    code, output = _serve(tmp_path, path)
    assert code == 1
    assert output.startswith(f"Error: COMPTROLLER_UPSTREAMS_FILE={path} cannot be used: ")
    assert why in output
    assert "Traceback" not in output
    assert output.count("\n") == 1


def test_an_upstreams_file_that_is_not_there(tmp_path: Path) -> None:
    code, output = _serve(tmp_path, tmp_path / "missing.json")
    assert (code, "No such file" in output) == (1, True)
