"""Optimistic locking: an edit names the version its author has seen."""

from __future__ import annotations

from controlplane.errors import StaleVersion, Subject


def check_version(
    version: int | None, expected_version: int | None, subject: Subject | None
) -> None:
    """Refuse an edit by one who has not seen the latest version; None: there is no object.

    Raises `StaleVersion`.
    """
    if version == expected_version:
        return
    if version is None:
        raise StaleVersion("It does not exist (any more).")
    if expected_version is None:
        raise StaleVersion(
            f"It exists, at version {version}; send that as expectedVersion to change it.",
            current=subject,
        )
    raise StaleVersion(f"It has changed since: it is at version {version}.", current=subject)
