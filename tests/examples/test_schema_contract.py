"""What clients were promised still holds; their documents are valid and use nothing deprecated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.explorer import OPERATIONS_FOLDER
from controlplane.api.schema import SDL_PATH
from tests.npm import DASHBOARD_CLIENT, SCHEMA_CONTRACT, install

PROMISED = SDL_PATH.with_name("schema.promised.graphql")
DOCUMENTS = [
    *sorted((DASHBOARD_CLIENT / "src/documents").glob("*.graphql")),
    *sorted(OPERATIONS_FOLDER.glob("*.graphql")),
]


def check(promised: Path, schema: Path, *documents: Path) -> tuple[int, Any]:
    """Run the check; gives its exit code and report."""
    install(SCHEMA_CONTRACT)
    ran = subprocess.run(
        ["node", "check.mjs", promised, schema, *documents],
        cwd=SCHEMA_CONTRACT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def changed(folder: Path, old: str, new: str) -> Path:
    """Write the schema with one change."""
    text = SDL_PATH.read_text()
    assert text.count(old) == 1
    path = folder / "changed.graphql"
    path.write_text(text.replace(old, new))
    return path


def test_what_clients_were_promised_holds() -> None:
    code, report = check(PROMISED, SDL_PATH)
    assert (code, report["breaking"]) == (0, []), f"dangerous besides: {report['dangerous']}"


def test_the_documents_that_we_show_are_valid() -> None:
    # Each by itself: two clients may use the same name.
    assert len(DOCUMENTS) >= 13
    for group in (DOCUMENTS[:4], *([each] for each in DOCUMENTS[4:])):
        assert check(SDL_PATH, SDL_PATH, *group)[1]["invalid"] == []


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("  lastHour: Money!", "  lastSixtyMinutes: Money!", "LiveScope.lastHour"),
        ("  lastHour: Money!", "  lastHour: Money", "LiveScope.lastHour"),
        ("  liveSpend(", "  liveSpend(since: BigInt!, ", "Subscription.liveSpend.since"),
    ],
)
def test_a_breaking_change_is_refused(tmp_path: Path, old: str, new: str, path: str) -> None:
    code, report = check(SDL_PATH, changed(tmp_path, old, new))
    assert (code, [each["path"] for each in report["breaking"]]) == (1, [path])


def test_a_new_value_of_an_enum_is_only_dangerous(tmp_path: Path) -> None:
    schema = changed(tmp_path, "enum Enforcement {\n", "enum Enforcement {\n  WARN\n")
    code, report = check(SDL_PATH, schema)
    assert (code, report["breaking"]) == (0, [])
    assert [each["path"] for each in report["dangerous"]] == ["Enforcement.WARN"]


def test_a_document_that_uses_what_is_deprecated_is_refused(tmp_path: Path) -> None:
    reason = '@deprecated(reason: "Use lastMinute; removed after 2027-06-30")'
    schema = changed(tmp_path, "  lastHour: Money!", f"  lastHour: Money! {reason}")
    code, report = check(SDL_PATH, schema, OPERATIONS_FOLDER / "09-live-spend.graphql")
    assert (code, report["breaking"]) == (1, [])
    assert [each["path"] for each in report["invalid"]] == [
        str(OPERATIONS_FOLDER / "09-live-spend.graphql")
    ]
