//! Who a key is, and what its state allows.
use crate::decision::Refusal;
use crate::id::Id;
use crate::keys::{Key, KeyState};
use crate::limit::{Scope, ScopeKind};
use crate::organization::Organization;
use crate::policy::OrganizationState;
use crate::reservation::Path;
use crate::time::Now;

/// Name of a key, whom it acts for, and the policy that was in force.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Number of the key.
    pub key: u32,
    /// Number of its organization.
    pub organization: u32,
    /// The key.
    pub key_id: Id,
    /// Its organization.
    pub organization_id: Id,
    /// Its team.
    pub team_id: Option<Id>,
    /// Its owner.
    pub member_id: Option<Id>,
    /// The cost center its requests are charged to.
    pub cost_center_id: Option<Id>,
    /// State of the key: active or disabled.
    pub state: KeyState,
    /// State of the organization.
    pub organization_state: OrganizationState,
    /// Version of the policy.
    pub policy_version: std::sync::Arc<str>,
}

/// What all limits of a key's path stand at.
#[derive(Clone, Debug)]
pub struct KeyLimits {
    /// For whom the key acts.
    pub path: Path,
    /// The policy in force.
    pub policy_version: std::sync::Arc<str>,
    /// The states, narrowest scope first, as JSON.
    pub states_json: Vec<u8>,
}

pub(super) fn refusal_by_key(
    key: &Key,
    path: &Path,
    organization: &Organization,
    now: Now,
) -> Option<Refusal> {
    let scope = Scope {
        kind: ScopeKind::Key,
        id: key.id,
    };
    let version = std::sync::Arc::clone(organization.version());
    if !key.is_valid(now.wall_ns) {
        Some(Refusal::by_state(
            "invalid_api_key",
            401,
            scope,
            path.clone(),
            version,
        ))
    } else if key.state == KeyState::Disabled {
        let path = path.clone();
        Some(Refusal::by_state("key_disabled", 403, scope, path, version))
    } else {
        None
    }
}
