//! What was used and what is held of one resource, in one scope and place, over one window.
//!
//! A counter is shared by all limits that name the same and knows none of them: editing a limit
//! never changes what has been used. A new calendar period is a new account, so nothing is reset;
//! earlier ones stay while reservations admitted in them are open.
mod meter;

use crate::calendar::Bounds;
use crate::error::Result;
use crate::limit::{Hold, Limit, Place, Resource, Subject};
use crate::money;
use crate::reservation::Part;
use crate::time::{NEVER_NS, Now};
use crate::window::Window;
use meter::{Account, PeriodMeter, RollingMeter, gauge};

/// What open reservations hold, by the two kinds of hold; both include what is used already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) expected: i64,
    pub(crate) bound: i64,
    /// What streams can have cost before they must ask for more; at most `expected`.
    pub(crate) firm: i64,
}

impl Held {
    pub(crate) fn of(self, hold: Hold) -> i64 {
        match hold {
            Hold::Expected => self.expected,
            Hold::Bound => self.bound,
        }
    }

    fn most(self) -> i64 {
        self.bound.max(self.expected)
    }

    fn add(&mut self, more: Self) -> Result<()> {
        *self = Self {
            expected: money::add(self.expected, more.expected)?,
            bound: money::add(self.bound, more.bound)?,
            firm: money::add(self.firm, more.firm)?,
        };
        Ok(())
    }

    fn take(&mut self, part: Self) -> Result<()> {
        *self = Self {
            expected: money::subtract(self.expected, part.expected)?,
            bound: money::subtract(self.bound, part.bound)?,
            firm: money::subtract(self.firm, part.firm)?,
        };
        Ok(())
    }
}

/// What a limit compares with its cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Settled, and what open requests have cost or used so far.
    pub(crate) used: i64,
    /// Of `used`, what is settled.
    pub(crate) settled: i64,
    /// Open reservations.
    pub(crate) open: i64,
    held: Held,
}

impl Measure {
    /// Return the rest of what open requests hold.
    pub(crate) fn held(&self, hold: Hold) -> i64 {
        let accrued = self.used.saturating_sub(self.settled);
        self.held.of(hold).saturating_sub(accrued)
    }

    /// Return what hard limits count.
    pub(crate) fn hard(&self, hold: Hold) -> Result<i64> {
        money::add(self.used, self.held(hold))
    }

    /// Return the same as a stream sees it that must go on: others hold what they may relay.
    pub(crate) fn firmly(self) -> Self {
        let expected = self.held.firm;
        Self {
            held: Held {
                expected,
                ..self.held
            },
            ..self
        }
    }

    /// Return the same as a limit sees it from whose sum something is taken off.
    pub(crate) fn less(self, offset: i64) -> Self {
        Self {
            used: self.used.saturating_sub(offset).max(0),
            settled: self.settled.saturating_sub(offset).max(0),
            ..self
        }
    }
}

/// One counter.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pub(crate) place: Option<Place>,
    pub(crate) resource: Resource,
    pub(crate) window: Window,
    meter: Meter,
}

#[derive(Clone, Debug)]
enum Meter {
    Rolling(Box<RollingMeter>),
    Periods(Box<PeriodMeter>),
    Gauge(i64),
}

/// How a reservation ends on one counter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Settled(i64),
    Released,
}

impl Counter {
    pub(crate) fn new(
        place: Option<Place>,
        resource: Resource,
        window: Window,
        now: Now,
    ) -> Result<Self> {
        let meter = match &window {
            Window::Rolling(rolling) => Meter::Rolling(Box::new(RollingMeter::new(*rolling, now))),
            Window::Calendar(calendar) => Meter::Periods(Box::new(PeriodMeter {
                calendar: Some(calendar.clone()),
                current: Account::new(calendar.bounds(now.wall_ns)?),
                earlier: Vec::new(),
            })),
            Window::Lifetime { .. } => Meter::Periods(Box::new(PeriodMeter {
                calendar: None,
                current: Account::new(window.bounds(now)?),
                earlier: Vec::new(),
            })),
            Window::Now => Meter::Gauge(0),
        };
        Ok(Self {
            place,
            resource,
            window,
            meter,
        })
    }

    /// Make an empty counter of the same kind.
    pub(crate) fn emptied(&self, now: Now) -> Result<Self> {
        Self::new(self.place.clone(), self.resource, self.window.clone(), now)
    }

    pub(crate) fn matches(&self, subject: &Subject) -> bool {
        self.place
            .as_ref()
            .is_none_or(|place| place.matches(subject))
    }

    pub(crate) fn is_of(&self, place: Option<&Place>, resource: Resource, window: &Window) -> bool {
        self.place.as_ref() == place && self.resource == resource && self.window == *window
    }

    pub(crate) fn serves(&self, limit: &Limit) -> bool {
        self.is_of(limit.place.as_ref(), limit.resource, &limit.window)
    }

    /// Tell whether the ledger can say what it starts from.
    pub(crate) fn is_seeded(&self) -> bool {
        !matches!(self.meter, Meter::Gauge(_))
    }

    /// Go on to an instant: buckets leave, a new period begins.
    ///
    /// Returns the largest sum that is kept of the window at that instant.
    pub(crate) fn roll(&mut self, now: Now) -> Result<i64> {
        Ok(match &mut self.meter {
            Meter::Rolling(meter) => {
                meter.ring.roll(now.mono_ns);
                meter.most()
            }
            Meter::Periods(meter) => {
                meter.roll(now.wall_ns)?;
                meter.current.most()
            }
            Meter::Gauge(open) => *open,
        })
    }

    /// Return the measure of the window at the instant of the last roll.
    pub(crate) fn measure(&self) -> Measure {
        match &self.meter {
            Meter::Rolling(meter) => meter.measure(),
            Meter::Periods(meter) => meter.current.measure(),
            Meter::Gauge(open) => gauge(*open),
        }
    }

    /// Return the measure of the period of an admission; None if it is not kept.
    pub(crate) fn measure_at(&self, admitted: Now) -> Option<Measure> {
        match &self.meter {
            Meter::Rolling(meter) => Some(meter.measure()),
            Meter::Periods(meter) => meter.account(admitted.wall_ns).map(Account::measure),
            Meter::Gauge(open) => Some(gauge(*open)),
        }
    }

    /// Return when the period of an admission began; None without periods.
    pub(crate) fn period_of(&self, admitted: Now) -> Option<Bounds> {
        match &self.meter {
            Meter::Periods(meter) => meter
                .account(admitted.wall_ns)
                .map(|account| account.bounds),
            Meter::Rolling(_) | Meter::Gauge(_) => None,
        }
    }

    /// Tell whether a reservation admitted then belongs to a period that is over.
    pub(crate) fn is_over(&self, admitted: Now) -> bool {
        match &self.meter {
            Meter::Periods(meter) => !meter.current.bounds.contains(admitted.wall_ns),
            Meter::Rolling(_) | Meter::Gauge(_) => false,
        }
    }

    /// Tell whether nothing is used, held or remembered, so that a new one would be the same.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.meter {
            Meter::Rolling(meter) => {
                meter.ring.sum() == 0 && meter.open == 0 && meter.held == Held::default()
            }
            Meter::Periods(meter) => {
                meter.earlier.is_empty() && meter.current.booked == 0 && meter.current.open == 0
            }
            Meter::Gauge(open) => *open == 0,
        }
    }

    /// Return after how long `used` is at most `target` if nothing is added; None for never.
    pub(crate) fn falls_to_ns(&self, target: i64, now: Now) -> Option<u64> {
        match &self.meter {
            Meter::Rolling(meter) => meter.ring.falls_to_ns(target, now.mono_ns),
            Meter::Periods(meter) => {
                let ends_at_ns = meter.current.bounds.ends_at_ns;
                (target >= 0 && ends_at_ns < NEVER_NS)
                    .then(|| ends_at_ns.saturating_sub(now.wall_ns))
            }
            Meter::Gauge(_) => None,
        }
    }

    /// Return the bounds of the window at the instant of the last roll.
    pub(crate) fn bounds(&self, now: Now) -> Result<Bounds> {
        match &self.meter {
            Meter::Periods(meter) => Ok(meter.current.bounds),
            Meter::Rolling(_) | Meter::Gauge(_) => self.window.bounds(now),
        }
    }

    /// Tell whether an amount can be added without overflow.
    pub(crate) fn check_room(&self, amount: i64, admitted: Now) -> Result<()> {
        let most = match &self.meter {
            Meter::Rolling(meter) => meter.most(),
            Meter::Periods(meter) => match meter.account(admitted.wall_ns) {
                Some(account) => account.most(),
                None => return Ok(()),
            },
            Meter::Gauge(open) => *open,
        };
        money::add(most, amount).map(|_| ())
    }

    /// Begin a reservation: count the request, or hold and accrue its part.
    pub(crate) fn open(&mut self, part: Part, admitted: Now, now: Now) -> Result<()> {
        let resource = self.resource;
        match &mut self.meter {
            Meter::Rolling(meter) => {
                meter.open = meter.open.saturating_add(1);
                if resource == Resource::Requests {
                    return meter.ring.add(1, admitted.mono_ns);
                }
                meter.held.add(part.held)?;
                meter.accrue(part.accrued, now)
            }
            Meter::Periods(meter) => {
                let Some(account) = meter.account_mut(admitted.wall_ns) else {
                    return Ok(());
                };
                account.open = account.open.saturating_add(1);
                if resource == Resource::Requests {
                    account.booked = money::add(account.booked, 1)?;
                }
                account.held.add(part.held)?;
                account.accrued = money::add(account.accrued, part.accrued)?;
                Ok(())
            }
            Meter::Gauge(open) => {
                *open = open.saturating_add(1);
                Ok(())
            }
        }
    }

    /// Add to what an open reservation holds.
    pub(crate) fn hold(&mut self, more: Held, admitted: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => meter.held.add(more),
            Meter::Periods(meter) => match meter.account_mut(admitted.wall_ns) {
                Some(account) => account.held.add(more),
                None => Ok(()),
            },
            Meter::Gauge(_) => Ok(()),
        }
    }

    /// Count a part of what an open reservation holds as used.
    pub(crate) fn accrue(&mut self, amount: i64, admitted: Now, now: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => meter.accrue(amount, now),
            Meter::Periods(meter) => {
                let Some(account) = meter.account_mut(admitted.wall_ns) else {
                    return Ok(());
                };
                account.accrued = money::add(account.accrued, amount)?;
                Ok(())
            }
            Meter::Gauge(_) => Ok(()),
        }
    }

    /// End a reservation in the period that admitted it.
    pub(crate) fn close(&mut self, part: Part, end: End, admitted: Now, now: Now) -> Result<()> {
        let resource = self.resource;
        match &mut self.meter {
            Meter::Rolling(meter) => meter.close(resource, part, end, admitted, now),
            Meter::Periods(meter) => meter.close(resource, part, end, admitted),
            Meter::Gauge(open) => {
                *open = open.saturating_sub(1).max(0);
                Ok(())
            }
        }
    }

    /// Start from what was booked before the counter was made; `at` the event, seen from `now`.
    pub(crate) fn seed(&mut self, amount: i64, at_wall_ns: u64, now: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => {
                let age_ns = now.wall_ns.saturating_sub(at_wall_ns);
                meter.ring.add_aged(amount, now.mono_ns, age_ns)
            }
            Meter::Periods(meter) => meter.seed(amount, at_wall_ns),
            Meter::Gauge(_) => Ok(()),
        }
    }

    /// Start from a settlement that the ledger does not have yet.
    pub(crate) fn book_past(&mut self, amount: i64, admitted: Now, settled: Now) -> Result<()> {
        let counted_at = if self.resource == Resource::Requests {
            admitted
        } else {
            settled
        };
        match &mut self.meter {
            Meter::Rolling(meter) => meter.ring.add(amount, counted_at.mono_ns),
            Meter::Periods(meter) => meter.seed(amount, admitted.wall_ns),
            Meter::Gauge(_) => Ok(()),
        }
    }

    /// Return after how long what is used now, or will be at once, is used no more.
    pub(crate) fn passes_ns(&self, now: Now) -> u64 {
        match &self.meter {
            Meter::Rolling(meter) => meter.ring.passes_ns(now.mono_ns),
            Meter::Periods(_) | Meter::Gauge(_) => self.falls_to_ns(0, now).unwrap_or(0),
        }
    }

    /// Return after how long nothing is used any more if nothing is added; None for never.
    pub(crate) fn empties_ns(&self, now: Now) -> Option<u64> {
        match &self.meter {
            Meter::Rolling(meter) => Some(meter.ring.empties_ns(now.mono_ns)),
            Meter::Periods(_) | Meter::Gauge(_) => self.falls_to_ns(0, now),
        }
    }
}
