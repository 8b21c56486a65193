//! One client and its journal: every call goes through [`Journalled::ask`].
//!
//! **Owns** the writing of events. **Must never** leave a call out, nor change what was answered. **Read next**: [`crate::history`].

use std::future::IntoFuture;
use std::time::Duration;

use client_sdk::{
    Adjust, Allot, Arrange, Client, Confirm, Extend, LedgerTime, OfferKey, OfferSettled, Outcome, Policy, Receive,
    Release, Reservation, ReservationId, Reserve, Resolved, ReturnUnits, Returned, Sku, Slot, Stocked,
};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{Journal, Load, PAUSE, Site, now_ms};
use crate::history::answer::{Answer, Telling, of_outcome};
use crate::history::{Event, Line, Offer, Op, Terms};

/// What a reservation asks for.
#[derive(Debug, Clone)]
pub struct Want {
    /// Minted once.
    pub id: ReservationId,
    /// All or nothing.
    pub lines: Vec<Line>,
    /// What limits count by; the first is the buyer.
    pub keys: Vec<String>,
    /// Hold time; none: the offer's own.
    pub hold_ms: Option<u64>,
}

/// One client: what it asks is written down with what came back.
pub struct Journalled<'a> {
    pub(super) client: &'a Client,
    pub(super) site: &'a Site,
    pub(super) load: Load,
    pub(super) number: u32,
    pub(super) rng: SmallRng,
    /// How often this client drew a name.
    names: u32,
    journal: &'a Journal,
    deadline: Duration,
}

impl<'a> Journalled<'a> {
    /// Client number `n` of a run.
    pub fn new(client: &'a Client, site: &'a Site, journal: &'a Journal, load: Load, seed: u64, n: u32) -> Self {
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(u64::from(n)));
        let deadline = Duration::from_millis(load.deadline_ms);
        Self { client, site, load, number: n, rng, names: 0, journal, deadline }
    }

    /// The journal.
    pub(super) fn journal(&self) -> &'a Journal {
        self.journal
    }

    /// Asks, waits, and writes down both.
    pub async fn ask<T: Telling>(&self, op: Op, call: impl IntoFuture<Output = Outcome<T>>) -> Outcome<T> {
        let asked_ms = now_ms();
        let outcome = call.await;
        self.note(op.clone(), asked_ms, of_outcome(&outcome, op.is_read()));
        outcome
    }

    /// Writes down what was asked otherwise.
    pub fn note(&self, op: Op, asked_ms: u64, answer: Answer) {
        let event = Event { client: self.number, op, asked_ms, answered_ms: now_ms(), answer };
        self.journal.lock().expect("never poisoned").events.push(event);
    }

    /// The ids that were asked for lately by anybody, newest last, at most so many.
    pub fn ids_used(&self, max: usize) -> Vec<String> {
        let run = self.journal.lock().expect("never poisoned");
        let newest = run.events.iter().rev().filter(|e| !e.op.is_read()).filter_map(|e| e.op.id());
        newest.take(max).map(str::to_owned).collect()
    }

    /// A pause of up to so many milliseconds.
    pub async fn pause(&mut self, ms_max: u64) {
        let ms = self.rng.random_range(0..=ms_max);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// A name that no other call of the run has.
    pub fn name(&mut self, of: &str) -> String {
        self.names += 1;
        format!("{of}-{}-{}", self.number, self.names)
    }

    /// A hold time within the load's bound.
    pub fn hold_ms(&mut self) -> u64 {
        self.rng.random_range(30..=self.load.hold_ms_max.max(31))
    }

    /// One of a few buyers.
    pub fn buyer(&mut self) -> String {
        format!("buyer-{}", self.rng.random_range(0..40))
    }

    /// An id for an offer's product as of so many milliseconds ago.
    pub fn id_of_age(&mut self, sku: &str, age_ms: u64) -> ReservationId {
        let time = self.client.ledger_time().0.saturating_sub(age_ms);
        ReservationId::from_parts(Slot::of(&Sku::new(sku).expect("our own")), time, self.rng.next_u64())
    }

    /// A want of one line.
    pub fn want(&mut self, offer: &Offer, quantity: u32) -> Want {
        let id = self.id_of_age(&offer.sku, 0);
        let lines = vec![Line { offer: offer.clone(), quantity }];
        Want { id, lines, keys: vec![self.buyer()], hold_ms: Some(self.hold_ms()) }
    }

    fn reserve_call(&self, want: &Want) -> (Op, Reserve) {
        let op = Op::Reserve {
            id: want.id.to_string(),
            lines: want.lines.clone(),
            keys: want.keys.clone(),
            hold_ms: want.hold_ms,
        };
        let mut call = self.client.reserve(want.id, want.keys[0].as_str()).deadline(self.deadline);
        for key in &want.keys[1..] {
            call = call.key(key.as_str());
        }
        for line in &want.lines {
            call = match &line.offer.sale {
                None => call.line(line.offer.sku.as_str(), line.quantity),
                Some(sale) => call.sale_line(sale.as_str(), line.offer.sku.as_str(), line.quantity),
            };
        }
        if let Some(ms) = want.hold_ms {
            call = call.hold_for(Duration::from_millis(ms));
        }
        (op, call)
    }

    /// Reserves, once.
    pub async fn reserve(&self, want: &Want) -> Outcome<Reservation> {
        let (op, call) = self.reserve_call(want);
        self.ask(op, call).await
    }

    /// Reserves, and asks again with the same id while it is not definite; what is held, if it is.
    pub async fn get(&mut self, want: &Want) -> Option<Reservation> {
        for _ in 0..4 {
            match self.reserve(want).await {
                Outcome::Ok(held) => return Some(held.value),
                Outcome::Refused(_) => return None,
                Outcome::NotNow(_) | Outcome::Unknown(_) => self.pause(200).await,
            }
        }
        None
    }

    /// Confirms all, or these lines.
    pub async fn confirm(&self, id: ReservationId, lines: Option<&[Line]>) -> Outcome<Reservation> {
        let op = Op::Confirm { id: id.to_string(), lines: lines.map(<[Line]>::to_vec) };
        let mut call: Confirm = self.client.confirm(id).deadline(self.deadline);
        for line in lines.unwrap_or_default() {
            call = match &line.offer.sale {
                None => call.line(line.offer.sku.as_str(), line.quantity),
                Some(sale) => call.sale_line(sale.as_str(), line.offer.sku.as_str(), line.quantity),
            };
        }
        self.ask(op, call).await
    }

    /// Releases.
    pub async fn release(&self, id: ReservationId) -> Outcome<Reservation> {
        let call: Release = self.client.release(id).deadline(self.deadline);
        self.ask(Op::Release { id: id.to_string() }, call).await
    }

    /// Extends.
    pub async fn extend(&self, id: ReservationId, replaces: LedgerTime, hold_ms: u64) -> Outcome<Reservation> {
        let op = Op::Extend { id: id.to_string(), replaces_ms: replaces.0, hold_ms };
        let call: Extend = self.client.extend(id, replaces, Duration::from_millis(hold_ms)).deadline(self.deadline);
        self.ask(op, call).await
    }

    /// Fences: only ids of which nothing is in doubt.
    pub async fn fence(&self, id: ReservationId) -> Outcome<Resolved> {
        self.ask(Op::Fence { id: id.to_string() }, self.client.resolve(id).deadline(self.deadline)).await
    }

    /// Brings back all, or these lines.
    pub async fn bring_back(&self, id: ReservationId, lines: Option<&[Line]>, reference: &str) -> Outcome<Returned> {
        let op = Op::Return { id: id.to_string(), lines: lines.map(<[Line]>::to_vec), reference: reference.to_owned() };
        let mut call: ReturnUnits = self.client.return_units(id, reference).deadline(self.deadline);
        for line in lines.unwrap_or_default() {
            call = match &line.offer.sale {
                None => call.line(line.offer.sku.as_str(), line.quantity),
                Some(sale) => call.sale_line(sale.as_str(), line.offer.sku.as_str(), line.quantity),
            };
        }
        self.ask(op, call).await
    }

    /// Receives units.
    pub async fn receive(&self, offer: &Offer, units: u64, reference: &str) -> Outcome<Stocked> {
        let op = Op::Receive { offer: offer.clone(), units, reference: reference.to_owned() };
        let mut call: Receive =
            self.client.receive(offer.sku.as_str(), units as i64, reference).deadline(self.deadline);
        if let Some(sale) = &offer.sale {
            call = call.sale(sale.as_str());
        }
        self.ask(op, call).await
    }

    /// Corrects units.
    pub async fn adjust(
        &self,
        offer: &Offer,
        delta: i64,
        reference: &str,
        expected_version: Option<u64>,
    ) -> Outcome<Stocked> {
        let op = Op::Adjust { offer: offer.clone(), delta, reference: reference.to_owned(), expected_version };
        let mut call: Adjust =
            self.client.adjust(offer.sku.as_str(), delta, "counted", reference).deadline(self.deadline);
        if let Some(sale) = &offer.sale {
            call = call.sale(sale.as_str());
        }
        if let Some(version) = expected_version {
            call = call.expected_version(version);
        }
        self.ask(op, call).await
    }

    /// Moves units between offers of a product.
    pub async fn allot(
        &self,
        sku: &str,
        from: Option<&str>,
        to: Option<&str>,
        units: u64,
        reference: &str,
    ) -> Outcome<Stocked> {
        let op = Op::Allot {
            sku: sku.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            units,
            reference: reference.to_owned(),
        };
        let mut call: Allot = self.client.allot(sku, units as i64, reference).deadline(self.deadline);
        if let Some(from) = from {
            call = call.from_sale(from);
        }
        if let Some(to) = to {
            call = call.to_sale(to);
        }
        self.ask(op, call).await
    }

    /// Creates a product.
    pub async fn create(&self, sku: &str, policy: Policy) -> Outcome<OfferSettled> {
        let op = Op::CreateProduct { sku: sku.to_owned(), terms: Terms::from(&policy) };
        let call: Arrange = self.client.create_product(sku, policy).deadline(self.deadline);
        self.ask(op, call).await
    }

    /// Creates an offer in a sale, or changes an offer's policy.
    pub async fn put(&self, offer: &Offer, policy: Policy, expected_version: Option<u64>) -> Outcome<OfferSettled> {
        let op = Op::PutOffer { offer: offer.clone(), terms: Terms::from(&policy), expected_version };
        let mut call = self.client.put_offer(key_of(offer), policy).deadline(self.deadline);
        if let Some(version) = expected_version {
            call = call.expected_version(version);
        }
        self.ask(op, call).await
    }

    /// Opens or closes an offer.
    pub async fn set_open(&self, offer: &Offer, open: bool) -> Outcome<OfferSettled> {
        let call: Arrange = self.client.set_open(key_of(offer), open).deadline(self.deadline);
        self.ask(Op::SetOpen { offer: offer.clone(), open }, call).await
    }

    /// Ends a sale's offer for good.
    pub async fn end_sale(&self, offer: &Offer) -> Outcome<OfferSettled> {
        let sale = offer.sale.as_deref().expect("only a sale ends");
        let call: Arrange = self.client.end_sale(sale, offer.sku.as_str()).deadline(self.deadline);
        self.ask(Op::EndSale { offer: offer.clone() }, call).await
    }

    /// Goes on until it is definite that it happened or will not.
    pub(super) async fn surely<T, F: Future<Output = Outcome<T>>>(&self, call: impl Fn() -> F) {
        loop {
            match call().await {
                Outcome::Ok(_) | Outcome::Refused(_) => return,
                Outcome::NotNow(_) | Outcome::Unknown(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// The offer's key for the client.
pub(super) fn key_of(offer: &Offer) -> OfferKey {
    OfferKey {
        sku: Sku::new(&offer.sku).expect("our own"),
        sale: offer.sale.as_ref().map(|sale| client_sdk::SaleId::new(sale).expect("our own")),
    }
}
