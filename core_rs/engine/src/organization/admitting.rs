//! Admission: ask every limit of a path, then hold on all counters or on none.
use std::sync::Arc;

use super::line::{Place, Waiter};
use super::reviewing::{Plan, Review, Ruled};
use super::{OPEN_MAX, Organization, Routes, UNBOOKED_MAX};
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{self, Admission, Decision, Refusal, Verdict, Waiting, follows_streams};
use crate::error::{Error, Result};
use crate::id::ReservationId;
use crate::limit::{Action, Scope, ScopeKind};
use crate::policy::OrganizationState;
use crate::reservation::{Amounts, Facts, Path, Reservation, Stream};
use crate::time::{NS_PER_S, Now};

/// How a request came to be decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has just come: those that wait come first, and it may have to wait.
    New,
    /// It has just come and may not wait: somebody only wants to know.
    Asking,
    /// It is its turn in the line.
    Called,
    /// Its time in the line is up.
    Late,
}

/// What is decided about a request, and how it would be held.
pub(super) struct Ruling {
    pub(super) decision: Decision,
    /// Limits that it waits for, where it does.
    pub(super) failing: Vec<Place>,
    plan: Option<(Plan, Routes, Facts)>,
}

impl Ruling {
    fn of(decision: Decision) -> Self {
        Self {
            decision,
            failing: Vec::new(),
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
        ask: Ask,
        caller: Now,
    ) -> Result<Decision> {
        self.check_new(id)?;
        let turn = if ask.may_wait {
            Turn::New
        } else {
            Turn::Asking
        };
        let path = self.labelled(path, &ask)?;
        let ruling = self.rule(shared, &path, &ask, turn, caller)?;
        let failing = ruling.failing;
        match (ruling.decision, ruling.plan) {
            (Decision::Admitted(admission), Some(plan)) => {
                self.open(shared, id, plan, &ask)?;
                Ok(Decision::Admitted(admission))
            }
            (Decision::Waiting(waiting), _) => {
                let until_ns = self.clock.mono_ns.saturating_add(waiting.timeout_ns);
                self.line.join(Waiter {
                    id,
                    path,
                    ask,
                    failing,
                    is_queued: waiting.is_queued,
                    until_mono_ns: until_ns,
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
        let ruling = self.rule(shared, &path, ask, Turn::Asking, caller)?;
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
        path: &Path,
        ask: &Ask,
        turn: Turn,
        caller: Now,
    ) -> Result<Ruling> {
        let now = self.tick(caller);
        let shown = now.shown_by(caller);
        if self.state != OrganizationState::Active {
            return Ok(Ruling::of(self.refuse_by_state(path.clone())));
        }
        self.board.make_room(now)?;
        let facts = self.facts(path.clone(), ask, now);
        let mut routes = self.find_routes(shared, &facts)?;
        self.roll(shared, &routes, &facts, now)?;
        let mut plan = self.plan(shared, &routes, &facts, ask)?;
        let review = self.review(shared, &routes, &facts, (&plan, ask), shown)?;
        if let Some(ruling) =
            self.stop(shared, &routes, &facts, &plan, &review, ask, turn, shown)?
        {
            return Ok(ruling);
        }
        shrink_to_rest(&mut plan, &review.verdicts, ask)?;
        if let Some(confirm) = review.confirm.as_ref() {
            return Ok(diverted(confirm, &self.version).map_or_else(
                || Ruling::of(self.refuse_by_state(path.clone())),
                Ruling::of,
            ));
        }
        self.check_room(shared, &routes, &facts, plan.bound)?;
        let admission = self.admission(&facts, &plan, ask, review)?;
        let mut facts = facts;
        for scope in std::mem::take(&mut routes.own.surplus) {
            facts.path.set_surplus(scope);
        }
        Ok(Ruling {
            decision: Decision::Admitted(admission),
            failing: Vec::new(),
            plan: Some((plan, routes, facts)),
        })
    }

    /// Say what keeps a request from passing; None if nothing does.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of what is known of a request, once"
    )]
    fn stop(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        plan: &Plan,
        review: &Review<'_>,
        ask: &Ask,
        turn: Turn,
        now: Now,
    ) -> Result<Option<Ruling>> {
        if let Some(downgrade) = &review.downgrade {
            if let Some(decision) = diverted(downgrade, &self.version) {
                return Ok(Some(Ruling::of(decision)));
            }
        }
        let refuse = || -> Result<Ruling> {
            let refusal = self.refusal(shared, routes, facts, plan, review, now)?;
            Ok(Ruling::of(Decision::Refused(Box::new(refusal))))
        };
        let verdicts = &review.verdicts;
        if verdicts
            .iter()
            .any(|verdict| !verdict.limit.resource.is_money())
        {
            return refuse().map(Some);
        }
        let blocked = || {
            verdicts
                .iter()
                .filter(|verdict| !verdict.may_wait() && !takes_rest(verdict, plan))
        };
        if blocked().next().is_some() {
            return match self.last_resort(blocked(), ask, turn) {
                Some(ruling) => Ok(Some(ruling)),
                None => refuse().map(Some),
            };
        }
        let waits = || {
            verdicts
                .iter()
                .filter(|verdict| verdict.may_wait() && !takes_rest(verdict, plan))
        };
        let failing: Vec<Place> = waits()
            .map(|verdict| (verdict.scope, verdict.limit.id))
            .collect();
        let is_new = matches!(turn, Turn::New | Turn::Asking);
        let contested = review.contested.filter(|_| is_new);
        if failing.is_empty() && contested.is_none() {
            return Ok(None);
        }
        let failing = if failing.is_empty() {
            contested.into_iter().collect()
        } else {
            failing
        };
        if let Some(waiting) = self.wait(facts, &failing, turn) {
            return Ok(Some(Ruling {
                decision: Decision::Waiting(Box::new(waiting)),
                failing,
                plan: None,
            }));
        }
        match self.last_resort(waits(), ask, turn) {
            Some(ruling) => Ok(Some(ruling)),
            None => refuse().map(Some),
        }
    }

    /// Let a request stand in line for others to end, where it may and there is room.
    fn wait(&self, facts: &Facts, failing: &[Place], turn: Turn) -> Option<Waiting> {
        let (scope, limit_id) = *failing.first()?;
        let wait_s = self.rules.hold_wait_s(&facts.path);
        let has_room = match turn {
            Turn::New => wait_s > 0 && self.line.has_room(facts.path.key),
            Turn::Called => true,
            Turn::Asking | Turn::Late => false,
        };
        has_room.then(|| Waiting {
            limit_id,
            scope,
            is_queued: false,
            timeout_ns: u64::from(wait_s).saturating_mul(NS_PER_S),
        })
    }

    /// Do what the limits say that have no room, if each of them says something but to refuse.
    fn last_resort<'a, 'b: 'a>(
        &self,
        blocked: impl Iterator<Item = &'a Verdict<'b>>,
        ask: &Ask,
        turn: Turn,
    ) -> Option<Ruling> {
        let mut first: Option<Ruled<'a>> = None;
        let mut failing = Vec::new();
        for verdict in blocked {
            let ruled = resort(verdict, ask)?;
            failing.push((verdict.scope, verdict.limit.id));
            let is_first = first.as_ref().is_none_or(|known| {
                decision::precedence(ruled.limit) < decision::precedence(known.limit)
            });
            if is_first {
                first = Some(ruled);
            }
        }
        let ruled = first?;
        match ruled.action()? {
            Action::Queue { timeout_ns } => {
                if turn == Turn::Asking || (turn == Turn::New && !self.line.has_room_for_any()) {
                    return None;
                }
                Some(Ruling {
                    decision: Decision::Waiting(Box::new(Waiting {
                        limit_id: ruled.limit.id,
                        scope: ruled.scope,
                        is_queued: true,
                        timeout_ns: *timeout_ns,
                    })),
                    failing,
                    plan: None,
                })
            }
            _ => diverted(&ruled, &self.version).map(Ruling::of),
        }
    }

    fn refusal(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        plan: &Plan,
        review: &Review<'_>,
        now: Now,
    ) -> Result<Refusal> {
        let (path, version) = (&facts.path, &self.version);
        let found = decision::refusal(&review.verdicts, &review.seen, path, version, now);
        let mut refusal = match found {
            Some(refusal) => refusal,
            None => self.refusal_by_line(shared, routes, facts, plan, review)?,
        };
        let is_money = refusal
            .limit
            .as_ref()
            .is_some_and(|limit| limit.resource.is_money());
        if is_money {
            refusal.output_tokens_that_fit =
                self.fitting(shared, routes, facts, &plan.tariff, now)?;
        }
        Ok(refusal)
    }

    /// Refuse a request that would fit if others did not stand in line before it.
    fn refusal_by_line(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        plan: &Plan,
        review: &Review<'_>,
    ) -> Result<Refusal> {
        let mut limits = self.limits(shared, routes, facts);
        let named = limits.find(|(limit, scope, _)| Some((*scope, limit.id)) == review.contested);
        let (limit, scope, counter) = named.ok_or(Error::Overflow)?;
        Ok(decision::refusal_in_line(
            limit,
            scope,
            counter.measure(),
            plan.held.of(limit.resource),
            &review.seen,
            &facts.path,
            &self.version,
        ))
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
        if let Some(plan) = ruling.plan {
            self.open(shared, waiter.id, plan, &waiter.ask)?;
        }
        Ok(ruling.decision)
    }
}

fn diverted(ruled: &Ruled<'_>, version: &Arc<str>) -> Option<Decision> {
    let diversion = ruled.diversion(version)?;
    Some(Decision::Diverted(Box::new(diversion)))
}

/// Tell whether a request is content with what is left of a limit, on which nothing else is open.
fn takes_rest(verdict: &Verdict<'_>, plan: &Plan) -> bool {
    let limit = verdict.limit;
    let room = limit.cap.saturating_sub(verdict.measure.used);
    plan.extendable
        && follows_streams(limit)
        && verdict.measure.open == 0
        && plan.least.of(limit.resource) <= room
}

fn shrink_to_rest(plan: &mut Plan, verdicts: &[Verdict<'_>], ask: &Ask) -> Result<()> {
    for verdict in verdicts {
        let limit = verdict.limit;
        let room = limit.cap.saturating_sub(verdict.measure.used);
        plan.shrink(limit.resource, room, ask.step_tokens)?;
    }
    Ok(())
}

/// Find the next step that a limit takes when a request does not fit; None if it refuses.
fn resort<'a>(verdict: &Verdict<'a>, ask: &Ask) -> Option<Ruled<'a>> {
    let limit = verdict.limit;
    let taken = ask.steps_taken(limit.id);
    let steps = limit.steps.iter().enumerate().skip(taken);
    let mut last = steps.filter(|(_, step)| step.percent >= 100);
    let (step, _) = last.find(|(_, step)| match &step.action {
        Action::Downgrade { model } => **model != *ask.subject.model,
        Action::Queue { .. } | Action::Refuse { .. } => true,
        Action::Notify | Action::Confirm => false,
    })?;
    let ruled = Ruled {
        limit,
        scope: verdict.scope,
        step,
    };
    match ruled.action()? {
        Action::Refuse { .. } => None,
        _ => Some(ruled),
    }
}
