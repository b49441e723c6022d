//! The tools of a chat-completions request: only those that the caller runs itself.
//!
//! A tool that the provider runs (a search, a code interpreter) has fees and reads texts of its
//! own, which nothing in the request bounds.
use crate::cursor::Cursor;
use crate::error::{Code, WireError};
use crate::keys::Place;
use crate::messages::{check_count, read_string, unknown_field};

const TOOL_FIELDS_MAX: usize = 64;
/// Fields of a tool beside its type; their bytes bound what they cost.
const TOOL_FIELDS: [&str; 3] = ["cache_control", "custom", "function"];
/// Tools that the caller runs.
const TOOL_TYPES: [&str; 2] = ["function", "custom"];

/// Check the value of `tools`.
///
/// # Errors
/// `invalid_value` if it is not null or a list of objects with a string `type`;
/// `unsupported_parameter` for a field of a tool that no table knows; `cost_not_bounded` for a
/// tool that the provider runs.
pub fn check_tools(tools: &[u8]) -> Result<(), WireError> {
    let mut cursor = Cursor::new(tools)?;
    read(&mut cursor).map_err(|error| error.within_key("tools"))
}

fn read(cursor: &mut Cursor<'_>) -> Result<(), WireError> {
    if cursor.take_null() {
        return Ok(());
    }
    if cursor.peek() != Some(b'[') {
        return Err(cursor.invalid("tools must be a list"));
    }
    cursor.array(|cursor, index| {
        check_count(cursor, index)?;
        tool(cursor)
    })
}

fn tool(cursor: &mut Cursor<'_>) -> Result<(), WireError> {
    if cursor.peek() != Some(b'{') {
        return Err(cursor.invalid("a tool must be an object"));
    }
    let start = cursor.at();
    let mut kind = None;
    let mut unknown = None;
    cursor.object(Place::Tool, TOOL_FIELDS_MAX, |cursor, key| {
        if key.name == "type" {
            kind = Some(read_string(cursor, "the type of a tool must be a string")?);
            return Ok(());
        }
        if !TOOL_FIELDS.contains(&key.name.as_ref()) {
            unknown.get_or_insert_with(|| unknown_field(key));
        }
        cursor.skip(Place::Tool.member(&key.name))
    })?;
    let Some(kind) = kind else {
        let error = WireError::new(Code::InvalidValue, "a tool needs a type", start);
        return Err(error.within_key("type"));
    };
    if !TOOL_TYPES.contains(&kind.as_ref()) {
        let message = "tools that the provider runs have costs that nothing here bounds";
        return Err(WireError::new(Code::CostNotBounded, message, start).within_key("type"));
    }
    unknown.map_or(Ok(()), Err)
}
