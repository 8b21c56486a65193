//! The crowd: buyers who all want the hot product at once, and shoppers who buy the rest.
//!
//! **Owns** how people behave. **Must never** ask again with another id for something that may have happened: after an
//! *unknown* the same id is resolved first. **Read next**: [`super::journal`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client_sdk::{Client, OfferKey, Outcome, Refusal, Reservation, ReservationId, Resolved, SoldOut, Status};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::journal::{Asked, Journal};
use crate::limits;

/// Longest hold anybody asks for: abandoned ones come back while the demo runs.
pub(super) const HOLD: Duration = Duration::from_millis(1_500);
/// Buyers arrive within this.
const ARRIVE_MS: u64 = 300;
/// From this try on a buyer who holds the product buys it: nobody abandons it twice.
const RESOLUTE_TRY: u32 = 3;

/// What all of the crowd share.
pub(super) struct Place {
    /// The cluster.
    pub(super) client: Client,
    /// What they are told.
    pub(super) journal: Journal,
    /// The hot offer.
    pub(super) hot: OfferKey,
    /// Everything else, and the most units an order may take of it.
    pub(super) rest: Vec<(OfferKey, u32)>,
    /// Buyers still there.
    pub(super) waiting: AtomicU64,
    /// The shop closes.
    pub(super) closing: AtomicBool,
}

/// Sends buyers and shoppers; the set ends when all have gone.
pub(super) fn send(place: &Arc<Place>, buyers: usize, shoppers: usize, seed: u64) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    place.waiting.store(buyers as u64, Ordering::Relaxed);
    for n in 0..buyers {
        let place = place.clone();
        let rng = StdRng::seed_from_u64(seed ^ (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        crowd.spawn(async move {
            buyer(&place, n, rng).await;
            place.waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }
    if !place.rest.is_empty() {
        for n in 0..shoppers {
            let place = place.clone();
            let rng = StdRng::seed_from_u64(!seed ^ (n as u64).wrapping_mul(0xd134_2543_de82_ef95));
            crowd.spawn(async move { shopper(&place, n, rng).await });
        }
    }
    let place = place.clone();
    crowd.spawn(async move { pulse(place).await });
    crowd
}

async fn buyer(place: &Place, n: usize, mut rng: StdRng) {
    let key = format!("buyer-{n}");
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..ARRIVE_MS))).await;
    let mut lost = 0;
    let mut tries = 0;
    while tries < limits::BUYER_TRIES_MAX && lost < limits::BUYER_TRIES_MAX {
        let (id, outcome) = reserve(place, &place.hot, 1, &key).await;
        place.journal.hot_answered();
        match &outcome {
            Outcome::Ok(answered) if answered.value.status == Status::Held => {
                if n.is_multiple_of(50) {
                    // Some want a second one, which the limit of one a buyer refuses.
                    drop(reserve(place, &place.hot, 1, &key).await);
                }
                tries += 1;
                if decide(place, id, tries >= RESOLUTE_TRY, &mut rng).await {
                    return;
                }
                // Who gave it up goes home too.
                return;
            }
            Outcome::Refused(refused) => match refused.refusal() {
                Some(Refusal::SoldOut { truth: SoldOut::FirstBackAt(at), .. }) => {
                    tries += 1;
                    let now = place.client.ledger_time().0;
                    let wait = at.0.saturating_sub(now).min(HOLD.as_millis() as u64) + rng.random_range(1..60);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                Some(Refusal::SoldOut { truth: SoldOut::Open { .. }, .. }) => tries += 1,
                _ => return,
            },
            // It was there, and is not any more (an answer that came late): try again with a new id.
            Outcome::Ok(_) => tries += 1,
            Outcome::NotNow(not_now) => {
                lost += 1;
                tokio::time::sleep(not_now.retry_after.max(limits::RETRY_PAUSE)).await;
            }
            Outcome::Unknown(_) => {
                lost += 1;
                // Make sure of the old id before asking with a new one.
                if let Outcome::Ok(answered) = place.client.resolve(id).deadline(limits::BUYER_DEADLINE).await
                    && let Resolved::Reservation(r) = answered.value
                    && r.status == Status::Held
                {
                    place.journal.told(
                        Asked::Reserve,
                        id,
                        &Outcome::Ok(client_sdk::Answered { value: r, at: answered.at }),
                        Duration::ZERO,
                    );
                    decide(place, id, true, &mut rng).await;
                    return;
                }
            }
        }
    }
}

async fn reserve(place: &Place, offer: &OfferKey, units: u32, key: &str) -> (ReservationId, Outcome<Reservation>) {
    let id = place.client.mint_for(&offer.sku);
    place.journal.asks(id, offer, units);
    let call = place.client.reserve(id, key).hold_for(HOLD).deadline(limits::BUYER_DEADLINE);
    let call = match &offer.sale {
        Some(sale) => call.sale_line(sale, &offer.sku, units),
        None => call.line(&offer.sku, units),
    };
    let asked = Instant::now();
    let outcome = call.await;
    place.journal.told(Asked::Reserve, id, &outcome, asked.elapsed());
    (id, outcome)
}

/// Thinks, then buys, gives back, or walks away; whether it was bought.
async fn decide(place: &Place, id: ReservationId, resolute: bool, rng: &mut StdRng) -> bool {
    tokio::time::sleep(Duration::from_millis(rng.random_range(5..250))).await;
    let asked = match rng.random_range(0..100) {
        _ if resolute => Asked::Confirm,
        0..75 => Asked::Confirm,
        75..88 => Asked::Release,
        _ => return false,
    };
    place.journal.asks_end(id, asked);
    let began = Instant::now();
    let outcome = match asked {
        Asked::Confirm => place.client.confirm(id).deadline(limits::BUYER_DEADLINE).await,
        _ => place.client.release(id).deadline(limits::BUYER_DEADLINE).await,
    };
    place.journal.told(asked, id, &outcome, began.elapsed());
    asked == Asked::Confirm && outcome.is_ok()
}

async fn shopper(place: &Place, n: usize, mut rng: StdRng) {
    let mut visit = 0u32;
    while !place.closing.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..120))).await;
        let (offer, most) = &place.rest[rng.random_range(0..place.rest.len())];
        let units = rng.random_range(1..=(*most).clamp(1, 3));
        visit += 1;
        let (id, outcome) = reserve(place, offer, units, &format!("shopper-{n}-{visit}")).await;
        if matches!(&outcome, Outcome::Ok(answered) if answered.value.status == Status::Held) {
            decide(place, id, false, &mut rng).await;
        }
    }
}

/// Writes through the hot shard's log all the time without touching stock (it fences fresh ids): when these are answered, the
/// shard has a leader.
async fn pulse(place: Arc<Place>) {
    let mut beats = JoinSet::new();
    let mut every = tokio::time::interval(Duration::from_millis(5));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !place.closing.load(Ordering::Relaxed) {
        every.tick().await;
        while beats.try_join_next().is_some() {}
        if beats.len() >= 100 {
            continue;
        }
        let place = place.clone();
        beats.spawn(async move {
            let id = place.client.mint_for(&place.hot.sku);
            let outcome = place.client.resolve(id).deadline(limits::BUYER_DEADLINE).await;
            place.journal.pulse(outcome.at());
        });
    }
    while beats.join_next().await.is_some() {}
}
