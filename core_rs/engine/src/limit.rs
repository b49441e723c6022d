//! What a limit is: scope, place, resource, window, cap and mode. Data only.
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::window::Window;

/// Kinds of things that limits and counters belong to, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// An API key.
    Key,
    /// The person or service that owns keys.
    Member,
    /// A team of an organization.
    Team,
    /// A tenant.
    Organization,
    /// The whole installation.
    Installation,
}

impl ScopeKind {
    /// Find the kind that a name on the wire stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Key,
            Self::Member,
            Self::Team,
            Self::Organization,
            Self::Installation,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }

    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Member => "member",
            Self::Team => "team",
            Self::Organization => "organization",
            Self::Installation => "installation",
        }
    }
}

/// One thing that limits and counters belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// Which one.
    pub id: Id,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Nano units of the organization's currency.
    Spend,
    /// Requests, counted when admitted.
    Requests,
    /// Tokens.
    Tokens,
}

impl Resource {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spend => "spend",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What a limit is for; decides precedence and code of its refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Requests or tokens over a short window.
    Rate,
    /// What a plan includes.
    Quota,
    /// Stops a leak of money.
    Breaker,
    /// Money to spend.
    Budget,
}

impl LimitKind {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Breaker => "breaker",
            Self::Budget => "budget",
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

/// Which requests of its scope a limit or counter is about; sorted, without doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    pub(crate) models: Option<Vec<String>>,
    pub(crate) providers: Option<Vec<String>>,
}

impl Place {
    /// Tell whether a request counts: each list that is given names it.
    pub fn matches(&self, model: &str, provider: &str) -> bool {
        contains(self.models.as_ref(), model) && contains(self.providers.as_ref(), provider)
    }
}

fn contains(names: Option<&Vec<String>>, name: &str) -> bool {
    names.is_none_or(|names| {
        names
            .binary_search_by(|known| known.as_str().cmp(name))
            .is_ok()
    })
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
}
