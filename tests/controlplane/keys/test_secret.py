"""Secrets: their form, their checksum, what is stored of them."""

from __future__ import annotations

import hmac
import stat
import zlib
from hashlib import sha256

import pytest

from controlplane.keys.secret import (
    PepperError,
    SecretKind,
    digest,
    kind_of,
    load_or_create_pepper,
    new_secret,
)

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KNOWN = "ck_live_0123456789ABCDEFGHIJKLMNOPQRST1dPbGh"
KNOWN_DIGEST = "f9afa73ce759bcb184056b6691029dfcd1397e07b332dacdfabd5e52eae24a66"


def test_a_known_sequence_of_bytes_makes_a_known_secret() -> None:
    assert new_secret(SecretKind.LIVE_KEY, lambda count: bytes(range(count))) == KNOWN


def test_the_digest_is_hmac_sha256_under_the_pepper() -> None:
    pepper = bytes(range(32))
    assert digest(KNOWN, pepper).hex() == KNOWN_DIGEST
    assert digest(KNOWN, pepper) == hmac.new(pepper, KNOWN.encode(), sha256).digest()


def test_the_last_six_digits_are_the_crc32_of_what_is_before_them() -> None:
    value = 0
    for digit in KNOWN[-6:]:
        value = value * 62 + BASE62.index(digit)
    assert value == zlib.crc32(KNOWN[:-6].encode())


@pytest.mark.parametrize("kind", list(SecretKind))
def test_a_new_secret_is_recognised_by_its_kind(kind: SecretKind) -> None:
    secret = new_secret(kind)
    assert len(secret) == len(kind.value) + 36
    assert kind_of(secret) is kind


@pytest.mark.parametrize("place", range(len("ck_live_"), len(KNOWN)))
def test_one_wrong_digit_anywhere_fails_the_checksum(place: int) -> None:
    other = "a" if KNOWN[place] != "a" else "b"
    assert kind_of(KNOWN[:place] + other + KNOWN[place + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ck_live_",
        KNOWN[:-1],
        KNOWN + "0",
        KNOWN.replace("ck_live_", "ck_test_"),
        KNOWN[:-1] + "é",
        " " + KNOWN,
    ],
)
def test_other_text_is_no_secret(text: str) -> None:
    assert kind_of(text) is None


def test_bytes_that_would_favour_some_digits_are_thrown_away() -> None:
    calls = iter([bytes([248] * 30), bytes(range(30))])
    assert new_secret(SecretKind.LIVE_KEY, lambda _count: next(calls)) == KNOWN


def test_the_pepper_is_made_once_and_only_its_owner_can_read_it(tmp_path) -> None:
    pepper = load_or_create_pepper(tmp_path / "data")
    assert len(pepper) == 32
    assert load_or_create_pepper(tmp_path / "data") == pepper
    assert stat.S_IMODE((tmp_path / "data" / "pepper").stat().st_mode) == 0o600
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["pepper"]


def test_a_damaged_pepper_is_refused_and_kept(tmp_path) -> None:
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(PepperError, match="must hold 32 bytes, it holds 5"):
        load_or_create_pepper(tmp_path)
    assert (tmp_path / "pepper").read_bytes() == b"short"
