//! Calendar periods in a time zone: which day, week or month an instant belongs to.
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use crate::error::{Error, Result};

/// Length of a calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday's midnight.
    Week,
    /// From midnight of the first.
    Month,
    /// A number of days, counted from midnight of a date on, both ways.
    Days {
        /// How many, from 1.
        count: u16,
        /// A day on which a period begins.
        anchor: Date,
    },
}

impl Period {
    fn first_day(self, date: Date) -> Result<Date> {
        match self {
            Self::Day => Ok(date),
            Self::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(days.days()).map_err(|_| OUT_OF_RANGE)
            }
            Self::Month => Ok(date.first_of_month()),
            Self::Days { count, anchor } => {
                let since = date.since(anchor).map_err(|_| OUT_OF_RANGE)?.get_days();
                let into = since.rem_euclid(i32::from(count.max(1)));
                date.checked_sub(into.days()).map_err(|_| OUT_OF_RANGE)
            }
        }
    }

    fn length(self) -> Span {
        match self {
            Self::Day => 1.day(),
            Self::Week => 1.week(),
            Self::Month => 1.month(),
            Self::Days { count, .. } => i64::from(count.max(1)).days(),
        }
    }
}

const OUT_OF_RANGE: Error = Error::InvalidArgument("the wall clock is outside the calendar");

/// A half-open interval on the wall clock; its end belongs to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First nanosecond.
    pub starts_at_ns: u64,
    /// First nanosecond after it.
    pub ends_at_ns: u64,
}

impl Bounds {
    /// Tell whether an instant lies within.
    pub fn contains(&self, wall_ns: u64) -> bool {
        self.starts_at_ns <= wall_ns && wall_ns < self.ends_at_ns
    }
}

/// A kind of period in a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    period: Period,
    zone: TimeZone,
}

impl Calendar {
    /// Name a kind of period in an IANA time zone of the bundled database.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] if there is no such zone.
    pub fn new(period: Period, zone_name: &str) -> Result<Self> {
        let zone = TimeZone::get(zone_name)
            .ok()
            .filter(|zone| zone.iana_name().is_some())
            .ok_or_else(|| Error::InvalidPolicy(format!("unknown time zone {zone_name:?}")))?;
        Ok(Self { period, zone })
    }

    /// Return the kind of period.
    pub fn period(&self) -> Period {
        self.period
    }

    /// Return the zone's IANA name.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// Return the period an instant belongs to.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the calendar ends before it does.
    pub fn bounds(&self, wall_ns: u64) -> Result<Bounds> {
        let at = Timestamp::from_nanosecond(i128::from(wall_ns)).map_err(|_| OUT_OF_RANGE)?;
        let first = self
            .period
            .first_day(at.to_zoned(self.zone.clone()).date())?;
        let bounds = self.starting(first)?;
        if bounds.contains(wall_ns) {
            return Ok(bounds);
        }
        // A clock set back over midnight shows the old date again in a period that has begun.
        self.starting(self.next(first)?)
    }

    fn starting(&self, first: Date) -> Result<Bounds> {
        Ok(Bounds {
            starts_at_ns: self.midnight_ns(first)?,
            ends_at_ns: self.midnight_ns(self.next(first)?)?,
        })
    }

    fn next(&self, first: Date) -> Result<Date> {
        first
            .checked_add(self.period.length())
            .map_err(|_| OUT_OF_RANGE)
    }

    /// Return the first instant of a date; where midnight is skipped, the first that exists.
    fn midnight_ns(&self, date: Date) -> Result<u64> {
        let midnight = date.to_zoned(self.zone.clone()).map_err(|_| OUT_OF_RANGE)?;
        let ns = midnight.timestamp().as_nanosecond().max(0);
        u64::try_from(ns).map_err(|_| OUT_OF_RANGE)
    }
}
