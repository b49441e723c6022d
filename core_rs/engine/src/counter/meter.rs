//! The two ways of adding up over time: buckets that leave, and periods that end.
use super::{End, Held, Measure};
use crate::calendar::{Bounds, Calendar};
use crate::error::Result;
use crate::limit::Resource;
use crate::money;
use crate::planted::{self, Fault};
use crate::reservation::Part;
use crate::time::Now;
use crate::window::{Ring, Rolling};

/// Open reservations' part that is in the ring already is `accrued`; `held` includes it.
#[derive(Clone, Debug)]
pub(super) struct RollingMeter {
    pub(super) ring: Ring,
    pub(super) held: Held,
    pub(super) accrued: i64,
    pub(super) open: i64,
}

#[derive(Clone, Debug)]
pub(super) struct PeriodMeter {
    /// None for a lifetime, which has one period.
    pub(super) calendar: Option<Calendar>,
    pub(super) current: Account,
    pub(super) earlier: Vec<Account>,
}

/// One period; `held` includes `accrued`, `booked` does not.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) bounds: Bounds,
    pub(super) booked: i64,
    pub(super) held: Held,
    pub(super) accrued: i64,
    pub(super) open: i64,
}

impl Account {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            booked: 0,
            held: Held::default(),
            accrued: 0,
            open: 0,
        }
    }

    /// Return the largest sum that is kept of it.
    pub(super) fn most(&self) -> i64 {
        self.booked.saturating_add(self.held.most())
    }

    pub(super) fn measure(&self) -> Measure {
        Measure {
            used: self.booked.saturating_add(self.accrued),
            settled: self.booked,
            open: self.open,
            held: self.held,
        }
    }
}

pub(super) fn gauge(open: i64) -> Measure {
    Measure {
        used: open,
        settled: open,
        open,
        held: Held::default(),
    }
}

impl RollingMeter {
    pub(super) fn new(rolling: Rolling, now: Now) -> Self {
        Self {
            ring: Ring::new(rolling, now.mono_ns),
            held: Held::default(),
            accrued: 0,
            open: 0,
        }
    }

    /// Return the largest sum that is kept of it.
    pub(super) fn most(&self) -> i64 {
        // Of a long stream more can be held than the window still knows of.
        let settled = self.ring.sum().saturating_sub(self.accrued).max(0);
        settled.saturating_add(self.held.most())
    }

    pub(super) fn measure(&self) -> Measure {
        let used = self.ring.sum();
        // A long stream's early cost may have left the window: then more is accrued than is used.
        let settled = used.saturating_sub(self.accrued).max(0);
        let left = self.accrued.saturating_sub(used).max(0);
        Measure {
            used,
            settled,
            open: self.open,
            held: Held {
                expected: self.held.expected.saturating_sub(left),
                bound: self.held.bound.saturating_sub(left),
                firm: self.held.firm.saturating_sub(left),
            },
        }
    }

    pub(super) fn accrue(&mut self, amount: i64, now: Now) -> Result<()> {
        self.ring.add(amount, now.mono_ns)?;
        self.accrued = money::add(self.accrued, amount)?;
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        resource: Resource,
        part: Part,
        end: End,
        admitted: Now,
        now: Now,
    ) -> Result<()> {
        self.open = self.open.saturating_sub(1).max(0);
        if resource == Resource::Requests {
            if matches!(end, End::Released) {
                self.ring.take_at(1, admitted.mono_ns);
            }
            return Ok(());
        }
        let actual = match end {
            End::Settled(actual) => actual,
            End::Released => 0,
        };
        let more = actual.saturating_sub(part.accrued);
        if more >= 0 {
            self.ring.add(more, now.mono_ns)?;
        } else {
            self.ring.take_back(more.saturating_neg(), admitted.mono_ns);
        }
        self.held.take(part.held)?;
        self.accrued = money::subtract(self.accrued, part.accrued)?;
        Ok(())
    }
}

impl PeriodMeter {
    pub(super) fn roll(&mut self, wall_ns: u64) -> Result<()> {
        self.earlier.retain(|earlier| earlier.open > 0);
        let Some(calendar) = &self.calendar else {
            return Ok(());
        };
        if wall_ns < self.current.bounds.ends_at_ns {
            return Ok(());
        }
        let next = Account::new(calendar.bounds(wall_ns)?);
        let over = std::mem::replace(&mut self.current, next);
        if over.open > 0 {
            self.earlier.push(over);
        }
        Ok(())
    }

    pub(super) fn account(&self, wall_ns: u64) -> Option<&Account> {
        std::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|account| account.bounds.contains(wall_ns))
    }

    pub(super) fn account_mut(&mut self, wall_ns: u64) -> Option<&mut Account> {
        std::iter::once(&mut self.current)
            .chain(&mut self.earlier)
            .find(|account| account.bounds.contains(wall_ns))
    }

    pub(super) fn seed(&mut self, amount: i64, wall_ns: u64) -> Result<()> {
        if self.current.bounds.contains(wall_ns) {
            self.current.booked = money::add(self.current.booked, amount)?;
        }
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        resource: Resource,
        part: Part,
        end: End,
        admitted: Now,
    ) -> Result<()> {
        // A counter made in a later period than that of the admission never knew the reservation.
        let Some(account) = self.account_mut(admitted.wall_ns) else {
            return Ok(());
        };
        account.held.take(part.held)?;
        account.accrued = money::subtract(account.accrued, part.accrued)?;
        account.booked = match (end, resource) {
            (End::Settled(_), Resource::Requests) => account.booked,
            (End::Released, Resource::Requests) => money::subtract(account.booked, 1)?,
            (End::Settled(actual), _) => money::add(account.booked, actual)?,
            (End::Released, _) => account.booked,
        };
        account.open = account.open.saturating_sub(1).max(0);
        if let (true, End::Settled(actual)) = (planted::is(Fault::SettledInNewPeriod), end) {
            account.booked = account.booked.saturating_sub(actual);
            self.current.booked = self.current.booked.saturating_add(actual);
        }
        Ok(())
    }
}
