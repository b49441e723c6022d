"""Trusted documents: what clients may ask for by the id of a document they were built with.

The manifest is a JSON object from id to document, as graphql-codegen's client preset writes it. An
id is the SHA-256 of its document in hexadecimal, or any other short name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from graphql import GraphQLSchema

from controlplane.api.documents import prepare
from controlplane.api.operation import OperationBody, RequestError
from controlplane.settings import SettingsError

TRUSTED_DOCUMENTS_MAX = 5_000
TRUSTED_FILE_BYTES_MAX = 16 << 20
_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True)
class TrustedDocuments:
    """Documents by id; when `only`, no other is answered."""

    by_id: Mapping[str, str] = field(default_factory=dict)
    only: bool = False

    def text_of(self, body: OperationBody) -> str:
        """Find the document of a request.

        Raises `RequestError` when there is none, or it is not trusted where only those are.
        """
        name = _document_id(body)
        if name is not None:
            known = self.by_id.get(name.removeprefix(_PREFIX))
            if known is None:
                raise RequestError(400, "There is no trusted document with this id.")
            return known
        if body.query is None:
            raise RequestError(400, "Send a document as `query`.")
        if self.only and body.query not in self.by_id.values():
            raise RequestError(403, "Only trusted documents are answered here.", code="FORBIDDEN")
        return body.query


def load_trusted_documents(
    path: Path | None, schema: GraphQLSchema, *, only: bool
) -> TrustedDocuments:
    """Read a manifest; each document must be valid.

    Raises `SettingsError` saying which file or document cannot be used and why.
    """
    if path is None:
        if only:
            raise SettingsError(
                "COMPTROLLER_TRUSTED_DOCUMENTS_ONLY needs COMPTROLLER_TRUSTED_DOCUMENTS_FILE."
            )
        return TrustedDocuments()
    by_id = _read(path)
    for name, text in by_id.items():
        errors = prepare(schema, text).errors
        if errors:
            raise SettingsError(f"{path}: the document {name!r} is not valid: {errors[0].message}")
    return TrustedDocuments(by_id, only)


def _read(path: Path) -> dict[str, str]:
    try:
        raw = path.read_bytes()
        if len(raw) > TRUSTED_FILE_BYTES_MAX:
            raise SettingsError(f"{path}: at most {TRUSTED_FILE_BYTES_MAX} bytes.")
        found = msgspec.json.decode(raw, type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if len(found) > TRUSTED_DOCUMENTS_MAX:
        raise SettingsError(f"{path}: at most {TRUSTED_DOCUMENTS_MAX} documents.")
    by_id = {name.removeprefix(_PREFIX): text for name, text in found.items()}
    for name, text in found.items():
        if by_id[name.removeprefix(_PREFIX)] != text:
            raise SettingsError(f"{path}: there are two documents {name.removeprefix(_PREFIX)!r}.")
    return by_id


def _document_id(body: OperationBody) -> str | None:
    """Read `documentId`, or what Apollo's clients send instead."""
    if body.document_id is not None:
        return body.document_id
    persisted = (body.extensions or {}).get("persistedQuery")
    name = persisted.get("sha256Hash") if isinstance(persisted, dict) else None
    return name if isinstance(name, str) and body.query is None else None
