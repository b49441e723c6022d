//! The text a model generated so far, counted as it grows.
use crate::tokens::Vocabulary;

/// Text kept for counting, of one answer. What comes beyond it before the next count is counted
/// one token a byte, which is never too few.
pub const GENERATED_BYTES_MAX: usize = 8 << 20;
/// Separate texts (choices × channels) of one answer; further ones count by bytes.
const SEGMENTS_MAX: usize = 1024;
/// Tokens around a tool call beside its name and arguments. Not published; a call billed at 15 to
/// 17 tokens with 8 to 10 visible ones is usual.
const TOOL_CALL_TOKENS: u64 = 8;
/// A text without a safe boundary is cut here, so that a count never repeats more than this.
const TAIL_BYTES_MAX: usize = 1024;

/// Which of the texts of a choice a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Content,
    Refusal,
    Reasoning,
    ToolName(u32),
    ToolInput(u32),
}

/// One text: what was counted for good, and the tail that may still change with what follows.
struct Segment {
    choice: u32,
    channel: Channel,
    tokens: u64,
    tail: String,
    tail_tokens: u64,
    is_counted: bool,
}

/// The texts of all choices of one answer.
pub(crate) struct Generated {
    vocabulary: Option<Vocabulary>,
    segments: Vec<Segment>,
    bytes: u64,
    kept_bytes: usize,
    /// Tokens of text that is not kept, one a byte.
    unkept_tokens: u64,
}

impl Generated {
    pub(crate) fn new(vocabulary: Option<Vocabulary>) -> Self {
        Self {
            vocabulary,
            segments: Vec::new(),
            bytes: 0,
            kept_bytes: 0,
            unkept_tokens: 0,
        }
    }

    /// UTF-8 bytes of everything generated.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Text that a call of [`Self::tokens`] would have to count now.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Add a piece of text.
    pub(crate) fn push(&mut self, choice: u32, channel: Channel, text: &str) {
        if text.is_empty() {
            return;
        }
        let added = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(added);
        let kept_bytes = self.kept_bytes.saturating_add(text.len());
        let is_kept = self.vocabulary.is_some() && kept_bytes <= GENERATED_BYTES_MAX;
        match self.segment(choice, channel).filter(|_| is_kept) {
            Some(segment) => {
                segment.tail.push_str(text);
                segment.is_counted = false;
                self.kept_bytes = kept_bytes;
            }
            None => self.unkept_tokens = self.unkept_tokens.saturating_add(added),
        }
    }

    /// Count the tokens so far.
    ///
    /// A call costs what is new since the last one. A text is counted for good up to the last
    /// place where the tokenizer must split whatever follows, so the sum equals the count of the
    /// whole text; only a tail over [`TAIL_BYTES_MAX`] without such a place (long runs of
    /// letters) is cut anywhere, which as a rule counts one token more and adds one to be sure.
    pub(crate) fn tokens(&mut self) -> u64 {
        let Some(vocabulary) = self.vocabulary else {
            return self.unkept_tokens;
        };
        for segment in self
            .segments
            .iter_mut()
            .filter(|segment| !segment.is_counted)
        {
            segment.count(vocabulary);
        }
        self.kept_bytes = self.segments.iter().map(|segment| segment.tail.len()).sum();
        self.segments
            .iter()
            .fold(self.unkept_tokens, |sum, segment| {
                sum.saturating_add(segment.tokens)
                    .saturating_add(segment.tail_tokens)
            })
    }

    fn segment(&mut self, choice: u32, channel: Channel) -> Option<&mut Segment> {
        let is_same = |segment: &Segment| (segment.choice, segment.channel) == (choice, channel);
        // The newest first: nearly every piece continues the last text.
        let found = self.segments.iter().rposition(is_same);
        if found.is_none() && self.segments.len() < SEGMENTS_MAX {
            self.segments.push(Segment::new(choice, channel));
            return self.segments.last_mut();
        }
        found.and_then(|index| self.segments.get_mut(index))
    }
}

impl Segment {
    fn new(choice: u32, channel: Channel) -> Self {
        let is_call = matches!(channel, Channel::ToolName(_));
        let tokens = if is_call { TOOL_CALL_TOKENS } else { 0 };
        Self {
            choice,
            channel,
            tokens,
            tail: String::new(),
            tail_tokens: 0,
            is_counted: true,
        }
    }

    fn count(&mut self, vocabulary: Vocabulary) {
        if let Some(boundary) = last_safe_boundary(&self.tail) {
            let settled = self.tail.get(..boundary).unwrap_or_default();
            self.tokens = self.tokens.saturating_add(vocabulary.count(settled));
            self.tail.drain(..boundary);
        }
        self.tail_tokens = vocabulary.count(&self.tail);
        if self.tail.len() > TAIL_BYTES_MAX {
            self.tokens = self
                .tokens
                .saturating_add(self.tail_tokens)
                .saturating_add(1);
            self.tail_tokens = 0;
            self.tail.clear();
        }
        self.is_counted = true;
    }
}

/// Find the last place where both vocabularies split, whatever stands before or comes after.
///
/// In their patterns a run of letters (or of digits) is only ever continued by letters (digits)
/// and, in contractions, by an apostrophe.
pub(crate) fn last_safe_boundary(text: &str) -> Option<usize> {
    let mut next: Option<(usize, char)> = None;
    for (at, character) in text.char_indices().rev() {
        if let Some((boundary, follower)) = next
            && always_splits(character, follower)
        {
            return Some(boundary);
        }
        next = Some((at, character));
    }
    None
}

fn always_splits(before: char, after: char) -> bool {
    let ends_word = after.is_ascii() && !after.is_ascii_alphabetic() && after != '\'';
    if before.is_ascii_alphabetic() || is_ideograph(before) {
        return ends_word || matches!(after, '、' | '。' | '！' | '，' | '：' | '；' | '？');
    }
    before.is_ascii_digit() && after.is_ascii() && !after.is_ascii_digit()
}

/// Letters of scripts that write no spaces: kana, common Han, Hangul.
fn is_ideograph(character: char) -> bool {
    matches!(character, 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='鿿' | '가'..='힣')
}
