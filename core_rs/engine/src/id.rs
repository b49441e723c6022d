//! Identifiers: UUIDs of what policy names, the caller's 16 bytes of a reservation; their hashing.
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A UUID; two words, so that a million of them are not padded to 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    high: u64,
    low: u64,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Id {
    /// The nil UUID, which no object has: it stands for "none" where memory counts.
    pub(crate) const NIL: Self = Self { high: 0, low: 0 };

    /// Read a UUID in its hyphenated text form; None if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let hyphens_fit = text.len() == 36
            && text
                .bytes()
                .enumerate()
                .all(|(at, byte)| (byte == b'-') == matches!(at, 8 | 13 | 18 | 23));
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        if !hyphens_fit || digits.len() != 32 {
            return None;
        }
        u128::from_str_radix(&digits, 16).ok().map(Self::from)
    }

    /// Derive the id of what has a name and no UUID of its own.
    ///
    /// The first 16 bytes of SHA-256 over kind, NUL and name; the control plane does the same.
    pub fn of_label(kind: &str, label: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(kind.as_bytes());
        hasher.update([0]);
        hasher.update(label.as_bytes());
        let digest = <[u8; 32]>::from(hasher.finalize());
        let head = digest.iter().take(16);
        Self::from(head.fold(0_u128, |id, byte| id << 8 | u128::from(*byte)))
    }

    pub(crate) fn is_nil(self) -> bool {
        self == Self::NIL
    }

    /// Return the id, or None for nil.
    pub(crate) fn some(self) -> Option<Self> {
        (!self.is_nil()).then_some(self)
    }
}

impl From<u128> for Id {
    fn from(value: u128) -> Self {
        let word = |shift: u32| u64::try_from((value >> shift) & u128::from(u64::MAX)).unwrap_or(0);
        Self {
            high: word(64),
            low: word(0),
        }
    }
}

impl Display for Id {
    /// Write the hyphenated form; by hand, since each decision writes a dozen of them.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let digits = (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes();
        let mut text = [b'-'; 36];
        let mut places = (0..36_usize).filter(|at| !matches!(at, 8 | 13 | 18 | 23));
        for byte in digits {
            for nibble in [byte >> 4, byte & 0xf] {
                let to = places.next().and_then(|at| text.get_mut(at));
                if let (Some(to), Some(digit)) = (to, HEX.get(usize::from(nibble))) {
                    *to = *digit;
                }
            }
        }
        formatter.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = Self::parse(&text).ok_or_else(|| D::Error::custom("not a UUID"))?;
        id.some()
            .ok_or_else(|| D::Error::custom("the nil UUID names nothing"))
    }
}

/// The 16 bytes by which the caller knows a reservation; its idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId([u8; 16]);

impl From<[u8; 16]> for ReservationId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<ReservationId> for [u8; 16] {
    fn from(id: ReservationId) -> Self {
        id.0
    }
}

/// Hash map for ids made by the control plane and for digests, both of which are already uniform.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// Hash set for the same.
pub(crate) type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Folds words by multiplication; callers cannot choose the ids, so `SipHash` would buy nothing.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

/// 2^64 divided by the golden ratio: an odd multiplier that spreads small differences upwards.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut()
                .zip(chunk)
                .for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(SPREAD);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_isize(&mut self, word: isize) {
        self.write_usize(word.unsigned_abs());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(u64::try_from(word).unwrap_or(u64::MAX));
    }
}
