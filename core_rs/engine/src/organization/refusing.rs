//! What keeps a request from passing, and what the limits that have no room do about it.
use std::sync::Arc;

use super::admitting::{Stop, Turn};
use super::line::Place;
use super::reviewing::{Plan, Review, Ruled};
use super::{Organization, Routes};
use crate::ask::Ask;
use crate::board::Board;
use crate::decision::{self, Decision, Refusal, Verdict, Waiting, follows_streams};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::{Action, Limit, Scope};
use crate::planted::{self, Fault};
use crate::reservation::Facts;
use crate::time::{NS_PER_S, Now};

/// All that a decision about one request looks at.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) shared: &'a Board,
    pub(super) routes: &'a Routes,
    pub(super) facts: &'a Facts,
    pub(super) plan: &'a Plan,
    pub(super) ask: &'a Ask,
    pub(super) turn: &'a Turn<'a>,
    /// Now, as the caller's wall clock shows it.
    pub(super) now: Now,
}

/// A limit that has no room, or no room yet, and whose counter it is.
type Failing<'a> = (&'a Limit, Scope);

impl Organization {
    /// Say what keeps a request from passing; None if nothing does.
    pub(super) fn stop(&self, case: &Case<'_>, review: &Review<'_>) -> Result<Option<Stop>> {
        let downgrade = review.downgrade.as_ref();
        if let Some(decision) = downgrade.and_then(|ruled| diverted(ruled, &self.version)) {
            return Ok(Some(Stop::by(decision)));
        }
        if review.verdicts.is_empty() && review.contested.is_none() {
            return Ok(None);
        }
        let verdicts = &review.verdicts;
        if verdicts
            .iter()
            .any(|verdict| !verdict.limit.resource.is_money())
        {
            return self.refuse(case, review).map(Some);
        }
        let short = || {
            verdicts
                .iter()
                .filter(|verdict| !takes_rest(verdict, case.plan))
        };
        let failing = |may_wait: bool| -> Vec<Failing<'_>> {
            let found = short().filter(|verdict| verdict.may_wait() == may_wait);
            found
                .map(|verdict| (verdict.limit, verdict.scope))
                .collect()
        };
        let blocked = failing(false);
        if !blocked.is_empty() {
            return self.resort_or_refuse(case, review, &blocked).map(Some);
        }
        let mut waits = failing(true);
        if waits.is_empty() {
            waits.extend(review.contested);
        }
        if waits.is_empty() {
            return Ok(None);
        }
        if let Some(ruling) = self.wait(case, &waits) {
            return Ok(Some(ruling));
        }
        self.resort_or_refuse(case, review, &waits).map(Some)
    }

    /// Let a request stand in line for others to end, where it may and there is room.
    fn wait(&self, case: &Case<'_>, failing: &[Failing<'_>]) -> Option<Stop> {
        let (limit, scope) = *failing.first()?;
        let path = &case.facts.path;
        let wait_s = self.rules.hold_wait_s(path);
        let has_room = match case.turn {
            Turn::New => wait_s > 0 && self.line.has_room(path.key),
            Turn::Called(_) => true,
            Turn::Hasty | Turn::Late(_) => false,
        };
        has_room.then(|| Stop {
            failing: places(failing),
            ..Stop::by(Decision::Waiting(Box::new(Waiting {
                limit_id: limit.id,
                scope,
                is_queued: false,
                timeout_ns: u64::from(wait_s).saturating_mul(NS_PER_S),
            })))
        })
    }

    /// Do what the limits say that have no room, if each of them says something but to refuse.
    fn resort_or_refuse(
        &self,
        case: &Case<'_>,
        review: &Review<'_>,
        failing: &[Failing<'_>],
    ) -> Result<Stop> {
        let steps: Option<Vec<Ruled<'_>>> = failing
            .iter()
            .map(|(limit, scope)| resort(limit, *scope, case.ask))
            .collect();
        let resorted = steps.and_then(|steps| self.last_resort(case, &steps, failing));
        resorted.map_or_else(|| self.refuse(case, review), Ok)
    }

    /// Take the first of the steps; one that queues, only where the request may and there is room.
    fn last_resort(
        &self,
        case: &Case<'_>,
        steps: &[Ruled<'_>],
        failing: &[Failing<'_>],
    ) -> Option<Stop> {
        let first = steps
            .iter()
            .min_by_key(|ruled| decision::precedence(ruled.limit))?;
        let Action::Queue { timeout_ns } = first.action()? else {
            return diverted(first, &self.version).map(Stop::by);
        };
        let may_queue = match case.turn {
            Turn::New => self.line.has_room(case.facts.path.key),
            Turn::Hasty => false,
            Turn::Called(_) | Turn::Late(_) => true,
        };
        may_queue.then(|| Stop {
            failing: places(failing),
            queued: queueing(steps),
            ..Stop::by(Decision::Waiting(Box::new(Waiting {
                limit_id: first.limit.id,
                scope: first.scope,
                is_queued: true,
                timeout_ns: *timeout_ns,
            })))
        })
    }

    fn refuse(&self, case: &Case<'_>, review: &Review<'_>) -> Result<Stop> {
        let (path, version) = (&case.facts.path, &self.version);
        let found = decision::refusal(&review.verdicts, &review.seen, path, version, case.now);
        let mut refusal = match found {
            Some(refusal) => refusal,
            None => self.refusal_by_line(case, review)?,
        };
        let limit = refusal.limit.as_ref();
        if limit.is_some_and(|limit| limit.resource.is_money()) {
            refusal.output_tokens_that_fit = self.fitting(case)?;
        }
        Ok(Stop::by(Decision::Refused(Box::new(refusal))))
    }

    /// Refuse a request that would fit if others did not stand in line before it.
    fn refusal_by_line(&self, case: &Case<'_>, review: &Review<'_>) -> Result<Refusal> {
        let contested = review.contested.map(|(limit, scope)| (scope, limit.id));
        let mut limits = self.limits(case.shared, case.routes, case.facts);
        let named = limits.find(|(limit, scope, _)| Some((*scope, limit.id)) == contested);
        let (limit, scope, counter) = named.ok_or(Error::Overflow)?;
        Ok(decision::refusal_in_line(
            limit,
            scope,
            counter.measure().less(limit.offset_at(case.now.wall_ns)),
            case.plan.request(limit).amount,
            &review.seen,
            &case.facts.path,
            &self.version,
        ))
    }
}

pub(super) fn diverted(ruled: &Ruled<'_>, version: &Arc<str>) -> Option<Decision> {
    let diversion = ruled.diversion(version)?;
    Some(Decision::Diverted(Box::new(diversion)))
}

fn places(failing: &[Failing<'_>]) -> Vec<Place> {
    let place = |(limit, scope): &Failing<'_>| (*scope, limit.id);
    failing.iter().map(place).collect()
}

/// List the limits that let a request queue, and how many of their steps it has then passed.
fn queueing(steps: &[Ruled<'_>]) -> Vec<(Id, usize)> {
    let queues = |ruled: &&Ruled<'_>| matches!(ruled.action(), Some(Action::Queue { .. }));
    steps
        .iter()
        .filter(queues)
        .map(|ruled| (ruled.limit.id, ruled.step.saturating_add(1)))
        .collect()
}

/// Tell whether a request is content with what is left of a limit, on which nothing else is open.
fn takes_rest(verdict: &Verdict<'_>, plan: &Plan) -> bool {
    let limit = verdict.limit;
    let room = limit.cap.saturating_sub(verdict.measure.used);
    plan.extendable
        && follows_streams(limit)
        && (verdict.measure.open == 0 || planted::is(Fault::RestWhileOpen))
        && limit.cap > 0
        && plan.least.of(limit.resource) <= room
}

/// Find the next step that a limit takes when a request does not fit; None if it refuses.
fn resort<'a>(limit: &'a Limit, scope: Scope, ask: &Ask) -> Option<Ruled<'a>> {
    let taken = ask.steps_taken(limit.id);
    let steps = limit.steps.iter().enumerate().skip(taken);
    let mut last = steps.filter(|(_, step)| step.percent >= 100);
    let (step, found) = last.find(|(_, step)| match &step.action {
        Action::Downgrade { model } => **model != *ask.subject.model,
        Action::Queue { .. } | Action::Refuse { .. } => true,
        Action::Notify | Action::Confirm => false,
    })?;
    let refuses = matches!(found.action, Action::Refuse { .. });
    (!refuses).then_some(Ruled { limit, scope, step })
}
