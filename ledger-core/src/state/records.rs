//! The primary records: all else in the state is derived from them and rebuilt when a snapshot is read.
//!
//! **Owns** their layout: fixed size, no heap object for a reservation of one line and one key. **Must never** hold a derived
//! sum. **Read next**: [`super::offers`], [`super::memory`].

use smallvec::SmallVec;

use super::orders::LANES;
use super::slab::Placed;
use crate::ledger::Position;
use crate::outcome::{Brief, Status};
use crate::types::{LedgerTime, OfferKey, Policy, ReservationId, Sku, Slot, text_bytes};

/// No place: an empty reference into a slab.
pub(crate) const NONE: u32 = u32::MAX;

/// Where the last change on a product or reservation is: index and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) index: u64,
    pub(crate) place: u16,
}

impl Head {
    pub(crate) fn at(position: Position) -> Self {
        Self { index: position.index, place: position.place }
    }
    /// As changes name it; log indexes begin at 1.
    pub(crate) fn get(self) -> Option<(u64, u16)> {
        (self.index > 0).then_some((self.index, self.place))
    }
}

/// A product. Conserved: `received + adjusted = available + held + ever_sold − returned` over its offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) sku: Sku,
    pub(crate) slot: Slot,
    pub(crate) plain: u32,
    /// Its sales' offers, in no order that matters.
    pub(crate) sales: Vec<u32>,
    pub(crate) received: u64,
    pub(crate) adjusted: i64,
    pub(crate) returned: u64,
    pub(crate) ever_sold: u64,
    /// The turn at which each lane of ready work served it last.
    pub(crate) turns: [u64; LANES],
    pub(crate) head: Head,
}

/// Which part of its window an offer is in, as far as the feed was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Before,
    Within,
    Over,
}

/// An offer. `available` and `held` are as swept: due holds still count as held here, and as available in every answer. So `available`
/// alone may be negative: units of due holds were taken again before those were swept. With what is due added, never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) key: OfferKey,
    pub(crate) product: u32,
    pub(crate) policy: Policy,
    pub(crate) version: u64,
    /// Fingerprint of the policy it was created with, so that creating it again is answered as before.
    pub(crate) created_as: u64,
    pub(crate) available: i64,
    pub(crate) held: u64,
    pub(crate) sold: u64,
    pub(crate) ended: bool,
    /// When; zero while it is not.
    pub(crate) ended_at: u64,
    pub(crate) phase: Phase,
}

impl Offer {
    pub(crate) fn phase_at(&self, time: u64) -> Phase {
        if self.ended || self.policy.closes_at.is_some_and(|t| t.0 <= time) {
            Phase::Over
        } else if self.policy.opens_at.is_some_and(|t| time < t.0) {
            Phase::Before
        } else {
            Phase::Within
        }
    }
    /// When its phase changes next by time alone.
    pub(crate) fn next_edge(&self) -> Option<u64> {
        match self.phase {
            Phase::Before => self.policy.opens_at.map(|t| t.0),
            Phase::Within => self.policy.closes_at.map(|t| t.0),
            Phase::Over => None,
        }
    }
}

/// One line of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LineRecord {
    pub(crate) offer: u32,
    /// Units, and in the top bit whether limits count them (the offer had a limit when they were reserved).
    pub(crate) reserved_bits: u32,
    pub(crate) sold: u32,
    pub(crate) returned: u32,
}

const COUNTED: u32 = 1 << 31;

impl LineRecord {
    pub(crate) fn new(offer: u32, reserved: u32, counted: bool) -> Self {
        Self { offer, reserved_bits: reserved | if counted { COUNTED } else { 0 }, sold: 0, returned: 0 }
    }
    pub(crate) fn reserved(&self) -> u32 {
        self.reserved_bits & !COUNTED
    }
    pub(crate) fn counted(&self) -> bool {
        self.reserved_bits & COUNTED != 0
    }
}

/// A reservation that executed. Ends once: `Held` becomes one of the others and stays it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) id: [u8; 16],
    pub(crate) fingerprint: u64,
    pub(crate) reserved_at: u64,
    pub(crate) deadline: u64,
    /// Zero while held; of an expired one its deadline.
    pub(crate) ended_at: u64,
    pub(crate) head_index: u64,
    pub(crate) line: LineRecord,
    /// First limit key, while it counts.
    pub(crate) key: u32,
    /// Further lines, further keys and the last extension, if there are any.
    pub(crate) extra: u32,
    /// Place of the order it is, or was given a late payment of; derived.
    pub(crate) order: u32,
    pub(crate) head_place: u16,
    pub(crate) status: Option<Status>,
}

impl Reservation {
    /// Its last change.
    pub(crate) fn head(&self) -> Option<(u64, u16)> {
        Head { index: self.head_index, place: self.head_place }.get()
    }
    pub(crate) fn is_held(&self) -> bool {
        self.status == Some(Status::Held)
    }
    /// Where it stands at a ledger time: a due hold is expired, swept or not.
    pub(crate) fn status_at(&self, time: u64) -> Status {
        match self.status.expect("present") {
            Status::Held if self.deadline <= time => Status::Expired,
            status => status,
        }
    }
    pub(crate) fn brief(&self, time: u64, replayed: bool) -> Brief {
        Brief {
            status: self.status_at(time),
            deadline: LedgerTime(self.deadline),
            reserved_at: LedgerTime(self.reserved_at),
            replayed,
        }
    }
    pub(crate) fn id(&self) -> ReservationId {
        ReservationId::from_bytes(self.id).expect("only checked ids are stored")
    }
}

impl Placed for Reservation {
    fn is_vacant(&self) -> bool {
        self.status.is_none()
    }
    fn vacant() -> Self {
        Self {
            id: [0; 16],
            fingerprint: 0,
            reserved_at: 0,
            deadline: 0,
            ended_at: 0,
            head_index: 0,
            line: LineRecord::default(),
            key: NONE,
            extra: NONE,
            order: NONE,
            head_place: 0,
            status: None,
        }
    }
}

/// What few reservations have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extra {
    pub(crate) lines: SmallVec<[LineRecord; 1]>,
    pub(crate) keys: SmallVec<[u32; 4]>,
    /// The last extension: the deadline it replaced and the hold it asked for.
    pub(crate) extended: Option<(u64, u64)>,
    pub(crate) returns: Vec<Returned>,
    pub(crate) present: bool,
}

/// A return of the reservation's units. Its reference is known as long as the reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Returned {
    /// The hash of its reference.
    pub(crate) name: u64,
    /// Of what was asked.
    pub(crate) fingerprint: u64,
    /// Units that it brought back.
    pub(crate) units: u32,
}

impl Placed for Extra {
    fn is_vacant(&self) -> bool {
        !self.present
    }
    fn vacant() -> Self {
        Self::default()
    }
    fn heap_bytes(&self) -> u64 {
        // One line fits.
        let lines = if self.lines.len() > 1 { self.lines.len() * size_of::<LineRecord>() } else { 0 };
        (lines + self.returns.len() * size_of::<Returned>()) as u64
    }
}

/// Why an id never executed, in brief; `detail` and `offer` mean what the reason says they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Why {
    Vacant = 0,
    Fenced = 1,
    UnknownProduct = 2,
    UnknownOffer = 3,
    SaleHasEnded = 4,
    OfferClosed = 5,
    SaleNotOpenYet = 6,
    SaleOver = 7,
    HoldTooLong = 8,
    BelowOrderMin = 9,
    AboveOrderMax = 10,
    LimitReached = 11,
    SoldOutOpen = 12,
    SoldOutUntil = 13,
    SoldOutGone = 14,
}

impl Why {
    pub(crate) const ALL: [Self; 15] = [
        Self::Vacant,
        Self::Fenced,
        Self::UnknownProduct,
        Self::UnknownOffer,
        Self::SaleHasEnded,
        Self::OfferClosed,
        Self::SaleNotOpenYet,
        Self::SaleOver,
        Self::HoldTooLong,
        Self::BelowOrderMin,
        Self::AboveOrderMax,
        Self::LimitReached,
        Self::SoldOutOpen,
        Self::SoldOutUntil,
        Self::SoldOutGone,
    ];
    /// Whether `offer` names an unknown offer's text, not an offer.
    pub(crate) fn names_unknown(self) -> bool {
        matches!(self, Self::UnknownProduct | Self::UnknownOffer)
    }
}

/// A remembered refusal or fence. Words of 32 bits keep it at 44 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) id: [u8; 16],
    fingerprint: [u32; 2],
    /// When it was refused or fenced, in the coarse time of [`super::memory`]: its lower and upper bits, enough for [`crate::limits::LEDGER_TIME_MAX`].
    at_coarse: u32,
    at_coarse_high: u16,
    detail: [u32; 2],
    pub(crate) offer: u32,
    pub(crate) why: Why,
    pub(crate) key_index: u8,
}

fn split(n: u64) -> [u32; 2] {
    [n as u32, (n >> 32) as u32]
}
fn join([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The largest coarse time that a refusal can have.
const AT_COARSE_MAX: u64 = (1 << 48) - 1;
const _: () = assert!(crate::limits::LEDGER_TIME_MAX < AT_COARSE_MAX);

impl Refused {
    pub(crate) fn new(id: [u8; 16], fingerprint: u64, at_coarse: u64, why: Why) -> Self {
        let [low, high] = split(at_coarse.min(AT_COARSE_MAX));
        Self {
            id,
            fingerprint: split(fingerprint),
            at_coarse: low,
            at_coarse_high: high as u16,
            detail: [0; 2],
            offer: NONE,
            why,
            key_index: 0,
        }
    }
    pub(crate) fn with_detail(mut self, detail: u64) -> Self {
        self.detail = split(detail);
        self
    }
    pub(crate) fn fingerprint(&self) -> u64 {
        join(self.fingerprint)
    }
    pub(crate) fn at_coarse(&self) -> u64 {
        join([self.at_coarse, self.at_coarse_high.into()])
    }
    pub(crate) fn detail(&self) -> u64 {
        join(self.detail)
    }
    pub(crate) fn id(&self) -> ReservationId {
        ReservationId::from_bytes(self.id).expect("only checked ids are stored")
    }
    /// The offer that it names, if it names one that exists.
    pub(crate) fn named_offer(&self) -> Option<u32> {
        (self.offer != NONE && !self.why.names_unknown()).then_some(self.offer)
    }
}

impl Placed for Refused {
    fn is_vacant(&self) -> bool {
        self.why == Why::Vacant
    }
    fn vacant() -> Self {
        Self::new([0; 16], 0, 0, Why::Vacant)
    }
}

/// The name of an offer that does not exist, kept for a remembered refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownName(pub(crate) Option<OfferKey>);

impl Placed for UnknownName {
    fn is_vacant(&self) -> bool {
        self.0.is_none()
    }
    fn vacant() -> Self {
        Self(None)
    }
    fn heap_bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, key_bytes)
    }
}

/// Bytes of an offer's key beside its own place.
fn key_bytes(key: &OfferKey) -> u64 {
    text_bytes(key.sku.as_str()) + key.sale.as_ref().map_or(0, |sale| text_bytes(sale.as_str()))
}

impl Placed for Product {
    fn is_vacant(&self) -> bool {
        self.plain == NONE
    }
    fn vacant() -> Self {
        Self {
            sku: Sku::first(),
            slot: Slot::of(&Sku::first()),
            plain: NONE,
            sales: Vec::new(),
            received: 0,
            adjusted: 0,
            returned: 0,
            ever_sold: 0,
            turns: [0; LANES],
            head: Head::default(),
        }
    }
}

impl Placed for Offer {
    fn is_vacant(&self) -> bool {
        self.product == NONE
    }
    fn vacant() -> Self {
        Self {
            key: OfferKey { sku: Sku::first(), sale: None },
            product: NONE,
            policy: Policy::default(),
            version: 0,
            created_as: 0,
            available: 0,
            held: 0,
            sold: 0,
            ended: false,
            ended_at: 0,
            phase: Phase::Before,
        }
    }
    /// With the copies of its key in the indexes by name, and as the codec writes it.
    fn heap_bytes(&self) -> u64 {
        let text = self.key.sku.as_str().len() + self.key.sale.as_ref().map_or(0, |sale| sale.as_str().len());
        3 * key_bytes(&self.key) + text as u64
    }
}

const _: () = assert!(size_of::<Reservation>() <= 96);
const _: () = assert!(size_of::<Refused>() <= 44);
const _: () = assert!(crate::limits::QUANTITY_MAX < COUNTED);
