//! The ledger again, slow and obvious: maps, loops, everything recomputed from the reservations at every question.
//!
//! **Owns** a second opinion on the contract, written from its text and not from the code it checks. It never forgets;
//! what the ledger forgot is an *observation* that must be lawful ([`Model::recall`]): never of a live hold, never before its
//! time unless the cap presses, never above ledger time − guard, and for ever.
//! **Must never** share code with the ledger beyond the nouns, nor keep a sum that it could recompute.
//! **Read next**: `reserve`, `settle`, `stock`, `orders`, `steps`, then `feed` and `beside`.

pub(crate) mod beside;
pub(crate) mod feed;
mod orders;
mod reserve;
mod settle;
mod steps;
mod stock;

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::command::{Command, Entry, LimitKeys, Lines};
use ledger_core::outcome::{Balance, Brief, NotNow, Outcome, Refusal, Settled, SoldOut, Status};
use ledger_core::view::{IdView, LineView, OfferView, ProductView, ReservationView};
use ledger_core::{LedgerTime, LimitKey, OfferKey, Policy, Reference, ReservationId, ShardSettings, Sku, Slot, limits};

/// The whole state of one shard.
pub(crate) struct Model {
    pub(crate) time: u64,
    pub(crate) settings: ShardSettings,
    /// The shortest times and the lowest cap that were in force at any moment of the last entry.
    shortest: ShardSettings,
    owned_generation: u64,
    owned_ranges: Vec<(Slot, Slot)>,
    behaviour: u16,
    products: BTreeMap<Sku, Product>,
    offers: BTreeMap<OfferKey, Offer>,
    pub(crate) ids: BTreeMap<ReservationId, Known>,
    desk: orders::Desk,
    /// Holds that are due and that the sweep has not come to yet: their units are free, and their orders wait.
    unswept: BTreeSet<(u64, ReservationId)>,
    /// Products by their numbers: the lowest free one when they were created.
    created: Vec<Option<Sku>>,
    /// What each reference of receive, adjust and allot was used for, and until when that is remembered.
    references: BTreeMap<(Sku, Reference), (Command, u64)>,
}

#[derive(Default)]
struct Product {
    received: u64,
    adjusted: i64,
    returned: u64,
    ever_sold: u64,
    /// The plain offer's policy at creation.
    created_with: Policy,
}

struct Offer {
    policy: Policy,
    version: u64,
    /// All units in it: available, held and sold.
    units: u64,
    ended: bool,
    ended_at: u64,
    /// Units that offers sold which are gone.
    sold_before: u64,
}

/// All that was ever known of an id.
pub(crate) struct Known {
    pub(crate) what: What,
    /// The ledger said so once; it must say so for ever.
    pub(crate) forgotten: bool,
    /// When it ended, was refused or was fenced: its retention runs from here.
    settled_at: u64,
}

pub(crate) enum What {
    Reserved(Reservation),
    Refused(Content, Refusal),
    Fenced,
}

/// What a reserve asked for, normalised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    keys: BTreeSet<LimitKey>,
    lines: BTreeMap<OfferKey, u64>,
    hold_ms: Option<u64>,
    /// What was ordered beyond the stock, of an order placed with its units.
    placed: Option<String>,
}

pub(crate) struct Reservation {
    content: Content,
    reserved_at: u64,
    pub(crate) deadline: u64,
    /// The last extension: the deadline it replaced and the hold it asked for.
    extended: Option<(u64, u64)>,
    pub(crate) status: Status,
    lines: BTreeMap<OfferKey, ModelLine>,
    /// What the confirm asked for; none when it was not confirmed.
    confirmed_as: Option<BTreeMap<OfferKey, u64>>,
    /// Its returns by reference: what each asked, and how many units it brought.
    returns: BTreeMap<Reference, (Command, u64)>,
}

struct ModelLine {
    reserved: u64,
    sold: u64,
    returned: u64,
    /// The offer had a limit when this was taken.
    counted: bool,
}

/// What the ledger showed of its memory around an entry, and answered: the only thing the model does not decide.
pub(crate) struct Seen<'a> {
    pub(crate) outcomes: &'a [Outcome],
    pub(crate) forgotten_before: &'a dyn Fn(Slot) -> u64,
    pub(crate) forgotten_after: &'a dyn Fn(Slot) -> u64,
    /// Whether it has forgotten the id after the entry.
    pub(crate) forgets: &'a dyn Fn(ReservationId) -> bool,
    /// The reservation that it minted for a late payment of the order.
    pub(crate) linked: &'a dyn Fn(ReservationId) -> Option<ReservationId>,
    /// The offers that it removed in the entry.
    pub(crate) removed: &'a [OfferKey],
    /// The most ids of the capped kind that it can have remembered during the entry.
    pub(crate) remembered: u64,
}

/// What is known of an id at this moment.
enum Recall {
    Reserved,
    Refused,
    Fenced,
    Forgotten,
    New,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            time: 0,
            settings: ShardSettings::default(),
            shortest: ShardSettings::default(),
            owned_generation: 0,
            owned_ranges: Vec::new(),
            behaviour: 1,
            products: BTreeMap::new(),
            offers: BTreeMap::new(),
            ids: BTreeMap::new(),
            desk: orders::Desk::default(),
            unswept: BTreeSet::new(),
            created: Vec::new(),
            references: BTreeMap::new(),
        }
    }

    /// Decides the entry; only memory is taken from what was seen.
    pub(crate) fn apply(&mut self, entry: &Entry, seen: &Seen<'_>) -> Vec<Outcome> {
        self.time = self.time.max(entry.stamp.0);
        self.expire_due();
        self.wake_due();
        self.stop_counting(seen);
        self.remove_offers(seen);
        self.shortest = self.settings.clone();
        for command in &entry.commands {
            if let Command::Configure { settings } = command {
                let least = &mut self.shortest;
                least.retain_sold_ms = least.retain_sold_ms.min(settings.retain_sold_ms);
                least.retain_ended_ms = least.retain_ended_ms.min(settings.retain_ended_ms);
                least.retain_refused_ms = least.retain_refused_ms.min(settings.retain_refused_ms);
                least.remembered_max = least.remembered_max.min(settings.remembered_max);
            }
        }
        entry.commands.iter().zip(seen.outcomes).map(|(command, answer)| self.decide(command, answer, seen)).collect()
    }

    fn decide(&mut self, command: &Command, answer: &Outcome, seen: &Seen<'_>) -> Outcome {
        if let Some(slot) = command.slot()
            && !self.owns(slot)
        {
            return Outcome::NotNow(NotNow::SlotElsewhere);
        }
        if let Command::Heartbeat { id, .. }
        | Command::ReportOrder { id, .. }
        | Command::RecordFact { id, .. }
        | Command::OrderByHand { id, .. } = command
            && self.is_unswept(*id)
        {
            return SWEEP_PENDING;
        }
        let decided = match command {
            Command::Tick => Ok(Settled::Done),
            Command::Reserve { id, keys, lines, hold_ms } => {
                return self.reserve(*id, keys, lines, *hold_ms, answer, seen);
            }
            Command::Fence { id } => return self.fence(*id, answer, seen),
            Command::Extend { id, replaces, hold_ms } => self.extend(*id, replaces.0, *hold_ms, answer, seen),
            Command::Confirm { id, lines } => self.confirm(*id, lines.as_ref(), answer, seen),
            Command::Release { id } => self.release(*id, answer, seen),
            Command::Return { id, lines, reference } => {
                self.bring_back(command, *id, lines.as_ref(), reference, answer, seen)
            }
            Command::CreateProduct { sku, policy } => self.create(sku, policy),
            Command::DeleteProduct { sku } => self.delete(sku, answer, seen),
            Command::PutOffer { offer, policy, expected_version } => self.put(offer, policy, *expected_version),
            Command::SetOpen { offer, open } => self.set_open(offer, *open),
            Command::EndSale { sku, sale } => self.end_sale(&OfferKey { sku: sku.clone(), sale: Some(sale.clone()) }),
            Command::Receive { offer, units, reference } => self.receive(command, offer, units.get(), reference),
            Command::Adjust { offer, delta, reference, expected_version, .. } => {
                self.adjust(command, offer, *delta, reference, *expected_version)
            }
            Command::Allot { sku, from, to, units, reference } => {
                let from = OfferKey { sku: sku.clone(), sale: from.clone() };
                let to = OfferKey { sku: sku.clone(), sale: to.clone() };
                self.allot(command, &from, &to, units.get(), reference)
            }
            Command::Configure { settings } => {
                self.settings = settings.clone();
                Ok(Settled::Done)
            }
            Command::OwnSlots { generation, ranges } => self.own(*generation, ranges),
            Command::SwitchBehaviour { version } => self.switch(*version),
            Command::PlaceOrder { id, details, reserve } => {
                return self.place(*id, details, reserve.as_ref(), answer, seen);
            }
            Command::ClaimOrders { slot: _, worker, class, max, lease_ms, attempt_ms } => {
                Ok(self.claim(worker, *class, *max, *lease_ms, *attempt_ms))
            }
            Command::Heartbeat { id, epoch, lease_ms } => self.heartbeat(*id, *epoch, *lease_ms, answer, seen),
            Command::ReportOrder { id, epoch, report } => self.report(*id, *epoch, report, answer, seen),
            Command::RecordFact { id, fact } => self.fact(*id, fact, answer, seen),
            Command::OrderByHand { id, what, reason } => self.by_hand(*id, *what, reason, answer, seen),
        };
        decided.map_or_else(Outcome::Refused, Outcome::Ok)
    }

    fn owns(&self, slot: Slot) -> bool {
        self.owned_ranges.iter().any(|&(from, to)| from <= slot && slot <= to)
    }

    /// Ends every hold whose deadline is at or before ledger time, at once. What becomes of their orders follows with the sweep.
    fn expire_due(&mut self) {
        let mut due: Vec<(u64, ReservationId)> = self
            .reservations()
            .filter(|(_, r)| r.status == Status::Held && r.deadline <= self.time)
            .map(|(id, r)| (r.deadline, id))
            .collect();
        due.sort_unstable();
        for (at, id) in due {
            self.give_back(id, &self.reserved_lines(id));
            self.reservation_mut(id).status = Status::Expired;
            self.ids.get_mut(&id).expect("known").settled_at = at;
            self.unswept.insert((at, id));
        }
        for _ in 0..limits::EXPIRED_PER_ENTRY_MAX {
            let Some((_, id)) = self.unswept.pop_first() else { break };
            self.order_lost_hold(id, Status::Expired);
        }
    }

    fn reservations(&self) -> impl Iterator<Item = (ReservationId, &Reservation)> {
        self.ids.iter().filter_map(|(&id, known)| match &known.what {
            What::Reserved(r) => Some((id, r)),
            _ => None,
        })
    }

    fn reservation(&self, id: ReservationId) -> &Reservation {
        match &self.ids[&id].what {
            What::Reserved(r) => r,
            _ => panic!("{id} is not a reservation"),
        }
    }

    fn reservation_mut(&mut self, id: ReservationId) -> &mut Reservation {
        match &mut self.ids.get_mut(&id).expect("known").what {
            What::Reserved(r) => r,
            _ => panic!("{id} is not a reservation"),
        }
    }

    fn reserved_lines(&self, id: ReservationId) -> BTreeMap<OfferKey, u64> {
        self.reservation(id).lines.iter().map(|(offer, line)| (offer.clone(), line.reserved)).collect()
    }

    /// Units leave a hold or a sale: those of an ended sale's offer go to the plain one.
    fn give_back(&mut self, _id: ReservationId, lines: &BTreeMap<OfferKey, u64>) {
        for (offer, &quantity) in lines {
            if self.offers[offer].ended {
                let plain = OfferKey { sku: offer.sku.clone(), sale: None };
                self.offers.get_mut(offer).expect("known").units -= quantity;
                self.offers.get_mut(&plain).expect("every product has it").units += quantity;
            }
        }
    }

    /// Recomputed from the reservations.
    fn balance(&self, offer: &OfferKey) -> Balance {
        let mut balance = Balance { sold: self.offers[offer].sold_before, ..Balance::default() };
        for (_, r) in self.reservations() {
            if let Some(line) = r.lines.get(offer) {
                match r.status {
                    Status::Held => balance.held += line.reserved,
                    Status::Confirmed => balance.sold += line.sold - line.returned,
                    Status::Released | Status::Expired => {}
                }
            }
        }
        let units = self.offers[offer].units;
        balance.available = units.checked_sub(balance.held + balance.sold).unwrap_or_else(|| {
            panic!("{offer:?}: {} held and {} sold of {units}: oversold", balance.held, balance.sold)
        });
        balance
    }

    /// Units that a key holds and has bought in an offer.
    fn used(&self, offer: &OfferKey, key: &LimitKey) -> u64 {
        if self.offers[offer].ended {
            return 0;
        }
        self.reservations()
            .filter(|(_, r)| r.content.keys.contains(key))
            .filter_map(|(_, r)| r.lines.get(offer).filter(|l| l.counted).map(|l| (r.status, l)))
            .map(|(status, line)| match status {
                Status::Held => line.reserved,
                Status::Confirmed => line.sold - line.returned,
                Status::Released | Status::Expired => 0,
            })
            .sum()
    }

    fn sold_out(&self, offer: &OfferKey) -> SoldOut {
        let balance = self.balance(offer);
        if balance.available > 0 {
            return SoldOut::Open { available: balance.available };
        }
        // Whose end brings units to this offer: its own holds', and to the plain offer also those of ended sales.
        let comes_back = |from: &OfferKey| match self.offers[from].ended {
            true => from.sku == offer.sku && offer.sale.is_none(),
            false => from == offer,
        };
        self.reservations()
            .filter(|(_, r)| r.status == Status::Held && r.lines.keys().any(comes_back))
            .map(|(_, r)| r.deadline)
            .min()
            .map_or(SoldOut::Gone, |t| SoldOut::FirstBackAt(LedgerTime(t)))
    }

    fn brief(&self, id: ReservationId, replayed: bool) -> Brief {
        let r = self.reservation(id);
        Brief { status: r.status, deadline: LedgerTime(r.deadline), reserved_at: LedgerTime(r.reserved_at), replayed }
    }

    /// What is known of the id, the ledger's answer deciding only whether it has forgotten, and only where it may.
    fn recall(&mut self, id: ReservationId, answer: &Outcome, seen: &Seen<'_>) -> Recall {
        let says_forgotten = *answer == Outcome::Refused(Refusal::Forgotten);
        let after = (seen.forgotten_after)(id.slot());
        let may_forget = says_forgotten && id.time_ms() <= after && self.may_be_forgotten(id, seen.remembered);
        if may_forget {
            self.forget_order(id);
        }
        match self.ids.get_mut(&id) {
            Some(known) => {
                known.forgotten |= may_forget;
                match known.what {
                    _ if known.forgotten => Recall::Forgotten,
                    What::Reserved(_) => Recall::Reserved,
                    What::Refused(..) => Recall::Refused,
                    What::Fenced => Recall::Fenced,
                }
            }
            None if id.time_ms() <= (seen.forgotten_before)(id.slot()) => Recall::Forgotten,
            None if says_forgotten && id.time_ms() <= after => Recall::Forgotten,
            None => Recall::New,
        }
    }

    /// Whether the contract lets the ledger forget this id now: ended and past its retention, or pressed out by the cap.
    pub(crate) fn may_be_forgotten(&self, id: ReservationId, remembered: u64) -> bool {
        let Some(known) = self.ids.get(&id) else { return true };
        let old_enough = id.time_ms() <= self.time.saturating_sub(limits::FORGET_GUARD_MS);
        let Some((since, sold)) = self.memory_of(id, known) else { return false };
        let past = |retain_ms: u64| since.saturating_add(retain_ms.max(limits::RETAIN_MS_MIN)) <= self.time;
        let pressed = remembered >= self.shortest.remembered_max;
        old_enough
            && match &known.what {
                What::Reserved(_) if sold => past(self.shortest.retain_sold_ms),
                What::Reserved(_) => pressed || past(self.shortest.retain_ended_ms),
                What::Refused(..) | What::Fenced => pressed || past(self.shortest.retain_refused_ms),
            }
    }

    /// Whether an answer *memory full* is lawful: the cap is reached, nothing that it counts is old enough to be forgotten,
    /// and it says when to come back.
    fn memory_full(&self, answer: &Outcome, seen: &Seen<'_>) -> Option<Outcome> {
        let Outcome::NotNow(NotNow::MemoryFull { retry_ms }) = answer else { return None };
        let soon = (1..=limits::FORGET_GUARD_MS + limits::ID_AHEAD_MS_MAX).contains(retry_ms);
        let guard = self.time.saturating_sub(limits::FORGET_GUARD_MS);
        let could_be_forgotten = self.ids.iter().any(|(id, known)| {
            let counts = match &known.what {
                // Expired ones only once they are swept, orders only once they are done.
                What::Reserved(r) => {
                    r.status == Status::Released && self.memory_of(*id, known).is_some_and(|(_, sold)| !sold)
                }
                What::Refused(..) | What::Fenced => true,
            };
            counts && !known.forgotten && id.time_ms() <= guard && !(seen.forgets)(*id)
        });
        let lawful = soon && seen.remembered >= self.shortest.remembered_max && !could_be_forgotten;
        lawful.then(|| answer.clone())
    }

    fn too_far_ahead(&self, id: ReservationId) -> Option<Outcome> {
        let latest = self.time + limits::ID_AHEAD_MS_MAX;
        (id.time_ms() > latest).then(|| Outcome::NotNow(NotNow::IdTooFarAhead { retry_ms: id.time_ms() - latest }))
    }
}

/// Views.
impl Model {
    pub(crate) fn offer_keys(&self) -> impl Iterator<Item = &OfferKey> {
        self.offers.keys()
    }

    pub(crate) fn offer_view(&self, offer: &OfferKey) -> Option<OfferView> {
        let state = self.offers.get(offer)?;
        let in_window = state.policy.opens_at.is_none_or(|t| t.0 <= self.time)
            && state.policy.closes_at.is_none_or(|t| self.time < t.0);
        let balance = self.balance(offer);
        Some(OfferView {
            offer: offer.clone(),
            policy: state.policy.clone(),
            version: state.version,
            balance,
            sold_out: (balance.available == 0).then(|| self.sold_out(offer)),
            ended: state.ended,
            taking: state.policy.open && !state.ended && in_window,
        })
    }

    pub(crate) fn product_view(&self, sku: &Sku) -> Option<ProductView> {
        let product = self.products.get(sku)?;
        let offers = self.offers.keys().filter(|o| o.sku == *sku).filter_map(|o| self.offer_view(o)).collect();
        Some(ProductView {
            sku: sku.clone(),
            received: product.received,
            adjusted: product.adjusted,
            returned: product.returned,
            ever_sold: product.ever_sold,
            offers,
        })
    }

    pub(crate) fn skus(&self) -> Vec<Sku> {
        self.products.keys().cloned().collect()
    }

    /// What a read of the id answers while it is remembered.
    pub(crate) fn id_view(&self, id: ReservationId) -> IdView {
        if !self.owns(id.slot()) {
            return IdView::SlotElsewhere;
        }
        match self.ids.get(&id) {
            None => IdView::Unknown,
            Some(known) if known.forgotten => IdView::Forgotten,
            Some(Known { what: What::Fenced, .. }) => IdView::Fenced,
            Some(Known { what: What::Refused(_, why), .. }) => IdView::Refused(why.clone()),
            Some(Known { what: What::Reserved(r), settled_at, .. }) => {
                let held = r.status == Status::Held;
                IdView::Reservation(ReservationView {
                    id,
                    status: r.status,
                    reserved_at: LedgerTime(r.reserved_at),
                    deadline: LedgerTime(r.deadline),
                    ended_at: (!held).then_some(LedgerTime(*settled_at)),
                    keys: Vec::new(), // not compared: when they stop to count is the ledger's choice
                    lines: r
                        .lines
                        .iter()
                        .map(|(offer, l)| LineView {
                            offer: offer.clone(),
                            reserved: l.reserved as u32,
                            sold: l.sold as u32,
                            returned: l.returned as u32,
                        })
                        .collect(),
                })
            }
        }
    }

    /// The next deadline of a live hold, or window edge.
    pub(crate) fn next_edge(&self) -> Option<u64> {
        let holds = self.reservations().filter(|(_, r)| r.status == Status::Held).map(|(_, r)| r.deadline);
        let edges = self
            .offers
            .values()
            .filter(|o| !o.ended)
            .flat_map(|o| [o.policy.opens_at, o.policy.closes_at])
            .flatten()
            .map(|t| t.0)
            .filter(|&t| t > self.time);
        holds.chain(edges).chain(self.next_wake()).min()
    }

    /// Holds that are live.
    pub(crate) fn live(&self) -> u64 {
        self.reservations().filter(|(_, r)| r.status == Status::Held).count() as u64
    }
}

/// The answer about an order whose hold is due and not swept, and to who asks for a hold when too
/// many are.
const SWEEP_PENDING: Outcome = Outcome::NotNow(NotNow::SweepPending { retry_ms: limits::SWEEP_RETRY_MS });

/// Lines summed by offer; none when a sum is above what a line may ask for.
fn summed(lines: &Lines) -> Result<BTreeMap<OfferKey, u64>, Refusal> {
    let mut sums: BTreeMap<OfferKey, u64> = BTreeMap::new();
    for line in lines {
        *sums.entry(line.offer.clone()).or_default() += u64::from(line.quantity.get());
    }
    match sums.iter().find(|&(_, &sum)| sum > u64::from(limits::QUANTITY_MAX)) {
        Some((offer, _)) => Err(Refusal::QuantityTooLarge { offer: offer.clone() }),
        None => Ok(sums),
    }
}

fn content_of(keys: &LimitKeys, lines: BTreeMap<OfferKey, u64>, hold_ms: Option<u64>) -> Content {
    Content { keys: keys.iter().cloned().collect(), lines, hold_ms, placed: None }
}
