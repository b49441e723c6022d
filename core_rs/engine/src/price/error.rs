//! Why a price sheet is refused or an amount cannot be given.
use thiserror::Error;

/// What can go wrong with prices; [`PriceError::code`] is stable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PriceError {
    /// The sheet breaks its format or one of its limits.
    #[error("invalid price sheet: {0}")]
    Sheet(String),
    /// No price has this index.
    #[error("no price has the index {0}")]
    Unknown(usize),
    /// A price resolved for a context leaves parts of a usage unpriced.
    #[error("invalid price: {0}")]
    Price(String),
    /// A part of a usage exceeds its whole.
    #[error("contradictory usage: the parts of {whole} exceed it")]
    Contradiction {
        /// Usage key of the whole.
        whole: &'static str,
    },
    /// A count is above [`super::COUNT_MAX`], or there are no choices.
    #[error("{name} is out of range: {count}")]
    Count {
        /// What was counted.
        name: &'static str,
        /// The count that was given.
        count: u64,
    },
    /// The amount does not fit 63 bits of nano units.
    #[error("the amount is too large")]
    Overflow,
    /// The model is priced by something that tokens and requests do not bound.
    #[error("the cost is not bounded by tokens and requests")]
    NotBounded,
}

impl PriceError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sheet(_) => "invalid_price_sheet",
            Self::Unknown(_) => "unknown_price",
            Self::Price(_) => "invalid_price",
            Self::Contradiction { .. } => "contradictory_usage",
            Self::Count { .. } => "count_out_of_range",
            Self::Overflow => "amount_overflow",
            Self::NotBounded => "cost_not_bounded",
        }
    }
}
