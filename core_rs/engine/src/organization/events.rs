//! What people are told: breakers that open and close, shares of caps that are reached.
use std::collections::BTreeSet;

use super::reviewing::reaches;
use super::{Organization, Routes};
use crate::board::{Board, BoundLimit, ScopeState};
use crate::counter::Counter;
use crate::decision::{BreakerEvent, Effect};
use crate::error::Result;
use crate::limit::{Action, Limit, LimitKind, Mode, Scope};
use crate::planted::{self, Fault};
use crate::reservation::{Crossing, Facts};
use crate::time::Now;

impl Organization {
    /// Go on to an instant: breakers close, and what waits gets what a new period has.
    ///
    /// # Errors
    /// `Overflow`, and `InvalidArgument` if the instant is outside the calendar.
    pub fn go_on(&mut self, shared: &mut Board, caller: Now) -> Result<()> {
        let now = self.tick(shared, caller);
        let scopes: BTreeSet<Scope> = self.open_breakers.iter().map(|(scope, _)| *scope).collect();
        for scope in scopes {
            self.watch_scope(shared, scope, now)?;
        }
        self.expire(shared, caller);
        self.call(shared, caller, true);
        Ok(())
    }

    /// Look at the breakers of a scope of which one was open; forget those that are gone.
    fn watch_scope(&mut self, shared: &mut Board, scope: Scope, now: Now) -> Result<()> {
        let board = if scope.kind.is_shared() {
            shared
        } else {
            &mut self.board
        };
        let (mut events, mut open) = (Vec::new(), BTreeSet::new());
        if let Some(at) = board.place(scope) {
            let state = board.state_mut(at)?;
            state.roll(now)?;
            events = breaker_events(state, |_| true, now);
            let still = state.limits.iter().filter(|bound| bound.was_open);
            open.extend(still.map(|bound| bound.limit.id));
        }
        self.note_breakers(events);
        self.open_breakers
            .retain(|(its, id)| *its != scope || open.contains(id));
        Ok(())
    }

    /// Look at all breakers of the organization, since a policy may open and close them.
    pub(super) fn watch_all_breakers(&mut self, now: Now) -> Result<()> {
        let mut events = Vec::new();
        for state in &mut self.board.scopes {
            let mut limits = state.limits.iter();
            if limits.any(|bound| bound.limit.kind == LimitKind::Breaker) {
                state.roll(now)?;
                events.extend(breaker_events(state, |_| true, now));
            }
        }
        self.note_breakers(events);
        Ok(())
    }

    /// Note which breakers of a path have opened or closed; those of both boards.
    pub(super) fn watch_breakers(
        &mut self,
        shared: &mut Board,
        routes: &Routes,
        facts: &Facts,
        now: Now,
    ) {
        let mut events = Vec::new();
        for (board, route) in [(&mut self.board, &routes.own), (shared, &routes.shared)] {
            for at in route.places() {
                if let Some(state) = board.scopes.get_mut(at) {
                    let matches = |counter: &Counter| counter.matches(&facts.subject);
                    events.extend(breaker_events(state, matches, now));
                }
            }
        }
        self.note_breakers(events);
    }

    fn note_breakers(&mut self, events: Vec<BreakerEvent>) {
        for event in events {
            let name = (event.scope, event.limit_id);
            if event.is_open {
                self.open_breakers.insert(name);
            } else {
                self.open_breakers.remove(&name);
            }
            self.effects.push(Effect::Breaker(event));
        }
    }

    /// List the shares of caps that settled money has reached in the period of an admission.
    pub(super) fn crossings(
        &mut self,
        shared: &mut Board,
        routes: &Routes,
        facts: &Facts,
        now: Now,
    ) -> Vec<Crossing> {
        let mut crossings = Vec::new();
        for (board, route) in [(&mut self.board, &routes.own), (shared, &routes.shared)] {
            for at in route.places() {
                let Some(state) = board.scopes.get_mut(at) else {
                    continue;
                };
                for bound in &mut state.limits {
                    let counter = state.counters.get(bound.counter);
                    let matching = counter.filter(|counter| counter.matches(&facts.subject));
                    if let Some(counter) = matching {
                        note_crossings(bound, counter, facts, now, &mut crossings);
                    }
                }
            }
        }
        crossings
    }
}

fn breaker_events(
    state: &mut ScopeState,
    matches: impl Fn(&Counter) -> bool,
    now: Now,
) -> Vec<BreakerEvent> {
    let mut events = Vec::new();
    let scope: Scope = state.scope;
    for bound in &mut state.limits {
        let counter = state.counters.get(bound.counter);
        let Some(counter) = counter.filter(|counter| matches(counter)) else {
            continue;
        };
        let limit: &Limit = &bound.limit;
        if limit.kind != LimitKind::Breaker {
            continue;
        }
        let measure = counter.measure().less(limit.offset_at(now.wall_ns));
        let is_open = limit.is_in_force(now.wall_ns) && measure.used >= limit.cap;
        if is_open != bound.was_open {
            bound.was_open = is_open;
            events.push(BreakerEvent {
                limit_id: limit.id,
                scope,
                is_open,
                sum: measure.used,
                cap: limit.cap,
                at_wall_ns: now.wall_ns,
            });
        }
    }
    events
}

/// Note each share once a period; that a soft cap is passed, again after each cooldown.
fn note_crossings(
    bound: &mut BoundLimit,
    counter: &Counter,
    facts: &Facts,
    now: Now,
    crossings: &mut Vec<Crossing>,
) {
    let limit = &bound.limit;
    let is_watched = limit.steps.iter().any(|step| step.action == Action::Notify);
    let Some(period) = counter.period_of(facts.admitted).filter(|_| is_watched) else {
        return;
    };
    let settled = counter
        .measure_at(facts.admitted)
        .unwrap_or_default()
        .settled;
    if period.starts_at_ns > bound.told.0 {
        bound.told = (period.starts_at_ns, 0);
        bound.repeat = 0;
    } else if period.starts_at_ns < bound.told.0 {
        // A request of a period that is over: what it reached is told, if at all, by the ledger.
        return;
    }
    let crossing = |percent: u8, repeat: u32| Crossing {
        limit_id: limit.id,
        period_starts_at_ns: period.starts_at_ns,
        percent,
        repeat,
        settled,
        cap: limit.cap,
    };
    let is_soft = limit.mode == Mode::Soft && limit.cooldown_ns > 0;
    let is_due = now.wall_ns >= bound.told_at_ns.saturating_add(limit.cooldown_ns);
    let is_over = bound.told.1 >= 100 && reaches(settled, limit.cap, 100);
    if is_soft && is_over && is_due {
        bound.repeat = bound.repeat.saturating_add(1);
        bound.told_at_ns = now.wall_ns;
        crossings.push(crossing(100, bound.repeat));
    }
    let told = bound.told.1;
    for step in &limit.steps {
        let is_new = step.action == Action::Notify && step.percent > bound.told.1;
        if is_new && step.percent > told && reaches(settled, limit.cap, step.percent) {
            if !planted::is(Fault::CrossingTwice) {
                bound.told.1 = step.percent;
            }
            bound.told_at_ns = now.wall_ns;
            crossings.push(crossing(step.percent, 0));
        }
    }
}
