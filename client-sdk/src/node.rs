//! One node as the client knows it: its connection, its lanes, and the reads that share calls.
//!
//! **Owns** the tasks that keep the lanes connected. **Must never** outlive its client: the tasks end when the node is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ledger_core::OfferKey;
use ledger_proto::framed::ledger_client::LedgerClient;
use ledger_proto::limits as wire;
use ledger_proto::v1::orders_client::OrdersClient;
use ledger_proto::{names, v1};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::backoff::DialGate;
use crate::builder::ConnectError;
use crate::chance::Chance;
use crate::dial::{Dial, Windows};
use crate::lane::{self, Lane};
use crate::limits;
use crate::routes::Heard;

/// One node.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) rpc: LedgerClient<Channel>,
    pub(crate) orders: OrdersClient<Channel>,
    pub(crate) watches: Watches,
    lanes: Vec<Arc<Lane>>,
    turn: AtomicUsize,
    /// When it may be dialled.
    pub(crate) gate: Arc<DialGate>,
    tasks: Vec<AbortHandle>,
    /// Linearizable reads.
    reads: Arc<Reads>,
    /// Stale ones: they wait for no quorum, so they do not wait behind those that do.
    stale: Arc<Reads>,
}

/// The connection of a node's watches. It is not the one of calls: what a watch has received and its
/// consumer has not taken must not hold back answers.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) rpc: LedgerClient<Channel>,
    /// When it may be dialled.
    pub(crate) gate: Arc<DialGate>,
}

impl Watches {
    fn new(address: &str, dial: &Dial, chance: &Arc<Chance>) -> Result<Self, ConnectError> {
        let gate = DialGate::new(chance);
        let channel = dial.channel(address, &gate, Windows::WATCHES)?;
        Ok(Self { rpc: LedgerClient::new(channel).max_decoding_message_size(wire::ANSWER_BYTES_MAX), gate })
    }
}

impl Node {
    pub(crate) fn new(
        address: &str,
        dial: &Dial,
        streams: usize,
        heard: &Arc<Heard>,
        chance: &Arc<Chance>,
    ) -> Result<Arc<Self>, ConnectError> {
        let gate = DialGate::new(chance);
        let channel = dial.channel(address, &gate, Windows::CALLS)?;
        let watches = Watches::new(address, dial, chance)?;
        let rpc = LedgerClient::new(channel.clone()).max_decoding_message_size(wire::ANSWER_BYTES_MAX);
        let orders = OrdersClient::new(channel).max_decoding_message_size(wire::ANSWER_BYTES_MAX);
        let mut lanes = Vec::with_capacity(streams);
        let mut tasks = Vec::with_capacity(2 * streams);
        for _ in 0..streams {
            let lane = Lane::new();
            let keep = keep_connected(lane.clone(), rpc.clone(), gate.clone(), heard.clone(), chance.clone());
            tasks.push(tokio::spawn(keep).abort_handle());
            let swept = lane.clone();
            tasks.push(tokio::spawn(async move { swept.sweep().await }).abort_handle());
            lanes.push(lane);
        }
        let reads = Reads::new(&rpc, v1::Consistency::Linearizable);
        let stale = Reads::new(&rpc, v1::Consistency::Stale);
        let turn = AtomicUsize::new(0);
        Ok(Arc::new(Self { address: address.to_owned(), rpc, orders, watches, lanes, turn, gate, tasks, reads, stale }))
    }

    /// The lane whose turn it is.
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        match self.lanes.as_slice() {
            [only] => only,
            lanes => &lanes[self.turn.fetch_add(1, Ordering::Relaxed) % lanes.len()],
        }
    }
    /// Whether it could not be reached at the last try.
    pub(crate) fn is_down(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_down())
    }
    pub(crate) async fn idle(&self) {
        for lane in &self.lanes {
            lane.idle().await;
        }
    }
    pub(crate) fn shut(&self) {
        for lane in &self.lanes {
            lane.shut();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
    /// Reads an offer, as of now or stale, together with whatever others want to read so.
    pub(crate) async fn read_offer(
        &self,
        offer: OfferKey,
        stale: bool,
    ) -> Result<v1::get_offers_response::One, Status> {
        let reads = if stale { &self.stale } else { &self.reads };
        reads.read(offer).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Opens the lane's stream, reads its answers, and opens it again when it breaks.
async fn keep_connected(
    lane: Arc<Lane>,
    mut rpc: LedgerClient<Channel>,
    gate: Arc<DialGate>,
    heard: Arc<Heard>,
    chance: Arc<Chance>,
) {
    let mut failures: u32 = 0;
    loop {
        let opening = tokio::time::timeout(2 * limits::CONNECT_TIMEOUT, rpc.submit_stream(lane.outgoing()));
        match opening.await {
            Ok(Ok(answers)) => {
                gate.answered();
                let opened = Instant::now();
                let ended = lane::receive(&lane, answers.into_inner(), |answers| heard.answers(answers)).await;
                tracing::debug!(?ended, "a stream to a node ended");
                if opened.elapsed() > limits::RECONNECT_MAX {
                    failures = 0;
                }
                lane.broken(false);
                heard.lost_node();
            }
            Ok(Err(status)) => {
                gate.ended_with(&status);
                tracing::debug!(%status, "no stream to a node");
                lane.broken(true);
            }
            Err(_) => lane.broken(true),
        }
        if failures == 0 {
            heard.lost_node();
        }
        gate.pause(chance.pause(limits::BACKOFF_MIN, limits::RECONNECT_MAX, failures)).await;
        failures = failures.saturating_add(1);
    }
}

type Answer = oneshot::Sender<Result<v1::get_offers_response::One, Status>>;

/// Reads that wait for the next shared call.
struct Reads {
    rpc: LedgerClient<Channel>,
    consistency: v1::Consistency,
    queue: Mutex<Vec<(OfferKey, Answer)>>,
    flying: AtomicUsize,
}

impl Reads {
    fn new(rpc: &LedgerClient<Channel>, consistency: v1::Consistency) -> Arc<Self> {
        Arc::new(Self { rpc: rpc.clone(), consistency, queue: Mutex::default(), flying: AtomicUsize::new(0) })
    }
    async fn read(self: &Arc<Self>, offer: OfferKey) -> Result<v1::get_offers_response::One, Status> {
        let (answer, answered) = oneshot::channel();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push((offer, answer));
        if self.flying.fetch_add(1, Ordering::AcqRel) < limits::READS_IN_FLIGHT {
            tokio::spawn(fly(self.clone()));
        } else {
            self.flying.fetch_sub(1, Ordering::AcqRel);
        }
        answered.await.unwrap_or_else(|_| Err(Status::unavailable("the client was closed")))
    }
    fn take(&self) -> Vec<(OfferKey, Answer)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.len().min(limits::READS_PER_CALL);
        queue.drain(..first).collect()
    }
}

async fn fly(reads: Arc<Reads>) {
    tokio::task::yield_now().await;
    loop {
        let asked = reads.take();
        if asked.is_empty() {
            reads.flying.fetch_sub(1, Ordering::AcqRel);
            // One that came between the look and the step down must not be left behind.
            if reads.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
            if reads.flying.fetch_add(1, Ordering::AcqRel) >= limits::READS_IN_FLIGHT {
                reads.flying.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            continue;
        }
        let offers = asked.iter().map(|(offer, _)| names::offer_to_wire(offer)).collect();
        let request = v1::GetOffersRequest { offers, consistency: reads.consistency.into() };
        let answer = tokio::time::timeout(limits::PATIENCE, reads.rpc.clone().get_offers(request)).await;
        let offers = match answer {
            Ok(Ok(response)) => Ok(response.into_inner().offers),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::unavailable("the node did not answer in time")),
        };
        match offers {
            Ok(offers) if offers.len() == asked.len() => {
                for ((_, answer), offer) in asked.into_iter().zip(offers) {
                    let _ = answer.send(Ok(offer));
                }
            }
            Ok(_) => tell(asked, &Status::internal("the node answered for another number of offers")),
            Err(status) => tell(asked, &status),
        }
    }
}

fn tell(asked: Vec<(OfferKey, Answer)>, status: &Status) {
    for (_, answer) in asked {
        let _ = answer.send(Err(status.clone()));
    }
}
