//! What may happen to a stream: it goes on, waits, is cut, and ends once.
use comptroller_engine::{Foresight, Refusal, Settlement};

use super::{Auditor, Bound, sums};
use crate::book::{End, Entry, Sums};

impl Auditor {
    /// Note that a stream may go on, or must wait.
    pub(crate) fn extended(&mut self, number: u64, wanted: i64, allowed: Option<i64>) {
        let Some(entry) = self.book.entries.get(&number).cloned() else {
            self.faults
                .push(format!("{number}: extended without an entry"));
            return;
        };
        if !entry.is_stream || wanted <= entry.allowed {
            let known = if entry.is_stream {
                entry.allowed
            } else {
                entry.price.tokens_max
            };
            self.require(allowed == Some(known), || {
                format!("{number}: {allowed:?} of {known}")
            });
            return;
        }
        let grown = (wanted + entry.step).min(entry.price.tokens_max);
        let firm = entry.price.held(grown + entry.step);
        let failing = self.failing(&entry, firm);
        let Some(allowed) = allowed else {
            let is_true = entry.is_cut || !failing.is_empty() || self.is_any_pending(number);
            self.require(is_true, || {
                format!("I7: {number} could have gone on to {grown}")
            });
            self.entry(number).is_pending = !entry.is_cut;
            return;
        };
        self.require(allowed == grown, || {
            format!("{number}: {allowed}, not {grown}")
        });
        self.require(failing.is_empty(), || {
            format!("I1: {number} goes on to {grown} where there is no room: {failing:?}")
        });
        self.grow(number, grown, firm);
    }

    fn grow(&mut self, number: u64, grown: i64, firm: Sums) {
        let entry = self.entry(number);
        let tokens = (grown + entry.step).saturating_mul(Foresight::default().growth);
        let has_outgrown = (0..3).any(|at| firm[at] > entry.held[at]);
        let expected = entry.price.held(tokens);
        for at in 0..3 {
            entry.granted[at] = entry.granted[at].max(firm[at]);
            entry.firm[at] = entry.firm[at].max(firm[at]);
            if has_outgrown {
                entry.held[at] = entry.held[at].max(expected[at]);
            }
        }
        entry.allowed = grown;
        entry.is_pending = false;
    }

    fn is_any_pending(&self, number: u64) -> bool {
        let mut entries = self.book.entries.iter();
        entries.any(|(other, entry)| *other != number && entry.is_pending && entry.is_open())
    }

    /// List the limits on which a stream cannot hold so much.
    fn failing(&self, entry: &Entry, firm: Sums) -> Vec<Bound> {
        let bindings = self.limits_of(entry.organization, &entry.scopes, entry.model);
        let is_short = |(limit, target): &Bound| {
            let Some(at) = limit.resource.amount().filter(|_| limit.follows_streams()) else {
                return false;
            };
            if !self.book.knows(limit, *target, entry.admitted) {
                return false;
            }
            let more = (firm[at] - entry.firm[at]).max(0);
            let measure = self.book.measure(limit, *target, entry.admitted, self.now);
            more > 0 && (limit.cap == 0 || measure.firm_sum(limit).saturating_add(more) > limit.cap)
        };
        bindings.into_iter().filter(is_short).collect()
    }

    fn entry(&mut self, number: u64) -> &mut Entry {
        self.book.entries.get_mut(&number).unwrap()
    }

    /// Note an effect on a stream; false if there is no such stream.
    pub(crate) fn told_stream(&mut self, number: u64, is_pending: bool) -> bool {
        let entry = self.book.entries.get(&number);
        let is_live = entry.is_some_and(|it| it.is_open() && it.is_stream && !it.is_cut);
        let is_true = is_live && (!is_pending || entry.is_some_and(|it| it.is_pending));
        self.require(is_true, || format!("{number}: an effect on no such stream"));
        is_true
    }

    /// A stream is cut: the youngest on a limit that has no room for some stream.
    pub(crate) fn cut(&mut self, number: u64, refusal: &Refusal) {
        if !self.told_stream(number, false) {
            return;
        }
        let victim = self.book.entries[&number].clone();
        let pending =
            self.book.entries.values().filter(|it| {
                it.is_open() && it.is_pending && it.organization == victim.organization
            });
        let mut is_youngest = false;
        for asking in pending {
            // What it wants is more than what it may relay, by at least one token.
            let least = (asking.allowed + 1 + asking.step).min(asking.price.tokens_max);
            let firm = asking.price.held(least + 2 * asking.step);
            for binding in self.failing(asking, firm) {
                is_youngest |= self.youngest(&binding, asking) == Some(victim.seq);
            }
        }
        self.require(is_youngest, || {
            format!("{number} is not the youngest on any limit that is short: {refusal:?}")
        });
        let entry = self.entry(number);
        entry.is_cut = true;
        entry.is_pending = false;
    }

    fn youngest(&self, (limit, target): &Bound, asking: &Entry) -> Option<u64> {
        let period = |entry: &Entry| limit.window.period(entry.admitted.wall_ns);
        let on = self.book.entries.values().filter(|it| {
            it.is_open()
                && it.is_stream
                && !it.is_cut
                && it.organization == asking.organization
                && it.is_on(limit, *target)
                && period(it) == period(asking)
        });
        on.map(|entry| entry.seq).max()
    }

    pub(crate) fn progressed(&mut self, number: u64, so_far: Sums) {
        let (tick, now) = (self.tick, self.now);
        let entry = self.entry(number);
        let mut more = [0; 3];
        for at in 0..3 {
            more[at] = (so_far[at] - entry.accrued[at]).max(0);
            entry.accrued[at] += more[at];
            entry.held[at] = entry.held[at].max(so_far[at]);
            entry.firm[at] = entry.firm[at].max(so_far[at]);
            entry.bound[at] = entry.bound[at].max(so_far[at]);
        }
        entry.pieces.push((tick, now, more));
    }

    pub(crate) fn released(&mut self, number: u64) {
        self.entry(number).end = End::Released;
    }

    pub(crate) fn settled(&mut self, number: u64, actual: Sums, settlement: &Settlement) {
        let (tick, at) = (self.tick, self.now);
        let entry = self.entry(number);
        let before = entry.end;
        let overrun = (actual[0] - entry.granted[0]).max(0);
        entry.end = End::Settled { tick, at, actual };
        entry.number = settlement.seq;
        let booked = sums(settlement.booked);
        self.require(before == End::Open && settlement.first, || {
            format!("I4: {number} settles again: {settlement:?}")
        });
        self.require(booked == actual, || {
            format!("I3: {booked:?} is booked for {number}, not {actual:?}")
        });
        self.require(settlement.overrun_nanos == overrun, || {
            format!("{number}: an overrun of {overrun}: {settlement:?}")
        });
        self.check_crossings(number, settlement);
    }

    fn check_crossings(&mut self, number: u64, settlement: &Settlement) {
        let entry = self.book.entries[&number].clone();
        let bindings = self.limits_of(entry.organization, &entry.scopes, entry.model);
        for crossing in &settlement.crossed {
            let binding = bindings
                .iter()
                .find(|(limit, _)| limit.id == crossing.limit_id);
            let Some((limit, target)) = binding else {
                self.faults.push(format!(
                    "{number}: crossed no limit of its own: {crossing:?}"
                ));
                continue;
            };
            let measure = self.book.measure(limit, *target, entry.admitted, self.now);
            let share = i128::from(measure.settled) * 100;
            let is_reached = share >= i128::from(limit.cap) * i128::from(crossing.percent);
            let starts_at_ns = limit.window.period_starts_at_ns(entry.admitted.wall_ns);
            let is_true = crossing.settled == measure.settled
                && crossing.period_starts_at_ns == starts_at_ns
                && is_reached;
            self.require(is_true, || {
                format!("{number}: {crossing:?}, but {measure:?}")
            });
            let name = (limit.id, starts_at_ns, crossing.percent, crossing.repeat);
            let times_max = if limit.is_template() { 3 } else { 1 };
            let times = self.told.entry(name).or_default();
            *times += 1;
            let is_once = *times <= times_max;
            self.require(is_once, || format!("told twice: {crossing:?}"));
        }
    }
}
