"""Settings: read once, wrong values named, every one of them documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from comptroller.settings import Settings, settings_page
from controlplane.settings import SettingsError

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_current() -> None:
    assert (ROOT / "docs/reference/settings.md").read_text() == settings_page()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("COMPTROLLER_PORT", "70000"),
        ("COMPTROLLER_PORT", "-1"),
        ("COMPTROLLER_BODY_BYTES_MAX", "lots"),
        ("COMPTROLLER_BREAKER_DEFAULT_MINUTE", "1e3"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({variable: value})


def test_several_processes_are_refused_until_they_share_their_counters() -> None:
    with pytest.raises(SettingsError, match="counters in one process"):
        Settings.from_environment({"COMPTROLLER_WORKERS": "2"})


def test_an_empty_environment_means_sqlite_in_the_data_folder() -> None:
    assert Settings.from_environment({}).database_url == "sqlite:///var/comptroller.sqlite3"
