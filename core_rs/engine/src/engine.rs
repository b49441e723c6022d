//! All organizations and keys of a process, each organization behind a lock of its own.
//!
//! This module makes decisions atomic and knows nothing of how they are made.
use crate::decision::{Decision, Refusal};
use crate::error::{Error, Result};
use crate::id::{Id, IdMap, ReservationId};
use crate::keys::{Digest, Key, KeyForm, KeyState, Keys};
use crate::limit::{Scope, ScopeKind};
use crate::organization::{Organization, Seed};
use crate::policy::{OrganizationState, Policy};
use crate::reservation::{Amounts, Path, Settlement};
use crate::sync::{Arc, Mutex, MutexGuard, RwLock};
use crate::time::Now;

/// Most organizations of one process.
pub const ORGANIZATIONS_MAX: usize = 1_000_000;

/// Name of a key, whom it acts for, and the policy that was in force.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Number of the key.
    pub key: u32,
    /// Number of its organization.
    pub organization: u32,
    /// The key.
    pub key_id: Id,
    /// Its organization.
    pub organization_id: Id,
    /// Its team.
    pub team_id: Option<Id>,
    /// Its owner.
    pub member_id: Option<Id>,
    /// The cost center its requests are charged to.
    pub cost_center_id: Option<Id>,
    /// State of the key: active or disabled.
    pub state: KeyState,
    /// State of the organization.
    pub organization_state: OrganizationState,
    /// Version of the policy.
    pub policy_version: std::sync::Arc<str>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Upper bounds of what it may cost and use.
    pub amounts: Amounts,
    /// Name of the model.
    pub model: &'a str,
    /// Name of the provider.
    pub provider: &'a str,
}

/// What all limits of a key's path stand at.
#[derive(Clone, Debug)]
pub struct KeyLimits {
    /// For whom the key acts.
    pub path: Path,
    /// The policy in force.
    pub policy_version: std::sync::Arc<str>,
    /// The states, narrowest scope first, as JSON.
    pub states_json: Vec<u8>,
}

/// One organization's place, before and after its policy is loaded.
#[derive(Debug)]
struct Slot {
    id: Id,
    organization: Mutex<Option<Organization>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Arc<Slot>>,
    numbers: IdMap<Id, u32>,
}

impl Slots {
    fn get(&self, number: u32) -> Result<Arc<Slot>> {
        let at = usize::try_from(number).map_err(|_| Error::UnknownOrganization)?;
        self.slots
            .get(at)
            .cloned()
            .ok_or(Error::UnknownOrganization)
    }

    /// Return the number of an organization, a new one if it has none.
    fn number(&mut self, id: Id) -> Result<u32> {
        if let Some(number) = self.numbers.get(&id) {
            return Ok(*number);
        }
        if self.slots.len() >= ORGANIZATIONS_MAX {
            return Err(Error::TooMany("organizations"));
        }
        let number =
            u32::try_from(self.slots.len()).map_err(|_| Error::TooMany("organizations"))?;
        self.slots.push(Arc::new(Slot {
            id,
            organization: Mutex::new(None),
        }));
        self.numbers.insert(id, number);
        Ok(number)
    }
}

/// The engine of a process; see the crate's documentation.
#[derive(Debug, Default)]
pub struct Engine {
    keys: RwLock<Keys>,
    slots: RwLock<Slots>,
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
            Some(organization) => organization.load(policy, &seeds, now)?,
            None => *guard = Some(Organization::new(policy, &seeds, now)?),
        }
        Ok(number)
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

    /// Return the kind of the first scope, from the organization down, that refuses a model.
    ///
    /// # Errors
    /// `UnknownKey`, `OrganizationNotLoaded`.
    pub fn model_refused_by(&self, key: u32, model: &str) -> Result<Option<ScopeKind>> {
        self.with_key(key, |organization, _, path| {
            Ok(organization.model_refused_by(&path, model))
        })
    }

    /// Reserve on every limit of a key's path, or refuse and leave no trace.
    ///
    /// # Errors
    /// `InvalidArgument`, `UnknownKey`, `OrganizationNotLoaded`, `DuplicateReservation`, `TooMany`,
    /// `UnbookedFull`, `Overflow`.
    pub fn admit(&self, key: u32, id: ReservationId, ask: Ask<'_>, now: Now) -> Result<Decision> {
        self.with_key(key, |organization, key, path| {
            if let Some(refusal) = refusal_by_key(key, path, organization, now) {
                return Ok(Decision::Refused(Box::new(refusal)));
            }
            organization.admit(id, path, ask.amounts, ask.model, ask.provider, now)
        })
    }

    /// Decide as [`Self::admit`] would at this instant, and reserve nothing.
    ///
    /// # Errors
    /// As [`Self::admit`], but for `DuplicateReservation`.
    pub fn preview(&self, key: u32, ask: Ask<'_>, now: Now) -> Result<Decision> {
        self.with_key(key, |organization, key, path| {
            if let Some(refusal) = refusal_by_key(key, path, organization, now) {
                return Ok(Decision::Refused(Box::new(refusal)));
            }
            organization.preview(path, ask.amounts, ask.model, ask.provider, now)
        })
    }

    /// Tell what every limit of a key's path stands at; those of others are not looked at.
    ///
    /// # Errors
    /// `UnknownKey`, `OrganizationNotLoaded`, `InvalidArgument`.
    pub fn key_limits(&self, key: u32, now: Now) -> Result<KeyLimits> {
        self.with_key(key, |organization, _, path| {
            Ok(KeyLimits {
                path,
                policy_version: std::sync::Arc::clone(organization.version()),
                states_json: organization.path_states(&path, now)?,
            })
        })
    }

    /// Add to what an open reservation holds; None if it is held.
    ///
    /// # Errors
    /// As [`Organization::extend`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn extend(
        &self,
        organization: u32,
        id: ReservationId,
        more: Amounts,
        now: Now,
    ) -> Result<Option<Refusal>> {
        self.with(organization, |organization| {
            organization.extend(id, more, now)
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
        so_far: Amounts,
        now: Now,
    ) -> Result<()> {
        self.with(organization, |organization| {
            organization.progress(id, so_far, now)
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
        actual: Amounts,
        now: Now,
    ) -> Result<Settlement> {
        self.with(organization, |organization| {
            organization.settle(id, actual, now)
        })
    }

    /// End a reservation as if it had never been; false if that was done before.
    ///
    /// # Errors
    /// As [`Organization::release`], and `UnknownOrganization`, `OrganizationNotLoaded`.
    pub fn release(&self, organization: u32, id: ReservationId, now: Now) -> Result<bool> {
        self.with(organization, |organization| organization.release(id, now))
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

    fn with<T>(&self, number: u32, act: impl FnOnce(&mut Organization) -> Result<T>) -> Result<T> {
        with(&*self.slot(number)?, act)
    }
}

fn lock(slot: &Slot) -> Result<MutexGuard<'_, Option<Organization>>> {
    slot.organization.lock().map_err(|_| Error::Poisoned)
}

/// Do something to an organization under its lock.
fn with<T>(slot: &Slot, act: impl FnOnce(&mut Organization) -> Result<T>) -> Result<T> {
    let mut guard = lock(slot)?;
    act(guard.as_mut().ok_or(Error::OrganizationNotLoaded)?)
}

fn refusal_by_key(key: &Key, path: Path, organization: &Organization, now: Now) -> Option<Refusal> {
    let scope = Scope {
        kind: ScopeKind::Key,
        id: key.id,
    };
    let version = std::sync::Arc::clone(organization.version());
    if !key.is_valid(now.wall_ns) {
        Some(Refusal::by_state(
            "invalid_api_key",
            401,
            scope,
            path,
            version,
        ))
    } else if key.state == KeyState::Disabled {
        Some(Refusal::by_state("key_disabled", 403, scope, path, version))
    } else {
        None
    }
}
