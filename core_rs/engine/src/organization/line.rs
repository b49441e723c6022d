//! Requests that wait until others have ended: in the order of their arrival, holding nothing.
//!
//! One passes an earlier one only if it shares no limit that the earlier one is failing on.
use std::collections::BTreeMap;

use super::Organization;
use super::admitting::Turn;
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{Decision, Effect};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::Scope;
use crate::reservation::Path;
use crate::time::Now;

/// Most requests that wait in one organization.
pub const WAITERS_MAX: usize = 1_000;
/// Most of them with one key.
pub const KEY_WAITERS_MAX: usize = 100;

/// A limit as the counter of one scope.
pub(super) type Place = (Scope, Id);

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) id: ReservationId,
    pub(super) path: Path,
    pub(super) ask: Ask,
    /// The limits on which it failed last.
    pub(super) failing: Vec<Place>,
    /// Whether it stays although nothing that is open stands in its way.
    pub(super) is_queued: bool,
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

    pub(super) fn has_room_for_any(&self) -> bool {
        self.waiters.len() < WAITERS_MAX
    }

    pub(super) fn has_room(&self, key: Id) -> bool {
        let own = self.by_key.get(&key).copied().unwrap_or(0);
        self.has_room_for_any() && own < KEY_WAITERS_MAX
    }

    pub(super) fn is_contested(&self, scope: Scope, limit_id: Id) -> bool {
        !self.contested.is_empty() && self.contested.contains_key(&(scope, limit_id))
    }

    pub(super) fn join(&mut self, waiter: Waiter) {
        self.last = self.last.saturating_add(1);
        self.numbers.insert(waiter.id, self.last);
        let own = self.by_key.entry(waiter.path.key).or_default();
        *own = own.saturating_add(1);
        self.contest(&waiter.failing);
        self.waiters.insert(self.last, waiter);
    }

    fn leave(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        self.numbers.remove(&waiter.id);
        if let Some(own) = self.by_key.get_mut(&waiter.path.key) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_key.remove(&waiter.path.key);
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

    fn fail_on(&mut self, number: u64, failing: Vec<Place>) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut waiter.failing, failing.clone());
        self.yield_place(&before);
        self.contest(&failing);
    }
}

impl Organization {
    /// Tell whether anybody waits, in line or within a stream.
    pub fn has_waiters(&self) -> bool {
        self.line.len() > 0 || !self.pending.is_empty() || !self.open_breakers.is_empty()
    }

    /// Take a request out of the line before its time and say what becomes of it.
    ///
    /// It may fit at this very moment; or a step of the limit may let it queue, or ask something.
    ///
    /// # Errors
    /// `UnknownReservation` if it does not wait any more, and those of [`Self::admit`].
    pub fn give_up(&mut self, shared: &mut Board, id: ReservationId, now: Now) -> Result<Decision> {
        let number = self.line.numbers.get(&id).copied();
        let number = number.ok_or(Error::UnknownReservation)?;
        let decision = self.end_wait(shared, number, now)?;
        self.call(shared, now)?;
        Ok(decision)
    }

    /// Take those out of the line whose time is up.
    pub(super) fn expire(&mut self, shared: &mut Board, now: Now) -> Result<()> {
        let mono_ns = self.clock.mono_ns;
        let waiters = self.line.waiters.iter();
        let over = waiters.filter(|(_, waiter)| waiter.until_mono_ns <= mono_ns);
        let over: Vec<(u64, ReservationId)> =
            over.map(|(number, waiter)| (*number, waiter.id)).collect();
        for (number, id) in over {
            let decision = self.end_wait(shared, number, now)?;
            self.tell(id, decision);
        }
        Ok(())
    }

    fn end_wait(&mut self, shared: &mut Board, number: u64, now: Now) -> Result<Decision> {
        let waiter = self.line.leave(number).ok_or(Error::UnknownReservation)?;
        let mut ask = waiter.ask.clone();
        if waiter.is_queued {
            // It has queued as long as a step lets it: what comes after that step is next.
            let queued = waiter.failing.iter();
            ask.taken
                .extend(queued.map(|(_, limit)| (*limit, usize::MAX)));
        }
        let ruling = self.rule(shared, &waiter.path, &ask, Turn::Late, now)?;
        if let Decision::Waiting(waiting) = ruling.decision {
            let until_ns = self.clock.mono_ns.saturating_add(waiting.timeout_ns);
            self.line.join(Waiter {
                failing: ruling.failing,
                is_queued: true,
                until_mono_ns: until_ns,
                ..waiter
            });
            return Ok(Decision::Waiting(waiting));
        }
        self.open_called(shared, &waiter, ruling)
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
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn leave(&mut self, shared: &mut Board, id: ReservationId, now: Now) -> Result<bool> {
        let Some(number) = self.line.numbers.get(&id).copied() else {
            return Ok(false);
        };
        self.line.leave(number);
        self.call(shared, now)?;
        Ok(true)
    }

    /// Go through the line: streams that wait for room first, then requests in their order.
    ///
    /// # Errors
    /// `Overflow`, and `InvalidArgument` if the instant is outside the calendar.
    pub(super) fn call(&mut self, shared: &mut Board, now: Now) -> Result<()> {
        self.call_streams(shared, now)?;
        let numbers: Vec<u64> = self.line.waiters.keys().copied().collect();
        let mut contested: Vec<Place> = self.pending_places();
        for number in numbers {
            let Some(waiter) = self.line.waiters.get(&number) else {
                continue;
            };
            if waiter.failing.iter().any(|place| contested.contains(place)) {
                contested.extend(waiter.failing.iter().copied());
                continue;
            }
            let waiter = waiter.clone();
            if self.is_behind(shared, &waiter, &contested, now)? {
                continue;
            }
            let ruling = self.rule(shared, &waiter.path, &waiter.ask, Turn::Called, now)?;
            let stays = match &ruling.decision {
                Decision::Waiting(_) => true,
                Decision::Refused(_) => waiter.is_queued,
                Decision::Admitted(_) | Decision::Diverted(_) => false,
            };
            if stays {
                let failing = if ruling.failing.is_empty() {
                    waiter.failing.clone()
                } else {
                    ruling.failing
                };
                contested.extend(failing.iter().copied());
                self.line.fail_on(number, failing);
                continue;
            }
            self.line.leave(number);
            let decision = self.open_called(shared, &waiter, ruling)?;
            self.tell(waiter.id, decision);
        }
        Ok(())
    }

    /// Tell whether an earlier one is failing on any limit of a request's path.
    fn is_behind(
        &self,
        shared: &Board,
        waiter: &Waiter,
        contested: &[Place],
        now: Now,
    ) -> Result<bool> {
        if contested.is_empty() {
            return Ok(false);
        }
        let facts = self.facts(waiter.path.clone(), &waiter.ask, self.clock.latest(now));
        let routes = self.find_routes(shared, &facts)?;
        let mut limits = self.limits(shared, &routes, &facts);
        Ok(limits.any(|(limit, scope, _)| contested.contains(&(scope, limit.id))))
    }
}
