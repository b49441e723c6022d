//! One organization as a deterministic state machine: limits, counters, reservations, settlements.
//!
//! No locks and no clock: whoever owns it serialises the calls and says what time it is.
mod admitting;
mod ending;
mod loading;
mod states;

use std::collections::VecDeque;
use std::sync::Arc;

pub use loading::{SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, SEEDS_MAX, Seed};

use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::{Id, IdMap, IdSet, ReservationId};
use crate::limit::{Limit, Scope, ScopeKind};
use crate::money;
use crate::policy::OrganizationState;
use crate::reservation::{Amounts, Facts, Part, Path, Reservation, Unbooked};
use crate::time::Now;

/// Most open reservations of one organization.
pub const OPEN_MAX: usize = 1_000_000;
/// Most settlements that may wait for the ledger; then admission stops, so none is forgotten.
pub const UNBOOKED_MAX: usize = 65_536;
/// Most releases remembered.
pub const RELEASED_MAX: usize = 65_536;
/// Scopes on the path of a key.
const PATH_MAX: usize = 4;

/// All state of one organization.
#[derive(Debug)]
pub struct Organization {
    id: Id,
    state: OrganizationState,
    version: Arc<str>,
    clock: Now,
    index: IdMap<Scope, usize>,
    scopes: Vec<ScopeState>,
    reservations: IdMap<ReservationId, Reservation>,
    /// Settled and not yet in the ledger, by ascending number without gaps.
    unbooked: VecDeque<Unbooked>,
    settled: IdMap<ReservationId, u64>,
    released: IdSet<ReservationId>,
    /// Released, in order, with the last settlement before.
    released_order: VecDeque<(ReservationId, u64)>,
    seq_last: u64,
}

/// Limits, counters and allowed models of one scope.
#[derive(Debug)]
struct ScopeState {
    scope: Scope,
    limits: Vec<BoundLimit>,
    counters: Vec<Counter>,
    /// Sorted; None allows all.
    allowed: Option<Vec<String>>,
}

/// A limit and the place of its counter in the same scope.
#[derive(Debug)]
struct BoundLimit {
    limit: Limit,
    counter: usize,
}

impl ScopeState {
    fn matching(&mut self, facts: &Facts) -> impl Iterator<Item = &mut Counter> {
        self.counters
            .iter_mut()
            .filter(|counter| counter.matches(&facts.model, &facts.provider))
    }

    fn limits_of(&self, facts: &Facts) -> impl Iterator<Item = (&Limit, &Counter)> {
        self.limits
            .iter()
            .filter_map(|bound| Some((&bound.limit, self.counters.get(bound.counter)?)))
            .filter(|(_, counter)| counter.matches(&facts.model, &facts.provider))
    }
}

/// Places of the scopes of a path that have limits or counters.
#[derive(Clone, Copy, Default)]
struct Places([Option<usize>; PATH_MAX]);

impl Places {
    fn iter(self) -> impl Iterator<Item = usize> + Clone {
        self.0.into_iter().flatten()
    }
}

impl Organization {
    /// Return its state.
    pub fn state(&self) -> OrganizationState {
        self.state
    }

    /// Return the version of the policy in force.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Count the open reservations.
    pub fn open_reservations(&self) -> usize {
        self.reservations.len()
    }

    /// Return the kind of the first scope that does not allow a model, from the organization down.
    pub fn model_refused_by(&self, path: &Path, model: &str) -> Option<ScopeKind> {
        let mut refusing = path.scopes().filter(|scope| !self.allows(*scope, model));
        refusing.by_ref().last().map(|scope| scope.kind)
    }

    fn allows(&self, scope: Scope, model: &str) -> bool {
        let state = self.index.get(&scope).and_then(|at| self.scopes.get(*at));
        state
            .and_then(|state| state.allowed.as_ref())
            .is_none_or(|names| {
                names
                    .binary_search_by(|name| name.as_str().cmp(model))
                    .is_ok()
            })
    }

    fn tick(&mut self, now: Now) -> Now {
        self.clock = self.clock.latest(now);
        self.clock
    }

    fn places(&self, path: &Path) -> Places {
        let mut places = Places::default();
        for (to, scope) in places.0.iter_mut().zip(path.scopes()) {
            *to = self.index.get(&scope).copied();
        }
        places
    }

    fn open_reservation(&self, id: ReservationId) -> Result<&Reservation> {
        self.reservations.get(&id).ok_or_else(|| self.absence(id))
    }

    /// Say why a reservation is not open.
    fn absence(&self, id: ReservationId) -> Error {
        if self.settled.contains_key(&id) {
            Error::AlreadySettled
        } else if self.released.contains(&id) {
            Error::AlreadyReleased
        } else {
            Error::UnknownReservation
        }
    }

    /// Do the same to every counter that a request belongs to.
    fn for_counters(
        &mut self,
        places: Places,
        facts: &Facts,
        mut act: impl FnMut(&mut Counter) -> Result<()>,
    ) -> Result<()> {
        for at in places.iter() {
            let Some(state) = self.scopes.get_mut(at) else {
                continue;
            };
            state.matching(facts).try_for_each(&mut act)?;
        }
        Ok(())
    }

    fn roll(&mut self, places: Places, facts: &Facts, now: Now) -> Result<()> {
        self.for_counters(places, facts, |counter| counter.roll(now))
    }
}

fn overflows(state: &ScopeState, facts: &Facts, amounts: Amounts) -> bool {
    state
        .counters
        .iter()
        .filter(|counter| counter.matches(&facts.model, &facts.provider))
        .any(|counter| {
            counter
                .check_room(amounts.of(counter.resource), facts.admitted)
                .is_err()
        })
}

fn check_amounts(amounts: Amounts) -> Result<()> {
    money::amount(amounts.spend_nanos)?;
    money::amount(amounts.tokens)?;
    Ok(())
}

/// Raise what is held to what was used, since holds include it.
fn raised(part: Part, used: i64) -> Part {
    let accrued = part.accrued.max(used);
    Part {
        held: part.held.max(accrued),
        accrued,
    }
}
