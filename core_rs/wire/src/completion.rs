//! What a chat completion says about itself, in one piece or chunk by chunk.
use std::collections::BTreeMap;

use crate::cursor::{Cursor, MEMBERS_MAX};
use crate::error::WireError;
use crate::generated::{Channel, Generated};
use crate::keys::Place;
use crate::tokens::Vocabulary;
use crate::usage::{Usage, UsageFault, read_usage};

/// Choices of one answer that are looked at; more than the dialect allows (128).
pub const CHOICES_MAX: u32 = 256;
/// Longest name (model, finish reason) that is kept; the rest is cut off.
const NAME_CHARS_MAX: usize = 256;
/// Members of a delta whose strings nobody generated, or not as text.
const NOT_TEXT: [&str; 9] = [
    "role",
    "id",
    "type",
    "index",
    "format",
    "data",
    "signature",
    "annotations",
    "expires_at",
];

/// Where the text of a choice stands.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    Chunk,
    Whole,
}

/// A range of the JSON text that can be cut out, leaving JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What relaying must know of one object.
#[derive(Default)]
pub(crate) struct Envelope {
    /// The `usage` member with one comma.
    pub(crate) usage_cut: Option<Cut>,
    /// Whether there is nothing in it but usage.
    pub(crate) is_usage_only: bool,
}

/// Facts gathered over all objects of one answer.
pub(crate) struct Completion {
    pub(crate) usage: Option<Usage>,
    pub(crate) usage_fault: Option<UsageFault>,
    pub(crate) model: Option<String>,
    pub(crate) finish_reasons: BTreeMap<u32, String>,
    pub(crate) upstream_error: Option<String>,
    pub(crate) generated: Generated,
}

/// What one object says at its top.
#[derive(Default)]
struct Top {
    last_end: Option<usize>,
    cut: Option<Cut>,
    /// The cut starts at the first member and must reach to the next key.
    is_cut_open: bool,
    has_usage: bool,
    choices: Option<usize>,
}

impl Completion {
    pub(crate) fn new(vocabulary: Option<Vocabulary>) -> Self {
        Self {
            usage: None,
            usage_fault: None,
            model: None,
            finish_reasons: BTreeMap::new(),
            upstream_error: None,
            generated: Generated::new(vocabulary),
        }
    }

    /// Read one object.
    pub(crate) fn read(&mut self, text: &str, shape: Shape) -> Result<Envelope, WireError> {
        let mut cursor = Cursor::within(text, 0);
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("an object was expected"));
        }
        let mut top = Top::default();
        let generated_bytes = self.generated.bytes();
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            top.close_cut(key.start);
            let start = cursor.at();
            match key.name.as_ref() {
                "usage" => top.has_usage = self.usage(cursor)?,
                "model" => self.model(cursor)?,
                "choices" => top.choices = self.choices(cursor, shape, text)?,
                "error" => self.error(cursor, start)?,
                _ => cursor.skip(Place::Exact)?,
            }
            top.end_member(key.name == "usage", key.start, cursor.at());
            Ok(())
        })?;
        cursor.end()?;
        if !top.has_usage && self.generated.bytes() > generated_bytes {
            // A usage reported before more was generated is not the last word.
            self.usage = None;
        }
        Ok(Envelope {
            usage_cut: top.cut,
            is_usage_only: top.has_usage && top.choices == Some(0),
        })
    }

    fn usage(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, WireError> {
        if cursor.take_null() {
            return Ok(false);
        }
        match read_usage(cursor)? {
            Ok(usage) => self.usage = Some(usage),
            Err(fault) => self.usage_fault = Some(fault),
        }
        Ok(true)
    }

    fn model(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'"') || self.model.is_some() {
            return cursor.skip(Place::Exact);
        }
        self.model = Some(shortened(&cursor.string()?));
        Ok(())
    }

    fn error(&mut self, cursor: &mut Cursor<'_>, start: usize) -> Result<(), WireError> {
        if cursor.take_null() {
            return Ok(());
        }
        cursor.skip(Place::Exact)?;
        let error = cursor.slice(start, cursor.at());
        self.upstream_error
            .get_or_insert_with(|| String::from(error));
        Ok(())
    }

    /// Read the choices and give their number; None if they are no list.
    fn choices(
        &mut self,
        cursor: &mut Cursor<'_>,
        shape: Shape,
        text: &str,
    ) -> Result<Option<usize>, WireError> {
        if cursor.peek() != Some(b'[') {
            return cursor.skip(Place::Exact).map(|()| None);
        }
        let mut count = 0_usize;
        cursor.array(|cursor, position| {
            count = position.saturating_add(1);
            if cursor.peek() == Some(b'{') {
                self.choice(cursor, shape, text, position)
            } else {
                Err(cursor.invalid("a choice must be an object"))
            }
        })?;
        Ok(Some(count))
    }

    fn choice(
        &mut self,
        cursor: &mut Cursor<'_>,
        shape: Shape,
        text: &str,
        position: usize,
    ) -> Result<(), WireError> {
        let mut index = u32::try_from(position).unwrap_or(u32::MAX);
        let mut message_at = None;
        let mut finish_reason = None;
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            match (key.name.as_ref(), shape) {
                ("index", _) => read_index(cursor).map(|read| index = read.unwrap_or(index)),
                ("finish_reason", _) if cursor.peek() == Some(b'"') => cursor
                    .string()
                    .map(|reason| finish_reason = Some(shortened(&reason))),
                ("delta", Shape::Chunk) | ("message", Shape::Whole) => {
                    message_at = Some(cursor.at());
                    cursor.skip(Place::Exact)
                }
                _ => cursor.skip(Place::Exact),
            }
        })?;
        if let Some(reason) =
            finish_reason.filter(|_| self.finish_reasons.len() < CHOICES_MAX as usize)
        {
            self.finish_reasons.insert(index, reason);
        }
        // Only now is it certain which choice the text belongs to.
        message_at.map_or(Ok(()), |at| {
            self.message(&mut Cursor::within(text, at), index)
        })
    }

    fn message(&mut self, cursor: &mut Cursor<'_>, choice: u32) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            return cursor.skip(Place::Exact);
        }
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            match key.name.as_ref() {
                "tool_calls" if cursor.peek() == Some(b'[') => cursor.array(|cursor, position| {
                    self.tool_call(cursor, choice, u32::try_from(position).unwrap_or(u32::MAX))
                }),
                "function_call" => self.tool_call(cursor, choice, 0),
                name if NOT_TEXT.contains(&name) => cursor.skip(Place::Exact),
                "content" => self.texts(cursor, choice, Channel::Content),
                "refusal" => self.texts(cursor, choice, Channel::Refusal),
                _ => self.texts(cursor, choice, Channel::Reasoning),
            }
        })
    }

    /// Read a tool call: `{index, id, type, function: {name, arguments}}`, or the inner object.
    fn tool_call(
        &mut self,
        cursor: &mut Cursor<'_>,
        choice: u32,
        position: u32,
    ) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            return self.texts(cursor, choice, Channel::ToolInput(position));
        }
        let mut call = position;
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            match key.name.as_ref() {
                "index" => read_index(cursor).map(|read| call = read.unwrap_or(call)),
                "name" => self.texts(cursor, choice, Channel::ToolName(call)),
                name if NOT_TEXT.contains(&name) => cursor.skip(Place::Exact),
                _ if cursor.peek() == Some(b'{') => self.tool_call(cursor, choice, call),
                _ => self.texts(cursor, choice, Channel::ToolInput(call)),
            }
        })
    }

    fn texts(
        &mut self,
        cursor: &mut Cursor<'_>,
        choice: u32,
        channel: Channel,
    ) -> Result<(), WireError> {
        cursor.texts(&NOT_TEXT, &mut |text| {
            self.generated.push(choice, channel, text);
        })
    }
}

impl Top {
    fn close_cut(&mut self, next_key_start: usize) {
        if let Some(cut) = self.cut.as_mut().filter(|_| self.is_cut_open) {
            cut.end = next_key_start;
            self.is_cut_open = false;
        }
    }

    fn end_member(&mut self, is_usage: bool, key_start: usize, end: usize) {
        if is_usage {
            self.is_cut_open = self.last_end.is_none();
            self.cut = Some(Cut {
                start: self.last_end.unwrap_or(key_start),
                end,
            });
        }
        self.last_end = Some(end);
    }
}

fn read_index(cursor: &mut Cursor<'_>) -> Result<Option<u32>, WireError> {
    if !matches!(cursor.peek(), Some(b'-' | b'0'..=b'9')) {
        return cursor.skip(Place::Exact).map(|()| None);
    }
    Ok(cursor.number()?.parse().ok())
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}
