//! What the escapes in a JSON string stand for (RFC 8259, section 7).

/// Read four hexadecimal digits.
pub(crate) fn parse_code_unit(digits: &str) -> Option<u32> {
    // from_str_radix alone would accept a plus sign.
    let is_hexadecimal = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hexadecimal {
        u32::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// Unescape the inside of a string that was checked.
pub(crate) fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, escaped)) = rest.split_once('\\') {
        text.push_str(before);
        rest = unescape_one(escaped, &mut text);
    }
    text.push_str(rest);
    text
}

/// Read one escape behind its backslash and give what follows it.
fn unescape_one<'a>(escaped: &'a str, text: &mut String) -> &'a str {
    let mut rest = escaped.chars();
    let plain = match rest.next() {
        Some('u') => return unescape_unicode(rest.as_str(), text),
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some(other) => other,
        None => return "",
    };
    text.push(plain);
    rest.as_str()
}

fn unescape_unicode<'a>(digits: &'a str, text: &mut String) -> &'a str {
    let (high, rest) = split_code_unit(digits);
    if let Some(character) = char::from_u32(high) {
        text.push(character);
        return rest;
    }
    let (low, rest) = split_code_unit(rest.get(2..).unwrap_or_default());
    let units = [high, low].map(|unit| u16::try_from(unit).unwrap_or_default());
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    rest
}

fn split_code_unit(digits: &str) -> (u32, &str) {
    let (unit, rest) = digits.split_at_checked(4).unwrap_or((digits, ""));
    (parse_code_unit(unit).unwrap_or_default(), rest)
}
