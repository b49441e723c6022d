"""One spelling of a JSON value, so that equal values have equal hashes."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> bytes:
    """Write a value as JSON with sorted member names and without spaces."""
    return _ENCODER.encode(value)


def canonical_hash(value: Any) -> str:
    """Hash the canonical JSON of a value; 64 hexadecimal digits of SHA-256."""
    return sha256(canonical_json(value)).hexdigest()
