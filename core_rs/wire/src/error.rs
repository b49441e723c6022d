//! The one error of this crate: a stable code, a sentence, and where.
use std::borrow::Cow;

/// A path longer than this says nothing more to a reader and would echo a hostile key.
const PARAM_BYTES_MAX: usize = 256;
const KEY_CHARS_MAX: usize = 64;

/// Stable codes, as documented for callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not JSON as RFC 8259 defines it.
    MalformedJson,
    /// Nested deeper than [`crate::DEPTH_MAX`].
    JsonTooDeep,
    /// Two keys of one object are the same.
    DuplicateField,
    /// JSON, but a value that is not allowed here.
    InvalidValue,
    /// A field that no table of the dialect knows: its effect on the cost is not known.
    UnsupportedParameter,
    /// Something whose cost nothing in the request bounds.
    CostNotBounded,
    /// The provider sent something that cannot be understood.
    UpstreamBadResponse,
    /// The provider sent a frame over [`crate::FRAME_BYTES_MAX`].
    UpstreamResponseTooLarge,
}

impl Code {
    /// Give the code as it stands in an error body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::JsonTooDeep => "json_too_deep",
            Self::DuplicateField => "duplicate_field",
            Self::InvalidValue => "invalid_value",
            Self::UnsupportedParameter => "unsupported_parameter",
            Self::CostNotBounded => "cost_not_bounded",
            Self::UpstreamBadResponse => "upstream_bad_response",
            Self::UpstreamResponseTooLarge => "upstream_response_too_large",
        }
    }
}

/// Bytes that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// The stable code.
    pub code: Code,
    /// A sentence for people, without the content of the body.
    pub message: Cow<'static, str>,
    /// The path of the value, such as `messages[3].content`; empty for the whole.
    pub param: String,
    /// The byte at which the fault was seen.
    pub offset: usize,
}

impl WireError {
    /// Make an error at a byte offset.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>, offset: usize) -> Self {
        Self {
            code,
            message: message.into(),
            param: String::new(),
            offset,
        }
    }

    /// Say that the value sits under a key: paths grow from the inside out while unwinding.
    pub(crate) fn within_key(self, key: &str) -> Self {
        self.within(
            key.chars()
                .filter(|c| !c.is_control())
                .take(KEY_CHARS_MAX)
                .collect(),
        )
    }

    /// Say that the value is an item of a list.
    pub(crate) fn within_item(self, index: usize) -> Self {
        self.within(format!("[{index}]"))
    }

    /// Count the offset from further left.
    #[must_use]
    pub fn shifted(mut self, bytes: usize) -> Self {
        self.offset = self.offset.saturating_add(bytes);
        self
    }

    /// Turn it into a provider's fault.
    pub(crate) fn into_upstream(mut self) -> Self {
        self.code = Code::UpstreamBadResponse;
        self
    }

    fn within(mut self, mut outer: String) -> Self {
        if self.param.len().saturating_add(outer.len()) > PARAM_BYTES_MAX {
            self.param = String::from("…");
        }
        if !self.param.is_empty() && !self.param.starts_with('[') {
            outer.push('.');
        }
        outer.push_str(&self.param);
        self.param = outer;
        self
    }
}
