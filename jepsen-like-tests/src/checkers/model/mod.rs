//! The ledger of one shard again, slow and obvious, as the contract's text has it: maps, and nothing kept that a reader could not add up.
//!
//! **What it is.** [`Model::apply`] decides one op at a ledger time, as a second opinion written from docs/semantics.md and not from the code it
//! checks. Each op costs the logarithm of what is there. What the ledger may decide for itself (to forget, and when) is an *observation* that must be
//! lawful ([`Model::apply`] takes the answer for that alone).
//!
//! **Owns** the second opinion. **Must never** share code with the ledger, nor know a log. **Read next**: [`reserve`], [`settle`], [`stock`].

mod reserve;
mod settle;
mod stock;

use std::collections::{BTreeMap, BTreeSet};

use client_sdk::{ReservationId, Sku, Slot};

use crate::history::{Answer, Line, No, Offer, Op, Out, State, Terms, Told, Units};

/// Ids younger than this are never forgotten.
pub(super) const FORGET_GUARD_MS: u64 = 10_000;

/// What was decided, and whether it repeats an earlier verdict.
pub(super) type Verdict = Result<(Told, bool), No>;

/// The state of one shard, as far as clients can tell it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Model {
    /// Ledger time.
    pub(super) time: u64,
    /// The cap on remembered ids, if it can press.
    cap: Option<u64>,
    offers: BTreeMap<Offer, Stock>,
    products: BTreeMap<String, Product>,
    pub(super) ids: BTreeMap<String, Known>,
    due: BTreeSet<(u64, String)>,
    uses: BTreeMap<(Offer, String), u64>,
    /// Ended, refused and fenced ids, those included that may have been forgotten unseen.
    remembered: u64,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stock {
    terms: Terms,
    version: u64,
    ended: bool,
    units: Units,
    /// Live holds by deadline.
    deadlines: BTreeMap<u64, u32>,
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Product {
    created_with: Terms,
    /// What each reference of receive, adjust and allot was used for.
    references: BTreeMap<String, Op>,
}

/// What is known of an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Known {
    /// It executed.
    Reserved(Hold),
    /// It was refused; what it had asked for, if that is certain.
    Refused(Option<Content>, No),
    /// It never executes.
    Fenced,
    /// The ledger said so once, and must say so for ever.
    Forgotten,
}

/// What a reserve asks for, in normal form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub(super) keys: BTreeSet<String>,
    pub(super) lines: BTreeMap<Offer, u64>,
    pub(super) hold_ms: Option<u64>,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    content: Content,
    reserved_at: u64,
    pub(super) deadline: u64,
    extended: Option<(u64, u64)>,
    pub(super) state: State,
    lines: BTreeMap<Offer, HeldLine>,
    /// Its returns by reference: what each asked, and the units it brought.
    returns: BTreeMap<String, (Op, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct HeldLine {
    reserved: u64,
    sold: u64,
    returned: u64,
    /// The offer had a limit when this was taken.
    counted: bool,
}

/// Lines in normal form: the same offer summed, sorted.
pub(super) fn summed(lines: &[Line]) -> BTreeMap<Offer, u64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        *sums.entry(line.offer.clone()).or_default() += u64::from(line.quantity);
    }
    sums
}

/// The slot of a product.
fn slot_of(sku: &str) -> Option<Slot> {
    Sku::new(sku).ok().map(|sku| Slot::of(&sku))
}

impl Model {
    /// An empty shard with this cap on remembered ids.
    pub(super) fn new(cap: Option<u64>) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Ledger time goes on to `time`; what is due by then has ended.
    pub(super) fn pass(&mut self, time: u64) {
        self.time = self.time.max(time);
        while let Some((deadline, id)) = self.due.first().cloned()
            && deadline <= self.time
        {
            self.end(&id, State::Expired, &BTreeMap::new());
        }
    }

    /// The next instant at which a hold ends by itself.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// Decides an op at the present ledger time. `seen` is the ledger's own answer: only *forgotten* is taken from it, where that is lawful.
    pub(super) fn apply(&mut self, op: &Op, seen: Option<&Answer>) -> Verdict {
        if let Some(id) = op.id()
            && says_forgotten(seen)
            && self.may_forget(id)
        {
            self.ids.insert(id.to_owned(), Known::Forgotten);
        }
        match op {
            Op::Reserve { id, lines, keys, hold_ms } => self.reserve(id, lines, keys, *hold_ms),
            Op::Extend { id, replaces_ms, hold_ms } => self.extend(id, *replaces_ms, *hold_ms),
            Op::Confirm { id, lines } => self.confirm(id, lines.as_deref()),
            Op::Release { id } => self.release(id),
            Op::Fence { id } => self.fence(id),
            Op::Return { id, lines, reference } => self.bring_back(op, id, lines.as_deref(), reference),
            Op::CreateProduct { sku, terms } => self.create(sku, terms),
            Op::PutOffer { offer, terms, expected_version } => self.put(offer, terms, *expected_version),
            Op::SetOpen { offer, open } => self.set_open(offer, *open),
            Op::EndSale { offer } => self.end_sale(offer),
            Op::Receive { offer, units, reference } => self.receive(op, offer, *units, reference),
            Op::Adjust { offer, delta, reference, expected_version } => {
                self.adjust(op, offer, *delta, reference, *expected_version)
            }
            Op::Allot { sku, from, to, units, reference } => {
                let from = Offer { sku: sku.clone(), sale: from.clone() };
                let to = Offer { sku: sku.clone(), sale: to.clone() };
                self.allot(op, &from, &to, *units, reference)
            }
            Op::ReadOffer { offer, .. } => Ok((self.seen(offer), false)),
            Op::ReadId { id, .. } => Ok((self.seen_id(id), false)),
        }
    }

    /// What an offer has; none when there is no such offer.
    pub(super) fn units(&self, offer: &Offer) -> Option<Units> {
        self.offers.get(offer).map(|stock| stock.units)
    }

    fn seen(&self, offer: &Offer) -> Told {
        match self.offers.get(offer) {
            None => Told::Nothing,
            Some(stock) => Told::Seen {
                units: stock.units,
                version: stock.version,
                out: (stock.units.available == 0).then(|| self.out(offer)),
                ended: stock.ended,
            },
        }
    }

    fn seen_id(&self, id: &str) -> Told {
        let (state, sold) = match self.ids.get(id) {
            None => ("unknown", 0),
            Some(Known::Forgotten) => ("forgotten", 0),
            Some(Known::Fenced) => ("fenced", 0),
            Some(Known::Refused(..)) => ("refused", 0),
            Some(Known::Reserved(hold)) => {
                let state = match hold.state {
                    State::Held => "held",
                    State::Confirmed => "confirmed",
                    State::Released => "released",
                    State::Expired => "expired",
                };
                (state, hold.lines.values().map(|l| l.sold).sum())
            }
        };
        Told::Id { state: state.to_owned(), sold }
    }

    /// What *sold out* means for an offer now.
    fn out(&self, offer: &Offer) -> Out {
        let stock = &self.offers[offer];
        if stock.units.available > 0 {
            return Out::Open { available: stock.units.available };
        }
        // Units held in ended sales come back to the plain offer; those of an ended sale's own do not come back to it.
        let comes_back = |from: &Offer, of: &Stock| match of.ended {
            true => offer.sale.is_none() && from.sku == offer.sku,
            false => from == offer,
        };
        let first = Offer::plain(offer.sku.as_str());
        let holds = self.offers.range(first..).take_while(|(o, _)| o.sku == offer.sku);
        let back = holds.filter(|(o, s)| comes_back(o, s)).filter_map(|(_, s)| s.deadlines.keys().next()).min();
        back.map_or(Out::Gone, |&at_ms| Out::FirstBack { at_ms })
    }

    fn brief(&self, id: &str) -> Told {
        let Known::Reserved(hold) = &self.ids[id] else { panic!("{id} is no reservation") };
        Told::Reservation { state: hold.state, deadline_ms: hold.deadline, reserved_at_ms: hold.reserved_at }
    }

    /// Whether the contract lets the ledger forget this id now: old, not live, not in its return window, and the cap presses.
    fn may_forget(&self, id: &str) -> bool {
        let old = id.parse::<ReservationId>().is_ok_and(|id| id.time_ms() + FORGET_GUARD_MS <= self.time);
        let pressed = self.cap.is_some_and(|cap| self.remembered >= cap);
        let kept = matches!(self.ids.get(id), Some(Known::Reserved(hold)) if matches!(hold.state, State::Held | State::Confirmed));
        old && pressed && !kept
    }

    /// One more id may be remembered than the model was told of: an attempt whose verdict nobody heard.
    pub(super) fn may_remember_more(&mut self) {
        self.remembered += 1;
    }

    /// It turned out that the id was refused before, or fenced, by an attempt whose answer was lost.
    pub(super) fn learn(&mut self, id: &str, what: Known) {
        self.remembered += 1;
        self.ids.insert(id.to_owned(), what);
    }

    /// A live hold ends: nothing of it is held any more, and what of it is not sold is available, in the plain offer if the sale has ended.
    fn end(&mut self, id: &str, state: State, sold: &BTreeMap<Offer, u64>) {
        let Some(Known::Reserved(mut hold)) = self.ids.remove(id) else { panic!("{id} is no reservation") };
        self.due.remove(&(hold.deadline, id.to_owned()));
        for (offer, line) in &mut hold.lines {
            line.sold = sold.get(offer).copied().unwrap_or(0);
            let back = line.reserved - line.sold;
            let stock = self.offers.get_mut(offer).expect("held lines have offers");
            stock.units.held -= line.reserved;
            stock.units.sold += line.sold;
            leave(&mut stock.deadlines, hold.deadline);
            let ended = stock.ended;
            self.give(offer, back);
            if line.counted && !ended {
                for key in &hold.content.keys {
                    *self.uses.get_mut(&(offer.clone(), key.clone())).expect("counted") -= back;
                }
            }
        }
        hold.state = state;
        self.remembered += u64::from(state != State::Confirmed);
        self.ids.insert(id.to_owned(), Known::Reserved(hold));
    }

    /// Units become available: in the plain offer, if the sale has ended.
    fn give(&mut self, offer: &Offer, units: u64) {
        let home = if self.offers[offer].ended { Offer::plain(offer.sku.as_str()) } else { offer.clone() };
        self.offers.get_mut(&home).expect("every product has a plain offer").units.available += units;
    }
}

fn leave(deadlines: &mut BTreeMap<u64, u32>, deadline: u64) {
    let count = deadlines.get_mut(&deadline).expect("every live hold has its deadline here");
    *count -= 1;
    if *count == 0 {
        deadlines.remove(&deadline);
    }
}

/// Whether the ledger said that it has forgotten the id.
fn says_forgotten(seen: Option<&Answer>) -> bool {
    match seen {
        Some(Answer::Refused { no: No::Forgotten, .. }) => true,
        Some(Answer::Ok { told: Told::Id { state, .. }, .. }) => state == "forgotten",
        _ => false,
    }
}
