//! Stands outside the code under test: sees calls and results, and says what cannot be.
mod streams;

use std::collections::{BTreeMap, BTreeSet};

use comptroller_engine::{
    Admission, Amounts, Decision, Diversion, Id, Now, Refusal, Waiting, WaitsFor,
};

use comptroller_engine::decision::Seen;

use crate::book::{Book, End, Entry, Measure, Price, Sums};
use crate::policy::{Limit, SHARED, Target};

/// Who asks, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) number: u64,
    pub(crate) organization: usize,
    pub(crate) scopes: BTreeMap<&'static str, Vec<Id>>,
    pub(crate) model: &'static str,
    pub(crate) price: Price,
    pub(crate) step: i64,
    pub(crate) may_wait: bool,
}

impl Who {
    fn is_like(&self, other: &Self) -> bool {
        self.scopes == other.scopes && self.model == other.model
    }
}

/// A request in line.
#[derive(Debug)]
struct Waiter {
    who: Who,
    is_queued: bool,
    /// When its time is up.
    until_ns: u64,
}

/// How a decision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Asked,
    Called,
    GivenUp,
}

/// A limit as it binds one request, and whose counter that is.
pub(crate) type Bound = (Limit, Target);

#[derive(Debug, Default)]
pub(crate) struct Auditor {
    pub(crate) book: Book,
    pub(crate) now: Now,
    pub(crate) tick: u64,
    pub(crate) limits: BTreeMap<usize, Vec<Limit>>,
    pub(crate) hold_wait_s: BTreeMap<usize, u64>,
    /// The largest cap of each limit that has been in force from the beginning.
    caps: BTreeMap<Id, i64>,
    line: Vec<Waiter>,
    /// Whose limits have ever let requests queue.
    queues: BTreeSet<usize>,
    admissions: u64,
    breakers: BTreeMap<(Id, &'static str, Id), bool>,
    told: BTreeMap<(Id, u64, u8, u32), usize>,
    pub(crate) faults: Vec<String>,
}

pub(crate) fn sums(amounts: Amounts) -> Sums {
    [amounts.spend_nanos, amounts.cost_nanos, amounts.tokens]
}

impl Auditor {
    pub(crate) fn require(&mut self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(why());
        }
    }

    /// Note which limits are in force from now on.
    pub(crate) fn enforce(&mut self, organization: usize, limits: &[Limit]) {
        self.book.bear(limits, self.tick, self.now);
        let mut steps = limits.iter().flat_map(|limit| &limit.steps);
        if steps.any(|step| step["action"] == "queue") {
            self.queues.insert(organization);
        }
        for limit in limits {
            if self.tick == 0 {
                self.caps.insert(limit.id, limit.cap);
            } else if let Some(cap) = self.caps.get_mut(&limit.id) {
                *cap = limit.cap.max(*cap);
            }
        }
        // A label whose own limit goes comes under its template with what it spent without it.
        for template in limits.iter().filter(|limit| limit.is_template()) {
            if limits.iter().any(|own| own.replaces(template)) {
                self.caps.remove(&template.id);
            }
        }
        let is_kept = |id: &Id| limits.iter().any(|limit| limit.id == *id);
        let before = self.limits.insert(organization, limits.to_vec());
        for gone in before.unwrap_or_default() {
            if !is_kept(&gone.id) {
                self.breakers.retain(|(id, _, _), _| *id != gone.id);
            }
        }
    }

    /// List the limits that bind a request, the counters being those of its scopes.
    pub(crate) fn limits_of(
        &self,
        organization: usize,
        scopes: &BTreeMap<&'static str, Vec<Id>>,
        model: &str,
    ) -> Vec<Bound> {
        let own = self.limits.get(&organization).into_iter().flatten();
        let all: Vec<&Limit> = own
            .chain(self.limits.get(&SHARED).into_iter().flatten())
            .collect();
        let mut bound = Vec::new();
        for limit in all
            .iter()
            .filter(|it| it.model.is_none_or(|name| name == model))
        {
            for id in scopes.get(limit.target.0).into_iter().flatten() {
                let target = (limit.target.0, *id);
                let is_replaced = || {
                    let mut own = all.iter().filter(|other| other.target == target);
                    own.any(|own| own.replaces(limit))
                };
                if limit.target == target || (limit.is_template() && !is_replaced()) {
                    bound.push(((*limit).clone(), target));
                }
            }
        }
        bound
    }

    fn bounds_of(&self, who: &Who) -> Vec<Bound> {
        self.limits_of(who.organization, &who.scopes, who.model)
    }

    pub(crate) fn measure(&self, (limit, target): &Bound) -> Measure {
        self.book.measure(limit, *target, self.now, self.now)
    }

    pub(crate) fn decided(&mut self, who: &Who, decision: &Decision, how: How) {
        match decision {
            Decision::Admitted(admission) => self.admitted(who, admission),
            Decision::Refused(refusal) => self.refused(who, refusal, how),
            Decision::Waiting(waiting) => self.waits(who, waiting),
            Decision::Diverted(diversion) => self.diverted(who, diversion),
        }
        if !matches!(decision, Decision::Waiting(_)) {
            let is_in_line = self.leaves_line(who.number);
            self.require(is_in_line == (how != How::Asked), || {
                format!("{how:?}: {} is in line: {is_in_line}", who.number)
            });
        }
    }

    /// Forget one that waits; false if it does not.
    pub(crate) fn leaves_line(&mut self, number: u64) -> bool {
        let before = self.line.len();
        self.line.retain(|waiter| waiter.who.number != number);
        self.line.len() < before
    }

    fn admitted(&mut self, who: &Who, admission: &Admission) {
        let (held, bound) = (sums(admission.held), sums(admission.bound));
        self.check_amounts(who, admission);
        self.check_seen(who, &admission.seen);
        for binding in self.bounds_of(who) {
            let measure = self.measure(&binding);
            let limit = &binding.0;
            let more = limit.resource.amount().map_or(1, |at| {
                if limit.hold == "bound" {
                    bound[at]
                } else {
                    held[at]
                }
            });
            let fits = match limit.mode {
                "hard" => limit.cap > 0 && measure.sum(limit).saturating_add(more) <= limit.cap,
                "metered" => measure.used < limit.cap,
                _ => true,
            };
            self.require(fits, || {
                format!(
                    "I1: {} admitted with {more} into {measure:?} of {limit:?}",
                    who.number
                )
            });
        }
        let is_passed = |waiter: &&Waiter| waiter.who.is_like(who) && !waiter.is_queued;
        let passed = self
            .line
            .iter()
            .take_while(|it| it.who.number != who.number)
            .find(is_passed);
        if let Some(passed) = passed.map(|waiter| waiter.who.number) {
            self.faults
                .push(format!("order: {} passes {passed} in line", who.number));
        }
        self.enter(who, admission);
    }

    fn check_amounts(&mut self, who: &Who, admission: &Admission) {
        let (held, bound) = (sums(admission.held), sums(admission.bound));
        let allowed = admission.output_tokens_allowed;
        let most = who.price.held(who.price.tokens_max);
        self.require(bound == most, || {
            format!("{}: its bound is {bound:?}, not {most:?}", who.number)
        });
        let expected = if admission.extendable {
            who.price.held(allowed + who.step)
        } else {
            most
        };
        self.require(held == expected, || {
            format!(
                "{}: {held:?} held, not {expected:?}, for {allowed}",
                who.number
            )
        });
    }

    fn enter(&mut self, who: &Who, admission: &Admission) {
        self.admissions += 1;
        let held = sums(admission.held);
        let entry = Entry {
            organization: who.organization,
            scopes: who.scopes.clone(),
            model: who.model,
            price: who.price,
            step: who.step,
            seq: self.admissions,
            admitted: Now {
                wall_ns: admission.admitted_wall_ns,
                ..self.now
            },
            allowed: admission.output_tokens_allowed,
            is_stream: admission.extendable,
            is_cut: false,
            is_pending: false,
            held,
            firm: held,
            granted: held,
            bound: sums(admission.bound),
            accrued: [0; 3],
            pieces: Vec::new(),
            end: End::Open,
            is_booked: false,
            number: 0,
        };
        self.book.entries.insert(who.number, entry);
    }

    fn check_seen(&mut self, who: &Who, seen: &[Seen]) {
        let bindings = self.bounds_of(who);
        self.require(seen.len() == bindings.len(), || {
            format!(
                "{}: {} limits seen, {} bind",
                who.number,
                seen.len(),
                bindings.len()
            )
        });
        for (limit, target) in bindings {
            let measure = self.book.measure(&limit, target, self.now, self.now);
            let truth = Seen {
                limit_id: limit.id,
                used: measure.used,
                held: measure.held(&limit),
                cap: limit.cap,
            };
            self.require(seen.contains(&truth), || {
                format!("{}: {truth:?} is not what was seen: {seen:?}", who.number)
            });
        }
    }

    /// I7: a refusal is truthful, in what it says and in that it is one.
    fn refused(&mut self, who: &Who, refusal: &Refusal, how: How) {
        self.check_seen(who, &refusal.seen);
        let Some(figures) = &refusal.limit else {
            self.faults
                .push(format!("{}: refused by a state", who.number));
            return;
        };
        let named = self.bounds_of(who).into_iter().find(|(limit, target)| {
            limit.id == figures.limit_id && *target == (refusal.scope.kind.name(), refusal.scope.id)
        });
        let Some(binding) = named else {
            self.faults
                .push(format!("{}: refused by {figures:?}", who.number));
            return;
        };
        let (limit, measure) = (binding.0.clone(), self.measure(&binding));
        let told = (figures.used, figures.held, figures.cap);
        let truth = (measure.used, measure.held(&limit), limit.cap);
        self.require(told == truth, || {
            format!(
                "I7: {} is told {told:?}, not {truth:?}, by {limit:?}",
                who.number
            )
        });
        let most = limit
            .resource
            .amount()
            .map_or(1, |at| who.price.held(i64::MAX)[at]);
        let fits = match limit.mode {
            "hard" => {
                limit.cap > 0 && measure.sum(&limit).saturating_add(figures.requested) <= limit.cap
            }
            "metered" => measure.used < limit.cap,
            _ => true,
        };
        let is_true = figures.requested <= most && (!fits || self.is_contested(who));
        self.require(is_true, || {
            format!(
                "I7: {} would have fit into {measure:?} of {limit:?}",
                who.number
            )
        });
        self.check_wait(who, &limit, refusal, how);
        self.check_fitting(who, refusal);
    }

    /// Tell whether others come first, in line or in streams that wait.
    fn is_contested(&self, who: &Who) -> bool {
        let own = who.organization;
        let mut waiters = self.line.iter();
        let mut entries = self.book.entries.values();
        waiters.any(|it| it.who.organization == own && it.who.number != who.number)
            || entries.any(|it| it.organization == own && it.is_pending && it.is_open())
    }

    /// Whoever could have had what open requests hold has waited for it.
    fn check_wait(&mut self, who: &Who, limit: &Limit, refusal: &Refusal, how: How) {
        let waits_for = refusal.waits_for;
        let is_open = waits_for == Some(WaitsFor::OpenRequests);
        let wait_s = self
            .hold_wait_s
            .get(&who.organization)
            .copied()
            .unwrap_or(0);
        if is_open && limit.resource.is_money() && who.may_wait && wait_s > 0 {
            let waiter = self.line.iter().find(|it| it.who.number == who.number);
            let until_ns = waiter.map_or(u64::MAX, |waiter| waiter.until_ns);
            let has_waited = how == How::GivenUp || self.now.mono_ns >= until_ns;
            self.require(has_waited, || {
                format!(
                    "I7: {} did not wait for what is open: {refusal:?}",
                    who.number
                )
            });
        }
        let is_balance = limit.kind == "balance";
        self.require(
            waits_for != Some(WaitsFor::TopUp) || is_balance || refusal.seen.len() > 1,
            || format!("{}: no top-up helps: {refusal:?}", who.number),
        );
    }

    /// So many output tokens fit on every limit on money, and not one more.
    fn check_fitting(&mut self, who: &Who, refusal: &Refusal) {
        let Some((tokens, _)) = refusal.output_tokens_that_fit else {
            return;
        };
        let mut most = who.price.tokens_max;
        for (limit, target) in self.bounds_of(who) {
            if limit.is_hard() && limit.resource.is_money() {
                let measure = self.book.measure(&limit, target, self.now, self.now);
                let room = limit.cap - measure.sum(&limit);
                let at = limit.resource.amount().unwrap();
                while most > 0 && who.price.held(most)[at] > room {
                    most -= 1;
                }
            }
        }
        self.require(tokens == most, || {
            format!("I7: {} is told that {tokens} fit, not {most}", who.number)
        });
    }

    fn waits(&mut self, who: &Who, waiting: &Waiting) {
        let named = self.bounds_of(who).into_iter().find(|(limit, target)| {
            limit.id == waiting.limit_id && *target == (waiting.scope.kind.name(), waiting.scope.id)
        });
        let is_contested = self.is_contested(who);
        let is_true = named.as_ref().is_some_and(|binding| {
            let (limit, measure) = (&binding.0, self.measure(binding));
            let most = limit
                .resource
                .amount()
                .map_or(1, |at| who.price.held(i64::MAX)[at]);
            let is_full = limit.cap == 0 || measure.sum(limit).saturating_add(most) > limit.cap;
            limit.is_hard() && limit.resource.is_money() && (is_full || is_contested)
        });
        self.require(is_true, || {
            format!("{} waits in vain: {waiting:?}", who.number)
        });
        let until_ns = self.now.mono_ns + waiting.timeout_ns;
        let number = who.number;
        if let Some(known) = self.line.iter_mut().find(|it| it.who.number == number) {
            known.is_queued = waiting.is_queued;
            known.until_ns = until_ns;
            return;
        }
        self.line.push(Waiter {
            who: who.clone(),
            is_queued: waiting.is_queued,
            until_ns,
        });
    }

    fn diverted(&mut self, who: &Who, diversion: &Diversion) {
        let named = self
            .bounds_of(who)
            .into_iter()
            .find(|(limit, _)| limit.id == diversion.limit_id);
        let is_true = named.is_some_and(|binding| {
            let measure = self.measure(&binding);
            let share = i128::from(measure.settled) * 100;
            let of = i128::from(binding.0.cap) * i128::from(diversion.percent);
            diversion.percent == 100 || share >= of
        });
        self.require(is_true, || {
            format!("{}: not reached: {diversion:?}", who.number)
        });
    }

    pub(crate) fn breaker(&mut self, limit: Id, scope: (&'static str, Id), is_open: bool) {
        let name = (limit, scope.0, scope.1);
        let was_open = self.breakers.insert(name, is_open).unwrap_or(false);
        self.require(was_open != is_open, || {
            format!("breaker {limit}: {is_open} again")
        });
    }

    /// Compare the largest caps in force with what was granted below them.
    pub(crate) fn check_caps(&mut self, limit: &Limit, target: Target, measure: Measure) {
        let Some(cap) = self.caps.get(&limit.id).copied() else {
            return;
        };
        if !limit.is_hard() || !limit.resource.is_money() {
            return;
        }
        let at = limit.resource.amount().unwrap();
        let period = |entry: &Entry| limit.window.period(entry.admitted.wall_ns);
        let overruns: i64 = self
            .book
            .entries
            .values()
            .filter(|it| it.is_on(limit, target))
            .filter(|it| period(it) == limit.window.period(self.now.wall_ns))
            .map(|it| {
                let granted = if limit.hold == "bound" {
                    it.price.held(i64::MAX)
                } else {
                    it.granted
                };
                let actual = match it.end {
                    End::Settled { actual, .. } => actual,
                    _ => it.accrued,
                };
                (actual[at] - granted[at]).max(0)
            })
            .sum();
        self.require(
            measure.firm_sum(limit) <= cap.saturating_add(overruns),
            || format!("I1: {measure:?} with overruns of {overruns} above {limit:?}"),
        );
    }

    /// Tell who waits though nothing is open that could be waited for.
    pub(crate) fn stalled(&self) -> Option<u64> {
        if self.book.entries.values().any(Entry::is_open) {
            return None;
        }
        // One that a step lets queue waits for time to pass, and so do those that come after it.
        let must_go = |it: &&Waiter| {
            !self.queues.contains(&it.who.organization) && !self.queues.contains(&SHARED)
        };
        let waiter = self.line.iter().find(must_go);
        waiter.map(|waiter| waiter.who.number)
    }
}
