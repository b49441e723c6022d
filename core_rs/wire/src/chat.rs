//! What admission needs to know about the input of a chat-completions request.
//!
//! # Why bytes bound the tokens
//! A byte-level BPE token stands for at least one byte of text, and these tokenizers do not
//! normalise, so a text has at most as many tokens as UTF-8 bytes. An escape in JSON is never
//! shorter than what it stands for (`\n` 2 for 1 byte, `\u00e9` 6 for 2, a surrogate pair 12 for
//! 4), so the raw JSON is at least as long as all its strings together; its punctuation and keys
//! (19 bytes and more a message) come on top. What the provider adds is covered by the allowances
//! below. Images, audio and files are not bounded by the bytes that name them: they are reported.
use std::collections::BTreeSet;

use crate::cursor::Cursor;
use crate::error::{Code, WireError};
use crate::keys::Place;
use crate::tokens::Vocabulary;

/// Most messages of a request, and most parts of a message.
pub const MESSAGES_MAX: usize = 4096;
/// Longest kind of content part that is reported by name.
const PART_TYPE_BYTES_MAX: usize = 64;
/// Distinct kinds that are reported.
const PART_TYPES_MAX: usize = 16;

/// Tokens around each message: 3, and 4 on `gpt-3.5-turbo-0301`.
/// Source of these three: `OpenAI` cookbook, "How to count tokens with tiktoken".
const MESSAGE_TOKENS: u64 = 4;
/// Tokens of a `name` beside its text.
const NAME_TOKENS: u64 = 1;
/// Tokens that open the answer (`<|start|>assistant<|message|>`).
const PRIMING_TOKENS: u64 = 3;
/// Tokens of the text that providers write around tool definitions. Not published; the largest
/// form that leaked (a wrapper for parallel calls) is below 200. The definitions themselves are
/// rendered shorter than their JSON, so their bytes bound them.
const TOOLS_TOKENS: u64 = 256;
/// The same for a response format.
const RESPONSE_FORMAT_TOKENS: u64 = 64;

/// The parts of a request that are billed as input, as raw JSON.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    /// The value of `messages`.
    pub messages: &'a [u8],
    /// Length of the value of `tools`, if it is there.
    pub tools_bytes: Option<usize>,
    /// Length of the value of `response_format`, if it is there.
    pub response_format_bytes: Option<usize>,
}

/// Facts of a chat input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatFacts {
    /// Number of messages, 1 to [`MESSAGES_MAX`].
    pub message_count: usize,
    /// Tokens the input cannot exceed on a byte-level tokenizer, if it is text only.
    pub input_tokens_max: u64,
    /// Kinds of content whose tokens their bytes do not bound.
    pub unbounded_parts: BTreeSet<String>,
}

/// Check the messages and bound their tokens.
///
/// # Errors
/// `invalid_value` if they are not a list of 1 to [`MESSAGES_MAX`] objects, each with a string
/// `role` and a `content` that is a string, a list of parts with a string `type`, null or absent.
pub fn chat_facts(input: ChatInput<'_>) -> Result<ChatFacts, WireError> {
    let mut reader = MessagesReader::default();
    let mut cursor = Cursor::new(input.messages)?;
    reader
        .read(&mut cursor)
        .map_err(|error| error.within_key("messages"))?;
    cursor.end()?;
    let frames = tokens(reader.messages).saturating_mul(MESSAGE_TOKENS);
    let texts = tokens(input.messages.len())
        .saturating_add(frames)
        .saturating_add(PRIMING_TOKENS);
    Ok(ChatFacts {
        message_count: reader.messages,
        input_tokens_max: texts.saturating_add(definition_tokens(input)),
        unbounded_parts: reader.unbounded_parts,
    })
}

/// Count the tokens of a chat input: texts by BPE, the rest by allowances and bytes.
///
/// Every string and number in the messages counts, also ids and image addresses, which providers
/// do not show to the model as text. Never above [`ChatFacts::input_tokens_max`].
///
/// # Errors
/// As [`chat_facts`].
pub fn count_chat_tokens(vocabulary: Vocabulary, input: ChatInput<'_>) -> Result<u64, WireError> {
    let facts = chat_facts(input)?;
    let mut cursor = Cursor::new(input.messages)?;
    let mut texts = 0_u64;
    let mut names = 0_u64;
    cursor.array(|cursor, _| {
        cursor.object(Place::Folded, MESSAGES_MAX, |cursor, key| {
            names = names.saturating_add(u64::from(key.name == "name"));
            let start = cursor.at();
            cursor.texts(&[], &mut |text| {
                texts = texts.saturating_add(vocabulary.count(text));
            })?;
            // Numbers and the like have no text of their own: by bytes, if they stand alone.
            let raw = cursor.slice(start, cursor.at());
            let is_scalar = !raw.starts_with(['"', '{', '[']);
            texts = texts.saturating_add(if is_scalar { tokens(raw.len()) } else { 0 });
            Ok(())
        })
    })?;
    let frames = tokens(facts.message_count).saturating_mul(MESSAGE_TOKENS);
    let allowances = names
        .saturating_mul(NAME_TOKENS)
        .saturating_add(PRIMING_TOKENS);
    let counted = texts.saturating_add(frames).saturating_add(allowances);
    Ok(counted.saturating_add(definition_tokens(input)))
}

fn definition_tokens(input: ChatInput<'_>) -> u64 {
    let by_bytes = |bytes: Option<usize>, allowance: u64| {
        bytes.map_or(0, |bytes| tokens(bytes).saturating_add(allowance))
    };
    by_bytes(input.tools_bytes, TOOLS_TOKENS).saturating_add(by_bytes(
        input.response_format_bytes,
        RESPONSE_FORMAT_TOKENS,
    ))
}

fn tokens(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct MessagesReader {
    messages: usize,
    unbounded_parts: BTreeSet<String>,
}

impl MessagesReader {
    fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'[') {
            return Err(cursor.invalid("messages must be a list"));
        }
        cursor.array(|cursor, index| {
            check_count(cursor, index)?;
            self.messages = index.saturating_add(1);
            self.message(cursor)
        })?;
        if self.messages == 0 {
            return Err(WireError::new(
                Code::InvalidValue,
                "messages must not be empty",
                0,
            ));
        }
        Ok(())
    }

    fn message(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("a message must be an object"));
        }
        let start = cursor.at();
        let mut has_role = false;
        cursor.object(Place::Folded, MESSAGES_MAX, |cursor, key| {
            match key.name.as_ref() {
                "role" => {
                    has_role = true;
                    read_string(cursor, "the role must be a string").map(drop)
                }
                "content" => self.content(cursor),
                "audio" => self.earlier_audio(cursor),
                _ => cursor.skip(Place::Folded),
            }
        })?;
        if has_role {
            return Ok(());
        }
        Err(WireError::new(Code::InvalidValue, "a message needs a role", start).within_key("role"))
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
        let mut has_type = false;
        cursor.object(Place::Folded, MESSAGES_MAX, |cursor, key| {
            if key.name != "type" {
                return cursor.skip(Place::Folded);
            }
            has_type = true;
            let kind = read_string(cursor, "the type of a part must be a string")?;
            if kind != "text" && kind != "refusal" {
                self.report(&kind);
            }
            Ok(())
        })?;
        if has_type {
            return Ok(());
        }
        Err(WireError::new(Code::InvalidValue, "a part needs a type", start).within_key("type"))
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

fn check_count(cursor: &Cursor<'_>, index: usize) -> Result<(), WireError> {
    if index < MESSAGES_MAX {
        return Ok(());
    }
    Err(cursor.invalid(format!("more than {MESSAGES_MAX} items")))
}

fn read_string<'a>(
    cursor: &mut Cursor<'a>,
    message: &'static str,
) -> Result<std::borrow::Cow<'a, str>, WireError> {
    if cursor.peek() == Some(b'"') {
        cursor.string()
    } else {
        Err(cursor.invalid(message))
    }
}
