//! What limits stand at, for dashboards and alerts, and for the applications that have to fit.
use serde::Serialize;

use super::{Organization, ScopeState};
use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::{Limit, LimitKind, Mode, Place, Resource, Scope};
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
        self.states(0..self.scopes.len(), now)
    }

    /// List the state of every limit on a path at an instant, narrowest scope first, as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if the instant is outside the calendar.
    pub fn path_states(&mut self, path: &Path, now: Now) -> Result<Vec<u8>> {
        self.states(self.places(path).iter(), now)
    }

    fn states(
        &mut self,
        places: impl Iterator<Item = usize> + Clone,
        caller: Now,
    ) -> Result<Vec<u8>> {
        let now = self.tick(caller);
        let shown = now.shown_by(caller);
        for at in places.clone() {
            let state = self.scopes.get_mut(at).into_iter();
            for counter in state.flat_map(|state| &mut state.counters) {
                counter.roll(now)?;
            }
        }
        let states: Result<Vec<_>> = places
            .filter_map(|at| self.scopes.get(at))
            .flat_map(|state| state.limit_states(shown))
            .collect();
        serde_json::to_vec(&states?).map_err(|fault| Error::InvalidJson(fault.to_string()))
    }
}

impl ScopeState {
    fn limit_states(&self, now: Now) -> impl Iterator<Item = Result<LimitState<'_>>> {
        self.limits.iter().filter_map(move |bound| {
            let counter = self.counters.get(bound.counter)?;
            Some(limit_state(self.scope, &bound.limit, counter, now))
        })
    }
}

fn limit_state<'a>(
    scope: Scope,
    limit: &'a Limit,
    counter: &Counter,
    now: Now,
) -> Result<LimitState<'a>> {
    let measure = counter.measure();
    let bounds = counter.bounds(now)?;
    let is_open = measure.used >= limit.cap;
    let wait_ns = counter
        .falls_to_ns(limit.cap.saturating_sub(1), now)
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
        cap: limit.cap,
        settled: measure.settled,
        used: measure.used,
        held: measure.held,
        starts_at_ns: bounds.starts_at_ns,
        ends_at_ns: bounds.ends_at_ns,
        open: is_breaker.then_some(is_open),
        frees_at_ns: wait_ns
            .filter(|_| is_breaker)
            .map(|wait_ns| now.wall_ns.saturating_add(wait_ns)),
        empties_at_ns: (measure.used > 0)
            .then(|| now.wall_ns.saturating_add(counter.empties_ns(now))),
    })
}
