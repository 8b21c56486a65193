//! Deciding an entry: time first, then every command in order.
//!
//! **What it is.** [`decide`] advances ledger time, sweeps a bounded number of what time ended (expiries in (deadline, id) order, then window
//! edges, then memory), decides the commands, and closes the record and the digest. One file a family of verbs.
//! **Owns** the order of things in an entry, and the links between changes. **Must never** fail: it answers, or a broken invariant stops
//! the replica. **Read next**: `time`, `reserve`, `holds`, `returns`, `orders`, `stock`, `catalog`.

mod catalog;
#[cfg(test)]
mod cost;
mod holds;
mod normal;
#[cfg(test)]
mod one_time;
mod orders;
#[cfg(test)]
mod record_bounds;
mod refusals;
mod reserve;
mod returns;
mod stock;
mod time;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::change::{EntryFault, Link};
use crate::codec::chain_after;
use crate::codec::changes::{Links, OnProducts, Recorder, Said, SaidLine};
use crate::command::{Command, Entry};
use crate::fingerprint::Fingerprints;
use crate::ledger::{Applied, Position};
use crate::limits;
use crate::outcome::{NotNow, Outcome, Refusal, Settled};
use crate::state::State;
use crate::state::records::{Head, NONE};
use crate::types::LedgerTime;

/// What commands are answered with before it is wrapped.
type Verdict = Result<Settled, No>;

/// Nothing happened.
enum No {
    Refused(Refusal),
    NotNow(NotNow),
}

impl From<Refusal> for No {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}
impl From<NotNow> for No {
    fn from(when: NotNow) -> Self {
        Self::NotNow(when)
    }
}

/// Buffers kept between entries.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) fingerprints: Fingerprints,
    /// Bytes the last record took: room for the next.
    record_room: usize,
}

/// An entry being decided.
struct Deciding<'a> {
    state: &'a mut State,
    scratch: &'a mut Scratch,
    recorder: Recorder,
    place: u16,
    /// The offer that was asked for last; none when one may have been removed since.
    last_offer: u32,
    /// What the entry has done so far of what is bounded.
    spent: Spent,
}

/// Work of one entry that is bounded by number: [`limits::CLAIMED_PER_ENTRY_MAX`], [`limits::LATE_PER_ENTRY_MAX`],
/// [`limits::LINKED_PER_ENTRY_MAX`].
#[derive(Default)]
struct Spent {
    claimed: usize,
    put_aside: usize,
    taken_back: usize,
    linked: usize,
}

/// Commands whose places in memory are fetched together: few enough to stay in the nearest cache until they are decided.
const WARMED_TOGETHER: usize = 32;

/// An entry that cannot be decoded.
pub(crate) struct Refused {
    pub(crate) hash: u128,
    pub(crate) bytes: u64,
    pub(crate) error: EntryFault,
}

/// Passes over an entry that cannot be decoded, as over a tick.
pub(crate) fn refuse(
    state: &mut State,
    scratch: &mut Scratch,
    term: u64,
    index: u64,
    stamp: LedgerTime,
    refused: &Refused,
) -> Applied {
    let tick = Entry { stamp, commands: Vec::new() };
    decide_and(state, scratch, term, index, &tick, |recorder| {
        let Refused { hash, bytes, error } = *refused;
        let links = Links { place: 0, on_products: OnProducts::default(), on_reservation: None };
        recorder.say(links, Said::EntryRefused { hash, bytes, error });
    })
}

/// Decides an entry.
pub(crate) fn decide(state: &mut State, scratch: &mut Scratch, term: u64, index: u64, entry: &Entry) -> Applied {
    decide_and(state, scratch, term, index, entry, |_| ())
}

/// Decides an entry; `last` may add to its record.
#[inline]
fn decide_and(
    state: &mut State,
    scratch: &mut Scratch,
    term: u64,
    index: u64,
    entry: &Entry,
    last: impl FnOnce(&mut Recorder),
) -> Applied {
    assert!(index > state.position.index, "index {index} is applied after {}", state.position.index);
    state.position = Position { term, index, ..state.position };
    let time_before = state.time;
    let stamp = entry.stamp.0.min(limits::LEDGER_TIME_MAX);
    if !crate::bad!("sweep-after-verdict") {
        state.time = state.time.max(stamp);
    }
    let chain_before = state.chain;
    let recorder = Recorder::begin(scratch.record_room + 128, state.position, state.time, chain_before);
    let mut deciding = Deciding { state, scratch, recorder, place: 0, last_offer: NONE, spent: Spent::default() };
    deciding.pass_time();
    let mut outcomes = Vec::with_capacity(entry.commands.len());
    for (place, command) in entry.commands.iter().enumerate() {
        if place.is_multiple_of(WARMED_TOGETHER) {
            deciding.state.warm(&entry.commands[place..entry.commands.len().min(place + WARMED_TOGETHER)]);
        }
        deciding.place = u16::try_from(place).expect("an entry has few enough commands for a place");
        if deciding.recorder.len() >= limits::RECORD_FULL_BYTES {
            // Time and sweeps stay below it, so an entry always decides something.
            outcomes.push(Outcome::NotNow(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS }));
            continue;
        }
        deciding.answer(command, &mut outcomes);
        if crate::bad!("apply-twice") {
            deciding.answer(command, &mut outcomes);
            outcomes.pop();
        }
    }
    last(&mut deciding.recorder);
    let record = deciding.recorder.finish().map(Bytes::from);
    if let Some(record) = &record {
        scratch.record_room = record.len();
        state.chain = chain_after(chain_before, record);
    }
    if crate::bad!("sweep-after-verdict") {
        state.time = state.time.max(stamp);
    }
    state.forget_above_cap();
    let digest = state.digest_if_due(time_before);
    Applied { time: state.now(), outcomes, record, digest }
}

/// A verdict as it is answered.
fn answer(verdict: Verdict) -> Outcome {
    match verdict {
        Ok(settled) => Outcome::Ok(settled),
        Err(No::Refused(why)) => Outcome::Refused(why),
        Err(No::NotNow(when)) => Outcome::NotNow(when),
    }
}

impl Deciding<'_> {
    /// Decides one command, and adds its one answer.
    #[inline]
    fn answer(&mut self, command: &Command, outcomes: &mut Vec<Outcome>) {
        match command {
            Command::Reserve { id, keys, lines, hold_ms } => self.reserve(*id, keys, lines, *hold_ms, outcomes),
            other => outcomes.push(answer(self.command(other))),
        }
    }

    fn command(&mut self, command: &Command) -> Verdict {
        if command.slot().is_some_and(|slot| !self.state.owns(slot)) {
            return Err(NotNow::SlotElsewhere.into());
        }
        match command {
            Command::Extend { id, replaces, hold_ms } => self.extend(*id, replaces.0, *hold_ms),
            Command::Confirm { id, lines } => self.confirm(*id, lines.as_ref()),
            Command::Release { id } => self.release(*id),
            Command::Fence { id } => self.fence(*id),
            Command::Return { id, lines, reference } => self.bring_back(*id, lines.as_ref(), reference),
            Command::CreateProduct { sku, policy } => self.create_product(sku, policy),
            Command::PutOffer { offer, policy, expected_version } => self.put_offer(offer, policy, *expected_version),
            Command::SetOpen { offer, open } => self.set_open(offer, *open),
            Command::DeleteProduct { sku } => self.delete_product(sku),
            Command::EndSale { sku, sale } => self.end_sale(sku, sale),
            Command::Receive { offer, units, reference } => self.receive(offer, *units, reference),
            Command::Adjust { offer, delta, reason, reference, expected_version } => {
                self.adjust(offer, *delta, reason, reference, *expected_version)
            }
            Command::Allot { sku, from, to, units, reference } => {
                self.allot(sku, from.as_ref(), to.as_ref(), *units, reference)
            }
            Command::Tick => Ok(Settled::Done),
            Command::Reserve { .. } => unreachable!("reserves are decided by `reserve`"),
            Command::Configure { settings } => {
                self.state.settings = settings.clone();
                Ok(Settled::Done)
            }
            Command::OwnSlots { generation, ranges } => {
                let present = self.state.generation;
                if *generation <= present {
                    return Err(Refusal::StaleGeneration { present }.into());
                }
                self.state.own(*generation, ranges);
                Ok(Settled::Done)
            }
            Command::PlaceOrder { id, details, reserve } => self.place_order(*id, details, reserve.as_ref()),
            Command::ClaimOrders { slot: _, worker, class, max, lease_ms, attempt_ms } => {
                Ok(self.claim_orders(worker, *class, *max, *lease_ms, *attempt_ms))
            }
            Command::Heartbeat { id, epoch, lease_ms } => self.heartbeat(*id, *epoch, *lease_ms),
            Command::ReportOrder { id, epoch, report } => self.report_order(*id, *epoch, report),
            Command::RecordFact { id, fact } => self.record_fact(*id, fact),
            Command::OrderByHand { id, what, reason } => self.order_by_hand(*id, *what, reason),
            Command::SwitchBehaviour { version } => {
                let present = self.state.behaviour;
                if *version < present || *version > limits::BEHAVIOUR_VERSION_MAX {
                    return Err(Refusal::BehaviourUnknown { version: *version, present }.into());
                }
                self.state.behaviour = *version;
                Ok(Settled::Done)
            }
        }
    }

    fn here(&self) -> Head {
        Head::at(Position { place: self.place, ..self.state.position })
    }

    /// The change before this one on the product of an offer; this one becomes the last.
    fn link_product(&mut self, offer: u32) -> Link {
        let here = self.here();
        let product = self.state.offers.get(offer).product;
        std::mem::replace(&mut self.state.product_mut(product).head, here).get()
    }

    /// The same for the products of all lines, each once. The offers come in the order in which the change names them.
    fn link_products(&mut self, offers: impl Iterator<Item = u32>) -> OnProducts {
        let mut links = OnProducts::default();
        let mut seen: SmallVec<[u32; 4]> = SmallVec::new();
        for offer in offers {
            let product = self.state.offers.get(offer).product;
            if seen.contains(&product) {
                continue;
            }
            let before = self.link_product(offer);
            if seen.is_empty() {
                links.first = before;
            } else {
                links.further.push(before);
            }
            seen.push(product);
        }
        links
    }

    /// The change before this one on the reservation; this one becomes the last. The caller keeps the digest right.
    fn link_reservation(&mut self, at: u32) -> Link {
        let here = self.here();
        let r = self.state.reservations.get_mut(at);
        let before = Head { index: r.head_index, place: r.head_place };
        (r.head_index, r.head_place) = (here.index, here.place);
        before.get()
    }

    /// Tells a change on one offer.
    fn say_offer<'s>(&'s mut self, offer: u32, said: impl FnOnce(&'s State, &'s [u8]) -> Said<'s>) {
        let on_products = self.link_product(offer).into();
        let links = Links { place: self.place, on_products, on_reservation: None };
        let state: &'s State = self.state;
        self.recorder.say(links, said(state, &state.sums[offer as usize].wire));
    }

    /// Tells that availability fell to the threshold or to nothing, if it did, from what was available `before` to what is `now`.
    #[inline]
    fn say_fell(&mut self, offer: u32, before: u64, now: u64) {
        let low = self.state.offers.get(offer).policy.low_stock_at;
        if now >= before || now > low {
            return;
        }
        if low > 0 && before > low {
            self.say_offer(offer, |_, offer| Said::StockLow { offer, available: now });
        }
        if now == 0 {
            self.say_sold_out(offer);
        }
    }

    fn say_sold_out(&mut self, offer: u32) {
        let truth = self.state.sold_out(offer);
        self.say_offer(offer, |_, offer| Said::SoldOut { offer, truth });
    }
}

/// A line of a change, with the balance as it is now.
#[inline(always)]
fn said_line(state: &State, offer: u32, quantity: u32) -> SaidLine<'_> {
    SaidLine { offer: &state.sums[offer as usize].wire, quantity, balance: state.balance(offer) }
}

/// Lines of a change, with the balances as they are now.
fn said_lines(state: &State, lines: impl Iterator<Item = (u32, u32)>) -> SmallVec<[SaidLine<'_>; 2]> {
    lines.filter(|&(_, quantity)| quantity > 0).map(|(offer, quantity)| said_line(state, offer, quantity)).collect()
}
