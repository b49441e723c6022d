//! Limits and their counters, by scope: one board for an organization, one for all together.
//!
//! A board knows no reservations and decides nothing.
mod loading;

use std::sync::Arc;

pub(crate) use loading::{Drafts, specs_json};
pub use loading::{SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, SEEDS_MAX, Seed};

use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::IdMap;
use crate::limit::{Limit, Scope, Subject};
use crate::planted::{self, Fault};
use crate::reservation::{Amounts, POOLS_MAX, Path};
use crate::time::{NS_PER_S, Now};

/// Most scopes of dynamic kinds that are told apart; further labels share one counter.
pub const LABELS_MAX: usize = 100_000;
/// Labels that are counted no more are looked for at most this often.
const SWEEP_INTERVAL_NS: u64 = 10 * NS_PER_S;
/// Scopes on a path: ten of an organization, two that are shared, and the pools.
const PATH_MAX: usize = 12 + POOLS_MAX;

/// The limits and counters of one scope.
#[derive(Clone, Debug)]
pub(crate) struct ScopeState {
    pub(crate) scope: Scope,
    pub(crate) limits: Vec<BoundLimit>,
    pub(crate) counters: Vec<Counter>,
}

/// A limit and the place of its counter in the same scope.
#[derive(Clone, Debug)]
pub(crate) struct BoundLimit {
    pub(crate) limit: Arc<Limit>,
    pub(crate) counter: usize,
    /// Start of the period, and the largest share of the cap that was told in it.
    pub(crate) told: (u64, u8),
    /// When the notice of a passed cap was told last, and how often it was repeated.
    pub(crate) told_at_ns: u64,
    pub(crate) repeat: u32,
    /// Whether a breaker was open when it was looked at last.
    pub(crate) was_open: bool,
}

impl BoundLimit {
    pub(crate) fn new(limit: Arc<Limit>, counter: usize) -> Self {
        Self {
            limit,
            counter,
            told: (0, 0),
            told_at_ns: 0,
            repeat: 0,
            was_open: false,
        }
    }
}

impl ScopeState {
    fn new(scope: Scope) -> Self {
        Self {
            scope,
            limits: Vec::new(),
            counters: Vec::new(),
        }
    }

    pub(crate) fn matching(&mut self, subject: &Subject) -> impl Iterator<Item = &mut Counter> {
        self.counters
            .iter_mut()
            .filter(|counter| counter.matches(subject))
    }

    /// List the limits in force that a subject belongs to.
    pub(crate) fn limits_of(
        &self,
        subject: &Subject,
        wall_ns: u64,
    ) -> impl Iterator<Item = (&Limit, &Counter)> {
        self.limits
            .iter()
            .filter_map(|bound| Some((&*bound.limit, self.counters.get(bound.counter)?)))
            .filter(move |(limit, counter)| limit.is_in_force(wall_ns) && counter.matches(subject))
    }

    /// Make the state of one label from that of its template, with nothing counted.
    fn instance(&self, scope: Scope, now: Now) -> Result<Self> {
        let limits = self.limits.iter();
        Ok(Self {
            scope,
            limits: limits
                .map(|bound| BoundLimit::new(Arc::clone(&bound.limit), bound.counter))
                .collect(),
            counters: self
                .counters
                .iter()
                .map(|counter| counter.emptied(now))
                .collect::<Result<_>>()?,
        })
    }

    /// Go on to an instant on every counter.
    pub(crate) fn roll(&mut self, now: Now) -> Result<()> {
        self.counters
            .iter_mut()
            .try_for_each(|counter| counter.roll(now).map(|_| ()))
    }

    fn is_empty(&self) -> bool {
        self.counters.iter().all(Counter::is_empty)
    }
}

/// Where the scopes of one path are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    at: [u32; PATH_MAX],
    length: u32,
    /// Labels that are not counted yet; they are adopted when a request is admitted.
    pub(crate) fresh: Vec<ScopeState>,
    /// Labels for which there is no room.
    pub(crate) surplus: Vec<Scope>,
}

impl Route {
    fn push(&mut self, at: usize) {
        let end = usize::try_from(self.length).ok();
        let place = end.and_then(|end| self.at.get_mut(end));
        if let Some((to, at)) = place.zip(u32::try_from(at).ok()) {
            *to = at;
            self.length = self.length.saturating_add(1);
        }
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = usize> + Clone + use<'_> {
        let length = usize::try_from(self.length).unwrap_or(0);
        let at = |at: &u32| usize::try_from(*at).unwrap_or(usize::MAX);
        self.at.iter().take(length).map(at)
    }
}

/// Limits and counters of many scopes.
#[derive(Clone, Debug, Default)]
pub struct Board {
    index: IdMap<Scope, usize>,
    /// Kinds of the scopes, a bit for each.
    kinds: u16,
    pub(crate) scopes: Vec<ScopeState>,
    /// Scopes of dynamic kinds, templates aside.
    labels: usize,
    swept_mono_ns: u64,
    /// The latest instant that was seen.
    clock: Now,
}

impl Board {
    pub(crate) fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Note an instant and return the latest one seen, of whichever organization.
    pub(crate) fn latest(&mut self, now: Now) -> Now {
        self.clock = self.clock.latest(now);
        self.clock
    }

    pub(crate) fn get(&self, scope: Scope) -> Option<&ScopeState> {
        self.index.get(&scope).and_then(|at| self.scopes.get(*at))
    }

    pub(crate) fn place(&self, scope: Scope) -> Option<usize> {
        // Most paths name kinds of scopes that nobody has limited.
        if self.kinds & scope.kind.bit() == 0 {
            return None;
        }
        self.index.get(&scope).copied()
    }

    /// Find the scopes of a path; of labels that are not counted yet, say what they would be.
    pub(crate) fn route(&self, path: &Path, now: Now) -> Result<Route> {
        let mut route = Route::default();
        path.each_scope(|scope| {
            if let Some(at) = self.place(scope) {
                route.push(at);
            } else if scope.kind.is_dynamic() {
                self.route_label(&mut route, scope, now)?;
            }
            Ok(())
        })?;
        Ok(route)
    }

    /// Add a label to a route that is not counted yet.
    fn route_label(&self, route: &mut Route, scope: Scope, now: Now) -> Result<()> {
        let template = Scope::each(scope.kind);
        let Some((at, state)) = self.place(template).zip(self.get(template)) else {
            return Ok(());
        };
        if self.labels.saturating_add(route.fresh.len()) < LABELS_MAX {
            route.fresh.push(state.instance(scope, now)?);
        } else {
            route.push(at);
            route.surplus.push(scope);
        }
        Ok(())
    }

    /// Find the scopes of a list that are counted already.
    pub(crate) fn known(&self, scopes: impl Iterator<Item = Scope>) -> Route {
        let mut route = Route::default();
        scopes
            .filter_map(|scope| self.place(scope))
            .for_each(|at| route.push(at));
        route
    }

    /// Begin to count the labels that a route found new.
    pub(crate) fn adopt(&mut self, route: &mut Route) {
        for state in std::mem::take(&mut route.fresh) {
            route.push(self.put(state));
        }
    }

    fn put(&mut self, state: ScopeState) -> usize {
        let at = self.scopes.len();
        self.index.insert(state.scope, at);
        self.kinds |= state.scope.kind.bit();
        let is_label = state.scope.kind.is_dynamic() && !state.scope.is_template();
        self.labels = self.labels.saturating_add(usize::from(is_label));
        self.scopes.push(state);
        at
    }

    /// List the states of a route.
    pub(crate) fn states<'a>(
        &'a self,
        route: &'a Route,
    ) -> impl Iterator<Item = &'a ScopeState> + Clone {
        let known = route.places().filter_map(|at| self.scopes.get(at));
        known.chain(&route.fresh)
    }

    /// Do the same to every counter of a route that a subject belongs to.
    pub(crate) fn for_counters(
        &mut self,
        route: &Route,
        subject: &Subject,
        mut act: impl FnMut(&mut Counter) -> Result<()>,
    ) -> Result<()> {
        for at in route.places() {
            let Some(state) = self.scopes.get_mut(at) else {
                continue;
            };
            state.matching(subject).try_for_each(&mut act)?;
            if state.scope.kind.is_dynamic() && planted::is(Fault::LabelTwice) {
                state.matching(subject).try_for_each(&mut act)?;
            }
        }
        Ok(())
    }

    /// Go on to an instant on every counter of a route that a subject belongs to.
    ///
    /// Returns the largest sum that any of them keeps of its current period.
    pub(crate) fn roll(&mut self, route: &Route, subject: &Subject, now: Now) -> Result<i64> {
        let mut most = 0;
        self.for_counters(route, subject, |counter| {
            most = counter.roll(now)?.max(most);
            Ok(())
        })?;
        Ok(most)
    }

    /// Fail before anything is changed if a counter could not grow by the amounts.
    pub(crate) fn check_room(
        &self,
        route: &Route,
        subject: &Subject,
        admitted: Now,
        amounts: Amounts,
    ) -> Result<()> {
        let counters = self.states(route).flat_map(|state| &state.counters);
        for counter in counters.filter(|counter| counter.matches(subject)) {
            counter.check_room(amounts.of(counter.resource), admitted)?;
        }
        Ok(())
    }

    /// Forget labels of which nothing is counted, when there is no room left; now and then.
    pub(crate) fn make_room(&mut self, now: Now) -> Result<()> {
        let is_due = now.mono_ns >= self.swept_mono_ns.saturating_add(SWEEP_INTERVAL_NS);
        if self.labels < LABELS_MAX || !is_due {
            return Ok(());
        }
        self.swept_mono_ns = now.mono_ns;
        let mut at = 0;
        while let Some(state) = self.scopes.get_mut(at) {
            state.roll(now)?;
            if self.is_forgettable(at) {
                self.forget(at);
            } else {
                at = at.saturating_add(1);
            }
        }
        Ok(())
    }

    fn is_forgettable(&self, at: usize) -> bool {
        let Some(state) = self.scopes.get(at) else {
            return false;
        };
        let is_label = state.scope.kind.is_dynamic() && !state.scope.is_template();
        let has_own = state
            .limits
            .iter()
            .any(|bound| !bound.limit.scope.is_template());
        // A breaker that closes by this is told to have closed, and only then forgotten.
        let is_open = state.limits.iter().any(|bound| bound.was_open);
        is_label && !has_own && !is_open && state.is_empty()
    }

    fn forget(&mut self, at: usize) {
        let gone = self.scopes.swap_remove(at);
        self.index.remove(&gone.scope);
        self.labels = self.labels.saturating_sub(1);
        if let Some(moved) = self.scopes.get(at) {
            self.index.insert(moved.scope, at);
        }
    }

    pub(crate) fn state_mut(&mut self, at: usize) -> Result<&mut ScopeState> {
        self.scopes.get_mut(at).ok_or(Error::Overflow)
    }
}
