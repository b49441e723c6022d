//! The units prices are given in: the registry of the price catalogue (`genai_prices/data_units.py`).
//!
//! A unit is a set of traits. A unit that has all traits of another is a part of it: tokens read
//! from a cache are part of the input tokens, and a usage counts them in both.

/// How many units there are.
pub const UNITS_LEN: usize = 59;

/// One unit of the catalogue, as a position in its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(u8);

impl Unit {
    /// Every unit, in the catalogue's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..u8::MAX).map(Self).take(UNITS_LEN)
    }

    /// Find a unit by its usage key, for example `cache_read_tokens`.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|unit| unit.name() == name)
    }

    /// The usage key of the unit.
    pub fn name(self) -> &'static str {
        UNITS.get(self.index()).map_or("", |(name, _)| name)
    }

    /// The position of the unit, below [`UNITS_LEN`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The unit as one bit of a set of units.
    pub(super) fn bit(self) -> u64 {
        1_u64.checked_shl(u32::from(self.0)).unwrap_or(0)
    }

    /// Whether `self` counts a part of what `whole` counts; a unit is no part of itself.
    pub(super) fn is_part_of(self, whole: Self) -> bool {
        self != whole && self.traits() & whole.traits() == whole.traits()
    }

    /// How many traits the unit has: the more, the more specific.
    pub(super) fn depth(self) -> u32 {
        self.traits().count_ones()
    }

    /// Whether something can be counted by both units.
    pub(super) fn can_overlap(self, other: Self) -> bool {
        let joined = self.traits() | other.traits();
        DIMENSIONS
            .iter()
            .all(|dimension| (joined & dimension).count_ones() <= 1)
    }

    /// The unit of what `self` and `other` both count, if one is registered.
    pub(super) fn joined_with(self, other: Self) -> Option<Self> {
        let joined = self.traits() | other.traits();
        Self::all().find(|unit| unit.traits() == joined)
    }

    /// Whether this counts tokens a text-only request can send or be billed for as input.
    pub(super) fn is_text_input(self) -> bool {
        self.has(TOKENS | INPUT) && !self.has_any(AUDIO | IMAGE | VIDEO)
    }

    /// Whether this counts tokens a text-only request can get back. Models decide by themselves to
    /// answer with images; audio has to be asked for.
    pub(super) fn is_text_answer(self) -> bool {
        self.has(TOKENS | OUTPUT) && !self.has_any(AUDIO)
    }

    /// Whether this counts what no number of tokens and requests bounds.
    pub(super) fn is_unbounded(self) -> bool {
        self.has_any(CHARACTERS | MESSAGES | PIXELS | DOCUMENT_PAGES | RERANK)
    }

    /// The catalogue's names of the unit's traits, sorted.
    pub fn trait_names(self) -> Vec<&'static str> {
        let own = TRAITS.iter().filter(|(_, bit)| self.has(*bit));
        let mut names: Vec<&str> = own.map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    fn has(self, traits: u32) -> bool {
        self.traits() & traits == traits
    }

    fn has_any(self, traits: u32) -> bool {
        self.traits() & traits != 0
    }

    fn traits(self) -> u32 {
        UNITS.get(self.index()).map_or(0, |(_, traits)| *traits)
    }
}

/// All input tokens.
pub const INPUT_TOKENS: Unit = Unit(0);
/// Input tokens read from the provider's cache.
pub const CACHE_READ_TOKENS: Unit = Unit(2);
/// Input tokens written to the provider's cache.
pub const CACHE_WRITE_TOKENS: Unit = Unit(3);
/// Output tokens spent on reasoning.
pub const OUTPUT_REASONING_TOKENS: Unit = Unit(35);
/// All output tokens.
pub const OUTPUT_TOKENS: Unit = Unit(1);
/// Audio of either direction, by its length.
pub(super) const AUDIO_SECONDS: Unit = Unit(47);
/// Audio sent, by its length.
pub(super) const INPUT_AUDIO_SECONDS: Unit = Unit(48);
/// The request itself, counted once each.
pub const REQUESTS: Unit = Unit(58);

const TOKENS: u32 = 1 << 0;
const CHARACTERS: u32 = 1 << 1;
const MESSAGES: u32 = 1 << 2;
const DURATIONS: u32 = 1 << 3;
const PIXELS: u32 = 1 << 4;
const DOCUMENT_PAGES: u32 = 1 << 5;
const RERANK: u32 = 1 << 6;
const TOOL_CALLS: u32 = 1 << 7;
const REQUEST: u32 = 1 << 8;
const INPUT: u32 = 1 << 9;
const OUTPUT: u32 = 1 << 10;
const TEXT: u32 = 1 << 11;
const AUDIO: u32 = 1 << 12;
const IMAGE: u32 = 1 << 13;
const VIDEO: u32 = 1 << 14;
const CACHE_READ: u32 = 1 << 15;
const CACHE_WRITE: u32 = 1 << 16;
const TOOL: u32 = 1 << 17;
const REASONING: u32 = 1 << 18;
const CITATION: u32 = 1 << 19;
const TTL_5M: u32 = 1 << 20;
const TTL_1H: u32 = 1 << 21;
const ANNOTATED: u32 = 1 << 22;
const WEB_SEARCH: u32 = 1 << 23;
const SOCIAL_SEARCH: u32 = 1 << 24;
const STORAGE_SEARCH: u32 = 1 << 25;
const CODE_EXECUTION: u32 = 1 << 26;

/// Traits of one dimension exclude each other.
const DIMENSIONS: [u32; 7] = [
    TOKENS
        | CHARACTERS
        | MESSAGES
        | DURATIONS
        | PIXELS
        | DOCUMENT_PAGES
        | RERANK
        | TOOL_CALLS
        | REQUEST,
    INPUT | OUTPUT,
    TEXT | AUDIO | IMAGE | VIDEO,
    CACHE_READ | CACHE_WRITE | TOOL | REASONING | CITATION,
    TTL_5M | TTL_1H,
    ANNOTATED,
    WEB_SEARCH | SOCIAL_SEARCH | STORAGE_SEARCH | CODE_EXECUTION,
];

/// The catalogue's name of each trait.
const TRAITS: [(&str, u32); 27] = [
    ("tokens", TOKENS),
    ("characters", CHARACTERS),
    ("messages", MESSAGES),
    ("durations", DURATIONS),
    ("pixels", PIXELS),
    ("document_pages", DOCUMENT_PAGES),
    ("rerank", RERANK),
    ("tool_calls", TOOL_CALLS),
    ("requests", REQUEST),
    ("input", INPUT),
    ("output", OUTPUT),
    ("text", TEXT),
    ("audio", AUDIO),
    ("image", IMAGE),
    ("video", VIDEO),
    ("cache_read", CACHE_READ),
    ("cache_write", CACHE_WRITE),
    ("tool", TOOL),
    ("reasoning", REASONING),
    ("citation", CITATION),
    ("5m", TTL_5M),
    ("1h", TTL_1H),
    ("annotated", ANNOTATED),
    ("web_search", WEB_SEARCH),
    ("social_search", SOCIAL_SEARCH),
    ("storage_search", STORAGE_SEARCH),
    ("code_execution", CODE_EXECUTION),
];

const UNITS: [(&str, u32); UNITS_LEN] = [
    ("input_tokens", TOKENS | INPUT),
    ("output_tokens", TOKENS | OUTPUT),
    ("cache_read_tokens", TOKENS | INPUT | CACHE_READ),
    ("cache_write_tokens", TOKENS | INPUT | CACHE_WRITE),
    (
        "cache_write_5m_tokens",
        TOKENS | INPUT | CACHE_WRITE | TTL_5M,
    ),
    (
        "cache_write_1h_tokens",
        TOKENS | INPUT | CACHE_WRITE | TTL_1H,
    ),
    ("input_text_tokens", TOKENS | INPUT | TEXT),
    ("output_text_tokens", TOKENS | OUTPUT | TEXT),
    ("cache_text_read_tokens", TOKENS | INPUT | TEXT | CACHE_READ),
    (
        "cache_text_write_tokens",
        TOKENS | INPUT | TEXT | CACHE_WRITE,
    ),
    (
        "cache_text_write_5m_tokens",
        TOKENS | INPUT | TEXT | CACHE_WRITE | TTL_5M,
    ),
    (
        "cache_text_write_1h_tokens",
        TOKENS | INPUT | TEXT | CACHE_WRITE | TTL_1H,
    ),
    ("input_audio_tokens", TOKENS | INPUT | AUDIO),
    ("output_audio_tokens", TOKENS | OUTPUT | AUDIO),
    (
        "cache_audio_read_tokens",
        TOKENS | INPUT | AUDIO | CACHE_READ,
    ),
    (
        "cache_audio_write_tokens",
        TOKENS | INPUT | AUDIO | CACHE_WRITE,
    ),
    (
        "cache_audio_write_5m_tokens",
        TOKENS | INPUT | AUDIO | CACHE_WRITE | TTL_5M,
    ),
    (
        "cache_audio_write_1h_tokens",
        TOKENS | INPUT | AUDIO | CACHE_WRITE | TTL_1H,
    ),
    ("input_image_tokens", TOKENS | INPUT | IMAGE),
    ("output_image_tokens", TOKENS | OUTPUT | IMAGE),
    (
        "cache_image_read_tokens",
        TOKENS | INPUT | IMAGE | CACHE_READ,
    ),
    (
        "cache_image_write_tokens",
        TOKENS | INPUT | IMAGE | CACHE_WRITE,
    ),
    (
        "cache_image_write_5m_tokens",
        TOKENS | INPUT | IMAGE | CACHE_WRITE | TTL_5M,
    ),
    (
        "cache_image_write_1h_tokens",
        TOKENS | INPUT | IMAGE | CACHE_WRITE | TTL_1H,
    ),
    ("input_video_tokens", TOKENS | INPUT | VIDEO),
    ("output_video_tokens", TOKENS | OUTPUT | VIDEO),
    (
        "cache_video_read_tokens",
        TOKENS | INPUT | VIDEO | CACHE_READ,
    ),
    (
        "cache_video_write_tokens",
        TOKENS | INPUT | VIDEO | CACHE_WRITE,
    ),
    (
        "cache_video_write_5m_tokens",
        TOKENS | INPUT | VIDEO | CACHE_WRITE | TTL_5M,
    ),
    (
        "cache_video_write_1h_tokens",
        TOKENS | INPUT | VIDEO | CACHE_WRITE | TTL_1H,
    ),
    ("input_tool_tokens", TOKENS | INPUT | TOOL),
    ("input_text_tool_tokens", TOKENS | INPUT | TEXT | TOOL),
    ("input_audio_tool_tokens", TOKENS | INPUT | AUDIO | TOOL),
    ("input_image_tool_tokens", TOKENS | INPUT | IMAGE | TOOL),
    ("input_video_tool_tokens", TOKENS | INPUT | VIDEO | TOOL),
    ("output_reasoning_tokens", TOKENS | OUTPUT | REASONING),
    (
        "output_text_reasoning_tokens",
        TOKENS | OUTPUT | TEXT | REASONING,
    ),
    (
        "output_audio_reasoning_tokens",
        TOKENS | OUTPUT | AUDIO | REASONING,
    ),
    (
        "output_image_reasoning_tokens",
        TOKENS | OUTPUT | IMAGE | REASONING,
    ),
    (
        "output_video_reasoning_tokens",
        TOKENS | OUTPUT | VIDEO | REASONING,
    ),
    ("output_citation_tokens", TOKENS | OUTPUT | CITATION),
    (
        "output_text_citation_tokens",
        TOKENS | OUTPUT | TEXT | CITATION,
    ),
    (
        "output_audio_citation_tokens",
        TOKENS | OUTPUT | AUDIO | CITATION,
    ),
    (
        "output_image_citation_tokens",
        TOKENS | OUTPUT | IMAGE | CITATION,
    ),
    (
        "output_video_citation_tokens",
        TOKENS | OUTPUT | VIDEO | CITATION,
    ),
    ("input_characters", CHARACTERS | INPUT),
    ("input_text_messages", MESSAGES | INPUT | TEXT),
    ("audio_seconds", DURATIONS | AUDIO),
    ("input_audio_seconds", DURATIONS | INPUT | AUDIO),
    ("output_audio_seconds", DURATIONS | OUTPUT | AUDIO),
    ("input_pixels", PIXELS | INPUT),
    ("input_document_pages", DOCUMENT_PAGES | INPUT),
    (
        "input_annotated_document_pages",
        DOCUMENT_PAGES | INPUT | ANNOTATED,
    ),
    ("rerank_searches", RERANK),
    ("web_searches", TOOL_CALLS | WEB_SEARCH),
    ("social_searches", TOOL_CALLS | SOCIAL_SEARCH),
    ("storage_searches", TOOL_CALLS | STORAGE_SEARCH),
    ("code_executions", TOOL_CALLS | CODE_EXECUTION),
    ("requests", REQUEST),
];
