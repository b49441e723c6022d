"""Settings as data: each field knows its variable, unit, default and meaning.

The reference page `docs/reference/settings.md` is printed from these fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from controlplane.money import parse_money

_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")

T = TypeVar("T")
Parse = Callable[[str], Any]


class SettingsError(ValueError):
    """A `COMPTROLLER_*` variable has a value that cannot be used."""


def setting(variable: str, doc: str, *, default: Any = MISSING, parse: Parse = str) -> Any:
    """Declare a settings field read from `COMPTROLLER_<variable>`."""
    metadata = {"variable": f"COMPTROLLER_{variable}", "doc": doc, "parse": parse}
    return field(default=default, metadata=metadata)


def whole_number(minimum: int, maximum: int) -> Parse:
    """Make a reader of whole numbers within a closed range."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and minimum <= int(text) <= maximum):
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def yes_or_no(text: str) -> bool:
    """Read a switch."""
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


def optional_path(text: str) -> Path | None:
    """Read a path; an empty value means none."""
    return Path(text) if text else None


def origins(text: str) -> frozenset[str]:
    """Read a list of origins with commas between them; `*` is any origin."""
    found = frozenset(each.strip().rstrip("/") for each in text.split(",") if each.strip())
    for each in found - {"*"}:
        if _ORIGIN.fullmatch(each) is None:
            raise ValueError(f"{each!r} is no origin such as https://dashboard.example.org")
    return found


def optional_money(text: str) -> int | None:
    """Read an amount into nano units; an empty value means none."""
    return parse_money(text) if text else None


def read_settings(kind: type[T], environment: Mapping[str, str]) -> T:
    """Fill a settings class from environment variables.

    Raises `SettingsError` naming the variable whose value cannot be used or is missing.
    """
    return kind(**{each.name: _value(each, environment) for each in fields(kind)})  # type: ignore[arg-type]


def _value(each: Field[Any], environment: Mapping[str, str]) -> Any:
    variable = each.metadata["variable"]
    text = environment.get(variable)
    if text is None:
        if each.default is MISSING:
            raise SettingsError(f"{variable} must be set: {each.metadata['doc']}")
        return each.default
    try:
        return each.metadata["parse"](text)
    except ValueError as error:
        raise SettingsError(f"{variable}={text!r}: {error}") from error


def sqlite_url(path: Path) -> str:
    """Make the address of a database file."""
    return f"sqlite:///{path}"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Settings of the control plane and of the data both planes share."""

    data_dir: Path = setting(
        "DATA_DIR",
        "Folder of the embedded database, the key pepper and, later, the journal.",
        default=Path("var"),
        parse=Path,
    )
    database_url: str = setting(
        "DATABASE_URL",
        "`postgresql://…` or `sqlite:///…`; empty means a SQLite file in `DATA_DIR`.",
        default="",
    )
    records_queue_max: int = setting(
        "RECORDS_QUEUE_MAX",
        "Most decision records that may wait to be written; beyond it requests get 503.",
        default=50_000,
        parse=whole_number(100, 10_000_000),
    )
    breaker_minute_nanos: int | None = setting(
        "BREAKER_DEFAULT_MINUTE",
        "Breaker threshold over 60 s, a decimal amount in the organization's currency, for "
        "organizations, teams and members without one of their own; empty means none.",
        default=None,
        parse=optional_money,
    )
    breaker_hour_nanos: int | None = setting(
        "BREAKER_DEFAULT_HOUR",
        "Breaker threshold over 3600 s, as above.",
        default=None,
        parse=optional_money,
    )
    cors_origins: frozenset[str] = setting(
        "CORS_ORIGINS",
        "Origins whose browser pages may use the GraphQL API and its WebSocket, with commas "
        "between them, as in `https://dashboard.example.org`; `*` is any; empty: none but ours.",
        default=frozenset(),
        parse=origins,
    )
    trusted_documents_file: Path | None = setting(
        "TRUSTED_DOCUMENTS_FILE",
        "JSON object from id to GraphQL document, as graphql-codegen's client preset writes it; "
        "clients may send `documentId` in place of `query`.",
        default=None,
        parse=optional_path,
    )
    trusted_documents_only: bool = setting(
        "TRUSTED_DOCUMENTS_ONLY",
        "Answer no GraphQL document but those of the file (`true` or `false`).",
        default=False,
        parse=yes_or_no,
    )
    api_points_max: int = setting(
        "API_POINTS_MAX",
        "Points of GraphQL that one caller may use at once; about one a field and object.",
        default=100_000,
        parse=whole_number(20_000, 1_000_000_000),
    )
    api_points_per_s: int = setting(
        "API_POINTS_PER_S",
        "Points that come back to a caller each second.",
        default=2_000,
        parse=whole_number(1, 100_000_000),
    )
