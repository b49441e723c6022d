//! What a request would have to hold, and what every limit on its path says to that.
use std::sync::Arc;

use super::refusing::Case;
use super::{Organization, Routes, shared_scopes};
use crate::ask::{Ask, Streams};
use crate::board::{Board, ScopeState};
use crate::charging::Tariff;
use crate::counter::Counter;
use crate::decision::{
    self, Diversion, RateFigures, Request, Seen, Verdict, follows_streams, precedence,
};
use crate::error::{Error, Result};
use crate::estimate::Learner;
use crate::limit::{Action, Hold, Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
use crate::money;
use crate::planted::{self, Fault};
use crate::reservation::{Amounts, Facts, Path};
use crate::time::Now;

/// A path has 8 to 20 limits as a rule; growing a list up to that costs a tenth of an admission.
const SEEN_USUAL: usize = 20;
/// A bound over this share of what is free on a limit is near its cap.
const NEAR_PARTS: i64 = 10;

/// What a request would hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) tariff: Tariff,
    pub(super) bound: Amounts,
    /// What limits hold that follow streams.
    pub(super) held: Amounts,
    /// What they hold at least, when nothing else is open.
    pub(super) least: Amounts,
    /// Output tokens before more must be held.
    pub(super) allowed: i64,
    pub(super) extendable: bool,
}

impl Plan {
    /// Return what a limit is asked for.
    pub(super) fn request(&self, limit: &Limit) -> Request {
        let of = |amounts: &Amounts| amounts.of(limit.resource);
        let (amount, least) = if limit.hold == Hold::Bound {
            (of(&self.bound), of(&self.bound))
        } else if self.extendable && follows_streams(limit) {
            (of(&self.held), of(&self.least))
        } else {
            (of(&self.held), of(&self.held))
        };
        Request {
            amount,
            least,
            is_over: false,
        }
    }

    /// Hold what is left of a limit, with one step free ahead of the stream.
    pub(super) fn shrink(&mut self, resource: Resource, room: i64, step_tokens: i64) -> Result<()> {
        let within = self.tariff.output_tokens_within(resource, room)?;
        let tokens = within.unwrap_or(0);
        let allowed = tokens.saturating_sub(step_tokens).max(0);
        if allowed < self.allowed || tokens < self.tariff.output_tokens_max {
            self.allowed = self.allowed.min(allowed);
            let held = self
                .tariff
                .amounts(self.allowed.saturating_add(step_tokens))?;
            self.held = Amounts {
                spend_nanos: held.spend_nanos.min(self.held.spend_nanos),
                cost_nanos: held.cost_nanos.min(self.held.cost_nanos),
                tokens: held.tokens.min(self.held.tokens),
            };
        }
        Ok(())
    }
}

/// A step that asks for something, and the limit it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Ruled<'a> {
    pub(super) limit: &'a Limit,
    pub(super) scope: Scope,
    pub(super) step: usize,
}

impl Ruled<'_> {
    pub(super) fn action(&self) -> Option<&Action> {
        self.limit.steps.get(self.step).map(|step| &step.action)
    }

    pub(super) fn diversion(&self, version: &Arc<str>) -> Option<Diversion> {
        let step = self.limit.steps.get(self.step)?;
        Some(Diversion {
            limit_id: self.limit.id,
            scope: self.scope,
            resource: self.limit.resource,
            window: self.limit.window.name(),
            step: self.step,
            percent: step.percent,
            action: step.action.clone(),
            policy_version: Arc::clone(version),
        })
    }
}

/// The tightest rate limits of a key, on requests and on tokens.
#[derive(Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) requests: Option<RateFigures>,
    pub(super) tokens: Option<RateFigures>,
}

impl Rates {
    fn note(&mut self, limit: &Limit, counter: &Counter, asked: i64, now: Now) -> Result<()> {
        let to = if limit.resource == Resource::Requests {
            &mut self.requests
        } else {
            &mut self.tokens
        };
        let found = rate(limit, counter, asked, now)?;
        if to.is_none_or(|known| found.remaining < known.remaining) {
            *to = Some(found);
        }
        Ok(())
    }
}

/// What all limits of a path say to one request.
#[derive(Default)]
pub(super) struct Review<'a> {
    pub(super) verdicts: Vec<Verdict<'a>>,
    pub(super) seen: Vec<Seen>,
    pub(super) remaining_spend_nanos: Option<i64>,
    /// The first downgrade that a share of a cap asks for, whether the request fits or not.
    pub(super) downgrade: Option<Ruled<'a>>,
    /// The first confirmation that is asked for.
    pub(super) confirm: Option<Ruled<'a>>,
    /// The key's tightest rate limits, with the request in.
    pub(super) rates: Rates,
    /// A limit of the path for which others stand in line.
    pub(super) contested: Option<(&'a Limit, Scope)>,
}

impl<'a> Review<'a> {
    /// Ask one limit for a new request.
    fn ask(
        &mut self,
        (limit, scope, counter): (&'a Limit, Scope, &Counter),
        case: &Case<'_>,
    ) -> Result<()> {
        let (plan, now) = (case.plan, case.now);
        let mut measure = counter.measure();
        if limit.offset > 0 {
            measure = measure.less(limit.offset_at(now.wall_ns));
        }
        let held = measure.held(limit.hold);
        self.seen.push(Seen {
            limit_id: limit.id,
            used: measure.used,
            held,
            cap: limit.cap,
        });
        let request = plan.request(limit);
        let committed = money::add(measure.used, held)?;
        if !limit.has_room(measure.used, committed, request.amount) {
            let failed = decision::verdict(limit, scope, counter, measure, request, now);
            self.verdicts.push(failed);
        }
        if scope.kind == ScopeKind::Key && limit.kind == LimitKind::Rate {
            let asked = plan.bound.of(limit.resource);
            self.rates
                .note(limit, counter, asked, case.facts.admitted)?;
        }
        if limit.mode == Mode::Hard && limit.resource == Resource::Spend {
            let left = limit
                .cap
                .saturating_sub(committed)
                .saturating_sub(request.amount);
            let least = self.remaining_spend_nanos.unwrap_or(left);
            self.remaining_spend_nanos = Some(left.min(least));
        }
        if !limit.steps.is_empty() {
            let sum = committed.saturating_add(request.amount);
            self.note_steps(limit, scope, measure.settled, sum, case.ask);
        }
        Ok(())
    }

    /// Note the first steps of a limit that apply whether or not the request fits.
    fn note_steps(&mut self, limit: &'a Limit, scope: Scope, settled: i64, sum: i64, ask: &Ask) {
        let is_passed = limit.mode != Mode::Hard && sum > limit.cap;
        let taken = ask.steps_taken(limit.id);
        // Of several confirmations one is asked for, the last: it stands for those before it.
        let mut confirm = None;
        for (at, step) in limit.steps.iter().enumerate().skip(taken) {
            let applies = if step.percent < 100 {
                reaches(settled, limit.cap, step.percent)
            } else {
                is_passed
            };
            let ruled = Ruled {
                limit,
                scope,
                step: at,
            };
            match &step.action {
                Action::Downgrade { model } if applies && **model != *ask.subject.model => {
                    if confirm.is_some() {
                        // What comes first is asked first: the downgrade is the step after it.
                        break;
                    }
                    return keep_first(&mut self.downgrade, ruled);
                }
                Action::Confirm if applies => confirm = Some(ruled),
                _ => {}
            }
        }
        if let Some(ruled) = confirm {
            keep_first(&mut self.confirm, ruled);
        }
    }
}

fn keep_first<'a>(kept: &mut Option<Ruled<'a>>, ruled: Ruled<'a>) {
    let is_first = kept
        .as_ref()
        .is_none_or(|known| precedence(ruled.limit) < precedence(known.limit));
    if is_first {
        *kept = Some(ruled);
    }
}

/// Tell whether a sum has reached a share of a cap.
pub(super) fn reaches(sum: i64, cap: i64, percent: u8) -> bool {
    i128::from(sum).saturating_mul(100) >= i128::from(cap).saturating_mul(i128::from(percent))
}

impl Organization {
    pub(super) fn find_routes(&self, shared: &Board, facts: &Facts) -> Result<Routes> {
        let now = facts.admitted;
        Ok(Routes {
            own: self.board.route(&facts.path, now)?,
            shared: shared.known(shared_scopes(shared, &facts.subject)),
        })
    }

    /// Say what a request would hold; its counters have been rolled.
    pub(super) fn plan(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        ask: &Ask,
    ) -> Result<Plan> {
        let terms = self.charging.terms_at(facts.admitted.wall_ns);
        let tariff = ask.tariff(terms.ok_or(Error::NoExchangeRate)?);
        let bound = tariff.amounts(ask.output_tokens_max)?;
        let extendable = match ask.streams {
            Streams::Plain => false,
            Streams::Stream => true,
            Streams::Assembled => self.is_near(shared, routes, facts, bound)?,
        };
        let mut plan = Plan {
            tariff,
            bound,
            held: bound,
            least: bound,
            allowed: ask.output_tokens_max,
            extendable,
        };
        if extendable {
            self.foresee(&mut plan, facts, ask)?;
        }
        Ok(plan)
    }

    /// Plan what is held for a stream: what is expected of it, as far as anything is.
    fn foresee(&self, plan: &mut Plan, facts: &Facts, ask: &Ask) -> Result<()> {
        let (learner, model) = (learner_of(&facts.path), &facts.subject.model);
        let held = |percent: usize| {
            let expected = self.estimator.expected(model, &learner, percent)?;
            Some(
                expected
                    .saturating_mul(ask.choices)
                    .min(ask.output_tokens_max),
            )
        };
        if let Some(tokens) = held(self.foresight.expected_percent) {
            plan.allowed = tokens;
            plan.held = plan
                .tariff
                .amounts(tokens.saturating_add(ask.step_tokens))?;
        }
        let rest = held(self.foresight.rest_percent).unwrap_or(0);
        let least = plan.tariff.amounts(rest.saturating_add(ask.step_tokens))?;
        plan.least = least;
        Ok(())
    }

    /// Tell whether a bound is so large beside what is free that it would keep others out.
    fn is_near(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        bound: Amounts,
    ) -> Result<bool> {
        for (limit, _, counter) in self.limits(shared, routes, facts) {
            if limit.is_hard_money() {
                let measure = counter
                    .measure()
                    .less(limit.offset_at(facts.admitted.wall_ns));
                let free = limit.cap.saturating_sub(measure.hard(limit.hold)?);
                if bound.of(limit.resource).saturating_mul(NEAR_PARTS) > free {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// List the limits in force on both boards that a request belongs to.
    pub(super) fn limits<'a>(
        &'a self,
        shared: &'a Board,
        routes: &'a Routes,
        facts: &'a Facts,
    ) -> impl Iterator<Item = (&'a Limit, Scope, &'a Counter)> {
        let wall_ns = facts.admitted.wall_ns;
        let of = move |state: &'a ScopeState| {
            let limits = state.limits_of(&facts.subject, wall_ns);
            limits.map(|(limit, counter)| (limit, state.scope, counter))
        };
        let own = self.board.states(&routes.own).flat_map(of);
        own.chain(shared.states(&routes.shared).flat_map(of))
    }

    /// Do the same for each limit in force that a request belongs to, faster than [`Self::limits`].
    fn for_limits<'a>(
        &'a self,
        case: &Case<'a>,
        mut act: impl FnMut(&'a Limit, Scope, &'a Counter) -> Result<()>,
    ) -> Result<()> {
        let (routes, subject) = (case.routes, &case.facts.subject);
        let wall_ns = case.facts.admitted.wall_ns;
        let shared: &'a Board = case.shared;
        for (board, route) in [(&self.board, &routes.own), (shared, &routes.shared)] {
            for state in board.states(route) {
                for bound in &state.limits {
                    let limit: &Limit = &bound.limit;
                    let Some(counter) = state.counters.get(bound.counter) else {
                        continue;
                    };
                    if limit.is_in_force(wall_ns) && counter.matches(subject) {
                        act(limit, state.scope, counter)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ask every limit that a new request belongs to.
    pub(super) fn review<'a>(&'a self, case: &Case<'a>) -> Result<Review<'a>> {
        let is_crowded = case.turn.is_crowded(&self.line);
        let mut review = Review {
            seen: Vec::with_capacity(SEEN_USUAL),
            ..Review::default()
        };
        self.for_limits(case, |limit, scope, counter| {
            review.ask((limit, scope, counter), case)?;
            let is_contested = || case.turn.is_contested(&self.line, (scope, limit.id));
            if is_crowded && review.contested.is_none() && is_contested() {
                review.contested = Some((limit, scope));
            }
            Ok(())
        })?;
        Ok(review)
    }

    /// Find how long an answer would fit every limit on money.
    pub(super) fn fitting(&self, case: &Case<'_>) -> Result<Option<(i64, ScopeKind)>> {
        let (now, tariff) = (case.now, &case.plan.tariff);
        let mut fitting: Option<(i64, ScopeKind)> = None;
        for (limit, scope, counter) in self.limits(case.shared, case.routes, case.facts) {
            if !limit.is_hard_money() {
                continue;
            }
            let measure = counter.measure().less(limit.offset_at(now.wall_ns));
            let room = limit.cap.saturating_sub(measure.hard(limit.hold)?);
            let tokens = tariff
                .output_tokens_within(limit.resource, room)?
                .unwrap_or(0);
            if fitting.is_none_or(|(least, _)| tokens < least) {
                fitting = Some((tokens, scope.kind));
            }
        }
        Ok(fitting)
    }

    /// Ask the hard limits of an open request for more, in the period that admitted it.
    pub(super) fn review_more<'a>(
        &'a self,
        shared: &'a Board,
        routes: &'a Routes,
        facts: &'a Facts,
        more: Amounts,
        now: Now,
    ) -> Result<Vec<Verdict<'a>>> {
        let mut verdicts = Vec::new();
        for (limit, scope, counter) in self.limits(shared, routes, facts) {
            let amount = more.of(limit.resource);
            let is_unchecked = planted::is(Fault::ExtensionUnchecked)
                && limit.scope.kind == ScopeKind::Organization;
            if amount == 0 || !follows_streams(limit) || is_unchecked {
                continue;
            }
            let Some(measure) = counter.measure_at(facts.admitted) else {
                continue;
            };
            let request = Request {
                amount,
                least: amount,
                is_over: counter.is_over(facts.admitted),
            };
            let measure = measure.firmly().less(limit.offset_at(now.wall_ns));
            verdicts.extend(decision::judge(
                limit, scope, counter, measure, request, now,
            )?);
        }
        Ok(verdicts)
    }
}

/// Say under whose name the length of an answer is learned.
pub(super) fn learner_of(path: &Path) -> Learner {
    Learner {
        key: path.key,
        team: path.team,
        organization: path.organization,
        feature: path.feature(),
    }
}

/// Tell what a rate limit will stand at when what is asked for has been added at this instant.
///
/// A request is used at once. Tokens are held, which hard limits alone count and no window times.
fn rate(limit: &Limit, counter: &Counter, asked: i64, now: Now) -> Result<RateFigures> {
    let measure = counter.measure();
    let is_request = limit.resource == Resource::Requests;
    let taken = match limit.mode {
        Mode::Hard => money::add(measure.hard(limit.hold)?, asked)?,
        _ if is_request => money::add(measure.used, asked)?,
        _ => measure.used,
    };
    Ok(RateFigures {
        limit: limit.cap,
        remaining: limit.cap.saturating_sub(taken).max(0),
        reset_ns: if is_request {
            counter.passes_ns(now)
        } else {
            counter.empties_ns(now).unwrap_or(0)
        },
    })
}
