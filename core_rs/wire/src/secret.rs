//! Secrets that callers carry: the digits that end one, and what is looked up in its place.
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Digits of a checksum: the least number of base62 digits that holds 32 bits.
pub const CHECK_DIGITS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Return the CRC-32 (IEEE 802.3) of all that stands before it, in base62, most significant first.
#[must_use]
pub fn secret_checksum(stem: &str) -> String {
    let mut rest = crc32fast::hash(stem.as_bytes());
    let mut digits = [b'0'; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        let at = usize::try_from(rest % 62).unwrap_or_default();
        *digit = DIGITS.get(at).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

/// Return the HMAC-SHA256 (RFC 2104) of a secret under a pepper of any length.
#[must_use]
pub fn secret_digest(pepper: &[u8], secret: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // A pepper of any length is a key, so the error of a wrong length cannot come.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(pepper) {
        mac.update(secret);
        digest = mac.finalize().into_bytes().into();
    }
    digest
}
