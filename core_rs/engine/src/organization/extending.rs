//! Holding more ahead of a stream, and cutting the youngest stream where there is no room.
use super::line::{Contested, Place};
use super::{Organization, Routes};
use crate::board::Board;
use crate::counter::Held;
use crate::decision::{self, Effect, Refusal};
use crate::error::{Error, Result};
use crate::id::ReservationId;
use crate::planted::{self, Fault};
use crate::reservation::{Amounts, Facts, Reservation};
use crate::time::Now;

/// What came of asking for more.
enum More {
    Held(i64),
    Failed {
        places: Vec<Place>,
        refusal: Box<Refusal>,
    },
}

impl Organization {
    /// Let a stream relay so many output tokens, one step more being held; return how many it may.
    ///
    /// None if there is no room: an effect tells when there is, and the youngest stream on the
    /// limit that has none is cut, which may be this one.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadySettled`, `AlreadyReleased`, `Overflow`.
    pub fn extend(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        wanted: i64,
        caller: Now,
    ) -> Result<Option<i64>> {
        if wanted < 0 {
            return Err(Error::InvalidArgument("amounts must not be negative"));
        }
        let reservation = self.open_reservation(id)?;
        let Some(stream) = reservation.stream else {
            return Ok(Some(reservation.tariff.output_tokens_max));
        };
        let seq = reservation.seq;
        if wanted <= stream.allowed {
            return Ok(Some(stream.allowed));
        }
        if self.cut.contains(&id) {
            return Ok(None);
        }
        match self.hold_more(shared, id, wanted, caller)? {
            More::Held(allowed) => Ok(Some(allowed)),
            More::Failed { places, refusal } => {
                if let Some(stream) = self.stream_mut(id) {
                    stream.wanted = Some(wanted);
                }
                self.wait_for(seq, &places);
                self.cut_youngest(shared, id, &places, *refusal);
                Ok(None)
            }
        }
    }

    /// Try again for the streams that wait for room, the oldest first.
    ///
    /// A younger one does not pass an older one on a limit that has no room for it.
    pub(super) fn call_streams(&mut self, shared: &mut Board, caller: Now) {
        let pending: Vec<u64> = self.pending.keys().copied().collect();
        let mut contested = Contested::new();
        for seq in pending {
            let places = self.pending.get(&seq).cloned().unwrap_or_default();
            if !places.iter().any(|place| contested.contains(place)) {
                self.call_stream(shared, seq, caller);
            }
            let left = self.pending.get(&seq);
            contested.extend(left.into_iter().flatten().copied());
        }
    }

    fn call_stream(&mut self, shared: &mut Board, seq: u64, caller: Now) {
        let id = self.streams.get(&seq).copied();
        let wanted = id.and_then(|id| self.stream_mut(id)?.wanted);
        let Some((id, wanted)) = id.zip(wanted) else {
            self.stop_waiting(seq);
            return;
        };
        match self.hold_more(shared, id, wanted, caller) {
            Ok(More::Held(allowed)) => {
                self.stop_waiting(seq);
                self.effects.push(Effect::Granted(id, allowed));
            }
            Ok(More::Failed { places, refusal }) => {
                self.wait_for(seq, &places);
                self.cut_youngest(shared, id, &places, *refusal);
            }
            // It waits on: what stands in its way is not of its making.
            Err(_) => {}
        }
    }

    /// Note that a stream waits for room on these limits.
    fn wait_for(&mut self, seq: u64, places: &[Place]) {
        self.line.contest(places);
        if let Some(before) = self.pending.insert(seq, places.to_vec()) {
            self.line.yield_place(&before);
        }
    }

    /// List the limits on which open streams wait for room.
    pub(super) fn pending_places(&self) -> Contested {
        self.pending.values().flatten().copied().collect()
    }

    /// Forget that a stream waits, because it got room or ended.
    pub(super) fn stop_waiting(&mut self, seq: u64) {
        if let Some(places) = self.pending.remove(&seq) {
            self.line.yield_place(&places);
        }
        if let Some(id) = self.streams.get(&seq).copied() {
            if let Some(stream) = self.stream_mut(id) {
                stream.wanted = None;
            }
        }
    }

    fn stream_mut(&mut self, id: ReservationId) -> Option<&mut crate::reservation::Stream> {
        self.reservations.get_mut(&id)?.stream.as_mut()
    }

    /// Hold enough for so many output tokens and a step, on all limits or on none.
    fn hold_more(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        wanted: i64,
        caller: Now,
    ) -> Result<More> {
        let now = self.tick(shared, caller);
        let shown = now.shown_by(caller);
        let reservation = self.open_reservation(id)?;
        let growth = growth(reservation, wanted, self.foresight.growth)?;
        let facts = reservation.facts.clone();
        let routes = self.routes_of(shared, &facts);
        self.roll(shared, &routes, &facts, now)?;
        let verdicts = self.review_more(shared, &routes, &facts, growth.firm, shown)?;
        let refusal = decision::refusal(&verdicts, &[], &facts.path, &self.version, shown);
        if let Some(refusal) = refusal {
            let named = refusal.limit.as_ref().map(|limit| limit.limit_id);
            let mut places: Vec<Place> = verdicts
                .iter()
                .map(|verdict| (verdict.scope, verdict.limit.id))
                .collect();
            // Who is cut is told the limit that the refusal names, so it is cut for that one.
            places.sort_by_key(|place| Some(place.1) != named);
            return Ok(More::Failed {
                places,
                refusal: Box::new(refusal),
            });
        }
        self.check_room(shared, &routes, &facts, growth.firm.max(growth.held))?;
        self.grow(shared, id, &routes, &facts, &growth)?;
        Ok(More::Held(growth.allowed))
    }

    fn grow(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        routes: &Routes,
        facts: &Facts,
        growth: &Growth,
    ) -> Result<()> {
        self.for_counters(shared, routes, facts, |counter| {
            if counter.resource.is_count() {
                return Ok(());
            }
            let held = Held {
                expected: growth.held.of(counter.resource),
                bound: 0,
                firm: growth.firm.of(counter.resource),
            };
            counter.hold(held, facts.admitted)
        })?;
        if let Some(reservation) = self.reservations.get_mut(&id) {
            reservation.firm = reservation.firm.plus(growth.firm);
            reservation.held = reservation.held.plus(growth.held);
        }
        if let Some(stream) = self.stream_mut(id) {
            stream.allowed = growth.allowed;
        }
        Ok(())
    }

    /// Cut the youngest stream on a limit that has no room; none while another is being cut there.
    fn cut_youngest(
        &mut self,
        shared: &Board,
        asking: ReservationId,
        places: &[Place],
        refusal: Refusal,
    ) {
        let Some(place) = places.first().copied() else {
            return;
        };
        let Some(admitted) = self
            .reservations
            .get(&asking)
            .map(|open| open.facts.admitted)
        else {
            return;
        };
        let is_on = |id: &ReservationId| {
            let reservation = self.reservations.get(id);
            reservation.is_some_and(|open| self.is_on(shared, open, place, admitted))
        };
        if self.cut.iter().any(is_on) {
            return;
        }
        let mut on = self.streams.iter().filter(|(_, id)| is_on(id));
        let youngest = if planted::is(Fault::OldestCut) {
            on.next()
        } else {
            on.next_back()
        };
        if let Some((seq, id)) = youngest.map(|(seq, id)| (*seq, *id)) {
            self.cut.insert(id);
            self.stop_waiting(seq);
            if planted::is(Fault::CutUntold) {
                return;
            }
            self.effects.push(Effect::Cut(id, Box::new(refusal)));
        }
    }

    /// Tell whether what a stream holds counts on a limit, in the period of another admission.
    fn is_on(
        &self,
        shared: &Board,
        reservation: &Reservation,
        (scope, limit_id): Place,
        admitted: Now,
    ) -> bool {
        let facts = &reservation.facts;
        let is_own = || facts.path.scopes().any(|own| own == scope);
        if !scope.kind.is_shared() && !is_own() {
            return false;
        }
        let routes = self.routes_of(shared, facts);
        self.limits(shared, &routes, facts)
            .any(|(limit, its_scope, counter)| {
                its_scope == scope
                    && limit.id == limit_id
                    && counter.period_of(facts.admitted) == counter.period_of(admitted)
            })
    }
}

/// What a stream gets that goes on.
struct Growth {
    /// Output tokens that it may then relay.
    allowed: i64,
    /// What it can cost by then, beyond what it could before.
    firm: Amounts,
    /// What is expected of it, beyond what was held.
    held: Amounts,
}

/// Say what a stream needs to relay so many output tokens, with one step ahead and one held.
fn growth(reservation: &Reservation, wanted: i64, factor: i64) -> Result<Growth> {
    let tariff = &reservation.tariff;
    let ahead = wanted.saturating_add(reservation.step_tokens);
    let allowed = ahead.min(tariff.output_tokens_max);
    let tokens = allowed.saturating_add(reservation.step_tokens);
    let firm = tariff.amounts(tokens)?;
    // As long as it keeps to what was expected of it, nothing else is.
    let has_outgrown = firm.beyond(reservation.held) != Amounts::default();
    let expected = if has_outgrown {
        tariff.amounts(tokens.saturating_mul(factor.max(1)))?
    } else {
        reservation.held
    };
    Ok(Growth {
        allowed,
        firm: firm.beyond(reservation.firm),
        held: expected.beyond(reservation.held),
    })
}
