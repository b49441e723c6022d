//! A reservation: who asked for what, what it holds, and how it ended.
use std::sync::Arc;

use crate::charging::Tariff;
use crate::counter::Held;
use crate::error::Result;
use crate::id::{Id, ReservationId};
use crate::limit::{Resource, Scope, ScopeKind, Subject};
use crate::money;
use crate::time::Now;

/// Most pools of one key.
pub const POOLS_MAX: usize = 8;

/// For whom a request acts: its scopes and its cost center; nil where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) key: Id,
    pub(crate) member: Id,
    pub(crate) team: Id,
    pub(crate) organization: Id,
    pub(crate) member_in_team: Id,
    pub(crate) pools: Option<Arc<[Id]>>,
    cost_center: Id,
    /// Session, feature, agent, end user: whom the request names itself.
    labels: [Label; 4],
}

/// One of the labels of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Label {
    id: Id,
    /// Whether it is counted with all labels for which there is no room.
    is_surplus: bool,
}

impl Label {
    /// Return the id that counts it, nil for the template; None without a label.
    fn scope_id(self) -> Option<Id> {
        let id = if self.is_surplus { Id::NIL } else { self.id };
        (!self.id.is_nil()).then_some(id)
    }
}

const LABEL_KINDS: [ScopeKind; 4] = [
    ScopeKind::Session,
    ScopeKind::Feature,
    ScopeKind::Agent,
    ScopeKind::EndUser,
];

impl Path {
    /// Name the scopes of a key.
    pub fn new(key: Id, member: Option<Id>, team: Option<Id>, organization: Id) -> Self {
        Self {
            key,
            member: member.unwrap_or(Id::NIL),
            team: team.unwrap_or(Id::NIL),
            organization,
            member_in_team: Id::NIL,
            pools: None,
            cost_center: Id::NIL,
            labels: [Label::default(); 4],
        }
    }

    /// Name the cost center too, which has no limits: it is only recorded.
    #[must_use]
    pub fn charged_to(self, cost_center: Option<Id>) -> Self {
        Self {
            cost_center: cost_center.unwrap_or(Id::NIL),
            ..self
        }
    }

    /// Name the pools that a key draws on, and the scope of its member's work for its team.
    #[must_use]
    pub fn drawing_on(self, pools: Option<Arc<[Id]>>, member_in_team: Option<Id>) -> Self {
        Self {
            pools,
            member_in_team: member_in_team.unwrap_or(Id::NIL),
            ..self
        }
    }

    /// Name what a request says it is for.
    #[must_use]
    pub fn labelled(
        mut self,
        session: Option<&str>,
        feature: Option<&str>,
        agent: Option<&str>,
        end_user: Option<&str>,
    ) -> Self {
        let texts = [session, feature, agent, end_user];
        for ((to, kind), text) in self.labels.iter_mut().zip(LABEL_KINDS).zip(texts) {
            if let Some(text) = text {
                to.id = Id::of_label(kind.name(), text);
            }
        }
        self
    }

    /// Return the owner.
    pub fn member(&self) -> Option<Id> {
        self.member.some()
    }

    /// Return the team.
    pub fn team(&self) -> Option<Id> {
        self.team.some()
    }

    /// Return the cost center.
    pub fn cost_center(&self) -> Option<Id> {
        self.cost_center.some()
    }

    /// List the pools.
    pub fn pools(&self) -> &[Id] {
        self.pools.as_deref().unwrap_or_default()
    }

    /// Return the id of the feature, nil without.
    pub(crate) fn feature(&self) -> Id {
        self.labels.get(1).map_or(Id::NIL, |label| label.id)
    }

    /// Count a label with those for which there is no room.
    pub(crate) fn set_surplus(&mut self, scope: Scope) {
        for (label, kind) in self.labels.iter_mut().zip(LABEL_KINDS) {
            if kind == scope.kind && label.id == scope.id {
                label.is_surplus = true;
            }
        }
    }

    /// Do something with each scope within the organization, narrowest first.
    ///
    /// The same as [`Self::scopes`], without its chain of iterators: each decision does it.
    pub(crate) fn each_scope(&self, mut act: impl FnMut(Scope) -> Result<()>) -> Result<()> {
        let [session, feature, agent, end_user] = self.labels.map(Label::scope_id);
        let narrow = [
            (ScopeKind::Key, self.key.some()),
            (ScopeKind::Session, session),
            (ScopeKind::MemberInTeam, self.member_in_team.some()),
            (ScopeKind::Member, self.member.some()),
        ];
        let wide = [
            (ScopeKind::Feature, feature),
            (ScopeKind::Agent, agent),
            (ScopeKind::EndUser, end_user),
            (ScopeKind::Team, self.team.some()),
            (ScopeKind::Organization, self.organization.some()),
        ];
        for (kind, id) in narrow {
            if let Some(id) = id {
                act(Scope { kind, id })?;
            }
        }
        for id in self.pools() {
            act(Scope {
                kind: ScopeKind::Pool,
                id: *id,
            })?;
        }
        for (kind, id) in wide {
            if let Some(id) = id {
                act(Scope { kind, id })?;
            }
        }
        Ok(())
    }

    /// List the scopes within the organization, narrowest first.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        let label = |at: usize| {
            let (label, kind) = (self.labels.get(at)?, LABEL_KINDS.get(at)?);
            label.scope_id().map(|id| Scope { kind: *kind, id })
        };
        let own = |kind: ScopeKind, id: Id| (!id.is_nil()).then_some(Scope { kind, id });
        let pools = self.pools().iter().map(|id| Scope {
            kind: ScopeKind::Pool,
            id: *id,
        });
        [
            own(ScopeKind::Key, self.key),
            label(0),
            own(ScopeKind::MemberInTeam, self.member_in_team),
            own(ScopeKind::Member, self.member),
        ]
        .into_iter()
        .flatten()
        .chain(pools)
        .chain(
            [
                label(1),
                label(2),
                label(3),
                own(ScopeKind::Team, self.team),
                own(ScopeKind::Organization, self.organization),
            ]
            .into_iter()
            .flatten(),
        )
    }

    /// List the scopes that may have rules, the widest first.
    pub(crate) fn ruling(&self) -> impl Iterator<Item = Scope> + use<> {
        [
            (ScopeKind::Organization, self.organization),
            (ScopeKind::Team, self.team),
            (ScopeKind::Key, self.key),
        ]
        .into_iter()
        .filter(|(_, id)| !id.is_nil())
        .map(|(kind, id)| Scope { kind, id })
    }
}

/// What decides which counters a request belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) path: Path,
    pub(crate) subject: Arc<Subject>,
    pub(crate) admitted: Now,
}

/// Money and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Nano units of the organization's currency that it is charged.
    pub spend_nanos: i64,
    /// Nano units of the price sheet's currency that the provider bills.
    pub cost_nanos: i64,
    /// Tokens.
    pub tokens: i64,
}

impl Amounts {
    /// Return how much of the amounts is more than was held, ≥ 0.
    pub(crate) fn beyond(&self, held: Self) -> Self {
        Self {
            spend_nanos: self.spend_nanos.saturating_sub(held.spend_nanos).max(0),
            cost_nanos: self.cost_nanos.saturating_sub(held.cost_nanos).max(0),
            tokens: self.tokens.saturating_sub(held.tokens).max(0),
        }
    }

    /// Return the sums.
    pub(crate) fn plus(&self, more: Self) -> Self {
        Self {
            spend_nanos: self.spend_nanos.saturating_add(more.spend_nanos),
            cost_nanos: self.cost_nanos.saturating_add(more.cost_nanos),
            tokens: self.tokens.saturating_add(more.tokens),
        }
    }

    /// Tell whether a sum can grow by any of the amounts, or by a request, without overflow.
    pub(crate) fn fits_on(&self, sum: i64) -> bool {
        let most = self
            .spend_nanos
            .max(self.cost_nanos)
            .max(self.tokens)
            .max(1);
        sum.checked_add(most).is_some()
    }

    /// Return the larger of each.
    pub(crate) fn max(&self, other: Self) -> Self {
        Self {
            spend_nanos: self.spend_nanos.max(other.spend_nanos),
            cost_nanos: self.cost_nanos.max(other.cost_nanos),
            tokens: self.tokens.max(other.tokens),
        }
    }

    /// Return the amount of a resource; a request counts as one.
    pub(crate) fn of(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Spend => self.spend_nanos,
            Resource::Cost => self.cost_nanos,
            Resource::Tokens => self.tokens,
            Resource::Requests | Resource::Concurrency => 1,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        money::amount(self.spend_nanos)?;
        money::amount(self.cost_nanos)?;
        money::amount(self.tokens)?;
        Ok(())
    }
}

/// What a reservation holds of one resource, and how much of that is used already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) held: Held,
    pub(crate) accrued: i64,
}

/// How far a stream may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Output tokens that may be relayed; one step more is held.
    pub(crate) allowed: i64,
    /// Output tokens that wait for room.
    pub(crate) wanted: Option<i64>,
}

/// A request that was admitted and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) facts: Facts,
    pub(crate) tariff: Tariff,
    /// Its place among all admissions.
    pub(crate) seq: u64,
    /// The most that it can cost; raised when it costs more.
    pub(crate) bound: Amounts,
    /// What it is expected to cost, with the step that stays free.
    pub(crate) held: Amounts,
    /// What it can have cost before it asks for more, with that step; never above `held`.
    pub(crate) firm: Amounts,
    /// Of that, what it was seen to spend without having been allowed to.
    pub(crate) passed_nanos: i64,
    /// Used so far; never above `firm`.
    pub(crate) accrued: Amounts,
    pub(crate) step_tokens: i64,
    pub(crate) choices: i64,
    /// None for a request whose answer comes in one piece.
    pub(crate) stream: Option<Stream>,
}

impl Reservation {
    /// Return the part of a resource; requests are counted at admission and hold nothing.
    pub(crate) fn part(&self, resource: Resource) -> Part {
        if resource.is_count() {
            return Part::default();
        }
        Part {
            held: Held {
                expected: self.held.of(resource),
                bound: self.bound.of(resource),
                firm: self.firm.of(resource),
            },
            accrued: self.accrued.of(resource),
        }
    }
}

/// What was booked when a reservation settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Settlement {
    /// False when it had been settled before.
    pub first: bool,
    /// Its number in the organization, from 1.
    pub seq: u64,
    /// What was booked.
    pub booked: Amounts,
    /// Spend beyond what it was allowed to cost, nano units.
    pub overrun_nanos: i64,
    /// What the provider billed for each time its bound without calibration, rounded up.
    pub bound_ratio: i64,
    /// Hard limits over their caps after it.
    pub exceeded: Vec<Id>,
    /// Shares of caps that were reached by it.
    pub crossed: Vec<Crossing>,
}

/// Settled money has reached a share of a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The limit.
    pub limit_id: Id,
    /// Start of the period, on the wall clock.
    pub period_starts_at_ns: u64,
    /// The share.
    pub percent: u8,
    /// How often it has been told before in this period.
    pub repeat: u32,
    /// What is settled.
    pub settled: i64,
    /// The cap.
    pub cap: i64,
}

/// A settlement that the ledger does not have yet.
#[derive(Clone, Debug)]
pub(crate) struct Unbooked {
    pub(crate) id: ReservationId,
    pub(crate) facts: Facts,
    pub(crate) settled: Now,
    pub(crate) settlement: Settlement,
}
