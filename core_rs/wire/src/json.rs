//! The strict scan of a request body.
use crate::cursor::Cursor;
use crate::error::{Code, WireError};
use crate::keys::Place;

/// Most members at the top of a request body.
pub const TOP_MEMBERS_MAX: usize = 256;

/// A top-level member: its name after unescaping, and where its value stands in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name as the caller spelled it, unescaped.
    pub name: String,
    /// Offset of the first byte of the value.
    pub start: usize,
    /// Offset behind the last byte of the value.
    pub end: usize,
}

/// Check a whole request body and give its top-level members in order.
///
/// Refused on top of RFC 8259: byte order marks, lone surrogates, more than
/// [`crate::DEPTH_MAX`] levels, numbers longer than [`crate::NUMBER_BYTES_MAX`] or beyond a double,
/// keys with control characters, more than [`TOP_MEMBERS_MAX`] members at the top or
/// [`crate::MEMBERS_MAX`] elsewhere, and keys of one object that are equal after unescaping and case
/// folding (inside a tool's parameters, a response schema and metadata: equal after unescaping).
///
/// # Errors
/// `malformed_json`, `json_too_deep`, `duplicate_field`, `invalid_value`.
pub fn scan_object(body: &[u8]) -> Result<Vec<Member>, WireError> {
    let mut cursor = Cursor::new(body)?;
    check_top(&cursor)?;
    let mut members = Vec::with_capacity(16);
    cursor.object(Place::Top, TOP_MEMBERS_MAX, |cursor, key| {
        let start = cursor.at();
        cursor.skip(Place::Top.member(&key.name))?;
        members.push(Member {
            name: key.name.to_string(),
            start,
            end: cursor.at(),
        });
        Ok(())
    })?;
    cursor.end()?;
    Ok(members)
}

fn check_top(cursor: &Cursor<'_>) -> Result<(), WireError> {
    let malformed = |message: &'static str| Err(WireError::new(Code::MalformedJson, message, 0));
    match cursor.peek() {
        Some(b'{') => Ok(()),
        None => malformed("the body is empty"),
        Some(0xEF) => malformed("the body starts with a byte order mark or other text"),
        Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            Err(cursor.invalid("the body must be a JSON object"))
        }
        Some(_) => malformed("the body is not JSON"),
    }
}
