//! Ids of objects: small numbers inside, Stripe's shape outside (`pi_` and 24 letters and digits).
//!
//! **Owns** the reversible mapping between the two. An id is its kind, its place in the book and the book's salt, so it needs no
//! index, cannot repeat within a book, and ids of two books differ. **Must never** be a secret: these are not. **Read next**:
//! [`crate::book`].

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits that carry salt and number; 62¹¹ exceeds 2⁶⁴.
const CARRYING: usize = 11;
/// Digits after the prefix; those that carry nothing have to agree, so that a mistyped id is unknown, not another.
const LENGTH: usize = 24;

/// What an id names.
pub(crate) trait Kind {
    /// Before the digits.
    const PREFIX: &'static str;
    /// Keeps ids of different kinds with one number apart.
    const TWEAK: u64;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $id:ident, $prefix:literal, $tweak:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) enum $kind {}
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
            const TWEAK: u64 = $tweak;
        }
        $(#[$doc])*
        pub(crate) type $id = Id<$kind>;
    )*};
}

kinds! {
    /// A payment intent.
    OfIntent, IntentId, "pi_", 0x1;
    /// A charge.
    OfCharge, ChargeId, "ch_", 0x2;
    /// A refund.
    OfRefund, RefundId, "re_", 0x3;
    /// An event.
    OfEvent, EventId, "evt_", 0x4;
    /// A request.
    OfRequest, RequestId, "req_", 0x5;
    /// The second half of a client secret.
    OfSecret, SecretId, "secret_", 0x6;
}

/// The id of one object.
pub(crate) struct Id<K> {
    salt: u32,
    number: u32,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Id<K> {
    /// The id of object `number` in the book salted with `salt`.
    pub(crate) fn new(salt: u32, number: u32) -> Self {
        Self { salt, number, kind: PhantomData }
    }

    /// Place in the book.
    pub(crate) fn number(self) -> usize {
        self.number as usize
    }

    /// The book it belongs to.
    pub(crate) fn salt(self) -> u32 {
        self.salt
    }

    /// The same number as an id of another kind.
    pub(crate) fn as_kind<L: Kind>(self) -> Id<L> {
        Id::new(self.salt, self.number)
    }

    fn digits(self) -> [u8; LENGTH] {
        let carried = mix((u64::from(self.salt) << 32 | u64::from(self.number)) ^ tweak::<K>());
        // The kind once more, or an id of one kind would be one of another with its prefix exchanged.
        let second = mix(carried ^ tweak::<K>().rotate_left(32));
        let mut out = [0; LENGTH];
        let (a, rest) = out.split_at_mut(CARRYING);
        let (b, c) = rest.split_at_mut(10);
        for (mut value, part) in [(carried, a), (second, b), (mix(second), c)] {
            for digit in part {
                *digit = DIGITS[(value % 62) as usize];
                value /= 62;
            }
        }
        out
    }
}

fn tweak<K: Kind>() -> u64 {
    K::TWEAK.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The finalizer of splitmix64: every output has one input.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn unmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}

/// Not an id of this kind.
#[derive(Debug, thiserror::Error)]
#[error("not an id that begins with {0}")]
pub(crate) struct NotAnId(&'static str);

impl<K: Kind> FromStr for Id<K> {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let not = NotAnId(K::PREFIX);
        let Some(digits) = text.strip_prefix(K::PREFIX).map(str::as_bytes).filter(|d| d.len() == LENGTH) else {
            return Err(not);
        };
        let mut carried = 0_u64;
        for digit in digits[..CARRYING].iter().rev() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'A'..=b'Z' => digit - b'A' + 10,
                b'a'..=b'z' => digit - b'a' + 36,
                _ => return Err(not),
            };
            let Some(next) = carried.checked_mul(62).and_then(|c| c.checked_add(u64::from(value))) else {
                return Err(not);
            };
            carried = next;
        }
        let both = unmix(carried) ^ tweak::<K>();
        let id = Self::new((both >> 32) as u32, both as u32);
        if id.digits() == digits { Ok(id) } else { Err(not) }
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(K::PREFIX)?;
        let digits = self.digits();
        f.write_str(str::from_utf8(&digits).unwrap_or_default())
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Id<K> {}

impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.salt, self.number) == (other.salt, other.number)
    }
}

impl<K> Eq for Id<K> {}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back() {
        for (salt, number) in [(0, 0), (1, 0), (u32::MAX, u32::MAX), (7, 123_456)] {
            let id = IntentId::new(salt, number);
            let text = id.to_string();
            assert_eq!(text.len(), 27, "{text}");
            assert_eq!(text.parse::<IntentId>().ok(), Some(id), "{text}");
            assert!(text.replace("pi_", "ch_").parse::<ChargeId>().is_err_and(|e| e.to_string().contains("ch_")));
        }
    }

    #[test]
    fn a_mistyped_id_is_no_id() {
        let text = IntentId::new(7, 3).to_string();
        for at in 3..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            let other = String::from_utf8(other).expect("ASCII");
            assert!(other.parse::<IntentId>().is_err(), "{other}");
        }
        for bad in ["", "pi_", "pi_é", "pi_000000000000000000000000", "pi_zzzzzzzzzzzzzzzzzzzzzzzz", "re_1"] {
            assert!(bad.parse::<IntentId>().is_err(), "{bad}");
        }
    }
}
