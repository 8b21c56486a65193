//! Customers who order: their units are reserved, paid by the workers at the provider, and they are told by mail.
//!
//! **What it is.** Customers place orders while the provider is slow, then gone, then answers charges with errors, and a worker is killed in the middle.
//! At the end four books are compared for every order: the customers' own, the ledger's, the one recomputed from history, and the provider's.
//! **Owns** how customers behave, and that comparison. **Must never** take one book's word for another's.
//! **Read next**: [`crate::shop`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client_sdk::order::{Ending, OrderView, Phase};
use client_sdk::{Contact, OfferKey, OpeningKeys, Outcome as Answer, PaymentToken, ReservationId, SealingKey};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;

use super::crowd::Place;
use super::refused;
use crate::books::{Books, Finding};
use crate::limits;
use crate::output::Outcome;
use crate::shop::{Plan, Shop, Told as Relay};

/// How long a customer has to pay. Longer than all of the provider's troubles together.
const PAY_WITHIN: Duration = Duration::from_secs(20);
/// Customers come within this.
const ARRIVE: Duration = Duration::from_secs(6);
const CURRENCY: &str = "EUR";

/// What stands behind the counter of a demo: two workers, one of which is killed, and patience for a short story.
pub(super) fn shop_plan() -> Plan {
    let flags = [
        // Half a minute of an open breaker would be most of the story.
        ("lease", "5s"),
        ("attempt", "2s"),
        ("call-timeout", "2s"),
        ("retry-min", "200ms"),
        ("retry-max", "1s"),
        ("retry-pay-max", "1s"),
        ("breaker-open", "1s"),
    ];
    let flags = flags.map(|(flag, value)| (flag, value.to_owned())).into();
    Plan { workers: 2, webhooks: true, mail: true, flags }
}

/// What a customer was told.
#[derive(Debug, Clone)]
struct Told {
    minor: u64,
    placed: bool,
    unknown: bool,
}

/// All customers' books.
#[derive(Default)]
pub(super) struct Customers(Mutex<HashMap<ReservationId, Told>>);

impl Customers {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ReservationId, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The customers' part of the demo's end.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OrdersDoc {
    /// Orders that were acknowledged, or that stayed in doubt and were there.
    pub placed: u64,
    /// Refused or not taken: nothing was reserved.
    pub not_placed: u64,
    /// How they ended, by name.
    pub endings: BTreeMap<String, u64>,
    /// Minor units that the provider keeps.
    pub kept_minor: i64,
    /// Minor units of the orders that are sold.
    pub sold_minor: u64,
    /// Orders paid twice over, or paid and not sold, or sold and not paid.
    pub unbalanced: u64,
    /// Mails that came, and orders whose buyer was told.
    pub mails: (u64, u64),
    /// From the last order placed until none was open, milliseconds.
    pub drained_ms: u64,
}

/// The provider turns bad and well again, and a worker is killed, at moments drawn by the seed.
pub(super) async fn trouble(shop: &mut Shop, seed: u64, began: Instant) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(17));
    let mut pause =
        async |from: u64, to: u64| tokio::time::sleep(Duration::from_millis(rng.random_range(from..to))).await;
    let say = |what: &str| eprintln!("{:>5.1} s  {what}", began.elapsed().as_secs_f64());
    pause(300, 1_200).await;
    say("the payment provider is three seconds slow");
    shop.provider.be_slow().await?;
    pause(500, 2_000).await;
    say("kill -9 of worker-1");
    let name = shop.kill_worker(Duration::from_millis(500)).await?;
    say(&format!("back: {name}; the provider refuses everything"));
    shop.provider.fail().await?;
    pause(1_000, 2_000).await;
    say("the provider is back, and answers one charge in ten with an error");
    shop.provider.stumble().await?;
    pause(1_000, 2_000).await;
    say("the provider is well");
    shop.provider.recover().await
}

/// Sends customers; the set ends when all have ordered.
pub(super) fn send(
    place: &Arc<Place>,
    shop: &Shop,
    customers: &Arc<Customers>,
    count: usize,
    seed: u64,
) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for n in 0..count {
        let (place, customers) = (place.clone(), customers.clone());
        let keys = (shop.sealing.clone(), shop.reply.sealing_key().clone());
        let mut rng = StdRng::seed_from_u64(seed.rotate_left(29) ^ (n as u64).wrapping_mul(0xa24b_aed4_963e_e407));
        set.spawn(async move {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..ARRIVE.as_millis() as u64))).await;
            let (offer, most) = if n % 4 == 0 || place.rest.is_empty() {
                (place.hot.clone(), 1)
            } else {
                place.rest[rng.random_range(0..place.rest.len())].clone()
            };
            let units = rng.random_range(1..=most.clamp(1, 3));
            let method = match rng.random_range(0..100) {
                0..84 => "pm_card_visa",
                84..92 => "pm_card_visa_chargeDeclined",
                92..96 => "pm_card_chargeDeclinedInsufficientFunds",
                _ => "pm_card_authenticationRequired",
            };
            order(&place, &customers, &keys, (offer, units), method, n).await;
        });
    }
    set
}

async fn order(
    place: &Place,
    customers: &Customers,
    (sealing, reply): &(SealingKey, SealingKey),
    (offer, units): (OfferKey, u32),
    method: &str,
    n: usize,
) {
    let id = place.client.mint_for(&offer.sku);
    let minor = u64::from(units) * 1_999;
    let token = PaymentToken::new(method).reply_to(reply);
    let contact = Contact { email: Some(mail_of(id)), ..Contact::default() };
    let (Ok(payment), Ok(contact)) = (sealing.payment(id, &token), sealing.contact(id, &contact)) else { return };
    customers.lock().insert(id, Told { minor, placed: false, unknown: true });
    let (mut tries, mut in_doubt) = (0, false);
    loop {
        let call = place.client.place_order(id, minor, CURRENCY).buyer(format!("customer-{n}"));
        let call = match &offer.sale {
            Some(sale) => call.sale_line(sale, &offer.sku, units),
            None => call.line(&offer.sku, units),
        };
        let call = call.pay_within(PAY_WITHIN).payment(payment.clone()).contact(contact.clone());
        let answer = call.deadline(limits::BUYER_DEADLINE).await;
        tries += 1;
        in_doubt |= matches!(answer, Answer::Unknown(_));
        let told = match &answer {
            Answer::Ok(_) => Told { minor, placed: true, unknown: false },
            Answer::Refused(_) => Told { minor, placed: false, unknown: false },
            Answer::NotNow(_) | Answer::Unknown(_) if tries < limits::BUYER_TRIES_MAX => {
                // The same id again: what was done is not done twice.
                tokio::time::sleep(limits::RETRY_PAUSE).await;
                continue;
            }
            // Nothing came of this try; an earlier one may have been taken.
            Answer::NotNow(_) | Answer::Unknown(_) => Told { minor, placed: false, unknown: in_doubt },
        };
        customers.lock().insert(id, told);
        return;
    }
}

fn mail_of(id: ReservationId) -> String {
    format!("{id}@buyers.example")
}

/// Waits until every order is done; buyers whom their bank asks do as they are asked.
pub(super) async fn wait_done(place: &Place, shop: &mut Shop, customers: &Customers) -> Outcome<(Vec<OrderView>, u64)> {
    let began = Instant::now();
    let ids: Vec<ReservationId> =
        customers.lock().iter().filter(|(_, told)| told.placed || told.unknown).map(|(id, _)| *id).collect();
    let mut open = ids;
    let mut done = Vec::new();
    let reply = OpeningKeys::from(shop.reply.clone());
    let until = began + PAY_WITHIN + limits::CATCH_UP_WITHIN;
    while !open.is_empty() {
        shop.all_run()?;
        let views = futures::stream::iter(open.iter().copied())
            .map(|id| async move { (id, place.client.order(id).deadline(limits::COMMAND_WITHIN).await.into_result()) })
            .buffer_unordered(limits::READ_BACK_IN_FLIGHT)
            .collect::<Vec<_>>()
            .await;
        open.clear();
        for (id, view) in views {
            match view.map_err(refused)? {
                // It stayed in doubt, and was never taken; or it was acknowledged, and the books will say so.
                None => {}
                Some(view) if view.brief.phase == Phase::Done || view.brief.phase == Phase::Parked => done.push(view),
                Some(view) => {
                    if let Some(secret) = view.secret.as_ref().filter(|_| view.brief.phase == Phase::AwaitingBuyer) {
                        let secret = reply.client_secret(id, secret).map_err(refused)?;
                        // A second click is refused; the order goes on all the same.
                        let _ = shop.provider.authenticate(&secret).await;
                    }
                    open.push(id);
                }
            }
        }
        if Instant::now() >= until {
            let example = match open.first() {
                Some(id) => format!("{:?}", place.client.order(*id).await.into_result()),
                None => String::new(),
            };
            let why = format!("{} orders were not done within {:?}, such as {example}", open.len(), until - began);
            return Err(refused(why));
        }
        tokio::time::sleep(limits::POLL * 4).await;
    }
    Ok((done, began.elapsed().as_millis() as u64))
}

/// Compares the books, order by order.
pub(super) async fn compare(
    place: &Place,
    shop: &Shop,
    customers: &Customers,
    orders: &[OrderView],
    books: &Books,
    drained_ms: u64,
) -> Outcome<(OrdersDoc, Vec<Finding>)> {
    let told = customers.lock().clone();
    let Relay::Mails(mails) = &shop.told else { return Err(refused("a demo's buyers are told by mail")) };
    let mut findings = Vec::new();
    let mut doc = OrdersDoc { drained_ms, ..OrdersDoc::default() };
    let provider = shop.provider.book().await?;
    doc.kept_minor = provider.kept_minor();
    let known: HashMap<ReservationId, &OrderView> = orders.iter().map(|view| (view.id, view)).collect();
    for (id, told) in &told {
        match known.get(id) {
            None if told.placed => {
                findings.push(Finding::new("lost", format!("order {id} was acknowledged and is not there")));
            }
            None => doc.not_placed += 1,
            Some(_) if !told.placed && !told.unknown => {
                findings.push(Finding::new("lost", format!("order {id} was refused and is there")));
            }
            Some(_) => doc.placed += 1,
        }
    }
    let strangers = provider.charged_for_nothing(|id| known.contains_key(&id));
    findings.extend(strangers.into_iter().map(|what| Finding::new("money", what)));
    for view in orders {
        let minor = told.get(&view.id).map_or(0, |told| told.minor);
        *doc.endings.entry(view.brief.ending.name().to_owned()).or_default() += 1;
        doc.sold_minor += if view.brief.ending == Ending::Sold { minor } else { 0 };
        let wrong = provider.compare(&place.client, view, minor, books).await?;
        doc.unbalanced += u64::from(!wrong.is_empty());
        findings.extend(wrong.into_iter().map(|what| Finding::new("money", format!("order {}: {what}", view.id))));
        let mails = mails.to(&mail_of(view.id));
        doc.mails.1 += u64::from(!mails.is_empty());
        if mails.is_empty() {
            findings.push(Finding::new(
                "mail",
                format!("the buyer of {} was never told that it is {:?}", view.id, view.brief.ending),
            ));
        }
    }
    doc.mails.0 = mails.count() as u64;
    findings.truncate(limits::FINDINGS_MAX);
    Ok((doc, findings))
}
