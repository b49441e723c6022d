use comptroller_wire::{CHECK_DIGITS, secret_checksum, secret_digest};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_checksum_is_the_crc_32_in_base62() {
    // The check value of CRC-32/ISO-HDLC.
    let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let value = secret_checksum("123456789")
        .chars()
        .fold(0_u64, |sum, digit| {
            sum * 62 + u64::try_from(digits.find(digit).unwrap()).unwrap()
        });
    assert_eq!(value, 0xCBF4_3926);
    assert_eq!(secret_checksum(""), "0".repeat(CHECK_DIGITS));
}

#[test]
fn the_digest_is_that_of_rfc_4231() {
    // RFC 4231, test cases 2 and 6 (a key longer than a block).
    assert_eq!(
        hex(&secret_digest(b"Jefe", b"what do ya want for nothing?")),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
    assert_eq!(
        hex(&secret_digest(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First"
        )),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    );
}
