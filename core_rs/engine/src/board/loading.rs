//! Putting limits in force on a board: they are swapped as a whole, counters stay or are seeded.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Board, BoundLimit, LABELS_MAX, ScopeState};
use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::id::{Id, IdMap};
use crate::limit::{Limit, Place, Resource, Scope, ScopeForm, ScopeKind};
use crate::policy::{PlaceForm, WindowForm, resource_in};
use crate::time::Now;
use crate::window::Window;

/// Most limits of one scope, since every request of it asks them all.
pub const SCOPE_LIMITS_MAX: usize = 1_000;
/// Most counters of one scope that no limit reads; older ones are dropped and seeded when needed.
pub const SCOPE_IDLE_COUNTERS_MAX: usize = 32;
/// Most seeds of one load.
pub const SEEDS_MAX: usize = 400_000;

type Entries = Vec<(u64, i64)>;

/// Names a counter that is needed, and the time it has to know about.
#[derive(Debug, Serialize)]
struct Spec<'a> {
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
    scope: ScopeForm,
    #[serde(rename = "where")]
    place: Option<PlaceForm>,
    resource: Resource,
    window: WindowForm,
    #[serde(rename = "starts_at_ns")]
    _starts_at_ns: u64,
    #[serde(rename = "ends_at_ns")]
    _ends_at_ns: u64,
    #[serde(default)]
    entries: Entries,
    #[serde(default)]
    labels: Vec<LabelForm>,
    #[serde(default)]
    rest: Entries,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelForm {
    label: String,
    entries: Entries,
}

/// What the ledger knows of one counter, or of one counter for each label.
#[derive(Debug)]
pub struct Seed {
    scope: Scope,
    place: Option<Place>,
    resource: Resource,
    window: Window,
    /// Instants on the wall clock, and amounts.
    entries: Entries,
    labels: Vec<(Id, Entries)>,
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

    fn is_for(&self, counter: &Counter) -> bool {
        counter.is_of(self.place.as_ref(), self.resource, &self.window)
    }
}

impl SeedForm {
    fn check(self) -> Result<Seed> {
        let scope = self
            .scope
            .check()
            .ok_or_else(|| Error::InvalidPolicy("a seed has no scope".to_owned()))?;
        let labels = self.labels.iter().flat_map(|label| &label.entries);
        let mut amounts = self.entries.iter().chain(&self.rest).chain(labels);
        if amounts.any(|(_, amount)| *amount < 0) {
            return Err(Error::InvalidArgument("a seed is negative"));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(Error::TooMany("labels of a seed"));
        }
        let named =
            |label: LabelForm| (Id::of_label(scope.kind.name(), &label.label), label.entries);
        Ok(Seed {
            scope,
            place: self.place.map(PlaceForm::check).transpose()?.flatten(),
            resource: resource_in(self.resource, scope),
            window: self.window.check()?,
            entries: if scope.is_template() {
                self.rest
            } else {
                self.entries
            },
            labels: self.labels.into_iter().map(named).collect(),
        })
    }
}

/// What one scope becomes: its limits, and the counters to append to those it has.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    limits: Vec<BoundLimit>,
    fresh: Vec<Counter>,
    /// Whether it has limits of its own, or is a template, so that the ledger is asked about it.
    is_asked: bool,
}

/// What a board becomes.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    by_scope: IdMap<Scope, Draft>,
    templates: BTreeMap<ScopeKind, Vec<Arc<Limit>>>,
    labels: usize,
}

impl Board {
    /// Bind each limit to a counter, existing or fresh; for labels, the templates too.
    pub(crate) fn draft(&self, limits: Vec<Limit>, now: Now) -> Result<Drafts> {
        let mut by_scope: IdMap<Scope, Vec<Arc<Limit>>> = IdMap::default();
        for limit in limits {
            let own = by_scope.entry(limit.scope).or_default();
            own.push(Arc::new(limit));
        }
        let mut drafts = Drafts {
            labels: self.labels,
            ..Drafts::default()
        };
        for (scope, own) in &by_scope {
            if scope.is_template() {
                drafts.templates.insert(scope.kind, own.clone());
            }
        }
        for (scope, own) in by_scope {
            let draft = drafts.add(self, scope, &own, now)?;
            draft.is_asked = true;
        }
        self.draft_labels(&mut drafts, now)?;
        Ok(drafts)
    }

    /// Give the labels that are counted already the templates that are in force now.
    fn draft_labels(&self, drafts: &mut Drafts, now: Now) -> Result<()> {
        for state in &self.scopes {
            let scope = state.scope;
            let is_label = scope.kind.is_dynamic() && !scope.is_template();
            if is_label && !drafts.by_scope.contains_key(&scope) {
                drafts.add(self, scope, &[], now)?;
            }
        }
        Ok(())
    }

    /// Put drafts in force.
    pub(crate) fn enforce(&mut self, drafts: Drafts) {
        let mut drafts = drafts.by_scope;
        for state in &mut self.scopes {
            let draft = drafts.remove(&state.scope).unwrap_or_default();
            state.take(draft);
        }
        for (scope, draft) in drafts {
            let mut state = ScopeState::new(scope);
            state.take(draft);
            self.put(state);
        }
        self.scopes.iter_mut().for_each(ScopeState::drop_idle);
    }
}

impl Drafts {
    pub(crate) fn has_fresh(&self) -> bool {
        self.by_scope.values().any(|draft| !draft.fresh.is_empty())
    }

    fn add(
        &mut self,
        board: &Board,
        scope: Scope,
        own: &[Arc<Limit>],
        now: Now,
    ) -> Result<&mut Draft> {
        let kept = board
            .get(scope)
            .map_or(&[][..], |state| state.counters.as_slice());
        let mut draft = Draft::default();
        for limit in own {
            draft.bind(limit, kept, now)?;
        }
        if !scope.is_template() {
            for template in self.templates.get(&scope.kind).into_iter().flatten() {
                if !own.iter().any(|limit| limit.replaces(template)) {
                    draft.bind(template, kept, now)?;
                }
            }
            if scope.kind.is_dynamic() && board.place(scope).is_none() {
                self.labels = self.labels.saturating_add(1);
            }
        }
        Ok(self.by_scope.entry(scope).insert_entry(draft).into_mut())
    }

    /// Start fresh counters from what the ledger knows.
    pub(crate) fn seed(
        &mut self,
        board: &Board,
        seeds: &[Seed],
        now: Now,
        shown: Now,
    ) -> Result<()> {
        for seed in seeds {
            self.seed_scope(seed.scope, seed, &seed.entries, shown)?;
            for (id, entries) in &seed.labels {
                let scope = Scope {
                    kind: seed.scope.kind,
                    id: *id,
                };
                let scope = self.scope_for(board, scope, now)?;
                let is_asked = self
                    .by_scope
                    .get(&scope)
                    .is_some_and(|draft| draft.is_asked && !scope.is_template());
                if !is_asked {
                    self.seed_scope(scope, seed, entries, shown)?;
                }
            }
        }
        Ok(())
    }

    fn seed_scope(
        &mut self,
        scope: Scope,
        seed: &Seed,
        entries: &Entries,
        shown: Now,
    ) -> Result<()> {
        let Some(draft) = self.by_scope.get_mut(&scope) else {
            return Ok(());
        };
        for counter in draft
            .fresh
            .iter_mut()
            .filter(|counter| seed.is_for(counter))
        {
            entries
                .iter()
                .try_for_each(|(wall_ns, amount)| counter.seed(*amount, *wall_ns, shown))?;
        }
        Ok(())
    }

    /// Return the scope that counts a label: itself, or its template when there is no room.
    pub(crate) fn scope_for(&mut self, board: &Board, scope: Scope, now: Now) -> Result<Scope> {
        let is_label = scope.kind.is_dynamic() && !scope.is_template();
        if !is_label
            || self.by_scope.contains_key(&scope)
            || !self.templates.contains_key(&scope.kind)
        {
            return Ok(scope);
        }
        if self.labels >= LABELS_MAX {
            return Ok(Scope::each(scope.kind));
        }
        self.add(board, scope, &[], now)?;
        Ok(scope)
    }

    /// List the fresh counters of a scope.
    pub(crate) fn fresh(&mut self, scope: Scope) -> impl Iterator<Item = &mut Counter> {
        let draft = self.by_scope.get_mut(&scope);
        draft.into_iter().flat_map(|draft| &mut draft.fresh)
    }
}

impl Draft {
    fn bind(&mut self, limit: &Arc<Limit>, kept: &[Counter], now: Now) -> Result<()> {
        if self.limits.len() >= SCOPE_LIMITS_MAX {
            return Err(Error::TooMany("limits of one scope"));
        }
        let serves = |counter: &Counter| counter.serves(limit);
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
        self.limits
            .push(BoundLimit::new(Arc::clone(limit), found.unwrap_or(newest)));
        Ok(())
    }
}

impl ScopeState {
    /// Take new limits; what was told of a limit before is not told again.
    fn take(&mut self, draft: Draft) {
        self.counters.extend(draft.fresh);
        let before = std::mem::replace(&mut self.limits, draft.limits);
        for bound in &mut self.limits {
            let is_same = |old: &&BoundLimit| {
                old.limit.id == bound.limit.id && old.limit.window == bound.limit.window
            };
            if let Some(old) = before.iter().find(is_same) {
                *bound = BoundLimit {
                    limit: Arc::clone(&bound.limit),
                    counter: bound.counter,
                    ..*old
                };
            }
        }
    }

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

/// Write as JSON which counters the ledger is asked about.
pub(crate) fn specs_json(drafts: &Drafts, now: Now) -> Result<Vec<u8>> {
    let mut specs = Vec::new();
    for (scope, draft) in drafts.by_scope.iter().filter(|(_, draft)| draft.is_asked) {
        for counter in draft.fresh.iter().filter(|counter| counter.is_seeded()) {
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
