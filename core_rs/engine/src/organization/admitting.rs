//! Admission and extension: ask every limit of a path, then hold on all counters or on none.
use std::sync::Arc;

use super::{OPEN_MAX, Organization, Places, UNBOOKED_MAX, check_amounts, overflows};
use crate::counter::{Counter, Measure};
use crate::decision::{self, Admission, Decision, RateFigures, Refusal, Seen, Verdict};
use crate::error::{Error, Result};
use crate::id::ReservationId;
use crate::limit::{Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
use crate::money;
use crate::policy::{NAME_BYTES_MAX, OrganizationState};
use crate::reservation::{Amounts, Facts, Path, Reservation};
use crate::time::Now;

/// A path has 8 to 20 limits as a rule; growing a list up to that costs a tenth of an admission.
const SEEN_USUAL: usize = 20;

/// What all limits of a path say to one request.
#[derive(Default)]
struct Review<'a> {
    verdicts: Vec<Verdict<'a>>,
    seen: Vec<Seen>,
    remaining_spend_nanos: Option<i64>,
    overflows: bool,
}

impl<'a> Review<'a> {
    /// Ask one limit for a new request.
    fn ask(&mut self, limit: &'a Limit, counter: &Counter, requested: i64, now: Now) -> Result<()> {
        let measure = counter.measure();
        let Measure { used, held, .. } = measure;
        self.seen.push(Seen {
            limit_id: limit.id,
            used,
            held,
            cap: limit.cap,
        });
        self.verdicts.extend(decision::judge(
            limit, counter, measure, requested, false, now,
        )?);
        if limit.mode == Mode::Hard && limit.resource == Resource::Spend {
            let left = limit
                .cap
                .saturating_sub(measure.hard()?)
                .saturating_sub(requested);
            self.remaining_spend_nanos = Some(
                self.remaining_spend_nanos
                    .map_or(left, |least| least.min(left)),
            );
        }
        Ok(())
    }
}

impl Organization {
    /// Reserve on every limit of a path, or on none.
    ///
    /// # Errors
    /// `InvalidArgument`, `DuplicateReservation`, `TooMany`, `UnbookedFull`, `Overflow`.
    pub fn admit(
        &mut self,
        id: ReservationId,
        path: Path,
        ask: Amounts,
        model: &str,
        provider: &str,
        now: Now,
    ) -> Result<Decision> {
        self.check_new(id)?;
        let facts = self.facts(path, ask, model, provider, now)?;
        let places = self.places(&path);
        let decision = self.decide(places, &facts, ask, now)?;
        if matches!(decision, Decision::Admitted(_)) {
            self.open(id, places, facts, ask)?;
        }
        Ok(decision)
    }

    /// Decide as [`Self::admit`] would at this instant, and reserve nothing.
    ///
    /// Time goes on as with every call; counters, reservations and settlements stay as they are.
    ///
    /// # Errors
    /// `InvalidArgument`, `TooMany`, `UnbookedFull`, `Overflow`.
    pub fn preview(
        &mut self,
        path: Path,
        ask: Amounts,
        model: &str,
        provider: &str,
        now: Now,
    ) -> Result<Decision> {
        let facts = self.facts(path, ask, model, provider, now)?;
        self.decide(self.places(&path), &facts, ask, now)
    }

    /// Ask every limit that a new request belongs to; adds to none.
    fn decide(
        &mut self,
        places: Places,
        facts: &Facts,
        ask: Amounts,
        caller: Now,
    ) -> Result<Decision> {
        let shown = facts.admitted.shown_by(caller);
        if self.state != OrganizationState::Active {
            return Ok(self.refuse_by_state(facts.path));
        }
        self.roll(places, facts, facts.admitted)?;
        let review = self.review(places, facts, ask, shown)?;
        let (seen, version) = (review.seen, &self.version);
        let refusal = decision::refusal(&review.verdicts, &seen, facts.path, version, shown);
        if let Some(refusal) = refusal {
            return Ok(Decision::Refused(Box::new(refusal)));
        }
        if review.overflows {
            return Err(Error::Overflow);
        }
        let [requests, tokens] = self.rate_figures(facts, ask)?;
        Ok(Decision::Admitted(Admission {
            path: facts.path,
            held: ask,
            admitted_wall_ns: facts.admitted.wall_ns,
            policy_version: Arc::clone(version),
            seen,
            remaining_spend_nanos: review.remaining_spend_nanos,
            requests,
            tokens,
        }))
    }

    /// Add to what a reservation holds, on all its hard limits or on none; None if it is held.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadySettled`, `AlreadyReleased`, `Overflow`.
    pub fn extend(
        &mut self,
        id: ReservationId,
        more: Amounts,
        now: Now,
    ) -> Result<Option<Refusal>> {
        check_amounts(more)?;
        let caller = now;
        let now = self.tick(caller);
        let shown = now.shown_by(caller);
        let facts = self.open_reservation(id)?.facts.clone();
        let places = self.places(&facts.path);
        self.roll(places, &facts, now)?;
        let review = self.review_more(places, &facts, more, shown)?;
        let (seen, version) = (&review.seen, &self.version);
        let refusal = decision::refusal(&review.verdicts, seen, facts.path, version, shown);
        if refusal.is_some() {
            return Ok(refusal);
        }
        if review.overflows {
            return Err(Error::Overflow);
        }
        self.hold(id, places, &facts, more)?;
        Ok(None)
    }

    /// Check what is asked and that there is room for it, and say when that was.
    fn facts(
        &mut self,
        path: Path,
        ask: Amounts,
        model: &str,
        provider: &str,
        now: Now,
    ) -> Result<Facts> {
        check_amounts(ask)?;
        if model.len() > NAME_BYTES_MAX || provider.len() > NAME_BYTES_MAX {
            return Err(Error::InvalidArgument("a name is too long"));
        }
        if self.reservations.len() >= OPEN_MAX {
            return Err(Error::TooMany("open reservations"));
        }
        if self.unbooked.len() >= UNBOOKED_MAX {
            return Err(Error::UnbookedFull);
        }
        Ok(Facts {
            path,
            model: model.into(),
            provider: provider.into(),
            admitted: self.tick(now),
        })
    }

    fn check_new(&self, id: ReservationId) -> Result<()> {
        let is_known = self.reservations.contains_key(&id)
            || self.settled.contains_key(&id)
            || self.released.contains(&id);
        if is_known {
            return Err(Error::DuplicateReservation);
        }
        Ok(())
    }

    fn refuse_by_state(&self, path: Path) -> Decision {
        let scope = Scope {
            kind: ScopeKind::Organization,
            id: self.id,
        };
        let version = Arc::clone(&self.version);
        Decision::Refused(Box::new(Refusal::by_state(
            "organization_suspended",
            403,
            scope,
            path,
            version,
        )))
    }

    fn review(&self, places: Places, facts: &Facts, ask: Amounts, now: Now) -> Result<Review<'_>> {
        let mut review = Review {
            seen: Vec::with_capacity(SEEN_USUAL),
            ..Review::default()
        };
        for state in places.iter().filter_map(|at| self.scopes.get(at)) {
            for (limit, counter) in state.limits_of(facts) {
                review.ask(limit, counter, ask.of(limit.resource), now)?;
            }
            review.overflows |= overflows(state, facts, ask);
        }
        Ok(review)
    }

    /// Ask the hard limits of an open reservation for more, in the period that admitted it.
    fn review_more(
        &self,
        places: Places,
        facts: &Facts,
        more: Amounts,
        now: Now,
    ) -> Result<Review<'_>> {
        let mut review = Review::default();
        for state in places.iter().filter_map(|at| self.scopes.get(at)) {
            for (limit, counter) in state.limits_of(facts) {
                let requested = more.of(limit.resource);
                let asks = limit.resource != Resource::Requests && requested > 0;
                let Some(measure) = counter.measure_at(facts.admitted) else {
                    continue;
                };
                if asks && limit.mode == Mode::Hard {
                    let is_over = counter.is_over(facts.admitted);
                    let verdict =
                        decision::judge(limit, counter, measure, requested, is_over, now)?;
                    review.verdicts.extend(verdict);
                }
            }
            review.overflows |= overflows(state, facts, more);
        }
        Ok(review)
    }

    fn open(
        &mut self,
        id: ReservationId,
        places: Places,
        facts: Facts,
        ask: Amounts,
    ) -> Result<()> {
        let reservation = Reservation {
            facts,
            held: ask,
            accrued: Amounts::default(),
        };
        let now = reservation.facts.admitted;
        self.for_counters(places, &reservation.facts, |counter| {
            counter.open(reservation.part(counter.resource), now, now)
        })?;
        self.reservations.insert(id, reservation);
        Ok(())
    }

    fn hold(
        &mut self,
        id: ReservationId,
        places: Places,
        facts: &Facts,
        more: Amounts,
    ) -> Result<()> {
        let held = self.open_reservation(id)?.held;
        let raised = Amounts {
            spend_nanos: money::add(held.spend_nanos, more.spend_nanos)?,
            tokens: money::add(held.tokens, more.tokens)?,
        };
        self.for_counters(places, facts, |counter| match counter.resource {
            Resource::Requests => Ok(()),
            resource => counter.hold(more.of(resource), facts.admitted),
        })?;
        if let Some(reservation) = self.reservations.get_mut(&id) {
            reservation.held = raised;
        }
        Ok(())
    }

    /// Return the tightest rate limits of a key, on requests and on tokens, with the request in.
    fn rate_figures(&self, facts: &Facts, ask: Amounts) -> Result<[Option<RateFigures>; 2]> {
        let mut figures = [None, None];
        let scope = Scope {
            kind: ScopeKind::Key,
            id: facts.path.key,
        };
        let Some(state) = self.index.get(&scope).and_then(|at| self.scopes.get(*at)) else {
            return Ok(figures);
        };
        for (limit, counter) in state.limits_of(facts) {
            if limit.kind != LimitKind::Rate {
                continue;
            }
            let [requests, tokens] = &mut figures;
            let to = if limit.resource == Resource::Requests {
                requests
            } else {
                tokens
            };
            let found = rate(limit, counter, ask.of(limit.resource), facts.admitted)?;
            if to.is_none_or(|known: RateFigures| found.remaining < known.remaining) {
                *to = Some(found);
            }
        }
        Ok(figures)
    }
}

/// Tell what a rate limit will stand at when what is asked for has been added at this instant.
///
/// A request is used at once. Tokens are held, which hard limits alone count and no window times.
fn rate(limit: &Limit, counter: &Counter, asked: i64, now: Now) -> Result<RateFigures> {
    let measure = counter.measure();
    let is_request = limit.resource == Resource::Requests;
    let taken = match limit.mode {
        Mode::Hard => money::add(measure.hard()?, asked)?,
        _ if is_request => money::add(measure.used, asked)?,
        _ => measure.used,
    };
    Ok(RateFigures {
        limit: limit.cap,
        remaining: limit.cap.saturating_sub(taken).max(0),
        reset_ns: if is_request {
            counter.passes_ns(now)
        } else {
            counter.empties_ns(now)
        },
    })
}
