//! The places of organizations, each behind its lock.
use super::ORGANIZATIONS_MAX;
use crate::error::{Error, Result};
use crate::id::{Id, IdMap};
use crate::organization::Organization;
use crate::sync::{Arc, Mutex, MutexGuard};

/// One organization's place, before and after its policy is loaded.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: Id,
    pub(super) organization: Mutex<Option<Organization>>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) slots: Vec<Arc<Slot>>,
    pub(super) numbers: IdMap<Id, u32>,
}

impl Slots {
    pub(super) fn get(&self, number: u32) -> Result<Arc<Slot>> {
        let at = usize::try_from(number).map_err(|_| Error::UnknownOrganization)?;
        self.slots
            .get(at)
            .cloned()
            .ok_or(Error::UnknownOrganization)
    }

    /// Return the number of an organization, a new one if it has none.
    pub(super) fn number(&mut self, id: Id) -> Result<u32> {
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

pub(super) fn lock(slot: &Slot) -> Result<MutexGuard<'_, Option<Organization>>> {
    slot.organization.lock().map_err(|_| Error::Poisoned)
}

/// Do something to an organization under its lock.
pub(super) fn with<T>(slot: &Slot, act: impl FnOnce(&mut Organization) -> Result<T>) -> Result<T> {
    let mut guard = lock(slot)?;
    act(guard.as_mut().ok_or(Error::OrganizationNotLoaded)?)
}
