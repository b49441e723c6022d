"""All settings of a process, read from its environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from controlplane.settings import (
    ControlSettings,
    SettingsError,
    read_settings,
    setting,
    sqlite_url,
    whole_number,
)
from proxy.settings import ProxySettings


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens, and with how many processes."""

    host: str = setting("HOST", "Address to listen on.", default="127.0.0.1")
    port: int = setting(
        "PORT", "TCP port to listen on.", default=8080, parse=whole_number(0, 65_535)
    )
    workers: int = setting(
        "WORKERS",
        "Processes that serve requests; more than one needs `REDIS_URL`.",
        default=1,
        parse=whole_number(1, 256),
    )
    redis_url: str = setting(
        "REDIS_URL", "`redis://…`; empty means one process with its counters in memory.", default=""
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of both planes and of the server."""

    server: ServerSettings
    control: ControlSettings
    proxy: ProxySettings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read every `COMPTROLLER_*` variable.

        Raises `SettingsError` for a value that cannot be used or does not go with another.
        """
        settings = cls(
            server=read_settings(ServerSettings, environment),
            control=read_settings(ControlSettings, environment),
            proxy=read_settings(ProxySettings, environment),
        )
        settings._check()
        return settings

    @property
    def database_url(self) -> str:
        """The database that is used: the one named, else the file in the data folder."""
        named = self.control.database_url
        return named or sqlite_url(self.control.data_dir / "comptroller.sqlite3")

    def _check(self) -> None:
        if self.server.workers > 1:
            raise SettingsError(
                "COMPTROLLER_WORKERS is more than 1, but this version keeps its counters in one "
                "process: several would each grant the whole of every limit. Set it to 1."
            )


SETTINGS_CLASSES = (ServerSettings, ControlSettings, ProxySettings)


def settings_page() -> str:
    """Print the reference page of all settings as Markdown."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. This page is printed from the code by",
        "`comptroller export-settings`; a test fails when it is stale.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for kind in SETTINGS_CLASSES:
        for each in fields(kind):
            default = _spelled(each.default)
            lines.append(
                f"| `{each.metadata['variable']}` | {f'`{default}`' if default else 'none'} "
                f"| {each.metadata['doc']} |"
            )
    return "\n".join(lines) + "\n"


def _spelled(default: object) -> str:
    """Write a default as it would stand in the environment; nothing for none."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default else ("0" if default == 0 else "")
