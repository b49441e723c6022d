//! The table of keys: who a secret's digest belongs to. A million keys fit, so records are small.
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::id::{Id, IdMap, IdSet};
use crate::limit::ScopeKind;
use crate::reservation::{POOLS_MAX, Path};

/// Most keys of one process.
pub const KEYS_MAX: usize = 4_000_000;
/// Most secrets of one key: the old and the new one during rotation, and spares.
pub const KEY_SECRETS_MAX: usize = 16;
/// Expiry of what does not expire.
const NEVER: u64 = u64::MAX;

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It may.
    Active,
    /// It may not for now.
    Disabled,
    /// It may not any more.
    Revoked,
}

impl KeyState {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

/// SHA-256 of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl Digest {
    fn from_hex(text: &str) -> Option<Self> {
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (left, right) = is_hex.then(|| text.split_at_checked(32)).flatten()?;
        let mut bytes = [0; 32];
        let (high, low) = bytes.split_at_mut(16);
        high.copy_from_slice(&u128::from_str_radix(left, 16).ok()?.to_be_bytes());
        low.copy_from_slice(&u128::from_str_radix(right, 16).ok()?.to_be_bytes());
        Some(Self(bytes))
    }
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: Id,
    member: Id,
    team: Id,
    cost_center: Id,
    /// The scope of its member's work for its team; nil without either.
    member_in_team: Id,
    pools: Option<Arc<[Id]>>,
    /// Number of its organization.
    pub(crate) organization: u32,
    pub(crate) state: KeyState,
    expires_at_ns: u64,
    digests: Box<[Digest]>,
}

impl Key {
    pub(crate) fn path(&self, organization: Id) -> Path {
        Path::new(self.id, self.member.some(), self.team.some(), organization)
            .charged_to(self.cost_center.some())
            .drawing_on(self.pools.clone(), self.member_in_team.some())
    }

    /// Tell whether it can be used at an instant, disabled or not.
    pub(crate) fn is_valid(&self, wall_ns: u64) -> bool {
        self.state != KeyState::Revoked && wall_ns < self.expires_at_ns
    }
}

#[derive(Clone, Copy, Debug)]
struct Secret {
    key: u32,
    expires_at_ns: u64,
}

/// One key as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyForm {
    id: Id,
    pub(crate) organization_id: Id,
    team_id: Option<Id>,
    member_id: Option<Id>,
    cost_center_id: Option<Id>,
    #[serde(default)]
    pools: Vec<Id>,
    state: KeyState,
    expires_at_ns: Option<u64>,
    secrets: Vec<SecretForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretForm {
    digest: String,
    expires_at_ns: Option<u64>,
}

impl KeyForm {
    /// Read a list of keys.
    pub(crate) fn list_from_json(json: &[u8]) -> Result<Vec<Self>> {
        serde_json::from_slice(json).map_err(|fault| Error::InvalidJson(fault.to_string()))
    }

    fn member_in_team(&self) -> Option<Id> {
        let (member, team) = self.member_id.zip(self.team_id)?;
        let label = format!("{member}/{team}");
        Some(Id::of_label(ScopeKind::MemberInTeam.name(), &label))
    }

    fn pools(&self) -> Result<Option<Arc<[Id]>>> {
        if self.pools.len() > POOLS_MAX {
            return Err(Error::TooMany("pools of a key"));
        }
        let mut pools = self.pools.clone();
        pools.sort_unstable();
        pools.dedup();
        if pools.len() != self.pools.len() {
            return Err(Error::InvalidKeys("a key has one pool twice".into()));
        }
        Ok((!pools.is_empty()).then(|| pools.into()))
    }

    fn secrets(&self) -> Result<Vec<(Digest, u64)>> {
        if self.secrets.len() > KEY_SECRETS_MAX {
            return Err(Error::TooMany("secrets of a key"));
        }
        let read = |secret: &SecretForm| {
            let digest = Digest::from_hex(&secret.digest).ok_or_else(|| {
                Error::InvalidKeys("a digest is not 64 hexadecimal digits".into())
            })?;
            Ok((digest, secret.expires_at_ns.unwrap_or(NEVER)))
        };
        self.secrets.iter().map(read).collect()
    }
}

/// All keys, their numbers, and their secrets.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    records: Vec<Key>,
    numbers: IdMap<Id, u32>,
    secrets: IdMap<Digest, Secret>,
}

impl Keys {
    pub(crate) fn get(&self, number: u32) -> Result<&Key> {
        let at = usize::try_from(number).map_err(|_| Error::UnknownKey)?;
        self.records.get(at).ok_or(Error::UnknownKey)
    }

    /// Return the key of a digest if key and secret are valid at an instant.
    pub(crate) fn find(&self, digest: Digest, wall_ns: u64) -> Option<(u32, &Key)> {
        let secret = self
            .secrets
            .get(&digest)
            .filter(|secret| wall_ns < secret.expires_at_ns)?;
        let key = self.get(secret.key).ok()?;
        key.is_valid(wall_ns).then_some((secret.key, key))
    }

    /// Insert or replace keys, all or none; `organizations` holds the number of each one's.
    pub(crate) fn load(&mut self, forms: &[KeyForm], organizations: &[u32]) -> Result<()> {
        let secrets = self.check(forms)?;
        for ((form, secrets), organization) in forms.iter().zip(secrets).zip(organizations) {
            self.upsert(form, &secrets, *organization)?;
        }
        Ok(())
    }

    /// Fail before anything is changed; return each key's secrets.
    fn check(&self, forms: &[KeyForm]) -> Result<Vec<Vec<(Digest, u64)>>> {
        let is_new = |form: &&KeyForm| !self.numbers.contains_key(&form.id);
        let added = forms.iter().filter(is_new).count();
        if self.records.len().saturating_add(added) > KEYS_MAX {
            return Err(Error::TooMany("keys"));
        }
        let mut owners: IdMap<Digest, Id> = IdMap::default();
        let mut ids: IdSet<Id> = IdSet::default();
        let mut all = Vec::with_capacity(forms.len());
        for form in forms {
            if !ids.insert(form.id) {
                return Err(Error::InvalidKeys("two keys have one id".into()));
            }
            let secrets = form.secrets()?;
            form.pools()?;
            for (digest, _) in &secrets {
                let is_other = self.owner(*digest).is_some_and(|owner| owner != form.id);
                if is_other || owners.insert(*digest, form.id).is_some() {
                    return Err(Error::InvalidKeys("two keys have one digest".into()));
                }
            }
            all.push(secrets);
        }
        Ok(all)
    }

    fn owner(&self, digest: Digest) -> Option<Id> {
        let secret = self.secrets.get(&digest)?;
        self.get(secret.key).ok().map(|key| key.id)
    }

    fn upsert(
        &mut self,
        form: &KeyForm,
        secrets: &[(Digest, u64)],
        organization: u32,
    ) -> Result<()> {
        let next = u32::try_from(self.records.len()).map_err(|_| Error::TooMany("keys"))?;
        let number = *self.numbers.entry(form.id).or_insert(next);
        let key = Key {
            id: form.id,
            member: form.member_id.unwrap_or(Id::NIL),
            team: form.team_id.unwrap_or(Id::NIL),
            cost_center: form.cost_center_id.unwrap_or(Id::NIL),
            member_in_team: form.member_in_team().unwrap_or(Id::NIL),
            pools: form.pools()?,
            organization,
            state: form.state,
            expires_at_ns: form.expires_at_ns.unwrap_or(NEVER),
            digests: secrets.iter().map(|(digest, _)| *digest).collect(),
        };
        self.put(number, key);
        for (digest, expires_at_ns) in secrets {
            self.secrets.insert(
                *digest,
                Secret {
                    key: number,
                    expires_at_ns: *expires_at_ns,
                },
            );
        }
        Ok(())
    }

    /// Store a key under its number and forget the secrets it had.
    fn put(&mut self, number: u32, key: Key) {
        let place = usize::try_from(number)
            .ok()
            .and_then(|at| self.records.get_mut(at));
        match place {
            None => self.records.push(key),
            Some(place) => {
                let replaced = std::mem::replace(place, key);
                for digest in &replaced.digests {
                    self.secrets.remove(digest);
                }
            }
        }
    }
}
