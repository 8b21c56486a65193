//! One lane: letters one after the other over one connection.
//!
//! **Owns** the connection, the retries and their pauses. A letter that is to wait leaves the lane and comes back, so that it holds
//! up nobody. **Must never** wait for a receiver without a bound. **Read next**: [`super::signature`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Item, Webhooks, signature};
use crate::book::records::DeliveryEnd;
use crate::limits::{WEBHOOK_RETRY_MAX, WEBHOOK_WITHIN};
use crate::sim::Sim;

type Sender = SendRequest<Full<Bytes>>;

/// Delivers until the simulator stops.
pub(super) async fn run(sim: Arc<Sim>, webhooks: Arc<Webhooks>, mut letters: mpsc::UnboundedReceiver<Item>) {
    let mut connection = None;
    loop {
        let item = tokio::select! {
            () = sim.stop.cancelled() => return,
            item = letters.recv() => item,
        };
        let Some(item) = item else { return };
        if item.after > Duration::ZERO {
            later(&sim, &webhooks, item);
            continue;
        }
        // What is not on disk is not told; a broken book tells nothing any more.
        if item.ticket.clone().on_disk().await.is_err() {
            return;
        }
        let delivered = tokio::select! {
            () = sim.stop.cancelled() => return,
            status = deliver(&sim, &webhooks, &mut connection, &item) => status,
        };
        note(&sim, &webhooks, item, delivered);
    }
}

/// Puts a letter back into its lane after its pause.
fn later(sim: &Arc<Sim>, webhooks: &Arc<Webhooks>, item: Item) {
    let (stop, webhooks) = (sim.stop.clone(), webhooks.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(item.after) => webhooks.send(Item { after: Duration::ZERO, ..item }),
        }
    });
}

/// Notes how it went, and sees to what follows.
fn note(sim: &Arc<Sim>, webhooks: &Arc<Webhooks>, item: Item, status: Option<u16>) {
    if item.copy {
        webhooks.done();
        return;
    }
    let end = match status {
        Some(200..=299) => DeliveryEnd::Arrived,
        _ if item.attempt < webhooks.to.attempts => DeliveryEnd::Again,
        _ => DeliveryEnd::GivenUp,
    };
    let noted = sim.delivered(&mut sim.shelf.lock(), item.event, item.attempt, status, end);
    if noted.is_err() || end != DeliveryEnd::Again {
        webhooks.done();
        return;
    }
    let doubled = webhooks.to.retry.saturating_mul(2_u32.saturating_pow(item.attempt - 1));
    let after = doubled.clamp(Duration::from_millis(1), WEBHOOK_RETRY_MAX);
    later(sim, webhooks, Item { attempt: item.attempt + 1, after, ..item });
}

/// The receiver's status, or none when there was no answer in time.
async fn deliver(sim: &Sim, webhooks: &Webhooks, connection: &mut Option<Sender>, item: &Item) -> Option<u16> {
    let sent = tokio::time::timeout(WEBHOOK_WITHIN, async {
        if let Some(open) = connection.take() {
            // A receiver may close an idle connection at any time; that is no failed attempt.
            let sent = send(open, request(sim, webhooks, item)?).await;
            if sent.is_some() {
                return sent;
            }
        }
        send(connect(&webhooks.authority).await?, request(sim, webhooks, item)?).await
    });
    let (status, open) = sent.await.ok().flatten()?;
    *connection = Some(open);
    Some(status)
}

/// The status, and the connection for the next letter.
async fn send(mut open: Sender, request: Request<Full<Bytes>>) -> Option<(u16, Sender)> {
    open.ready().await.ok()?;
    let answer = open.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    // The body says nothing, but the connection is free again only behind it.
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame.ok()?;
    }
    Some((status, open))
}

fn request(sim: &Sim, webhooks: &Webhooks, item: &Item) -> Option<Request<Full<Bytes>>> {
    let seconds = sim.clock.now_ms().div_euclid(1_000);
    Request::post(&webhooks.path)
        .header(header::HOST, &webhooks.authority)
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header(header::USER_AGENT, "payment-sim/1 (+webhooks)")
        .header("stripe-signature", signature::header(&webhooks.to.secret, seconds, &item.payload))
        .body(Full::new(item.payload.clone()))
        .ok()
}

async fn connect(authority: &str) -> Option<Sender> {
    let stream = TcpStream::connect(authority).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (send, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with its sender; how it ended, the sender was told.
    tokio::spawn(async move { drop(connection.await) });
    Some(send)
}
