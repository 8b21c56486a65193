//! The nouns: newtypes whose constructors refuse what is invalid, so that nothing inside checks again.
//!
//! **Owns** ids, quantities, times, names and policies. **Must never** decide anything about stock.
//! **Read next**: [`crate::command`].

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use compact_str::CompactString;

use crate::limits;

/// Why a value could not be made. Every variant says which rule was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// The text is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of value.
        what: &'static str,
    },
    /// The text is too long.
    #[error("{what} has {got} bytes, at most {max} are allowed")]
    TooLong {
        /// Which kind of value.
        what: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character that is not allowed: control characters and white space are refused in names.
    #[error("{what} contains a character that is not allowed at byte {at}")]
    BadCharacter {
        /// Which kind of value.
        what: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// A number outside its range.
    #[error("{what} is {got}, allowed is {min} to {max}")]
    OutOfRange {
        /// Which kind of value.
        what: &'static str,
        /// Value given.
        got: i128,
        /// Smallest allowed.
        min: i128,
        /// Largest allowed.
        max: i128,
    },
    /// Not a currency code.
    #[error("{got:?} is not a currency: it must be three letters as in ISO 4217")]
    NotACurrency {
        /// The text given, shortened.
        got: String,
    },
    /// Not a UUIDv7 of the RFC 9562 variant.
    #[error("{got:?} is not a reservation id: it must be a UUIDv7 whose rand_a bits are the slot of its product")]
    NotAReservationId {
        /// The text or bytes given, shortened.
        got: String,
    },
}

/// Bytes that a text takes beside its own place: short ones stand in it.
pub(crate) fn text_bytes(text: &str) -> u64 {
    if text.len() > size_of::<CompactString>() { text.len() as u64 } else { 0 }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, spaces: $spaces:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            /// Makes one.
            ///
            /// # Errors
            /// [`InvalidValue`] when empty, too long, or with a control character (or white space, in names).
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidValue> {
                let text = text.as_ref();
                check_text($what, text, $max, $spaces)?;
                Ok(Self(CompactString::new(text)))
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0.as_str())
            }
        }
        impl FromStr for $name {
            type Err = InvalidValue;
            fn from_str(s: &str) -> Result<Self, InvalidValue> {
                Self::new(s)
            }
        }
    };
}

/// Whether all bytes are printable ASCII other than the space: what nearly every name is made of. Eight at a time, the last eight once more in place of
/// a remainder.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // A byte below 0x80 reaches 0x80 by adding 0x5f when it is 0x21 or more, and by adding 1 when it is 0x7f: no sum carries into the next.
    let odd = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let low = word & !HIGH;
        word | !(low + 0x5f * ONES) | (low + ONES)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    match bytes.last_chunk::<8>() {
        Some(&last) => (words.iter().fold(odd(last), |seen, &word| seen | odd(word)) & HIGH) == 0,
        None => rest.iter().all(|b| (0x21..0x7f).contains(b)),
    }
}

pub(crate) fn check_text(what: &'static str, text: &str, max: usize, spaces: bool) -> Result<(), InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::Empty { what });
    }
    if text.len() > max {
        return Err(InvalidValue::TooLong { what, got: text.len(), max });
    }
    if !is_plain(text.as_bytes())
        && let Some((at, _)) =
            text.char_indices().find(|&(_, c)| c.is_control() || (c.is_whitespace() && !(spaces && c == ' ')))
    {
        return Err(InvalidValue::BadCharacter { what, at });
    }
    Ok(())
}

pub(crate) use name_type;

name_type!(
    /// A product's stock-keeping unit, up to 64 bytes. A `{tag}` in it decides the slot alone, as in Redis Cluster.
    Sku, "SKU", limits::SKU_BYTES_MAX, spaces: false
);
name_type!(
    /// A sale's id, up to 48 bytes. The same id on several products makes them one sale.
    SaleId, "sale id", limits::SALE_ID_BYTES_MAX, spaces: false
);
name_type!(
    /// An opaque key that a limit counts by (account, address, card, …), up to 64 bytes.
    LimitKey, "limit key", limits::LIMIT_KEY_BYTES_MAX, spaces: true
);
name_type!(
    /// The caller's reference of a receive, adjust, return or allot; unique per product; makes it idempotent.
    Reference, "reference", limits::REFERENCE_BYTES_MAX, spaces: true
);
name_type!(
    /// A free-text reason, kept in history.
    Reason, "reason", limits::REASON_BYTES_MAX, spaces: true
);
name_type!(
    /// An opaque price note on an offer; the ledger never computes with it.
    Price, "price", limits::PRICE_BYTES_MAX, spaces: true
);

impl Sku {
    /// No other sorts before it: names have no control characters and no spaces.
    pub(crate) fn first() -> Self {
        Self(CompactString::const_new("!"))
    }
}

/// One of the 4,096 slots; a slot belongs to exactly one shard at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

/// Frozen seed of the slot hash. Golden vectors in tests keep it so.
const SLOT_SEED: u64 = 0x486f_6c64_6661_7374; // "Holdfast"

impl Slot {
    /// Makes one from its number.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`] at 4,096 or above.
    pub fn new(n: u16) -> Result<Self, InvalidValue> {
        if n >= limits::SLOTS {
            return Err(InvalidValue::OutOfRange {
                what: "slot",
                got: n.into(),
                min: 0,
                max: i128::from(limits::SLOTS) - 1,
            });
        }
        Ok(Self(n))
    }
    /// The slot of a SKU: `xxh3_64(sku, seed) % 4096`, or of its first non-empty `{tag}`.
    pub fn of(sku: &Sku) -> Self {
        let text = sku.as_str();
        let hashed =
            match text.find('{').and_then(|open| text[open + 1..].find('}').map(|len| &text[open + 1..open + 1 + len]))
            {
                Some(tag) if !tag.is_empty() => tag,
                _ => text,
            };
        Self((xxhash_rust::xxh3::xxh3_64_with_seed(hashed.as_bytes(), SLOT_SEED) % u64::from(limits::SLOTS)) as u16)
    }
    /// Its number, below 4,096.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// A reservation's id: a UUIDv7 whose 12 `rand_a` bits are the slot of its product.
///
/// It is the idempotency key and it routes: every verb finds its shard by the id alone.
/// The caller makes it and stores it before asking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId([u8; 16]);

impl ReservationId {
    /// Builds an id from its slot, its time (Unix milliseconds, 48 bits) and 62 random bits.
    pub fn from_parts(slot: Slot, time_ms: u64, random: u64) -> Self {
        let mut b = [0u8; 16];
        b[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
        b[6] = 0x70 | (slot.0 >> 8) as u8;
        b[7] = slot.0 as u8;
        b[8..].copy_from_slice(&((random & (u64::MAX >> 2)) | (0b10 << 62)).to_be_bytes());
        Self(b)
    }
    /// Checks 16 bytes for version 7 and the RFC 9562 variant.
    ///
    /// # Errors
    /// [`InvalidValue::NotAReservationId`].
    pub fn from_bytes(b: [u8; 16]) -> Result<Self, InvalidValue> {
        if b[6] >> 4 != 7 || b[8] >> 6 != 0b10 {
            return Err(InvalidValue::NotAReservationId { got: Self(b).to_string() });
        }
        Ok(Self(b))
    }
    /// Checks a slice as [`Self::from_bytes`] does.
    ///
    /// # Errors
    /// [`InvalidValue::NotAReservationId`], also for a wrong length.
    pub fn from_slice(b: &[u8]) -> Result<Self, InvalidValue> {
        let array: [u8; 16] =
            b.try_into().map_err(|_| InvalidValue::NotAReservationId { got: format!("{} bytes", b.len()) })?;
        Self::from_bytes(array)
    }
    /// The slot the id routes to.
    pub fn slot(self) -> Slot {
        Slot((u16::from(self.0[6] & 0x0f) << 8) | u16::from(self.0[7]))
    }
    /// The id's time in Unix milliseconds.
    pub fn time_ms(self) -> u64 {
        let mut t = [0u8; 8];
        t[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(t)
    }
    /// The 16 bytes; their order is the ids' order.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
impl fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for ReservationId {
    type Err = InvalidValue;
    fn from_str(s: &str) -> Result<Self, InvalidValue> {
        let bad = || InvalidValue::NotAReservationId { got: s.chars().take(48).collect() };
        if s.len() != 36 || !s.is_ascii() {
            return Err(bad());
        }
        let mut b = [0u8; 16];
        let mut n = 0;
        let raw = s.as_bytes();
        let mut i = 0;
        while i < 36 {
            if matches!(i, 8 | 13 | 18 | 23) {
                if raw[i] != b'-' {
                    return Err(bad());
                }
                i += 1;
                continue;
            }
            let hex = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
            let (Some(high), Some(low)) = (hex(raw[i]), hex(raw[i + 1])) else { return Err(bad()) };
            b[n] = high << 4 | low;
            n += 1;
            i += 2;
        }
        Self::from_bytes(b).map_err(|_| bad())
    }
}

/// Units of one line: 1 to [`limits::QUANTITY_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(NonZeroU32);

impl Quantity {
    /// Makes one.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`] for zero, negative or above the bound.
    pub fn new(n: i64) -> Result<Self, InvalidValue> {
        u32::try_from(n).ok().filter(|&n| n <= limits::QUANTITY_MAX).and_then(NonZeroU32::new).map(Self).ok_or(
            InvalidValue::OutOfRange { what: "quantity", got: n.into(), min: 1, max: limits::QUANTITY_MAX.into() },
        )
    }
    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Units received, adjusted, allotted: 1 to [`limits::UNITS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u64);

impl Units {
    /// Makes one.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`] for zero, negative or above the bound.
    pub fn new(n: i64) -> Result<Self, InvalidValue> {
        u64::try_from(n).ok().filter(|&n| n > 0 && n <= limits::UNITS_MAX).map(Self).ok_or(InvalidValue::OutOfRange {
            what: "units",
            got: n.into(),
            min: 1,
            max: i128::from(limits::UNITS_MAX),
        })
    }
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Ledger time: Unix milliseconds as stamped by leaders and advanced by `apply` alone. Never a node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LedgerTime(pub u64);

impl LedgerTime {
    /// This time plus an interval, saturating.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
    /// This time minus an interval, saturating at zero.
    pub fn minus(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// An offer: a product's plain stock (`sale` is none), or its allotment in one sale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferKey {
    /// The product.
    pub sku: Sku,
    /// The sale, or none for the plain offer.
    pub sale: Option<SaleId>,
}

/// One line of a reservation: so many units of one offer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Which offer.
    pub offer: OfferKey,
    /// How many units.
    pub quantity: Quantity,
}

/// What an offer allows. Everything here goes through the log, so every replica agrees on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Closed offers refuse new reservations; holds in them live on.
    pub open: bool,
    /// First instant at which reservations are taken; none means from ever.
    pub opens_at: Option<LedgerTime>,
    /// First instant at which reservations are no longer taken; none means never ends.
    pub closes_at: Option<LedgerTime>,
    /// Units that one limit key may hold and have bought in this offer; none means no limit.
    pub per_key_max: Option<u32>,
    /// Fewest units one reservation may take from this offer.
    pub per_order_min: u32,
    /// Most units one reservation may take from this offer.
    pub per_order_max: u32,
    /// Hold time when the caller names none, milliseconds.
    pub hold_ms_default: u64,
    /// Longest hold time a caller may name, milliseconds; extensions are measured from now.
    pub hold_ms_max: u64,
    /// `StockLow` is told when availability falls to this or below; zero means never.
    pub low_stock_at: u64,
    /// An opaque price note.
    pub price: Option<Price>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            open: true,
            opens_at: None,
            closes_at: None,
            per_key_max: None,
            per_order_min: 1,
            per_order_max: limits::QUANTITY_MAX,
            hold_ms_default: limits::HOLD_MS_DEFAULT,
            hold_ms_max: limits::HOLD_MS_MAX,
            low_stock_at: 0,
            price: None,
        }
    }
}

impl Policy {
    /// Checks the policy's numbers against each other and the bounds.
    ///
    /// # Errors
    /// [`InvalidValue::OutOfRange`] naming the field.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let range = |what, got: u64, min: u64, max: u64| {
            if (min..=max).contains(&got) {
                Ok(())
            } else {
                Err(InvalidValue::OutOfRange { what, got: got.into(), min: min.into(), max: max.into() })
            }
        };
        range("per_order_max", self.per_order_max.into(), 1, limits::QUANTITY_MAX.into())?;
        range("per_order_min", self.per_order_min.into(), 1, self.per_order_max.into())?;
        range("hold_ms_max", self.hold_ms_max, limits::HOLD_MS_MIN, limits::HOLD_MS_MAX)?;
        range("hold_ms_default", self.hold_ms_default, limits::HOLD_MS_MIN, self.hold_ms_max)?;
        range("low_stock_at", self.low_stock_at, 0, limits::UNITS_MAX)?;
        if let Some(n) = self.per_key_max {
            range("per_key_max", n.into(), 1, limits::QUANTITY_MAX.into())?;
        }
        if let (Some(from), Some(to)) = (self.opens_at, self.closes_at) {
            range("closes_at", to.0, from.0.saturating_add(1), u64::MAX)?;
        }
        Ok(())
    }
}

/// Settings of one shard that replicas must agree on; they go through the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSettings {
    /// How long confirmed reservations are kept: their return window, milliseconds.
    pub retain_sold_ms: u64,
    /// How long released and expired reservations are remembered, milliseconds.
    pub retain_ended_ms: u64,
    /// How long refusals and fences are remembered, milliseconds.
    pub retain_refused_ms: u64,
    /// Most remembered ids that are neither live nor sold; the lowest id time is forgotten first.
    pub remembered_max: u64,
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            retain_sold_ms: limits::RETAIN_SOLD_MS_DEFAULT,
            retain_ended_ms: limits::RETAIN_ENDED_MS_DEFAULT,
            retain_refused_ms: limits::RETAIN_REFUSED_MS_DEFAULT,
            remembered_max: limits::REMEMBERED_MAX_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(sku: &str) -> u16 {
        Slot::of(&Sku::new(sku).unwrap()).get()
    }

    /// Every id in the world depends on these.
    #[test]
    fn slots_are_frozen() {
        let golden: [(&str, u16); 5] =
            [("shirt", 688), ("4006381333931", 1_720), ("sku-000001", 2_238), ("ärmel", 2_962), ("{}", 3_434)];
        let now: Vec<_> = golden.iter().map(|&(sku, _)| (sku, slot(sku))).collect();
        assert_eq!(now, golden);
    }

    #[test]
    fn a_tag_alone_decides_the_slot() {
        assert_eq!(slot("{cart}a"), slot("cart"));
        assert_eq!(slot("x{cart}b{other}"), slot("cart"));
        assert_ne!(slot("{}a"), slot("{}b"), "an empty tag is none");
    }

    #[test]
    fn ids_carry_slot_and_time_and_survive_text() {
        let id = ReservationId::from_parts(Slot::new(0xabc).unwrap(), 1_700_000_000_123, u64::MAX);
        assert_eq!((id.slot().get(), id.time_ms()), (0xabc, 1_700_000_000_123));
        assert_eq!(id.to_string(), "018bcfe5-687b-7abc-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse::<ReservationId>(), Ok(id));
        for bad in [
            "",
            "018bcfe5-687b-4abc-bfff-ffffffffffff",
            "018bcfe5-687b-7abc-3fff-ffffffffffff",
            "018bcfe5687b7abcbfffffffffffffff",
        ] {
            assert!(bad.parse::<ReservationId>().is_err(), "{bad:?} is no reservation id");
        }
        assert!(ReservationId::from_slice(&[0; 15]).is_err());
    }

    #[test]
    fn plain_is_every_byte_between_the_space_and_delete_wherever_it_stands() {
        for len in 0..=40 {
            let plain: Vec<u8> = (0..len).map(|n| 0x21 + (n * 37 % 94) as u8).collect();
            assert!(is_plain(&plain), "{plain:?}");
            for (at, byte) in (0..len).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut bytes = plain.clone();
                bytes[at] = byte;
                assert_eq!(is_plain(&bytes), (0x21..=0x7e).contains(&byte), "{byte} at {at} of {len}");
            }
        }
    }

    #[test]
    fn names_refuse_what_cannot_be_printed() {
        for bad in ["", "a b", "a\n", "a\u{7f}", "a\u{a0}b"] {
            assert!(Sku::new(bad).is_err(), "{bad:?} is no SKU");
        }
        assert!(Sku::new("x".repeat(65)).is_err());
        let least = (0..=u8::MAX).filter_map(|byte| Sku::new(char::from(byte).to_string()).ok()).min();
        assert_eq!(least, Some(Sku::first()));
        assert!(Reference::new("delivery 1").is_ok());
        assert!(Quantity::new(0).is_err() && Quantity::new(1_000_001).is_err());
    }
}
