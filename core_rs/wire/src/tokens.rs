//! Token counts with the vocabularies that are public and bundled.
use bpe_openai::Tokenizer;

/// Vocabulary by model family. A family ends at a character that is no letter and no digit.
/// Source: `MODEL_PREFIX_TO_ENCODING` and `MODEL_TO_ENCODING` in tiktoken's `model.py`.
const FAMILIES: [(&str, Vocabulary); 11] = [
    ("gpt-4o", Vocabulary::O200kBase),
    ("gpt-4.1", Vocabulary::O200kBase),
    ("gpt-4.5", Vocabulary::O200kBase),
    ("gpt-5", Vocabulary::O200kBase),
    ("chatgpt-4o", Vocabulary::O200kBase),
    ("o1", Vocabulary::O200kBase),
    ("o3", Vocabulary::O200kBase),
    ("o4", Vocabulary::O200kBase),
    ("gpt-4", Vocabulary::Cl100kBase),
    ("gpt-3.5", Vocabulary::Cl100kBase),
    ("gpt-35", Vocabulary::Cl100kBase),
];

/// A name that no bundled vocabulary has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown vocabulary; known are o200k_base and cl100k_base")]
pub struct UnknownVocabulary;

/// A public byte-level BPE vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// 200 thousand tokens, since GPT-4o.
    O200kBase,
    /// 100 thousand tokens, GPT-3.5 and GPT-4.
    Cl100kBase,
}

impl Vocabulary {
    /// Find the vocabulary of a model by its exact name; None if its tokenizer is closed.
    pub fn of_model(model: &str) -> Option<Self> {
        let base = model.strip_prefix("ft:").unwrap_or(model);
        let is_of = |family: &str| {
            base.strip_prefix(family)
                .is_some_and(|rest| !continues_version(family, rest))
        };
        FAMILIES
            .iter()
            .find(|(family, _)| is_of(family))
            .map(|(_, vocabulary)| *vocabulary)
    }

    /// Find a vocabulary by its name.
    ///
    /// # Errors
    /// [`UnknownVocabulary`] for any other name.
    pub fn named(name: &str) -> Result<Self, UnknownVocabulary> {
        match name {
            "o200k_base" => Ok(Self::O200kBase),
            "cl100k_base" => Ok(Self::Cl100kBase),
            _ => Err(UnknownVocabulary),
        }
    }

    /// Give the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
        }
    }

    /// Count the tokens of a text; special tokens written out count as the text they are.
    pub fn count(self, text: &str) -> u64 {
        u64::try_from(self.tokenizer().count(text)).unwrap_or(u64::MAX)
    }

    /// Load the vocabulary now instead of at the first count.
    pub fn warm(self) {
        let _ = self.count("warm");
    }

    fn tokenizer(self) -> &'static Tokenizer {
        match self {
            Self::O200kBase => bpe_openai::o200k_base(),
            Self::Cl100kBase => bpe_openai::cl100k_base(),
        }
    }
}

/// `gpt-4.9` is a model nobody has described yet, not a kind of `gpt-4`; `gpt-5.1` is a `gpt-5`.
fn continues_version(family: &str, rest: &str) -> bool {
    match rest.chars().next() {
        Some('.') => family == "gpt-4",
        Some(next) => next.is_alphanumeric(),
        None => false,
    }
}
