//! One organization as a deterministic state machine: limits, counters, reservations, settlements.
//!
//! No locks and no clock: whoever owns it serialises the calls and says what time it is. The board
//! of the limits that all organizations share is lent to each call that may touch it.
mod admitting;
mod ending;
mod events;
mod extending;
mod line;
mod loading;
mod refusing;
mod reviewing;
mod states;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};

use crate::board::{Board, Route};
use crate::charging::Charging;
use crate::counter::Counter;
use crate::decision::Effect;
use crate::error::{Error, Result};
use crate::estimate::{Estimator, Foresight};
use crate::id::{Id, IdMap, IdSet, ReservationId};
use crate::limit::{Scope, ScopeKind, Subject};
use crate::policy::OrganizationState;
use crate::reservation::{Amounts, Facts, Path, Reservation, Unbooked};
use crate::rules::{Rules, Ruling, Use};
use crate::time::Now;

pub use ending::Actual;
use line::Line;
pub use line::{KEY_WAITERS_MAX, WAITERS_MAX};
pub(crate) use loading::{load_shared, missing_shared};
pub(crate) use states::board_states;

/// Most open reservations of one organization.
pub const OPEN_MAX: usize = 1_000_000;
/// Most settlements that may wait for the ledger; then admission stops, so none is forgotten.
pub const UNBOOKED_MAX: usize = 65_536;
/// Most releases remembered.
pub const RELEASED_MAX: usize = 65_536;

/// All state of one organization.
#[derive(Debug)]
pub struct Organization {
    id: Id,
    state: OrganizationState,
    version: Arc<str>,
    clock: Now,
    board: Board,
    rules: Rules,
    charging: Charging,
    estimator: Estimator,
    foresight: Foresight,
    reservations: IdMap<ReservationId, Reservation>,
    /// Admissions so far; the number of the last one.
    admissions: u64,
    /// Open streams by the number of their admission.
    streams: BTreeMap<u64, ReservationId>,
    /// Streams that wait for room, by the same, and the limits that have none.
    pending: BTreeMap<u64, Vec<line::Place>>,
    /// Streams that have been told to end and have not.
    cut: IdSet<ReservationId>,
    line: Line,
    /// Breakers that were open when they were looked at last.
    open_breakers: BTreeSet<(Scope, Id)>,
    effects: Vec<Effect>,
    /// Settled and not yet in the ledger, by ascending number without gaps.
    unbooked: VecDeque<Unbooked>,
    settled: IdMap<ReservationId, u64>,
    released: IdSet<ReservationId>,
    /// Released, in order, with the last settlement before.
    released_order: VecDeque<(ReservationId, u64)>,
    seq_last: u64,
}

/// The places of a request on both boards.
struct Routes {
    own: Route,
    shared: Route,
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

    /// Hold otherwise than is usual, to measure what that does.
    #[must_use]
    pub fn foreseeing(self, foresight: Foresight) -> Self {
        Self { foresight, ..self }
    }

    /// Count the open reservations.
    pub fn open_reservations(&self) -> usize {
        self.reservations.len()
    }

    /// Count the requests that wait in line.
    pub fn waiting_requests(&self) -> usize {
        self.line.len()
    }

    /// Return why a use is refused by static policy, and by which kind of scope.
    pub fn refused_by_rule(
        &self,
        path: &Path,
        asked: &Use<'_>,
    ) -> Option<(&'static str, ScopeKind)> {
        self.rules.refusal(path, asked)
    }

    /// Return what static policy holds for the requests of a path.
    pub fn ruling(&self, path: &Path) -> Ruling {
        self.rules.ruling(path)
    }

    /// Return what is charged at an instant for what a provider bills.
    ///
    /// # Errors
    /// `NoExchangeRate`, `Overflow`.
    pub fn charge(&self, cost_nanos: i64, wall_ns: u64) -> Result<i64> {
        let terms = self.charging.terms_at(wall_ns);
        terms.ok_or(Error::NoExchangeRate)?.charge(cost_nanos)
    }

    /// Tell whether there is something to be taken.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Take what has happened to others than the requests that were acted on, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Go on to an instant; limits that are shared have one time for all who share them.
    fn tick(&mut self, shared: &mut Board, now: Now) -> Now {
        self.clock = shared.latest(self.clock.latest(now));
        self.clock
    }

    /// Find the counters of an open request on both boards.
    fn routes_of(&self, shared: &Board, facts: &Facts) -> Routes {
        Routes {
            own: self.board.known(facts.path.scopes()),
            shared: shared.known(shared_scopes(shared, &facts.subject)),
        }
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

    /// Do the same to every counter that a request belongs to, on both boards.
    fn for_counters(
        &mut self,
        shared: &mut Board,
        routes: &Routes,
        facts: &Facts,
        mut act: impl FnMut(&mut Counter) -> Result<()>,
    ) -> Result<()> {
        self.board
            .for_counters(&routes.own, &facts.subject, &mut act)?;
        shared.for_counters(&routes.shared, &facts.subject, act)
    }

    /// Go on to an instant on every counter that a request belongs to; return their largest sum.
    fn roll(
        &mut self,
        shared: &mut Board,
        routes: &Routes,
        facts: &Facts,
        now: Now,
    ) -> Result<i64> {
        let own = self.board.roll(&routes.own, &facts.subject, now)?;
        let other = shared.roll(&routes.shared, &facts.subject, now)?;
        Ok(own.max(other))
    }

    /// Fail before anything is changed if a counter could not grow by the amounts.
    fn check_room(
        &self,
        shared: &Board,
        routes: &Routes,
        facts: &Facts,
        amounts: Amounts,
    ) -> Result<()> {
        let (subject, admitted) = (&facts.subject, facts.admitted);
        self.board
            .check_room(&routes.own, subject, admitted, amounts)?;
        shared.check_room(&routes.shared, subject, admitted, amounts)
    }
}

static INSTALLATION: LazyLock<Id> =
    LazyLock::new(|| Id::of_label(ScopeKind::Installation.name(), ""));

/// List the scopes that a request has in common with those of other organizations.
fn shared_scopes(shared: &Board, subject: &Subject) -> impl Iterator<Item = Scope> + use<> {
    // Nearly no request pays for the hash of its provider's name.
    let scopes = (!shared.is_empty()).then(|| all_shared_scopes(subject));
    scopes.into_iter().flatten()
}

fn all_shared_scopes(subject: &Subject) -> [Scope; 2] {
    [
        Scope {
            kind: ScopeKind::Provider,
            id: Id::of_label(ScopeKind::Provider.name(), &subject.provider),
        },
        Scope {
            kind: ScopeKind::Installation,
            id: *INSTALLATION,
        },
    ]
}
