//! Admission: ask every limit of a path, then hold on all counters or on none.
use std::sync::Arc;

use super::line::{Contested, Line, Place, Request, Waiter};
use super::refusing::{Case, diverted};
use super::reviewing::{Plan, Rates};
use super::{OPEN_MAX, Organization, Routes, UNBOOKED_MAX};
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{Admission, Decision, Refusal, Seen, Verdict};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::{Scope, ScopeKind};
use crate::planted::{self, Fault};
use crate::policy::OrganizationState;
use crate::reservation::{Amounts, Facts, Path, Reservation, Stream};
use crate::time::Now;

/// How a request came to be decided on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn<'a> {
    /// It has just come: those that wait come first, and it may have to wait.
    New,
    /// It has just come and may not wait.
    Hasty,
    /// It is its turn in the line, after those that wait for these limits.
    Called(&'a Contested),
    /// Its time in the line is up; those before it wait for these limits.
    Late(&'a Contested),
}

impl Turn<'_> {
    fn of(ask: &Ask) -> Self {
        if ask.may_wait { Self::New } else { Self::Hasty }
    }

    /// Tell whether anybody comes first at all.
    pub(super) fn is_crowded(&self, line: &Line) -> bool {
        match self {
            Self::New | Self::Hasty => line.is_contested_at_all(),
            Self::Called(contested) | Self::Late(contested) => !contested.is_empty(),
        }
    }

    /// Tell whether somebody who comes first waits for a limit.
    pub(super) fn is_contested(&self, line: &Line, place: Place) -> bool {
        match self {
            Self::New | Self::Hasty => line.is_contested(place),
            Self::Called(contested) | Self::Late(contested) => contested.contains(&place),
        }
    }
}

/// A request on the point of being admitted: who it is for, where it counts, what it would hold.
pub(super) struct Opening {
    pub(super) facts: Facts,
    pub(super) routes: Routes,
    pub(super) plan: Plan,
    /// Whether all counters surely can grow by so much without overflow.
    has_room: bool,
}

/// What is decided about a request that does not pass.
pub(super) struct Stop {
    pub(super) decision: Decision,
    /// Limits that it waits for, where it does.
    pub(super) failing: Vec<Place>,
    /// Of these, the ones that let it queue, and how many of their steps it has then passed.
    pub(super) queued: Vec<(Id, usize)>,
}

impl Stop {
    pub(super) fn by(decision: Decision) -> Self {
        Self {
            decision,
            failing: Vec::new(),
            queued: Vec::new(),
        }
    }
}

/// What comes of asking all limits.
enum Outcome {
    Fits(Fit),
    Stops(Box<Stop>),
}

/// What the limits say of a request that passes.
struct Fit {
    seen: Vec<Seen>,
    remaining_spend_nanos: Option<i64>,
    rates: Rates,
    /// How it is held where it takes what is left.
    rest: Option<Box<Plan>>,
}

impl Organization {
    /// Reserve on every limit of a path or on none; or stand in line, or be asked something.
    ///
    /// # Errors
    /// `InvalidArgument`, `DuplicateReservation`, `TooMany`, `UnbookedFull`, `NoExchangeRate`,
    /// `Overflow`.
    pub fn admit(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        path: Path,
        ask: &Ask,
        caller: Now,
    ) -> Result<Decision> {
        self.check_new(id)?;
        let path = self.labelled(path, ask)?;
        let now = self.tick(shared, caller);
        if self.state != OrganizationState::Active {
            return Ok(self.refuse_by_state(path));
        }
        let mut opening = self.prepare(shared, path, ask, now)?;
        let shown = now.shown_by(caller);
        match self.decide(shared, &opening, ask, &Turn::of(ask), shown)? {
            Outcome::Fits(fit) => {
                let admission = self.admission(&mut opening, ask, fit);
                self.open(shared, id, opening, ask)?;
                Ok(Decision::Admitted(admission))
            }
            Outcome::Stops(stop) => {
                let is_refused = matches!(stop.decision, Decision::Refused(_));
                if is_refused && planted::is(Fault::RefusalHolds) {
                    let hold = crate::counter::Held {
                        expected: 1,
                        ..Default::default()
                    };
                    self.for_counters(shared, &opening.routes, &opening.facts, |counter| {
                        counter.hold(hold, now)
                    })?;
                }
                self.join_line(id, opening.facts.path, ask, &stop);
                Ok(stop.decision)
            }
        }
    }

    /// Decide as [`Self::admit`] would at this instant, and reserve nothing.
    ///
    /// Time goes on as with every call; counters, reservations and settlements stay as they are.
    ///
    /// # Errors
    /// `InvalidArgument`, `TooMany`, `UnbookedFull`, `NoExchangeRate`, `Overflow`.
    pub fn preview(
        &mut self,
        shared: &mut Board,
        path: Path,
        ask: &Ask,
        caller: Now,
    ) -> Result<Decision> {
        let path = self.labelled(path, ask)?;
        let now = self.tick(shared, caller);
        if self.state != OrganizationState::Active {
            return Ok(self.refuse_by_state(path));
        }
        let mut opening = self.prepare(shared, path, ask, now)?;
        let shown = now.shown_by(caller);
        Ok(
            match self.decide(shared, &opening, ask, &Turn::of(ask), shown)? {
                Outcome::Fits(fit) => Decision::Admitted(self.admission(&mut opening, ask, fit)),
                Outcome::Stops(stop) => stop.decision,
            },
        )
    }

    /// Decide about a request in the line again, and hold what it may.
    pub(super) fn take_turn(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        request: &Request,
        turn: &Turn<'_>,
        caller: Now,
    ) -> Result<Stop> {
        let (path, ask) = (request.path.clone(), &request.ask);
        let now = self.tick(shared, caller);
        if self.state != OrganizationState::Active {
            return Ok(Stop::by(self.refuse_by_state(path)));
        }
        let mut opening = self.prepare(shared, path, ask, now)?;
        match self.decide(shared, &opening, ask, turn, now.shown_by(caller))? {
            Outcome::Fits(fit) => {
                let admission = self.admission(&mut opening, ask, fit);
                self.open(shared, id, opening, ask)?;
                Ok(Stop::by(Decision::Admitted(admission)))
            }
            Outcome::Stops(stop) => Ok(*stop),
        }
    }

    fn join_line(&mut self, id: ReservationId, path: Path, ask: &Ask, stop: &Stop) {
        if let Decision::Waiting(waiting) = &stop.decision {
            self.line.join(Waiter {
                id,
                request: Arc::new(Request {
                    path,
                    ask: ask.clone(),
                }),
                failing: stop.failing.clone(),
                queued: stop.queued.clone(),
                until_mono_ns: self.clock.mono_ns.saturating_add(waiting.timeout_ns),
            });
        }
    }

    /// Check what is asked and that there is room for it; name what the request is for.
    fn labelled(&self, path: Path, ask: &Ask) -> Result<Path> {
        ask.check()?;
        if self.reservations.len() >= OPEN_MAX {
            return Err(Error::TooMany("open reservations"));
        }
        if self.unbooked.len() >= UNBOOKED_MAX {
            return Err(Error::UnbookedFull);
        }
        Ok(path.labelled(
            ask.session.as_deref(),
            ask.subject.feature.as_deref(),
            ask.agent.as_deref(),
            ask.end_user.as_deref(),
        ))
    }

    fn check_new(&self, id: ReservationId) -> Result<()> {
        let is_known = self.reservations.contains_key(&id)
            || self.settled.contains_key(&id)
            || self.released.contains(&id)
            || self.line.has(id);
        if is_known {
            return Err(Error::DuplicateReservation);
        }
        Ok(())
    }

    /// Find the counters of a request and let them go on to this instant; say what it would hold.
    fn prepare(&mut self, shared: &mut Board, path: Path, ask: &Ask, now: Now) -> Result<Opening> {
        self.board.make_room(now)?;
        let facts = Facts {
            path,
            subject: Arc::clone(&ask.subject),
            admitted: now,
        };
        let routes = self.find_routes(shared, &facts)?;
        let most = self.roll(shared, &routes, &facts, now)?;
        let plan = self.plan(shared, &routes, &facts, ask)?;
        Ok(Opening {
            facts,
            routes,
            plan,
            has_room: plan.bound.fits_on(most),
        })
    }

    /// Ask all limits; nothing is added to any counter.
    fn decide(
        &self,
        shared: &Board,
        opening: &Opening,
        ask: &Ask,
        turn: &Turn<'_>,
        now: Now,
    ) -> Result<Outcome> {
        let Opening {
            facts,
            routes,
            plan,
            has_room,
        } = opening;
        let case = Case {
            shared,
            routes,
            facts,
            plan,
            ask,
            turn,
            now,
        };
        let review = self.review(&case)?;
        let stop = self.stop(&case, &review)?;
        let is_called = matches!(turn, Turn::Called(_));
        let passes = is_called && planted::is(Fault::WaiterUnchecked);
        if let Some(stop) = stop.filter(|_| !passes) {
            return Ok(Outcome::Stops(Box::new(stop)));
        }
        let rest = rest(plan, &review.verdicts, ask)?;
        let confirm = review.confirm.as_ref();
        if let Some(decision) = confirm.and_then(|ruled| diverted(ruled, &self.version)) {
            return Ok(Outcome::Stops(Box::new(Stop::by(decision))));
        }
        if !has_room {
            self.check_room(shared, routes, facts, plan.bound)?;
        }
        Ok(Outcome::Fits(Fit {
            seen: review.seen,
            remaining_spend_nanos: review.remaining_spend_nanos,
            rates: review.rates,
            rest,
        }))
    }

    pub(super) fn refuse_by_state(&self, path: Path) -> Decision {
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

    fn admission(&self, opening: &mut Opening, ask: &Ask, fit: Fit) -> Admission {
        if let Some(rest) = fit.rest {
            opening.plan = *rest;
        }
        let (facts, plan) = (&mut opening.facts, &opening.plan);
        let admission = Admission {
            path: facts.path.clone(),
            held: plan.held,
            bound: plan.bound,
            calibration: ask.calibration,
            output_tokens_allowed: plan.allowed,
            extendable: plan.extendable,
            admitted_wall_ns: facts.admitted.wall_ns,
            policy_version: Arc::clone(&self.version),
            seen: fit.seen,
            remaining_spend_nanos: fit.remaining_spend_nanos.map(|left| left.max(0)),
            requests: fit.rates.requests,
            tokens: fit.rates.tokens,
        };
        for scope in &opening.routes.own.surplus {
            facts.path.set_surplus(*scope);
        }
        admission
    }

    /// Hold what was decided.
    fn open(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        opening: Opening,
        ask: &Ask,
    ) -> Result<()> {
        let Opening {
            facts,
            mut routes,
            plan,
            ..
        } = opening;
        self.board.adopt(&mut routes.own);
        self.admissions = self.admissions.saturating_add(1);
        let reservation = Reservation {
            facts,
            tariff: plan.tariff,
            seq: self.admissions,
            bound: plan.bound,
            held: plan.held,
            firm: plan.held,
            passed_nanos: 0,
            accrued: Amounts::default(),
            step_tokens: ask.step_tokens,
            choices: ask.choices,
            stream: plan.extendable.then_some(Stream {
                allowed: plan.allowed,
                wanted: None,
            }),
        };
        let now = reservation.facts.admitted;
        self.for_counters(shared, &routes, &reservation.facts, |counter| {
            counter.open(reservation.part(counter.resource), now, now)
        })?;
        if reservation.stream.is_some() {
            self.streams.insert(reservation.seq, id);
        }
        self.reservations.insert(id, reservation);
        Ok(())
    }
}

/// Say how a request is held that takes what is left of limits; None if it needs not.
fn rest(plan: &Plan, verdicts: &[Verdict<'_>], ask: &Ask) -> Result<Option<Box<Plan>>> {
    if verdicts.is_empty() {
        return Ok(None);
    }
    let mut plan = Box::new(*plan);
    for verdict in verdicts {
        let limit = verdict.limit;
        let room = limit.cap.saturating_sub(verdict.measure.used);
        plan.shrink(limit.resource, room, ask.step_tokens)?;
    }
    Ok(Some(plan))
}
