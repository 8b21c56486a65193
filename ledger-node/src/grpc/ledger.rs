//! The Ledger service: messages to [`crate::api`] and back.
//!
//! **Owns** the translation. **Must never** hold a rule. **Read next**: [`super::stream`], [`super::watch`], [`crate::api`].

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use ledger_core::types::{OfferKey, SaleId, Sku};
use ledger_proto::framed::ledger_server::Ledger;
use ledger_proto::limits::{OFFERS_PER_READ_MAX, page_size};
use ledger_proto::{Answers, Calls, DecodedCall, Invalid, NotNow, OneCall, Why, feed, names, status, v1, views};
use tonic::{Request, Response, Status, Streaming};

use super::connection::Caller;
use super::stream::SubmitFlow;
use super::watch;
use super::watch_places::Asked;
use crate::access::Right;
use crate::api::forward::{FORWARDED, marked_shards};
use crate::api::reads::{AsOf, Consistency, ReadFailure, Reader};
use crate::api::{Api, submit};
use crate::history::explain::Subject;
use crate::limits::{EXPLAIN_DEFAULT, EXPLAIN_MAX};
use crate::metrics::Outcomes;

/// The service.
#[derive(Clone)]
pub struct LedgerService {
    api: Api,
}

pub(super) type Answered<T> = Result<Response<T>, Status>;

impl LedgerService {
    /// Over a node.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    fn watch_refused(&self, why: NotNow) -> Status {
        self.api.metrics.watches_refused.increment(1);
        status::not_now(why)
    }

    /// The one gate of every call.
    fn admit<T>(&self, request: &Request<T>, right: Right) -> Result<(), Status> {
        admit(&self.api, request, right)
    }

    fn reader<T>(&self, request: &Request<T>, consistency: i32) -> Result<Reader<'_>, Status> {
        reader(&self.api, request, consistency)
    }

    /// Submits the calls of one message and packs all their answers.
    async fn answer(&self, calls: Vec<DecodedCall>, cap: Option<Duration>, forwarded: bool) -> Answers {
        self.api.metrics.received(&calls);
        let began = tokio::time::Instant::now();
        let mut frame = Answers::with_room_for(calls.len());
        let mut outcomes = Outcomes::default();
        for group in submit::submit(&self.api, calls, cap, forwarded).await {
            let mut entry = frame.entry(group.at);
            for item in group.items {
                outcomes.count_reply(&item.reply);
                entry.reply(item.tag, item.place, &item.reply);
            }
        }
        self.api.metrics.answered(&outcomes);
        self.api.metrics.submit_seconds.record(began.elapsed().as_secs_f64());
        frame
    }
}

/// For a read: whether the caller may, how current it must be, and how long it may take.
pub(super) fn reader<'a, T>(api: &'a Api, request: &Request<T>, consistency: i32) -> Result<Reader<'a>, Status> {
    admit(api, request, Right::Read)?;
    let consistency = match v1::Consistency::try_from(consistency) {
        Ok(v1::Consistency::Linearizable) => Consistency::Linearizable,
        Ok(v1::Consistency::Stale) => Consistency::Stale,
        Err(_) => return Err(status::invalid(Invalid::new("consistency", "not known to this node"))),
    };
    let source = caller(request)?.place.source();
    Ok(Reader::new(api, consistency, deadline(request)).of_source(source))
}

/// Identity and role, decided before anything else is looked at.
pub(super) fn admit<T>(api: &Api, request: &Request<T>, right: Right) -> Result<(), Status> {
    match api.access.decide(caller(request)?.address, right) {
        Ok(_) => Ok(()),
        Err(why) => Err(status::refused(Why::PermissionDenied(why.to_string()))),
    }
}

/// Who is at the other end.
fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let unknown = || status::refused(Why::PermissionDenied("the caller's address is not known".to_owned()));
    request.extensions().get::<Caller>().ok_or_else(unknown)
}

/// The caller's gRPC deadline.
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n.saturating_mul(3600)),
        "M" => Duration::from_secs(n.saturating_mul(60)),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

fn forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

pub(super) fn failure(why: ReadFailure) -> Status {
    match why {
        ReadFailure::Invalid(why) => status::invalid(why),
        ReadFailure::NotNow(why) => status::not_now(why),
    }
}

pub(super) fn as_of(as_of: AsOf) -> Option<v1::AsOf> {
    Some(names::as_of(as_of.at, as_of.age_ms))
}

fn sku(field: &'static str, text: &str) -> Result<Sku, Status> {
    names::sku(field, text).map_err(status::invalid)
}

#[tonic::async_trait]
impl Ledger for LedgerService {
    type SubmitStreamStream = SubmitFlow<Streaming<Calls>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchFrame, Status>> + Send>>;

    async fn submit(&self, request: Request<OneCall>) -> Answered<Answers> {
        self.admit(&request, Right::Order)?;
        let call = request.get_ref().decode().map_err(status::malformed)?;
        Ok(Response::new(self.answer(vec![call], deadline(&request), forwarded(&request)).await))
    }

    async fn submit_batch(&self, request: Request<Calls>) -> Answered<Answers> {
        self.admit(&request, Right::Order)?;
        let calls = request.get_ref().decode().map_err(status::malformed)?;
        Ok(Response::new(self.answer(calls, deadline(&request), forwarded(&request)).await))
    }

    async fn submit_stream(&self, request: Request<Streaming<Calls>>) -> Answered<Self::SubmitStreamStream> {
        self.admit(&request, Right::Order)?;
        let place = caller(&request)?.place.clone();
        Ok(Response::new(SubmitFlow::new(self.api.clone(), request.into_inner(), Some(place))))
    }

    async fn get_product(&self, request: Request<v1::GetProductRequest>) -> Answered<v1::GetProductResponse> {
        let reader = self.reader(&request, request.get_ref().consistency)?;
        let sku = sku("sku", &request.get_ref().sku)?;
        let (product, at) = reader.product(&sku).await.map_err(failure)?;
        let product = product.as_ref().map(views::product_to_wire);
        Ok(Response::new(v1::GetProductResponse { product, as_of: as_of(at) }))
    }

    async fn get_offers(&self, request: Request<v1::GetOffersRequest>) -> Answered<v1::GetOffersResponse> {
        let reader = self.reader(&request, request.get_ref().consistency)?;
        let wanted = &request.get_ref().offers;
        if wanted.len() > OFFERS_PER_READ_MAX {
            let why = format!("has {} items, at most {OFFERS_PER_READ_MAX} are allowed", wanted.len());
            return Err(status::invalid(Invalid::new("offers", why)));
        }
        let keys = wanted.iter().cloned().map(|offer| names::offer(Some(offer)));
        let keys: Vec<OfferKey> = keys.collect::<Result<_, _>>().map_err(status::invalid)?;
        let found = reader.offers(&keys).await.map_err(failure)?;
        let one = |(view, at): (Option<_>, AsOf)| v1::get_offers_response::One {
            offer: view.as_ref().map(views::offer_to_wire),
            as_of: as_of(at),
        };
        Ok(Response::new(v1::GetOffersResponse { offers: found.into_iter().map(one).collect() }))
    }

    async fn list_products(&self, request: Request<v1::ListProductsRequest>) -> Answered<v1::ListProductsResponse> {
        let only = marked_shards(&request).map_err(status::invalid)?;
        let reader = self.reader(&request, request.get_ref().consistency)?.only(only.as_deref());
        let asked = request.get_ref();
        let after = (!asked.after.is_empty()).then(|| sku("after", &asked.after)).transpose()?;
        let (products, more) = reader.products(after.as_ref(), page_size(asked.max)).await.map_err(failure)?;
        let next = products.last().filter(|_| more).map(|last| last.sku.as_str().to_owned()).unwrap_or_default();
        let products = products.iter().map(views::product_to_wire).collect();
        Ok(Response::new(v1::ListProductsResponse { products, next }))
    }

    async fn list_sales(&self, request: Request<v1::ListSalesRequest>) -> Answered<v1::ListSalesResponse> {
        let only = marked_shards(&request).map_err(status::invalid)?;
        let reader = self.reader(&request, request.get_ref().consistency)?.only(only.as_deref());
        let asked = request.get_ref();
        let sale = names::sale("sale", &asked.sale).map_err(status::invalid)?;
        let after = sale_token(&asked.after)?;
        let after = after.as_ref().map(|(sale, sku)| (sale, sku));
        let (offers, more) = reader.sales(sale.as_ref(), after, page_size(asked.max)).await.map_err(failure)?;
        let next = offers
            .last()
            .filter(|_| more)
            .and_then(|last| last.offer.sale.as_ref().map(|sale| format!("{sale} {}", last.offer.sku)));
        let offers = offers.iter().map(views::offer_to_wire).collect();
        Ok(Response::new(v1::ListSalesResponse { offers, next: next.unwrap_or_default() }))
    }

    async fn get_reservation(
        &self,
        request: Request<v1::GetReservationRequest>,
    ) -> Answered<v1::GetReservationResponse> {
        let reader = self.reader(&request, request.get_ref().consistency)?;
        let id = names::id("id", &request.get_ref().id).map_err(status::invalid)?;
        let (view, at) = reader.reservation(id).await.map_err(failure)?;
        Ok(Response::new(v1::GetReservationResponse { what: views::id_to_wire(&view), as_of: as_of(at) }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answered<v1::ExplainResponse> {
        let reader = self.reader(&request, v1::Consistency::Linearizable.into())?;
        let asked = request.get_ref();
        let subject = match &asked.of {
            Some(v1::explain_request::Of::Reservation(id)) => {
                Subject::Reservation(names::id("reservation", id).map_err(status::invalid)?)
            }
            Some(v1::explain_request::Of::Sku(text)) => Subject::Product(sku("sku", text)?),
            Some(v1::explain_request::Of::Entry(entry)) => Subject::Entry { shard: entry.shard, index: entry.index },
            None => return Err(status::invalid(Invalid::new("of", "missing: name a reservation, a SKU or an entry"))),
        };
        let max = if asked.max == 0 { EXPLAIN_DEFAULT } else { (asked.max as usize).min(EXPLAIN_MAX) };
        let incarnation = self.api.node.cluster().map_or(0, |(_, incarnation)| incarnation);
        if let Some(before) = asked.before.filter(|before| before.incarnation != incarnation) {
            let why = format!("is of incarnation {}, the cluster is at {incarnation}; begin anew", before.incarnation);
            return Err(status::invalid(Invalid::new("before", why)));
        }
        let before = asked.before.map(|position| (position.index, position.place));
        let (shard, found) = reader.explain(subject, before, max).await.map_err(failure)?;
        let next = found.next.map(|(index, place)| v1::Position { incarnation, shard, term: 0, index, place });
        let change =
            |one: &crate::history::explain::Explained| feed::change_to_wire(one.position, one.time, &one.change);
        let changes = found.changes.iter().map(change).collect();
        Ok(Response::new(v1::ExplainResponse { changes, next, cut_off: found.cut_off }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answered<Self::WatchStream> {
        self.admit(&request, Right::Read)?;
        let only = marked_shards(&request).map_err(status::invalid)?;
        let place = caller(&request)?.place.clone();
        let asked = if only.is_some() { Asked::PassedOn } else { Asked::Here };
        let mut place = self.api.watches.take(&place, asked).map_err(|why| self.watch_refused(why))?;
        if watch::needs_others(&self.api, only.as_deref()).map_err(status::not_now)? {
            place.needs_others().map_err(|why| self.watch_refused(why))?;
        }
        let sources = watch::begin(&self.api, request.get_ref(), only.as_deref()).await?;
        Ok(Response::new(Box::pin(watch::start(&self.api, sources, place))))
    }

    async fn get_routing(&self, request: Request<v1::GetRoutingRequest>) -> Answered<v1::Routing> {
        self.admit(&request, Right::Read)?;
        Ok(Response::new(self.api.node.routing()))
    }
}

/// A page token of sales: sale and SKU, which have no spaces, with one between.
fn sale_token(text: &str) -> Result<Option<(SaleId, Sku)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || status::invalid(Invalid::new("after", "is no page token; take `next` of the page before"));
    let (sale, sku) = text.split_once(' ').ok_or_else(bad)?;
    Ok(Some((SaleId::new(sale).map_err(|_| bad())?, Sku::new(sku).map_err(|_| bad())?)))
}
