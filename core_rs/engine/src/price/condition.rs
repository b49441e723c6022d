//! When a price is in force. All instants are UTC, in nanoseconds since 1970.
use serde::Deserialize;

use super::error::PriceError;

/// One day.
pub(super) const DAY_NS: u64 = 86_400_000_000_000;

/// What has to hold for a price to be in force.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Condition {
    /// From the start of a day on, counted from 1970-01-01.
    Since { day: u64 },
    /// Every day from an instant of the day until another, past midnight if that comes first.
    Daily { start_ns: u64, end_ns: u64 },
}

impl Condition {
    /// Whether the condition holds at an instant.
    pub(super) fn holds(self, at_wall_ns: u64) -> bool {
        match self {
            Self::Since { day } => at_wall_ns / DAY_NS >= day,
            Self::Daily { start_ns, end_ns } => {
                let time_ns = at_wall_ns % DAY_NS;
                let (started, ended) = (time_ns >= start_ns, time_ns >= end_ns);
                if end_ns < start_ns {
                    started || !ended
                } else {
                    started && !ended
                }
            }
        }
    }

    /// The instants of a day at which the condition can begin or cease to hold.
    pub(super) fn switches_ns(self) -> impl Iterator<Item = u64> {
        let (first, second) = match self {
            Self::Since { .. } => (0, None),
            Self::Daily { start_ns, end_ns } => (start_ns, Some(end_ns)),
        };
        std::iter::once(first).chain(second)
    }

    /// Refuse instants that lie in no day.
    pub(super) fn check(self) -> Result<Self, PriceError> {
        match self {
            Self::Daily { start_ns, end_ns } if start_ns.max(end_ns) >= DAY_NS => Err(
                PriceError::Sheet("a time of day is beyond the day".to_owned()),
            ),
            Self::Since { .. } | Self::Daily { .. } => Ok(self),
        }
    }
}

/// The first instant after `at_wall_ns` with this time of day; at most one day later.
pub(super) fn next_occurrence_ns(time_ns: u64, at_wall_ns: u64) -> u64 {
    let midnight_ns = at_wall_ns.saturating_sub(at_wall_ns % DAY_NS);
    let today_ns = midnight_ns.saturating_add(time_ns);
    if today_ns > at_wall_ns {
        today_ns
    } else {
        today_ns.saturating_add(DAY_NS)
    }
}
