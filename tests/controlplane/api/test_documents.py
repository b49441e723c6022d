"""What a document costs once it costs no more: parsed, checked and measured a single time."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from graphql import parse

from controlplane.api import documents
from controlplane.api.documents import PreparedDocument, prepare, root_field_of
from controlplane.api.schema import make_schema

ROOT = Path(__file__).parents[3]
VIEWER = "{ viewer { user { email } } }"


@pytest.fixture
def database_url(sqlite_url_of_test: str) -> str:
    return sqlite_url_of_test


class Counted:
    """Calls what it stands for and counts."""

    def __init__(self, function) -> None:
        self.function = function
        self.count = 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        return self.function(*args, **kwargs)


@pytest.fixture
def counted(monkeypatch) -> dict[str, Counted]:
    """Count the steps of preparing a document, ours and those Strawberry would take."""
    from strawberry.schema import schema as strawberry_schema  # noqa: PLC0415

    steps = {
        "parse": (documents, "parse"),
        "validate": (documents, "validate"),
        "measure": (documents, "measure"),
        "strawberry parse": (strawberry_schema, "parse"),
        "strawberry validate": (strawberry_schema, "validate_document"),
    }
    found = {}
    for name, (module, attribute) in steps.items():
        found[name] = Counted(getattr(module, attribute))
        monkeypatch.setattr(module, attribute, found[name])
    return found


async def test_a_second_request_neither_parses_nor_validates_again(api, org, counted) -> None:
    token = await api.token(org.admin)
    text = f"{VIEWER} # {org.id}"
    for _ in range(3):
        await api.ask(token, text)
    assert {name: each.count for name, each in counted.items()} == {
        "parse": 1,
        "validate": 1,
        "measure": 1,
        "strawberry parse": 0,
        "strawberry validate": 0,
    }


async def test_what_is_refused_is_not_checked_again_either(api, org, counted) -> None:
    token = await api.token(org.admin)
    for text in (f"{{ nothing }} # {org.id}", f"{{ # {org.id}"):
        for _ in range(3):
            assert (await api.post(token, text)).status_code in {400, 422}
    assert (counted["parse"].count, counted["validate"].count) == (2, 1)
    assert counted["strawberry validate"].count == 0


def test_rules_are_made_once() -> None:
    """A rule class made for each request is a new key of every cache: 10 ms in place of 1."""
    assert isinstance(documents._RULES, tuple)
    assert len(set(documents._RULES)) == len(documents._RULES)
    assert all(isinstance(each, type) for each in documents._RULES)
    assert make_schema().extensions == (PreparedDocument,)


def test_only_so_many_documents_are_remembered() -> None:
    schema = make_schema()._schema
    for number in range(documents.DOCUMENTS_MAX + 10):
        prepare(schema, f"{VIEWER} # {number}")
    assert len(documents.MEMORY) == documents.DOCUMENTS_MAX


def test_only_so_long_documents_are_remembered() -> None:
    """A megabyte of documents takes a fifth of a gigabyte when it is parsed."""
    schema = make_schema()._schema
    long = documents.DOCUMENT_LENGTH_MAX - 1_000
    for number in range(10):
        prepare(schema, f"{VIEWER} # {'x' * long} {number}")
    assert documents.MEMORY.length <= documents.REMEMBERED_LENGTH_MAX
    assert len(documents.MEMORY) == documents.REMEMBERED_LENGTH_MAX // long


@pytest.mark.parametrize(
    "text",
    [
        "subscription { liveSpend(organizationId: 1) { seq } }",
        "subscription { mine: liveSpend(organizationId: 1) { seq } }",
        "subscription { ... { liveSpend(organizationId: 1) { seq } } }",
        """subscription { ...a } fragment a on Subscription { ... on Subscription { ...b } }
        fragment b on Subscription { liveSpend(organizationId: 1) { seq } }""",
    ],
)
def test_the_field_of_a_subscription_is_found_in_fragments_too(text) -> None:
    document = parse(text)
    assert prepare(make_schema()._schema, text).errors == ()
    assert root_field_of(document, document.definitions[0]) == "liveSpend"


def test_a_subscription_has_one_field() -> None:
    schema = make_schema()._schema
    two = "subscription { liveSpend(organizationId: 1) { seq } requestLog(organizationId: 1) { seq } }"
    for text in (
        two,
        "subscription { __typename }",
        "subscription { ...a } fragment a on Subscription { __typename }",
    ):
        assert prepare(schema, text).errors, text


def test_strawberry_is_the_version_the_hooks_were_made_for() -> None:
    """It moves very fast, and we hand it documents through its extensions: pinned exactly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"strawberry-graphql=={version('strawberry-graphql')}" in project["dependencies"]
