//! Script text to commands and reads.
//!
//! **Owns** the grammar. **Must never** guess: an unknown word is an error with its line.
//! **Read next**: `print`.

use std::collections::BTreeMap;

use ledger_core::command::{Command, LimitKeys, Lines};
use ledger_core::order::{ByHand, Fact, Money, OrderDetails, Phase, Report, Sealed, WorkClass};
use ledger_core::{
    LedgerTime, LimitKey, Line, OfferKey, Policy, Price, Quantity, Reason, Reference, ReservationId, SaleId,
    ShardSettings, Sku, Slot, Units,
};

use super::{Names, START_MS};

/// One line of a script.
pub(crate) enum Spoken {
    /// The clock was set, or an id was minted: nothing to show.
    Silent,
    /// `[`: the commands up to `]` are one entry.
    BatchBegins,
    /// `]`.
    BatchEnds,
    /// Something to propose.
    Command(Command),
    /// Something to read.
    Read(Read),
}

/// Reads and doings of the runner.
pub(crate) enum Read {
    Offer(OfferKey),
    Product(Sku),
    Products(Option<Sku>, usize),
    Sales(Option<SaleId>),
    Id(ReservationId),
    ForgottenTo(Slot),
    NextDue,
    Totals,
    Owned,
    /// Freeze, write, thaw, and go on with the thawed one.
    Thaw,
    /// Tick at the present stamp until nothing is left to sweep; tells how many entries that took.
    Sweep,
    Order(ReservationId),
    Orders(Option<Phase>),
    Parked,
    Queue,
}

struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn split(text: &'a str) -> Self {
        let mut words = Self { plain: Vec::new(), named: BTreeMap::new() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => {
                    assert!(words.named.insert(key, value).is_none(), "{key} is said twice in {text:?}");
                }
                None => words.plain.push(word),
            }
        }
        words.plain.reverse();
        words
    }
    fn next(&mut self) -> &'a str {
        self.plain.pop().expect("one more word")
    }
    fn more(&self) -> bool {
        !self.plain.is_empty()
    }
    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.named.remove(key)
    }
    fn reference(&mut self) -> Reference {
        name(self.take("ref").expect("ref=…"))
    }
    fn all_used(&self, line: &str) {
        assert!(self.plain.is_empty() && self.named.is_empty(), "words left over in {line:?}");
    }
}

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e:?}"))
}

/// `1500` and `1500ms` are milliseconds; `90s`, `10m`, `2h`, `7d` as they read; a minus sign is allowed.
fn millis(text: &str) -> i64 {
    let text = text.strip_prefix('@').unwrap_or(text);
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => panic!("unknown unit in {text:?}"),
    };
    name::<i64>(number) * scale
}

fn instant(text: &str) -> LedgerTime {
    LedgerTime(START_MS.checked_add_signed(millis(text)).expect("in range"))
}

fn offer(text: &str) -> OfferKey {
    match text.split_once('@') {
        Some((sku, sale)) => OfferKey { sku: name(sku), sale: Some(name(sale)) },
        None => OfferKey { sku: name(text), sale: None },
    }
}

fn sale(text: &str) -> Option<SaleId> {
    (text != "plain").then(|| name(text))
}

fn policy(words: &mut Words<'_>) -> Policy {
    let mut policy = Policy::default();
    if let Some(n) = words.take("limit") {
        policy.per_key_max = Some(name(n));
    }
    if let Some(n) = words.take("min") {
        policy.per_order_min = name(n);
    }
    if let Some(n) = words.take("max") {
        policy.per_order_max = name(n);
    }
    if let Some(t) = words.take("hold") {
        policy.hold_ms_default = millis(t).unsigned_abs();
    }
    if let Some(t) = words.take("longest") {
        policy.hold_ms_max = millis(t).unsigned_abs();
        policy.hold_ms_default = policy.hold_ms_default.min(policy.hold_ms_max);
    }
    policy.opens_at = words.take("opens").map(instant);
    policy.closes_at = words.take("closes").map(instant);
    if let Some(n) = words.take("low") {
        policy.low_stock_at = name(n);
    }
    policy.price = words.take("price").map(name::<Price>);
    if let Some(open) = words.take("open") {
        policy.open = open == "yes";
    }
    policy.validate().expect("a valid policy");
    policy
}

fn lines(words: &mut Words<'_>) -> Lines {
    let mut lines = Lines::new();
    while words.more() {
        let offer = offer(words.next());
        let quantity = Quantity::new(name(words.next())).expect("a quantity");
        lines.push(Line { offer, quantity });
    }
    lines
}

fn some(lines: Lines) -> Option<Lines> {
    (!lines.is_empty()).then_some(lines)
}

impl Names {
    fn slot(&self) -> Slot {
        Slot::of(self.last_sku.as_ref().expect("a product was named before this id"))
    }

    fn known(&mut self, word: &str) -> ReservationId {
        let slot = self.slot();
        let now = self.now();
        self.id(word, slot, now)
    }

    fn speak(&mut self, sku: &Sku) {
        self.last_sku = Some(sku.clone());
    }

    fn offer(&mut self, text: &str) -> OfferKey {
        let offer = offer(text);
        self.speak(&offer.sku);
        offer
    }

    /// Understands one line.
    pub(crate) fn understand(&mut self, line: &str) -> Spoken {
        let mut words = Words::split(line);
        let verb = words.next();
        let spoken = self
            .runner_word(verb, &mut words)
            .or_else(|| self.read(verb, &mut words).map(Spoken::Read))
            .or_else(|| self.on_reservation(verb, &mut words).map(Spoken::Command))
            .or_else(|| self.on_order(verb, &mut words).map(Spoken::Command))
            .or_else(|| self.on_stock(verb, &mut words).map(Spoken::Command))
            .or_else(|| on_shard(verb, &mut words).map(Spoken::Command))
            .unwrap_or_else(|| panic!("unknown word {verb:?} in {line:?}"));
        words.all_used(line);
        spoken
    }

    fn runner_word(&mut self, verb: &str, words: &mut Words<'_>) -> Option<Spoken> {
        match verb {
            "[" => return Some(Spoken::BatchBegins),
            "]" => return Some(Spoken::BatchEnds),
            "at" => self.clock_ms = millis(words.next()),
            "later" => self.clock_ms += millis(words.next()),
            "mint" => {
                let alias = words.next();
                let slot = Slot::of(&name(words.next()));
                let time = instant(words.next()).0;
                self.id(alias, slot, time);
            }
            _ => return None,
        }
        Some(Spoken::Silent)
    }

    fn read(&mut self, verb: &str, words: &mut Words<'_>) -> Option<Read> {
        Some(match verb {
            "stock" => Read::Offer(self.offer(words.next())),
            "product" => Read::Product(name(words.next())),
            "products" => Read::Products(words.take("after").map(name), words.take("max").map_or(100, name)),
            "sales" => Read::Sales(words.more().then(|| name(words.next()))),
            "show" => Read::Id(self.known(words.next())),
            "forgotten" => Read::ForgottenTo(self.slot()),
            "due" => Read::NextDue,
            "totals" => Read::Totals,
            "owned" => Read::Owned,
            "thaw" => Read::Thaw,
            "sweep" => Read::Sweep,
            "order" => Read::Order(self.known(words.next())),
            "orders" => Read::Orders(words.more().then(|| phase(words.next()))),
            "parked" => Read::Parked,
            "queue" => Read::Queue,
            _ => return None,
        })
    }

    fn on_reservation(&mut self, verb: &str, words: &mut Words<'_>) -> Option<Command> {
        if !matches!(verb, "reserve" | "extend" | "confirm" | "release" | "fence" | "return") {
            return None;
        }
        let alias = words.next();
        Some(match verb {
            "reserve" => {
                let lines = lines(words);
                self.speak(&lines[0].offer.sku);
                let keys: LimitKeys =
                    words.take("keys").map(|k| k.split(',').map(name::<LimitKey>).collect()).unwrap_or_default();
                let hold_ms = words.take("hold").map(|t| millis(t).unsigned_abs());
                Command::Reserve { id: self.known(alias), keys, lines, hold_ms }
            }
            "extend" => Command::Extend {
                id: self.known(alias),
                replaces: instant(words.take("from").expect("from=…")),
                hold_ms: millis(words.take("hold").expect("hold=…")).unsigned_abs(),
            },
            "confirm" => Command::Confirm { id: self.known(alias), lines: some(lines(words)) },
            "release" => Command::Release { id: self.known(alias) },
            "fence" => Command::Fence { id: self.known(alias) },
            _ => Command::Return { id: self.known(alias), reference: words.reference(), lines: some(lines(words)) },
        })
    }

    fn on_order(&mut self, verb: &str, words: &mut Words<'_>) -> Option<Command> {
        let why =
            |words: &mut Words<'_>, usual: &str| Reason::new(words.take("why").unwrap_or(usual)).expect("a reason");
        let by_hand = |what| move |id, reason| Command::OrderByHand { id, what, reason };
        let hand = match verb {
            "place" => return Some(self.place(words)),
            "claim" => return Some(self.claim(words)),
            "heartbeat" => {
                let (id, epoch) = (self.known(words.next()), name(words.next()));
                return Some(Command::Heartbeat { id, epoch, lease_ms: span(words, "lease").unwrap_or(30_000) });
            }
            "report" => {
                let (id, epoch) = (self.known(words.next()), name(words.next()));
                return Some(Command::ReportOrder { id, epoch, report: report(words) });
            }
            "paid" => {
                let id = self.known(words.next());
                let fact = Fact::Paid { payment: name(words.next()), amount: money(words.next()) };
                return Some(Command::RecordFact { id, fact });
            }
            "refunded" => {
                let id = self.known(words.next());
                let fact = Fact::Refunded { payment: name(words.next()), refund: name(words.next()) };
                return Some(Command::RecordFact { id, fact });
            }
            "redrive" => by_hand(ByHand::Redrive),
            "close-order" => by_hand(ByHand::Close),
            "refund" => by_hand(ByHand::Refund),
            "resume" => by_hand(ByHand::Resume),
            _ => return None,
        };
        let id = self.known(words.next());
        Some(hand(id, why(words, "by-hand")))
    }

    /// `place a 1999EUR [shirt 2 keys=ann] within=10m token=8 contact=8 [suspect=yes]`: with lines it reserves them.
    fn place(&mut self, words: &mut Words<'_>) -> Command {
        let (alias, amount) = (words.next(), money(words.next()));
        let lines = lines(words);
        let reserve = lines.first().map(|line| line.offer.sku.clone()).map(|sku| {
            self.speak(&sku);
            let keys: LimitKeys =
                words.take("keys").map(|k| k.split(',').map(name::<LimitKey>).collect()).unwrap_or_default();
            (keys, lines)
        });
        let sealed = |words: &mut Words<'_>, key: &str| {
            let len = words.take(key).map_or(4, name);
            Sealed::new(vec![b'x'; len]).expect("sealed")
        };
        let details = OrderDetails {
            amount,
            pay_within_ms: span(words, "within").unwrap_or(60_000),
            payment: sealed(words, "token"),
            contact: sealed(words, "contact"),
            suspect: words.take("suspect").is_some_and(|s| s == "yes"),
        };
        Command::PlaceOrder { id: self.known(alias), details: Box::new(details), reserve }
    }

    /// `claim w1 [mail] max=10 lease=30s attempt=5s`.
    fn claim(&mut self, words: &mut Words<'_>) -> Command {
        let worker = name(words.next());
        let class = if words.more() && words.next() == "mail" { WorkClass::Mail } else { WorkClass::Money };
        Command::ClaimOrders {
            slot: self.last_sku.as_ref().map_or(Slot::new(0).expect("a slot"), Slot::of),
            worker,
            class,
            max: words.take("max").map_or(1, name),
            lease_ms: span(words, "lease").unwrap_or(30_000),
            attempt_ms: span(words, "attempt").unwrap_or(5_000),
        }
    }

    fn on_stock(&mut self, verb: &str, words: &mut Words<'_>) -> Option<Command> {
        let expected_version = |words: &mut Words<'_>| words.take("if").map(name::<u64>);
        Some(match verb {
            "create" => Command::CreateProduct { sku: self.offer(words.next()).sku, policy: policy(words) },
            "put" => Command::PutOffer {
                offer: self.offer(words.next()),
                policy: policy(words),
                expected_version: expected_version(words),
            },
            "open" => Command::SetOpen { offer: self.offer(words.next()), open: true },
            "close" => Command::SetOpen { offer: self.offer(words.next()), open: false },
            "delete" => Command::DeleteProduct { sku: self.offer(words.next()).sku },
            "end-sale" => {
                let offer = self.offer(words.next());
                Command::EndSale { sku: offer.sku, sale: offer.sale.expect("end-sale SKU@SALE") }
            }
            "receive" => Command::Receive {
                offer: self.offer(words.next()),
                units: Units::new(name(words.next())).expect("units"),
                reference: words.reference(),
            },
            "adjust" => Command::Adjust {
                offer: self.offer(words.next()),
                delta: name(words.next()),
                reason: Reason::new(words.take("why").unwrap_or("count")).expect("a reason"),
                reference: words.reference(),
                expected_version: expected_version(words),
            },
            "allot" => Command::Allot {
                sku: self.offer(words.next()).sku,
                from: sale(words.next()),
                to: sale(words.next()),
                units: Units::new(name(words.next())).expect("units"),
                reference: words.reference(),
            },
            _ => return None,
        })
    }
}

fn on_shard(verb: &str, words: &mut Words<'_>) -> Option<Command> {
    Some(match verb {
        "tick" => Command::Tick,
        "configure" => {
            let mut settings = ShardSettings::default();
            let mut set = |key: &str, field: &mut u64| {
                if let Some(t) = words.take(key) {
                    *field = millis(t).unsigned_abs();
                }
            };
            set("sold", &mut settings.retain_sold_ms);
            set("ended", &mut settings.retain_ended_ms);
            set("refused", &mut settings.retain_refused_ms);
            set("cap", &mut settings.remembered_max);
            Command::Configure { settings }
        }
        "own" => {
            let generation = name(words.next());
            let mut ranges = Vec::new();
            while words.more() {
                let (from, to) = words.next().split_once("..").expect("from..to");
                ranges.push((Slot::new(name(from)).expect("a slot"), Slot::new(name(to)).expect("a slot")));
            }
            Command::OwnSlots { generation, ranges }
        }
        "behaviour" => Command::SwitchBehaviour { version: name(words.next()) },
        _ => return None,
    })
}

fn span(words: &mut Words<'_>, key: &str) -> Option<u64> {
    words.take(key).map(|t| millis(t).unsigned_abs())
}

/// `1999EUR`.
fn money(text: &str) -> Money {
    let (minor, currency) = text.split_at(text.len() - 3);
    Money::new(name(minor), currency).expect("an amount")
}

fn phase(text: &str) -> Phase {
    Phase::ALL.into_iter().find(|p| format!("{p:?}") == text).unwrap_or_else(|| panic!("no phase {text:?}"))
}

fn report(words: &mut Words<'_>) -> Report {
    let why = |words: &mut Words<'_>, usual: &str| Reason::new(words.take("why").unwrap_or(usual)).expect("a reason");
    match words.next() {
        "intent" => Report::Intent { intent: name(words.next()), generation: name(words.next()) },
        "await" => Report::AwaitBuyer { secret: words.next().into() },
        "unpaid" => Report::Unpaid { reason: why(words, "declined") },
        "notified" => Report::Notified,
        "retry" => Report::Retry { after_ms: span(words, "after").unwrap_or(1_000), reason: why(words, "timeout") },
        "give-back" => Report::GiveBack { after_ms: span(words, "after").unwrap_or(0) },
        "park" => Report::Park { reason: why(words, "hopeless") },
        other => panic!("no report {other:?}"),
    }
}
