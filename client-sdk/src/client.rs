//! The client: one handle, cheap to clone, for a whole process.
//!
//! **Owns** [`Client`] and its verbs. **Must never** invent or swap a caller's id. **Read next**: [`crate::Outcome`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledger_core::order::{ByHand, Fact, OrderView, Report, WorkClass, WorkerId};
use ledger_core::{
    Command, LedgerTime, LimitKey, OfferKey, Policy, Reason, Reference, ReservationId, SaleId, Settled, Sku, Slot,
};
use ledger_proto::{Cause, v1};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::breaker::{Breaker, BreakerNumbers};
use crate::builder::{Builder, ConnectError};
use crate::given::Given;
use crate::orders::{Claim, OnOrder, PlaceOrder, is_news, no_such_order};
use crate::outcome::{Answered, NotNow, Outcome, Refused};
use crate::read::*;
use crate::routes::Routes;
use crate::waiting::Waiting;
use crate::watch::{self, Cursor, Watch, WatchEnded};
use crate::write::*;
use crate::{chance, limits, many};

/// A connection to a Holdfast cluster. Clones share connections, batches and routing; make one per process.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    routes: Arc<Routes>,
    deadline: Duration,
    closed: AtomicBool,
    keep_fresh: AbortHandle,
    breaker: Breaker,
    waiting: Waiting,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keep_fresh.abort();
        self.routes.close();
        self.routes.shut();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(routes: Arc<Routes>, deadline: Duration, breaker: BreakerNumbers) -> Self {
        let keep_fresh = tokio::spawn(routes.clone().keep_fresh()).abort_handle();
        let (closed, breaker, waiting) = (AtomicBool::new(false), Breaker::new(breaker), Waiting::default());
        Self { inner: Arc::new(Inner { routes, deadline, closed, keep_fresh, breaker, waiting }) }
    }
    pub(crate) fn routes(&self) -> &Arc<Routes> {
        &self.inner.routes
    }
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Relaxed)
    }
    /// Connects to a cluster by the addresses (`host:port`) of some of its nodes, with the defaults of [`Client::builder`].
    ///
    /// # Errors
    /// [`ConnectError`] when an address is malformed or no node answers with the cluster's routing in time.
    pub async fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, ConnectError> {
        Self::builder().endpoints(endpoints).connect().await
    }
    /// For everything but the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }
    /// A new reservation id that routes to the product, minted from the ledger time seen in answers. Store it before asking.
    pub fn mint_for(&self, sku: &Sku) -> ReservationId {
        let routes = self.routes();
        ReservationId::from_parts(Slot::of(sku), routes.heard.clock.now().0, routes.chance.draw())
    }
    /// Ledger time as far as this client knows: the newest seen, advanced by its monotonic clock.
    pub fn ledger_time(&self) -> LedgerTime {
        self.routes().heard.clock.now()
    }
    pub(crate) fn deadline(&self) -> Duration {
        self.inner.deadline
    }

    /// Claims units for a buyer (the first limit key). Add lines, then await it.
    pub fn reserve(&self, id: ReservationId, buyer: impl Given<LimitKey>) -> Reserve {
        Reserve::new(self, id, buyer)
    }
    /// Sells a live hold: all of it, or the lines named.
    pub fn confirm(&self, id: ReservationId) -> Confirm {
        Confirm::new(self, id)
    }
    /// Gives a live hold back.
    pub fn release(&self, id: ReservationId) -> Release {
        Release::new(self, id)
    }
    /// Moves a live hold's deadline to ledger time + `hold`; `replaces` is the deadline last seen.
    pub fn extend(&self, id: ReservationId, replaces: LedgerTime, hold: Duration) -> Extend {
        Extend::new(self, id, replaces, hold)
    }
    /// Tells what became of an id, or makes sure that it never executes: a definite answer after an `Unknown`.
    pub fn resolve(&self, id: ReservationId) -> Resolve {
        Resolve::new(self, id)
    }
    /// Brings sold units back.
    pub fn return_units(&self, id: ReservationId, reference: impl Given<Reference>) -> ReturnUnits {
        ReturnUnits::new(self, id, reference)
    }
    /// Adds units to a product's plain offer (or [`Receive::sale`]).
    pub fn receive(&self, sku: impl Given<Sku>, units: impl Into<i64>, reference: impl Given<Reference>) -> Receive {
        Receive::new(self, sku, units.into(), reference)
    }
    /// Corrects the available units of a product's plain offer (or [`Adjust::sale`]).
    pub fn adjust(
        &self,
        sku: impl Given<Sku>,
        delta: impl Into<i64>,
        reason: impl Given<Reason>,
        reference: impl Given<Reference>,
    ) -> Adjust {
        Adjust::new(self, sku, delta.into(), reason, reference)
    }
    /// Moves available units between offers of a product: [`Allot::from_sale`], [`Allot::to_sale`].
    pub fn allot(&self, sku: impl Given<Sku>, units: impl Into<i64>, reference: impl Given<Reference>) -> Allot {
        Allot::new(self, sku, units.into(), reference)
    }
    /// Creates a product with its plain offer.
    pub fn create_product(&self, sku: impl Given<Sku>, policy: Policy) -> Arrange {
        Arrange::create_product(self, sku, policy)
    }
    /// Deletes a product that has no units and no sale, and that nothing remembered refers to.
    pub fn delete_product(&self, sku: impl Given<Sku>) -> DeleteProduct {
        DeleteProduct::new(self, sku)
    }
    /// Creates an offer in a sale, or with [`Arrange::expected_version`] replaces an offer's policy.
    pub fn put_offer(&self, offer: OfferKey, policy: Policy) -> Arrange {
        Arrange::put_offer(self, offer, policy)
    }
    /// Opens or closes an offer.
    pub fn set_open(&self, offer: OfferKey, open: bool) -> Arrange {
        Arrange::set_open(self, offer, open)
    }
    /// Ends a product's offer in a sale for good.
    pub fn end_sale(&self, sale: impl Given<SaleId>, sku: impl Given<Sku>) -> Arrange {
        Arrange::end_sale(self, sale, sku)
    }

    /// Any one command.
    pub fn submit(&self, command: Command) -> Submit {
        Submit::new(self, command)
    }
    /// An explicit batch: sent together, answered one by one in the order given. Not a transaction.
    pub async fn submit_many(&self, commands: Vec<Command>, deadline: Duration) -> Vec<Outcome<Settled>> {
        many::submit_many(self, commands, deadline).await
    }
    /// One command as one unary gRPC call, past the batching streams (for comparison; slower).
    pub async fn submit_unary(&self, command: Command, deadline: Duration) -> Outcome<Settled> {
        many::submit_unary(self, command, deadline).await
    }

    /// Stock of a product's plain offer.
    pub fn stock(&self, sku: impl Given<Sku>) -> ReadOf<OfOffer> {
        self.read("sku", sku.given().map(|sku| OfOffer(OfferKey { sku, sale: None })))
    }
    /// Stock of a product's offer in a sale.
    pub fn offer(&self, sku: impl Given<Sku>, sale: impl Given<SaleId>) -> ReadOf<OfOffer> {
        let of = sku.given().and_then(|sku| Ok(OfOffer(OfferKey { sku, sale: Some(sale.given()?) })));
        self.read("offer", of)
    }
    /// A product with all its offers.
    pub fn product(&self, sku: impl Given<Sku>) -> ReadOf<OfProduct> {
        self.read("sku", sku.given().map(OfProduct))
    }
    /// What is known of a reservation id.
    pub fn reservation(&self, id: ReservationId) -> ReadOf<OfReservation> {
        self.read("id", Ok(OfReservation(id)))
    }
    /// Products by SKU, a page at a time, over all shards.
    pub fn products(&self) -> ReadOf<OfProducts> {
        self.read("after", Ok(OfProducts { after: None, max: 0 }))
    }
    /// Offers in sales, a page at a time, over all shards.
    pub fn sales(&self) -> ReadOf<OfSales> {
        self.read("after", Ok(OfSales { sale: None, after: None, max: 0 }))
    }
    /// Places an order for so many minor units (cents) of a currency: add lines and a buyer, seal payment and contact, then await it. It answers at
    /// once; the workers do the rest, and [`Client::wait_for`] waits for them.
    pub fn place_order(&self, id: ReservationId, minor: u64, currency: &str) -> PlaceOrder {
        PlaceOrder::new(self, id, minor, currency)
    }
    /// All that is known of an order.
    pub fn order(&self, id: ReservationId) -> ReadOf<OfOrder> {
        self.read("id", Ok(OfOrder(id)))
    }
    /// Waits until the order has ended (sold, released, expired, refunded, closed), or somebody must act: the buyer (with the view's `secret`, which
    /// [`crate::OpeningKeys::client_secret`] opens) or, for a parked
    /// one, an operator. A synchronous purchase is `place_order` and then this. All who wait share one watch of the feed.
    ///
    /// `NotNow` when it has not ended within the time: it goes on without anybody waiting. `Refused` when there is no such order.
    pub async fn wait_for(&self, id: ReservationId, within: Duration) -> Outcome<OrderView> {
        let until = chance::after(Instant::now(), within);
        let news = self.inner.waiting.for_order(self.routes(), id);
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(limits::BACKOFF_MAX);
            match self.order(id).deadline(left.min(self.deadline())).await {
                Outcome::Ok(Answered { value: Some(view), at }) if is_news(&view) => {
                    return Outcome::Ok(Answered { value: view, at });
                }
                Outcome::Ok(Answered { value: Some(_), .. }) | Outcome::NotNow(_) | Outcome::Unknown(_) => {}
                Outcome::Ok(Answered { value: None, at }) => {
                    return Outcome::Refused(Refused { why: no_such_order().into(), at });
                }
                Outcome::Refused(refused) => return Outcome::Refused(refused),
            }
            let look_again = until.min(Instant::now() + limits::WAIT_LOOK_EVERY);
            // Whatever woke it, it looks.
            tokio::select! {
                _ = tokio::time::timeout_at(look_again, news.notified()) => {}
                () = self.routes().until_closed() => {
                    let message = "the client was closed".to_owned();
                    let retry_after = limits::WAIT_LOOK_EVERY;
                    return Outcome::NotNow(NotNow { cause: Cause::NotServing, message, retry_after });
                }
            }
            if Instant::now() >= until {
                let message = "the order has not ended yet; it goes on, ask for it later".to_owned();
                let retry_after = limits::WAIT_LOOK_EVERY;
                return Outcome::NotNow(NotNow { cause: Cause::Other, message, retry_after });
            }
        }
    }
    /// One slot of each shard: claims, lists of orders and queues are asked of a shard by any of its slots.
    pub fn shard_slots(&self) -> Vec<Slot> {
        let routing = self.routes().wire();
        let first = |shard: &v1::ShardRoute| Slot::new(u16::try_from(shard.slots.first()?.from).ok()?).ok();
        routing.shards.iter().filter_map(first).collect()
    }
    /// Orders of the slot's shard, a page at a time.
    pub fn orders_of(&self, slot: Slot) -> ReadOf<OfOrders> {
        self.read("slot", Ok(OfOrders { slot, phase: None, after: None, max: 0 }))
    }
    /// Depth and age of the queues of the slot's shard.
    pub fn queue_of(&self, slot: Slot) -> ReadOf<OfQueue> {
        self.read("slot", Ok(OfQueue(slot)))
    }
    /// For workers: takes work of the slot's shard under a lease.
    pub fn claim(&self, slot: Slot, worker: impl Given<WorkerId>, class: WorkClass) -> Claim {
        Claim::new(self, slot, worker, class)
    }
    /// For workers: makes a lease last `lease` from now.
    pub fn heartbeat(&self, id: ReservationId, epoch: u32, lease: Duration) -> OnOrder {
        OnOrder::heartbeat(self, id, epoch, lease)
    }
    /// For workers: what became of the step; ends the lease (but for [`Report::Intent`]).
    pub fn report(&self, id: ReservationId, epoch: u32, report: Report) -> OnOrder {
        OnOrder::report(self, id, epoch, report)
    }
    /// For workers and webhooks: what the provider says has happened to money. Taken at any epoch, once.
    pub fn record_fact(&self, id: ReservationId, fact: Fact) -> OnOrder {
        OnOrder::fact(self, id, fact)
    }
    /// For operators: redrive or close a parked order, refund a sold one, look again at one that awaits its buyer.
    pub fn order_by_hand(&self, id: ReservationId, what: ByHand, reason: impl Given<Reason>) -> OnOrder {
        OnOrder::by_hand(self, id, what, reason)
    }
    pub(crate) fn breaker(&self) -> &Breaker {
        &self.inner.breaker
    }
    /// The history of a reservation or a product, newest first, as far as the asked node keeps it.
    pub fn explain(&self, of: impl Into<Subject>) -> ReadOf<OfHistory> {
        self.read("of", Ok(OfHistory { of: of.into(), before: None, max: 0 }))
    }
    fn read<K>(&self, field: &'static str, of: Result<K, ledger_core::InvalidValue>) -> ReadOf<K> {
        let of = of.map_err(ledger_proto::Invalid::of(field));
        ReadOf { client: self.clone(), of, stale: false, or_stale: false, deadline: None }
    }

    /// Every change from the cursor on, of all products.
    pub fn watch(&self, cursor: Cursor) -> Watch {
        watch::start(self.routes(), Some(cursor), Vec::new())
    }
    /// Every change from now on, of all products. It has begun when this returns, at
    /// [`Watch::begins`]; then nothing is skipped, whatever breaks.
    ///
    /// # Errors
    /// It ended before it had begun, or the client was closed.
    pub async fn watch_from_now(&self) -> Result<Watch, WatchEnded> {
        watch::start_now(self.routes()).await
    }
    /// Every change from the cursor on, of these products only.
    pub fn watch_products(&self, cursor: Cursor, skus: impl IntoIterator<Item = Sku>) -> Watch {
        watch::start(self.routes(), Some(cursor), skus.into_iter().collect())
    }

    /// The routing as last heard.
    pub fn routing(&self) -> v1::Routing {
        v1::Routing::clone(&self.routes().wire())
    }
    /// Takes no more calls, ends the watches, waits for the calls under way (they end by their
    /// deadlines), and ends the streams.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        self.inner.keep_fresh.abort();
        self.routes().close();
        self.routes().idle().await;
        self.routes().shut();
    }
}
