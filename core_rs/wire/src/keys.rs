//! When two keys of one object are the same, and where their case may differ.
use std::borrow::Cow;

/// Up to this many keys comparing pairs beats sorting.
const PAIRWISE_KEYS_MAX: usize = 16;

/// Where in a request body an object stands, as far as it decides how its keys are compared.
///
/// Keys of the protocol are compared after case folding: a provider whose parser ignores case
/// would otherwise read another `max_tokens` than the one that was priced. Maps whose keys are the
/// caller's own data may hold keys that differ only in case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Top,
    Tools,
    Functions,
    Tool,
    Function,
    ResponseFormat,
    JsonSchema,
    /// Anywhere else in the protocol: case folded.
    Folded,
    /// The caller's own map, or a provider's answer: only equal keys are the same.
    Exact,
}

impl Place {
    /// Give the place of a member's value.
    pub(crate) fn member(self, key: &str) -> Self {
        match (self, key) {
            (Self::Exact, _)
            | (Self::Top, "metadata")
            | (Self::Function, "parameters")
            | (Self::JsonSchema, "schema") => Self::Exact,
            (Self::Top, "tools") => Self::Tools,
            (Self::Top, "functions") => Self::Functions,
            (Self::Tool, "function") => Self::Function,
            (Self::Top, "response_format") => Self::ResponseFormat,
            (Self::ResponseFormat, "json_schema") => Self::JsonSchema,
            _ => Self::Folded,
        }
    }

    /// Give the place of a list's items.
    pub(crate) fn item(self) -> Self {
        match self {
            Self::Tools => Self::Tool,
            Self::Functions => Self::Function,
            Self::Exact => Self::Exact,
            _ => Self::Folded,
        }
    }

    /// Give the form in which a key is compared here.
    pub(crate) fn comparable<'a>(self, key: &Cow<'a, str>) -> Cow<'a, str> {
        if self == Self::Exact || is_folded(key) {
            key.clone()
        } else {
            Cow::Owned(fold(key))
        }
    }
}

/// A key as it is compared, and the offset at which it stands.
pub(crate) struct SeenKey<'a> {
    pub(crate) comparable: Cow<'a, str>,
    pub(crate) start: usize,
}

/// Find a key that another one before it equals.
pub(crate) fn find_duplicate<'k, 'a>(keys: &'k mut [SeenKey<'a>]) -> Option<&'k SeenKey<'a>> {
    if keys.len() <= PAIRWISE_KEYS_MAX {
        return find_duplicate_by_pairs(keys);
    }
    keys.sort_unstable_by(|a, b| (&a.comparable, a.start).cmp(&(&b.comparable, b.start)));
    keys.windows(2).find_map(|pair| match pair {
        [first, second] if first.comparable == second.comparable => Some(second),
        _ => None,
    })
}

fn find_duplicate_by_pairs<'k, 'a>(keys: &'k [SeenKey<'a>]) -> Option<&'k SeenKey<'a>> {
    keys.iter().enumerate().find_map(|(index, key)| {
        let is_repeated = keys
            .iter()
            .take(index)
            .any(|other| other.comparable == key.comparable);
        is_repeated.then_some(key)
    })
}

fn is_folded(key: &str) -> bool {
    key.bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Fold case: lower, upper, lower, each character by itself with Unicode's full mappings.
///
/// One mapping to lower case would leave `ſ` and `ς` apart from `s` and `σ`, which parsers that
/// fold (Go's `encoding/json` among them) take as equal.
fn fold(key: &str) -> String {
    let lower = key.chars().flat_map(char::to_lowercase);
    lower
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}
