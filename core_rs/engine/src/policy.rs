//! Reads a policy snapshot: what is in force for one organization, as one immutable value.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, Period};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::{Limit, LimitKind, Mode, Place, Resource, Scope, ScopeKind};
use crate::window::{Rolling, Window};

/// Most limits of one organization.
pub const LIMITS_MAX: usize = 200_000;
/// Most names in one list of models or providers.
pub const NAMES_MAX: usize = 1_000;
/// Longest name of a model or provider.
pub const NAME_BYTES_MAX: usize = 200;

/// Whether an organization may send requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrganizationState {
    /// It may.
    Active,
    /// It may not for now.
    Suspended,
    /// It may not any more.
    Archived,
}

impl OrganizationState {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Archived => "archived",
        }
    }
}

/// All that is in force for one organization.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) organization_id: Id,
    pub(crate) state: OrganizationState,
    pub(crate) version: String,
    pub(crate) limits: Vec<Limit>,
    /// Models that a scope allows, sorted; a scope that is not listed allows all.
    pub(crate) models: BTreeMap<Scope, Vec<String>>,
}

impl Policy {
    /// Read a snapshot.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let form: PolicyForm =
            serde_json::from_slice(json).map_err(|fault| Error::InvalidJson(fault.to_string()))?;
        form.check()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyForm {
    organization_id: Id,
    state: OrganizationState,
    currency: String,
    version: String,
    limits: Vec<LimitForm>,
    models: Vec<ModelsForm>,
}

impl PolicyForm {
    fn check(self) -> Result<Policy> {
        let currency_fits =
            self.currency.len() == 3 && self.currency.bytes().all(|b| b.is_ascii_uppercase());
        ensure(currency_fits, "currency is not a code of three letters")?;
        ensure(
            !self.version.is_empty() && self.version.len() <= NAME_BYTES_MAX,
            "bad version",
        )?;
        if self.limits.len() > LIMITS_MAX || self.models.len() > LIMITS_MAX {
            return Err(Error::TooMany("limits"));
        }
        let organization = Scope {
            kind: ScopeKind::Organization,
            id: self.organization_id,
        };
        Ok(Policy {
            organization_id: self.organization_id,
            state: self.state,
            version: self.version,
            limits: check_limits(self.limits, organization)?,
            models: check_models(self.models, organization)?,
        })
    }
}

fn ensure(holds: bool, why: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::InvalidPolicy(why.to_owned()))
    }
}

fn check_limits(forms: Vec<LimitForm>, organization: Scope) -> Result<Vec<Limit>> {
    let mut seen = BTreeSet::new();
    forms
        .into_iter()
        .map(|form| {
            ensure(seen.insert(form.id), "two limits have one id")?;
            form.check(organization)
        })
        .collect()
}

fn check_models(
    forms: Vec<ModelsForm>,
    organization: Scope,
) -> Result<BTreeMap<Scope, Vec<String>>> {
    let mut models = BTreeMap::new();
    for form in forms {
        check_scope(form.scope, organization)?;
        let allowed = check_names(form.allow)?;
        ensure(
            models.insert(form.scope, allowed).is_none(),
            "two model lists have one scope",
        )?;
    }
    Ok(models)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsForm {
    scope: Scope,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitForm {
    id: Id,
    kind: LimitKind,
    scope: Scope,
    #[serde(rename = "where")]
    place: Option<PlaceForm>,
    resource: Resource,
    window: WindowForm,
    cap: i64,
    mode: Mode,
    hold: String,
}

impl LimitForm {
    fn check(self, organization: Scope) -> Result<Limit> {
        check_scope(self.scope, organization)?;
        ensure(self.cap >= 0, "a cap is negative")?;
        ensure(self.hold == "bound", "hold must be \"bound\"")?;
        ensure(
            kind_counts(self.kind, self.resource),
            "a kind of limit does not count this resource",
        )?;
        Ok(Limit {
            id: self.id,
            kind: self.kind,
            scope: self.scope,
            place: self.place.map(PlaceForm::check).transpose()?.flatten(),
            resource: self.resource,
            window: self.window.check()?,
            cap: self.cap,
            mode: self.mode,
        })
    }
}

fn kind_counts(kind: LimitKind, resource: Resource) -> bool {
    match kind {
        LimitKind::Rate => resource != Resource::Spend,
        LimitKind::Breaker | LimitKind::Budget => resource == Resource::Spend,
        LimitKind::Quota => true,
    }
}

/// Refuse scopes of other organizations; those of the installation have no shard yet.
fn check_scope(scope: Scope, organization: Scope) -> Result<()> {
    ensure(
        scope.kind != ScopeKind::Installation,
        "installation scopes are not supported",
    )?;
    let is_own = scope.kind != ScopeKind::Organization || scope == organization;
    ensure(is_own, "a scope is another organization")
}

fn check_names(mut names: Vec<String>) -> Result<Vec<String>> {
    if names.len() > NAMES_MAX {
        return Err(Error::TooMany("names in a list"));
    }
    let all_fit = names
        .iter()
        .all(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    ensure(all_fit, "a name is empty or too long")?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// A place as JSON; both lists may be left out or null, and then it is no place at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceForm {
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default)]
    providers: Option<Vec<String>>,
}

impl PlaceForm {
    pub(crate) fn check(self) -> Result<Option<Place>> {
        let place = Place {
            models: self.models.map(check_names).transpose()?,
            providers: self.providers.map(check_names).transpose()?,
        };
        Ok((place != Place::default()).then_some(place))
    }
}

/// A window as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum WindowForm {
    Rolling {
        seconds: u64,
    },
    Calendar {
        period: PeriodForm,
        time_zone: String,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PeriodForm {
    Day,
    Week,
    Month,
}

impl WindowForm {
    pub(crate) fn check(self) -> Result<Window> {
        match self {
            Self::Rolling { seconds: 60 } => Ok(Window::Rolling(Rolling::Minute)),
            Self::Rolling { seconds: 3600 } => Ok(Window::Rolling(Rolling::Hour)),
            Self::Rolling { .. } => Err(Error::InvalidPolicy(
                "a rolling window has 60 or 3600 s".into(),
            )),
            Self::Calendar { period, time_zone } => {
                Ok(Window::Calendar(Calendar::new(period.into(), &time_zone)?))
            }
        }
    }
}

impl From<PeriodForm> for Period {
    fn from(form: PeriodForm) -> Self {
        match form {
            PeriodForm::Day => Self::Day,
            PeriodForm::Week => Self::Week,
            PeriodForm::Month => Self::Month,
        }
    }
}

impl From<&Window> for WindowForm {
    fn from(window: &Window) -> Self {
        match window {
            Window::Rolling(Rolling::Minute) => Self::Rolling { seconds: 60 },
            Window::Rolling(Rolling::Hour) => Self::Rolling { seconds: 3600 },
            Window::Calendar(calendar) => Self::Calendar {
                period: match calendar.period() {
                    Period::Day => PeriodForm::Day,
                    Period::Week => PeriodForm::Week,
                    Period::Month => PeriodForm::Month,
                },
                time_zone: calendar.zone_name().to_owned(),
            },
        }
    }
}
