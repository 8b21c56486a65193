//! States whose slabs have free places everywhere go on, once written and read back, as the states that they are copies of.
//!
//! **Owns** the random histories. **Must never** compare what is not the state: places, and counters that are dropped late. **Read next**: [`super`].

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::command::{Command, Entry, plain_line};
use crate::ledger::{Applied, Ledger};
use crate::limits;
use crate::order::{ByHand, Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId};
use crate::outcome::{Outcome, Settled};
use crate::types::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reason, Reference, ReservationId, SaleId, ShardSettings,
    Sku, Slot, Units,
};

const START_MS: u64 = 1_700_000_000_000;
const SEEDS: u64 = 6;
const ENTRIES: u64 = 160;

fn sku(name: &str) -> Sku {
    Sku::new(name).expect("a SKU")
}

fn offers() -> [OfferKey; 3] {
    let sale = SaleId::new("flash").expect("a sale");
    let of = |name: &str, sale: Option<&SaleId>| OfferKey { sku: sku(name), sale: sale.cloned() };
    [of("{t}a", None), of("{t}b", None), of("{t}a", Some(&sale))]
}

fn reason() -> Reason {
    Reason::new("so it is").expect("a reason")
}

/// Commands of a shop in which ids and keys live for half a minute.
struct Shop {
    dice: Xoshiro256PlusPlus,
    now: u64,
    next: u64,
    ids: Vec<ReservationId>,
    leased: Vec<(ReservationId, u32)>,
}

impl Shop {
    fn new(seed: u64) -> Self {
        let dice = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { dice, now: START_MS, next: 0, ids: Vec::new(), leased: Vec::new() }
    }

    fn setup() -> Vec<Command> {
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        let settings =
            ShardSettings { retain_sold_ms: 25_000, retain_ended_ms: 1, retain_refused_ms: 1, remembered_max: 60 };
        let [a, b, flash] = offers();
        let limited = Policy { per_key_max: Some(9), hold_ms_max: 40_000, hold_ms_default: 5_000, ..Policy::default() };
        let receive = |n: usize, offer: &OfferKey| Command::Receive {
            offer: offer.clone(),
            units: Units::new(40).expect("units"),
            reference: Reference::new(format!("first {n}")).expect("a reference"),
        };
        vec![
            Command::OwnSlots { generation: 1, ranges: vec![all] },
            Command::Configure { settings },
            Command::CreateProduct { sku: a.sku.clone(), policy: limited.clone() },
            Command::CreateProduct { sku: b.sku.clone(), policy: Policy::default() },
            Command::PutOffer { offer: flash.clone(), policy: limited, expected_version: None },
            receive(1, &a),
            receive(2, &b),
            receive(3, &flash),
        ]
    }

    fn new_id(&mut self) -> ReservationId {
        self.next += 1;
        let id = ReservationId::from_parts(Slot::of(&sku("{t}a")), self.now, self.next);
        self.ids.push(id);
        id
    }

    fn old_id(&mut self) -> ReservationId {
        if self.ids.is_empty() {
            return self.new_id();
        }
        let recent = self.ids.len().min(24);
        self.ids[self.ids.len() - 1 - self.dice.random_range(0..recent)]
    }

    fn keys(&mut self) -> Vec<LimitKey> {
        let count = self.dice.random_range(0..=4);
        let key = |n: u64| LimitKey::new(format!("key {n}")).expect("a key");
        // Most are seen once and never again.
        (0..count)
            .map(|_| key(if self.dice.random_bool(0.5) { self.next } else { self.next % 7 } * 5 + count))
            .collect()
    }

    fn lines(&mut self) -> Vec<Line> {
        let offers = offers();
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..self.dice.random_range(1..=3) {
            let offer = offers[self.dice.random_range(0..offers.len())].clone();
            lines.push(Line { offer, quantity: Quantity::new(self.dice.random_range(1..=3)).expect("a quantity") });
        }
        if self.dice.random_ratio(1, 9) {
            lines.push(plain_line(sku("{t}nowhere"), Quantity::new(1).expect("one")));
        }
        lines
    }

    fn reserve(&mut self) -> Command {
        let (keys, lines) = (self.keys(), self.lines());
        let hold_ms = Some(self.dice.random_range(1..=30_000));
        Command::Reserve { id: self.new_id(), keys: keys.into(), lines: lines.into(), hold_ms }
    }

    fn place(&mut self) -> Command {
        let details = OrderDetails {
            amount: Money::new(100, "EUR").expect("an amount"),
            pay_within_ms: self.dice.random_range(1..=20_000),
            payment: Sealed::default(),
            contact: Sealed::default(),
            suspect: self.dice.random_ratio(1, 4),
        };
        let reserve = (self.keys().into(), self.lines().into());
        Command::PlaceOrder { id: self.new_id(), details: Box::new(details), reserve: Some(reserve) }
    }

    fn report(&mut self) -> Command {
        let id = self.old_id();
        let (id, epoch) = self.leased.pop().unwrap_or((id, 1));
        let report = match self.dice.random_range(0..5) {
            0 => Report::Unpaid { reason: reason() },
            1 | 2 => Report::Notified,
            3 => Report::GiveBack { after_ms: self.dice.random_range(0..2_000) },
            _ => Report::Park { reason: reason() },
        };
        Command::ReportOrder { id, epoch, report }
    }

    fn pay(&mut self) -> Command {
        let id = if self.dice.random_ratio(1, 8) { self.new_id() } else { self.old_id() };
        let payment = ProviderId::new(format!("p{}", self.dice.random_range(0..3))).expect("an id");
        let fact = match self.dice.random_range(0..3) {
            0 => Fact::Refunded { refund: payment.clone(), payment },
            _ => Fact::Paid { payment, amount: Money::new(100, "EUR").expect("an amount") },
        };
        Command::RecordFact { id, fact }
    }

    fn command(&mut self) -> Command {
        match self.dice.random_range(0..20) {
            0..=5 => self.reserve(),
            6 | 7 => Command::Confirm { id: self.old_id(), lines: None },
            8 => Command::Release { id: self.old_id() },
            9 => Command::Fence { id: self.new_id() },
            10 => {
                let replaces = LedgerTime(self.now + 5_000);
                Command::Extend { id: self.old_id(), replaces, hold_ms: self.dice.random_range(1..9_000) }
            }
            11 => {
                let reference = Reference::new(format!("back {}", self.next)).expect("a reference");
                Command::Return { id: self.old_id(), lines: None, reference }
            }
            12..=14 => self.place(),
            15 => Command::ClaimOrders {
                slot: Slot::of(&sku("{t}a")),
                worker: WorkerId::new("w").expect("a name"),
                class: if self.dice.random_bool(0.5) { WorkClass::Money } else { WorkClass::Mail },
                max: 4,
                lease_ms: self.dice.random_range(limits::LEASE_MS_MIN..4_000),
                attempt_ms: self.dice.random_range(0..3_000),
            },
            16 => self.report(),
            17 => self.pay(),
            18 => {
                let what = [ByHand::Redrive, ByHand::Close, ByHand::Close][self.dice.random_range(0..3)];
                Command::OrderByHand { id: self.old_id(), what, reason: reason() }
            }
            _ => Command::Tick,
        }
    }

    fn entry(&mut self) -> Entry {
        self.now += [0, 0, 1, 700, 3_000, 12_000][self.dice.random_range(0..6)];
        let count = self.dice.random_range(1..=8);
        Entry { stamp: LedgerTime(self.now), commands: (0..count).map(|_| self.command()).collect() }
    }

    fn learn(&mut self, applied: &Applied) {
        for outcome in &applied.outcomes {
            if let Outcome::Ok(Settled::Claimed(claimed)) = outcome {
                self.leased.extend(claimed.iter().map(|c| (c.id, c.epoch)));
            }
        }
    }
}

/// A ledger at every step of a random history.
pub(crate) fn random_history(seed: u64, mut at_each: impl FnMut(&mut Ledger)) -> Ledger {
    let mut shop = Shop::new(seed);
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(seed.into()));
    ledger.apply(1, 1, &Entry { stamp: LedgerTime(START_MS), commands: Shop::setup() });
    for index in 2..ENTRIES {
        let applied = ledger.apply(1, index, &shop.entry());
        shop.learn(&applied);
        at_each(&mut ledger);
    }
    ledger
}

fn restored(ledger: &mut Ledger) -> Ledger {
    let mut bytes = Vec::new();
    ledger.freeze().write(&mut bytes).expect("memory takes bytes");
    Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(7)).expect("a healthy state is read back")
}

/// Slabs in which a place is free just now.
fn with_free_places(ledger: &Ledger) -> [bool; 7] {
    let s = &ledger.state;
    let [keys, more] = s.keys.free_places();
    let free = |len: usize, places: u32| len < places as usize;
    [
        free(s.reservations.len(), s.reservations.places()),
        free(s.extras.len(), s.extras.places()),
        free(s.refused.len(), s.refused.places()),
        free(s.unknown_names.len(), s.unknown_names.places()),
        free(s.orders.records.len(), s.orders.records.places()),
        keys,
        more,
    ]
}

/// The payloads of a snapshot's frames, with the magic before them.
fn frames(mut bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let magic = bytes[..8].to_vec();
    bytes = &bytes[8..];
    let mut payloads = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let (payload, rest) = rest[8..].split_at(u32::from_le_bytes(*len) as usize);
        payloads.push(payload.to_vec());
        bytes = rest;
    }
    (magic, payloads)
}

fn framed(magic: &[u8], payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for payload in payloads {
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(xxhash_rust::xxh3::xxh3_64(payload).to_le_bytes());
        bytes.extend(payload);
    }
    bytes
}

/// As many as fit a frame would add up to more than a counter has.
#[test]
fn a_kept_count_that_is_there_again_is_refused() {
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
    let apply = |ledger: &mut Ledger, index: u64, stamp: u64, commands: Vec<Command>| {
        ledger.apply(1, index, &Entry { stamp: LedgerTime(stamp), commands })
    };
    apply(&mut ledger, 1, START_MS, Shop::setup());
    let id = ReservationId::from_parts(Slot::of(&sku("{t}a")), START_MS, 1);
    let [_, _, flash] = offers();
    let line = Line { offer: flash, quantity: Quantity::new(1).expect("one") };
    let keys = [LimitKey::new("ann").expect("a key")].into_iter().collect();
    let reserve = Command::Reserve { id, keys, lines: [line].into_iter().collect(), hold_ms: None };
    apply(&mut ledger, 2, START_MS, vec![reserve, Command::Confirm { id, lines: None }]);
    apply(&mut ledger, 3, START_MS + 120_000, vec![Command::Tick]);
    assert_eq!(ledger.totals().sold, 0, "it is forgotten, what it bought still counts");

    let mut bytes = Vec::new();
    ledger.freeze().write(&mut bytes).expect("memory takes bytes");
    let (magic, mut payloads) = frames(&bytes);
    assert_eq!(framed(&magic, &payloads), bytes);
    let kept = payloads.iter_mut().find(|payload| payload[0] == super::KEPT).expect("there is one");
    // Its key has the number 0, its offer 2.
    assert_eq!(kept[1..], [0, 2, 1]);
    let most = [&[0, 2, 253][..], &limits::UNITS_MAX.to_le_bytes()].concat();
    *kept = [&[super::KEPT][..], &most.repeat(1 << 16)].concat();
    assert!(kept.len() <= limits::SNAPSHOT_FRAME_BYTES_MAX);
    let why = Ledger::thaw(&mut framed(&magic, &payloads).as_slice(), crate::IndexSeed(7)).err().expect("refused");
    assert!(why.to_string().contains("kept count is there twice"), "{why}");
}

/// A sum that no counter has room for ends the process that reads it.
#[test]
fn kept_counts_that_add_up_to_too_much_are_refused() {
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
    ledger.apply(1, 1, &Entry { stamp: LedgerTime(START_MS), commands: Shop::setup() });
    let mut bytes = Vec::new();
    ledger.freeze().write(&mut bytes).expect("memory takes bytes");
    let (magic, mut payloads) = frames(&bytes);
    let at = payloads.iter().position(|payload| payload[0] > super::KEPT).expect("there are later sections");
    let keys = limits::UNITS_EVER_MAX / limits::UNITS_MAX + 2;
    let mut texts = vec![super::KEYS];
    let mut kept = vec![super::KEPT];
    for key in 0..keys {
        let number = |bytes: &mut Vec<u8>| crate::codec::primitives::Out::new(bytes).n(key);
        let text = format!("k{key:05}");
        texts.push(text.len() as u8);
        texts.extend(text.as_bytes());
        number(&mut kept);
        kept.extend([2, 253]);
        kept.extend(limits::UNITS_MAX.to_le_bytes());
    }
    payloads.insert(at, kept);
    payloads.insert(at, texts);
    let why = Ledger::thaw(&mut framed(&magic, &payloads).as_slice(), crate::IndexSeed(7)).err().expect("refused");
    assert!(why.to_string().contains("more kept counts than a sale can have"), "{why}");
}

#[test]
fn units_that_were_sold_without_a_confirm_and_counts_kept_of_a_plain_offer_are_refused() {
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
    ledger.apply(1, 1, &Entry { stamp: LedgerTime(START_MS), commands: Shop::setup() });
    let id = ReservationId::from_parts(Slot::of(&sku("{t}a")), START_MS, 1);
    let line = plain_line(sku("{t}a"), Quantity::new(1).expect("one"));
    let reserve = Command::Reserve { id, keys: Default::default(), lines: [line].into_iter().collect(), hold_ms: None };
    let commands = vec![reserve, Command::Release { id }];
    ledger.apply(1, 2, &Entry { stamp: LedgerTime(START_MS), commands });
    let mut refused = |change: &dyn Fn(&mut crate::state::State)| {
        let mut copy = restored(&mut ledger);
        change(&mut copy.state);
        let mut bytes = Vec::new();
        copy.freeze().write(&mut bytes).expect("memory takes bytes");
        Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(7)).err().expect("refused").to_string()
    };
    let why = refused(&|state| {
        let at = state.reservation_of(id).expect("known");
        state.reservations.get_mut(at).line.sold = 1;
    });
    assert!(why.contains("sold units without being confirmed"), "{why}");
    let why = refused(&|state| {
        let text = LimitKey::new("ann").expect("a key");
        let looked = state.keys.find(&text);
        let key = state.keys.carry(&text, looked);
        assert!(state.keys.put_kept(key, 0, 1));
    });
    assert!(why.contains("a kept count that counts nothing"), "{why}");
    let why = refused(&|state| {
        let (product, plain) = (0, 0);
        state.offers.get_mut(2).ended = true;
        state.offers.get_mut(2).available = 5;
        assert_eq!(state.products.get(product).plain, plain);
    });
    assert!(why.contains("does not fit its product"), "{why}");
}

/// A claim takes suspects in turn with the others, and expects an order behind each.
#[test]
fn payments_without_an_order_in_the_suspect_lane_are_refused() {
    let mut ledger = Ledger::new(1, 1, crate::IndexSeed(7));
    let apply = |ledger: &mut Ledger, index: u64, commands: Vec<Command>| {
        ledger.apply(1, index, &Entry { stamp: LedgerTime(START_MS), commands })
    };
    apply(&mut ledger, 1, Shop::setup());
    let id = ReservationId::from_parts(Slot::of(&sku("{t}a")), START_MS, 1);
    let payment = ProviderId::new("pay-1").expect("an id");
    let fact = Fact::Paid { payment, amount: Money::new(5, "EUR").expect("an amount") };
    apply(&mut ledger, 2, vec![Command::RecordFact { id, fact }]);
    let redrive = Command::OrderByHand { id, what: ByHand::Redrive, reason: reason() };
    apply(&mut ledger, 3, vec![redrive]);
    restored(&mut ledger);
    let at = ledger.state.order_of(id).expect("its payment is known");
    ledger.state.change_order(at, |order| order.suspect = true);
    let mut bytes = Vec::new();
    ledger.freeze().write(&mut bytes).expect("memory takes bytes");
    let why = Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(7)).err().expect("refused");
    assert!(why.to_string().contains("does not fit itself"), "{why}");
}

#[test]
fn a_state_with_free_places_in_every_slab_goes_on_as_its_copy_does() {
    let mut seen = [false; 7];
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        let mut shop = Shop::new(seed);
        let mut original = Ledger::new(1, 1, crate::IndexSeed(7));
        let setup = Entry { stamp: LedgerTime(START_MS), commands: Shop::setup() };
        original.apply(1, 1, &setup);
        let mut copy = restored(&mut original);
        for index in 2..ENTRIES {
            let entry = shop.entry();
            let (one, other) = (original.apply(1, index, &entry), copy.apply(1, index, &entry));
            assert_eq!(one.outcomes, other.outcomes, "seed {seed}, index {index}");
            assert_eq!(one.record, other.record, "seed {seed}, index {index}");
            assert_eq!(original.digest(), copy.digest(), "seed {seed}, index {index}");
            shop.learn(&one);
            if shop.dice.random_ratio(1, 6) {
                seen.iter_mut().zip(with_free_places(&original)).for_each(|(seen, free)| *seen |= free);
                // A copy of the state itself, or of its copy.
                copy = if shop.dice.random_bool(0.5) { restored(&mut original) } else { restored(&mut copy) };
                assert_eq!(original.digest(), copy.digest(), "seed {seed}, index {index}");
                let (one, other) = (original.audit(), copy.audit());
                assert_eq!((&one.findings, &other.findings), (&vec![], &vec![]), "seed {seed}, index {index}");
                assert_eq!(one.totals, other.totals, "seed {seed}, index {index}");
            }
        }
    }
    assert_eq!(seen, [true; 7], "reservations, extras, refused, names, orders, keys, further counts had free places");
}
