//! Faults that the simulation must catch, else it is broken itself.
//!
//! All are listed here. The feature `planted` compiles a switch into the places that ask for one;
//! without it none is ever on, and nothing of them is left in the product.

/// One fault, each at a single place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "planted"),
    expect(unreachable_pub, reason = "the simulation alone names them")
)]
pub enum Fault {
    /// A stream that was cut keeps its hold.
    HoldKeptOnCut,
    /// An extension is not checked against limits of the organization.
    ExtensionUnchecked,
    /// A settlement is booked in the period in which it is made.
    SettledInNewPeriod,
    /// A request in the line is admitted when it is looked at.
    WaiterUnchecked,
    /// The oldest stream is cut.
    OldestCut,
    /// Nobody is told that a stream is cut.
    CutUntold,
    /// The last rest is granted although another request is open.
    RestWhileOpen,
    /// What belongs to a label is counted twice.
    LabelTwice,
    /// A refusal leaves a hold behind.
    RefusalHolds,
    /// A share of a cap is told as often as it is found reached.
    CrossingTwice,
    /// A charge is rounded down.
    ChargeRoundedDown,
    /// An edit of a policy forgets what its counters have counted.
    EditForgets,
    /// A waiter may be passed by whoever comes.
    LinePassed,
    /// A window forgets its oldest partial bucket.
    WindowShort,
}

/// All faults.
#[cfg(feature = "planted")]
pub const FAULTS: [Fault; 14] = [
    Fault::HoldKeptOnCut,
    Fault::ExtensionUnchecked,
    Fault::SettledInNewPeriod,
    Fault::WaiterUnchecked,
    Fault::OldestCut,
    Fault::CutUntold,
    Fault::RestWhileOpen,
    Fault::LabelTwice,
    Fault::RefusalHolds,
    Fault::CrossingTwice,
    Fault::ChargeRoundedDown,
    Fault::EditForgets,
    Fault::LinePassed,
    Fault::WindowShort,
];

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Switch one fault on in this thread, and all others off.
#[cfg(feature = "planted")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.with(|planted| planted.set(fault));
}

#[cfg(feature = "planted")]
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.with(|planted| planted.get() == Some(fault))
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}
