//! What a naive ledger of every reservation says a limit must measure.
use comptroller_engine::Now;
use serde_json::{Value, json};

use crate::fixture::{DAY, S, day, hour, id, limit, minute};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Open,
    Settled {
        tick: usize,
        now: Now,
        actual: [i64; 2],
    },
    Released,
}

/// One reservation; pairs are spend and tokens.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: u128,
    pub model: &'static str,
    pub admitted: Now,
    /// Without an answer.
    pub least: [i64; 2],
    pub held: [i64; 2],
    /// What it can have cost before it asks for more, or has cost.
    pub firm: [i64; 2],
    /// The former alone.
    pub granted: [i64; 2],
    pub bound: [i64; 2],
    /// Output tokens that a stream may relay; None for an answer in one piece.
    pub allowed: Option<i64>,
    pub accrued: [i64; 2],
    /// Step, instant and amount of each piece of progress.
    pub pieces: Vec<(usize, Now, [i64; 2])>,
    pub outcome: Outcome,
}

pub(crate) const MODELS: [&str; 2] = ["gpt-4o", "gpt-4o-mini"];

/// No two of them read one counter: each counter is made with its limit.
fn all_limits() -> Vec<Value> {
    let mut placed = limit(6, "budget organization spend hard", &day(), 1_500);
    placed["where"] = json!({"models": ["gpt-4o"]});
    placed["hold"] = json!("expected");
    let mut narrow = limit(1, "budget key spend hard", &day(), 2_000);
    narrow["hold"] = json!("expected");
    let mut tokens = limit(9, "quota team tokens hard", &hour(), 3_500);
    tokens["hold"] = json!("expected");
    vec![
        narrow,
        limit(2, "budget team spend hard", &day(), 3_000),
        limit(3, "breaker organization spend metered", &minute(), 1_200),
        limit(4, "rate key requests hard", &minute(), 6),
        limit(5, "rate key tokens metered", &hour(), 4_000),
        placed,
        limit(7, "quota organization requests hard", &day(), 25),
        limit(8, "quota member tokens soft", &day(), 10),
        tokens,
    ]
}

pub(crate) fn kept(mask: u16) -> Vec<Value> {
    let is_kept = |place: &usize| mask & (1 << place) != 0;
    all_limits()
        .into_iter()
        .enumerate()
        .filter(|(place, _)| is_kept(place))
        .map(|(_, it)| it)
        .collect()
}

/// Which of an entry's amounts a limit counts; None for requests.
pub(crate) fn pair(limit: &Value) -> Option<usize> {
    match limit["resource"].as_str().unwrap() {
        "spend" => Some(0),
        "tokens" => Some(1),
        _ => None,
    }
}

pub(crate) fn binds(limit: &Value, entry: &Entry) -> bool {
    let is_scope =
        limit["scope"]["kind"] != "key" || limit["scope"]["id"] == id(entry.key).to_string();
    let models = limit["where"]["models"].as_array();
    is_scope && models.is_none_or(|models| models.contains(&json!(entry.model)))
}

/// Tell whether an instant still counts in a limit's window.
fn counts(limit: &Value, then: Now, now: Now) -> bool {
    match limit["window"]["seconds"].as_u64() {
        None => then.wall_ns / DAY == now.wall_ns / DAY,
        Some(seconds) => {
            let bucket_ns = seconds / 60 * S;
            then.mono_ns / bucket_ns + 60 >= now.mono_ns / bucket_ns
        }
    }
}

/// Tell whether an open entry counts in the period of a limit.
pub(crate) fn is_open_on(limit: &Value, entry: &Entry, now: Now) -> bool {
    let is_now = limit["window"]["kind"] == "rolling" || counts(limit, entry.admitted, now);
    entry.outcome == Outcome::Open && binds(limit, entry) && is_now
}

/// The step and the instant at which a limit's counter was made.
pub(crate) type Birth = (usize, Now);

/// Add up what one entry used on a ring.
///
/// A ring made late has settlements where they were settled, and what was in progress at its birth.
fn rolled(limit: &Value, entry: &Entry, pair: usize, birth: Birth, now: Now) -> i64 {
    let in_window = |then: Now| i64::from(counts(limit, then, now));
    let last = match entry.outcome {
        Outcome::Settled {
            tick,
            now: then,
            actual,
        } if tick < birth.0 => {
            return actual[pair] * in_window(then);
        }
        Outcome::Settled {
            now: then, actual, ..
        } => (actual[pair] - entry.accrued[pair]) * in_window(then),
        Outcome::Open | Outcome::Released => 0,
    };
    let moved = |tick: usize, then: Now| if tick < birth.0 { birth.1 } else { then };
    let pieces = entry.pieces.iter();
    last + pieces
        .map(|(tick, then, piece)| piece[pair] * in_window(moved(*tick, *then)))
        .sum::<i64>()
}

/// Add up (used, held) of one entry on one limit.
pub(crate) fn figures(limit: &Value, entry: &Entry, birth: Birth, now: Now) -> (i64, i64) {
    let in_period = i64::from(counts(limit, entry.admitted, now));
    let Some(pair) = pair(limit) else {
        return (in_period * i64::from(entry.outcome != Outcome::Released), 0);
    };
    let held = if limit["hold"] == "bound" {
        entry.bound
    } else {
        entry.held
    };
    let rest = match entry.outcome {
        Outcome::Open => held[pair] - entry.accrued[pair],
        _ => 0,
    };
    if limit["window"]["kind"] == "rolling" {
        return (rolled(limit, entry, pair, birth, now), rest);
    }
    let used = match entry.outcome {
        Outcome::Open => entry.accrued[pair],
        Outcome::Settled { actual, .. } => actual[pair],
        Outcome::Released => 0,
    };
    (in_period * used, in_period * rest)
}
