//! What happens to a reservation after admission: progress, settlement, release, booking.
use super::{Organization, Places, RELEASED_MAX, check_amounts, overflows, raised};
use crate::counter::End;
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::{Mode, Resource};
use crate::money;
use crate::reservation::{Amounts, Facts, Part, Reservation, Settlement, Unbooked};
use crate::time::Now;

impl Organization {
    /// Report what an open reservation has cost and used so far; less than before changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadySettled`, `AlreadyReleased`, `Overflow`.
    pub fn progress(&mut self, id: ReservationId, so_far: Amounts, now: Now) -> Result<()> {
        check_amounts(so_far)?;
        let now = self.tick(now);
        let reservation = self.open_reservation(id)?.clone();
        let facts = &reservation.facts;
        let places = self.places(&facts.path);
        self.check_room(places, facts, so_far.beyond(reservation.held))?;
        self.roll(places, facts, now)?;
        self.for_counters(places, facts, |counter| {
            let before = reservation.part(counter.resource);
            let after = after_progress(counter.resource, before, so_far);
            counter.hold(money::subtract(after.held, before.held)?, facts.admitted)?;
            counter.accrue(
                money::subtract(after.accrued, before.accrued)?,
                facts.admitted,
                now,
            )
        })?;
        self.note_progress(id, &reservation, so_far);
        Ok(())
    }

    /// Book what a request really cost in the period that admitted it, and end its hold.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadyReleased`, `Overflow`.
    pub fn settle(&mut self, id: ReservationId, actual: Amounts, now: Now) -> Result<Settlement> {
        check_amounts(actual)?;
        let now = self.tick(now);
        if let Some(earlier) = self.settlement(id) {
            return Ok(Settlement {
                first: false,
                ..earlier.clone()
            });
        }
        let Some(reservation) = self.reservations.remove(&id) else {
            return Err(self.absence(id));
        };
        match self.book(&reservation, actual, now) {
            Ok(settlement) => {
                self.remember_settled(id, reservation.facts, settlement.clone(), now);
                Ok(settlement)
            }
            Err(error) => {
                self.reservations.insert(id, reservation);
                Err(error)
            }
        }
    }

    /// End a reservation as if it had never been; false if that was done before.
    ///
    /// # Errors
    /// `UnknownReservation`, `AlreadySettled`.
    pub fn release(&mut self, id: ReservationId, now: Now) -> Result<bool> {
        let now = self.tick(now);
        if self.released.contains(&id) {
            return Ok(false);
        }
        let reservation = self.open_reservation(id)?.clone();
        let places = self.places(&reservation.facts.path);
        self.close(places, &reservation, None, now)?;
        self.reservations.remove(&id);
        self.remember_released(id);
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

    fn book(&mut self, reservation: &Reservation, actual: Amounts, now: Now) -> Result<Settlement> {
        let places = self.places(&reservation.facts.path);
        self.check_room(places, &reservation.facts, actual.beyond(reservation.held))?;
        let seq = self.seq_last.checked_add(1).ok_or(Error::Overflow)?;
        self.close(places, reservation, Some(actual), now)?;
        Ok(Settlement {
            first: true,
            seq,
            booked: actual,
            overrun_nanos: actual.beyond(reservation.held).spend_nanos,
            exceeded: self.exceeded(places, &reservation.facts)?,
        })
    }

    fn settlement(&self, id: ReservationId) -> Option<&Settlement> {
        let seq = self.settled.get(&id)?;
        let first = self.unbooked.front()?.settlement.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.unbooked.get(at).map(|entry| &entry.settlement)
    }

    /// Fail before anything is changed if a counter could not grow by the amounts.
    fn check_room(&self, places: Places, facts: &Facts, amounts: Amounts) -> Result<()> {
        let mut states = places.iter().filter_map(|at| self.scopes.get(at));
        if states.any(|state| overflows(state, facts, amounts)) {
            Err(Error::Overflow)
        } else {
            Ok(())
        }
    }

    fn note_progress(&mut self, id: ReservationId, before: &Reservation, so_far: Amounts) {
        let spend = raised(before.part(Resource::Spend), so_far.spend_nanos);
        let tokens = raised(before.part(Resource::Tokens), so_far.tokens);
        if let Some(reservation) = self.reservations.get_mut(&id) {
            reservation.held = Amounts {
                spend_nanos: spend.held,
                tokens: tokens.held,
            };
            reservation.accrued = Amounts {
                spend_nanos: spend.accrued,
                tokens: tokens.accrued,
            };
        }
    }

    /// End a reservation on its counters; `None` releases it.
    fn close(
        &mut self,
        places: Places,
        reservation: &Reservation,
        actual: Option<Amounts>,
        now: Now,
    ) -> Result<()> {
        let facts = &reservation.facts;
        self.roll(places, facts, now)?;
        self.for_counters(places, facts, |counter| {
            let end = actual.map_or(End::Released, |actual| {
                End::Settled(actual.of(counter.resource))
            });
            counter.close(reservation.part(counter.resource), end, facts.admitted, now)
        })
    }

    /// List the hard limits over their caps in the period that admitted a request.
    fn exceeded(&self, places: Places, facts: &Facts) -> Result<Vec<Id>> {
        let mut exceeded = Vec::new();
        for state in places.iter().filter_map(|at| self.scopes.get(at)) {
            for (limit, counter) in state
                .limits_of(facts)
                .filter(|(limit, _)| limit.mode == Mode::Hard)
            {
                let measure = counter.measure_at(facts.admitted).unwrap_or_default();
                if measure.hard()? > limit.cap {
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

fn after_progress(resource: Resource, before: Part, so_far: Amounts) -> Part {
    match resource {
        Resource::Requests => before,
        _ => raised(before, so_far.of(resource)),
    }
}
