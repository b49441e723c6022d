use comptroller_wire::{CHECK_DIGITS, secret_checksum, secret_digest};

const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Read base62 digits; no number for anything else.
fn base62(text: &str) -> Option<u64> {
    text.chars().try_fold(0_u64, |sum, digit| {
        let value = u64::try_from(DIGITS.find(digit)?).ok()?;
        sum.checked_mul(62)?.checked_add(value)
    })
}

/// Read hexadecimal digits; no bytes for anything else.
fn bytes(text: &str) -> Option<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at.checked_add(2)?)?, 16).ok())
        .collect()
}

#[test]
fn the_checksum_is_the_crc_32_in_base62() {
    // The check value of CRC-32/ISO-HDLC.
    assert_eq!(base62(&secret_checksum("123456789")), Some(0xCBF4_3926));
    assert_eq!(secret_checksum(""), "0".repeat(CHECK_DIGITS));
}

#[test]
fn the_digest_is_that_of_rfc_4231() {
    // RFC 4231, test cases 2 and 6 (a key longer than a block).
    let vectors: [(&[u8], &[u8], &str); 2] = [
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ];
    for (pepper, secret, digest) in vectors {
        assert_eq!(Some(secret_digest(pepper, secret).to_vec()), bytes(digest));
    }
}
