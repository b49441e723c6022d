//! The auditor's own book: every amount with its instant, added up from scratch.
use std::collections::BTreeMap;

use comptroller_engine::{Id, Now};

use crate::policy::{Limit, Resource, SHARED, Target, Window, each};

/// Spend, cost and tokens.
pub(crate) type Sums = [i64; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Open,
    Settled { tick: u64, at: Now, actual: Sums },
    Released,
}

/// What one organization is charged for a cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) picos: i64,
    pub(crate) markup_ppm: i64,
    pub(crate) fee_nanos: i64,
}

impl Terms {
    pub(crate) fn charge(self, cost: i64) -> i64 {
        if cost == 0 {
            return 0;
        }
        let parts = i128::from(cost) * i128::from(self.picos);
        let parts = parts * i128::from(1_000_000 + self.markup_ppm);
        let whole = 1_000_000_000_000_000_000_i128;
        ((parts + whole - 1) / whole) as i64 + self.fee_nanos
    }
}

/// What a request can cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    pub(crate) terms: Terms,
    pub(crate) input_tokens: i64,
    pub(crate) input_nanos: i64,
    pub(crate) output_picos: i64,
    pub(crate) tokens_max: i64,
    pub(crate) calibration: i64,
}

impl Price {
    /// Return what the provider bills for so many output tokens.
    pub(crate) fn cost(&self, tokens: i64) -> i64 {
        let picos = i128::from(self.output_picos) * i128::from(tokens);
        self.input_nanos + ((picos + 999) / 1_000) as i64
    }

    pub(crate) fn actual(&self, cost: i64, output_tokens: i64) -> Sums {
        let tokens = self.input_tokens + output_tokens;
        [self.terms.charge(cost), cost, tokens]
    }

    /// Return what is held for so many output tokens.
    pub(crate) fn held(&self, tokens: i64) -> Sums {
        let tokens = tokens.min(self.tokens_max);
        self.actual(self.cost(tokens) * self.calibration, tokens)
    }
}

/// One request that was admitted.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) organization: usize,
    /// Its scopes by kind.
    pub(crate) scopes: BTreeMap<&'static str, Vec<Id>>,
    pub(crate) model: &'static str,
    pub(crate) price: Price,
    pub(crate) step: i64,
    /// Its place among all admissions.
    pub(crate) seq: u64,
    pub(crate) admitted: Now,
    pub(crate) allowed: i64,
    pub(crate) is_stream: bool,
    pub(crate) is_cut: bool,
    pub(crate) is_pending: bool,
    pub(crate) held: Sums,
    pub(crate) firm: Sums,
    pub(crate) granted: Sums,
    pub(crate) bound: Sums,
    pub(crate) accrued: Sums,
    /// What was reported when.
    pub(crate) pieces: Vec<(u64, Now, Sums)>,
    pub(crate) end: End,
    /// Whether the ledger has it.
    pub(crate) is_booked: bool,
    pub(crate) number: u64,
}

impl Entry {
    pub(crate) fn is_open(&self) -> bool {
        self.end == End::Open
    }

    /// Tell whether it counts for a limit.
    pub(crate) fn is_on(&self, limit: &Limit, target: Target) -> bool {
        let ids = self.scopes.get(target.0);
        (limit.owner == SHARED || limit.owner == self.organization)
            && ids.is_some_and(|ids| ids.contains(&target.1))
            && limit.model.is_none_or(|model| model == self.model)
    }
}

/// What a limit stands at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) used: i64,
    pub(crate) settled: i64,
    pub(crate) expected: i64,
    pub(crate) firm: i64,
    pub(crate) bound: i64,
    pub(crate) open: i64,
    /// In rolling windows: what lies within the window exactly.
    pub(crate) exact: i64,
}

impl Measure {
    /// Return the rest of what open requests hold.
    pub(crate) fn held(&self, limit: &Limit) -> i64 {
        if limit.hold == "bound" {
            self.bound
        } else {
            self.expected
        }
    }

    pub(crate) fn sum(&self, limit: &Limit) -> i64 {
        self.used + self.held(limit)
    }

    /// Return what open requests can come to with nobody's leave.
    pub(crate) fn firm_sum(&self, limit: &Limit) -> i64 {
        if limit.hold == "bound" {
            self.used + self.bound
        } else {
            self.used + self.firm
        }
    }
}

/// What names a counter, whatever limits read it.
type CounterName = (usize, Target, Option<&'static str>, usize, Window);

fn counter_name(limit: &Limit, target: Target) -> CounterName {
    let resource = limit.resource.amount().unwrap_or(3);
    (limit.owner, target, limit.model, resource, limit.window)
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// Step and instant at which a counter was made.
    births: BTreeMap<CounterName, (u64, Now)>,
}

impl Book {
    /// Note that the counters of these limits exist from now on.
    pub(crate) fn bear(&mut self, limits: &[Limit], tick: u64, now: Now) {
        for limit in limits {
            let name = counter_name(limit, limit.target);
            self.births.entry(name).or_insert((tick, now));
        }
    }

    fn birth(&self, limit: &Limit, target: Target) -> (u64, Now) {
        let of = |target: Target| self.births.get(&counter_name(limit, target)).copied();
        let found = [of(target), of(each(target.0))];
        found
            .into_iter()
            .flatten()
            .min_by_key(|birth| birth.0)
            .unwrap()
    }

    /// Tell whether a counter knows the period of an instant: one made later never did.
    pub(crate) fn knows(&self, limit: &Limit, target: Target, then: Now) -> bool {
        let (_, born) = self.birth(limit, target);
        limit.window.period(born.wall_ns) <= limit.window.period(then.wall_ns)
    }

    /// Add up what counts for a limit, in the period of an instant, as it is now.
    pub(crate) fn measure(
        &self,
        limit: &Limit,
        target: Target,
        period_of: Now,
        now: Now,
    ) -> Measure {
        let birth = self.birth(limit, target);
        let mut sum = Measure::default();
        let mut accrued = 0;
        let is_on = |entry: &&Entry| entry.is_on(limit, target);
        for entry in self.entries.values().filter(is_on) {
            let period = |at: Now| limit.window.period(at.wall_ns);
            if period(entry.admitted) == period(period_of) {
                accrued += add(&mut sum, limit, entry, birth, now);
            }
        }
        if limit.window.is_rolling() {
            sum.settled = (sum.used - accrued).max(0);
        }
        sum
    }
}

/// Add one entry; return what it has used so far if it is open.
fn add(sum: &mut Measure, limit: &Limit, entry: &Entry, birth: (u64, Now), now: Now) -> i64 {
    sum.open += i64::from(entry.is_open());
    let Some(at) = limit.resource.amount() else {
        let counts = match limit.resource {
            Resource::Concurrency => entry.is_open(),
            _ if limit.window.is_rolling() => {
                entry.end != End::Released && is_within(limit, entry.admitted, now)
            }
            _ => entry.end != End::Released,
        };
        sum.used += i64::from(counts);
        sum.settled += i64::from(counts);
        sum.exact += i64::from(counts && is_exactly_within(limit, entry.admitted, now));
        return 0;
    };
    let open = i64::from(entry.is_open());
    let accrued = open * entry.accrued[at];
    sum.expected += open * entry.held[at] - accrued;
    sum.firm += open * entry.firm[at] - accrued;
    sum.bound += open * entry.bound[at] - accrued;
    if limit.window.is_rolling() {
        for (when, amount) in pieces(entry, at, birth) {
            sum.used += amount * i64::from(is_within(limit, when, now));
            sum.exact += amount * i64::from(is_exactly_within(limit, when, now));
        }
    } else if let End::Settled { actual, .. } = entry.end {
        sum.used += actual[at];
        sum.settled += actual[at];
    } else {
        sum.used += accrued;
    }
    accrued
}

/// List when what was used is counted; a counter learns of earlier use when it is made.
fn pieces(entry: &Entry, at: usize, (tick, born): (u64, Now)) -> Vec<(Now, i64)> {
    if let End::Settled {
        tick: ended,
        at: when,
        actual,
    } = entry.end
    {
        if ended <= tick {
            return vec![(when, actual[at])];
        }
    }
    if entry.end == End::Released {
        return Vec::new();
    }
    let reported = entry.pieces.iter();
    let mut pieces: Vec<(Now, i64)> = reported
        .map(|(piece_tick, when, amounts)| {
            let when = if *piece_tick <= tick { born } else { *when };
            (when, amounts[at])
        })
        .collect();
    if let End::Settled {
        at: when, actual, ..
    } = entry.end
    {
        pieces.push((when, actual[at] - entry.accrued[at]));
    }
    pieces
}

/// Tell whether a ring of 60 buckets and the oldest partial one still has an instant.
fn is_within(limit: &Limit, then: Now, now: Now) -> bool {
    let bucket = |at: Now| at.mono_ns / limit.window.bucket_ns();
    bucket(now) - bucket(then) <= 60
}

fn is_exactly_within(limit: &Limit, then: Now, now: Now) -> bool {
    now.mono_ns - then.mono_ns < 60 * limit.window.bucket_ns()
}
