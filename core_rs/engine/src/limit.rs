//! What a limit is: scope, place, resource, window, cap, mode, hold and steps. Data only.
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::window::Window;

/// Kinds of things that limits and counters belong to, in the order in which refusals name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// An API key.
    Key,
    /// A session that a caller names.
    Session,
    /// A member's work for one team.
    MemberInTeam,
    /// The person or service that owns keys.
    Member,
    /// A budget that several keys draw on.
    Pool,
    /// A feature that a caller names.
    Feature,
    /// An agent that a caller names.
    Agent,
    /// An end user that a caller names.
    EndUser,
    /// A team of an organization.
    Team,
    /// A tenant.
    Organization,
    /// A provider, for all organizations.
    Provider,
    /// The whole installation.
    Installation,
}

/// All kinds, in the order of refusals.
pub(crate) const SCOPE_KINDS: [ScopeKind; 12] = [
    ScopeKind::Key,
    ScopeKind::Session,
    ScopeKind::MemberInTeam,
    ScopeKind::Member,
    ScopeKind::Pool,
    ScopeKind::Feature,
    ScopeKind::Agent,
    ScopeKind::EndUser,
    ScopeKind::Team,
    ScopeKind::Organization,
    ScopeKind::Provider,
    ScopeKind::Installation,
];

impl ScopeKind {
    /// Find the kind that a name on the wire stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        SCOPE_KINDS.into_iter().find(|kind| kind.name() == name)
    }

    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Session => "session",
            Self::MemberInTeam => "member_in_team",
            Self::Member => "member",
            Self::Pool => "pool",
            Self::Feature => "feature",
            Self::Agent => "agent",
            Self::EndUser => "end_user",
            Self::Team => "team",
            Self::Organization => "organization",
            Self::Provider => "provider",
            Self::Installation => "installation",
        }
    }

    /// Return a bit of its own.
    pub(crate) fn bit(self) -> u16 {
        1 << u16::from(self as u8)
    }

    /// Tell whether callers name things of this kind, so that there may be any number of them.
    pub fn is_dynamic(self) -> bool {
        matches!(
            self,
            Self::Session | Self::Feature | Self::Agent | Self::EndUser
        )
    }

    /// Tell whether things of this kind belong to no organization.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Provider | Self::Installation)
    }
}

/// One thing that limits and counters belong to.
///
/// The nil id of a dynamic kind stands for each label of it: its limits are the template, and its
/// counters count the labels for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// Which one.
    pub id: Id,
}

impl Scope {
    /// Name the template of a dynamic kind.
    pub(crate) fn each(kind: ScopeKind) -> Self {
        Self { kind, id: Id::NIL }
    }

    pub(crate) fn is_template(self) -> bool {
        self.id.is_nil()
    }
}

/// A scope as JSON: a kind with an id, or with `each`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeForm {
    kind: ScopeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Id>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    each: bool,
}

impl ScopeForm {
    /// Read a scope; None if it names neither one thing nor each of a kind.
    pub(crate) fn check(&self) -> Option<Scope> {
        match (self.id, self.each) {
            (Some(id), false) => Some(Scope {
                kind: self.kind,
                id,
            }),
            (None, true) if self.kind.is_dynamic() => Some(Scope::each(self.kind)),
            _ => None,
        }
    }
}

impl From<Scope> for ScopeForm {
    fn from(scope: Scope) -> Self {
        Self {
            kind: scope.kind,
            id: scope.id.some(),
            each: scope.is_template(),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ScopeForm::from(*self).serialize(serializer)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Nano units of the organization's currency that it is charged.
    Spend,
    /// Nano units of the price sheet's currency: what "spend" means for shared scopes.
    #[serde(skip_deserializing, rename = "spend")]
    Cost,
    /// Requests, counted when admitted.
    Requests,
    /// Tokens.
    Tokens,
    /// Requests that are open.
    Concurrency,
}

impl Resource {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spend | Self::Cost => "spend",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrency => "concurrency",
        }
    }

    /// Tell whether it is money.
    pub(crate) fn is_money(self) -> bool {
        matches!(self, Self::Spend | Self::Cost)
    }

    /// Tell whether a request counts as one, whatever it costs.
    pub(crate) fn is_count(self) -> bool {
        matches!(self, Self::Requests | Self::Concurrency)
    }
}

/// What a limit is for; decides precedence and code of its refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Requests that are open at a time.
    Concurrency,
    /// Requests or tokens over a short window.
    Rate,
    /// What a plan includes.
    Quota,
    /// Stops a leak of money.
    Breaker,
    /// Money to spend.
    Budget,
    /// Money that was paid in advance.
    Balance,
}

impl LimitKind {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Breaker => "breaker",
            Self::Budget => "budget",
            Self::Balance => "balance",
        }
    }
}

/// When a limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// When used + held + requested would pass the cap.
    Hard,
    /// While used has reached the cap; what is in flight can pass it.
    Metered,
    /// Never; it warns.
    Soft,
    /// Never; it only measures.
    Shadow,
}

impl Mode {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Metered => "metered",
            Self::Soft => "soft",
            Self::Shadow => "shadow",
        }
    }
}

/// Which of a reservation's two amounts a limit counts as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// What such a request is likely to cost; extended while its stream grows.
    Expected,
    /// The most that it can cost.
    Bound,
}

/// What a limit does from a share of its cap on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Below 100: settled money has reached this share of the cap. 100: the request does not fit.
    pub percent: u8,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell people, once a period.
    Notify,
    /// Serve by another model.
    Downgrade {
        /// Its name.
        model: Box<str>,
    },
    /// Have the caller confirm.
    Confirm,
    /// Keep the connection open until there is room.
    Queue {
        /// At most so long.
        timeout_ns: u64,
    },
    /// Refuse; None leaves code and status as the kind of limit has them.
    Refuse {
        /// Code.
        code: Option<Box<str>>,
        /// HTTP status.
        status: Option<u16>,
    },
}

/// What a request is about, as far as places tell requests apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The model that serves it, by the name callers use.
    pub model: Box<str>,
    /// Tier of the model.
    pub tier: Option<Box<str>>,
    /// Provider that serves it.
    pub provider: Box<str>,
    /// Feature that it is for.
    pub feature: Option<Box<str>>,
}

/// Which requests of its scope a limit or counter is about; sorted, without doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    pub(crate) models: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tiers: Option<Vec<String>>,
    pub(crate) providers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) features: Option<Vec<String>>,
}

impl Place {
    /// Tell whether a request counts: each list that is given names it.
    pub fn matches(&self, subject: &Subject) -> bool {
        contains(self.models.as_ref(), Some(&subject.model))
            && contains(self.providers.as_ref(), Some(&subject.provider))
            && contains(self.tiers.as_ref(), subject.tier.as_deref())
            && contains(self.features.as_ref(), subject.feature.as_deref())
    }
}

fn contains(names: Option<&Vec<String>>, name: Option<&str>) -> bool {
    names.is_none_or(|names| name.is_some_and(|name| has(names, name)))
}

/// Tell whether a sorted list has a name.
pub(crate) fn has(names: &[String], name: &str) -> bool {
    names
        .binary_search_by(|known| known.as_str().cmp(name))
        .is_ok()
}

/// One limit of a snapshot.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its id.
    pub id: Id,
    /// What it is for.
    pub kind: LimitKind,
    /// Whom it binds.
    pub scope: Scope,
    /// Which of their requests; None for all.
    pub place: Option<Place>,
    /// What it counts.
    pub resource: Resource,
    /// Over what time.
    pub window: Window,
    /// Most that may be used, in the resource's unit, ≥ 0.
    pub cap: i64,
    /// When it refuses.
    pub mode: Mode,
    /// What open requests count for.
    pub hold: Hold,
    /// What it does, by ascending percent.
    pub steps: Box<[Step]>,
    /// How often the notice of a soft limit is repeated while it is passed; 0 for never.
    pub cooldown_ns: u64,
    /// What is taken off the sum, since somebody has reset the limit.
    pub offset: i64,
    /// Until when that is so, on the wall clock.
    pub offset_until_ns: u64,
    /// First instant at which it is in force.
    pub from_ns: u64,
    /// First instant at which it is not any more.
    pub until_ns: u64,
}

impl Limit {
    /// Tell whether it is in force at an instant.
    pub(crate) fn is_in_force(&self, wall_ns: u64) -> bool {
        self.from_ns <= wall_ns && wall_ns < self.until_ns
    }

    /// Return what is taken off the sum at an instant.
    pub(crate) fn offset_at(&self, wall_ns: u64) -> i64 {
        if wall_ns < self.offset_until_ns {
            self.offset
        } else {
            0
        }
    }

    /// Tell whether it has room, by what is used, and what is used or held.
    pub(crate) fn has_room(&self, used: i64, committed: i64, requested: i64) -> bool {
        match self.mode {
            // A difference, since a sum may leave the range.
            Mode::Hard => self.cap > 0 && requested <= self.cap.saturating_sub(committed),
            Mode::Metered => used < self.cap,
            Mode::Soft | Mode::Shadow => true,
        }
    }

    /// Tell whether it limits money and can never be passed.
    pub(crate) fn is_hard_money(&self) -> bool {
        self.mode == Mode::Hard && self.resource.is_money()
    }

    /// Tell whether two limits are about the same, so that the one for a label replaces the other.
    pub(crate) fn replaces(&self, template: &Self) -> bool {
        self.kind == template.kind
            && self.place == template.place
            && self.resource == template.resource
            && self.window == template.window
    }
}
