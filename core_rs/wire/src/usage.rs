//! The usage a provider reports, believed only where it can be true.
use crate::cursor::Cursor;
use crate::error::WireError;
use crate::keys::Place;

/// More tokens than any request can have; leaves room for prices in 128 bits.
pub const TOKENS_MAX: u64 = 1 << 40;

/// Tokens of one request. The details are contained in the two totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens.
    pub input_tokens: u64,
    /// All output tokens, hidden reasoning included.
    pub output_tokens: u64,
    /// Input read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Input written to the provider's cache.
    pub cache_write_tokens: u64,
    /// Input that was audio.
    pub input_audio_tokens: u64,
    /// Output that was audio.
    pub output_audio_tokens: u64,
    /// Output that was reasoning.
    pub reasoning_tokens: u64,
}

/// Why a usage was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageFault {
    /// Not an object, a total is missing, or a count is no integer.
    Malformed,
    /// A count below zero.
    Negative,
    /// A count above [`TOKENS_MAX`].
    Absurd,
    /// A detail above its total.
    Contradictory,
}

impl UsageFault {
    /// Give the word that stands for it in flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Negative => "negative",
            Self::Absurd => "absurd",
            Self::Contradictory => "contradictory",
        }
    }
}

#[derive(Default)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    details: Usage,
    fault: Option<UsageFault>,
}

/// Read the value of a `usage` member. The outer error means the JSON itself is broken.
pub(crate) fn read_usage(cursor: &mut Cursor<'_>) -> Result<Result<Usage, UsageFault>, WireError> {
    if cursor.peek() != Some(b'{') {
        cursor.skip(Place::Exact)?;
        return Ok(Err(UsageFault::Malformed));
    }
    let mut counts = Counts::default();
    cursor.object(Place::Exact, VALUE_MEMBERS_MAX, |cursor, key| {
        match key.name.as_ref() {
            "prompt_tokens" => counts.read(cursor, |counts| &mut counts.input),
            "completion_tokens" => counts.read(cursor, |counts| &mut counts.output),
            "total_tokens" => counts.read(cursor, |counts| &mut counts.total),
            "prompt_tokens_details" => counts.input_details(cursor),
            "completion_tokens_details" => counts.output_details(cursor),
            _ => cursor.skip(Place::Exact),
        }
    })?;
    Ok(counts.believed())
}

/// Members of a usage object; providers send about ten.
const VALUE_MEMBERS_MAX: usize = 256;

impl Counts {
    fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        field: fn(&mut Self) -> &mut Option<u64>,
    ) -> Result<(), WireError> {
        if cursor.take_null() {
            return Ok(());
        }
        match read_count(cursor)? {
            Ok(count) => *field(self) = Some(count),
            Err(fault) => self.fault = self.fault.or(Some(fault)),
        }
        Ok(())
    }

    fn input_details(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        self.details_of(cursor, |usage, name| match name {
            "cached_tokens" => Some(&mut usage.cache_read_tokens),
            "cache_write_tokens" | "cache_creation_tokens" => Some(&mut usage.cache_write_tokens),
            "audio_tokens" => Some(&mut usage.input_audio_tokens),
            _ => None,
        })
    }

    fn output_details(&mut self, cursor: &mut Cursor<'_>) -> Result<(), WireError> {
        self.details_of(cursor, |usage, name| match name {
            "reasoning_tokens" => Some(&mut usage.reasoning_tokens),
            "audio_tokens" => Some(&mut usage.output_audio_tokens),
            _ => None,
        })
    }

    fn details_of(
        &mut self,
        cursor: &mut Cursor<'_>,
        field: for<'u> fn(&'u mut Usage, &str) -> Option<&'u mut u64>,
    ) -> Result<(), WireError> {
        if cursor.peek() != Some(b'{') {
            if !cursor.take_null() {
                self.fault = self.fault.or(Some(UsageFault::Malformed));
                cursor.skip(Place::Exact)?;
            }
            return Ok(());
        }
        cursor.object(Place::Exact, VALUE_MEMBERS_MAX, |cursor, key| {
            let Some(slot) = field(&mut self.details, &key.name) else {
                return cursor.skip(Place::Exact);
            };
            if cursor.take_null() {
                return Ok(());
            }
            match read_count(cursor)? {
                Ok(count) => *slot = count,
                Err(fault) => self.fault = self.fault.or(Some(fault)),
            }
            Ok(())
        })
    }

    fn believed(self) -> Result<Usage, UsageFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (Some(input), Some(completion)) = (self.input, self.output) else {
            return Err(UsageFault::Malformed);
        };
        let output = billed_output(input, completion, self.total)?;
        let usage = Usage {
            input_tokens: input,
            output_tokens: output,
            ..self.details
        };
        if is_consistent(&usage) {
            Ok(usage)
        } else {
            Err(UsageFault::Contradictory)
        }
    }
}

/// Some providers leave reasoning out of `completion_tokens` and show it only in the total; it is
/// billed as output, so what the total has beyond both counts as output.
fn billed_output(input: u64, completion: u64, total: Option<u64>) -> Result<u64, UsageFault> {
    let sum = input.saturating_add(completion);
    match total {
        Some(total) if total < sum => Err(UsageFault::Contradictory),
        Some(total) => Ok(completion.saturating_add(total.saturating_sub(sum))),
        None => Ok(completion),
    }
}

fn is_consistent(usage: &Usage) -> bool {
    let cached = usage
        .cache_read_tokens
        .saturating_add(usage.cache_write_tokens);
    let special = usage
        .reasoning_tokens
        .saturating_add(usage.output_audio_tokens);
    cached <= usage.input_tokens
        && usage.input_audio_tokens <= usage.input_tokens
        && special <= usage.output_tokens
}

fn read_count(cursor: &mut Cursor<'_>) -> Result<Result<u64, UsageFault>, WireError> {
    if !matches!(cursor.peek(), Some(b'-' | b'0'..=b'9')) {
        cursor.skip(Place::Exact)?;
        return Ok(Err(UsageFault::Malformed));
    }
    Ok(parse_count(cursor.number()?))
}

fn parse_count(number: &str) -> Result<u64, UsageFault> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UsageFault::Malformed);
    }
    if number.len() != digits.len() && digits != "0" {
        return Err(UsageFault::Negative);
    }
    match digits.parse::<u64>() {
        Ok(count) if count <= TOKENS_MAX => Ok(count),
        _ => Err(UsageFault::Absurd),
    }
}
