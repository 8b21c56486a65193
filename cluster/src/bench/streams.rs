//! Shapes a1, b, c, orders-accepted and orders-placed: raw streams with explicit batches, no SDK in between.
//!
//! **What it is.** A stream is one task that keeps so many batches outstanding (closed loop), or sends what is due (open loop).
//! A *caller* of shape a1 is one outstanding batch of one. An order is a reserve and the place of its hold, next to each other in one batch
//! and so decided in that order (it counts when its place was answered Ok); or the one command that does both. Its token and its contact were sealed once,
//! before the run, under another id: nobody opens them here, and what sealing costs is not what is measured. **Owns** tags and outstanding batches. **Must never** hold back a
//! call that is due in the open loop without counting its wait. **Read next**: [`super::meter`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_sdk::order::{Money, OrderDetails};
use client_sdk::{Command, OpeningKey, ReservationId, Sku, Slot};
use ledger_proto::fast::ReceivedAnswer;
use ledger_proto::framed::ledger_client::LedgerClient;
use ledger_proto::{Calls, Reply};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::meter::Meter;
use super::{Load, Target, Targets, command, refused};
use crate::cli::Shape;
use crate::limits;
use crate::output::Outcome;

const WITHIN_MS: u32 = 30_000;
/// Tags are batch number times this plus the place in the batch.
const PLACES: u64 = 8_192;

struct Outstanding {
    began: Instant,
    left: usize,
}

/// Runs the shape's streams until the meter is over.
pub(crate) async fn drive(load: &Load, targets: &Targets, meter: &Arc<Meter>) -> Outcome {
    let (streams, batch, outstanding) = match load.shape {
        Shape::A1 => (16, 1, load.callers.unwrap_or(500)),
        Shape::B | Shape::OrdersAccepted | Shape::OrdersPlaced => {
            (load.callers.unwrap_or(16), 100, load.callers.unwrap_or(16) * load.in_flight)
        }
        _ => (load.callers.unwrap_or(1), 8_190, load.callers.unwrap_or(1) * load.in_flight),
    };
    let order = if load.shape.has_orders() { Some(sealed_order()?) } else { None };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..streams {
        let (address, products) = targets[n % targets.len()].clone();
        // The callers are spread as evenly as they go.
        let slots = (outstanding + streams - 1 - n) / streams;
        let rate = load.rate.map(|r| r as f64 / streams as f64);
        let stream = Stream {
            load: load.clone(),
            products,
            batch,
            per_operation: if load.shape == Shape::OrdersAccepted { 2 } else { 1 },
            order: order.clone(),
            slots,
            rate,
            meter: meter.clone(),
            random: SmallRng::seed_from_u64(n as u64),
        };
        tasks.spawn(async move { stream.run(&address).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(refused)??;
    }
    Ok(())
}

/// A connection with windows large enough for full frames.
pub(crate) async fn channel(address: &str) -> Outcome<Channel> {
    tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .map_err(refused)?
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .connect_timeout(limits::CONNECT_WITHIN)
        .connect()
        .await
        .map_err(|e| refused(format!("{address}: {e}")))
}

/// What every order of a run carries: a token and a contact of usual length.
fn sealed_order() -> Outcome<OrderDetails> {
    let (key, id) =
        (OpeningKey::generate(), ReservationId::from_parts(Slot::of(&Sku::new("sealed").map_err(refused)?), 1, 1));
    let (token, contact) = super::orders::wishes(id);
    let sealing = key.sealing_key();
    Ok(OrderDetails {
        amount: Money::new(super::orders::MINOR, super::orders::CURRENCY).map_err(refused)?,
        pay_within_ms: 600_000,
        payment: sealing.payment(id, &token).map_err(refused)?,
        contact: sealing.contact(id, &contact).map_err(refused)?,
        suspect: false,
    })
}

struct Stream {
    load: Load,
    products: Vec<Target>,
    /// Operations a batch.
    batch: usize,
    /// Commands an operation.
    per_operation: usize,
    order: Option<OrderDetails>,
    slots: usize,
    rate: Option<f64>,
    meter: Arc<Meter>,
    random: SmallRng,
}

impl Stream {
    async fn run(mut self, address: &str) -> Outcome {
        let mut client = LedgerClient::new(channel(address).await?)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let (send, calls) = mpsc::channel(limits::BENCH_WAITING_MAX);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(calls);
        let mut outstanding: HashMap<u64, Outstanding> = HashMap::new();
        let mut next = 0u64;
        if self.rate.is_none() {
            for _ in 0..self.slots {
                self.send(&send, &mut outstanding, &mut next, Instant::now())?;
            }
        }
        let mut answers = client
            .submit_stream(outgoing)
            .await
            .map_err(|s| refused(format!("{address}: {}", s.message())))?
            .into_inner();
        let mut received: Vec<ReceivedAnswer> = Vec::new();
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let over = tokio::time::sleep_until(self.meter.until().into());
        tokio::pin!(over);
        loop {
            tokio::select! {
                frame = answers.message() => {
                    let Some(frame) = frame.map_err(|s| refused(format!("{address}: {}", s.message())))? else {
                        return Err(refused(format!("{address} ended the stream")));
                    };
                    received.clear();
                    frame.decode_into(&mut received).map_err(refused)?;
                    let freed = self.take(&received, &mut outstanding);
                    if self.rate.is_none() {
                        for _ in 0..freed {
                            self.send(&send, &mut outstanding, &mut next, Instant::now())?;
                        }
                    }
                }
                _ = ticks.tick(), if self.rate.is_some() => {
                    let per_batch = self.batch as f64 / self.rate.unwrap_or(1.0);
                    while began.elapsed().as_secs_f64() >= next as f64 * per_batch && outstanding.len() < limits::BENCH_WAITING_MAX {
                        let due = began + Duration::from_secs_f64(next as f64 * per_batch);
                        self.send(&send, &mut outstanding, &mut next, due)?;
                    }
                }
                () = &mut over => return Ok(()),
            }
        }
    }

    fn send(
        &mut self,
        send: &mpsc::Sender<Calls>,
        outstanding: &mut HashMap<u64, Outstanding>,
        next: &mut u64,
        began: Instant,
    ) -> Outcome {
        let time_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        let mut commands = Vec::with_capacity(self.batch * self.per_operation);
        for _ in 0..self.batch {
            let target = &self.products[self.random.random_range(0..self.products.len())];
            let id = ReservationId::from_parts(target.slot, time_ms, self.random.random());
            let reserve = command(&self.load, target, id, self.random.random());
            match (&self.order, reserve) {
                (None, reserve) => commands.push(reserve),
                (Some(order), Command::Reserve { keys, lines, .. }) if self.per_operation == 1 => {
                    let details = Box::new(order.clone());
                    commands.push(Command::PlaceOrder { id, details, reserve: Some((keys, lines)) });
                }
                (Some(order), reserve) => {
                    commands.push(reserve);
                    commands.push(Command::PlaceOrder { id, details: Box::new(order.clone()), reserve: None });
                }
            }
        }
        let first = *next * PLACES;
        let tagged = commands.iter().enumerate().map(|(i, c)| (first + i as u64, c));
        let calls = Calls::of(WITHIN_MS, tagged).ok_or_else(|| refused("a batch does not encode"))?;
        outstanding.insert(*next, Outstanding { began, left: commands.len() });
        *next += 1;
        send.try_send(calls).map_err(|_| refused("the stream does not take calls fast enough"))
    }

    /// Counts answers; how many batches are complete.
    fn take(&self, received: &[ReceivedAnswer], outstanding: &mut HashMap<u64, Outstanding>) -> usize {
        let mut freed = 0;
        let mut i = 0;
        while i < received.len() {
            let number = received[i].tag / PLACES;
            let run = received[i..].iter().take_while(|a| a.tag / PLACES == number).count();
            let answers = &received[i..i + run];
            i += run;
            let Some(batch) = outstanding.get_mut(&number) else { continue };
            // The last command of an operation tells how it went.
            let last = |a: &&ReceivedAnswer| (a.tag % PLACES) as usize % self.per_operation == self.per_operation - 1;
            let done = answers.iter().filter(last).count();
            let ok = answers.iter().filter(last).filter(|a| matches!(a.reply, Reply::Ok(_))).count();
            let bad = answers.iter().find(|a| !matches!(a.reply, Reply::Ok(_)));
            self.meter.record(batch.began, ok as u64, (done - ok) as u64, || format!("{:?}", bad.map(|a| &a.reply)));
            batch.left -= run.min(batch.left);
            if batch.left == 0 {
                outstanding.remove(&number);
                freed += 1;
            }
        }
        freed
    }
}
