//! What was used and what is held of one resource, in one scope and place, over one window.
//!
//! A counter is shared by all limits that name the same and knows none of them: editing a limit
//! never changes what has been used. A new calendar period is a new account, so nothing is reset;
//! earlier ones stay while reservations admitted in them are open.
use crate::calendar::{Bounds, Calendar};
use crate::error::Result;
use crate::limit::{Limit, Place, Resource};
use crate::money;
use crate::reservation::Part;
use crate::time::Now;
use crate::window::{Ring, Rolling, Window};

/// What a limit compares with its cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Settled, and what open requests have cost or used so far.
    pub(crate) used: i64,
    /// The rest of what open requests hold.
    pub(crate) held: i64,
    /// Of `used`, what is settled.
    pub(crate) settled: i64,
}

impl Measure {
    /// Return what hard limits count.
    pub(crate) fn hard(&self) -> Result<i64> {
        money::add(self.used, self.held)
    }
}

/// One counter.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) place: Option<Place>,
    pub(crate) resource: Resource,
    pub(crate) window: Window,
    meter: Meter,
}

#[derive(Debug)]
enum Meter {
    Rolling(Box<RollingMeter>),
    Calendar(CalendarMeter),
}

/// Open reservations' part that is in the ring already is `accrued`; `held` includes it.
#[derive(Debug)]
struct RollingMeter {
    ring: Ring,
    held: i64,
    accrued: i64,
}

#[derive(Debug)]
struct CalendarMeter {
    calendar: Calendar,
    current: Account,
    earlier: Vec<Account>,
}

/// One calendar period; `held` includes `accrued`, `booked` does not.
#[derive(Debug)]
struct Account {
    bounds: Bounds,
    booked: i64,
    held: i64,
    accrued: i64,
    open: u32,
}

impl Account {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            booked: 0,
            held: 0,
            accrued: 0,
            open: 0,
        }
    }

    fn measure(&self) -> Measure {
        Measure {
            used: self.booked.saturating_add(self.accrued),
            held: self.held.saturating_sub(self.accrued),
            settled: self.booked,
        }
    }
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
            Window::Calendar(calendar) => Meter::Calendar(CalendarMeter {
                calendar: calendar.clone(),
                current: Account::new(calendar.bounds(now.wall_ns)?),
                earlier: Vec::new(),
            }),
        };
        Ok(Self {
            place,
            resource,
            window,
            meter,
        })
    }

    pub(crate) fn matches(&self, model: &str, provider: &str) -> bool {
        self.place
            .as_ref()
            .is_none_or(|place| place.matches(model, provider))
    }

    pub(crate) fn is_of(&self, place: Option<&Place>, resource: Resource, window: &Window) -> bool {
        self.place.as_ref() == place && self.resource == resource && self.window == *window
    }

    pub(crate) fn serves(&self, limit: &Limit) -> bool {
        self.is_of(limit.place.as_ref(), limit.resource, &limit.window)
    }

    /// Go on to an instant: buckets leave, a new period begins.
    pub(crate) fn roll(&mut self, now: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => meter.ring.roll(now.mono_ns),
            Meter::Calendar(meter) => meter.roll(now.wall_ns)?,
        }
        Ok(())
    }

    /// Return the measure of the window at the instant of the last roll.
    pub(crate) fn measure(&self) -> Measure {
        match &self.meter {
            Meter::Rolling(meter) => meter.measure(),
            Meter::Calendar(meter) => meter.current.measure(),
        }
    }

    /// Return the measure of the period of an admission; None if it is not kept.
    pub(crate) fn measure_at(&self, admitted: Now) -> Option<Measure> {
        match &self.meter {
            Meter::Rolling(meter) => Some(meter.measure()),
            Meter::Calendar(meter) => meter.account(admitted.wall_ns).map(Account::measure),
        }
    }

    /// Tell whether a reservation admitted then belongs to a period that is over.
    pub(crate) fn is_over(&self, admitted: Now) -> bool {
        match &self.meter {
            Meter::Rolling(_) => false,
            Meter::Calendar(meter) => !meter.current.bounds.contains(admitted.wall_ns),
        }
    }

    /// Return after how long `used` is at most `target` if nothing is added; None for never.
    pub(crate) fn falls_to_ns(&self, target: i64, now: Now) -> Option<u64> {
        match &self.meter {
            Meter::Rolling(meter) => meter.ring.falls_to_ns(target, now.mono_ns),
            Meter::Calendar(meter) => {
                (target >= 0).then(|| meter.current.bounds.ends_at_ns.saturating_sub(now.wall_ns))
            }
        }
    }

    /// Return the bounds of the window at the instant of the last roll.
    pub(crate) fn bounds(&self, now: Now) -> Result<Bounds> {
        match &self.meter {
            Meter::Rolling(_) => self.window.bounds(now),
            Meter::Calendar(meter) => Ok(meter.current.bounds),
        }
    }

    /// Tell whether an amount can be added without overflow.
    pub(crate) fn check_room(&self, amount: i64, admitted: Now) -> Result<()> {
        let measure = self.measure_at(admitted).unwrap_or_default();
        money::add(measure.hard()?, amount).map(|_| ())
    }

    /// Begin a reservation: count the request, or hold and accrue its part.
    pub(crate) fn open(&mut self, part: Part, admitted: Now, now: Now) -> Result<()> {
        let resource = self.resource;
        match &mut self.meter {
            Meter::Rolling(meter) if resource == Resource::Requests => {
                meter.ring.add(1, admitted.mono_ns)
            }
            Meter::Rolling(meter) => {
                meter.hold(part.held)?;
                meter.accrue(part.accrued, now)
            }
            Meter::Calendar(meter) => {
                let Some(account) = meter.account_mut(admitted.wall_ns) else {
                    return Ok(());
                };
                account.open = account.open.saturating_add(1);
                if resource == Resource::Requests {
                    account.booked = money::add(account.booked, 1)?;
                }
                account.held = money::add(account.held, part.held)?;
                account.accrued = money::add(account.accrued, part.accrued)?;
                Ok(())
            }
        }
    }

    /// Add to what an open reservation holds.
    pub(crate) fn hold(&mut self, amount: i64, admitted: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => meter.hold(amount),
            Meter::Calendar(meter) => {
                let Some(account) = meter.account_mut(admitted.wall_ns) else {
                    return Ok(());
                };
                account.held = money::add(account.held, amount)?;
                Ok(())
            }
        }
    }

    /// Count a part of what an open reservation holds as used.
    pub(crate) fn accrue(&mut self, amount: i64, admitted: Now, now: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => meter.accrue(amount, now),
            Meter::Calendar(meter) => {
                let Some(account) = meter.account_mut(admitted.wall_ns) else {
                    return Ok(());
                };
                account.accrued = money::add(account.accrued, amount)?;
                Ok(())
            }
        }
    }

    /// End a reservation in the period that admitted it.
    pub(crate) fn close(&mut self, part: Part, end: End, admitted: Now, now: Now) -> Result<()> {
        let resource = self.resource;
        match &mut self.meter {
            Meter::Rolling(meter) if resource == Resource::Requests => {
                if matches!(end, End::Released) {
                    meter.ring.take_at(1, admitted.mono_ns);
                }
                Ok(())
            }
            Meter::Rolling(meter) => meter.close(part, end, admitted, now),
            Meter::Calendar(meter) => meter.close(resource, part, end, admitted),
        }
    }

    /// Start from what was booked before the counter was made; `at` the event, seen from `now`.
    pub(crate) fn seed(&mut self, amount: i64, at_wall_ns: u64, now: Now) -> Result<()> {
        match &mut self.meter {
            Meter::Rolling(meter) => {
                let age_ns = now.wall_ns.saturating_sub(at_wall_ns);
                meter.ring.add_aged(amount, now.mono_ns, age_ns)
            }
            Meter::Calendar(meter) => meter.seed(amount, at_wall_ns),
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
            Meter::Calendar(meter) => meter.seed(amount, admitted.wall_ns),
        }
    }

    /// Return after how long what is used now, or will be at once, is used no more.
    pub(crate) fn passes_ns(&self, now: Now) -> u64 {
        match &self.meter {
            Meter::Rolling(meter) => meter.ring.passes_ns(now.mono_ns),
            Meter::Calendar(_) => self.falls_to_ns(0, now).unwrap_or(0),
        }
    }

    /// Return after how long nothing is used any more if nothing is added.
    pub(crate) fn empties_ns(&self, now: Now) -> u64 {
        match &self.meter {
            Meter::Rolling(meter) => meter.ring.empties_ns(now.mono_ns),
            Meter::Calendar(_) => self.falls_to_ns(0, now).unwrap_or(0),
        }
    }
}

impl RollingMeter {
    fn new(rolling: Rolling, now: Now) -> Self {
        Self {
            ring: Ring::new(rolling, now.mono_ns),
            held: 0,
            accrued: 0,
        }
    }

    fn measure(&self) -> Measure {
        Measure {
            used: self.ring.sum(),
            held: self.held.saturating_sub(self.accrued),
            settled: self.ring.sum().saturating_sub(self.accrued).max(0),
        }
    }

    fn hold(&mut self, amount: i64) -> Result<()> {
        self.held = money::add(self.held, amount)?;
        Ok(())
    }

    fn accrue(&mut self, amount: i64, now: Now) -> Result<()> {
        self.ring.add(amount, now.mono_ns)?;
        self.accrued = money::add(self.accrued, amount)?;
        Ok(())
    }

    fn close(&mut self, part: Part, end: End, admitted: Now, now: Now) -> Result<()> {
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
        self.held = money::subtract(self.held, part.held)?;
        self.accrued = money::subtract(self.accrued, part.accrued)?;
        Ok(())
    }
}

impl CalendarMeter {
    fn roll(&mut self, wall_ns: u64) -> Result<()> {
        self.earlier.retain(|earlier| earlier.open > 0);
        if wall_ns < self.current.bounds.ends_at_ns {
            return Ok(());
        }
        let next = Account::new(self.calendar.bounds(wall_ns)?);
        let over = std::mem::replace(&mut self.current, next);
        if over.open > 0 {
            self.earlier.push(over);
        }
        Ok(())
    }

    fn account(&self, wall_ns: u64) -> Option<&Account> {
        std::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|account| account.bounds.contains(wall_ns))
    }

    fn account_mut(&mut self, wall_ns: u64) -> Option<&mut Account> {
        std::iter::once(&mut self.current)
            .chain(&mut self.earlier)
            .find(|account| account.bounds.contains(wall_ns))
    }

    fn seed(&mut self, amount: i64, wall_ns: u64) -> Result<()> {
        if self.current.bounds.contains(wall_ns) {
            self.current.booked = money::add(self.current.booked, amount)?;
        }
        Ok(())
    }

    fn close(&mut self, resource: Resource, part: Part, end: End, admitted: Now) -> Result<()> {
        // A counter made in a later period than that of the admission never knew the reservation.
        let Some(account) = self.account_mut(admitted.wall_ns) else {
            return Ok(());
        };
        account.held = money::subtract(account.held, part.held)?;
        account.accrued = money::subtract(account.accrued, part.accrued)?;
        account.booked = match (end, resource) {
            (End::Settled(_), Resource::Requests) => account.booked,
            (End::Released, Resource::Requests) => money::subtract(account.booked, 1)?,
            (End::Settled(actual), _) => money::add(account.booked, actual)?,
            (End::Released, _) => account.booked,
        };
        account.open = account.open.saturating_sub(1);
        Ok(())
    }
}
