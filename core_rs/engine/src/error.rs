//! The one error of the engine: a call was wrong or cannot be carried out, and nothing was changed.
//!
//! A refusal is not an error but a value, see [`crate::decision::Refusal`].
use thiserror::Error as ThisError;

/// Result of every call that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Says why a call had no effect.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// An argument is outside its range.
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    /// The JSON text cannot be read.
    #[error("invalid JSON: {0}")]
    InvalidJson(String),
    /// A policy snapshot contradicts itself or asks for what does not exist.
    #[error("invalid policy: {0}")]
    InvalidPolicy(String),
    /// A key record contradicts itself or another.
    #[error("invalid keys: {0}")]
    InvalidKeys(String),
    /// A named maximum is passed.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// A sum would leave the range of its integer.
    #[error("a sum would overflow")]
    Overflow,
    /// No key has this number.
    #[error("unknown key")]
    UnknownKey,
    /// No organization has this id or number.
    #[error("unknown organization")]
    UnknownOrganization,
    /// The organization has no policy in force.
    #[error("the organization's policy is not loaded")]
    OrganizationNotLoaded,
    /// No reservation has this id, or its outcome is forgotten.
    #[error("unknown reservation")]
    UnknownReservation,
    /// A reservation of this id exists.
    #[error("the reservation id is taken")]
    DuplicateReservation,
    /// The reservation ended by settlement.
    #[error("the reservation is settled")]
    AlreadySettled,
    /// The reservation ended by release.
    #[error("the reservation is released")]
    AlreadyReleased,
    /// The ledger is too far behind to admit more.
    #[error("too many settlements wait for the ledger")]
    UnbookedFull,
    /// There is no exchange rate for the organization's currency yet.
    #[error("there is no exchange rate")]
    NoExchangeRate,
    /// Another thread failed while it held this lock, so the state cannot be trusted.
    #[error("state is poisoned by an earlier fault")]
    Poisoned,
}

impl Error {
    /// Return the stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "invalid_argument",
            Self::InvalidJson(_) => "invalid_json",
            Self::InvalidPolicy(_) => "invalid_policy",
            Self::InvalidKeys(_) => "invalid_keys",
            Self::TooMany(_) => "too_many",
            Self::Overflow => "overflow",
            Self::UnknownKey => "unknown_key",
            Self::UnknownOrganization => "unknown_organization",
            Self::OrganizationNotLoaded => "organization_not_loaded",
            Self::UnknownReservation => "unknown_reservation",
            Self::DuplicateReservation => "duplicate_reservation",
            Self::AlreadySettled => "already_settled",
            Self::AlreadyReleased => "already_released",
            Self::UnbookedFull => "unbooked_full",
            Self::NoExchangeRate => "no_exchange_rate",
            Self::Poisoned => "poisoned",
        }
    }
}
