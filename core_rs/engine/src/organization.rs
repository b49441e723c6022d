//! One organization as a deterministic state machine: limits, counters, reservations, settlements.
//!
//! No locks and no clock: whoever owns it serialises the calls and says what time it is.
mod ending;
mod loading;
mod states;

use std::collections::VecDeque;
use std::sync::Arc;

pub use loading::{SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, SEEDS_MAX, Seed};

use crate::counter::{Counter, Measure};
use crate::decision::{self, Admission, Decision, RateFigures, Refusal, Seen, Verdict};
use crate::error::{Error, Result};
use crate::id::{Id, IdMap, IdSet, ReservationId};
use crate::limit::{Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
use crate::money;
use crate::policy::{NAME_BYTES_MAX, OrganizationState};
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
        self.counters.iter_mut().filter(|counter| counter.matches(&facts.model, &facts.provider))
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
    fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().flatten()
    }
}

/// What all limits of a path say to one request.
#[derive(Default)]
struct Review<'a> {
    verdicts: Vec<Verdict<'a>>,
    seen: Vec<Seen>,
    remaining_spend_nanos: Option<i64>,
    overflows: bool,
}

impl<'a> Review<'a> {
    /// Ask one limit for a new request.
    fn ask(&mut self, limit: &'a Limit, counter: &Counter, requested: i64, now: Now) -> Result<()> {
        let measure = counter.measure();
        let Measure { used, held, .. } = measure;
        self.seen.push(Seen { limit_id: limit.id, used, held, cap: limit.cap });
        self.verdicts.extend(decision::judge(limit, counter, measure, requested, false, now)?);
        if limit.mode == Mode::Hard && limit.resource == Resource::Spend {
            let left = limit.cap.saturating_sub(measure.hard()?).saturating_sub(requested);
            self.remaining_spend_nanos =
                Some(self.remaining_spend_nanos.map_or(left, |least| least.min(left)));
        }
        Ok(())
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
        state.and_then(|state| state.allowed.as_ref()).is_none_or(|names| {
            names.binary_search_by(|name| name.as_str().cmp(model)).is_ok()
        })
    }

    /// Reserve on every limit of a path, or on none.
    ///
    /// # Errors
    /// `InvalidArgument`, `DuplicateReservation`, `TooMany`, `UnbookedFull`, `Overflow`.
    pub fn admit(
        &mut self,
        id: ReservationId,
        path: Path,
        ask: Amounts,
        model: &str,
        provider: &str,
        now: Now,
    ) -> Result<Decision> {
        self.check_new(id, ask, model, provider)?;
        let now = self.tick(now);
        if self.state != OrganizationState::Active {
            return Ok(self.refuse_by_state());
        }
        let facts = Facts { path, model: model.into(), provider: provider.into(), admitted: now };
        let places = self.places(&path);
        self.roll(places, &facts, now)?;
        let review = self.review(places, &facts, ask)?;
        if let Some(refusal) = decision::refusal(&review.verdicts, &review.seen, &self.version, now) {
            return Ok(Decision::Refused(Box::new(refusal)));
        }
        if review.overflows {
            return Err(Error::Overflow);
        }
        let (seen, remaining_spend_nanos) = (review.seen, review.remaining_spend_nanos);
        self.open(id, places, facts, ask)?;
        let [requests, tokens] = self.rate_figures(&path, now)?;
        let policy_version = Arc::clone(&self.version);
        Ok(Decision::Admitted(Admission {
            held: ask,
            policy_version,
            seen,
            remaining_spend_nanos,
            requests,
            tokens,
        }))
    }

    /// Add to what a reservation holds, on all its hard limits or on none; None if it is held.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownReservation`, `AlreadySettled`, `AlreadyReleased`, `Overflow`.
    pub fn extend(&mut self, id: ReservationId, more: Amounts, now: Now) -> Result<Option<Refusal>> {
        check_amounts(more)?;
        let now = self.tick(now);
        let facts = self.open_reservation(id)?.facts.clone();
        let places = self.places(&facts.path);
        self.roll(places, &facts, now)?;
        let review = self.review_more(places, &facts, more, now)?;
        if let Some(refusal) = decision::refusal(&review.verdicts, &review.seen, &self.version, now) {
            return Ok(Some(refusal));
        }
        if review.overflows {
            return Err(Error::Overflow);
        }
        self.hold(id, places, &facts, more)?;
        Ok(None)
    }

    fn check_new(&self, id: ReservationId, ask: Amounts, model: &str, provider: &str) -> Result<()> {
        check_amounts(ask)?;
        if model.len() > NAME_BYTES_MAX || provider.len() > NAME_BYTES_MAX {
            return Err(Error::InvalidArgument("a name is too long"));
        }
        let is_known = self.reservations.contains_key(&id)
            || self.settled.contains_key(&id)
            || self.released.contains(&id);
        if is_known {
            return Err(Error::DuplicateReservation);
        }
        if self.reservations.len() >= OPEN_MAX {
            return Err(Error::TooMany("open reservations"));
        }
        if self.unbooked.len() >= UNBOOKED_MAX {
            return Err(Error::UnbookedFull);
        }
        Ok(())
    }

    fn refuse_by_state(&self) -> Decision {
        let scope = Scope { kind: ScopeKind::Organization, id: self.id };
        let version = Arc::clone(&self.version);
        Decision::Refused(Box::new(Refusal::by_state("organization_suspended", 403, scope, version)))
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
            let Some(state) = self.scopes.get_mut(at) else { continue };
            state.matching(facts).try_for_each(&mut act)?;
        }
        Ok(())
    }

    fn roll(&mut self, places: Places, facts: &Facts, now: Now) -> Result<()> {
        self.for_counters(places, facts, |counter| counter.roll(now))
    }

    fn review(&self, places: Places, facts: &Facts, ask: Amounts) -> Result<Review<'_>> {
        let mut review = Review::default();
        for state in places.iter().filter_map(|at| self.scopes.get(at)) {
            for (limit, counter) in state.limits_of(facts) {
                review.ask(limit, counter, ask.of(limit.resource), facts.admitted)?;
            }
            review.overflows |= overflows(state, facts, ask);
        }
        Ok(review)
    }

    /// Ask the hard limits of an open reservation for more, in the period that admitted it.
    fn review_more(&self, places: Places, facts: &Facts, more: Amounts, now: Now) -> Result<Review<'_>> {
        let mut review = Review::default();
        for state in places.iter().filter_map(|at| self.scopes.get(at)) {
            for (limit, counter) in state.limits_of(facts) {
                let requested = more.of(limit.resource);
                let asks = limit.resource != Resource::Requests && requested > 0;
                let Some(measure) = counter.measure_at(facts.admitted) else { continue };
                if asks && limit.mode == Mode::Hard {
                    let is_over = counter.is_over(facts.admitted);
                    let verdict = decision::judge(limit, counter, measure, requested, is_over, now)?;
                    review.verdicts.extend(verdict);
                }
            }
            review.overflows |= overflows(state, facts, more);
        }
        Ok(review)
    }

    fn open(&mut self, id: ReservationId, places: Places, facts: Facts, ask: Amounts) -> Result<()> {
        let reservation = Reservation { facts, held: ask, accrued: Amounts::default() };
        let now = reservation.facts.admitted;
        self.for_counters(places, &reservation.facts, |counter| {
            counter.open(reservation.part(counter.resource), now, now)
        })?;
        self.reservations.insert(id, reservation);
        Ok(())
    }

    fn hold(&mut self, id: ReservationId, places: Places, facts: &Facts, more: Amounts) -> Result<()> {
        let held = self.open_reservation(id)?.held;
        let raised = Amounts {
            spend_nanos: money::add(held.spend_nanos, more.spend_nanos)?,
            tokens: money::add(held.tokens, more.tokens)?,
        };
        self.for_counters(places, facts, |counter| match counter.resource {
            Resource::Requests => Ok(()),
            resource => counter.hold(more.of(resource), facts.admitted),
        })?;
        if let Some(reservation) = self.reservations.get_mut(&id) {
            reservation.held = raised;
        }
        Ok(())
    }

    /// Return the tightest rate limits of a key, on requests and on tokens.
    fn rate_figures(&self, path: &Path, now: Now) -> Result<[Option<RateFigures>; 2]> {
        let mut figures = [None, None];
        let scope = Scope { kind: ScopeKind::Key, id: path.key };
        let Some(state) = self.index.get(&scope).and_then(|at| self.scopes.get(*at)) else {
            return Ok(figures);
        };
        for bound in state.limits.iter().filter(|bound| bound.limit.kind == LimitKind::Rate) {
            let Some(counter) = state.counters.get(bound.counter) else { continue };
            let [requests, tokens] = &mut figures;
            let to = if bound.limit.resource == Resource::Requests { requests } else { tokens };
            let found = rate(&bound.limit, counter, now)?;
            if to.is_none_or(|known: RateFigures| found.remaining < known.remaining) {
                *to = Some(found);
            }
        }
        Ok(figures)
    }
}

fn rate(limit: &Limit, counter: &Counter, now: Now) -> Result<RateFigures> {
    let measure = counter.measure();
    let taken = if limit.mode == Mode::Hard { measure.hard()? } else { measure.used };
    Ok(RateFigures {
        limit: limit.cap,
        remaining: limit.cap.saturating_sub(taken).max(0),
        reset_ns: counter.empties_ns(now),
    })
}

fn overflows(state: &ScopeState, facts: &Facts, amounts: Amounts) -> bool {
    state
        .counters
        .iter()
        .filter(|counter| counter.matches(&facts.model, &facts.provider))
        .any(|counter| counter.check_room(amounts.of(counter.resource), facts.admitted).is_err())
}

fn check_amounts(amounts: Amounts) -> Result<()> {
    money::amount(amounts.spend_nanos)?;
    money::amount(amounts.tokens)?;
    Ok(())
}

/// Raise what is held to what was used, since holds include it.
fn raised(part: Part, used: i64) -> Part {
    let accrued = part.accrued.max(used);
    Part { held: part.held.max(accrued), accrued }
}
