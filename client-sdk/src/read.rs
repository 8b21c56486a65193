//! The reads, as builders that are awaited. Linearizable unless [`stale`](ReadOf::stale) is asked for by name.
//!
//! **Owns** [`ReadOf`] and its kinds. **Must never** answer a linearizable read from anything but the leader's quorum.

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger_core::order::{OrderPage, OrderView, Phase, QueueStats};
use ledger_core::view::{IdView, OfferView, ProductView};
use ledger_core::{OfferKey, Position, ReservationId, SaleId, Sku, Slot};
use ledger_proto::reply::{Reply, Why};
use ledger_proto::{Cause, Invalid, feed, names, orders, status, v1, views};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::chance;
use crate::client::Client;
use crate::limits;
use crate::node::Node;
use crate::outcome::{Answered, At, NotNow, Outcome, Page, Refused};
use crate::watch::Happened;

/// A read that is awaited. `K` says of what.
#[must_use = "nothing is asked until it is awaited"]
pub struct ReadOf<K> {
    pub(crate) client: Client,
    pub(crate) of: Result<K, Invalid>,
    pub(crate) stale: bool,
    pub(crate) or_stale: bool,
    pub(crate) deadline: Option<Duration>,
}

impl<K> ReadOf<K> {
    /// Whatever a replica has applied, the leader's or another; the answer says its position, and its age if the replica knows it. Never waits
    /// for a quorum. Concurrent stale reads of offers share calls, as the linearizable ones do.
    pub fn stale(mut self) -> Self {
        self.stale = true;
        self
    }
    /// How long to wait and retry; the client's default otherwise.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl ReadOf<OfOffer> {
    /// As of now if that can be had, else stale: when the leader does not answer within the deadline, and at once while the client's breaker is open
    /// (seven failures in a minute, for ten seconds; [`crate::Builder::stock_breaker`]). [`At::stale`] says which it was.
    pub fn or_stale(mut self) -> Self {
        self.or_stale = true;
        self
    }
}

/// Of one order: none when there is no such order.
pub struct OfOrder(pub(crate) ReservationId);
/// Of a page of one shard's orders, in the order of their ids.
pub struct OfOrders {
    pub(crate) slot: Slot,
    pub(crate) phase: Option<Phase>,
    pub(crate) after: Option<ReservationId>,
    pub(crate) max: u32,
}
impl ReadOf<OfOrders> {
    /// Only orders in this phase; dead letters are [`Phase::Parked`].
    pub fn phase(mut self, phase: Phase) -> Self {
        if let Ok(of) = &mut self.of {
            of.phase = Some(phase);
        }
        self
    }
    /// Only orders behind this one ([`OrderPage::next`] of the page before).
    pub fn after(mut self, id: ReservationId) -> Self {
        if let Ok(of) = &mut self.of {
            of.after = Some(id);
        }
        self
    }
    /// At most so many; at most 1,000, default 100.
    pub fn max(mut self, max: u32) -> Self {
        if let Ok(of) = &mut self.of {
            of.max = max;
        }
        self
    }
}
/// Of depth and age of one shard's queues.
pub struct OfQueue(pub(crate) Slot);
/// Of one offer: none when there is no such offer.
#[derive(Clone)]
pub struct OfOffer(pub(crate) OfferKey);
/// Of a product with all its offers: none when there is no such product.
pub struct OfProduct(pub(crate) Sku);
/// Of what is known of a reservation id.
pub struct OfReservation(pub(crate) ReservationId);
/// Of a page of products by SKU.
pub struct OfProducts {
    pub(crate) after: Option<String>,
    pub(crate) max: u32,
}
/// Of a page of offers in sales.
pub struct OfSales {
    pub(crate) sale: Option<SaleId>,
    pub(crate) after: Option<String>,
    pub(crate) max: u32,
}
/// Of the history of one reservation or product, newest first. Histories are local to nodes, so these are never linearizable.
pub struct OfHistory {
    pub(crate) of: Subject,
    pub(crate) before: Option<Position>,
    pub(crate) max: u32,
}
/// What [`crate::Client::explain`] tells the history of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Of a reservation.
    Reservation(ReservationId),
    /// Of a product.
    Product(Sku),
    /// Of one entry of a shard's log: everything that it changed, or that it was refused as a whole.
    Entry {
        /// Whose log.
        shard: u32,
        /// Where in it.
        index: u64,
    },
}
impl From<ReservationId> for Subject {
    fn from(id: ReservationId) -> Self {
        Self::Reservation(id)
    }
}
impl From<Sku> for Subject {
    fn from(sku: Sku) -> Self {
        Self::Product(sku)
    }
}
/// Part of a history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What happened, newest first.
    pub changes: Vec<Happened>,
    /// Pass to [`ReadOf::before`] for the page of older ones; none when there are no more.
    pub next: Option<Position>,
    /// Older parts are no longer kept on the node that was asked.
    pub cut_off: bool,
}

impl ReadOf<OfProducts> {
    /// The page behind this token ([`Page::next`] of the page before).
    pub fn after(mut self, token: impl Into<String>) -> Self {
        if let Ok(of) = &mut self.of {
            of.after = Some(token.into());
        }
        self
    }
    /// At most so many; at most 1,000, default 100.
    pub fn max(mut self, max: u32) -> Self {
        if let Ok(of) = &mut self.of {
            of.max = max;
        }
        self
    }
}
impl ReadOf<OfSales> {
    /// Only this sale.
    pub fn sale(mut self, sale: impl crate::Given<SaleId>) -> Self {
        match (sale.given(), &mut self.of) {
            (Ok(sale), Ok(of)) => of.sale = Some(sale),
            (Err(error), of @ Ok(_)) => *of = Err(Invalid::new("sale", error.to_string())),
            (_, Err(_)) => {}
        }
        self
    }
    /// The page behind this token ([`Page::next`] of the page before).
    pub fn after(mut self, token: impl Into<String>) -> Self {
        if let Ok(of) = &mut self.of {
            of.after = Some(token.into());
        }
        self
    }
    /// At most so many; at most 1,000, default 100.
    pub fn max(mut self, max: u32) -> Self {
        if let Ok(of) = &mut self.of {
            of.max = max;
        }
        self
    }
}
impl ReadOf<OfHistory> {
    /// Only changes before this position ([`Told::next`] of the page before).
    pub fn before(mut self, position: Position) -> Self {
        if let Ok(of) = &mut self.of {
            of.before = Some(position);
        }
        self
    }
    /// At most so many; at most 1,000, default 100.
    pub fn max(mut self, max: u32) -> Self {
        if let Ok(of) = &mut self.of {
            of.max = max;
        }
        self
    }
}

macro_rules! read {
    ($kind:ty => $value:ty, $call:ident) => {
        impl IntoFuture for ReadOf<$kind> {
            type Output = Outcome<$value>;
            type IntoFuture = BoxFuture<'static, Outcome<$value>>;
            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.$call())
            }
        }
    };
}
read!(OfOffer => Option<OfferView>, offer);
read!(OfProduct => Option<ProductView>, product);
read!(OfReservation => IdView, reservation);
read!(OfProducts => Page<ProductView>, products);
read!(OfSales => Page<OfferView>, sales);
read!(OfHistory => Told, history);
read!(OfOrder => Option<OrderView>, order);
read!(OfOrders => OrderPage, orders);
read!(OfQueue => QueueStats, queue);

/// Asks until it is answered or the deadline has passed. A read changes nothing, so that it never ends in doubt.
async fn ask<K, T, R, F>(
    read: ReadOf<K>,
    slot: impl Fn(&K) -> Option<Slot>,
    call: impl Fn(Arc<Node>, &K, bool) -> F,
    value: impl Fn(R) -> Result<(T, Option<v1::AsOf>), Invalid>,
) -> Outcome<T>
where
    F: Future<Output = Result<R, Status>>,
{
    let ReadOf { client, of, stale, or_stale: _, deadline } = read;
    let of = match of {
        Ok(of) => of,
        Err(invalid) => return no(Why::Invalid(invalid)),
    };
    let until = chance::after(Instant::now(), deadline.unwrap_or(client.deadline()));
    let slot = slot(&of);
    let mut last = NotNow {
        cause: Cause::Unreachable,
        message: "no node answered in time".into(),
        retry_after: limits::BACKOFF_MAX,
    };
    for tries in 0.. {
        if client.is_closed() {
            last.message = "the client was closed".into();
            break;
        }
        let node = match slot {
            Some(slot) if stale => client.routes().with_replica(slot, Arc::clone),
            slot => client.routes().with(slot, tries, Arc::clone),
        };
        let patience = until.min(Instant::now() + limits::PATIENCE);
        let answer = match node {
            Some(node) => tokio::time::timeout_at(patience, call(node, &of, stale)).await,
            None => Ok(Err(Status::unavailable("no node is known"))),
        };
        let mut pause = client.routes().chance.pause(limits::BACKOFF_MIN, limits::BACKOFF_MAX, tries);
        match answer {
            Ok(Ok(response)) => match value(response) {
                Ok((value, as_of)) => {
                    return Outcome::Ok(Answered { value, at: as_of.and_then(|as_of| read_at(as_of, stale)) });
                }
                Err(invalid) => last = other(format!("the node's answer is not understood: {invalid}")),
            },
            Ok(Err(status)) => match status::reply(&status) {
                Some(Reply::Refused(why)) => return no(why),
                Some(Reply::NotNow(told)) => {
                    match (&told.leader, slot) {
                        (Some(leader), Some(slot)) => client.routes().hint(slot, leader),
                        _ => client.routes().heard.want_routing(),
                    }
                    let after = chance::retry_after(told.retry_ms);
                    pause = pause.max(after.min(limits::BACKOFF_MAX));
                    last = NotNow { cause: told.cause, message: told.message, retry_after: after };
                }
                _ => match status.code() {
                    Code::InvalidArgument => return no(Why::Invalid(Invalid::new("call", status.message()))),
                    Code::PermissionDenied => return no(Why::PermissionDenied(status.message().to_owned())),
                    _ => {
                        client.routes().heard.want_routing();
                        // What a node answered about the shard explains more than a broken
                        // connection.
                        if last.cause == Cause::Unreachable {
                            last.message = status.to_string();
                        }
                    }
                },
            },
            Err(_) => client.routes().heard.want_routing(),
        }
        if Instant::now() + pause >= until {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    Outcome::NotNow(last)
}

fn no<T>(why: Why) -> Outcome<T> {
    Outcome::Refused(Refused { why, at: None })
}
fn other(message: String) -> NotNow {
    NotNow { cause: Cause::Other, message, retry_after: limits::BACKOFF_MAX }
}
fn read_at(as_of: v1::AsOf, stale: bool) -> Option<At> {
    let (at, age) = names::as_of_from_wire(as_of)?;
    Some(At { position: at.position, time: at.time, stale, age: age.map(Duration::from_millis) })
}
fn consistency(stale: bool) -> i32 {
    if stale { v1::Consistency::Stale.into() } else { v1::Consistency::Linearizable.into() }
}
fn page<T>(items: Vec<T>, next: String) -> Page<T> {
    Page { items, next: Some(next).filter(|next| !next.is_empty()) }
}

impl ReadOf<OfOffer> {
    async fn offer(self) -> Outcome<Option<OfferView>> {
        if !self.or_stale || self.stale {
            return self.of_offer().await;
        }
        let Self { client, of, deadline, .. } = self;
        let until = chance::after(Instant::now(), deadline.unwrap_or(client.deadline()));
        let read = |stale, deadline| ReadOf {
            client: client.clone(),
            of: of.clone(),
            stale,
            or_stale: false,
            deadline: Some(deadline),
        };
        if let Ok(pass) = client.breaker().admit() {
            // Half of the time, so that enough is left to fall back within the deadline.
            match read(false, (until - Instant::now()) / 2).of_offer().await {
                Outcome::NotNow(_) | Outcome::Unknown(_) => pass.ill(),
                definite => {
                    pass.well();
                    return definite;
                }
            }
        }
        read(true, until.saturating_duration_since(Instant::now())).of_offer().await
    }
    async fn of_offer(self) -> Outcome<Option<OfferView>> {
        ask(
            self,
            |of| Some(Slot::of(&of.0.sku)),
            |node, of, stale| {
                let offer = of.0.clone();
                async move { node.read_offer(offer, stale).await }
            },
            |one| Ok((one.offer.map(views::offer_from_wire).transpose()?, one.as_of)),
        )
        .await
    }
}
impl ReadOf<OfProduct> {
    async fn product(self) -> Outcome<Option<ProductView>> {
        ask(
            self,
            |of| Some(Slot::of(&of.0)),
            |node, of, stale| {
                let request = v1::GetProductRequest { sku: of.0.as_str().to_owned(), consistency: consistency(stale) };
                async move { Ok(node.rpc.clone().get_product(request).await?.into_inner()) }
            },
            |response| Ok((response.product.map(views::product_from_wire).transpose()?, response.as_of)),
        )
        .await
    }
}
impl ReadOf<OfReservation> {
    async fn reservation(self) -> Outcome<IdView> {
        ask(
            self,
            |of| Some(of.0.slot()),
            |node, of, stale| {
                let request =
                    v1::GetReservationRequest { id: names::id_to_wire(of.0), consistency: consistency(stale) };
                async move { Ok(node.rpc.clone().get_reservation(request).await?.into_inner()) }
            },
            |response| Ok((views::id_from_wire(response.what)?, response.as_of)),
        )
        .await
    }
}
impl ReadOf<OfProducts> {
    async fn products(self) -> Outcome<Page<ProductView>> {
        ask(
            self,
            |_| None,
            |node, of, stale| {
                let after = of.after.clone().unwrap_or_default();
                let request = v1::ListProductsRequest { after, max: of.max, consistency: consistency(stale) };
                async move { Ok(node.rpc.clone().list_products(request).await?.into_inner()) }
            },
            |response| {
                let items = response.products.into_iter().map(views::product_from_wire).collect::<Result<_, _>>()?;
                Ok((page(items, response.next), None))
            },
        )
        .await
    }
}
impl ReadOf<OfSales> {
    async fn sales(self) -> Outcome<Page<OfferView>> {
        ask(
            self,
            |_| None,
            |node, of, stale| {
                let request = v1::ListSalesRequest {
                    sale: names::sale_to_wire(of.sale.as_ref()),
                    after: of.after.clone().unwrap_or_default(),
                    max: of.max,
                    consistency: consistency(stale),
                };
                async move { Ok(node.rpc.clone().list_sales(request).await?.into_inner()) }
            },
            |response| {
                let items = response.offers.into_iter().map(views::offer_from_wire).collect::<Result<_, _>>()?;
                Ok((page(items, response.next), None))
            },
        )
        .await
    }
}
impl ReadOf<OfOrder> {
    async fn order(self) -> Outcome<Option<OrderView>> {
        ask(
            self,
            |of| Some(of.0.slot()),
            |node, of, stale| {
                let request = v1::GetOrderRequest { id: names::id_to_wire(of.0), consistency: consistency(stale) };
                async move { Ok(node.orders.clone().get_order(request).await?.into_inner()) }
            },
            |response| Ok((response.order.map(orders::view_from_wire).transpose()?, response.as_of)),
        )
        .await
    }
}
impl ReadOf<OfOrders> {
    async fn orders(self) -> Outcome<OrderPage> {
        ask(
            self,
            |of| Some(of.slot),
            |node, of, stale| {
                let request = v1::ListOrdersRequest {
                    slot: of.slot.get().into(),
                    phase: of.phase.map_or(0, orders::phase_to_wire),
                    after: of.after.map(names::id_to_wire).unwrap_or_default(),
                    max: of.max,
                    consistency: consistency(stale),
                };
                async move { Ok(node.orders.clone().list_orders(request).await?.into_inner()) }
            },
            |response| {
                let found = response.orders.into_iter().map(orders::view_from_wire).collect::<Result<_, _>>()?;
                let next = (!response.next.is_empty()).then(|| names::id("next", &response.next)).transpose()?;
                Ok((OrderPage { orders: found, next }, response.as_of))
            },
        )
        .await
    }
}
impl ReadOf<OfQueue> {
    async fn queue(self) -> Outcome<QueueStats> {
        ask(
            self,
            |of| Some(of.0),
            |node, of, stale| {
                let request = v1::GetQueueRequest { slot: of.0.get().into(), consistency: consistency(stale) };
                async move { Ok(node.orders.clone().get_queue(request).await?.into_inner()) }
            },
            |response| Ok((orders::queue_from_wire(response.stats.unwrap_or_default()), response.as_of)),
        )
        .await
    }
}
impl ReadOf<OfHistory> {
    async fn history(self) -> Outcome<Told> {
        ask(
            self,
            |of| match &of.of {
                Subject::Reservation(id) => Some(id.slot()),
                Subject::Product(sku) => Some(Slot::of(sku)),
                Subject::Entry { .. } => None,
            },
            |node, of, _| {
                let subject = match &of.of {
                    Subject::Reservation(id) => v1::explain_request::Of::Reservation(names::id_to_wire(*id)),
                    Subject::Product(sku) => v1::explain_request::Of::Sku(sku.as_str().to_owned()),
                    Subject::Entry { shard, index } => {
                        v1::explain_request::Of::Entry(v1::LogEntry { shard: *shard, index: *index })
                    }
                };
                let before = of.before.map(names::position_to_wire);
                let request = v1::ExplainRequest { of: Some(subject), max: of.max, before };
                async move { Ok(node.rpc.clone().explain(request).await?.into_inner()) }
            },
            |response| {
                let happened = |change| {
                    let (position, time, change) = feed::change_from_wire(change)?;
                    Ok(Happened { position, time, change })
                };
                let changes = response.changes.into_iter().map(happened).collect::<Result<_, Invalid>>()?;
                let next = response.next.map(names::position);
                Ok((Told { changes, next, cut_off: response.cut_off }, None))
            },
        )
        .await
    }
}
