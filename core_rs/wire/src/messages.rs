//! The messages of a chat-completions request: their form, and what their bytes do not bound.
//!
//! Only fields of the tables below pass. A provider could take an image from a member of a text
//! part, or content from a `Content` that we read as unknown, and bill what nobody priced.
use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::chat::MESSAGES_MAX;
use crate::cursor::{Cursor, Key};
use crate::error::{Code, WireError};
use crate::keys::Place;

/// Fields of a message whose cost their own bytes bound.
const MESSAGE_FIELDS: [&str; 12] = [
    "annotations",
    "cache_control",
    "function_call",
    "name",
    "partial",
    "prefix",
    "reasoning",
    "reasoning_content",
    "refusal",
    "tool_call_id",
    "tool_calls",
    "weight",
];
/// The same for a part that is text.
const TEXT_PART_FIELDS: [&str; 3] = ["cache_control", "refusal", "text"];
const TEXT_PART_TYPES: [&str; 2] = ["text", "refusal"];
/// Longest kind of content part that is reported by name.
const PART_TYPE_BYTES_MAX: usize = 64;
/// Distinct kinds that are reported.
const PART_TYPES_MAX: usize = 16;

/// Reads messages and keeps what admission asks.
#[derive(Default)]
pub(crate) struct MessagesReader {
    pub(crate) messages: usize,
    pub(crate) unbounded_parts: BTreeSet<String>,
}

impl MessagesReader {
    /// Read the whole list.
    pub(crate) fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'[') {
            return Err(cursor.invalid("messages must be a list"));
        }
        cursor.array(|cursor, index| {
            check_count(cursor, index)?;
            self.messages = index.saturating_add(1);
            self.message(cursor)
        })?;
        if self.messages == 0 {
            let message = "messages must not be empty";
            return Err(WireError::new(Code::InvalidValue, message, 0));
        }
        Ok(())
    }

    fn message(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("a message must be an object"));
        }
        let start = cursor.at();
        let mut has_role = false;
        let mut unknown = None;
        cursor.object(Place::Folded, MESSAGES_MAX, |cursor, key| {
            match key.name.as_ref() {
                "role" => {
                    has_role = true;
                    read_string(cursor, "the role must be a string").map(drop)
                }
                "content" => self.content(cursor),
                "audio" => self.earlier_audio(cursor),
                name => {
                    if !MESSAGE_FIELDS.contains(&name) {
                        note_unknown(&mut unknown, key);
                    }
                    cursor.skip(Place::Folded)
                }
            }
        })?;
        if !has_role {
            let error = WireError::new(Code::InvalidValue, "a message needs a role", start);
            return Err(error.within_key("role"));
        }
        unknown.map_or(Ok(()), Err)
    }

    fn content(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        match cursor.peek() {
            Some(b'"') => cursor.skip(Place::Folded),
            Some(b'[') => cursor.array(|cursor, index| {
                check_count(cursor, index)?;
                self.part(cursor)
            }),
            _ if cursor.take_null() => Ok(()),
            _ => Err(cursor.invalid("content must be a string, a list of parts or null")),
        }
    }

    fn part(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("a content part must be an object"));
        }
        let start = cursor.at();
        let mut kind = None;
        let mut unknown = None;
        cursor.object(Place::Folded, MESSAGES_MAX, |cursor, key| {
            if key.name == "type" {
                kind = Some(read_string(cursor, "the type of a part must be a string")?);
                return Ok(());
            }
            if !TEXT_PART_FIELDS.contains(&key.name.as_ref()) {
                note_unknown(&mut unknown, key);
            }
            cursor.skip(Place::Folded)
        })?;
        let Some(kind) = kind else {
            let error = WireError::new(Code::InvalidValue, "a part needs a type", start);
            return Err(error.within_key("type"));
        };
        if TEXT_PART_TYPES.contains(&kind.as_ref()) {
            return unknown.map_or(Ok(()), Err);
        }
        self.report(&kind);
        Ok(())
    }

    /// An assistant message may name audio the provider kept: its tokens are not in the request.
    fn earlier_audio(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.take_null() {
            return Ok(());
        }
        self.report("audio");
        cursor.skip(Place::Folded)
    }

    fn report(&mut self, kind: &str) {
        if self.unbounded_parts.len() >= PART_TYPES_MAX {
            return;
        }
        let is_nameable = kind.len() <= PART_TYPE_BYTES_MAX && !kind.chars().any(char::is_control);
        self.unbounded_parts
            .insert(String::from(if is_nameable { kind } else { "unknown" }));
    }
}

/// Keep the first unknown field: whether it matters is known at the end of its object.
fn note_unknown(unknown: &mut Option<WireError>, key: &Key<'_>) {
    unknown.get_or_insert_with(|| unknown_field(key));
}

/// Make the error of a field that no table knows.
pub(crate) fn unknown_field(key: &Key<'_>) -> WireError {
    let message = "the field is not supported; its effect on the cost is not known";
    WireError::new(Code::UnsupportedParameter, message, key.start).within_key(&key.name)
}

/// Refuse lists that are too long.
pub(crate) fn check_count(cursor: &Cursor<'_>, index: usize) -> Result<(), WireError> {
    if index < MESSAGES_MAX {
        return Ok(());
    }
    Err(cursor.invalid(format!("more than {MESSAGES_MAX} items")))
}

/// Read a string, or say what should have been one.
pub(crate) fn read_string<'a>(
    cursor: &mut Cursor<'a>,
    message: &'static str,
) -> Result<Cow<'a, str>, WireError> {
    if cursor.peek() == Some(b'"') {
        cursor.string()
    } else {
        Err(cursor.invalid(message))
    }
}
