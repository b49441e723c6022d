//! A chat-completions answer in one piece.
use std::collections::BTreeMap;

use crate::completion::{Completion, Shape};
use crate::error::{Code, WireError};
use crate::tokens::Vocabulary;
use crate::usage::{Usage, UsageFault};

/// What an answer says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatAnswer {
    /// The usage, if it could be believed.
    pub usage: Option<Usage>,
    /// Why it was not taken, if one was sent.
    pub usage_fault: Option<UsageFault>,
    /// The model it names.
    pub model: Option<String>,
    /// Finish reason by choice index.
    pub finish_reasons: BTreeMap<u32, String>,
    /// The JSON of an `error` member.
    pub upstream_error: Option<String>,
    /// UTF-8 bytes of everything generated.
    pub generated_bytes: u64,
    /// Our own count of the visible tokens, made only where the usage is missing.
    pub generated_tokens: Option<u64>,
}

/// Read the JSON answer of a call that did not stream.
///
/// # Errors
/// `upstream_bad_response` if it is no JSON object.
pub fn parse_chat_answer(
    body: &[u8],
    vocabulary: Option<Vocabulary>,
) -> Result<ChatAnswer, WireError> {
    let text = std::str::from_utf8(body).map_err(|fault| {
        WireError::new(
            Code::UpstreamBadResponse,
            "not valid UTF-8",
            fault.valid_up_to(),
        )
    })?;
    let mut completion = Completion::new(vocabulary);
    completion
        .read(text, Shape::Whole)
        .map_err(WireError::into_upstream)?;
    let is_counted = completion.usage.is_none();
    Ok(ChatAnswer {
        usage: completion.usage,
        usage_fault: completion.usage_fault,
        generated_bytes: completion.generated.bytes(),
        generated_tokens: is_counted.then(|| completion.generated.tokens()),
        model: completion.model,
        finish_reasons: completion.finish_reasons,
        upstream_error: completion.upstream_error,
    })
}
