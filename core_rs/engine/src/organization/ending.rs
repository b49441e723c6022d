//! What happens to a reservation after admission: progress, settlement, release, booking.
use super::reviewing::learner_of;
use super::{Organization, RELEASED_MAX, Routes};
use crate::board::Board;
use crate::counter::{End, Held};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::Mode;
use crate::money;
use crate::planted::{self, Fault};
use crate::reservation::{Amounts, Facts, Reservation, Settlement, Unbooked};
use crate::time::Now;

/// What a request really cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Nano units of the price sheet's currency.
    pub cost_nanos: i64,
    /// All tokens together.
    pub tokens: i64,
    /// Output tokens, where the length of the answer is to be learned from.
    pub output_tokens: Option<i64>,
}

impl Organization {
    /// Report what an open reservation has cost and used so far; less than before changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadySettled`, `AlreadyReleased`, `Overflow`.
    pub fn progress(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        so_far: Actual,
        now: Now,
    ) -> Result<()> {
        let now = self.tick(shared, now);
        let before = self.open_reservation(id)?.clone();
        let so_far = charged(&before, so_far)?;
        let facts = &before.facts;
        let routes = self.routes_of(shared, facts);
        self.check_room(shared, &routes, facts, so_far.beyond(before.held))?;
        self.roll(shared, &routes, facts, now)?;
        let after = Reservation {
            accrued: before.accrued.max(so_far),
            held: before.held.max(so_far),
            firm: before.firm.max(so_far),
            passed_nanos: before
                .passed_nanos
                .saturating_add(so_far.beyond(before.firm).spend_nanos),
            bound: before.bound.max(so_far),
            ..before.clone()
        };
        self.for_counters(shared, &routes, facts, |counter| {
            let (was, is) = (before.part(counter.resource), after.part(counter.resource));
            let more = Held {
                expected: money::subtract(is.held.expected, was.held.expected)?,
                bound: money::subtract(is.held.bound, was.held.bound)?,
                firm: money::subtract(is.held.firm, was.held.firm)?,
            };
            counter.hold(more, facts.admitted)?;
            counter.accrue(
                money::subtract(is.accrued, was.accrued)?,
                facts.admitted,
                now,
            )
        })?;
        self.watch_breakers(shared, &routes, facts, now);
        self.reservations.insert(id, after);
        Ok(())
    }

    /// Book what a request really cost in the period that admitted it, and end its hold.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadyReleased`, `Overflow`.
    pub fn settle(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        actual: Actual,
        caller: Now,
    ) -> Result<Settlement> {
        let now = self.tick(shared, caller);
        if let Some(earlier) = self.settlement(id) {
            return Ok(Settlement {
                first: false,
                ..earlier.clone()
            });
        }
        let Some(reservation) = self.reservations.remove(&id) else {
            return Err(self.absence(id));
        };
        let settlement = match self.book(shared, &reservation, actual, now) {
            Ok(settlement) => settlement,
            Err(error) => {
                self.reservations.insert(id, reservation);
                return Err(error);
            }
        };
        self.learn(&reservation, actual);
        self.end_stream(id, &reservation);
        self.remember_settled(id, reservation.facts, settlement.clone(), now);
        self.call_when_needed(shared, caller);
        Ok(settlement)
    }

    /// End a reservation as if it had never been; false if that was done before.
    ///
    /// # Errors
    /// `UnknownReservation`, `AlreadySettled`.
    pub fn release(&mut self, shared: &mut Board, id: ReservationId, caller: Now) -> Result<bool> {
        let now = self.tick(shared, caller);
        if self.released.contains(&id) {
            return Ok(false);
        }
        let reservation = self.open_reservation(id)?.clone();
        let routes = self.routes_of(shared, &reservation.facts);
        self.close(shared, &routes, &reservation, None, now)?;
        self.reservations.remove(&id);
        self.end_stream(id, &reservation);
        self.remember_released(id);
        self.call_when_needed(shared, caller);
        Ok(true)
    }

    /// Forget all settlements up to a number, since the ledger has them.
    ///
    /// # Errors
    /// `InvalidArgument` if the number has not been handed out.
    pub fn booked_through(&mut self, seq: u64) -> Result<()> {
        if seq > self.seq_last {
            return Err(Error::InvalidArgument("seq has not been handed out"));
        }
        while self
            .unbooked
            .front()
            .is_some_and(|entry| entry.settlement.seq <= seq)
        {
            if let Some(booked) = self.unbooked.pop_front() {
                self.settled.remove(&booked.id);
            }
        }
        while self
            .released_order
            .front()
            .is_some_and(|(_, after)| *after <= seq)
        {
            self.forget_release();
        }
        Ok(())
    }

    fn book(
        &mut self,
        shared: &mut Board,
        reservation: &Reservation,
        actual: Actual,
        now: Now,
    ) -> Result<Settlement> {
        let booked = charged(reservation, actual)?;
        let facts = &reservation.facts;
        let routes = self.routes_of(shared, facts);
        self.check_room(shared, &routes, facts, booked.beyond(reservation.held))?;
        let seq = self.seq_last.checked_add(1).ok_or(Error::Overflow)?;
        self.close(shared, &routes, reservation, Some(booked), now)?;
        self.watch_breakers(shared, &routes, facts, now);
        Ok(Settlement {
            first: true,
            seq,
            booked,
            overrun_nanos: overrun_nanos(reservation, booked),
            bound_ratio: bound_ratio(reservation, actual),
            exceeded: self.exceeded(shared, &routes, facts)?,
            crossed: self.crossings(shared, &routes, facts, now),
        })
    }

    /// Let those that wait have what became free; a call without anybody waiting costs nothing.
    pub(super) fn call_when_needed(&mut self, shared: &mut Board, caller: Now) {
        if self.line.len() > 0 || !self.pending.is_empty() {
            self.call(shared, caller, false);
        }
    }

    fn learn(&mut self, reservation: &Reservation, actual: Actual) {
        let Some(output_tokens) = actual.output_tokens else {
            return;
        };
        let each = output_tokens
            .checked_add(reservation.choices.saturating_sub(1))
            .and_then(|tokens| tokens.checked_div(reservation.choices))
            .unwrap_or(output_tokens);
        let facts = &reservation.facts;
        let learner = learner_of(&facts.path);
        self.estimator.learn(&facts.subject.model, &learner, each);
    }

    fn end_stream(&mut self, id: ReservationId, reservation: &Reservation) {
        if reservation.stream.is_some() {
            self.streams.remove(&reservation.seq);
            self.stop_waiting(reservation.seq);
            self.cut.remove(&id);
        }
    }

    fn settlement(&self, id: ReservationId) -> Option<&Settlement> {
        let seq = self.settled.get(&id)?;
        let first = self.unbooked.front()?.settlement.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.unbooked.get(at).map(|entry| &entry.settlement)
    }

    /// End a reservation on its counters; `None` releases it.
    fn close(
        &mut self,
        shared: &mut Board,
        routes: &Routes,
        reservation: &Reservation,
        actual: Option<Amounts>,
        now: Now,
    ) -> Result<()> {
        let facts = &reservation.facts;
        self.roll(shared, routes, facts, now)?;
        let is_cut = |id: &ReservationId| self.cut.contains(id);
        let keeps_hold = planted::is(Fault::HoldKeptOnCut)
            && self.streams.get(&reservation.seq).is_some_and(is_cut);
        self.for_counters(shared, routes, facts, |counter| {
            if keeps_hold {
                let part = reservation.part(counter.resource);
                counter.hold(part.held, facts.admitted)?;
            }
            let end = actual.map_or(End::Released, |actual| {
                End::Settled(actual.of(counter.resource))
            });
            counter.close(reservation.part(counter.resource), end, facts.admitted, now)
        })
    }

    /// List the hard limits over their caps in the period that admitted a request.
    fn exceeded(&self, shared: &Board, routes: &Routes, facts: &Facts) -> Result<Vec<Id>> {
        let mut exceeded = Vec::new();
        for (limit, _, counter) in self.limits(shared, routes, facts) {
            if limit.mode == Mode::Hard {
                let measure = counter.measure_at(facts.admitted).unwrap_or_default();
                if measure.firmly().hard(limit.hold)? > limit.cap {
                    exceeded.push(limit.id);
                }
            }
        }
        Ok(exceeded)
    }

    fn remember_settled(
        &mut self,
        id: ReservationId,
        facts: Facts,
        settlement: Settlement,
        settled: Now,
    ) {
        self.seq_last = settlement.seq;
        self.settled.insert(id, settlement.seq);
        self.unbooked.push_back(Unbooked {
            id,
            facts,
            settled,
            settlement,
        });
    }

    fn remember_released(&mut self, id: ReservationId) {
        self.released.insert(id);
        self.released_order.push_back((id, self.seq_last));
        if self.released_order.len() > RELEASED_MAX {
            self.forget_release();
        }
    }

    fn forget_release(&mut self) {
        if let Some((oldest, _)) = self.released_order.pop_front() {
            self.released.remove(&oldest);
        }
    }
}

/// Charge a cost by the terms that held when the request was admitted.
fn charged(reservation: &Reservation, actual: Actual) -> Result<Amounts> {
    let amounts = Amounts {
        spend_nanos: reservation.tariff.terms.charge(actual.cost_nanos)?,
        cost_nanos: actual.cost_nanos,
        tokens: actual.tokens,
    };
    amounts.check()?;
    Ok(amounts)
}

/// Return what was spent beyond what the stream was allowed to, reported before or not.
fn overrun_nanos(reservation: &Reservation, booked: Amounts) -> i64 {
    let allowed = reservation.firm.spend_nanos;
    let granted = allowed.saturating_sub(reservation.passed_nanos);
    booked.spend_nanos.saturating_sub(granted).max(0)
}

/// Return how many times its bound a request cost, rounded up, without what calibration added.
fn bound_ratio(reservation: &Reservation, actual: Actual) -> i64 {
    let bound = reservation.tariff.bound_nanos;
    let rounded = actual.cost_nanos.saturating_add(bound.saturating_sub(1));
    rounded.checked_div(bound).unwrap_or(1).max(1)
}
