//! Putting a policy in force: limits are swapped as a whole, counters stay, new ones are seeded.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::line::Line;
use super::{Organization, all_shared_scopes};
use crate::board::{Board, Drafts, Seed, specs_json};
use crate::error::{Error, Result};
use crate::estimate::{Estimator, Foresight};
use crate::id::{IdMap, IdSet};
use crate::limit::Scope;
use crate::planted::{self, Fault};
use crate::policy::{Policy, SharedPolicy};
use crate::time::Now;

impl Organization {
    /// Make the organization of a first policy.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn new(policy: Policy, seeds: &[Seed], now: Now) -> Result<Self> {
        let mut organization = Self {
            id: policy.organization_id,
            state: policy.state,
            version: Arc::from(""),
            clock: now,
            board: Board::default(),
            rules: policy.rules.clone(),
            charging: policy.charging.clone(),
            estimator: Estimator::default(),
            foresight: Foresight::default(),
            reservations: IdMap::default(),
            admissions: 0,
            streams: BTreeMap::new(),
            pending: BTreeMap::new(),
            cut: IdSet::default(),
            line: Line::default(),
            open_breakers: BTreeSet::new(),
            effects: Vec::new(),
            unbooked: VecDeque::new(),
            settled: IdMap::default(),
            released: IdSet::default(),
            released_order: VecDeque::new(),
            seq_last: 0,
        };
        organization.load(&mut Board::default(), policy, seeds, now)?;
        Ok(organization)
    }

    /// Put a policy in force; counters and open reservations stay, new counters start from seeds.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`, `Overflow`; the old policy stays in force then.
    pub fn load(
        &mut self,
        shared: &mut Board,
        policy: Policy,
        seeds: &[Seed],
        caller: Now,
    ) -> Result<()> {
        if policy.organization_id != self.id {
            return Err(Error::InvalidPolicy(
                "the policy is another organization's".to_owned(),
            ));
        }
        if planted::is(Fault::EditForgets) {
            self.board = Board::default();
        }
        let now = self.tick(shared, caller);
        let mut drafts = self.board.draft(policy.limits, now)?;
        drafts.seed(&self.board, seeds, now, now.shown_by(caller))?;
        let surplus = self.seed_from_memory(&mut drafts, now)?;
        self.board.enforce(drafts);
        for (reservation, scope) in surplus {
            if let Some(reservation) = self.reservations.get_mut(&reservation) {
                reservation.facts.path.set_surplus(scope);
            }
        }
        self.state = policy.state;
        self.version = Arc::from(policy.version);
        self.rules = policy.rules;
        self.charging = policy.charging;
        self.watch_all_breakers(now)?;
        // A cap that was raised, or a limit that is gone, lets pass what waited for it.
        self.call_when_needed(shared, caller);
        Ok(())
    }

    /// List the counters that a policy needs and that are not kept, as JSON.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`.
    pub fn missing_counters(&self, policy: Policy, caller: Now) -> Result<Vec<u8>> {
        let now = self.clock.latest(caller);
        let drafts = self.board.draft(policy.limits, now)?;
        specs_json(&drafts, now.shown_by(caller))
    }

    /// List all counters that a first policy needs, as JSON.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`.
    pub fn all_counters(policy: Policy, now: Now) -> Result<Vec<u8>> {
        specs_json(&Board::default().draft(policy.limits, now)?, now)
    }

    /// Add to fresh counters what the ledger does not have: late settlements, open reservations.
    ///
    /// Returns the open reservations whose labels are counted with those that have no room.
    fn seed_from_memory(
        &self,
        drafts: &mut Drafts,
        now: Now,
    ) -> Result<Vec<(crate::id::ReservationId, Scope)>> {
        let mut surplus = Vec::new();
        if !drafts.has_fresh() {
            return Ok(surplus);
        }
        for late in &self.unbooked {
            let (facts, booked) = (&late.facts, late.settlement.booked);
            for scope in facts.path.scopes() {
                let scope = drafts.scope_for(&self.board, scope, now)?;
                for counter in drafts.fresh(scope).filter(|it| it.matches(&facts.subject)) {
                    counter.book_past(booked.of(counter.resource), facts.admitted, late.settled)?;
                }
            }
        }
        for (id, open) in &self.reservations {
            let facts = &open.facts;
            for named in facts.path.scopes() {
                let scope = drafts.scope_for(&self.board, named, now)?;
                if scope != named {
                    surplus.push((*id, named));
                }
                for counter in drafts.fresh(scope).filter(|it| it.matches(&facts.subject)) {
                    counter.open(open.part(counter.resource), facts.admitted, now)?;
                }
            }
        }
        Ok(surplus)
    }

    /// Add to fresh counters of the shared board what this organization has and the ledger has not.
    fn add_to_shared(&self, drafts: &mut Drafts, now: Now) -> Result<()> {
        for late in &self.unbooked {
            let (facts, booked) = (&late.facts, late.settlement.booked);
            for scope in all_shared_scopes(&facts.subject) {
                for counter in drafts.fresh(scope).filter(|it| it.matches(&facts.subject)) {
                    counter.book_past(booked.of(counter.resource), facts.admitted, late.settled)?;
                }
            }
        }
        for open in self.reservations.values() {
            let facts = &open.facts;
            for scope in all_shared_scopes(&facts.subject) {
                for counter in drafts.fresh(scope).filter(|it| it.matches(&facts.subject)) {
                    counter.open(open.part(counter.resource), facts.admitted, now)?;
                }
            }
        }
        Ok(())
    }
}

/// Put the limits that all organizations share in force.
///
/// # Errors
/// `InvalidPolicy`, `TooMany`, `Overflow`; the old ones stay in force then.
pub(crate) fn load_shared<'a>(
    shared: &mut Board,
    policy: SharedPolicy,
    seeds: &[Seed],
    organizations: impl Iterator<Item = &'a Organization>,
    now: Now,
) -> Result<()> {
    let mut drafts = shared.draft(policy.limits, now)?;
    drafts.seed(shared, seeds, now, now)?;
    for organization in organizations {
        organization.add_to_shared(&mut drafts, now)?;
    }
    shared.enforce(drafts);
    Ok(())
}

/// List the counters that shared limits need and that are not kept, as JSON.
///
/// # Errors
/// `InvalidPolicy`, `TooMany`.
pub(crate) fn missing_shared(shared: &Board, policy: SharedPolicy, now: Now) -> Result<Vec<u8>> {
    specs_json(&shared.draft(policy.limits, now)?, now)
}
