//! Static policy: what a scope may use, whatever it has spent.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limit::{Scope, ScopeForm, ScopeKind, has};
use crate::reservation::Path;

/// Most names in one list.
pub const NAMES_MAX: usize = 1_000;
/// Longest name in a list, and of a label.
pub const NAME_BYTES_MAX: usize = 800;
/// Longest that a request may wait for others to end, in seconds.
const HOLD_WAIT_MAX_S: u32 = 300;
/// How long it waits where no rule says.
const HOLD_WAIT_DEFAULT_S: u32 = 30;
/// Labels that a rule can fix or require.
const LABELS: [&str; 6] = [
    "feature",
    "agent",
    "end_user",
    "session",
    "environment",
    "class",
];

/// What happens to an answer in one piece that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCut {
    /// What was generated is answered.
    Partial,
    /// An error is answered.
    Error,
}

/// Of which scopes a refusal tells the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalDetail {
    /// Those of the key's owner.
    Own,
    /// All.
    All,
    /// None.
    None,
}

/// What one scope may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    models: Option<Vec<String>>,
    tiers: Option<Vec<String>>,
    providers: Option<Vec<String>>,
    providers_blocked: Vec<String>,
    features_blocked: Vec<String>,
    classes_blocked: Vec<String>,
    endpoints_blocked: Vec<String>,
    tokens_per_request_max: Option<i64>,
    retry_storm_max: Option<u32>,
    output_tokens_default: Option<i64>,
    hold_wait_s: Option<u32>,
    on_cut: Option<OnCut>,
    refusal_detail: Option<RefusalDetail>,
    fixed: BTreeMap<String, String>,
    required: Vec<String>,
}

/// A rule as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleForm {
    pub(crate) scope: ScopeForm,
    models: Option<Vec<String>>,
    #[serde(default)]
    tiers: Option<Vec<String>>,
    #[serde(default)]
    providers: Option<Vec<String>>,
    #[serde(default)]
    providers_blocked: Vec<String>,
    #[serde(default)]
    features_blocked: Vec<String>,
    #[serde(default)]
    classes_blocked: Vec<String>,
    #[serde(default)]
    endpoints_blocked: Vec<String>,
    #[serde(default)]
    tokens_per_request_max: Option<i64>,
    #[serde(default)]
    retry_storm_max: Option<u32>,
    #[serde(default)]
    output_tokens_default: Option<i64>,
    #[serde(default)]
    hold_wait_s: Option<u32>,
    #[serde(default)]
    on_cut: Option<OnCut>,
    #[serde(default)]
    refusal_detail: Option<RefusalDetail>,
    #[serde(default)]
    fixed: BTreeMap<String, String>,
    #[serde(default)]
    required: Vec<String>,
}

impl RuleForm {
    /// Read what is ruled; the scope is checked by whoever knows whose policy it is.
    pub(crate) fn check(self) -> Result<Rule> {
        let names = |list: Option<Vec<String>>| list.map(check_names).transpose();
        let fits = self.tokens_per_request_max.is_none_or(|max| max >= 1)
            && self
                .output_tokens_default
                .is_none_or(|default| default >= 1)
            && self.hold_wait_s.is_none_or(|wait| wait <= HOLD_WAIT_MAX_S)
            && self
                .fixed
                .keys()
                .chain(&self.required)
                .all(|label| LABELS.contains(&label.as_str()))
            && self.fixed.values().all(|value| fits_name(value));
        if !fits {
            return Err(Error::InvalidPolicy("a rule does not fit".to_owned()));
        }
        Ok(Rule {
            models: names(self.models)?,
            tiers: names(self.tiers)?,
            providers: names(self.providers)?,
            providers_blocked: check_names(self.providers_blocked)?,
            features_blocked: check_names(self.features_blocked)?,
            classes_blocked: check_names(self.classes_blocked)?,
            endpoints_blocked: check_names(self.endpoints_blocked)?,
            tokens_per_request_max: self.tokens_per_request_max,
            retry_storm_max: self.retry_storm_max,
            output_tokens_default: self.output_tokens_default,
            hold_wait_s: self.hold_wait_s,
            on_cut: self.on_cut,
            refusal_detail: self.refusal_detail,
            fixed: self.fixed,
            required: check_names(self.required)?,
        })
    }
}

/// Sort a list of names and drop doubles.
pub(crate) fn check_names(mut names: Vec<String>) -> Result<Vec<String>> {
    if names.len() > NAMES_MAX {
        return Err(Error::TooMany("names in a list"));
    }
    if !names.iter().all(|name| fits_name(name)) {
        return Err(Error::InvalidPolicy(
            "a name is empty or too long".to_owned(),
        ));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn fits_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

/// What a request asks to use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use<'a> {
    /// The model, by the name callers use.
    pub model: &'a str,
    /// Its tier.
    pub tier: Option<&'a str>,
    /// Its provider.
    pub provider: &'a str,
    /// The feature it is for.
    pub feature: Option<&'a str>,
    /// Its request class.
    pub class: &'a str,
    /// The route.
    pub endpoint: &'a str,
}

impl Rule {
    /// Return the code with which a use is refused; None if it is allowed.
    fn refuses(&self, asked: &Use<'_>) -> Option<&'static str> {
        let allows = |list: &Option<Vec<String>>, name: Option<&str>| {
            list.as_ref()
                .is_none_or(|names| name.is_some_and(|name| has(names, name)))
        };
        if !allows(&self.models, Some(asked.model)) || !allows(&self.tiers, asked.tier) {
            return Some("model_not_allowed");
        }
        let is_blocked = has(&self.providers_blocked, asked.provider);
        if is_blocked || !allows(&self.providers, Some(asked.provider)) {
            return Some("provider_not_allowed");
        }
        if asked
            .feature
            .is_some_and(|feature| has(&self.features_blocked, feature))
        {
            return Some("feature_blocked");
        }
        if has(&self.classes_blocked, asked.class) {
            return Some("request_class_blocked");
        }
        if has(&self.endpoints_blocked, asked.endpoint) {
            return Some("endpoint_blocked");
        }
        None
    }
}

/// Codes of refusals by rules, in the order in which they are named.
const ORDER: [&str; 5] = [
    "model_not_allowed",
    "provider_not_allowed",
    "feature_blocked",
    "request_class_blocked",
    "endpoint_blocked",
];

/// The rules of all scopes of an organization.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(pub(crate) BTreeMap<Scope, Rule>);

impl Rules {
    /// Return why a use is refused and by which kind of scope: the first code, the widest scope.
    pub(crate) fn refusal(
        &self,
        path: &Path,
        asked: &Use<'_>,
    ) -> Option<(&'static str, ScopeKind)> {
        let found = self.of(path).filter_map(|(kind, rule)| {
            let code = rule.refuses(asked)?;
            Some((ORDER.iter().position(|known| *known == code), code, kind))
        });
        found
            .reduce(|first, other| if other.0 < first.0 { other } else { first })
            .map(|(_, code, kind)| (code, kind))
    }

    /// Merge the rules of a path into the one that holds for its requests.
    pub(crate) fn ruling(&self, path: &Path) -> Ruling {
        let mut ruling = Ruling::default();
        for (_, rule) in self.of(path) {
            // From the widest scope to the narrowest: the latter's settings win, but no label that
            // is fixed above it changes.
            let least = ruling.tokens_per_request_max.into_iter();
            ruling.tokens_per_request_max = least.chain(rule.tokens_per_request_max).min();
            ruling.retry_storm_max = rule.retry_storm_max.or(ruling.retry_storm_max);
            ruling.output_tokens_default =
                rule.output_tokens_default.or(ruling.output_tokens_default);
            ruling.hold_wait_s = rule.hold_wait_s.unwrap_or(ruling.hold_wait_s);
            ruling.on_cut = rule.on_cut.unwrap_or(ruling.on_cut);
            ruling.refusal_detail = rule.refusal_detail.unwrap_or(ruling.refusal_detail);
            for (label, value) in &rule.fixed {
                let fixed = ruling.fixed.entry(label.clone());
                fixed.or_insert_with(|| value.clone());
            }
            for label in &rule.required {
                if !ruling.required.contains(label) {
                    ruling.required.push(label.clone());
                }
            }
        }
        ruling
    }

    pub(crate) fn hold_wait_s(&self, path: &Path) -> u32 {
        let set = self.of(path).filter_map(|(_, rule)| rule.hold_wait_s);
        set.last().unwrap_or(HOLD_WAIT_DEFAULT_S)
    }

    /// List the rules of a path, the widest scope's first.
    fn of<'a>(&'a self, path: &Path) -> impl Iterator<Item = (ScopeKind, &'a Rule)> {
        let scopes = path.ruling().filter(|_| !self.0.is_empty());
        scopes.filter_map(|scope| Some((scope.kind, self.0.get(&scope)?)))
    }
}

/// What holds for the requests of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// Most tokens that one request can use.
    pub tokens_per_request_max: Option<i64>,
    /// Most requests with one body in a minute of which none succeeds.
    pub retry_storm_max: Option<u32>,
    /// The output cap of a request that has none.
    pub output_tokens_default: Option<i64>,
    /// How long a request waits for others to end.
    pub hold_wait_s: u32,
    /// What happens to an answer in one piece that is cut.
    pub on_cut: OnCut,
    /// Of which scopes a refusal tells the figures.
    pub refusal_detail: RefusalDetail,
    /// Labels whatever the caller says.
    pub fixed: BTreeMap<String, String>,
    /// Labels that the caller must give.
    pub required: Vec<String>,
}

impl Default for Ruling {
    fn default() -> Self {
        Self {
            tokens_per_request_max: None,
            retry_storm_max: None,
            output_tokens_default: None,
            hold_wait_s: HOLD_WAIT_DEFAULT_S,
            on_cut: OnCut::Partial,
            refusal_detail: RefusalDetail::Own,
            fixed: BTreeMap::new(),
            required: Vec::new(),
        }
    }
}
