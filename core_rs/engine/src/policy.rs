//! Reads a policy snapshot: what is in force for one organization, as one immutable value.
use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, Period};
use crate::charging::{Charging, ChargingForm};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::{
    Action, Hold, Limit, LimitKind, Mode, Place, Resource, Scope, ScopeForm, ScopeKind, Step,
};
use crate::rules::{RuleForm, Rules, check_names};
use crate::time::{NEVER_NS, NS_PER_S};
use crate::window::{Rolling, Window};

/// Most limits of one organization.
pub const LIMITS_MAX: usize = 200_000;
/// Most steps of one limit.
pub const STEPS_MAX: usize = 16;
/// Longest period in days.
pub const DAYS_MAX: u16 = 366;
/// Longest that a step lets a request queue, in seconds.
const QUEUE_MAX_S: u64 = 300;
const TEXT_BYTES_MAX: usize = 200;

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
    pub(crate) rules: Rules,
    pub(crate) charging: Charging,
}

impl Policy {
    /// Read a snapshot.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let form: PolicyForm = read(json)?;
        form.check()
    }
}

/// The limits that hold for all organizations together.
#[derive(Clone, Debug, Default)]
pub struct SharedPolicy {
    pub(crate) limits: Vec<Limit>,
}

impl SharedPolicy {
    /// Read a snapshot of the installation.
    ///
    /// # Errors
    /// `InvalidJson`, `InvalidPolicy`, `TooMany`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let form: SharedForm = read(json)?;
        check_version(&form.version)?;
        Ok(Self {
            limits: check_limits(form.limits, |scope| {
                ensure(scope.kind.is_shared(), "a scope belongs to an organization")
            })?,
        })
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|fault| Error::InvalidJson(fault.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedForm {
    version: String,
    limits: Vec<LimitForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyForm {
    organization_id: Id,
    state: OrganizationState,
    currency: String,
    version: String,
    #[serde(default)]
    charging: Option<ChargingForm>,
    limits: Vec<LimitForm>,
    #[serde(default)]
    rules: Vec<RuleForm>,
}

impl PolicyForm {
    fn check(self) -> Result<Policy> {
        let currency_fits =
            self.currency.len() == 3 && self.currency.bytes().all(|b| b.is_ascii_uppercase());
        ensure(currency_fits, "currency is not a code of three letters")?;
        check_version(&self.version)?;
        let organization = Scope {
            kind: ScopeKind::Organization,
            id: self.organization_id,
        };
        let charging = self.charging.map(ChargingForm::check).transpose()?;
        Ok(Policy {
            organization_id: self.organization_id,
            state: self.state,
            version: self.version,
            limits: check_limits(self.limits, |scope| check_scope(scope, organization))?,
            rules: check_rules(self.rules, organization)?,
            charging: charging.unwrap_or_default(),
        })
    }
}

fn check_version(version: &str) -> Result<()> {
    let fits = !version.is_empty() && version.len() <= TEXT_BYTES_MAX;
    ensure(fits, "bad version")
}

fn ensure(holds: bool, why: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::InvalidPolicy(why.to_owned()))
    }
}

fn check_limits(
    forms: Vec<LimitForm>,
    check_scope: impl Fn(Scope) -> Result<()>,
) -> Result<Vec<Limit>> {
    if forms.len() > LIMITS_MAX {
        return Err(Error::TooMany("limits"));
    }
    let mut seen = BTreeSet::new();
    forms
        .into_iter()
        .map(|form| {
            let limit = form.check()?;
            ensure(
                seen.insert((limit.id, limit.from_ns)),
                "two limits have one id",
            )?;
            check_scope(limit.scope)?;
            Ok(limit)
        })
        .collect()
}

fn check_rules(forms: Vec<RuleForm>, organization: Scope) -> Result<Rules> {
    if forms.len() > LIMITS_MAX {
        return Err(Error::TooMany("rules"));
    }
    let mut rules = BTreeMap::new();
    for form in forms {
        let scope = form
            .scope
            .check()
            .ok_or_else(|| Error::InvalidPolicy("a rule has no scope".to_owned()))?;
        let is_ruled = matches!(
            scope.kind,
            ScopeKind::Organization | ScopeKind::Team | ScopeKind::Key
        );
        ensure(is_ruled, "a scope of this kind has no rules")?;
        check_scope(scope, organization)?;
        let is_new = rules.insert(scope, form.check()?).is_none();
        ensure(is_new, "two rules have one scope")?;
    }
    Ok(Rules(rules))
}

/// Refuse scopes of other organizations and of none.
fn check_scope(scope: Scope, organization: Scope) -> Result<()> {
    ensure(
        !scope.kind.is_shared(),
        "a scope belongs to no organization",
    )?;
    let is_own = scope.kind != ScopeKind::Organization || scope == organization;
    ensure(is_own, "a scope is another organization")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitForm {
    id: Id,
    kind: LimitKind,
    scope: ScopeForm,
    #[serde(rename = "where")]
    place: Option<PlaceForm>,
    resource: Resource,
    window: WindowForm,
    cap: i64,
    mode: Mode,
    hold: Hold,
    #[serde(default)]
    steps: Vec<StepForm>,
    #[serde(default)]
    cooldown_s: Option<u32>,
    #[serde(default)]
    offset: i64,
    #[serde(default)]
    offset_until_ns: Option<u64>,
    #[serde(default)]
    from_ns: Option<u64>,
    #[serde(default)]
    until_ns: Option<u64>,
}

impl LimitForm {
    fn check(self) -> Result<Limit> {
        let scope = self
            .scope
            .check()
            .ok_or_else(|| Error::InvalidPolicy("a limit has no scope".to_owned()))?;
        ensure(self.cap >= 0, "a cap is negative")?;
        ensure(self.offset >= 0, "an offset is negative")?;
        ensure(
            kind_counts(self.kind, self.resource),
            "a kind of limit does not count this resource",
        )?;
        let window = self.window.check()?;
        let is_gauge = self.resource == Resource::Concurrency;
        ensure(
            is_gauge == (window == Window::Now),
            "concurrency, and nothing else, is counted now",
        )?;
        Ok(Limit {
            id: self.id,
            kind: self.kind,
            scope,
            place: self.place.map(PlaceForm::check).transpose()?.flatten(),
            resource: resource_in(self.resource, scope),
            window,
            cap: self.cap,
            mode: self.mode,
            hold: self.hold,
            steps: check_steps(self.steps)?,
            cooldown_ns: u64::from(self.cooldown_s.unwrap_or(0)).saturating_mul(NS_PER_S),
            offset: self.offset,
            offset_until_ns: self.offset_until_ns.unwrap_or(0),
            from_ns: self.from_ns.unwrap_or(0),
            until_ns: self.until_ns.unwrap_or(NEVER_NS),
        })
    }
}

/// Spend of shared scopes is what the provider bills: organizations have different currencies.
pub(crate) fn resource_in(resource: Resource, scope: Scope) -> Resource {
    match resource {
        Resource::Spend if scope.kind.is_shared() => Resource::Cost,
        other => other,
    }
}

fn kind_counts(kind: LimitKind, resource: Resource) -> bool {
    match kind {
        LimitKind::Rate => matches!(resource, Resource::Requests | Resource::Tokens),
        LimitKind::Breaker | LimitKind::Budget | LimitKind::Balance => resource.is_money(),
        LimitKind::Quota => resource != Resource::Concurrency,
        LimitKind::Concurrency => resource == Resource::Concurrency,
    }
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
enum StepForm {
    Notify {
        percent: u8,
    },
    Downgrade {
        percent: u8,
        model: String,
    },
    Confirm {
        percent: u8,
    },
    Queue {
        percent: u8,
        timeout_s: u64,
    },
    Refuse {
        percent: u8,
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        status: Option<u16>,
    },
}

impl StepForm {
    fn check(self) -> Result<Step> {
        let (percent, action) = match self {
            Self::Notify { percent } => (percent, Action::Notify),
            Self::Confirm { percent } => (percent, Action::Confirm),
            Self::Downgrade { percent, model } => {
                let model = check_names(vec![model])?.concat().into();
                (percent, Action::Downgrade { model })
            }
            Self::Queue { percent, timeout_s } => {
                let fits = percent == 100 && (1..=QUEUE_MAX_S).contains(&timeout_s);
                ensure(fits, "a queue does not fit")?;
                let timeout_ns = timeout_s.saturating_mul(NS_PER_S);
                (percent, Action::Queue { timeout_ns })
            }
            Self::Refuse {
                percent,
                code,
                status,
            } => {
                let fits = percent == 100
                    && status.is_none_or(|status| matches!(status, 402 | 403 | 429))
                    && code.as_ref().is_none_or(|code| fits_code(code));
                ensure(fits, "a refusal does not fit")?;
                let code = code.map(String::into_boxed_str);
                (percent, Action::Refuse { code, status })
            }
        };
        ensure((1..=100).contains(&percent), "a percentage is not 1 to 100")?;
        Ok(Step { percent, action })
    }
}

fn fits_code(code: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !code.is_empty() && code.len() <= TEXT_BYTES_MAX && code.bytes().all(is_word)
}

fn check_steps(forms: Vec<StepForm>) -> Result<Box<[Step]>> {
    if forms.len() > STEPS_MAX {
        return Err(Error::TooMany("steps of a limit"));
    }
    let steps: Vec<Step> = forms
        .into_iter()
        .map(StepForm::check)
        .collect::<Result<_>>()?;
    let is_ascending = steps.is_sorted_by_key(|step| step.percent);
    ensure(is_ascending, "steps are not ascending")?;
    Ok(steps.into())
}

/// A place as JSON; all lists may be left out or null, and then it is no place at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceForm {
    #[serde(default)]
    models: Option<Vec<String>>,
    #[serde(default)]
    tiers: Option<Vec<String>>,
    #[serde(default)]
    providers: Option<Vec<String>>,
    #[serde(default)]
    features: Option<Vec<String>>,
}

impl PlaceForm {
    pub(crate) fn check(self) -> Result<Option<Place>> {
        let names = |list: Option<Vec<String>>| list.map(check_names).transpose();
        let place = Place {
            models: names(self.models)?,
            tiers: names(self.tiers)?,
            providers: names(self.providers)?,
            features: names(self.features)?,
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
    Days {
        days: u16,
        anchor: String,
        time_zone: String,
    },
    Lifetime {
        starts_at_ns: u64,
    },
    Now,
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
            Self::Days {
                days,
                anchor,
                time_zone,
            } => {
                ensure((1..=DAYS_MAX).contains(&days), "a period has 1 to 366 days")?;
                let anchor: Date = anchor
                    .parse()
                    .map_err(|_| Error::InvalidPolicy("an anchor is no date".to_owned()))?;
                let period = Period::Days {
                    count: days,
                    anchor,
                };
                Ok(Window::Calendar(Calendar::new(period, &time_zone)?))
            }
            Self::Lifetime { starts_at_ns } => Ok(Window::Lifetime { starts_at_ns }),
            Self::Now => Ok(Window::Now),
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
            Window::Calendar(calendar) => calendar.into(),
            Window::Lifetime { starts_at_ns } => Self::Lifetime {
                starts_at_ns: *starts_at_ns,
            },
            Window::Now => Self::Now,
        }
    }
}

impl From<&Calendar> for WindowForm {
    fn from(calendar: &Calendar) -> Self {
        let time_zone = calendar.zone_name().to_owned();
        let period = match calendar.period() {
            Period::Day => PeriodForm::Day,
            Period::Week => PeriodForm::Week,
            Period::Month => PeriodForm::Month,
            Period::Days { count, anchor } => {
                return Self::Days {
                    days: count,
                    anchor: anchor.to_string(),
                    time_zone,
                };
            }
        };
        Self::Calendar { period, time_zone }
    }
}
