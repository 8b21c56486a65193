//! Sequences of legal calls that nobody expects: each is allowed alone, and together they push something to its bound.
//!
//! **What it is.** One function a sequence, each on a product of its own where it needs one. Where the promise is plain (a return of nothing is refused, a
//! webhook about a hold harms nobody), the answer is held against it.
//!
//! **Owns** the sequences. **Must never** need an answer to go on: nodes may be away. **Read next**: [`super::judge`].

use std::time::Duration;

use bytes::Bytes;
use ledger_core::limits;
use ledger_core::types::{Sku, Slot};
use ledger_proto::v1;
use ledger_proto::v1::answer::Outcome;
use ledger_proto::v1::call::Verb;
use prost_reflect::prost::Message;
use rand::RngExt;

use super::{Attacker, SALE, SKUS, call, methods};

/// Units that a product may hold at most, as the wire has them.
const UNITS_MAX: i64 = limits::UNITS_MAX as i64;
/// Receives of the most units whose sum is above what 64 bits hold.
const RECEIVES_TO_OVERFLOW: usize = (u64::MAX / limits::UNITS_MAX) as usize + 2;
/// Calls of one of the large frames: few enough that a queue at its usual size lets them in.
const CALLS: usize = 4_096;

/// When the last leases of [`leases_lost`] end, in milliseconds from the holds' deadline if their claim were applied at once: some end in the
/// entry that begins the sweep, whenever that comes.
const LAST_LEASES: [i64; 12] = [-16, -12, -9, -7, -5, -3, -1, 1, 3, 6, 12, 25];

/// One of them, by chance.
pub(super) async fn one(attacker: &mut Attacker<'_>) {
    match attacker.asking.rng.random_range(0..30) {
        0..5 => many_lines_of_one_product(attacker).await,
        5..8 => units_up_and_down(attacker).await,
        8 => sums_beyond_64_bits(attacker).await,
        9..12 => leases_lost(attacker).await,
        12 => mass_expiry(attacker).await,
        13..16 => payments_before_their_order(attacker).await,
        16..19 => empty_returns(attacker).await,
        19..22 => keys_freed_out_of_order(attacker).await,
        22..25 => cursors_of_tomorrow(attacker).await,
        25..28 => partial_confirms(attacker).await,
        _ => far_attempts(attacker).await,
    }
    attacker.with(|sums| sums.sequences += 1);
}

/// A product with units; the same again is a repetition.
pub(super) fn stocked(sku: &str, units: i64) -> [Verb; 2] {
    let policy = v1::Policy { open: true, hold_ms_max: limits::HOLD_MS_MAX, ..v1::Policy::default() };
    [
        Verb::CreateProduct(v1::CreateProduct { sku: sku.to_owned(), policy: Some(policy) }),
        receive(sku, units, "opening".to_owned()),
    ]
}

pub(super) fn receive(sku: &str, units: i64, reference: String) -> Verb {
    Verb::Receive(v1::Receive { offer: offer(sku), units, reference })
}

fn adjust(sku: &str, delta: i64, reference: String) -> Verb {
    let reason = "counted".to_owned();
    Verb::Adjust(v1::Adjust { offer: offer(sku), delta, reason, reference, expected_version: None })
}

fn offer(sku: &str) -> Option<v1::OfferKey> {
    Some(v1::OfferKey { sku: sku.to_owned(), sale: String::new() })
}

fn line(sku: &str, quantity: i64) -> v1::Line {
    v1::Line { sku: sku.to_owned(), sale: String::new(), quantity }
}

fn reserve(id: &Bytes, lines: Vec<v1::Line>, hold_ms: u64) -> Verb {
    Verb::Reserve(v1::Reserve { id: id.clone(), keys: Vec::new(), lines, hold_ms })
}

fn confirm(id: &Bytes, lines: Option<Vec<v1::Line>>) -> Verb {
    Verb::Confirm(v1::Confirm { id: id.clone(), lines: lines.map(|lines| v1::Lines { lines }) })
}

fn place(id: &Bytes, pay_within_ms: u64, lines: Vec<v1::Line>) -> Verb {
    let amount = Some(v1::Money { minor: 100, currency: "EUR".to_owned() });
    Verb::PlaceOrder(v1::PlaceOrder { id: id.clone(), amount, pay_within_ms, lines, ..v1::PlaceOrder::default() })
}

fn claim(sku: &str, max: u32, lease_ms: u64, attempt_ms: u64) -> Verb {
    let slot = slot_of(sku);
    let class = v1::WorkClass::Money.into();
    Verb::ClaimOrders(v1::ClaimOrders { slot, worker: "hostile".to_owned(), class, max, lease_ms, attempt_ms })
}

fn slot_of(sku: &str) -> u32 {
    Slot::of(&Sku::new(sku).expect("our own")).get().into()
}

impl Attacker<'_> {
    /// A product that nobody used.
    fn new_sku(&mut self) -> String {
        let name = self.asking.name("hostile-own");
        format!("{name}-{}", self.asking.rng.random_range(0..1_000_000))
    }

    fn id(&mut self, sku: &str) -> Bytes {
        self.maker().fresh_id(sku)
    }

    /// The same until it is decided, a few times.
    async fn decided(&mut self, verb: Verb) -> Option<Outcome> {
        for _ in 0..5 {
            match self.submit(vec![verb.clone()]).await.pop().flatten() {
                Some(Outcome::NotNow(_) | Outcome::Unknown(_)) | None => self.asking.pause(200).await,
                decided => return decided,
            }
        }
        None
    }

    /// A node builds snapshots of both shards, which somebody will have to read.
    async fn snapshots(&mut self) {
        let node = self.node();
        for shard in 1..=2 {
            let request = v1::SnapshotRequest { shard }.encode_to_vec();
            self.send(node, &methods::method("Snapshot"), &[request], &[], true).await;
        }
    }
}

fn reservation(outcome: &Option<Outcome>) -> Option<&v1::Brief> {
    match settled(outcome)? {
        v1::settled::What::Reservation(brief) => Some(brief),
        _ => None,
    }
}

fn settled(outcome: &Option<Outcome>) -> Option<&v1::settled::What> {
    match outcome {
        Some(Outcome::Ok(settled)) => settled.what.as_ref(),
        _ => None,
    }
}

/// Up to 65 lines of one product, which are one line after summing, in every verb that has lines.
async fn many_lines_of_one_product(attacker: &mut Attacker<'_>) {
    let sku = attacker.maker().sku();
    let id = attacker.id(sku);
    let n = [2, 15, 16, 17, 33, 63, 64, 65][attacker.asking.rng.random_range(0..8)];
    let lines = || vec![line(sku, 1); n];
    let verb = match attacker.asking.rng.random_range(0..3) {
        0 => place(&id, 5_000, lines()),
        _ => reserve(&id, lines(), 60_000),
    };
    attacker.submit(vec![verb]).await;
    attacker.submit(vec![confirm(&id, Some(lines()))]).await;
    let lines = Some(v1::Lines { lines: lines() });
    let reference = attacker.asking.name("back");
    attacker.submit(vec![Verb::ReturnUnits(v1::ReturnUnits { id, lines, reference })]).await;
}

/// A product gets the most units that it may hold and loses them again, over and over.
async fn units_up_and_down(attacker: &mut Attacker<'_>) {
    let sku = attacker.new_sku();
    let mut calls = stocked(&sku, UNITS_MAX).to_vec();
    for n in 0..32 {
        calls.push(adjust(&sku, -UNITS_MAX, format!("down {n}")));
        calls.push(receive(&sku, UNITS_MAX, format!("up {n}")));
    }
    attacker.submit(calls).await;
    attacker.probe().await;
}

/// So many units received that no sum of 64 bits holds them; then every node is asked whether it is ready. Rarely: it takes 65,538 calls.
async fn sums_beyond_64_bits(attacker: &mut Attacker<'_>) {
    // Once a run and client, and in some runs only.
    if attacker.asking.rng.random_range(0..4) > 0 || attacker.tag > 60_000 {
        return units_up_and_down(attacker).await;
    }
    let mut left = RECEIVES_TO_OVERFLOW;
    for product in 0..5 {
        let sku = format!("{{hostile-own}}{product}");
        attacker.submit(stocked(&sku, UNITS_MAX).to_vec()).await;
        // What one product may ever have received bounds how often.
        for part in 0..8 {
            let pairs = left.min(CALLS / 2);
            left -= pairs;
            let pair = |n: usize| {
                let reference = format!("{part}-{n}");
                [adjust(&sku, -UNITS_MAX, format!("d{reference}")), receive(&sku, UNITS_MAX, format!("u{reference}"))]
            };
            attacker.submit((0..pairs).flat_map(pair).collect()).await;
        }
    }
    for _ in 0..3 {
        attacker.probe().await;
    }
}

/// Orders whose worker is lost again and again, among as many holds with their deadline as one entry sweeps; the last leases end with them.
async fn leases_lost(attacker: &mut Attacker<'_>) {
    let sku = attacker.new_sku();
    let hold_ms = u64::from(limits::LEASES_LOST_MAX) * 170;
    if !attacker.submit(stocked(&sku, 100_000).to_vec()).await.iter().all(Option::is_some) {
        return;
    }
    let mut ids: Vec<Bytes> =
        (0..limits::EXPIRED_PER_ENTRY_MAX + LAST_LEASES.len()).map(|_| attacker.id(&sku)).collect();
    // Of equal deadlines the sweep takes the smallest ids first.
    ids.sort_unstable();
    let last = ids.split_off(limits::EXPIRED_PER_ENTRY_MAX);
    let mut calls: Vec<Verb> = ids.iter().map(|id| reserve(id, vec![line(&sku, 1)], hold_ms)).collect();
    calls.extend(last.iter().map(|id| place(id, hold_ms, vec![line(&sku, 1)])));
    let placed = attacker.submit(calls).await.pop().flatten();
    let Some(v1::settled::What::Order(order)) = settled(&placed).copied_order() else { return };
    for _ in 1..limits::LEASES_LOST_MAX {
        attacker.submit(vec![claim(&sku, last.len() as u32, limits::LEASE_MS_MIN, 0)]).await;
        tokio::time::sleep(Duration::from_millis(limits::LEASE_MS_MIN + 15)).await;
    }
    // Any answer brings the ledger's time: a lease is counted from when its claim is applied.
    attacker.submit(stocked(&sku, 100_000).to_vec()).await;
    let left = order.deadline_ms.saturating_sub(attacker.seen.time_ms);
    let leases = LAST_LEASES.map(|off| left.saturating_add_signed(off));
    if leases.iter().all(|lease_ms| *lease_ms >= limits::LEASE_MS_MIN) {
        attacker.submit(leases.iter().map(|lease_ms| claim(&sku, 1, *lease_ms, 0)).collect()).await;
        tokio::time::sleep(Duration::from_millis(left + 15)).await;
    }
    attacker.submit(vec![claim(&sku, 1, 1_000, 0)]).await;
}

trait CopiedOrder {
    fn copied_order(self) -> Option<v1::settled::What>;
}

impl CopiedOrder for Option<&v1::settled::What> {
    fn copied_order(self) -> Option<v1::settled::What> {
        self.filter(|what| matches!(what, v1::settled::What::Order(_))).cloned()
    }
}

/// Holds and orders by the thousand that are due in one instant, some of them claimed.
async fn mass_expiry(attacker: &mut Attacker<'_>) {
    let sku = attacker.new_sku();
    attacker.submit(stocked(&sku, 100_000).to_vec()).await;
    let calls = (0..CALLS / 2).map(|n| {
        let id = attacker.id(&sku);
        if n % 4 == 0 { place(&id, 700, vec![line(&sku, 1)]) } else { reserve(&id, vec![line(&sku, 1)], 700) }
    });
    let calls = calls.collect();
    attacker.submit(calls).await;
    attacker.submit(vec![claim(&sku, 300, 200, 1)]).await;
    tokio::time::sleep(Duration::from_millis(720)).await;
    attacker.submit(vec![claim(&sku, 1_000, 100, 0), reserve(&attacker_id(&sku), vec![line(&sku, 1)], 100)]).await;
}

/// An id of no time at all: refused, but it makes an entry.
fn attacker_id(sku: &str) -> Bytes {
    let slot = Slot::of(&Sku::new(sku).expect("our own"));
    Bytes::copy_from_slice(ledger_core::types::ReservationId::from_parts(slot, 0, 1).as_bytes())
}

/// A webhook about an id that is a hold only, or nothing yet: the buyer's order must still come about.
async fn payments_before_their_order(attacker: &mut Attacker<'_>) {
    let sku = attacker.maker().sku();
    let id = attacker.id(sku);
    let held = attacker.asking.rng.random_bool(0.7);
    if held {
        let hold = attacker.decided(reserve(&id, vec![line(sku, 1)], 60_000)).await;
        if reservation(&hold).is_none() {
            return;
        }
    }
    let amount = Some(v1::Money { minor: 100, currency: "EUR".to_owned() });
    let paid = v1::record_fact::Fact::Paid(v1::record_fact::Paid { payment: attacker.asking.name("pay"), amount });
    attacker.decided(Verb::RecordFact(v1::RecordFact { id: id.clone(), fact: Some(paid) })).await;
    let lines = if held { Vec::new() } else { vec![line(sku, 1)] };
    let placed = attacker.decided(place(&id, 60_000, lines)).await;
    if held && let Some(Outcome::Refused(why)) = placed {
        let what = format!("an order on a live hold that a payment came early for is refused: {:?}", why.code());
        attacker.with(|sums| sums.wrong(what));
    }
}

/// What was brought back whole is brought back again: there is nothing to return.
async fn empty_returns(attacker: &mut Attacker<'_>) {
    let sku = attacker.maker().sku();
    let id = attacker.id(sku);
    attacker.decided(reserve(&id, vec![line(sku, 2)], 60_000)).await;
    if reservation(&attacker.decided(confirm(&id, None)).await).is_none() {
        return;
    }
    let back = |reference: String| Verb::ReturnUnits(v1::ReturnUnits { id: id.clone(), lines: None, reference });
    let (first, second) = (attacker.asking.name("whole"), attacker.asking.name("nothing"));
    if settled(&attacker.decided(back(first)).await).is_none() {
        return;
    }
    let again = attacker.decided(back(second)).await;
    if let Some(v1::settled::What::Returned(v1::Returned { units: 0, replayed: false })) = settled(&again) {
        attacker.with(|sums| sums.wrong("a return of nothing was accepted".to_owned()));
    }
}

/// Limit keys of holds that end in another order than they began, then snapshots of what is left.
async fn keys_freed_out_of_order(attacker: &mut Attacker<'_>) {
    let sku = attacker.maker().sku();
    let keys = |n: u64| (0..4).map(|k| format!("freed-{n}-{k}")).collect::<Vec<_>>();
    let mut calls = Vec::new();
    for n in 0..64 {
        let id = attacker.id(sku);
        // The first are gone long before the last.
        let hold_ms = if n < 48 { 150 } else { 60_000 };
        let sale_line = v1::Line { sku: sku.to_owned(), sale: SALE.to_owned(), quantity: 1 };
        let nonce = attacker.tag * 1_000 + n;
        calls.push(Verb::Reserve(v1::Reserve { id, keys: keys(nonce), lines: vec![sale_line], hold_ms }));
    }
    attacker.submit(calls).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let tick = attacker.id(sku);
    attacker.submit(vec![reserve(&tick, vec![line(sku, 1)], 100)]).await;
    attacker.snapshots().await;
}

/// A watch that goes on where the feed has not come to yet.
async fn cursors_of_tomorrow(attacker: &mut Attacker<'_>) {
    let watch = methods::method("Watch");
    let node = attacker.node();
    let now = v1::WatchRequest { from_now: true, ..v1::WatchRequest::default() }.encode_to_vec();
    let frames = attacker.send(node, &watch, &[now], &[], true).await;
    let Some(frame) = frames.last().and_then(|frame| frame.transcode_to::<v1::WatchFrame>().ok()) else { return };
    let Ok(mut cursor) = ledger_node::feed::cursor::Cursor::decode(&frame.cursor) else { return };
    let far = [1 << 40, u64::MAX, 10_000][attacker.asking.rng.random_range(0..3)];
    for place in cursor.places.values_mut() {
        place.next = place.next.saturating_add(far);
    }
    let request = v1::WatchRequest { cursor: cursor.encode(), ..v1::WatchRequest::default() }.encode_to_vec();
    let answered = attacker.send_body(node, &watch, call::framed(&[request]), &[], true).await;
    if answered.kind == "stream" && !cursor.places.is_empty() {
        attacker.with(|sums| sums.wrong("a watch from beyond the feed's end waits and is not refused".to_owned()));
    }
}

/// Two products in one reservation, of which one is bought: explain follows the second's changes without a gap.
async fn partial_confirms(attacker: &mut Attacker<'_>) {
    let [a, b] = [SKUS[3], SKUS[4]];
    let id = attacker.id(a);
    attacker.decided(reserve(&id, vec![line(a, 2), line(b, 2)], 60_000)).await;
    let reference = attacker.asking.name("between");
    attacker.submit(vec![receive(b, 1, reference)]).await;
    attacker.decided(confirm(&id, Some(vec![line(b, 1)]))).await;
    let explain =
        v1::ExplainRequest { of: Some(v1::explain_request::Of::Sku(b.to_owned())), ..v1::ExplainRequest::default() };
    let node = attacker.node();
    let answered = attacker.send(node, &methods::method("Explain"), &[explain.encode_to_vec()], &[], true).await;
    for explained in answered {
        let explained: v1::ExplainResponse = explained.transcode_to().unwrap_or_default();
        if let Err(what) = follows_links(b, &explained) {
            attacker.with(|sums| sums.wrong(what));
        }
    }
}

/// Every change of a product names the change before it there, and that one comes next in the list.
///
/// # Errors
/// The first change whose link leads elsewhere.
fn follows_links(sku: &str, explained: &v1::ExplainResponse) -> Result<(), String> {
    let place = |at: &v1::Position| (at.index, at.place);
    let changes = &explained.changes;
    for (n, change) in changes.iter().enumerate() {
        let link = link_on(sku, change).map(|at| place(&at)).filter(|(index, _)| *index > 0);
        let next = changes.get(n + 1).and_then(|next| next.position.as_ref()).map(place);
        let is_last = n + 1 == changes.len();
        let is_cut = is_last && (explained.cut_off || explained.next.is_some());
        if link != next && !is_cut {
            return Err(format!("explain of {sku}: {change:?} links to {link:?}, but {next:?} comes next"));
        }
    }
    Ok(())
}

/// The link of a change to the one before on that product, of the products that its lines name in their order.
fn link_on(sku: &str, change: &v1::FeedChange) -> Option<v1::Position> {
    let of_line = |change: &v1::LineChange| change.line.as_ref().map(|line| line.sku.clone()).unwrap_or_default();
    let mut skus: Vec<String> = Vec::new();
    for one in change.lines.iter().chain(&change.given_back).map(of_line) {
        if !skus.contains(&one) {
            skus.push(one);
        }
    }
    match skus.iter().position(|one| one == sku) {
        None | Some(0) => change.previous_on_product,
        Some(n) => change.previous_on_further_products.get(n - 1).copied(),
    }
}

/// A claim that wants more time than any order has, and one that wants none.
async fn far_attempts(attacker: &mut Attacker<'_>) {
    let sku = attacker.new_sku();
    let mut calls = stocked(&sku, 100).to_vec();
    for _ in 0..10 {
        let id = attacker.id(&sku);
        calls.push(place(&id, 5_000, vec![line(&sku, 1)]));
    }
    attacker.submit(calls).await;
    let attempt_ms = [3_600_000, u64::MAX, 6_000][attacker.asking.rng.random_range(0..3)];
    attacker.submit(vec![claim(&sku, 1, 1_000, attempt_ms)]).await;
    attacker.submit(vec![claim(&sku, limits::CLAIM_MAX, 300, 0)]).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Option<v1::Position> {
        Some(v1::Position { index, ..v1::Position::default() })
    }

    fn changed(index: u64, skus: &[&str]) -> v1::FeedChange {
        let lines = skus.iter().map(|sku| v1::LineChange { line: Some(line(sku, 1)), balance: None }).collect();
        v1::FeedChange { position: at(index), lines, ..v1::FeedChange::default() }
    }

    fn explained(changes: Vec<v1::FeedChange>) -> v1::ExplainResponse {
        v1::ExplainResponse { changes, ..v1::ExplainResponse::default() }
    }

    #[test]
    fn explain_that_follows_the_links_of_the_asked_product_is_right() {
        let newest = v1::FeedChange {
            previous_on_product: at(2),
            previous_on_further_products: vec![v1::Position { index: 5, ..v1::Position::default() }],
            ..changed(9, &["a", "b", "a"])
        };
        let first = changed(5, &["b"]);
        assert_eq!(follows_links("b", &explained(vec![newest.clone(), first.clone()])), Ok(()));
        assert!(follows_links("a", &explained(vec![newest.clone(), first])).is_err());
        assert!(follows_links("b", &explained(vec![newest.clone()])).is_err(), "a change is left out");
        let cut_off = v1::ExplainResponse { cut_off: true, ..explained(vec![newest]) };
        assert_eq!(follows_links("b", &cut_off), Ok(()));
    }
}
