//! Requests that wait until others have ended: in the order of their arrival, holding nothing.
//!
//! One passes an earlier one only if it shares no limit that the earlier one is failing on.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Organization;
use super::admitting::{Stop, Turn};
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{Decision, Effect, Refusal};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::{Scope, ScopeKind};
use crate::planted::{self, Fault};
use crate::reservation::Path;
use crate::time::Now;

/// Most requests that wait in one organization.
pub const WAITERS_MAX: usize = 1_000;
/// Most of them with one key.
pub const KEY_WAITERS_MAX: usize = 100;

/// A limit as the counter of one scope.
pub(super) type Place = (Scope, Id);
/// Limits that somebody waits for who comes first.
pub(super) type Contested = BTreeSet<Place>;

/// What a request that waits asks for, and for whom.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: Path,
    pub(super) ask: Ask,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) id: ReservationId,
    pub(super) request: Arc<Request>,
    /// The limits on which it failed last.
    pub(super) failing: Vec<Place>,
    /// Limits that let it stay although nothing that is open stands in its way, and how many of
    /// their steps it has passed when its time is up.
    pub(super) queued: Vec<(Id, usize)>,
    pub(super) until_mono_ns: u64,
}

/// The line of one organization.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<u64, Waiter>,
    numbers: BTreeMap<ReservationId, u64>,
    last: u64,
    by_key: BTreeMap<Id, usize>,
    /// How many wait for each limit, and how many open streams do.
    contested: BTreeMap<Place, usize>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn has(&self, id: ReservationId) -> bool {
        self.numbers.contains_key(&id)
    }

    pub(super) fn has_room(&self, key: Id) -> bool {
        let own = self.by_key.get(&key).copied().unwrap_or(0);
        self.waiters.len() < WAITERS_MAX && own < KEY_WAITERS_MAX
    }

    pub(super) fn is_contested_at_all(&self) -> bool {
        !self.contested.is_empty()
    }

    pub(super) fn is_contested(&self, place: Place) -> bool {
        self.contested.contains_key(&place) && !planted::is(Fault::LinePassed)
    }

    pub(super) fn join(&mut self, waiter: Waiter) {
        self.last = self.last.saturating_add(1);
        self.numbers.insert(waiter.id, self.last);
        let own = self.by_key.entry(waiter.request.path.key).or_default();
        *own = own.saturating_add(1);
        self.contest(&waiter.failing);
        self.waiters.insert(self.last, waiter);
    }

    fn leave(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.numbers.remove(&waiter.id);
        let key = waiter.request.path.key;
        if let Some(own) = self.by_key.get_mut(&key) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_key.remove(&key);
            }
        }
        self.yield_place(&waiter.failing);
        Some(waiter)
    }

    /// Note that somebody waits for these limits.
    pub(super) fn contest(&mut self, failing: &[Place]) {
        for place in failing {
            let count = self.contested.entry(*place).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Note that somebody does not wait for these limits any more.
    pub(super) fn yield_place(&mut self, failing: &[Place]) {
        for place in failing {
            if let Some(count) = self.contested.get_mut(place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.contested.remove(place);
                }
            }
        }
    }

    /// Change one that keeps its place.
    fn stay(&mut self, number: u64, change: impl FnOnce(&mut Waiter)) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return;
        };
        let before = waiter.failing.clone();
        change(waiter);
        if waiter.failing == before {
            return;
        }
        let after = waiter.failing.clone();
        self.yield_place(&before);
        self.contest(&after);
    }

    fn failing(&self, number: u64) -> &[Place] {
        let waiter = self.waiters.get(&number);
        waiter.map_or(&[], |waiter| waiter.failing.as_slice())
    }
}

impl Organization {
    /// Tell whether anybody waits, in line or within a stream, or a breaker is open.
    pub fn has_waiters(&self) -> bool {
        self.line.len() > 0 || !self.pending.is_empty() || !self.open_breakers.is_empty()
    }

    /// Take a request out of the line before its time and say what becomes of it.
    ///
    /// It may fit at this very moment; or a step of the limit may let it queue, or ask something.
    ///
    /// # Errors
    /// `UnknownReservation` if it does not wait any more, and those of [`Self::admit`]; it waits on
    /// then.
    pub fn give_up(&mut self, shared: &mut Board, id: ReservationId, now: Now) -> Result<Decision> {
        let number = self.line.numbers.get(&id).copied();
        let number = number.ok_or(Error::UnknownReservation)?;
        let mut contested = self.pending_places();
        let earlier = self.line.waiters.range(..number);
        contested.extend(earlier.flat_map(|(_, waiter)| waiter.failing.iter().copied()));
        let decision = self.end_wait(shared, number, &contested, now)?;
        self.call(shared, now, false);
        Ok(decision)
    }

    /// Take those out of the line whose time is up.
    pub(super) fn expire(&mut self, shared: &mut Board, caller: Now) {
        let mono_ns = self.clock.mono_ns;
        let is_over = |waiter: &Waiter| waiter.until_mono_ns <= mono_ns;
        if !self.line.waiters.values().any(is_over) {
            return;
        }
        let waiters = self.line.waiters.iter();
        let all: Vec<(u64, ReservationId, bool)> = waiters
            .map(|(number, waiter)| (*number, waiter.id, is_over(waiter)))
            .collect();
        let mut contested = self.pending_places();
        for (number, id, is_over) in all {
            if is_over {
                match self.end_wait(shared, number, &contested, caller) {
                    Ok(decision) => self.tell(id, decision),
                    Err(_) => self.drop_waiter(number),
                }
            }
            contested.extend(self.line.failing(number).iter().copied());
        }
    }

    /// Decide about one whose time is up; it leaves the line unless a step lets it queue.
    fn end_wait(
        &mut self,
        shared: &mut Board,
        number: u64,
        contested: &Contested,
        caller: Now,
    ) -> Result<Decision> {
        let waiter = self.line.waiters.get(&number).cloned();
        let waiter = waiter.ok_or(Error::UnknownReservation)?;
        let mut ask = waiter.request.ask.clone();
        // It has queued as long as a step lets it: what comes after that step is next.
        ask.taken.extend(waiter.queued.iter().copied());
        let request = Request {
            path: waiter.request.path.clone(),
            ask,
        };
        let stop = self.take_turn(shared, waiter.id, &request, &Turn::Late(contested), caller)?;
        if let Decision::Waiting(waiting) = stop.decision {
            let until_ns = self.clock.mono_ns.saturating_add(waiting.timeout_ns);
            self.line.stay(number, |waiter| {
                waiter.request = Arc::new(request);
                waiter.failing = stop.failing;
                waiter.queued = stop.queued;
                waiter.until_mono_ns = until_ns;
            });
            return Ok(Decision::Waiting(waiting));
        }
        self.line.leave(number);
        Ok(stop.decision)
    }

    /// End the wait of one that cannot be decided about any more, such as without exchange rate.
    fn drop_waiter(&mut self, number: u64) {
        if let Some(waiter) = self.line.leave(number) {
            let scope = Scope {
                kind: ScopeKind::Organization,
                id: self.id,
            };
            let refusal = Refusal::by_state(
                "enforcement_unavailable",
                503,
                scope,
                waiter.request.path.clone(),
                Arc::clone(&self.version),
            );
            self.tell(waiter.id, Decision::Refused(Box::new(refusal)));
        }
    }

    /// Tell whoever asked what became of a request that stood in line.
    fn tell(&mut self, id: ReservationId, decision: Decision) {
        match decision {
            Decision::Waiting(_) => {}
            Decision::Admitted(admission) => {
                self.effects.push(Effect::Admitted(id, Box::new(admission)));
            }
            other => self.effects.push(Effect::Ended(id, Box::new(other))),
        }
    }

    /// Forget a request whose client left; false if it does not wait any more.
    pub fn leave(&mut self, shared: &mut Board, id: ReservationId, now: Now) -> bool {
        let Some(number) = self.line.numbers.get(&id).copied() else {
            return false;
        };
        self.line.leave(number);
        self.call(shared, now, false);
        true
    }

    /// Go through the line: streams that wait for room first, then requests in their order.
    ///
    /// One that stands behind another is looked at only when all are: it cannot pass, but may learn
    /// that no waiting will help. What cannot be decided about now waits on.
    pub(super) fn call(&mut self, shared: &mut Board, caller: Now, is_for_all: bool) {
        self.call_streams(shared, caller);
        let numbers: Vec<u64> = self.line.waiters.keys().copied().collect();
        let mut contested = self.pending_places();
        for number in numbers {
            let failing = self.line.failing(number);
            let is_behind = failing.iter().any(|place| contested.contains(place));
            if is_for_all || !is_behind {
                self.call_one(shared, number, &contested, caller);
            }
            contested.extend(self.line.failing(number).iter().copied());
        }
    }

    fn call_one(&mut self, shared: &mut Board, number: u64, contested: &Contested, caller: Now) {
        let Some(waiter) = self.line.waiters.get(&number).cloned() else {
            return;
        };
        let turn = Turn::Called(contested);
        let Ok(stop) = self.take_turn(shared, waiter.id, &waiter.request, &turn, caller) else {
            return;
        };
        let stays = match &stop.decision {
            Decision::Waiting(_) => true,
            // One that queues waits for another period too, but not for another state.
            Decision::Refused(refusal) => !waiter.queued.is_empty() && refusal.limit.is_some(),
            Decision::Admitted(_) | Decision::Diverted(_) => false,
        };
        if stays {
            self.keep_waiting(number, stop);
            return;
        }
        self.line.leave(number);
        self.tell(waiter.id, stop.decision);
    }

    /// Keep one in line; a step may let it queue from now on, as waiting for others is in vain.
    fn keep_waiting(&mut self, number: u64, stop: Stop) {
        let Decision::Waiting(waiting) = stop.decision else {
            return;
        };
        let until_ns = self.clock.mono_ns.saturating_add(waiting.timeout_ns);
        self.line.stay(number, |waiter| {
            waiter.failing = stop.failing;
            if waiting.is_queued && waiter.queued.is_empty() {
                waiter.queued = stop.queued;
                // Whoever may wait longer for open requests does: they may be what it waits for then.
                waiter.until_mono_ns = waiter.until_mono_ns.max(until_ns);
            }
        });
    }
}
