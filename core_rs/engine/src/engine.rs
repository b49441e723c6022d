//! All organizations and keys of a process, each organization behind a lock of its own.
//!
//! This module makes decisions atomic and knows nothing of how they are made.
mod principal;
mod slots;

use crate::ask::Ask;
use crate::board::{Board, Seed};
use crate::decision::{Decision, Effect};
use crate::error::{Error, Result};
use crate::id::{Id, ReservationId};
use crate::keys::{Digest, Key, KeyForm, Keys};
use crate::limit::{Scope, ScopeKind};
use crate::organization::{Actual, Organization, board_states, load_shared, missing_shared};
use crate::policy::{Policy, SharedPolicy};
use crate::reservation::{Path, Settlement};
use crate::rules::{Ruling, Use};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, RwLock};
use crate::time::Now;
use principal::refusal_by_key;
pub use principal::{KeyLimits, Principal};
use slots::{Slot, Slots, lock, with};

/// Most organizations of one process.
pub const ORGANIZATIONS_MAX: usize = 1_000_000;

/// The engine of a process; see the crate's documentation.
#[derive(Debug, Default)]
pub struct Engine {
    keys: RwLock<Keys>,
    slots: RwLock<Slots>,
    /// Limits of all organizations together; its lock is taken after an organization's.
    shared: Mutex<Board>,
    /// Whether there are any, so that nobody waits for the lock in vain.
    is_shared: AtomicBool,
}

impl Engine {
    /// Make an engine that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Insert or replace keys, all or none; return how many were given.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidKeys`, `TooMany`.
    pub fn load_keys(&self, json: &[u8]) -> Result<usize> {
        let forms = KeyForm::list_from_json(json)?;
        let mut keys = self.keys.write().map_err(|_| Error::Poisoned)?;
        let numbers = self.numbers(&forms)?;
        keys.load(&forms, &numbers)?;
        Ok(forms.len())
    }

    fn numbers(&self, forms: &[KeyForm]) -> Result<Vec<u32>> {
        let mut slots = self.slots.write().map_err(|_| Error::Poisoned)?;
        forms
            .iter()
            .map(|form| slots.number(form.organization_id))
            .collect()
    }

    /// List as JSON the counters a snapshot needs and that are not kept; changes nothing.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn missing_counters(&self, snapshot_json: &[u8], now: Now) -> Result<Vec<u8>> {
        let policy = Policy::from_json(snapshot_json)?;
        let slots = self.slots.read().map_err(|_| Error::Poisoned)?;
        let known = slots.numbers.get(&policy.organization_id).copied();
        let slot = known.and_then(|number| slots.get(number).ok());
        drop(slots);
        let Some(slot) = slot else {
            return Organization::all_counters(policy, now);
        };
        let guard = lock(&slot)?;
        match guard.as_ref() {
            Some(organization) => organization.missing_counters(policy, now),
            None => Organization::all_counters(policy, now),
        }
    }

    /// Put a snapshot in force, as a whole, for the next request; return the organization's number.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`, `Overflow`.
    pub fn load_organization(
        &self,
        snapshot_json: &[u8],
        seeds_json: &[u8],
        now: Now,
    ) -> Result<u32> {
        let policy = Policy::from_json(snapshot_json)?;
        let seeds = Seed::list_from_json(seeds_json)?;
        let mut slots = self.slots.write().map_err(|_| Error::Poisoned)?;
        let number = slots.number(policy.organization_id)?;
        let slot = slots.get(number)?;
        drop(slots);
        let mut guard = lock(&slot)?;
        match guard.as_mut() {
            Some(organization) => {
                self.with_shared(|shared| organization.load(shared, policy, &seeds, now))?;
            }
            None => *guard = Some(Organization::new(policy, &seeds, now)?),
        }
        Ok(number)
    }

    /// List as JSON the counters that limits of the installation need and that are not kept.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn missing_shared(&self, snapshot_json: &[u8], now: Now) -> Result<Vec<u8>> {
        let policy = SharedPolicy::from_json(snapshot_json)?;
        let shared = self.shared.lock().map_err(|_| Error::Poisoned)?;
        missing_shared(&shared, policy, now)
    }

    /// Put the limits that all organizations share in force, for the next request.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`, `Overflow`.
    pub fn load_shared(&self, snapshot_json: &[u8], seeds_json: &[u8], now: Now) -> Result<()> {
        let policy = SharedPolicy::from_json(snapshot_json)?;
        let seeds = Seed::list_from_json(seeds_json)?;
        // All organizations stand still, and none is added: what they have open belongs to the new
        // counters too.
        let slots = self.slots.read().map_err(|_| Error::Poisoned)?;
        let guards: Vec<_> = slots
            .slots
            .iter()
            .map(|slot| lock(slot))
            .collect::<Result<_>>()?;
        let organizations = guards.iter().filter_map(|guard| guard.as_ref());
        let mut shared = self.shared.lock().map_err(|_| Error::Poisoned)?;
        load_shared(&mut shared, policy, &seeds, organizations, now)?;
        self.is_shared.store(!shared.is_empty(), Ordering::Release);
        Ok(())
    }

    /// List the state of every limit that all organizations share, as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if the instant is outside the calendar.
    pub fn shared_states(&self, now: Now) -> Result<Vec<u8>> {
        let mut shared = self.shared.lock().map_err(|_| Error::Poisoned)?;
        let places: Vec<usize> = (0..shared.scopes.len()).collect();
        board_states(&mut shared, &places, now, now)
    }

    /// Lend the board of shared limits, or an empty one where there are none.
    fn with_shared<T>(&self, act: impl FnOnce(&mut Board) -> Result<T>) -> Result<T> {
        if self.is_shared.load(Ordering::Acquire) {
            let mut shared = self.shared.lock().map_err(|_| Error::Poisoned)?;
            act(&mut shared)
        } else {
            act(&mut Board::default())
        }
    }

    /// Return whom a secret belongs to; None if unknown, revoked or expired.
    ///
    /// # Errors
    /// `OrganizationNotLoaded`.
    pub fn authenticate(&self, digest: Digest, wall_ns: u64) -> Result<Option<Principal>> {
        let keys = self.keys.read().map_err(|_| Error::Poisoned)?;
        let Some((number, key)) = keys.find(digest, wall_ns) else {
            return Ok(None);
        };
        let slot = self.slot(key.organization)?;
        let path = key.path(slot.id);
        with(&slot, |organization| {
            Ok(Some(Principal {
                key: number,
                organization: key.organization,
                key_id: key.id,
                organization_id: slot.id,
                team_id: path.team(),
                member_id: path.member(),
                cost_center_id: path.cost_center(),
                state: key.state,
                organization_state: organization.state(),
                policy_version: std::sync::Arc::clone(organization.version()),
            }))
        })
    }

    /// Return why static policy refuses a use, and by which kind of scope; None if it does not.
    ///
    /// # Errors
    /// `UnknownKey`, `OrganizationNotLoaded`.
    pub fn refused_by_rule(
        &self,
        key: u32,
        asked: &Use<'_>,
    ) -> Result<Option<(&'static str, ScopeKind)>> {
        self.with_key(key, |organization, _, path| {
            Ok(organization.refused_by_rule(&path, asked))
        })
    }

    /// Return what static policy holds for the requests of a key.
    ///
    /// # Errors
    /// `UnknownKey`, `OrganizationNotLoaded`.
    pub fn ruling(&self, key: u32) -> Result<Ruling> {
        self.with_key(key, |organization, _, path| Ok(organization.ruling(&path)))
    }

    /// Return what a key's organization is charged at an instant for what a provider bills.
    ///
    /// # Errors
    /// `NoExchangeRate`, `Overflow`, `UnknownKey`, `OrganizationNotLoaded`.
    pub fn charge(&self, key: u32, cost_nanos: i64, wall_ns: u64) -> Result<i64> {
        self.with_key(key, |organization, _, _| {
            organization.charge(cost_nanos, wall_ns)
        })
    }

    /// Reserve on every limit of a key's path, or refuse, or have it wait, and leave no trace.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownKey`, `OrganizationNotLoaded`, `DuplicateReservation`, `TooMany`,
    /// `UnbookedFull`, `NoExchangeRate`, `Overflow`.
    pub fn admit(&self, key: u32, id: ReservationId, ask: &Ask, now: Now) -> Result<Decision> {
        self.with_key(key, |organization, key, path| {
            if let Some(refusal) = refusal_by_key(key, &path, organization, now) {
                return Ok(Decision::Refused(Box::new(refusal)));
            }
            self.with_shared(|shared| organization.admit(shared, id, path, ask, now))
        })
    }

    /// Decide as [`Self::admit`] would at this instant, and reserve nothing.
    ///
    /// # Errors
    /// As [`Self::admit`], but for `DuplicateReservation`.
    pub fn preview(&self, key: u32, ask: &Ask, now: Now) -> Result<Decision> {
        self.with_key(key, |organization, key, path| {
            if let Some(refusal) = refusal_by_key(key, &path, organization, now) {
                return Ok(Decision::Refused(Box::new(refusal)));
            }
            self.with_shared(|shared| organization.preview(shared, path, ask, now))
        })
    }

    /// Tell what every limit of a key's path stands at; those of others are not looked at.
    ///
    /// # Errors
    /// `UnknownKey`, `OrganizationNotLoaded`, `InvalidArgument`.
    pub fn key_limits(&self, key: u32, now: Now) -> Result<KeyLimits> {
        self.with_key(key, |organization, _, path| {
            let states_json = organization.path_states(&path, now)?;
            Ok(KeyLimits {
                path,
                policy_version: std::sync::Arc::clone(organization.version()),
                states_json,
            })
        })
    }

    /// Let a stream relay so many output tokens; None if there is no room yet.
    ///
    /// # Errors
    /// As [`Organization::extend`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn extend(
        &self,
        organization: u32,
        id: ReservationId,
        wanted: i64,
        now: Now,
    ) -> Result<Option<i64>> {
        self.with_both(organization, |organization, shared| {
            organization.extend(shared, id, wanted, now)
        })
    }

    /// Report what an open reservation has cost and used so far.
    ///
    /// # Errors
    /// As [`Organization::progress`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn progress(
        &self,
        organization: u32,
        id: ReservationId,
        so_far: Actual,
        now: Now,
    ) -> Result<()> {
        self.with_both(organization, |organization, shared| {
            organization.progress(shared, id, so_far, now)
        })
    }

    /// Book what a request really cost and end its hold.
    ///
    /// # Errors
    /// As [`Organization::settle`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn settle(
        &self,
        organization: u32,
        id: ReservationId,
        actual: Actual,
        now: Now,
    ) -> Result<Settlement> {
        self.with_both(organization, |organization, shared| {
            organization.settle(shared, id, actual, now)
        })
    }

    /// End a reservation as if it had never been; false if that was done before.
    ///
    /// # Errors
    /// As [`Organization::release`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn release(&self, organization: u32, id: ReservationId, now: Now) -> Result<bool> {
        self.with_both(organization, |organization, shared| {
            organization.release(shared, id, now)
        })
    }

    /// Say what becomes of a request whose time in the line is up.
    ///
    /// # Errors
    /// As [`Organization::give_up`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn give_up(&self, organization: u32, id: ReservationId, now: Now) -> Result<Decision> {
        self.with_both(organization, |organization, shared| {
            organization.give_up(shared, id, now)
        })
    }

    /// Forget a request in the line whose client left; false if it does not wait any more.
    ///
    /// # Errors
    /// As [`Organization::leave`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn leave(&self, organization: u32, id: ReservationId, now: Now) -> Result<bool> {
        self.with_both(organization, |organization, shared| {
            Ok(organization.leave(shared, id, now))
        })
    }

    /// Let time pass: breakers close, waits end, periods begin. Tell whether anybody still waits.
    ///
    /// # Errors
    /// As [`Organization::go_on`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn go_on(&self, organization: u32, now: Now) -> Result<bool> {
        self.with_both(organization, |organization, shared| {
            organization.go_on(shared, now)?;
            Ok(organization.has_waiters())
        })
    }

    /// Take what has happened to others than the requests that were acted on, in order.
    ///
    /// # Errors
    /// `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn take_effects(&self, organization: u32) -> Result<Vec<Effect>> {
        self.with(organization, |organization| Ok(organization.take_effects()))
    }

    /// Tell whether there are effects to be taken.
    ///
    /// # Errors
    /// `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn has_effects(&self, organization: u32) -> Result<bool> {
        self.with(organization, |organization| Ok(organization.has_effects()))
    }

    /// Forget the settlements that the ledger has.
    ///
    /// # Errors
    /// As [`Organization::booked_through`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn booked_through(&self, organization: u32, seq: u64) -> Result<()> {
        self.with(organization, |organization| {
            organization.booked_through(seq)
        })
    }

    /// List the state of every limit of an organization, as JSON.
    ///
    /// # Errors
    /// `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn limit_states(&self, organization: u32, now: Now) -> Result<Vec<u8>> {
        self.with(organization, |organization| organization.limit_states(now))
    }

    /// List the state of every limit of one scope as JSON, at a cost that the others do not raise.
    ///
    /// # Errors
    /// `UnknownOrganization`, `OrganizationNotLoaded`, `InvalidArgument`.
    pub fn scope_states(&self, organization: u32, scope: Scope, now: Now) -> Result<Vec<u8>> {
        self.with(organization, |organization| {
            organization.scope_states(scope, now)
        })
    }

    /// Count the open reservations of an organization.
    ///
    /// # Errors
    /// `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn open_reservations(&self, organization: u32) -> Result<usize> {
        self.with(organization, |organization| {
            Ok(organization.open_reservations())
        })
    }

    /// Return the number of an organization.
    ///
    /// # Errors
    /// `UnknownOrganization`.
    pub fn organization_number(&self, id: Id) -> Result<u32> {
        let slots = self.slots.read().map_err(|_| Error::Poisoned)?;
        slots
            .numbers
            .get(&id)
            .copied()
            .ok_or(Error::UnknownOrganization)
    }

    /// Return the id of an organization.
    ///
    /// # Errors
    /// `UnknownOrganization`.
    pub fn organization_id(&self, number: u32) -> Result<Id> {
        Ok(self.slot(number)?.id)
    }

    fn slot(&self, number: u32) -> Result<Arc<Slot>> {
        self.slots.read().map_err(|_| Error::Poisoned)?.get(number)
    }

    /// Do something for a key as it is now: while its organization is locked it does not change.
    fn with_key<T>(
        &self,
        number: u32,
        act: impl FnOnce(&mut Organization, &Key, Path) -> Result<T>,
    ) -> Result<T> {
        let keys = self.keys.read().map_err(|_| Error::Poisoned)?;
        let key = keys.get(number)?;
        let slot = self.slot(key.organization)?;
        with(&slot, |organization| {
            act(organization, key, key.path(slot.id))
        })
    }

    fn with_both<T>(
        &self,
        number: u32,
        act: impl FnOnce(&mut Organization, &mut Board) -> Result<T>,
    ) -> Result<T> {
        self.with(number, |organization| {
            self.with_shared(|shared| act(organization, shared))
        })
    }

    fn with<T>(&self, number: u32, act: impl FnOnce(&mut Organization) -> Result<T>) -> Result<T> {
        with(&*self.slot(number)?, act)
    }
}
