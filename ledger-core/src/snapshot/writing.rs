//! A frozen view as frames.
//!
//! Products and offers are written with their numbers, which are their places. Places of every other slab never reach the bytes: what is
//! referred to by one is numbered as it is written ([`Numbers`]), stands inside its owner's record, or is named by id.
//! **Owns** how each record is written. **Must never** write what is derived. **Read next**: [`super::reading`].

use super::*;

/// Numbers of records whose slab has free places: the snapshot refers to them by the order in which they are written, from 0 on without a gap.
/// Made while they are written; it takes four bytes a place until the snapshot is written.
#[derive(Default)]
struct Numbers {
    by_place: Vec<u32>,
    given: u32,
}

impl Numbers {
    /// The record at this place is the next one written. Places come in rising order.
    fn give(&mut self, place: u32) {
        self.by_place.resize(place as usize, NONE);
        self.by_place.push(self.given);
        self.given += 1;
    }

    fn of(&self, place: u32) -> u64 {
        let number = self.by_place[place as usize];
        assert_ne!(number, NONE, "place {place} is referred to, so its record was written");
        number.into()
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
        mut put: impl FnMut(&mut Out<'_>, T),
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
        frames.section(PRODUCTS, self.products.iter(), |out, (at, p)| {
            out.n(at.into());
            put_product(out, p);
        })?;
        frames.section(OFFERS, self.offers.iter(), |out, (at, o)| {
            out.n(at.into());
            put_offer(out, o);
        })?;
        let mut numbers = Numbers::default();
        frames.section(KEYS, self.keys.texts(), |out, (at, text)| {
            numbers.give(at);
            out.text(text.as_str());
        })?;
        frames.section(KEPT, self.keys.kept(), |out, (key, offer, units)| {
            out.n(numbers.of(key));
            out.n(offer.into());
            out.n(units);
        })?;
        frames.section(REFERENCES, self.references.iter(), |out, used| {
            out.raw(&used.name.to_le_bytes());
            out.raw(&used.content.to_le_bytes());
            out.n(used.used_at.into());
        })?;
        frames.section(RESERVATIONS, self.reservations.iter(), |out, (_, r)| {
            let extra = (r.extra != NONE).then(|| self.extras.get(r.extra));
            put_reservation(out, r, extra, &numbers);
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
    out.raw(&s.reference_seed.to_le_bytes());
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
    out.n(o.ended_at);
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

fn put_reservation(out: &mut Out<'_>, r: &Reservation, extra: Option<&Extra>, keys: &Numbers) {
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
    out.opt((r.key != NONE).then_some(r.key), |out, key| out.n(keys.of(key)));
    out.opt(extra, |out, extra| {
        out.n(extra.lines.len() as u64);
        extra.lines.iter().for_each(|line| put_line(out, line));
        out.n(extra.keys.len() as u64);
        extra.keys.iter().for_each(|&key| out.n(keys.of(key)));
        out.opt(extra.extended, |out, (replaces, hold_ms)| {
            out.n(replaces);
            out.n(hold_ms);
        });
        out.n(extra.returns.len() as u64);
        for returned in &extra.returns {
            out.raw(&returned.name.to_le_bytes());
            out.raw(&returned.fingerprint.to_le_bytes());
            out.n(returned.units.into());
        }
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
    out.opt(cold.secret.as_ref(), |out, secret| out.text(secret.as_str()));
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
