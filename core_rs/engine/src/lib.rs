//! Deciding what a request may cost: limits, counters, reservations, prices. No I/O, no clock.
mod calendar;
mod counter;
pub mod decision;
pub mod engine;
mod error;
mod id;
mod keys;
mod limit;
mod money;
mod organization;
mod policy;
pub mod price;
mod reservation;
mod sync;
mod time;
mod window;

pub use calendar::{Bounds, Calendar, Period};
pub use decision::{Admission, Decision, Refusal};
pub use engine::{Ask, Engine, KeyLimits, Principal};
pub use error::{Error, Result};
pub use id::{Id, ReservationId};
pub use keys::{Digest, KEY_SECRETS_MAX, KEYS_MAX, KeyState};
pub use limit::{Limit, LimitKind, Mode, Place, Resource, Scope, ScopeKind};
pub use money::NANOS_PER_UNIT;
pub use organization::{
    OPEN_MAX, Organization, RELEASED_MAX, SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, SEEDS_MAX,
    Seed, UNBOOKED_MAX,
};
pub use policy::{LIMITS_MAX, NAME_BYTES_MAX, NAMES_MAX, OrganizationState, Policy};
pub use reservation::{Amounts, Path, Settlement};
pub use time::{NS_PER_S, Now};
pub use window::{RING_BUCKETS, Ring, Rolling, Window};
