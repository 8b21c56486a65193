//! The payment provider: a process of its own, told how to behave, and its book compared with the ledger's.
//!
//! **What it is.** `payment-sim` on loopback. It knows nothing of the ledger, so its book is another witness.
//! **Owns** what is asked of it, and what its book must say of an order. **Must never** take the ledger's word for what was charged.
//! **Read next**: [`super`].

use std::collections::HashMap;

use bytes::Bytes;
use client_sdk::order::{Ending, OrderView, Phase};
use client_sdk::{Client, IdView, ReservationId, Status};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use payment_sim::behaviour::{Behaviour, Manners, Outage};
use serde::Deserialize;

use super::refused;
use crate::books::{Books, OrderBook};
use crate::limits;
use crate::output::Outcome;

/// One intent of the provider's book.
#[derive(Debug, Deserialize)]
pub(crate) struct Intent {
    id: String,
    captured: u64,
    refunded: u64,
    metadata: std::collections::BTreeMap<String, String>,
}

impl Intent {
    /// What the provider keeps of it, minor units; below zero it gave back more than it took.
    fn net(&self) -> i64 {
        self.captured as i64 - self.refunded as i64
    }
}

#[derive(Deserialize)]
struct WireBook {
    intents: Vec<Intent>,
}

/// The provider's book, by order.
#[derive(Debug, Default)]
pub(crate) struct ProviderBook {
    by_order: HashMap<ReservationId, Vec<Intent>>,
    strays: Vec<Intent>,
}

impl ProviderBook {
    fn new(intents: Vec<Intent>) -> Self {
        let mut book = Self::default();
        for intent in intents {
            match intent.metadata.get("holdfast_order").and_then(|order| order.parse().ok()) {
                Some(order) => book.by_order.entry(order).or_default().push(intent),
                None => book.strays.push(intent),
            }
        }
        book
    }

    /// Minor units that it keeps, of all together.
    pub(crate) fn kept_minor(&self) -> i64 {
        self.by_order.values().flatten().chain(&self.strays).map(Intent::net).sum()
    }

    /// Orders that it keeps money of.
    pub(crate) fn paid_orders(&self) -> usize {
        self.by_order.values().filter(|intents| intents.iter().any(|intent| intent.net() > 0)).count()
    }

    /// What it keeps of an order: one figure for each intent that is not even.
    fn kept_of(&self, order: ReservationId) -> Vec<i64> {
        let intents = self.by_order.get(&order).into_iter().flatten();
        intents.map(Intent::net).filter(|&net| net != 0).collect()
    }

    /// What it charged for nothing: intents of no order at all, and orders that are not among those known.
    pub(crate) fn charged_for_nothing(&self, known: impl Fn(ReservationId) -> bool) -> Vec<String> {
        let strays = self.strays.iter().map(|intent| format!("intent {} belongs to no order", intent.id));
        let unknown = self
            .by_order
            .iter()
            .filter(|(order, intents)| intents.iter().any(|intent| intent.net() > 0) && !known(**order));
        strays.chain(unknown.map(|(order, _)| format!("{order} was charged, and is no order"))).collect()
    }

    /// What of an order disagrees: in this book, in what the ledger answers (`view` and the reservation, read now), and in history.
    ///
    /// # Errors
    /// The reservation cannot be read.
    pub(crate) async fn compare(
        &self,
        client: &Client,
        view: &OrderView,
        minor: u64,
        history: &Books,
    ) -> Outcome<Vec<String>> {
        let read = client.reservation(view.linked.unwrap_or(view.id)).deadline(limits::COMMAND_WITHIN).await;
        let confirmed = matches!(read.into_result()?, IdView::Reservation(r) if r.status == Status::Confirmed);
        Ok(self.disagreements(view, confirmed, minor, history.order(view.id)))
    }

    /// The same of what was read: whether its units are sold, what it was to cost, and what history makes of it.
    fn disagreements(&self, view: &OrderView, confirmed: bool, minor: u64, history: Option<&OrderBook>) -> Vec<String> {
        let mut wrong = Vec::new();
        let kept = self.kept_of(view.id);
        let sold = view.brief.ending == Ending::Sold;
        let expected: &[i64] = if sold { &[minor as i64] } else { &[] };
        if kept != expected {
            wrong.push(format!("it is {:?}, and the provider keeps {kept:?} of {minor}", view.brief.ending));
        }
        if confirmed != sold {
            wrong.push(format!("it is {:?}, and its units are sold: {confirmed}", view.brief.ending));
        }
        match history {
            None => wrong.push("history does not know it".to_owned()),
            Some(book) => {
                if book.kept().is_some() != sold || book.confirmed != sold {
                    wrong.push(format!("history has kept payment {:?}, confirmed {}", book.kept(), book.confirmed));
                }
                if !book.notified && view.brief.phase == Phase::Done {
                    wrong.push("it is done, and history does not know that its buyer was told".to_owned());
                }
            }
        }
        if view.brief.phase == Phase::Parked {
            wrong.push(format!("it is parked: {:?}", view.parked));
        }
        wrong
    }
}

/// The provider, as whoever runs the test reaches it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provider {
    pub(super) address: std::net::SocketAddr,
}

impl Provider {
    /// Where workers reach it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn behave(&self, manners: Manners) -> Outcome {
        let behaviour = Behaviour { everywhere: manners, ..Behaviour::default() };
        let text = serde_json::to_string(&behaviour).map_err(refused)?;
        call(self.address, http::Method::PUT, "/sim/behaviour", text).await.map(drop)
    }

    /// Three seconds slow from now on.
    pub(crate) async fn be_slow(&self) -> Outcome {
        self.behave(Manners { latency_ms: 3_000, ..Manners::default() }).await
    }

    /// Refuses everything from now on.
    pub(crate) async fn fail(&self) -> Outcome {
        self.behave(Manners { outage: Outage::Refuse, ..Manners::default() }).await
    }

    /// There again, but one charge in ten is answered with an error.
    pub(crate) async fn stumble(&self) -> Outcome {
        self.behave(Manners { charge_then_error_rate: 0.1, ..Manners::default() }).await
    }

    /// Well again.
    pub(crate) async fn recover(&self) -> Outcome {
        self.behave(Manners::default()).await
    }

    /// The buyer of an intent does what the bank asks for.
    pub(crate) async fn authenticate(&self, secret: &str) -> Outcome {
        let intent = secret.split_once("_secret_").map_or(secret, |(intent, _)| intent);
        let path = format!("/sim/intents/{intent}/authenticate?outcome=ok");
        call(self.address, http::Method::POST, &path, String::new()).await.map(drop)
    }

    /// Its book.
    pub(crate) async fn book(&self) -> Outcome<ProviderBook> {
        let text = call(self.address, http::Method::GET, "/sim/book", String::new()).await?;
        serde_json::from_slice::<WireBook>(&text).map(|book| ProviderBook::new(book.intents)).map_err(refused)
    }
}

/// One call over a connection of its own.
pub(super) async fn call(
    address: std::net::SocketAddr,
    method: http::Method,
    path: &str,
    body: String,
) -> Outcome<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(refused)?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(refused)?;
    let driver = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(refused)?;
    let answer = send.send_request(request).await.map_err(refused)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(refused)?.to_bytes();
    driver.abort();
    if status.is_success() {
        Ok(body)
    } else {
        Err(refused(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body))))
    }
}

#[cfg(test)]
mod tests {
    use client_sdk::order::OrderBrief;
    use client_sdk::{LedgerTime, Slot};

    use super::*;
    use crate::books::PaymentBook;

    fn intent(order: Option<ReservationId>, captured: u64, refunded: u64) -> Intent {
        let metadata = order.map(|order| ("holdfast_order".to_owned(), order.to_string())).into_iter().collect();
        Intent { id: "pi_1".to_owned(), captured, refunded, metadata }
    }

    fn order(n: u64) -> ReservationId {
        ReservationId::from_parts(Slot::new(1).expect("slot"), 1, n)
    }

    #[test]
    fn what_is_charged_twice_or_for_nothing_is_seen() {
        let (once, twice, back, stranger) = (order(1), order(2), order(3), order(4));
        let book = ProviderBook::new(vec![
            intent(Some(once), 500, 0),
            intent(Some(once), 0, 0),
            intent(Some(twice), 500, 0),
            intent(Some(twice), 500, 0),
            intent(Some(back), 500, 500),
            intent(Some(stranger), 500, 0),
            intent(None, 500, 0),
        ]);
        assert_eq!(book.kept_of(once), [500]);
        assert_eq!(book.kept_of(twice), [500, 500]);
        assert!(book.kept_of(back).is_empty());
        assert_eq!((book.kept_minor(), book.paid_orders()), (2_500, 3));
        let wrong = book.charged_for_nothing(|id| id != stranger);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("belongs to no order"), "{wrong:?}");
        assert!(wrong[1].contains(&stranger.to_string()), "{wrong:?}");
    }

    fn view(id: ReservationId, ending: Ending) -> OrderView {
        let deadline = LedgerTime(9);
        OrderView {
            id,
            brief: OrderBrief { phase: Phase::Done, ending, epoch: 2, deadline, replayed: false },
            step: None,
            attempts: 0,
            not_before: None,
            lease: None,
            placed_at: LedgerTime(1),
            amount: None,
            intent: None,
            generation: 1,
            secret: None,
            payments: Vec::new(),
            lines: Vec::new(),
            linked: None,
            parked: None,
            suspect: false,
        }
    }

    #[test]
    fn every_book_is_believed_only_as_far_as_the_others_agree() {
        let (paid, unpaid) = (order(1), order(2));
        let book = ProviderBook::new(vec![intent(Some(paid), 500, 0), intent(Some(unpaid), 500, 500)]);
        let (mut sold, mut given_up) = (OrderBook::default(), OrderBook::default());
        sold.payments.insert("pi_1".to_owned(), PaymentBook { amount: None, kept: true, refunded: false });
        (sold.confirmed, sold.notified, given_up.notified) = (true, true, true);
        let count = |view: &OrderView, confirmed, minor, history: Option<&OrderBook>| {
            book.disagreements(view, confirmed, minor, history).len()
        };
        assert_eq!(count(&view(paid, Ending::Sold), true, 500, Some(&sold)), 0);
        assert_eq!(count(&view(unpaid, Ending::Released), false, 500, Some(&given_up)), 0);
        // Another sum than was asked for; sold without a charge; charged without a sale; units that were not sold; no such history.
        assert_eq!(count(&view(paid, Ending::Sold), true, 499, Some(&sold)), 1);
        assert_eq!(count(&view(unpaid, Ending::Sold), true, 500, Some(&sold)), 1);
        assert_eq!(count(&view(paid, Ending::Released), false, 500, Some(&given_up)), 1);
        assert_eq!(count(&view(paid, Ending::Sold), false, 500, Some(&sold)), 1);
        assert_eq!(count(&view(paid, Ending::Sold), true, 500, Some(&given_up)), 1);
        assert_eq!(count(&view(paid, Ending::Sold), true, 500, None), 1);
        given_up.notified = false;
        assert_eq!(count(&view(unpaid, Ending::Released), false, 500, Some(&given_up)), 1);
    }
}
