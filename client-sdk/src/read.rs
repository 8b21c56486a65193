//! The reads, as builders that are awaited. Linearizable unless [`stale`](ReadOf::stale) is asked for by name.
//!
//! **Owns** [`ReadOf`] and its kinds. **Must never** answer a linearizable read from anything but the leader's quorum.

use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use ledger_core::view::{IdView, OfferView, ProductView};
use ledger_core::{OfferKey, Position, ReservationId, SaleId, Sku};
use ledger_proto::Invalid;

use crate::client::Client;
use crate::outcome::{Outcome, Page};
use crate::watch::Happened;

/// A read that is awaited. `K` says of what.
#[must_use = "nothing is asked until it is awaited"]
pub struct ReadOf<K> {
    pub(crate) client: Client,
    pub(crate) of: Result<K, Invalid>,
    pub(crate) stale: bool,
    pub(crate) deadline: Option<Duration>,
}

impl<K> ReadOf<K> {
    /// Whatever the asked node has applied; the answer says its position and age. Never waits for a quorum.
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

/// Of one offer: none when there is no such offer.
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

impl ReadOf<OfOffer> {
    async fn offer(self) -> Outcome<Option<OfferView>> {
        todo!()
    }
}
impl ReadOf<OfProduct> {
    async fn product(self) -> Outcome<Option<ProductView>> {
        todo!()
    }
}
impl ReadOf<OfReservation> {
    async fn reservation(self) -> Outcome<IdView> {
        todo!()
    }
}
impl ReadOf<OfProducts> {
    async fn products(self) -> Outcome<Page<ProductView>> {
        todo!()
    }
}
impl ReadOf<OfSales> {
    async fn sales(self) -> Outcome<Page<OfferView>> {
        todo!()
    }
}
impl ReadOf<OfHistory> {
    async fn history(self) -> Outcome<Told> {
        todo!()
    }
}
