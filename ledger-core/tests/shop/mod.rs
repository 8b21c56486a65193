//! A shop that lives day by day, in ledger time alone.
//!
//! Nightly deliveries, a daily deal in a sale of its own, weekends, a flash sale a week that sells out, returns, changed settings, orders
//! that are paid and done.
//! **Owns** the commands of a day. **Must never** read a clock. **Read next**: `year.rs`.

use bytes::Bytes;
use ledger_core::command::{Command, LimitKeys, plain_line};
use ledger_core::order::{Fact, Money, OrderDetails, ProviderId, Report, Sealed, WorkClass, WorkerId};
use ledger_core::outcome::{Outcome, Refusal, Settled};
use ledger_core::{
    Entry, IndexSeed, Ledger, LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, Reference, ReservationId, SaleId,
    ShardSettings, Sku, Slot, Units, limits,
};

const START_MS: u64 = 1_700_000_000_000;
pub(crate) const DAY_MS: u64 = 24 * 3_600_000;
/// How long what is sold is remembered.
pub(crate) const RETAIN_DAYS: u64 = 14;
const PRODUCTS: u64 = 20;
const HOLD_MS: u64 = 2 * 3_600_000;

pub(crate) struct Shop {
    pub(crate) ledger: Ledger,
    pub(crate) index: u64,
    /// The records of the day's entries, by index.
    pub(crate) records: Vec<(u64, Option<Bytes>)>,
    now: u64,
    made: u64,
    /// Held in the hour before.
    held: Vec<(u64, ReservationId)>,
    /// Sold, to be returned some days later: on which day, by which product.
    sold: Vec<(u64, u64, ReservationId)>,
}

fn sku(product: u64) -> Sku {
    Sku::new(format!("product-{product:03}")).expect("a SKU")
}

fn offer(product: u64, sale: Option<&str>) -> OfferKey {
    OfferKey { sku: sku(product), sale: sale.map(|sale| SaleId::new(sale).expect("a sale")) }
}

fn reference(text: String) -> Reference {
    Reference::new(text).expect("a reference")
}

impl Shop {
    pub(crate) fn new() -> Self {
        let mut shop = Self {
            ledger: Ledger::new(1, 1, IndexSeed(7)),
            index: 0,
            records: Vec::new(),
            now: START_MS,
            made: 0,
            held: Vec::new(),
            sold: Vec::new(),
        };
        let all = (Slot::new(0).expect("a slot"), Slot::new(limits::SLOTS - 1).expect("a slot"));
        let policy = Policy { hold_ms_max: HOLD_MS, ..Policy::default() };
        let create = |product| Command::CreateProduct { sku: sku(product), policy: policy.clone() };
        let own = Command::OwnSlots { generation: 1, ranges: vec![all] };
        let configure = Command::Configure { settings: Self::settings(0) };
        let products = (0..PRODUCTS).map(create);
        shop.ok([own, configure].into_iter().chain(products).collect());
        shop
    }

    /// They differ a little from month to month.
    fn settings(day: u64) -> ShardSettings {
        let retain_ended_ms = DAY_MS + (day / 30 % 2) * 3_600_000;
        ShardSettings { retain_sold_ms: RETAIN_DAYS * DAY_MS, retain_ended_ms, ..ShardSettings::default() }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        self.now += 1;
        let applied = self.ledger.apply(1, self.index, &Entry { stamp: LedgerTime(self.now), commands });
        self.records.push((self.index, applied.record));
        applied.outcomes
    }

    fn ok(&mut self, commands: Vec<Command>) {
        for outcome in self.apply(commands) {
            assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
        }
    }

    fn reserve(&mut self, product: u64, sale: Option<&str>, buyer: u64) -> Command {
        self.made += 1;
        let random = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = ReservationId::from_parts(Slot::of(&sku(product)), self.now, random);
        let quantity = Quantity::new(1).expect("one");
        let line = match sale {
            None => plain_line(sku(product), quantity),
            some => Line { offer: offer(product, some), quantity },
        };
        let key = LimitKey::new(format!("account-{buyer:020}")).expect("a key");
        let keys = [key].into_iter().collect();
        Command::Reserve { id, keys, lines: [line].into_iter().collect(), hold_ms: Some(HOLD_MS) }
    }

    /// Buyers reserve, and those of the hour before pay, leave, or let their holds end.
    fn hour(&mut self, day: u64, buyers: u64, deal: &str) {
        let commands: Vec<Command> = (0..buyers)
            .map(|n| {
                let sale = (n % 4 == 0).then_some(deal);
                let product = if sale.is_some() { day % PRODUCTS } else { n % PRODUCTS };
                self.reserve(product, sale, self.made)
            })
            .collect();
        let product_of = |command: &Command| match command {
            Command::Reserve { lines, .. } => lines[0].offer.sku.as_str()[8..].parse().expect("a product"),
            _ => unreachable!("all reserve"),
        };
        let ids: Vec<_> = commands.iter().map(|c| (product_of(c), c.reservation().expect("an id"))).collect();
        self.ok(commands);
        let before = std::mem::replace(&mut self.held, ids);
        let mut ends = Vec::new();
        for (n, (product, id)) in (0..).zip(before) {
            match n % 10 {
                0 => {}
                1 => ends.push(Command::Release { id }),
                _ => {
                    ends.push(Command::Confirm { id, lines: None });
                    if n % 30 == 2 {
                        self.sold.push((day + 3, product, id));
                    }
                }
            }
        }
        self.ok(ends);
    }

    /// Ten times as many as there are units want one, all at once.
    fn flash_sale(&mut self, day: u64, units: u64) {
        let (product, sale) = (day / 7 % PRODUCTS, format!("flash-{day}"));
        let policy = Policy { per_key_max: Some(1), hold_ms_max: HOLD_MS, ..Policy::default() };
        let key = offer(product, Some(&sale));
        self.ok(vec![
            Command::PutOffer { offer: key.clone(), policy, expected_version: None },
            Command::Receive {
                offer: key.clone(),
                units: Units::new(units as i64).expect("units"),
                reference: reference(sale.clone()),
            },
        ]);
        let wanted = (0..10 * units).map(|buyer| self.reserve(product, Some(&sale), buyer)).collect::<Vec<_>>();
        let ids: Vec<_> = wanted.iter().map(|c| c.reservation().expect("an id")).collect();
        let outcomes = self.apply(wanted);
        let taken: Vec<_> =
            ids.iter().zip(&outcomes).filter(|(_, o)| matches!(o, Outcome::Ok(_))).map(|(&id, _)| id).collect();
        assert_eq!(taken.len() as u64, units, "never one unit too many");
        assert!(outcomes.iter().any(|o| matches!(o, Outcome::Refused(Refusal::SoldOut { .. }))));
        self.ok(taken.into_iter().map(|id| Command::Confirm { id, lines: None }).collect());
        self.end_sale(product, &sale);
    }

    /// A product of its own each week, in a sale whose window closes after sixteen days, with a limit. Nobody ends the sale before it has been
    /// forgotten what was bought there; when all is, the product is deleted.
    fn season(&mut self, week: u64) {
        let sku = |week: u64| Sku::new(format!("season-{week}")).expect("a SKU");
        let sale = || SaleId::new("season").expect("a sale");
        let key = |week: u64| OfferKey { sku: sku(week), sale: Some(sale()) };
        let closes_at = Some(LedgerTime(self.now + 16 * DAY_MS));
        let policy = Policy { per_key_max: Some(1), closes_at, ..Policy::default() };
        self.ok(vec![
            Command::CreateProduct { sku: sku(week), policy: Policy::default() },
            Command::PutOffer { offer: key(week), policy, expected_version: None },
            Command::Receive {
                offer: key(week),
                units: Units::new(200).expect("units"),
                reference: reference(format!("season {week}")),
            },
        ]);
        // The sales of this week and of the two before are open.
        for week in week.saturating_sub(2)..=week {
            for buyer in 0..50 {
                self.made += 1;
                let random = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let id = ReservationId::from_parts(Slot::of(&sku(week)), self.now, random);
                let buys = [LimitKey::new(format!("season {} {buyer}", self.made)).expect("a key")];
                let line = Line { offer: key(week), quantity: Quantity::new(1).expect("one") };
                let lines = [line].into_iter().collect();
                let keys = buys.into_iter().collect();
                self.ok(vec![
                    Command::Reserve { id, keys, lines, hold_ms: None },
                    Command::Confirm { id, lines: None },
                ]);
            }
        }
        if let Some(over) = week.checked_sub(7) {
            let counted = self.ledger.offer(&key(over)).expect("it was not ended").balance;
            assert_eq!((counted.sold, counted.held), (150, 0));
            self.ok(vec![
                Command::EndSale { sku: sku(over), sale: sale() },
                Command::Adjust {
                    offer: OfferKey { sku: sku(over), sale: None },
                    delta: -50,
                    reason: ledger_core::Reason::new("season is over").expect("a reason"),
                    reference: reference(format!("season {over} over")),
                    expected_version: None,
                },
            ]);
        }
        if let Some(gone) = week.checked_sub(8) {
            self.ok(vec![Command::DeleteProduct { sku: sku(gone) }]);
        }
    }

    fn end_sale(&mut self, product: u64, sale: &str) {
        self.ok(vec![Command::EndSale { sku: sku(product), sale: SaleId::new(sale).expect("a sale") }]);
    }

    /// A day of so many buyers.
    pub(crate) fn day(&mut self, day: u64, buyers: u64) {
        self.records.clear();
        let (product, deal) = (day % PRODUCTS, format!("deal-{day}"));
        let weekend = if day % 7 >= 5 { 2 } else { 1 };
        let deliver = |product, sale: Option<&str>, units: u64| Command::Receive {
            offer: offer(product, sale),
            units: Units::new(units as i64).expect("units"),
            reference: reference(format!("delivery {day} {}", sale.unwrap_or_default())),
        };
        let policy = Policy { per_key_max: Some(2), hold_ms_max: HOLD_MS, ..Policy::default() };
        let put = Command::PutOffer { offer: offer(product, Some(&deal)), policy, expected_version: None };
        let mut night: Vec<_> = (0..PRODUCTS).map(|product| deliver(product, None, weekend * buyers)).collect();
        night.extend([put, deliver(product, Some(&deal), weekend * buyers)]);
        if day.is_multiple_of(30) {
            night.push(Command::Configure { settings: Self::settings(day) });
        }
        self.ok(night);
        for hour in 0..24 {
            self.now = self.now.max(START_MS + day * DAY_MS + hour * 3_600_000);
            self.hour(day, weekend * buyers / 24, &deal);
        }
        if day % 7 == 4 {
            self.flash_sale(day, buyers / 10);
        }
        if day % 7 == 1 {
            self.season(day / 7);
        }
        self.end_sale(product, &deal);
        let (due, later): (Vec<_>, Vec<_>) = self.sold.drain(..).partition(|&(on, ..)| on <= day);
        self.sold = later;
        let back = |(_, _, id): (u64, u64, ReservationId)| Command::Return {
            id,
            lines: None,
            reference: reference(id.to_string()),
        };
        self.ok(due.into_iter().map(back).collect());
        self.orders(day, buyers / 50);
    }

    /// Orders of one product, each from its place in the queue to the last mail.
    fn orders(&mut self, day: u64, count: u64) {
        let money = Money::new(1_999, "EUR").expect("an amount");
        let sealed = || Sealed::new([7; 100]).expect("short enough");
        let place = |shop: &mut Self| {
            let Command::Reserve { id, lines, .. } = shop.reserve(day % PRODUCTS, None, 0) else {
                unreachable!("it reserves")
            };
            let details = OrderDetails {
                amount: money,
                pay_within_ms: 600_000,
                payment: sealed(),
                contact: sealed(),
                suspect: false,
            };
            Command::PlaceOrder { id, details: Box::new(details), reserve: Some((LimitKeys::new(), lines)) }
        };
        let placed = (0..count).map(|_| place(self)).collect();
        self.ok(placed);
        let paid = self.claimed(day, WorkClass::Money, count);
        let provider = |id: ReservationId| ProviderId::new(format!("pi_{id}")).expect("an id");
        let intents = paid.iter().map(|&(id, epoch)| {
            let report = Report::Intent { intent: provider(id), generation: 1 };
            Command::ReportOrder { id, epoch, report }
        });
        self.ok(intents.collect());
        let fact = |id| Fact::Paid { payment: provider(id), amount: money };
        self.ok(paid.iter().map(|&(id, _)| Command::RecordFact { id, fact: fact(id) }).collect());
        let mailed = self.claimed(day, WorkClass::Mail, count);
        let notified = mailed.iter().map(|&(id, epoch)| Command::ReportOrder { id, epoch, report: Report::Notified });
        self.ok(notified.collect());
    }

    /// All that a worker is given of a class.
    fn claimed(&mut self, day: u64, class: WorkClass, count: u64) -> Vec<(ReservationId, u32)> {
        let worker = WorkerId::new("worker-1").expect("a name");
        let slot = Slot::of(&sku(day % PRODUCTS));
        let claim = Command::ClaimOrders { slot, worker, class, max: 1_000, lease_ms: 60_000, attempt_ms: 5_000 };
        let mut claimed = Vec::new();
        while (claimed.len() as u64) < count {
            let Some(Outcome::Ok(Settled::Claimed(some))) = self.apply(vec![claim.clone()]).pop() else {
                panic!("a claim is answered")
            };
            assert!(!some.is_empty(), "{} of {count} were given", claimed.len());
            claimed.extend(some.into_iter().map(|order| (order.id, order.epoch)));
        }
        claimed
    }
}
