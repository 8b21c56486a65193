//! Snapshots: a frozen view written as checked frames, and read back into a state whose digest must agree.
//!
//! Layout: magic, then frames of (length, xxh3-64 of the payload, payload); a payload is a section number and records up to the end. Sections come in the
//! order of their numbers, each any number of times; the last is [`END`] with the digest. Only primary records are written; what is derived is rebuilt.
//! **Owns** this format (docs/storage-format.md). **Must never** trust a byte: checksums, bounds, constructors, references, then the digest.
//! **Read next**: [`crate::audit`].

use std::collections::VecDeque;
use std::io::{self, Read as _};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::CodecError;
use crate::codec::changes::{get_position, put_position};
use crate::codec::orders;
use crate::codec::primitives::{In, Out};
use crate::ledger::{Digest, Position};
use crate::limits;
use crate::order::{Money, Payment, Phase as OrderPhase};
use crate::outcome::Status;
use crate::state::State;
use crate::state::ids::Found;
use crate::state::keys::FrozenKeys;
use crate::state::orders::{Cold, Order, Standing};
use crate::state::records::{
    Extra, Head, LineRecord, NONE, Offer, Phase, Product, Refused, Reservation, UnknownName, UsedReference, Why,
};
use crate::state::slab::{FrozenSlab, Placed};
use crate::types::{OfferKey, ShardSettings, Slot};

/// First bytes of a snapshot: name and format version.
pub(crate) const MAGIC: [u8; 8] = *b"HFSNAP\x00\x02";
const WHAT: &str = "snapshot";
/// A frame is closed when it has grown to this.
const FRAME_BYTES: usize = 256 << 10;

const SHARD: u8 = 1;
const PRODUCTS: u8 = 2;
const OFFERS: u8 = 3;
const KEYS: u8 = 4;
const KEPT: u8 = 5;
const REFERENCES: u8 = 6;
const RESERVATIONS: u8 = 7;
const REFUSED: u8 = 8;
const ORDERS: u8 = 9;
const END: u8 = 255;

struct FrozenShard {
    position: Position,
    time: u64,
    behaviour: u16,
    chain: u128,
    generation: u64,
    ranges: Vec<(Slot, Slot)>,
    settings: ShardSettings,
    forgotten_below: Vec<u64>,
    digests: VecDeque<Digest>,
    /// Counters of orders: sequence, turns, given by class.
    orders: [u64; 4],
}

/// A frozen state.
pub(crate) struct FrozenState {
    shard: FrozenShard,
    products: FrozenSlab<Product>,
    offers: FrozenSlab<Offer>,
    keys: FrozenKeys,
    references: FrozenSlab<UsedReference>,
    reservations: FrozenSlab<Reservation>,
    extras: FrozenSlab<Extra>,
    refused: FrozenSlab<Refused>,
    unknown_names: FrozenSlab<UnknownName>,
    orders: FrozenSlab<Order>,
    digest: Digest,
}

impl State {
    /// Shares all chunks; copies only what is a few kilobytes.
    pub(crate) fn freeze(&mut self) -> FrozenState {
        let digest = self.take_digest();
        FrozenState {
            shard: FrozenShard {
                position: self.position,
                time: self.time,
                behaviour: self.behaviour,
                chain: self.chain,
                generation: self.generation,
                ranges: self.ranges.clone(),
                settings: self.settings.clone(),
                forgotten_below: self.forgotten_below.clone(),
                digests: self.digests.clone(),
                orders: [self.orders.sequence, self.orders.turns, self.orders.given[0], self.orders.given[1]],
            },
            products: self.products.freeze(),
            offers: self.offers.freeze(),
            keys: self.keys.freeze(),
            references: self.references.freeze(),
            reservations: self.reservations.freeze(),
            extras: self.extras.freeze(),
            refused: self.refused.freeze(),
            unknown_names: self.unknown_names.freeze(),
            orders: self.orders.records.freeze(),
            digest,
        }
    }
}

/// Collects records of a section and writes them as frames.
struct Frames<'w> {
    to: &'w mut dyn io::Write,
    buffer: Vec<u8>,
}

impl Frames<'_> {
    fn section<T>(
        &mut self,
        section: u8,
        records: impl Iterator<Item = T>,
        put: impl Fn(&mut Out<'_>, T),
    ) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.push(section);
        for record in records {
            put(&mut Out::new(&mut self.buffer), record);
            if self.buffer.len() >= FRAME_BYTES {
                self.close(section)?;
            }
        }
        if self.buffer.len() > 1 { self.close(section) } else { Ok(()) }
    }

    fn close(&mut self, section: u8) -> io::Result<()> {
        self.to.write_all(&(self.buffer.len() as u32).to_le_bytes())?;
        self.to.write_all(&xxh3_64(&self.buffer).to_le_bytes())?;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        self.buffer.push(section);
        Ok(())
    }
}

impl FrozenState {
    pub(crate) fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        to.write_all(&MAGIC)?;
        let mut frames = Frames { to, buffer: Vec::with_capacity(FRAME_BYTES + 4_096) };
        frames.section(SHARD, std::iter::once(&self.shard), put_shard)?;
        frames.section(PRODUCTS, self.products.iter(), |out, (_, p)| put_product(out, p))?;
        frames.section(OFFERS, self.offers.iter(), |out, (_, o)| put_offer(out, o))?;
        frames.section(KEYS, self.keys.texts(), |out, (at, text)| {
            out.n(at.into());
            out.text(text.as_str());
        })?;
        let ended: Vec<bool> = self.offers.iter().map(|(_, o)| o.ended).collect();
        let kept = self.keys.kept().filter(|&(_, offer, _)| !ended[offer as usize]);
        frames.section(KEPT, kept, |out, (key, offer, units)| {
            out.n(key.into());
            out.n(offer.into());
            out.n(units);
        })?;
        frames.section(REFERENCES, self.references.iter(), |out, (_, used)| {
            for n in [used.name[0], used.name[1], used.fingerprint] {
                out.raw(&n.to_le_bytes());
            }
            out.n(used.units);
            out.n(used.product.into());
        })?;
        frames.section(RESERVATIONS, self.reservations.iter(), |out, (_, r)| {
            let extra = (r.extra != NONE).then(|| self.extras.get(r.extra));
            put_reservation(out, r, extra);
        })?;
        frames.section(REFUSED, self.refused.iter(), |out, (_, r)| {
            let name = r.why.names_unknown().then(|| self.unknown_names.get(r.offer));
            put_refused(out, r, name.and_then(|name| name.0.as_ref()));
        })?;
        frames.section(ORDERS, self.orders.iter(), |out, (_, o)| put_order(out, o))?;
        frames.section(END, std::iter::once(self.digest), |out, digest| {
            out.n(digest.index);
            out.wide(digest.value);
        })
    }
}

fn put_shard(out: &mut Out<'_>, s: &FrozenShard) {
    put_position(out, s.position);
    out.n(s.time);
    out.n(s.behaviour.into());
    out.wide(s.chain);
    out.n(s.generation);
    out.ranges(&s.ranges);
    out.settings(&s.settings);
    let forgotten = || s.forgotten_below.iter().enumerate().filter(|&(_, &below)| below > 0);
    out.n(forgotten().count() as u64);
    for (slot, &below) in forgotten() {
        out.n(slot as u64);
        out.n(below);
    }
    out.n(s.digests.len() as u64);
    for digest in &s.digests {
        out.n(digest.index);
        out.wide(digest.value);
    }
    s.orders.iter().for_each(|&n| out.n(n));
}

fn put_head(out: &mut Out<'_>, head: Head) {
    out.n(head.index);
    out.n(head.place.into());
}

fn put_product(out: &mut Out<'_>, p: &Product) {
    out.text(p.sku.as_str());
    out.n(p.plain.into());
    out.n(p.received);
    out.signed(p.adjusted);
    out.n(p.returned);
    out.n(p.ever_sold);
    out.n(p.references.into());
    p.turns.iter().for_each(|&turn| out.n(turn));
    put_head(out, p.head);
}

fn put_offer(out: &mut Out<'_>, o: &Offer) {
    out.offer(&o.key);
    out.n(o.product.into());
    out.policy(&o.policy);
    out.n(o.version);
    out.raw(&o.created_as.to_le_bytes());
    out.signed(o.available);
    out.n(o.held);
    out.n(o.sold);
    out.byte(u8::from(o.ended));
    out.byte(match o.phase {
        Phase::Before => 0,
        Phase::Within => 1,
        Phase::Over => 2,
    });
}

fn put_line(out: &mut Out<'_>, l: &LineRecord) {
    for n in [l.offer, l.reserved(), u32::from(l.counted()), l.sold, l.returned] {
        out.n(n.into());
    }
}

fn put_reservation(out: &mut Out<'_>, r: &Reservation, extra: Option<&Extra>) {
    out.raw(&r.id);
    out.raw(&r.fingerprint.to_le_bytes());
    out.byte(match r.status.expect("present") {
        Status::Held => 1,
        Status::Confirmed => 2,
        Status::Released => 3,
        Status::Expired => 4,
    });
    for n in [r.reserved_at, r.deadline, r.ended_at] {
        out.n(n);
    }
    put_head(out, Head { index: r.head_index, place: r.head_place });
    put_line(out, &r.line);
    out.opt((r.key != NONE).then_some(r.key), |out, key| out.n(key.into()));
    out.opt(extra, |out, extra| {
        out.n(extra.lines.len() as u64);
        extra.lines.iter().for_each(|line| put_line(out, line));
        out.n(extra.keys.len() as u64);
        extra.keys.iter().for_each(|&key| out.n(key.into()));
        out.opt(extra.extended, |out, (replaces, hold_ms)| {
            out.n(replaces);
            out.n(hold_ms);
        });
    });
}

fn put_refused(out: &mut Out<'_>, r: &Refused, name: Option<&OfferKey>) {
    out.raw(&r.id);
    out.raw(&r.fingerprint().to_le_bytes());
    out.byte(r.why as u8);
    out.byte(r.key_index);
    out.n(r.at_coarse());
    out.n(r.detail());
    match name {
        Some(name) => out.offer(name),
        None => out.n(r.offer.into()),
    }
}

fn put_order(out: &mut Out<'_>, o: &Order) {
    let cold = o.cold();
    out.raw(&o.id);
    out.opt(cold.amount, orders::put_money);
    out.raw(&o.fingerprint.to_le_bytes());
    for n in [o.phase() as u8, o.parked_from.map_or(0, |p| p as u8), o.ending as u8, o.standing as u8] {
        out.byte(n);
    }
    out.byte(u8::from(o.suspect));
    for n in [o.placed_at, o.done_at, o.ready_at, o.due, o.epoch.into(), o.attempts.into(), o.lost.into()] {
        out.n(n);
    }
    out.raw(&o.reported.to_le_bytes());
    out.raw(&o.by_hand.to_le_bytes());
    put_head(out, o.head);
    orders::put_sealed(out, &cold.payment);
    orders::put_sealed(out, &cold.contact);
    out.opt(cold.intent.as_ref(), |out, intent| out.text(intent.as_str()));
    out.n(cold.generation.into());
    out.opt(cold.secret.as_ref(), |out, secret| out.text(secret));
    out.n(cold.payments.len() as u64);
    for payment in &cold.payments {
        out.text(payment.id.as_str());
        out.opt(payment.amount, orders::put_money);
        out.byte(payment.state as u8);
        out.opt(payment.refund.as_ref(), |out, refund| out.text(refund.as_str()));
    }
    out.opt(cold.linked, Out::id);
    out.opt(cold.worker.as_ref(), |out, worker| out.text(worker.as_str()));
    out.opt(cold.parked.as_ref(), orders::put_park_reason);
}

type Read<T> = Result<T, CodecError>;

fn wrong(why: impl ToString) -> CodecError {
    CodecError::Malformed { what: WHAT, why: why.to_string() }
}

/// A state being read.
struct Reading {
    state: State,
    /// Where each key written stands here.
    keys: Vec<u32>,
}

/// Reads a snapshot.
pub(crate) fn read(from: &mut dyn io::Read) -> Read<State> {
    let mut magic = [0; 8];
    from.read_exact(&mut magic).map_err(wrong)?;
    if magic[..7] != MAGIC[..7] {
        return Err(wrong("it does not begin as a snapshot does"));
    }
    if magic[7] != MAGIC[7] {
        return Err(CodecError::UnknownVersion { what: WHAT, got: magic[7].into(), known: MAGIC[7].into() });
    }
    let mut reading = Reading { state: State::new(0, 0), keys: Vec::new() };
    let mut last = 0;
    let mut frame = Vec::new();
    loop {
        read_frame(from, &mut frame)?;
        let mut payload = In::new(WHAT, &frame, limits::SNAPSHOT_FRAME_BYTES_MAX)?;
        let section = payload.byte()?;
        if section < last || (last == 0) != (section == SHARD) {
            return Err(wrong(format!("section {section} follows section {last}")));
        }
        last = section;
        if section == END {
            return reading.end(&mut payload);
        }
        while !payload.is_at_end() {
            reading.record(section, &mut payload)?;
        }
    }
}

fn read_frame(from: &mut dyn io::Read, frame: &mut Vec<u8>) -> Read<()> {
    let mut head = [0; 12];
    from.read_exact(&mut head).map_err(wrong)?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let sum = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
    if len > limits::SNAPSHOT_FRAME_BYTES_MAX {
        let max = limits::SNAPSHOT_FRAME_BYTES_MAX as u64;
        return Err(CodecError::TooLarge { what: WHAT, got: len as u64, max });
    }
    // Grows as bytes come: a length is not believed before they are there.
    frame.clear();
    io::Read::take(from, len as u64).read_to_end(frame).map_err(wrong)?;
    if frame.len() != len {
        return Err(wrong("it ends within a frame"));
    }
    if xxh3_64(frame) != sum {
        return Err(wrong("a frame's checksum does not match"));
    }
    Ok(())
}

fn get_word(from: &mut In<'_>) -> Read<u64> {
    Ok(u64::from_le_bytes(from.raw(8)?.try_into().expect("eight bytes")))
}

fn get_head(from: &mut In<'_>) -> Read<Head> {
    Ok(Head { index: from.n()?, place: from.small()? })
}

impl Reading {
    fn record(&mut self, section: u8, from: &mut In<'_>) -> Read<()> {
        match section {
            SHARD => self.shard(from),
            PRODUCTS => self.product(from),
            OFFERS => self.offer(from),
            KEYS => self.key(from),
            KEPT => self.kept(from),
            REFERENCES => self.reference(from),
            RESERVATIONS => self.reservation(from),
            REFUSED => self.refused(from),
            ORDERS => self.order(from),
            other => Err(wrong(format!("no section has the number {other}"))),
        }
    }

    fn shard(&mut self, from: &mut In<'_>) -> Read<()> {
        let s = &mut self.state;
        s.position = get_position(from)?;
        s.time = from.n()?;
        s.behaviour = from.small()?;
        if s.behaviour == 0 || s.behaviour > limits::BEHAVIOUR_VERSION_MAX {
            let known = limits::BEHAVIOUR_VERSION_MAX;
            return Err(CodecError::UnknownVersion { what: "behaviour", got: s.behaviour, known });
        }
        s.chain = from.wide()?;
        let generation = from.n()?;
        let ranges = from.ranges()?;
        s.own(generation, &ranges);
        s.settings = from.settings()?;
        for _ in 0..from.count(usize::from(limits::SLOTS))? {
            let slot = from.slot()?;
            s.forgotten_below[usize::from(slot.get())] = from.n()?;
        }
        for _ in 0..from.count(limits::DIGESTS_KEPT)? {
            s.digests.push_back(Digest { index: from.n()?, value: from.wide()? });
        }
        let o = &mut s.orders;
        (o.sequence, o.turns, o.given) = (from.n()?, from.n()?, [from.n()?, from.n()?]);
        Ok(())
    }

    fn product(&mut self, from: &mut In<'_>) -> Read<()> {
        let sku = from.sku()?;
        let product = Product {
            slot: Slot::of(&sku),
            sku: sku.clone(),
            plain: from.small()?,
            sales: Vec::new(),
            received: from.n()?,
            adjusted: from.signed()?,
            returned: from.n()?,
            ever_sold: from.n()?,
            references: from.small()?,
            turns: [from.n()?, from.n()?, from.n()?, from.n()?],
            head: get_head(from)?,
        };
        let at = self.state.products.insert(product);
        match self.state.by_sku.insert(sku, at) {
            None => Ok(()),
            Some(_) => Err(wrong("a product is there twice")),
        }
    }

    fn offer(&mut self, from: &mut In<'_>) -> Read<()> {
        let key = from.offer()?;
        let offer = Offer {
            product: from.small()?,
            policy: from.policy()?,
            version: from.n()?,
            created_as: get_word(from)?,
            available: from.signed()?,
            held: from.n()?,
            sold: from.n()?,
            ended: from.flag()?,
            phase: match from.byte()? {
                0 => Phase::Before,
                1 => Phase::Within,
                2 => Phase::Over,
                n => return Err(wrong(format!("no phase has the number {n}"))),
            },
            key,
        };
        let at = self.state.offers.len() as u32;
        let product = self.state.products.try_get(offer.product).ok_or_else(|| wrong("an offer without product"))?;
        let fits =
            product.sku == offer.key.sku && offer.key.sale.is_none() == (product.plain == at) && product.plain <= at;
        let new = self.state.find_offer(&offer.key).is_none();
        if !fits || !new || offer.held > limits::UNITS_MAX || offer.sold > limits::UNITS_MAX {
            return Err(wrong(format!("offer {:?} does not fit its product", offer.key)));
        }
        self.state.add_offer(offer);
        Ok(())
    }

    fn key(&mut self, from: &mut In<'_>) -> Read<()> {
        let at: u32 = from.small()?;
        let text = from.key()?;
        // Places are dense but for what was free: the table of places is bounded by what a slab can have been.
        if at as usize >= self.keys.len().saturating_mul(2).max(1 << 20) {
            return Err(wrong("a key's place is out of range"));
        }
        if at as usize >= self.keys.len() {
            self.keys.resize(at as usize + 1, NONE);
        }
        let looked = self.state.keys.find(&text);
        self.keys[at as usize] = self.state.keys.carry(&text, looked);
        Ok(())
    }

    fn key_at(&self, written: u32) -> Read<u32> {
        let key = self.keys.get(written as usize).copied().filter(|&key| key != NONE);
        key.ok_or_else(|| wrong("a key that was not written"))
    }

    fn offer_at(&self, at: u32) -> Read<u32> {
        self.state.offers.try_get(at).map(|_| at).ok_or_else(|| wrong("an offer that was not written"))
    }

    fn kept(&mut self, from: &mut In<'_>) -> Read<()> {
        let (key, offer, units) = (self.key_at(from.small()?)?, self.offer_at(from.small()?)?, from.n()?);
        if units == 0 || units > limits::UNITS_MAX || self.state.offers.get(offer).ended {
            return Err(wrong("a kept count that counts nothing"));
        }
        self.state.keys.put_kept(key, offer, units);
        self.state.digest_kept(key, offer, 0, units);
        Ok(())
    }

    fn reference(&mut self, from: &mut In<'_>) -> Read<()> {
        let name = [get_word(from)?, get_word(from)?];
        let used = UsedReference { name, fingerprint: get_word(from)?, units: from.n()?, product: from.small()? };
        if self.state.products.try_get(used.product).is_none() {
            return Err(wrong("a reference without product"));
        }
        self.state.add_reference(used);
        Ok(())
    }

    fn line(&self, from: &mut In<'_>) -> Read<LineRecord> {
        let offer = self.offer_at(from.small()?)?;
        let (reserved, counted) = (from.quantity()?.get(), from.n()? == 1);
        let line =
            LineRecord { sold: from.small()?, returned: from.small()?, ..LineRecord::new(offer, reserved, counted) };
        if line.sold > reserved || line.returned > line.sold {
            return Err(wrong("a line sold or returned more than it has"));
        }
        Ok(line)
    }

    fn extra(&self, from: &mut In<'_>) -> Read<Extra> {
        let mut extra = Extra { present: true, ..Extra::default() };
        for _ in 0..from.count(limits::LINES_MAX)? {
            extra.lines.push(self.line(from)?);
        }
        for _ in 0..from.count(limits::LIMIT_KEYS_MAX)? {
            extra.keys.push(self.key_at(from.small()?)?);
        }
        extra.extended = from.opt(|from| Ok((from.n()?, from.n()?)))?;
        Ok(extra)
    }

    fn reservation(&mut self, from: &mut In<'_>) -> Read<()> {
        let id = from.id()?;
        let fingerprint = get_word(from)?;
        let status = match from.byte()? {
            1 => Status::Held,
            2 => Status::Confirmed,
            3 => Status::Released,
            4 => Status::Expired,
            n => return Err(wrong(format!("no status has the number {n}"))),
        };
        let (reserved_at, deadline, ended_at) = (from.n()?, from.n()?, from.n()?);
        let head = get_head(from)?;
        let line = self.line(from)?;
        let key = from.opt(|from| from.small())?.map(|key| self.key_at(key)).transpose()?;
        let extra = from.opt(|from| self.extra(from))?;
        if self.state.find(id).is_some() {
            return Err(wrong(format!("id {id} is there twice")));
        }
        let extra = extra.map_or(NONE, |extra| self.state.extras.insert(extra));
        let at = self.state.add_reservation(Reservation {
            id: *id.as_bytes(),
            fingerprint,
            reserved_at,
            deadline,
            ended_at,
            head_index: head.index,
            head_place: head.place,
            line,
            key: key.unwrap_or(NONE),
            extra,
            order: NONE,
            status: Some(status),
        });
        self.state.digest_reservation(at, true);
        self.count(at)
    }

    /// Rebuilds what is derived from a reservation.
    fn count(&mut self, at: u32) -> Read<()> {
        let s = &mut self.state;
        let r = s.reservations.get(at).clone();
        let keys = s.key_list(&r);
        for &key in &keys {
            s.keys.carry_again(key);
        }
        for line in s.lines(&r) {
            let offer = s.offers.get(line.offer);
            let counted: SmallVec<[u32; 4]> =
                if line.counted() && !offer.ended { keys.clone() } else { SmallVec::new() };
            match r.status {
                Some(Status::Held) => {
                    s.sums[line.offer as usize].hold(r.deadline, line.reserved());
                    if r.deadline > s.time {
                        counted.iter().for_each(|&key| s.keys.hold(key, line.offer, r.deadline, line.reserved()));
                    }
                }
                Some(Status::Confirmed) if line.sold > line.returned && !crate::bad!("snapshot-without-counts") => {
                    counted.iter().for_each(|&key| s.keys.buy(key, line.offer, line.sold - line.returned));
                }
                _ => {}
            }
        }
        // What has ended is remembered once the orders are read: they decide when that begins.
        if r.is_held() {
            s.expiry.insert(r.deadline, &r.id, at);
        }
        Ok(())
    }

    fn refused(&mut self, from: &mut In<'_>) -> Read<()> {
        let id = from.id()?;
        let fingerprint = get_word(from)?;
        let why = Why::ALL.get(usize::from(from.byte()?)).copied().filter(|&why| why != Why::Vacant);
        let why = why.ok_or_else(|| wrong("a refusal without reason"))?;
        let key_index = from.byte()?;
        let (at, detail) = (from.n()?, from.n()?);
        let offer = if why.names_unknown() {
            let name = UnknownName(Some(from.offer()?));
            self.state.unknown_names.insert(name)
        } else {
            from.small()?
        };
        let needs_offer = matches!(why, Why::LimitReached | Why::SoldOutOpen | Why::SoldOutUntil | Why::SoldOutGone);
        if needs_offer {
            self.offer_at(offer)?;
        }
        if self.state.find(id).is_some() {
            return Err(wrong(format!("id {id} is there twice")));
        }
        let mut refused = Refused::new(*id.as_bytes(), fingerprint, at, why).with_detail(detail);
        (refused.offer, refused.key_index) = (offer, key_index);
        let at = self.state.add_refused(refused);
        self.state.digest_refused(at, true);
        self.state.remember(Found::Refused(at));
        Ok(())
    }

    fn cold(amount: Option<Money>, from: &mut In<'_>) -> Read<Cold> {
        let mut cold = Cold { amount, ..Cold::default() };
        cold.seal(orders::sealed(from)?, orders::sealed(from)?);
        cold.intent = from.opt(orders::provider_id)?;
        cold.generation = from.small()?;
        cold.secret = from.opt(orders::secret)?;
        for _ in 0..from.count(limits::PAYMENTS_MAX)? {
            cold.payments.push(Payment {
                id: orders::provider_id(from)?,
                amount: from.opt(orders::money)?,
                state: orders::payment_state(from)?,
                refund: from.opt(orders::provider_id)?,
            });
        }
        cold.linked = from.opt(In::id)?;
        cold.worker = from.opt(orders::worker)?;
        cold.parked = from.opt(orders::park_reason)?;
        Ok(cold)
    }

    fn order(&mut self, from: &mut In<'_>) -> Read<()> {
        let id = from.id()?;
        let amount = from.opt(orders::money)?;
        let mut order = Order {
            id: *id.as_bytes(),
            fingerprint: get_word(from)?,
            phase: Some(orders::phase(from)?.ok_or_else(|| wrong("an order without phase"))?),
            parked_from: orders::phase(from)?,
            ending: orders::ending(from)?,
            standing: match from.byte()? {
                n @ 1..=5 => Standing::ALL[usize::from(n) - 1],
                n => return Err(wrong(format!("no standing has the number {n}"))),
            },
            suspect: from.flag()?,
            placed_at: from.n()?,
            done_at: from.n()?,
            ready_at: from.n()?,
            due: from.n()?,
            epoch: from.small()?,
            attempts: from.small()?,
            lost: from.small()?,
            reported: get_word(from)?,
            by_hand: get_word(from)?,
            head: get_head(from)?,
            ..Order::vacant()
        };
        order.cold = Some(Self::cold(amount, from)?.into());
        self.place_order(&mut order)?;
        self.state.add_order(order);
        Ok(())
    }

    /// Finds an order's reservations, and checks what its place in the queues is taken for granted by.
    fn place_order(&self, order: &mut Order) -> Read<()> {
        let s = &self.state;
        let id = order.id();
        let cold = order.cold().clone();
        let reservation_of = |id| match s.find(id) {
            Some(Found::Reservation(at)) if s.reservations.get(at).order == NONE => Some(at),
            _ => None,
        };
        if !order.is_stray() {
            order.reservation = reservation_of(id).ok_or_else(|| wrong(format!("order {id} without reservation")))?;
            order.linked = cold.linked.and_then(reservation_of).unwrap_or(NONE);
        }
        let held = order.reservation != NONE && s.reservations.get(order.reservation).is_held();
        let works = order.standing != Standing::Idle;
        let fits = order.phase().holds() == held
            && works == order.step().is_some()
            && (order.standing == Standing::Leased) == cold.worker.is_some()
            && (order.phase() == OrderPhase::Parked) == cold.parked.is_some()
            && (order.standing != Standing::Late || held)
            && (!matches!(order.standing, Standing::Ready | Standing::Late) || order.due <= s.orders.sequence)
            && (!order.is_stray() || cold.payments.iter().any(|p| p.amount.is_some()))
            && (order.linked == NONE || order.linked != order.reservation)
            && !s.orders.queues.by_id.contains_key(&order.id);
        let seat = s.seat_is_free(order);
        if fits && seat { Ok(()) } else { Err(wrong(format!("order {id} does not fit itself"))) }
    }

    /// Checks that the derived sums fit the records, and the digest.
    fn end(mut self, from: &mut In<'_>) -> Read<State> {
        let written = Digest { index: from.n()?, value: from.wide()? };
        if !from.is_at_end() {
            return Err(wrong("something follows the digest"));
        }
        for &key in self.keys.iter().filter(|&&key| key != NONE) {
            self.state.keys.drop_carried(key);
        }
        let ended = self.state.reservations.iter().filter(|(_, r)| !r.is_held()).map(|(at, _)| at);
        for at in ended.collect::<Vec<u32>>() {
            self.state.remember(Found::Reservation(at));
        }
        let products: Vec<u32> = self.state.products.iter().map(|(at, _)| at).collect();
        for at in products {
            if self.state.offers.try_get(self.state.products.get(at).plain).is_none() {
                return Err(wrong("a product without its plain offer"));
            }
            self.state.product_mut(at);
        }
        let now = self.state.take_digest();
        if now != written {
            return Err(wrong(format!("its digest is {now:x?}, written was {written:x?}")));
        }
        if crate::bad!("forget-ids-after-restart") {
            self.state.ids = crate::state::ids::IdIndex::new();
        }
        Ok(self.state)
    }
}
