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
use crate::error::WireError;
use crate::keys::Place;
use crate::messages::MessagesReader;
use crate::tokens::Vocabulary;

/// Most messages of a request, and most parts of a message.
pub const MESSAGES_MAX: usize = 4096;

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
/// `role` and a `content` that is a string, a list of parts with a string `type`, null or absent;
/// `unsupported_parameter` for a field of a message or a text part that no table knows.
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
