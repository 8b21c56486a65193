//! Frames back into a state: records checked one by one, what is derived rebuilt, the digest compared.
//!
//! **Owns** every check of a snapshot's bytes. **Must never** let a reference point nowhere. **Read next**: [`crate::audit`].

use super::*;
use crate::state::seed::IndexSeed;

type Read<T> = Result<T, CodecError>;
fn wrong(why: impl ToString) -> CodecError {
    CodecError::Malformed { what: WHAT, why: why.to_string() }
}

/// A state being read.
struct Reading {
    state: State,
    /// Where each key written stands here, by its number.
    keys: Vec<u32>,
}

/// Reads a snapshot.
pub(crate) fn read(from: &mut dyn io::Read, seed: IndexSeed) -> Read<State> {
    let mut magic = [0; 8];
    from.read_exact(&mut magic).map_err(wrong)?;
    if magic[..7] != MAGIC[..7] {
        return Err(wrong("it does not begin as a snapshot does"));
    }
    if magic[7] != MAGIC[7] {
        return Err(CodecError::UnknownVersion { what: WHAT, got: magic[7].into(), known: MAGIC[7].into() });
    }
    let mut reading = Reading { state: State::new(0, 0, seed), keys: Vec::new() };
    let mut last = 0;
    let mut frame = Vec::new();
    loop {
        read_frame(from, &mut frame)?;
        let mut payload = In::new(WHAT, &frame);
        let section = payload.byte()?;
        if section < last || (last == 0) != (section == SHARD) {
            return Err(wrong(format!("section {section} follows section {last}")));
        }
        if last <= OFFERS && section > OFFERS {
            reading.offers_are_read()?;
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
        s.references.seed = get_word(from)?;
        let o = &mut s.orders;
        (o.sequence, o.turns, o.given, o.stray_turn) = (from.n()?, from.n()?, [from.n()?, from.n()?], from.n()?);
        // There is one.
        from.must_end()
    }

    fn product(&mut self, from: &mut In<'_>) -> Read<()> {
        let at: u32 = from.small()?;
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
            turns: [from.n()?, from.n()?, from.n()?, from.n()?],
            head: get_head(from)?,
        };
        if at as usize >= limits::PRODUCTS_MAX || product.plain == NONE || !self.state.product_numbers.take_above(at) {
            return Err(wrong("products are not in the order of their numbers"));
        }
        self.state.products.insert_at(at, product);
        match self.state.by_sku.insert(sku, at) {
            None => Ok(()),
            Some(_) => Err(wrong("a product is there twice")),
        }
    }

    fn offer(&mut self, from: &mut In<'_>) -> Read<()> {
        let at: u32 = from.small()?;
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
            ended_at: from.n()?,
            phase: match from.byte()? {
                0 => Phase::Before,
                1 => Phase::Within,
                2 => Phase::Over,
                n => return Err(wrong(format!("no phase has the number {n}"))),
            },
            key,
        };
        if at as usize >= limits::OFFERS_MAX || !self.state.offer_numbers.take_above(at) {
            return Err(wrong("offers are not in the order of their numbers"));
        }
        let product = self.state.products.try_get(offer.product).ok_or_else(|| wrong("an offer without product"))?;
        let fits = product.sku == offer.key.sku && offer.key.sale.is_none() == (product.plain == at);
        let new = self.state.find_offer(&offer.key).is_none()
            && product.sales.len() < limits::OFFERS_PER_PRODUCT_MAX
            && (!offer.ended || offer.available == 0);
        if !fits || !new {
            return Err(wrong(format!("offer {:?} does not fit its product", offer.key)));
        }
        self.state.add_offer(at, offer);
        Ok(())
    }

    /// Every product has its plain offer, which may have been read after those of its sales.
    fn offers_are_read(&mut self) -> Read<()> {
        let s = &mut self.state;
        for (at, product) in s.products.iter() {
            let plain = s.offers.try_get(product.plain).filter(|offer| offer.product == at && offer.key.sale.is_none());
            if plain.is_none() {
                return Err(wrong("a product without its plain offer"));
            }
        }
        Ok(())
    }

    /// Keys are numbered in the order in which they were written.
    fn key(&mut self, from: &mut In<'_>) -> Read<()> {
        let text = from.key()?;
        let looked = self.state.keys.find(&text);
        if looked.place.is_some() {
            return Err(wrong("a limit key is there twice"));
        }
        self.keys.push(self.state.keys.carry(&text, looked));
        Ok(())
    }

    fn key_at(&self, written: u32) -> Read<u32> {
        self.keys.get(written as usize).copied().ok_or_else(|| wrong("a key that was not written"))
    }

    fn offer_at(&self, at: u32) -> Read<u32> {
        self.state.offers.try_get(at).map(|_| at).ok_or_else(|| wrong("an offer that was not written"))
    }

    fn kept(&mut self, from: &mut In<'_>) -> Read<()> {
        let (key, offer, units) = (self.key_at(from.small()?)?, self.offer_at(from.small()?)?, from.n()?);
        let runs = !self.state.offers.get(offer).ended && self.state.offers.get(offer).key.sale.is_some();
        if units == 0 || units > limits::UNITS_MAX || !runs {
            return Err(wrong("a kept count that counts nothing"));
        }
        // No sum of healthy counts comes near it: units that were ever sold are bounded.
        let kept = self.state.sums[offer as usize].kept.checked_add(units);
        if kept.is_none_or(|kept| kept > limits::UNITS_EVER_MAX) {
            return Err(wrong("more kept counts than a sale can have"));
        }
        if !self.state.keys.put_kept(key, offer, units) {
            return Err(wrong("a kept count is there twice"));
        }
        self.state.digest_kept(key, offer, 0, units);
        Ok(())
    }

    fn reference(&mut self, from: &mut In<'_>) -> Read<()> {
        let name = get_word(from)?;
        let content = u32::from_le_bytes(from.raw(4)?.try_into().expect("four bytes"));
        let used = UsedReference { name, content, used_at: from.small()? };
        if self.state.references.len() >= self.state.bounds.references || !used.is_of_time(self.state.time) {
            return Err(wrong("more references than a shard may have, or one of a later time"));
        }
        match self.state.add_reference(used) {
            true => Ok(()),
            false => Err(wrong("a reference is there twice, or before one that was used earlier")),
        }
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
        for _ in 0..from.count(limits::RETURNS_PER_RESERVATION_MAX)? {
            extra.returns.push(Returned { name: get_word(from)?, fingerprint: get_word(from)?, units: from.small()? });
        }
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
        let mut lines = std::iter::once(&line).chain(extra.iter().flat_map(|extra| &extra.lines));
        if status != Status::Confirmed && lines.any(|line| line.sold > 0) {
            return Err(wrong(format!("{id} sold units without being confirmed")));
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
            s.sums[line.offer as usize].bought += u64::from(line.sold - line.returned);
            let offer = s.offers.get(line.offer);
            let counted: SmallVec<[u32; 4]> =
                if line.counted() && !offer.ended { keys.clone() } else { SmallVec::new() };
            match r.status {
                Some(Status::Held) => {
                    s.hold_until(line.offer, r.deadline, line.reserved());
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
        if needs_offer || (offer != NONE && !why.names_unknown()) {
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
            cold.add_payment(Payment {
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
            && (!order.is_stray() || stray_fits(order))
            && (order.linked == NONE || order.linked != order.reservation)
            && !s.orders.queues.by_id.contains_key(&order.id);
        let seat = s.seat_is_free(order);
        if fits && seat { Ok(()) } else { Err(wrong(format!("order {id} does not fit itself"))) }
    }

    /// Checks that a product's units are conserved and that none is below zero: the only bound that units of a healthy state have. `held` counts due
    /// holds until they are swept, so it alone may exceed what the product has.
    fn units_fit(&self, product: u32) -> Read<()> {
        let s = &self.state;
        let p = s.products.get(product);
        let there = i128::from(p.received) + i128::from(p.adjusted);
        let (mut units, mut due_of_ended) = (0, 0);
        let mut sound = p.received <= limits::UNITS_EVER_MAX && (0..=i128::from(limits::UNITS_MAX)).contains(&there);
        for at in s.offers_of(product) {
            let offer = s.offers.get(at);
            let (due, live) = s.sums[at as usize].held_sums();
            let own = if offer.ended { 0 } else { i128::from(due) };
            sound &= i128::from(offer.held) == i128::from(due) + i128::from(live);
            sound &= offer.key.sale.is_none() || i128::from(offer.available) + own >= 0;
            due_of_ended += i128::from(due) - own;
            units += i128::from(offer.available) + i128::from(offer.held) + i128::from(offer.sold);
        }
        let plain = i128::from(s.offers.get(p.plain).available) + i128::from(s.sums[p.plain as usize].held_sums().0);
        sound &= plain + due_of_ended >= 0 && units == there;
        if sound { Ok(()) } else { Err(wrong(format!("units of {} do not add up", p.sku))) }
    }

    /// Checks that the derived sums fit the records, and the digest.
    fn end(mut self, from: &mut In<'_>) -> Read<State> {
        let written = Digest { index: from.n()?, value: from.wide()? };
        if !from.is_at_end() {
            return Err(wrong("something follows the digest"));
        }
        for &key in &self.keys {
            self.state.keys.drop_carried(key);
        }
        let ended = self.state.reservations.iter().filter(|(_, r)| !r.is_held()).map(|(at, _)| at);
        for at in ended.collect::<Vec<u32>>() {
            self.state.remember(Found::Reservation(at));
        }
        let offers: Vec<u32> = self.state.offers.iter().map(|(at, _)| at).collect();
        offers.into_iter().for_each(|at| self.state.note_use(at));
        let products: Vec<u32> = self.state.products.iter().map(|(at, _)| at).collect();
        for at in products {
            self.units_fit(at)?;
            self.state.product_mut(at);
        }
        let time = self.state.time;
        self.state.expiry.advance(time);
        let now = self.state.take_digest();
        if now != written {
            return Err(wrong(format!("its digest is {now:x?}, written was {written:x?}")));
        }
        if crate::bad!("forget-ids-after-restart") {
            self.state.ids = crate::state::ids::IdIndex::new(self.state.hash.clone());
        }
        Ok(self.state)
    }
}

/// What payments without an order can be: never in the suspect lane, which an order asks for, and
/// parked, to be refunded, or done.
fn stray_fits(order: &Order) -> bool {
    let phase = matches!(order.phase(), OrderPhase::Parked | OrderPhase::RefundDue | OrderPhase::Done);
    phase && !order.suspect && order.cold().payments.iter().any(|p| p.amount.is_some())
}
