//! A reservation: who asked for what, what it holds, and how it ended.
use crate::id::{Id, ReservationId};
use crate::limit::{Resource, Scope, ScopeKind};
use crate::time::Now;

/// For whom a key acts: its scopes, narrowest first, and its cost center; nil where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub(crate) key: Id,
    pub(crate) member: Id,
    pub(crate) team: Id,
    pub(crate) organization: Id,
    cost_center: Id,
}

impl Path {
    /// Name the scopes of a key.
    pub fn new(key: Id, member: Option<Id>, team: Option<Id>, organization: Id) -> Self {
        let (member, team) = (member.unwrap_or(Id::NIL), team.unwrap_or(Id::NIL));
        Self {
            key,
            member,
            team,
            organization,
            cost_center: Id::NIL,
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

    /// List the scopes, narrowest first.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> + use<> {
        [
            (ScopeKind::Key, self.key),
            (ScopeKind::Member, self.member),
            (ScopeKind::Team, self.team),
            (ScopeKind::Organization, self.organization),
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
    pub(crate) model: Box<str>,
    pub(crate) provider: Box<str>,
    pub(crate) admitted: Now,
}

/// Spend and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Nano units.
    pub spend_nanos: i64,
    /// Tokens.
    pub tokens: i64,
}

impl Amounts {
    /// Return how much of the amounts is more than was held, ≥ 0.
    pub(crate) fn beyond(&self, held: Self) -> Self {
        Self {
            spend_nanos: self.spend_nanos.saturating_sub(held.spend_nanos).max(0),
            tokens: self.tokens.saturating_sub(held.tokens).max(0),
        }
    }

    /// Return the amount of a resource; of requests it is always one.
    pub(crate) fn of(&self, resource: Resource) -> i64 {
        match resource {
            Resource::Spend => self.spend_nanos,
            Resource::Tokens => self.tokens,
            Resource::Requests => 1,
        }
    }
}

/// What a reservation holds of one resource, and how much of that is used already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) held: i64,
    pub(crate) accrued: i64,
}

/// A request that was admitted and has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) facts: Facts,
    pub(crate) held: Amounts,
    /// Used so far; never above `held`.
    pub(crate) accrued: Amounts,
}

impl Reservation {
    /// Return the part of a resource; requests are counted at admission and hold nothing.
    pub(crate) fn part(&self, resource: Resource) -> Part {
        match resource {
            Resource::Requests => Part::default(),
            _ => Part {
                held: self.held.of(resource),
                accrued: self.accrued.of(resource),
            },
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
    /// Spend beyond what was held, nano units.
    pub overrun_nanos: i64,
    /// Hard limits over their caps after it.
    pub exceeded: Vec<Id>,
}

/// A settlement that the ledger does not have yet.
#[derive(Clone, Debug)]
pub(crate) struct Unbooked {
    pub(crate) id: ReservationId,
    pub(crate) facts: Facts,
    pub(crate) settled: Now,
    pub(crate) settlement: Settlement,
}
