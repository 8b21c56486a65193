//! Answers, changes and views to script text.
//!
//! **Owns** how they read: ids by name, times from the script's start, balances as available/held/sold.
//! **Must never** leave a field out that a promise is about. **Read next**: the scripts.

use std::fmt::Write as _;

use ledger_core::change::{LineChange, Record};
use ledger_core::outcome::{Balance, Brief, Fenced, NotNow, Outcome, Refusal, Settled, SoldOut, Status};
use ledger_core::view::{IdView, OfferView, ProductView, ReservationView, Totals};
use ledger_core::{ChangeKind, LedgerTime, OfferKey, Policy, SaleId};

use super::{Names, START_MS, orders};

/// Milliseconds as they read best.
pub(crate) fn span(ms: i64) -> String {
    if ms % 1_000 == 0 { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// An instant, from the script's start.
pub(crate) fn instant(t: LedgerTime) -> String {
    format!("@{}", span(t.0 as i64 - START_MS as i64))
}

fn offer(o: &OfferKey) -> String {
    match &o.sale {
        Some(sale) => format!("{}@{sale}", o.sku),
        None => o.sku.to_string(),
    }
}

fn sale(s: &Option<SaleId>) -> String {
    s.as_ref().map_or("plain".to_string(), |s| s.to_string())
}

fn balance(b: Balance) -> String {
    format!("{}/{}/{}", b.available, b.held, b.sold)
}

fn status(s: Status) -> &'static str {
    match s {
        Status::Held => "held",
        Status::Confirmed => "confirmed",
        Status::Released => "released",
        Status::Expired => "expired",
    }
}

fn again(replayed: bool) -> &'static str {
    if replayed { " (again)" } else { "" }
}

fn brief(b: &Brief) -> String {
    format!(
        "{}, taken {}, deadline {}{}",
        status(b.status),
        instant(b.reserved_at),
        instant(b.deadline),
        again(b.replayed)
    )
}

fn sold_out(s: SoldOut) -> String {
    match s {
        SoldOut::Open { available } => format!("{available} available"),
        SoldOut::FirstBackAt(t) => format!("first back {}", instant(t)),
        SoldOut::Gone => "gone".to_string(),
    }
}

/// One answer.
pub(crate) fn outcome(names: &Names, o: &Outcome) -> String {
    match o {
        Outcome::Ok(settled) => format!("ok {}", self::settled(names, settled)),
        Outcome::Refused(why) => format!("refused {}", refusal(why)),
        Outcome::NotNow(NotNow::SlotElsewhere) => "not now: slot elsewhere".to_string(),
        Outcome::NotNow(NotNow::IdTooFarAhead { retry_ms }) => {
            format!("not now: id too far ahead, retry in {}", span(*retry_ms as i64))
        }
        Outcome::NotNow(NotNow::MemoryFull { retry_ms }) => {
            format!("not now: memory full, retry in {}", span(*retry_ms as i64))
        }
        Outcome::NotNow(NotNow::SweepPending { retry_ms }) => {
            format!("not now: sweep pending, retry in {}", span(*retry_ms as i64))
        }
        Outcome::NotNow(NotNow::RecordsFull { what, retry_ms }) => {
            format!("not now: as many {what} as there may be, retry in {}", span(*retry_ms as i64))
        }
    }
}

fn settled(names: &Names, s: &Settled) -> String {
    match s {
        Settled::Done => "done".to_string(),
        Settled::Reservation(b) => brief(b),
        Settled::Fenced(Fenced::Never) => "never executed, never will".to_string(),
        Settled::Fenced(Fenced::WasRefused(why)) => format!("was refused: {}", refusal(why)),
        Settled::Fenced(Fenced::Reservation(b)) => format!("it is {}", brief(b)),
        Settled::Returned { units, replayed } => format!("{units} returned{}", again(*replayed)),
        Settled::Offer { version, replayed } => format!("version {version}{}", again(*replayed)),
        Settled::Stocked { balance: b, version, replayed } => {
            format!("{} version {version}{}", balance(*b), again(*replayed))
        }
        Settled::Order(b) => orders::brief(b),
        Settled::Claimed(claimed) => orders::claimed(names, claimed),
    }
}

/// A refusal: its name, then what it names.
pub(crate) fn refusal(r: &Refusal) -> String {
    match r {
        Refusal::LinesSpanSlots => "LinesSpanSlots".into(),
        Refusal::IdWrongSlot { id_slot, lines_slot } => format!("IdWrongSlot id {id_slot}, lines {lines_slot}"),
        Refusal::QuantityTooLarge { offer: o } => format!("QuantityTooLarge {}", offer(o)),
        Refusal::IdTaken => "IdTaken".into(),
        Refusal::Forgotten => "Forgotten".into(),
        Refusal::Fenced => "Fenced".into(),
        Refusal::UnknownReservation => "UnknownReservation".into(),
        Refusal::ProductInUse { units, sales, records } => {
            format!("ProductInUse {units} units, {sales} sales, {records} records")
        }
        Refusal::UnknownProduct { offer: o } => format!("UnknownProduct {}", offer(o)),
        Refusal::UnknownOffer { offer: o } => format!("UnknownOffer {}", offer(o)),
        Refusal::AlreadyExists => "AlreadyExists".into(),
        Refusal::SaleHasEnded => "SaleHasEnded".into(),
        Refusal::OfferClosed => "OfferClosed".into(),
        Refusal::SaleNotOpenYet { opens_at } => format!("SaleNotOpenYet opens {}", instant(*opens_at)),
        Refusal::SaleOver { closed_at } => format!("SaleOver closed {}", instant(*closed_at)),
        Refusal::HoldTooLong { max_ms } => format!("HoldTooLong at most {}", span(*max_ms as i64)),
        Refusal::BelowOrderMin { min } => format!("BelowOrderMin {min}"),
        Refusal::AboveOrderMax { max } => format!("AboveOrderMax {max}"),
        Refusal::LimitReached { offer: o, key_index, used, max } => {
            format!("LimitReached {} key {key_index}: {used} of {max} used", offer(o))
        }
        Refusal::SoldOut { offer: o, truth } => format!("SoldOut {}: {}", offer(o), sold_out(*truth)),
        Refusal::NotHeld { status: s } => format!("NotHeld is {}", status(*s)),
        Refusal::NotSold { status: s } => format!("NotSold is {}", status(*s)),
        Refusal::DeadlineMoved { deadline } => format!("DeadlineMoved is {}", instant(*deadline)),
        Refusal::NoSuchLine { offer: o } => format!("NoSuchLine {}", offer(o)),
        Refusal::MoreThanLine { offer: o, has } => format!("MoreThanLine {} has {has}", offer(o)),
        Refusal::AlreadyReturned => "AlreadyReturned".into(),
        Refusal::ReferenceTaken => "ReferenceTaken".into(),
        Refusal::VersionMismatch { actual } => format!("VersionMismatch is {actual}"),
        Refusal::NotEnoughAvailable { available } => format!("NotEnoughAvailable {available}"),
        Refusal::TooMany { what, max } => format!("TooMany {what}: at most {max}"),
        Refusal::BehaviourUnknown { version, present } => format!("BehaviourUnknown {version}, now {present}"),
        Refusal::EntryUndecodable => "EntryUndecodable".into(),
        Refusal::StaleGeneration { present } => format!("StaleGeneration now {present}"),
        Refusal::Ordered => "Ordered".into(),
        Refusal::NoSuchOrder => "NoSuchOrder".into(),
        Refusal::StaleEpoch { present } => format!("StaleEpoch now {present}"),
        Refusal::LeaseEnded { phase } => format!("LeaseEnded is {}", orders::phase(*phase)),
        Refusal::WrongPhase { phase } => format!("WrongPhase is {}", orders::phase(*phase)),
        Refusal::WrongGeneration { present } => format!("WrongGeneration now {present}"),
        Refusal::PaymentDiffers { amount } => {
            format!("PaymentDiffers is {}", amount.map_or("-".to_string(), |a| a.to_string()))
        }
    }
}

fn moved(lines: &[LineChange]) -> String {
    lines
        .iter()
        .map(|l| format!("{} {} [{}]", offer(&l.line.offer), l.line.quantity.get(), balance(l.balance)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The changes of one entry, a line each.
pub(crate) fn record(names: &Names, record: &Record, many: bool) -> String {
    let mut text = String::new();
    for change in &record.changes {
        let place = if many { format!("{} ", change.place) } else { String::new() };
        let _ = writeln!(text, "  {place}{}{}", change.kind.name(), kind(names, &change.kind));
    }
    text
}

fn kind(names: &Names, kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::ProductCreated { sku, policy: p } => format!(" {sku}{}", policy(p)),
        ChangeKind::OfferPut { offer: o, policy: p, version } => {
            format!(" {} version {version}{}", offer(o), policy(p))
        }
        ChangeKind::OfferOpened { offer: o } | ChangeKind::OfferClosed { offer: o } => format!(" {}", offer(o)),
        ChangeKind::SaleStarted { offer: o, balance: b } => format!(" {} [{}]", offer(o), balance(*b)),
        ChangeKind::SaleEnded { offer: o, balance: b, moved_back, by_hand } => {
            let how = if *by_hand { "by hand" } else { "by its window" };
            format!(" {} [{}] {how}, {moved_back} moved back", offer(o), balance(*b))
        }
        ChangeKind::OfferRemoved { offer: o, sold, balance: b } => {
            format!(" {}: {sold} sold are plain's [{}]", offer(o), balance(*b))
        }
        ChangeKind::ProductDeleted { sku } => format!(" {sku}"),
        ChangeKind::UnitsReceived { offer: o, units, reference, balance: b } => {
            format!(" {} {} ref {reference} [{}]", offer(o), units.get(), balance(*b))
        }
        ChangeKind::UnitsAdjusted { offer: o, delta, reason, reference, balance: b } => {
            format!(" {} {delta:+} ref {reference} ({reason}) [{}]", offer(o), balance(*b))
        }
        ChangeKind::UnitsAllotted { sku, from, to, units, reference, from_balance, to_balance } => format!(
            " {sku} {} of {} [{}] to {} [{}] ref {reference}",
            units.get(),
            sale(from),
            balance(*from_balance),
            sale(to),
            balance(*to_balance)
        ),
        ChangeKind::InventoryReserved { id, deadline, lines } => {
            format!(" {} until {}: {}", names.name(*id), instant(*deadline), moved(lines))
        }
        ChangeKind::ReservationExtended { id, deadline } => {
            format!(" {} until {}", names.name(*id), instant(*deadline))
        }
        ChangeKind::ReservationConfirmed { id, lines, given_back } => {
            let back = if given_back.is_empty() { String::new() } else { format!("; back {}", moved(given_back)) };
            format!(" {}: {}{back}", names.name(*id), moved(lines))
        }
        ChangeKind::ReservationReleased { id, lines } => format!(" {}: {}", names.name(*id), moved(lines)),
        ChangeKind::ReservationExpired { id, deadline, lines } => {
            format!(" {} at {}: {}", names.name(*id), instant(*deadline), moved(lines))
        }
        ChangeKind::UnitsReturned { id, reference, lines } => {
            format!(" {} ref {reference}: {}", names.name(*id), moved(lines))
        }
        ChangeKind::StockLow { offer: o, available } => format!(" {} {available} available", offer(o)),
        ChangeKind::EntryRefused { hash, bytes, error } => format!(" {bytes} bytes {} {hash:032x}", error.name()),
        ChangeKind::SoldOut { offer: o, truth } => format!(" {}: {}", offer(o), sold_out(*truth)),
        order => orders::kind(names, order),
    }
}

/// Only what differs from the default policy.
fn policy(p: &Policy) -> String {
    let usual = Policy::default();
    let mut text = String::new();
    if !p.open {
        text += " closed";
    }
    if let Some(t) = p.opens_at {
        let _ = write!(text, " opens {}", instant(t));
    }
    if let Some(t) = p.closes_at {
        let _ = write!(text, " closes {}", instant(t));
    }
    if let Some(n) = p.per_key_max {
        let _ = write!(text, " limit {n}");
    }
    if p.per_order_min != usual.per_order_min || p.per_order_max != usual.per_order_max {
        let _ = write!(text, " order {} to {}", p.per_order_min, p.per_order_max);
    }
    if p.hold_ms_default != usual.hold_ms_default || p.hold_ms_max != usual.hold_ms_max {
        let _ = write!(text, " hold {} up to {}", span(p.hold_ms_default as i64), span(p.hold_ms_max as i64));
    }
    if p.low_stock_at != 0 {
        let _ = write!(text, " low at {}", p.low_stock_at);
    }
    if let Some(price) = &p.price {
        let _ = write!(text, " price {price}");
    }
    text
}

/// One offer.
pub(crate) fn offer_view(v: &OfferView) -> String {
    format!(
        "{} [{}] version {}{}{}{}{}",
        offer(&v.offer),
        balance(v.balance),
        v.version,
        policy(&v.policy),
        v.sold_out.map_or(String::new(), |s| format!(", sold out: {}", sold_out(s))),
        if v.ended { ", ended" } else { "" },
        if v.taking { "" } else { ", not taking" },
    )
}

/// A product and its offers.
pub(crate) fn product_view(v: &ProductView) -> String {
    let mut text = format!(
        "{}: received {}, adjusted {}, returned {}, ever sold {}\n",
        v.sku, v.received, v.adjusted, v.returned, v.ever_sold
    );
    for o in &v.offers {
        let _ = writeln!(text, "  {}", offer_view(o));
    }
    text
}

fn reservation_view(v: &ReservationView) -> String {
    let mut text = format!("{}, taken {}, deadline {}", status(v.status), instant(v.reserved_at), instant(v.deadline));
    if let Some(t) = v.ended_at {
        let _ = write!(text, ", ended {}", instant(t));
    }
    for key in &v.keys {
        let _ = write!(text, ", key {key}");
    }
    for l in &v.lines {
        let _ =
            write!(text, "\n  {}: reserved {}, sold {}, returned {}", offer(&l.offer), l.reserved, l.sold, l.returned);
    }
    text
}

/// What is known of an id.
pub(crate) fn id_view(names: &Names, id: ledger_core::ReservationId, v: &IdView) -> String {
    let what = match v {
        IdView::Reservation(r) => reservation_view(r),
        IdView::Refused(why) => format!("was refused: {}", refusal(why)),
        IdView::Fenced => "fenced".into(),
        IdView::Unknown => "unknown".into(),
        IdView::Forgotten => "forgotten".into(),
        IdView::SlotElsewhere => "slot elsewhere".into(),
    };
    format!("{}: {what}", names.name(id))
}

/// Sums.
pub(crate) fn totals(t: &Totals) -> String {
    format!(
        "products {}, offers {}, received {}, adjusted {}, returned {}, [{}], live {}, sold {}, remembered {}, limit counts {}",
        t.products,
        t.offers,
        t.received,
        t.adjusted,
        t.returned,
        format_args!("{}/{}/{}", t.units.available, t.units.held, t.units.sold),
        t.live,
        t.sold,
        t.remembered,
        t.limit_counts
    ) + &match t.orders {
        0 => String::new(),
        n => format!(", orders {n}, open {}", t.orders_open),
    }
}
