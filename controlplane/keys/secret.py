"""Secrets that callers carry: how they are made, checked without a look-up, and stored.

A secret is a prefix that says what it is for, 30 random base62 digits and 6 base62 digits of the
CRC-32 of all before them. Stored is only its HMAC-SHA256 under a pepper that the database never
sees; 178 random bits need no slow hash.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from controlplane.ids import RandomBytes
from core_rs import secret_checksum, secret_digest

RANDOM_DIGITS = 30
CHECK_DIGITS = 6
DIGITS = RANDOM_DIGITS + CHECK_DIGITS
PEPPER_BYTES = 32

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGIT_SET = frozenset(_DIGITS)
# Bytes from here on are thrown away, because 256 is no multiple of 62.
_FAIR_BYTE_END = 248


class SecretKind(StrEnum):
    """What a secret is for, by its prefix."""

    LIVE_KEY = "ck_live_"
    TEST_KEY = "ck_test_"
    ACCESS_TOKEN = "cpat_"  # noqa: S105  a prefix
    SERVICE = "csvc_"


_KINDS = {kind.value: kind for kind in SecretKind}


class PepperError(Exception):
    """The pepper file is not what this program wrote; without it no secret can be recognised."""


def new_secret(kind: SecretKind, random_bytes: RandomBytes = os.urandom) -> str:
    """Make a secret from random bytes."""
    stem = kind.value + _random_digits(RANDOM_DIGITS, random_bytes)
    return stem + secret_checksum(stem)


def kind_of(text: str) -> SecretKind | None:
    """Tell what a well-formed secret is for; None when malformed or its checksum is wrong."""
    kind = _KINDS.get(text[:-DIGITS])
    if kind is None or not _DIGIT_SET.issuperset(text[-DIGITS:]):
        return None
    return kind if secret_checksum(text[:-CHECK_DIGITS]) == text[-CHECK_DIGITS:] else None


def digest(secret: str, pepper: bytes) -> bytes:
    """Compute what is stored and looked up: HMAC-SHA256, 32 bytes."""
    return secret_digest(pepper, secret)


def load_or_create_pepper(data_dir: Path) -> bytes:
    """Read `data_dir/pepper`, or make it, readable by its owner alone.

    Raises `PepperError` when the file does not hold 32 bytes.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "pepper"
    if not path.exists():
        _create_pepper(path)
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise PepperError(f"{path} must hold {PEPPER_BYTES} bytes, it holds {len(pepper)}")
    return pepper


def _create_pepper(path: Path) -> None:
    """Write a new pepper aside and link it into place: of two starting processes one wins."""
    draft = path.with_name(f"pepper.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(PEPPER_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _random_digits(count: int, random_bytes: RandomBytes) -> str:
    digits = ""
    while len(digits) < count:
        fair = (each for each in random_bytes(count) if each < _FAIR_BYTE_END)
        digits += "".join(_DIGITS[each % len(_DIGITS)] for each in fair)
    return digits[:count]
