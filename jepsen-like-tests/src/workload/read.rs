//! Reads of every consistency: linearizable through the client, stale on a node by name.
//!
//! **Owns** what is looked at. **Must never** change anything. **Read next**: [`super::watching`].

use client_sdk::{IdView, OfferView, ReservationId};
use ledger_proto::{names, v1, views};
use rand::RngExt;

use super::journal::{Journalled, key_of};
use super::stocked::offers;
use super::{Failure, now_ms};
use crate::history::answer::Telling;
use crate::history::{Answer, At, BEHIND, Offer, Op};

/// A few looks at one offer or one id.
pub(super) async fn look(asking: &mut Journalled<'_>) {
    let all = offers(asking.load);
    let offer = all[asking.rng.random_range(0..all.len())].clone();
    let node = asking.rng.random_range(0..1_000);
    let node = asking.site.node(node);
    match asking.rng.random_range(0..8) {
        0..3 => {
            let op = Op::ReadOffer { offer: offer.clone(), stale: false };
            let call = match &offer.sale {
                None => asking.client.stock(offer.sku.as_str()),
                Some(sale) => asking.client.offer(offer.sku.as_str(), sale.as_str()),
            };
            drop(asking.ask(op, call).await);
        }
        3..6 => stale_offer(asking, offer, node).await,
        6 => {
            if let Some(id) = an_id(asking) {
                let op = Op::ReadId { id: id.to_string(), stale: false };
                drop(asking.ask(op, asking.client.reservation(id)).await);
            }
        }
        _ => {
            if let Some(id) = an_id(asking) {
                stale_id(asking, id, node).await;
            }
        }
    }
}

/// An id that somebody used lately.
fn an_id(asking: &mut Journalled<'_>) -> Option<ReservationId> {
    let used = asking.ids_used(40);
    if used.is_empty() {
        return None;
    }
    used[asking.rng.random_range(0..used.len())].parse().ok()
}

async fn stale_offer(asking: &mut Journalled<'_>, offer: Offer, node: u64) {
    let asked_ms = now_ms();
    let answer = match read_stale_offer(asking, &offer, node).await {
        Ok(answer) => answer,
        Err(error) => Answer::NotNow { cause: "Unreachable".into(), why: error.to_string() },
    };
    asking.note(Op::ReadOffer { offer, stale: true }, asked_ms, answer);
}

async fn read_stale_offer(asking: &Journalled<'_>, offer: &Offer, node: u64) -> Result<Answer, Failure> {
    let request = v1::GetOffersRequest {
        offers: vec![names::offer_to_wire(&key_of(offer))],
        consistency: v1::Consistency::Stale.into(),
    };
    let mut answer = asking.site.ledger(node).await?.get_offers(request).await?.into_inner();
    let one = answer.offers.pop().ok_or("no offer was answered")?;
    let view: Option<OfferView> = one.offer.map(views::offer_from_wire).transpose()?;
    seen(one.as_of, &view)
}

async fn stale_id(asking: &mut Journalled<'_>, id: ReservationId, node: u64) {
    let asked_ms = now_ms();
    let answer = match read_stale_id(asking, id, node).await {
        Ok(answer) => answer,
        Err(error) => Answer::NotNow { cause: "Unreachable".into(), why: error.to_string() },
    };
    asking.note(Op::ReadId { id: id.to_string(), stale: true }, asked_ms, answer);
}

async fn read_stale_id(asking: &Journalled<'_>, id: ReservationId, node: u64) -> Result<Answer, Failure> {
    let consistency = v1::Consistency::Stale.into();
    let request = v1::GetReservationRequest { id: names::id_to_wire(id), consistency };
    let answer = asking.site.ledger(node).await?.get_reservation(request).await?.into_inner();
    let view: IdView = views::id_from_wire(answer.what)?;
    seen(answer.as_of, &view)
}

fn seen(as_of: Option<v1::AsOf>, view: &impl Telling) -> Result<Answer, Failure> {
    let (at, age_ms) = as_of.and_then(names::as_of_from_wire).ok_or("the read does not say as of when")?;
    let (position, time) = (at.position, at.time);
    let at = At { shard: position.shard, index: position.index, place: BEHIND, term: position.term };
    Ok(Answer::Ok { at: Some(at), time_ms: time.0, replayed: false, told: view.told(), age_ms })
}
