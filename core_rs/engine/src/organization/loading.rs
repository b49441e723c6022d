//! Putting a policy in force: limits are swapped as a whole, counters stay, new ones are seeded.
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BoundLimit, Organization, ScopeState};
use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::{IdMap, IdSet};
use crate::limit::{Limit, Place, Resource, Scope};
use crate::policy::{PlaceForm, Policy, WindowForm};
use crate::time::Now;
use crate::window::Window;

/// Most limits of one scope, since every request of it asks them all.
pub const SCOPE_LIMITS_MAX: usize = 1_000;
/// Most counters of one scope that no limit reads; older ones are dropped and seeded when needed.
pub const SCOPE_IDLE_COUNTERS_MAX: usize = 32;
/// Most seeds of one load.
pub const SEEDS_MAX: usize = 400_000;

/// Names a counter that is needed, and the time it has to know about.
#[derive(Debug, Serialize)]
pub(super) struct Spec<'a> {
    scope: Scope,
    #[serde(rename = "where")]
    place: Option<&'a Place>,
    resource: Resource,
    window: WindowForm,
    starts_at_ns: u64,
    ends_at_ns: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedForm {
    scope: Scope,
    #[serde(rename = "where")]
    place: Option<PlaceForm>,
    resource: Resource,
    window: WindowForm,
    #[serde(rename = "starts_at_ns")]
    _starts_at_ns: u64,
    #[serde(rename = "ends_at_ns")]
    _ends_at_ns: u64,
    entries: Vec<(u64, i64)>,
}

/// What the ledger knows of one counter.
#[derive(Debug)]
pub struct Seed {
    scope: Scope,
    place: Option<Place>,
    resource: Resource,
    window: Window,
    /// Instants on the wall clock, and amounts.
    entries: Vec<(u64, i64)>,
}

impl Seed {
    /// Read a list of seeds.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn list_from_json(json: &[u8]) -> Result<Vec<Self>> {
        let forms: Vec<SeedForm> =
            serde_json::from_slice(json).map_err(|fault| Error::InvalidJson(fault.to_string()))?;
        if forms.len() > SEEDS_MAX {
            return Err(Error::TooMany("seeds"));
        }
        forms.into_iter().map(SeedForm::check).collect()
    }
}

impl SeedForm {
    fn check(self) -> Result<Seed> {
        if self.entries.iter().any(|(_, amount)| *amount < 0) {
            return Err(Error::InvalidArgument("a seed is negative"));
        }
        Ok(Seed {
            scope: self.scope,
            place: self.place.map(PlaceForm::check).transpose()?.flatten(),
            resource: self.resource,
            window: self.window.check()?,
            entries: self.entries,
        })
    }
}

/// What one scope becomes: its limits, and the counters to append to those it has.
#[derive(Default)]
struct Draft {
    limits: Vec<BoundLimit>,
    fresh: Vec<Counter>,
}

type Drafts = IdMap<Scope, Draft>;

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
            index: IdMap::default(),
            scopes: Vec::new(),
            reservations: IdMap::default(),
            unbooked: VecDeque::new(),
            settled: IdMap::default(),
            released: IdSet::default(),
            released_order: VecDeque::new(),
            seq_last: 0,
        };
        organization.load(policy, seeds, now)?;
        Ok(organization)
    }

    /// Put a policy in force; counters and open reservations stay, new counters start from seeds.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`, `Overflow`; the old policy stays in force then.
    pub fn load(&mut self, policy: Policy, seeds: &[Seed], now: Now) -> Result<()> {
        if policy.organization_id != self.id {
            return Err(Error::InvalidPolicy(
                "the policy is another organization's".to_owned(),
            ));
        }
        let caller = now;
        let now = self.tick(caller);
        let mut drafts = self.draft(policy.limits, now)?;
        seed_from_ledger(&mut drafts, seeds, now.shown_by(caller))?;
        self.seed_from_memory(&mut drafts, now)?;
        self.clear_limits();
        for (scope, draft) in drafts {
            self.enforce(scope, draft);
        }
        for (scope, allowed) in policy.models {
            self.scope_mut(scope).allowed = Some(allowed);
        }
        self.scopes.iter_mut().for_each(ScopeState::drop_idle);
        self.state = policy.state;
        self.version = Arc::from(policy.version);
        Ok(())
    }

    /// List the counters that a policy needs and that are not kept, as JSON.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`.
    pub fn missing_counters(&self, policy: Policy, now: Now) -> Result<Vec<u8>> {
        let caller = now;
        let now = self.clock.latest(caller);
        let drafts = self.draft(policy.limits, now)?;
        specs_json(&drafts, now.shown_by(caller))
    }

    /// List all counters that a first policy needs, as JSON.
    ///
    /// # Errors
    /// `InvalidPolicy`, `TooMany`.
    pub fn all_counters(policy: Policy, now: Now) -> Result<Vec<u8>> {
        let nothing = Policy {
            limits: Vec::new(),
            models: policy.models.clone(),
            ..policy.clone()
        };
        Self::new(nothing, &[], now)?.missing_counters(policy, now)
    }

    /// Bind each limit to a counter, existing or fresh.
    fn draft(&self, limits: Vec<Limit>, now: Now) -> Result<Drafts> {
        let mut drafts = Drafts::default();
        for limit in limits {
            let kept = self
                .index
                .get(&limit.scope)
                .and_then(|at| self.scopes.get(*at));
            let kept = kept.map_or(&[][..], |state| state.counters.as_slice());
            drafts
                .entry(limit.scope)
                .or_default()
                .bind(limit, kept, now)?;
        }
        Ok(drafts)
    }

    /// Add to fresh counters what the ledger does not have: late settlements, open reservations.
    fn seed_from_memory(&self, drafts: &mut Drafts, now: Now) -> Result<()> {
        if drafts.values().all(|draft| draft.fresh.is_empty()) {
            return Ok(());
        }
        for late in &self.unbooked {
            let (facts, booked) = (&late.facts, late.settlement.booked);
            for scope in facts.path.scopes() {
                for counter in fresh(drafts, scope, &facts.model, &facts.provider) {
                    counter.book_past(booked.of(counter.resource), facts.admitted, late.settled)?;
                }
            }
        }
        for open in self.reservations.values() {
            for scope in open.facts.path.scopes() {
                for counter in fresh(drafts, scope, &open.facts.model, &open.facts.provider) {
                    counter.open(open.part(counter.resource), open.facts.admitted, now)?;
                }
            }
        }
        Ok(())
    }

    fn clear_limits(&mut self) {
        for state in &mut self.scopes {
            state.limits = Vec::new();
            state.allowed = None;
        }
    }

    fn enforce(&mut self, scope: Scope, draft: Draft) {
        let state = self.scope_mut(scope);
        state.counters.extend(draft.fresh);
        state.limits = draft.limits;
    }

    fn scope_mut(&mut self, scope: Scope) -> &mut ScopeState {
        let next = self.scopes.len();
        let at = *self.index.entry(scope).or_insert(next);
        if at == next {
            self.scopes.push(ScopeState {
                scope,
                limits: Vec::new(),
                counters: Vec::new(),
                allowed: None,
            });
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "the index only holds places of `scopes`"
        )]
        &mut self.scopes[at]
    }
}

impl Draft {
    fn bind(&mut self, limit: Limit, kept: &[Counter], now: Now) -> Result<()> {
        if self.limits.len() >= SCOPE_LIMITS_MAX {
            return Err(Error::TooMany("limits of one scope"));
        }
        let serves = |counter: &Counter| counter.serves(&limit);
        let found = kept.iter().chain(&self.fresh).position(serves);
        if found.is_none() {
            let (place, window) = (limit.place.clone(), limit.window.clone());
            self.fresh
                .push(Counter::new(place, limit.resource, window, now)?);
        }
        let newest = kept
            .len()
            .saturating_add(self.fresh.len())
            .saturating_sub(1);
        self.limits.push(BoundLimit {
            limit,
            counter: found.unwrap_or(newest),
        });
        Ok(())
    }
}

impl ScopeState {
    /// Drop the oldest counters that no limit reads, down to the number kept.
    fn drop_idle(&mut self) {
        let mut is_read = vec![false; self.counters.len()];
        for bound in &self.limits {
            is_read
                .iter_mut()
                .skip(bound.counter)
                .take(1)
                .for_each(|mark| *mark = true);
        }
        let idle = is_read.iter().filter(|mark| !**mark).count();
        for _ in SCOPE_IDLE_COUNTERS_MAX..idle {
            let Some(oldest) = is_read.iter().position(|mark| !*mark) else {
                return;
            };
            is_read.remove(oldest);
            self.counters.remove(oldest);
            for bound in self
                .limits
                .iter_mut()
                .filter(|bound| bound.counter > oldest)
            {
                bound.counter = bound.counter.saturating_sub(1);
            }
        }
    }
}

fn fresh<'a>(
    drafts: &'a mut Drafts,
    scope: Scope,
    model: &'a str,
    provider: &'a str,
) -> impl Iterator<Item = &'a mut Counter> {
    let counters = drafts
        .get_mut(&scope)
        .into_iter()
        .flat_map(|draft| &mut draft.fresh);
    counters.filter(move |counter| counter.matches(model, provider))
}

fn seed_from_ledger(drafts: &mut Drafts, seeds: &[Seed], now: Now) -> Result<()> {
    for seed in seeds {
        let Some(draft) = drafts.get_mut(&seed.scope) else {
            continue;
        };
        let is_same = |counter: &&mut Counter| {
            counter.is_of(seed.place.as_ref(), seed.resource, &seed.window)
        };
        for counter in draft.fresh.iter_mut().filter(is_same) {
            seed.entries
                .iter()
                .try_for_each(|(wall_ns, amount)| counter.seed(*amount, *wall_ns, now))?;
        }
    }
    Ok(())
}

fn specs_json(drafts: &Drafts, now: Now) -> Result<Vec<u8>> {
    let mut specs = Vec::new();
    for (scope, draft) in drafts {
        for counter in &draft.fresh {
            let bounds = counter.bounds(now)?;
            specs.push(Spec {
                scope: *scope,
                place: counter.place.as_ref(),
                resource: counter.resource,
                window: (&counter.window).into(),
                starts_at_ns: bounds.starts_at_ns,
                ends_at_ns: bounds.ends_at_ns,
            });
        }
    }
    specs.sort_by_key(|spec| (spec.scope, spec.place, spec.resource));
    serde_json::to_vec(&specs).map_err(|fault| Error::InvalidJson(fault.to_string()))
}
