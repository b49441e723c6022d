//! What limits stand at, for dashboards and alerts, and for the applications that have to fit.
use serde::Serialize;

use super::Organization;
use crate::board::{Board, ScopeState};
use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::{Hold, Limit, LimitKind, Mode, Place, Resource, Scope};
use crate::reservation::Path;
use crate::time::Now;

/// One limit and what it measures.
#[derive(Debug, Serialize)]
struct LimitState<'a> {
    limit_id: Id,
    kind: LimitKind,
    scope: Scope,
    #[serde(rename = "where")]
    place: Option<&'a Place>,
    resource: Resource,
    window: &'static str,
    time_zone: Option<&'a str>,
    mode: Mode,
    hold: Hold,
    cap: i64,
    settled: i64,
    used: i64,
    held: i64,
    starts_at_ns: u64,
    ends_at_ns: u64,
    open: Option<bool>,
    frees_at_ns: Option<u64>,
    /// When all that is used now is used no more; None if nothing is.
    empties_at_ns: Option<u64>,
}

impl Organization {
    /// List the state of every limit at an instant, as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if the instant is outside the calendar.
    pub fn limit_states(&mut self, now: Now) -> Result<Vec<u8>> {
        self.states(&(0..self.board.scopes.len()).collect::<Vec<_>>(), now)
    }

    /// List the state of every limit of one scope at an instant, as JSON; none of an unknown one.
    ///
    /// # Errors
    /// `InvalidArgument` if the instant is outside the calendar.
    pub fn scope_states(&mut self, scope: Scope, now: Now) -> Result<Vec<u8>> {
        let place: Vec<usize> = self.board.place(scope).into_iter().collect();
        self.states(&place, now)
    }

    /// List the state of every limit on a path at an instant, narrowest scope first, as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if the instant is outside the calendar.
    pub fn path_states(&mut self, path: &Path, now: Now) -> Result<Vec<u8>> {
        let route = self.board.known(path.scopes());
        self.states(&route.places().collect::<Vec<_>>(), now)
    }

    fn states(&mut self, places: &[usize], caller: Now) -> Result<Vec<u8>> {
        self.clock = self.clock.latest(caller);
        let now = self.clock;
        board_states(&mut self.board, places, now, now.shown_by(caller))
    }
}

/// List the state of every limit of a board's scopes, as JSON; `shown` tells when they free.
pub(crate) fn board_states(
    board: &mut Board,
    places: &[usize],
    now: Now,
    shown: Now,
) -> Result<Vec<u8>> {
    for at in places {
        board.state_mut(*at)?.roll(now)?;
    }
    let states = places.iter().filter_map(|at| board.scopes.get(*at));
    let states: Result<Vec<_>> = states.flat_map(|state| state.limit_states(shown)).collect();
    serde_json::to_vec(&states?).map_err(|fault| Error::InvalidJson(fault.to_string()))
}

impl ScopeState {
    fn limit_states(&self, now: Now) -> impl Iterator<Item = Result<LimitState<'_>>> {
        self.limits.iter().filter_map(move |bound| {
            let counter = self.counters.get(bound.counter)?;
            let is_in_force = bound.limit.is_in_force(now.wall_ns);
            is_in_force.then(|| limit_state(self.scope, &bound.limit, counter, now))
        })
    }
}

fn limit_state<'a>(
    scope: Scope,
    limit: &'a Limit,
    counter: &Counter,
    now: Now,
) -> Result<LimitState<'a>> {
    let offset = limit.offset_at(now.wall_ns);
    let measure = counter.measure().less(offset);
    let bounds = counter.bounds(now)?;
    let is_open = measure.used >= limit.cap;
    let wait_ns = counter
        .falls_to_ns(limit.cap.saturating_sub(1).saturating_add(offset), now)
        .filter(|_| is_open);
    let is_breaker = limit.kind == LimitKind::Breaker;
    Ok(LimitState {
        limit_id: limit.id,
        kind: limit.kind,
        scope,
        place: limit.place.as_ref(),
        resource: limit.resource,
        window: limit.window.name(),
        time_zone: limit.window.time_zone(),
        mode: limit.mode,
        hold: limit.hold,
        cap: limit.cap,
        settled: measure.settled,
        used: measure.used,
        held: measure.held(limit.hold),
        starts_at_ns: bounds.starts_at_ns,
        ends_at_ns: bounds.ends_at_ns,
        open: is_breaker.then_some(is_open),
        frees_at_ns: wait_ns
            .filter(|_| is_breaker)
            .map(|wait_ns| now.wall_ns.saturating_add(wait_ns)),
        empties_at_ns: (measure.used > 0)
            .then(|| counter.empties_ns(now))
            .flatten()
            .map(|wait_ns| now.wall_ns.saturating_add(wait_ns)),
    })
}
