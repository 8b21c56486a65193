//! Records and their changes as bytes.
//!
//! A record is: format version, how many changes, position, ledger time, the chain before it, the changes. [`Recorder`] writes changes
//! straight into the buffer while the entry is decided; nothing is collected first. A change is: place, the link on its first product, the link on
//! its reservation, number, fields, the links on its further products.
//! **Owns** the numbers of changes (frozen; those of orders are in `orders`). **Must never** follow a renaming of the enum.
//! **Read next**: [`crate::apply`].

use super::orders::{self, Told};
use super::primitives::{In, Out};
use super::{COUNT_BYTES, CodecError, RECORD_VERSION, get_count, put_count};
use crate::change::{Change, ChangeKind, EntryFault, LineChange, LineChanges, Link, ProductLinks, Record};
use crate::ledger::Position;
use crate::limits;
use crate::outcome::{Balance, SoldOut};
use crate::types::{LedgerTime, Line, Policy, Reason, Reference, ReservationId, SaleId, Sku, Units};

const PRODUCT_CREATED: u8 = 1;
const OFFER_PUT: u8 = 2;
const OFFER_OPENED: u8 = 3;
const OFFER_CLOSED: u8 = 4;
const SALE_STARTED: u8 = 5;
const SALE_ENDED: u8 = 6;
const UNITS_RECEIVED: u8 = 7;
const UNITS_ADJUSTED: u8 = 8;
const UNITS_ALLOTTED: u8 = 9;
const OFFER_REMOVED: u8 = 10;
const PRODUCT_DELETED: u8 = 11;
const INVENTORY_RESERVED: u8 = 16;
const RESERVATION_EXTENDED: u8 = 17;
const RESERVATION_CONFIRMED: u8 = 18;
const RESERVATION_RELEASED: u8 = 19;
const RESERVATION_EXPIRED: u8 = 20;
const UNITS_RETURNED: u8 = 21;
const STOCK_LOW: u8 = 32;
const SOLD_OUT: u8 = 33;
const ENTRY_REFUSED: u8 = 48;

/// A change about to be written; offers are given by their bytes ([`super::offer_key_bytes`]).
#[derive(Clone, Copy)]
pub(crate) enum Said<'a> {
    ProductCreated {
        sku: &'a Sku,
        policy: &'a Policy,
    },
    OfferPut {
        offer: &'a [u8],
        policy: &'a Policy,
        version: u64,
    },
    OfferOpened {
        offer: &'a [u8],
    },
    OfferClosed {
        offer: &'a [u8],
    },
    SaleStarted {
        offer: &'a [u8],
        balance: Balance,
    },
    SaleEnded {
        offer: &'a [u8],
        balance: Balance,
        moved_back: u64,
        by_hand: bool,
    },
    UnitsReceived {
        offer: &'a [u8],
        units: Units,
        reference: &'a Reference,
        balance: Balance,
    },
    UnitsAdjusted {
        offer: &'a [u8],
        delta: i64,
        reason: &'a Reason,
        reference: &'a Reference,
        balance: Balance,
    },
    UnitsAllotted {
        sku: &'a Sku,
        from: Option<&'a SaleId>,
        to: Option<&'a SaleId>,
        units: Units,
        reference: &'a Reference,
        from_balance: Balance,
        to_balance: Balance,
    },
    OfferRemoved {
        offer: &'a [u8],
        sold: u64,
        balance: Balance,
    },
    ProductDeleted {
        sku: &'a Sku,
    },
    InventoryReserved {
        id: ReservationId,
        deadline: u64,
        lines: &'a [SaidLine<'a>],
    },
    ReservationExtended {
        id: ReservationId,
        deadline: u64,
    },
    ReservationConfirmed {
        id: ReservationId,
        lines: &'a [SaidLine<'a>],
        given_back: &'a [SaidLine<'a>],
    },
    ReservationReleased {
        id: ReservationId,
        lines: &'a [SaidLine<'a>],
    },
    ReservationExpired {
        id: ReservationId,
        deadline: u64,
        lines: &'a [SaidLine<'a>],
    },
    UnitsReturned {
        id: ReservationId,
        reference: &'a Reference,
        lines: &'a [SaidLine<'a>],
    },
    StockLow {
        offer: &'a [u8],
        available: u64,
    },
    SoldOut {
        offer: &'a [u8],
        truth: SoldOut,
    },
    EntryRefused {
        hash: u128,
        bytes: u64,
        error: EntryFault,
    },
    Order {
        id: ReservationId,
        told: Told<'a>,
    },
}

/// A line about to be written.
#[derive(Clone, Copy)]
pub(crate) struct SaidLine<'a> {
    pub(crate) offer: &'a [u8],
    pub(crate) quantity: u32,
    pub(crate) balance: Balance,
}

/// Where a change is: its place, and the changes before it.
pub(crate) struct Links {
    pub(crate) place: u16,
    pub(crate) on_products: OnProducts,
    pub(crate) on_reservation: Link,
}

/// The changes before on the products of a change, in the order in which its lines name them.
#[derive(Default)]
pub(crate) struct OnProducts {
    pub(crate) first: Link,
    /// Those of the second product on; nearly every change is about one, and takes no memory for this.
    pub(crate) further: Vec<Link>,
}

impl From<Link> for OnProducts {
    #[inline]
    fn from(first: Link) -> Self {
        Self { first, further: Vec::new() }
    }
}

/// The buffer that an entry's changes are written into.
#[derive(Default)]
pub(crate) struct Recorder {
    buffer: Vec<u8>,
    changes: usize,
}

/// Changes one record may have: more than its bytes allow.
const CHANGES_MAX: usize = limits::RECORD_BYTES_MAX / 4;
/// Versions below 251 take one byte.
const COUNT_AT: usize = 1;

impl Recorder {
    /// Begins the record of an entry in an empty buffer with room for what the last ones took.
    pub(crate) fn begin(room: usize, position: Position, time: u64, chain_before: u128) -> Self {
        let mut buffer = Vec::with_capacity(room);
        let mut out = Out::new(&mut buffer);
        out.n(RECORD_VERSION.into());
        out.raw(&[0; COUNT_BYTES]);
        put_position(&mut out, position);
        out.n(time);
        out.wide(chain_before);
        Self { buffer, changes: 0 }
    }

    /// Bytes so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The record's bytes; none when nothing changed.
    pub(crate) fn finish(mut self) -> Option<Vec<u8>> {
        put_count(&mut self.buffer, COUNT_AT, self.changes);
        (self.changes > 0).then_some(self.buffer)
    }

    /// Appends a change.
    #[inline]
    pub(crate) fn say(&mut self, links: Links, said: Said<'_>) {
        self.changes += 1;
        let mut out = Out::new(&mut self.buffer);
        out.n(links.place.into());
        put_link(&mut out, links.on_products.first);
        put_link(&mut out, links.on_reservation);
        match said {
            Said::InventoryReserved { id, deadline, lines } => {
                out.byte(INVENTORY_RESERVED);
                out.id(id);
                out.n(deadline);
                put_lines(&mut out, lines);
            }
            Said::ReservationExtended { id, deadline } => {
                out.byte(RESERVATION_EXTENDED);
                out.id(id);
                out.n(deadline);
            }
            Said::ReservationConfirmed { id, lines, given_back } => {
                out.byte(RESERVATION_CONFIRMED);
                out.id(id);
                put_lines(&mut out, lines);
                put_lines(&mut out, given_back);
            }
            Said::ReservationReleased { id, lines } => {
                out.byte(RESERVATION_RELEASED);
                out.id(id);
                put_lines(&mut out, lines);
            }
            Said::ReservationExpired { id, deadline, lines } => {
                out.byte(RESERVATION_EXPIRED);
                out.id(id);
                out.n(deadline);
                put_lines(&mut out, lines);
            }
            Said::UnitsReturned { id, reference, lines } => {
                out.byte(UNITS_RETURNED);
                out.id(id);
                out.text(reference.as_str());
                put_lines(&mut out, lines);
            }
            Said::Order { id, told } => orders::put_told(&mut out, id, told),
            said => put_stock(&mut out, said),
        }
        // How many follow is not written: the lines before tell how many products there are.
        links.on_products.further.iter().for_each(|&link| put_link(&mut out, link));
    }
}

fn put_stock(out: &mut Out<'_>, said: Said<'_>) {
    match said {
        Said::ProductCreated { sku, policy } => {
            out.byte(PRODUCT_CREATED);
            out.text(sku.as_str());
            out.policy(policy);
        }
        Said::OfferPut { offer, policy, version } => {
            put_numbered(out, OFFER_PUT, offer);
            out.policy(policy);
            out.n(version);
        }
        Said::OfferOpened { offer } => put_numbered(out, OFFER_OPENED, offer),
        Said::OfferClosed { offer } => put_numbered(out, OFFER_CLOSED, offer),
        Said::SaleStarted { offer, balance } => {
            put_numbered(out, SALE_STARTED, offer);
            put_balance(out, balance);
        }
        Said::SaleEnded { offer, balance, moved_back, by_hand } => {
            put_numbered(out, SALE_ENDED, offer);
            put_balance(out, balance);
            out.n(moved_back);
            out.byte(u8::from(by_hand));
        }
        Said::UnitsReceived { offer, units, reference, balance } => {
            put_numbered(out, UNITS_RECEIVED, offer);
            out.n(units.get());
            out.text(reference.as_str());
            put_balance(out, balance);
        }
        Said::UnitsAdjusted { offer, delta, reason, reference, balance } => {
            put_numbered(out, UNITS_ADJUSTED, offer);
            out.signed(delta);
            out.text(reason.as_str());
            out.text(reference.as_str());
            put_balance(out, balance);
        }
        Said::UnitsAllotted { sku, from, to, units, reference, from_balance, to_balance } => {
            out.byte(UNITS_ALLOTTED);
            out.text(sku.as_str());
            out.opt(from, |out, sale| out.text(sale.as_str()));
            out.opt(to, |out, sale| out.text(sale.as_str()));
            out.n(units.get());
            out.text(reference.as_str());
            put_balance(out, from_balance);
            put_balance(out, to_balance);
        }
        Said::OfferRemoved { offer, sold, balance } => {
            put_numbered(out, OFFER_REMOVED, offer);
            out.n(sold);
            put_balance(out, balance);
        }
        Said::ProductDeleted { sku } => {
            out.byte(PRODUCT_DELETED);
            out.text(sku.as_str());
        }
        Said::StockLow { offer, available } => {
            put_numbered(out, STOCK_LOW, offer);
            out.n(available);
        }
        Said::SoldOut { offer, truth } => {
            put_numbered(out, SOLD_OUT, offer);
            put_sold_out(out, truth);
        }
        Said::EntryRefused { hash, bytes, error } => {
            out.byte(ENTRY_REFUSED);
            out.wide(hash);
            out.n(bytes);
            out.byte(error as u8);
        }
        _ => unreachable!("changes of reservations are put by the caller"),
    }
}

fn put_numbered(out: &mut Out<'_>, number: u8, offer: &[u8]) {
    out.byte(number);
    out.raw(offer);
}

pub(crate) fn put_position(out: &mut Out<'_>, p: Position) {
    for n in [p.incarnation, p.shard.into(), p.term, p.index] {
        out.n(n);
    }
}

pub(crate) fn get_position(from: &mut In<'_>) -> Result<Position, CodecError> {
    Ok(Position { incarnation: from.n()?, shard: from.small()?, term: from.n()?, index: from.n()?, place: 0 })
}

/// Indexes begin at 1, so 0 says none.
#[inline]
fn put_link(out: &mut Out<'_>, link: Link) {
    match link {
        None => out.byte(0),
        Some((index, place)) => {
            out.n(index);
            out.n(place.into());
        }
    }
}

fn get_link(from: &mut In<'_>) -> Result<Link, CodecError> {
    match from.n()? {
        0 => Ok(None),
        index => Ok(Some((index, from.small()?))),
    }
}

#[inline]
fn put_balance(out: &mut Out<'_>, b: Balance) {
    out.n(b.available);
    out.n(b.held);
    out.n(b.sold);
}

fn get_balance(from: &mut In<'_>) -> Result<Balance, CodecError> {
    Ok(Balance { available: from.n()?, held: from.n()?, sold: from.n()? })
}

#[inline]
fn put_lines(out: &mut Out<'_>, lines: &[SaidLine<'_>]) {
    out.n(lines.len() as u64);
    for line in lines {
        out.raw(line.offer);
        out.n(line.quantity.into());
        put_balance(out, line.balance);
    }
}

fn get_lines(from: &mut In<'_>) -> Result<LineChanges, CodecError> {
    let count = from.count(limits::LINES_MAX)?;
    let mut lines = LineChanges::new();
    for _ in 0..count {
        let line: Line = from.line()?;
        lines.push(LineChange { line, balance: get_balance(from)? });
    }
    Ok(lines)
}

fn put_sold_out(out: &mut Out<'_>, truth: SoldOut) {
    match truth {
        SoldOut::Open { available } => {
            out.byte(0);
            out.n(available);
        }
        SoldOut::FirstBackAt(time) => {
            out.byte(1);
            out.time(time);
        }
        SoldOut::Gone => out.byte(2),
    }
}

fn get_sold_out(from: &mut In<'_>) -> Result<SoldOut, CodecError> {
    match from.byte()? {
        0 => Ok(SoldOut::Open { available: from.n()? }),
        1 => Ok(SoldOut::FirstBackAt(from.time()?)),
        2 => Ok(SoldOut::Gone),
        n => Err(from.malformed(format!("no truth has the number {n}"))),
    }
}

fn get_fault(from: &mut In<'_>) -> Result<EntryFault, CodecError> {
    let got = from.byte()?;
    let found = EntryFault::ALL.into_iter().find(|&fault| fault as u8 == got);
    found.ok_or_else(|| from.malformed(format!("no fault of an entry has the number {got}")))
}

fn get_kind(from: &mut In<'_>) -> Result<ChangeKind, CodecError> {
    Ok(match from.byte()? {
        INVENTORY_RESERVED => {
            ChangeKind::InventoryReserved { id: from.id()?, deadline: from.time()?, lines: get_lines(from)? }
        }
        RESERVATION_EXTENDED => ChangeKind::ReservationExtended { id: from.id()?, deadline: from.time()? },
        RESERVATION_CONFIRMED => {
            ChangeKind::ReservationConfirmed { id: from.id()?, lines: get_lines(from)?, given_back: get_lines(from)? }
        }
        RESERVATION_RELEASED => ChangeKind::ReservationReleased { id: from.id()?, lines: get_lines(from)? },
        RESERVATION_EXPIRED => {
            ChangeKind::ReservationExpired { id: from.id()?, deadline: from.time()?, lines: get_lines(from)? }
        }
        UNITS_RETURNED => {
            ChangeKind::UnitsReturned { id: from.id()?, reference: from.reference()?, lines: get_lines(from)? }
        }
        number => get_stock(from, number)?,
    })
}

fn get_stock(from: &mut In<'_>, number: u8) -> Result<ChangeKind, CodecError> {
    Ok(match number {
        PRODUCT_CREATED => ChangeKind::ProductCreated { sku: from.sku()?, policy: from.policy()? },
        OFFER_PUT => ChangeKind::OfferPut { offer: from.offer()?, policy: from.policy()?, version: from.n()? },
        OFFER_OPENED => ChangeKind::OfferOpened { offer: from.offer()? },
        OFFER_CLOSED => ChangeKind::OfferClosed { offer: from.offer()? },
        SALE_STARTED => ChangeKind::SaleStarted { offer: from.offer()?, balance: get_balance(from)? },
        SALE_ENDED => ChangeKind::SaleEnded {
            offer: from.offer()?,
            balance: get_balance(from)?,
            moved_back: from.n()?,
            by_hand: from.flag()?,
        },
        OFFER_REMOVED => {
            ChangeKind::OfferRemoved { offer: from.offer()?, sold: from.n()?, balance: get_balance(from)? }
        }
        PRODUCT_DELETED => ChangeKind::ProductDeleted { sku: from.sku()? },
        UNITS_RECEIVED => ChangeKind::UnitsReceived {
            offer: from.offer()?,
            units: from.units()?,
            reference: from.reference()?,
            balance: get_balance(from)?,
        },
        UNITS_ADJUSTED => ChangeKind::UnitsAdjusted {
            offer: from.offer()?,
            delta: from.signed()?,
            reason: from.reason()?,
            reference: from.reference()?,
            balance: get_balance(from)?,
        },
        UNITS_ALLOTTED => ChangeKind::UnitsAllotted {
            sku: from.sku()?,
            from: from.opt(In::sale)?,
            to: from.opt(In::sale)?,
            units: from.units()?,
            reference: from.reference()?,
            from_balance: get_balance(from)?,
            to_balance: get_balance(from)?,
        },
        STOCK_LOW => ChangeKind::StockLow { offer: from.offer()?, available: from.n()? },
        SOLD_OUT => ChangeKind::SoldOut { offer: from.offer()?, truth: get_sold_out(from)? },
        ENTRY_REFUSED => ChangeKind::EntryRefused { hash: from.wide()?, bytes: from.n()?, error: get_fault(from)? },
        number => orders::get_kind(from, number)?,
    })
}

/// The first product's link stands before the change, those of further ones behind it.
fn get_product_links(from: &mut In<'_>, kind: &ChangeKind, first: Link) -> Result<ProductLinks, CodecError> {
    let products = kind.products().len();
    if products == 0 && first.is_some() {
        return Err(from.malformed("a change about no product follows one on a product"));
    }
    let mut links = ProductLinks::new();
    for at in 0..products {
        links.push(if at == 0 { first } else { get_link(from)? });
    }
    Ok(links)
}

pub(super) fn get_record(from: &mut In<'_>) -> Result<Record, CodecError> {
    let count = get_count(from, CHANGES_MAX)?;
    let position = get_position(from)?;
    let time = LedgerTime(from.n()?);
    let chain_before = from.wide()?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let (place, first) = (from.small()?, get_link(from)?);
        let (previous_on_reservation, kind) = (get_link(from)?, get_kind(from)?);
        let previous_on_products = get_product_links(from, &kind, first)?;
        changes.push(Change { place, previous_on_products, previous_on_reservation, kind });
    }
    from.must_end()?;
    Ok(Record { position, time, chain_before, changes })
}
