//! Admission: ask every limit of a path, then hold on all counters or on none.
use std::sync::Arc;

use super::line::{Contested, Line, Place, Request, Waiter};
use super::refusing::{Case, diverted};
use super::reviewing::{Plan, Review};
use super::{OPEN_MAX, Organization, Routes, UNBOOKED_MAX};
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{Admission, Decision, Refusal, Verdict};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::limit::{Scope, ScopeKind};
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

    /// Tell whether somebody who comes first waits for a limit.
    pub(super) fn is_contested(&self, line: &Line, place: Place) -> bool {
        match self {
            Self::New | Self::Hasty => line.is_contested(place),
            Self::Called(contested) | Self::Late(contested) => contested.contains(&place),
        }
    }
}

/// What is decided about a request, and how it would be held.
pub(super) struct Ruling {
    pub(super) decision: Decision,
    /// Limits that it waits for, where it does.
    pub(super) failing: Vec<Place>,
    /// Of these, the ones that let it queue, and how many of their steps it has then passed.
    pub(super) queued: Vec<(Id, usize)>,
    pub(super) plan: Option<(Plan, Routes, Facts)>,
}

impl Ruling {
    pub(super) fn of(decision: Decision) -> Self {
        Self {
            decision,
            failing: Vec::new(),
            queued: Vec::new(),
            plan: None,
        }
    }
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
        let ruling = self.rule(shared, path, ask, &Turn::of(ask), caller)?;
        match (ruling.decision, ruling.plan) {
            (Decision::Admitted(admission), Some(plan)) => {
                self.open(shared, id, plan, ask)?;
                Ok(Decision::Admitted(admission))
            }
            (Decision::Waiting(waiting), Some((_, _, facts))) => {
                self.line.join(Waiter {
                    id,
                    request: Arc::new(Request {
                        path: facts.path,
                        ask: ask.clone(),
                    }),
                    failing: ruling.failing,
                    queued: ruling.queued,
                    until_mono_ns: self.clock.mono_ns.saturating_add(waiting.timeout_ns),
                });
                Ok(Decision::Waiting(waiting))
            }
            (decision, _) => Ok(decision),
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
        let ruling = self.rule(shared, path, ask, &Turn::of(ask), caller)?;
        Ok(ruling.decision)
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

    /// Decide; counters are rolled, and nothing is added to any.
    pub(super) fn rule(
        &mut self,
        shared: &mut Board,
        path: Path,
        ask: &Ask,
        turn: &Turn<'_>,
        caller: Now,
    ) -> Result<Ruling> {
        let now = self.tick(shared, caller);
        if self.state != OrganizationState::Active {
            return Ok(Ruling::of(self.refuse_by_state(path)));
        }
        self.board.make_room(now)?;
        let facts = self.facts(path, ask, now);
        let routes = self.find_routes(shared, &facts)?;
        self.roll(shared, &routes, &facts, now)?;
        let plan = self.plan(shared, &routes, &facts, ask)?;
        let (mut ruling, plan) = {
            let case = Case {
                shared,
                routes: &routes,
                facts: &facts,
                plan: &plan,
                ask,
                turn,
                now: now.shown_by(caller),
            };
            self.decide(&case)?
        };
        if !matches!(
            ruling.decision,
            Decision::Admitted(_) | Decision::Waiting(_)
        ) {
            return Ok(ruling);
        }
        let mut facts = facts;
        if matches!(ruling.decision, Decision::Admitted(_)) {
            for scope in &routes.own.surplus {
                facts.path.set_surplus(*scope);
            }
        }
        ruling.plan = Some((plan, routes, facts));
        Ok(ruling)
    }

    fn decide(&self, case: &Case<'_>) -> Result<(Ruling, Plan)> {
        let mut plan = *case.plan;
        let review = self.review(case)?;
        if let Some(ruling) = self.stop(case, &review)? {
            return Ok((ruling, plan));
        }
        shrink_to_rest(&mut plan, &review.verdicts, case.ask)?;
        if let Some(decision) = review
            .confirm
            .as_ref()
            .and_then(|confirm| diverted(confirm, &self.version))
        {
            return Ok((Ruling::of(decision), plan));
        }
        self.check_room(case.shared, case.routes, case.facts, plan.bound)?;
        let admission = self.admission(case.facts, &plan, case.ask, review)?;
        Ok((Ruling::of(Decision::Admitted(admission)), plan))
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

    fn admission(
        &self,
        facts: &Facts,
        plan: &Plan,
        ask: &Ask,
        review: Review<'_>,
    ) -> Result<Admission> {
        let [requests, tokens] = self.rate_figures(facts, plan.bound)?;
        Ok(Admission {
            path: facts.path.clone(),
            held: plan.held,
            bound: plan.bound,
            calibration: ask.calibration,
            output_tokens_allowed: plan.allowed,
            extendable: plan.extendable,
            admitted_wall_ns: facts.admitted.wall_ns,
            policy_version: Arc::clone(&self.version),
            seen: review.seen,
            remaining_spend_nanos: review.remaining_spend_nanos.map(|left| left.max(0)),
            requests,
            tokens,
        })
    }

    /// Hold what was decided.
    pub(super) fn open(
        &mut self,
        shared: &mut Board,
        id: ReservationId,
        (plan, mut routes, facts): (Plan, Routes, Facts),
        ask: &Ask,
    ) -> Result<()> {
        self.board.adopt(&mut routes.own);
        shared.adopt(&mut routes.shared);
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

    /// Hold what was decided for a request that stood in line.
    pub(super) fn open_called(
        &mut self,
        shared: &mut Board,
        waiter: &Waiter,
        ruling: Ruling,
    ) -> Result<Decision> {
        if let (Decision::Admitted(_), Some(plan)) = (&ruling.decision, ruling.plan) {
            self.open(shared, waiter.id, plan, &waiter.request.ask)?;
        }
        Ok(ruling.decision)
    }
}

fn shrink_to_rest(plan: &mut Plan, verdicts: &[Verdict<'_>], ask: &Ask) -> Result<()> {
    for verdict in verdicts {
        let limit = verdict.limit;
        let room = limit.cap.saturating_sub(verdict.measure.used);
        plan.shrink(limit.resource, room, ask.step_tokens)?;
    }
    Ok(())
}
