//! What one unit costs, by how many input tokens the request has.
use serde::Deserialize;

use super::error::PriceError;

/// The dearest price of one unit in pico units of currency: a million currency units.
pub(super) const PICOS_MAX: u64 = 1_000_000_000_000_000_000;
/// How many tiers one price has at most.
pub(super) const TIERS_MAX: usize = 16;

/// A price that changes for *all* units once the input passes a threshold ("cliff" tiers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    base: u64,
    tiers: Vec<Tier>,
}

/// The price of all units of a request with more than `above` input tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Tier {
    above: u64,
    picos: u64,
}

/// How a sheet writes a rate.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RateFile {
    Flat(u64),
    Tiered(TieredFile),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TieredFile {
    base: u64,
    tiers: Vec<Tier>,
}

impl Rate {
    /// The price per unit in pico units for a request with this many input tokens.
    pub(super) fn at(&self, input_tokens: u64) -> u64 {
        let reached = |tier: &&Tier| input_tokens > tier.above;
        self.tiers
            .iter()
            .rev()
            .find(reached)
            .map_or(self.base, |tier| tier.picos)
    }

    /// Whether the unit is free at every tier.
    pub(super) fn is_free(&self) -> bool {
        self.base == 0 && self.tiers.iter().all(|tier| tier.picos == 0)
    }

    /// The input count above which the first tier applies.
    pub(super) fn first_above(&self) -> Option<u64> {
        self.tiers.first().map(|tier| tier.above)
    }

    /// The dearest of several rates over all input counts *up to* the one asked for.
    pub(super) fn dearest(rates: &[&Self]) -> Self {
        let base = rates.iter().map(|rate| rate.base).max().unwrap_or(0);
        let mut dearest = Self {
            base,
            tiers: Vec::new(),
        };
        let mut above: Vec<u64> = rates.iter().flat_map(|rate| rate.thresholds()).collect();
        above.sort_unstable();
        above.dedup();
        for above in above {
            let beyond = above.saturating_add(1);
            let there = rates.iter().map(|rate| rate.at(beyond)).max().unwrap_or(0);
            let picos = there.max(dearest.at(above));
            dearest.tiers.push(Tier { above, picos });
        }
        dearest
    }

    fn thresholds(&self) -> impl Iterator<Item = u64> {
        self.tiers.iter().map(|tier| tier.above)
    }

    fn check(self) -> Result<Self, PriceError> {
        let refuse = |why: &str| Err(PriceError::Sheet(why.to_owned()));
        if self.tiers.len() > TIERS_MAX {
            return refuse("too many tiers");
        }
        if !self.thresholds().is_sorted_by(|left, right| left < right) {
            return refuse("tiers are not in ascending order");
        }
        if self.base > PICOS_MAX || self.tiers.iter().any(|tier| tier.picos > PICOS_MAX) {
            return refuse("a price is too large");
        }
        Ok(self)
    }
}

impl TryFrom<RateFile> for Rate {
    type Error = PriceError;

    fn try_from(file: RateFile) -> Result<Self, PriceError> {
        let rate = match file {
            RateFile::Flat(base) => Self {
                base,
                tiers: Vec::new(),
            },
            RateFile::Tiered(tiered) => Self {
                base: tiered.base,
                tiers: tiered.tiers,
            },
        };
        rate.check()
    }
}
