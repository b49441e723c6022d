//! Rolling windows as rings of 60 + 1 buckets.
//!
//! The oldest bucket is kept until all of it has left the window, so a sum never under-counts and
//! over-counts by at most one bucket. Approximations by two buckets or by GCRA admit up to twice
//! the cap.
use crate::calendar::{Bounds, Calendar, Period};
use crate::error::Result;
use crate::money;
use crate::planted::{self, Fault};
use crate::time::{NEVER_NS, NS_PER_S, Now};

/// Buckets that a window covers in full.
const BUCKETS: u64 = 60;
/// Buckets of a ring: those of the window and the oldest partial one.
pub const RING_BUCKETS: u64 = BUCKETS + 1;
const RING_LENGTH: usize = 61;

/// A window that moves with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rolling {
    /// 60 seconds in buckets of 1 s.
    Minute,
    /// 3600 seconds in buckets of 60 s.
    Hour,
}

impl Rolling {
    /// Return the length of one bucket in nanoseconds.
    pub const fn bucket_ns(self) -> u64 {
        match self {
            Self::Minute => NS_PER_S,
            Self::Hour => NS_PER_S.saturating_mul(60),
        }
    }
}

/// Over what time a counter adds up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// Moves with the monotonic clock.
    Rolling(Rolling),
    /// Begins anew at each boundary of the calendar.
    Calendar(Calendar),
    /// Never begins anew.
    Lifetime {
        /// From when on is counted, on the wall clock.
        starts_at_ns: u64,
    },
    /// What is open at this moment.
    Now,
}

impl Window {
    /// Return the name by which refusals know it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rolling(Rolling::Minute) => "rolling_60s",
            Self::Rolling(Rolling::Hour) => "rolling_3600s",
            Self::Calendar(calendar) => match calendar.period() {
                Period::Day => "calendar_day",
                Period::Week => "calendar_week",
                Period::Month => "calendar_month",
                Period::Days { .. } => "days",
            },
            Self::Lifetime { .. } => "lifetime",
            Self::Now => "now",
        }
    }

    /// Return the IANA name of the time zone; None for a rolling window.
    pub fn time_zone(&self) -> Option<&str> {
        match self {
            Self::Rolling(_) | Self::Lifetime { .. } | Self::Now => None,
            Self::Calendar(calendar) => Some(calendar.zone_name()),
        }
    }

    /// Return what a counter made now must know: the period, or 61 buckets until now.
    pub(crate) fn bounds(&self, now: Now) -> Result<Bounds> {
        match self {
            Self::Calendar(calendar) => calendar.bounds(now.wall_ns),
            Self::Lifetime { starts_at_ns } => Ok(Bounds {
                starts_at_ns: *starts_at_ns,
                ends_at_ns: NEVER_NS,
            }),
            Self::Now => Ok(Bounds {
                starts_at_ns: now.wall_ns,
                ends_at_ns: now.wall_ns,
            }),
            Self::Rolling(rolling) => Ok(Bounds {
                starts_at_ns: now
                    .wall_ns
                    .saturating_sub(rolling.bucket_ns().saturating_mul(RING_BUCKETS)),
                ends_at_ns: now.wall_ns.saturating_add(1),
            }),
        }
    }
}

/// Sums what was added within the window; amounts are not negative.
#[derive(Clone, Debug)]
pub struct Ring {
    bucket_ns: u64,
    /// Number of the newest bucket, counted from `lead` buckets before the clock's zero.
    newest: u64,
    sum: i64,
    buckets: [i64; RING_LENGTH],
}

/// Buckets before the clock's zero, so that what is older than the process has a place too.
const LEAD: u64 = 2 * RING_BUCKETS;

impl Ring {
    /// Make an empty ring.
    pub fn new(rolling: Rolling, mono_ns: u64) -> Self {
        let mut ring = Self {
            bucket_ns: rolling.bucket_ns(),
            newest: 0,
            sum: 0,
            buckets: [0; RING_LENGTH],
        };
        ring.newest = ring.bucket_at(mono_ns);
        ring
    }

    /// Return the sum of all buckets.
    pub fn sum(&self) -> i64 {
        self.sum
    }

    /// Let buckets leave up to an instant; an earlier instant than seen changes nothing.
    pub fn roll(&mut self, mono_ns: u64) {
        let newest = self.bucket_at(mono_ns);
        let passed = newest.saturating_sub(self.newest).min(RING_BUCKETS);
        if planted::is(Fault::WindowShort) && passed > 0 {
            self.clear(newest.saturating_add(1));
        }
        for step in 0..passed {
            self.clear(newest.saturating_sub(step));
        }
        self.newest = self.newest.max(newest);
    }

    /// Add an amount at an instant; into the newest bucket if that is later, nowhere if it left.
    ///
    /// # Errors
    /// `Overflow`; nothing is changed then.
    pub fn add(&mut self, amount: i64, mono_ns: u64) -> Result<()> {
        self.add_to(self.bucket_at(mono_ns).min(self.newest), amount)
    }

    /// Add an amount at an age before an instant.
    ///
    /// # Errors
    /// `Overflow`; nothing is changed then.
    pub fn add_aged(&mut self, amount: i64, mono_ns: u64, age_ns: u64) -> Result<()> {
        let lead_ns = LEAD.saturating_mul(self.bucket_ns);
        let at_ns = mono_ns.saturating_add(lead_ns).saturating_sub(age_ns);
        self.add_to(self.whole_buckets(at_ns).min(self.newest), amount)
    }

    /// Take an amount back, from the newest bucket to that of an instant, none below zero.
    ///
    /// What was added since `since_mono_ns` may have left in part; when even its first bucket has
    /// left nothing is taken, since it would be taken from what others added.
    pub fn take_back(&mut self, amount: i64, since_mono_ns: u64) {
        let first = self.bucket_at(since_mono_ns);
        let mut left = if first < self.oldest() { 0 } else { amount };
        let mut number = self.newest;
        while left > 0 && number >= first {
            left = left.saturating_sub(self.take(number, left));
            number = number.saturating_sub(1);
        }
    }

    /// Take an amount out of the bucket of an instant, not below zero.
    pub fn take_at(&mut self, amount: i64, mono_ns: u64) {
        let number = self.bucket_at(mono_ns);
        if number >= self.oldest() {
            self.take(number, amount);
        }
    }

    /// Return after how long the sum is at most `target` if nothing is added; 0 if it is now.
    ///
    /// None if `target` is negative. Bucket b leaves at the start of bucket b + 61.
    pub fn falls_to_ns(&self, target: i64, mono_ns: u64) -> Option<u64> {
        if target < 0 {
            return None;
        }
        let mut sum = self.sum;
        let mut wait_ns = 0;
        for number in self.oldest()..=self.newest {
            if sum <= target {
                break;
            }
            sum = sum.saturating_sub(self.buckets.get(place(number)).copied().unwrap_or(0));
            wait_ns = self.leaves_in_ns(number, mono_ns);
        }
        Some(wait_ns)
    }

    /// Return after how long the ring is empty if nothing is added; 0 if it is now.
    pub fn empties_ns(&self, mono_ns: u64) -> u64 {
        // From the newest, which nearly always ends the search at once.
        let is_filled = |number: &u64| self.buckets.get(place(*number)).is_some_and(|sum| *sum > 0);
        let last = (self.oldest()..=self.newest).rev().find(is_filled);
        last.map_or(0, |number| self.leaves_in_ns(number, mono_ns))
    }

    /// Return after how long what is added at the instant of the last roll has left.
    pub fn passes_ns(&self, mono_ns: u64) -> u64 {
        self.leaves_in_ns(self.newest, mono_ns)
    }

    fn leaves_in_ns(&self, number: u64, mono_ns: u64) -> u64 {
        let starts = number.saturating_add(RING_BUCKETS).saturating_sub(LEAD);
        starts
            .saturating_mul(self.bucket_ns)
            .saturating_sub(mono_ns)
    }

    fn bucket_at(&self, mono_ns: u64) -> u64 {
        self.whole_buckets(mono_ns).saturating_add(LEAD)
    }

    fn whole_buckets(&self, ns: u64) -> u64 {
        ns.checked_div(self.bucket_ns).unwrap_or(0)
    }

    fn oldest(&self) -> u64 {
        self.newest.saturating_sub(BUCKETS)
    }

    fn add_to(&mut self, number: u64, amount: i64) -> Result<()> {
        if number < self.oldest() {
            return Ok(());
        }
        let sum = money::add(self.sum, amount)?;
        if let Some(bucket) = self.buckets.get_mut(place(number)) {
            *bucket = money::add(*bucket, amount)?;
            self.sum = sum;
        }
        Ok(())
    }

    fn clear(&mut self, number: u64) {
        self.take(number, i64::MAX);
    }

    /// Take at most `amount` out of a bucket; return how much it was.
    fn take(&mut self, number: u64, amount: i64) -> i64 {
        let Some(bucket) = self.buckets.get_mut(place(number)) else {
            return 0;
        };
        let taken = amount.min(*bucket);
        *bucket = bucket.saturating_sub(taken);
        self.sum = self.sum.saturating_sub(taken);
        taken
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number.checked_rem(RING_BUCKETS).unwrap_or(0)).unwrap_or(0)
}
