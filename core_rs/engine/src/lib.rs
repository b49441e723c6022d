//! Deciding what a request may cost: limits, counters, reservations, prices. No I/O, no clock.
mod ask;
mod board;
mod calendar;
mod charging;
mod counter;
pub mod decision;
pub mod engine;
mod error;
mod estimate;
mod id;
mod keys;
mod limit;
mod money;
mod organization;
mod planted;
mod policy;
pub mod price;
mod reservation;
mod rules;
mod sync;
mod time;
mod window;

pub use ask::{Ask, CALIBRATION_MAX, Streams, TAKEN_MAX};
pub use board::{Board, LABELS_MAX, SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, SEEDS_MAX, Seed};
pub use calendar::{Bounds, Calendar, Period};
pub use charging::{RATES_MAX, Terms};
pub use decision::{Admission, Decision, Diversion, Effect, Refusal, Waiting, WaitsFor};
pub use engine::{Engine, KeyLimits, Principal};
pub use error::{Error, Result};
pub use estimate::{ESTIMATES_MAX, Foresight, SAMPLES_MIN};
pub use id::{Id, ReservationId};
pub use keys::{Digest, KEY_SECRETS_MAX, KEYS_MAX, KeyState};
pub use limit::{
    Action, Hold, Limit, LimitKind, Mode, Place, Resource, Scope, ScopeKind, Step, Subject,
};
pub use money::NANOS_PER_UNIT;
pub use organization::{
    Actual, KEY_WAITERS_MAX, OPEN_MAX, Organization, RELEASED_MAX, UNBOOKED_MAX, WAITERS_MAX,
};
#[cfg(feature = "planted")]
pub use planted::{FAULTS, Fault, plant};
pub use policy::{DAYS_MAX, LIMITS_MAX, OrganizationState, Policy, STEPS_MAX, SharedPolicy};
pub use reservation::{Amounts, Crossing, POOLS_MAX, Path, Settlement};
pub use rules::{NAME_BYTES_MAX, NAMES_MAX, OnCut, RefusalDetail, Ruling, Use};
pub use time::{NS_PER_S, Now};
pub use window::{RING_BUCKETS, Ring, Rolling, Window};
