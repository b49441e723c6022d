//! Instants as the caller's clock gives them; the engine never reads one.

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;
/// The end of what does not end: the largest instant that the ledger's signed integers hold.
pub(crate) const NEVER_NS: u64 = (1 << 63) - 1;

/// One instant on two clocks: calendar periods read the wall, rolling windows the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// Nanoseconds since any fixed instant.
    pub mono_ns: u64,
}

impl Now {
    /// Return the later of two instants, clock by clock.
    ///
    /// A wall clock that jumps back must not open a period again, so each organization goes on
    /// from the latest instant it has seen.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        Self {
            wall_ns: self.wall_ns.max(other.wall_ns),
            mono_ns: self.mono_ns.max(other.mono_ns),
        }
    }

    /// Return this instant as a caller's wall clock shows it, which may have jumped back.
    ///
    /// Waits and the ages of ledger entries are told by that clock; periods are not.
    #[must_use]
    pub fn shown_by(self, caller: Self) -> Self {
        Self {
            wall_ns: caller.wall_ns,
            ..self
        }
    }
}
