//! Reading what callers and providers send: strict JSON, SSE frames, token counts. No I/O.
//!
//! Both sides are untrusted. A caller's body is refused rather than repaired, because what was
//! priced must be what is forwarded; a provider's stream is relayed only as far as it is understood.
mod answer;
mod assembler;
mod chat;
mod completion;
mod cursor;
mod error;
mod escapes;
mod frames;
mod generated;
mod json;
mod keys;
mod merging;
mod messages;
mod secret;
mod stream;
mod tokens;
mod tools;
mod usage;

pub use answer::{ChatAnswer, parse_chat_answer};
pub use assembler::{AnswerAssembler, Identity};
pub use chat::{ChatFacts, ChatInput, MESSAGES_MAX, chat_facts, count_chat_tokens};
pub use completion::CHOICES_MAX;
pub use cursor::{DEPTH_MAX, MEMBERS_MAX, NUMBER_BYTES_MAX};
pub use error::{Code, WireError};
pub use generated::GENERATED_BYTES_MAX;
pub use json::{Member, TOP_MEMBERS_MAX, scan_object};
pub use secret::{CHECK_DIGITS, secret_checksum, secret_digest};
pub use stream::{FRAME_BYTES_MAX, Failure, Relay, StreamMeter};
pub use tokens::{UnknownVocabulary, Vocabulary};
pub use tools::check_tools;
pub use usage::{TOKENS_MAX, Usage, UsageFault};
