//! Passing calls on to a shard's leader, once.
//!
//! **What it is.** Two kept connections to each node's client port, opened when first needed, through the network seam: one for calls and
//! one for watches, so that a watch that nobody reads holds back no answer.
//!
//! **Owns** those connections and the mark on forwarded calls. **Must never** forward what carries the mark, or call it *no* when
//! a connection broke after something was sent.
//! **Read next**: [`super::submit`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ledger_core::LedgerTime;
use ledger_proto::limits::{
    ANSWER_BYTES_MAX, CALLS_PER_FRAME_MAX, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use ledger_proto::v1::ledger_client::LedgerClient;
use ledger_proto::{At, Cause, Invalid, NotNow, Reply, answers, calls, names, status, v1};
use ledger_raft::seam::Net;
use prost::Message as _;
use prost::encoding::encoded_len_varint;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::{Channel, Endpoint};

use super::submit::{Group, Item, not_reached};
use crate::door::PendingCall;
use crate::limits::{
    FORWARD_CONNECT_WITHIN, FORWARD_GRACE, FORWARD_NODES_MAX, FORWARDED_BYTES_MAX, FORWARDED_CALL_BYTES,
    FORWARDED_LISTS_MAX, RETRY_OVERLOADED_MS, SHARDS_MAX, WATCH_CONNECTION_WINDOW, WATCH_STREAM_WINDOW,
};

/// Marks a call that another node passed on.
pub const FORWARDED: &str = "holdfast-forwarded";

/// Names the shards that another node wants of a list or a watch: what it lacks itself. Such a request is never passed on.
pub const SHARDS: &str = "holdfast-shards";

/// Marks a request as of these shards only.
pub fn mark_shards<T>(request: &mut tonic::Request<T>, shards: &[u32]) {
    let text = shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if let Ok(value) = text.parse() {
        request.metadata_mut().insert(SHARDS, value);
    }
}

/// The shards that a request is marked with.
///
/// # Errors
/// The mark is not a list of shards, or names one twice: each would be read as often.
pub fn marked_shards<T>(request: &tonic::Request<T>) -> Result<Option<Vec<u32>>, Invalid> {
    let Some(mark) = request.metadata().get(SHARDS) else { return Ok(None) };
    let invalid = |why: String| Invalid::new(SHARDS, why);
    let shards = mark.to_str().ok().and_then(|text| text.split(',').map(|one| one.parse().ok()).collect());
    let shards: Option<Vec<u32>> = shards.filter(|shards: &Vec<u32>| shards.len() <= SHARDS_MAX as usize);
    let shards = shards.ok_or_else(|| invalid("is no list of shards".to_owned()))?;
    let mut named = BTreeSet::new();
    match shards.iter().find(|shard| !named.insert(**shard)) {
        Some(twice) => Err(invalid(format!("names shard {twice} twice"))),
        None => Ok(Some(shards)),
    }
}

/// Kept connections to other nodes.
#[derive(Clone)]
pub struct Forwarder {
    net: Arc<dyn Net>,
    others: Arc<Mutex<BTreeMap<Arc<str>, Other>>>,
}

/// Another node.
#[derive(Clone)]
struct Other {
    calls: Channel,
    watches: Channel,
    /// A permit for each KiB of calls on their way there.
    room: Arc<Semaphore>,
    /// A permit for each list on its way there.
    lists: Arc<Semaphore>,
}

impl Forwarder {
    /// Over a network.
    pub fn new(net: Arc<dyn Net>) -> Self {
        Self { net, others: Arc::default() }
    }

    /// What is kept of the node at an address; none when the address is none.
    fn other(&self, addr: &Arc<str>) -> Option<Other> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = others.get(addr) {
            return Some(other.clone());
        }
        if others.len() >= FORWARD_NODES_MAX {
            others.clear();
        }
        let other = Other {
            calls: self.channel_with(addr, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)?,
            watches: self.channel_with(addr, WATCH_STREAM_WINDOW, WATCH_CONNECTION_WINDOW)?,
            room: Arc::new(Semaphore::new(FORWARDED_BYTES_MAX >> 10)),
            lists: Arc::new(Semaphore::new(FORWARDED_LISTS_MAX)),
        };
        others.insert(addr.clone(), other.clone());
        Some(other)
    }

    /// A connection that is opened by its first use, and anew after it broke.
    fn channel_with(&self, addr: &Arc<str>, stream_window: u32, connection_window: u32) -> Option<Channel> {
        let (net, target) = (self.net.clone(), addr.clone());
        let connect = tower::service_fn(move |_: http::Uri| {
            let (net, target) = (net.clone(), target.clone());
            async move { net.connect(&target).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).ok()?;
        let channel = endpoint
            .connect_timeout(FORWARD_CONNECT_WITHIN)
            .tcp_nodelay(true)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(connect);
        Some(channel)
    }

    /// The connection to a node's client port, for calls.
    pub fn channel(&self, addr: &Arc<str>) -> Option<Channel> {
        Some(self.other(addr)?.calls)
    }

    /// A client of a node's Ledger service, for calls; none when the address is none.
    pub fn ledger(&self, addr: &Arc<str>) -> Option<LedgerClient<Channel>> {
        Some(client(self.other(addr)?.calls))
    }

    /// A client of a node's Ledger service, for watches.
    pub fn watches(&self, addr: &Arc<str>) -> Option<LedgerClient<Channel>> {
        Some(client(self.other(addr)?.watches))
    }

    /// Passes calls on, in their order; every call gets an answer.
    pub async fn submit(&self, leader: Arc<str>, pending: Vec<PendingCall>) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut left = &pending[..];
        while !left.is_empty() {
            let (frame, taken) = frame_of(left, Instant::now());
            let (calls, rest) = left.split_at(taken);
            left = rest;
            groups.extend(self.submit_frame(&leader, calls, frame).await);
        }
        groups
    }

    /// Awaits a call of so many bytes to the node at an address; none when it took longer than `within`. The call goes on when
    /// its caller goes away: all callers share one connection to the node, and one who cancels many
    /// calls must not have it closed for resetting streams.
    pub async fn detached<T: Send + 'static>(
        &self,
        addr: &Arc<str>,
        bytes: usize,
        within: Duration,
        call: impl Future<Output = Result<T, tonic::Status>> + Send + 'static,
    ) -> Option<Result<T, tonic::Status>> {
        let kib = u32::try_from(bytes.max(FORWARDED_CALL_BYTES).div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let permit = self.other(addr).and_then(|other| other.room.try_acquire_many_owned(kib).ok());
        let Some(permit) = permit else {
            let why = format!("too many calls are on their way to the node at {addr}");
            return Some(Err(status::not_now(NotNow::new(Cause::Overloaded, why, RETRY_OVERLOADED_MS))));
        };
        let call = tokio::spawn(async move {
            let answer = timeout(within, call).await.ok();
            drop(permit);
            answer
        });
        call.await.ok().flatten()
    }

    /// [`Self::detached`] of a list, which may have a long answer: few are under way at once, and others
    /// wait, so that their answers leave room for those of calls. None when it took longer than `within`.
    pub async fn detached_list<T: Send + 'static>(
        &self,
        addr: &Arc<str>,
        within: Duration,
        call: impl Future<Output = Result<T, tonic::Status>> + Send + 'static,
    ) -> Option<Result<T, tonic::Status>> {
        let until = Instant::now() + within;
        let permit = timeout_at(until, self.other(addr)?.lists.acquire_owned()).await.ok()?.ok()?;
        let left = until.saturating_duration_since(Instant::now());
        let call = async move {
            let answer = call.await;
            drop(permit);
            answer
        };
        self.detached(addr, FORWARDED_CALL_BYTES, left, call).await
    }

    async fn submit_frame(&self, leader: &Arc<str>, pending: &[PendingCall], frame: v1::CallFrame) -> Vec<Group> {
        let now = Instant::now();
        let latest = pending.iter().map(|call| call.expires_at).max().unwrap_or(now);
        let mut request = tonic::Request::new(frame);
        request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        let Some(mut client) = self.ledger(leader) else {
            return vec![not_reached(pending, leader, "it is no address")];
        };
        let within = latest.saturating_duration_since(now) + FORWARD_GRACE;
        let bytes = request.get_ref().encoded_len();
        match self.detached(leader, bytes, within, async move { client.submit_batch(request).await }).await {
            Some(Ok(answered)) => complete(pending, groups_of(answered.into_inner())),
            Some(Err(status)) => vec![broken(pending, leader, &status)],
            None => vec![unknown(pending, "the leader did not answer in time")],
        }
    }
}

fn client(channel: Channel) -> LedgerClient<Channel> {
    LedgerClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)
}

/// The next frame of calls to pass on, and how many it carries: at least one. Each call has its
/// time left written out, so that what came in one frame may need two.
fn frame_of(pending: &[PendingCall], now: Instant) -> (v1::CallFrame, usize) {
    let mut frame = v1::CallFrame::default();
    let mut bytes = 0;
    for call in pending.iter().take(CALLS_PER_FRAME_MAX) {
        let left = call.expires_at.saturating_duration_since(now).as_millis();
        let within_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let call = v1::Call { tag: call.tag, within_ms, verb: calls::verb(&call.command) };
        let length = call.encoded_len();
        bytes += 1 + encoded_len_varint(length as u64) + length;
        if bytes > FRAME_BYTES_MAX && !frame.calls.is_empty() {
            break;
        }
        frame.calls.push(call);
    }
    let taken = frame.calls.len();
    (frame, taken)
}

/// A status instead of answers: definite only when the node said so, or nothing was sent.
fn broken(pending: &[PendingCall], leader: &str, status: &tonic::Status) -> Group {
    if let Some(reply) = ledger_proto::status::reply(status) {
        let item = |call: &PendingCall| Item { tag: call.tag, place: 0, reply: reply.clone() };
        return Group { at: None, items: pending.iter().map(item).collect() };
    }
    if never_sent(status) {
        return not_reached(pending, leader, "no connection");
    }
    // The node could not read the frame, which it does before anything else.
    if status.code() == tonic::Code::InvalidArgument {
        return not_reached(pending, leader, status.message());
    }
    unknown(pending, "the connection to the leader broke before it answered")
}

/// Whether the error is one of connecting, so that no byte of the call went out.
fn never_sent(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<tonic::ConnectError>() {
            tracing::debug!(%error, "the leader cannot be connected to");
            return true;
        }
        cause = error.source();
    }
    false
}

fn unknown(pending: &[PendingCall], why: &str) -> Group {
    let item = |call: &PendingCall| Item { tag: call.tag, place: 0, reply: Reply::Unknown(why.to_owned()) };
    Group { at: None, items: pending.iter().map(item).collect() }
}

/// The answers of a frame.
pub fn groups_of(frame: v1::AnswerFrame) -> Vec<Group> {
    let group = |entry: v1::EntryAnswers| {
        let at = entry.position.map(|at| At { position: names::position(at), time: LedgerTime(entry.time_ms) });
        let item = |answer: v1::Answer| Item {
            tag: answer.tag,
            place: answer.place as u16,
            reply: answers::from_wire(answer.outcome),
        };
        Group { at, items: entry.answers.into_iter().map(item).collect() }
    };
    frame.entries.into_iter().map(group).collect()
}

/// Calls that the leader left out are *unknown*.
fn complete(pending: &[PendingCall], mut groups: Vec<Group>) -> Vec<Group> {
    let mut answered: Vec<u64> = groups.iter().flat_map(|group| group.items.iter().map(|item| item.tag)).collect();
    if answered.len() < pending.len() {
        answered.sort_unstable();
        let left_out = pending.iter().filter(|call| answered.binary_search(&call.tag).is_err());
        let item = |call: &PendingCall| {
            let reply = Reply::Unknown("the leader left the call out of its answer".to_owned());
            Item { tag: call.tag, place: 0, reply }
        };
        groups.push(Group { at: None, items: left_out.map(item).collect() });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoNet;
    #[async_trait::async_trait]
    impl Net for NoNet {
        async fn listen(&self, _: &str) -> std::io::Result<Box<dyn ledger_raft::seam::NetListener>> {
            Err(std::io::Error::other("no network"))
        }
        async fn connect(&self, _: &str) -> std::io::Result<ledger_raft::seam::BoxIo> {
            Err(std::io::Error::other("no network"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn call_passed_on_goes_on_without_its_caller_and_too_many_are_turned_away() {
        let forward = Forwarder::new(Arc::new(NoNet));
        let day = Duration::from_secs(86_400);
        let (one, two): (Arc<str>, Arc<str>) = ("node-1:1".into(), "node-2:1".into());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (sent, mut arrived) = tokio::sync::mpsc::channel(1);
        let mut caller = Box::pin(forward.detached(&one, FORWARDED_CALL_BYTES, day, async move {
            sent.send(answered.await.unwrap_or(0)).await.map_err(|_| tonic::Status::cancelled("nobody waits"))
        }));
        assert!(timeout(Duration::from_millis(1), caller.as_mut()).await.is_err(), "the other node is slow");
        drop(caller);
        answer.send(7).expect("the call goes on");
        assert_eq!(arrived.recv().await, Some(7));
        tokio::task::yield_now().await;

        let waits =
            || forward.detached(&one, FORWARDED_CALL_BYTES, day, std::future::pending::<Result<(), tonic::Status>>());
        let mut callers: Vec<_> = (0..FORWARDED_BYTES_MAX / FORWARDED_CALL_BYTES).map(|_| Box::pin(waits())).collect();
        for caller in &mut callers {
            assert!(futures::poll!(caller.as_mut()).is_pending());
        }
        let turned_away = waits().await.expect("at once").expect_err("no room");
        assert!(matches!(status::reply(&turned_away), Some(Reply::NotNow(why)) if why.cause == Cause::Overloaded));
        let large = 1 << 20;
        let mut to_two = Vec::new();
        for _ in 0..FORWARDED_BYTES_MAX / large {
            let waits = forward.detached(&two, large, day, std::future::pending::<Result<(), tonic::Status>>());
            to_two.push(Box::pin(waits));
            let call = to_two.last_mut().expect("just made");
            assert!(futures::poll!(call.as_mut()).is_pending(), "another node has room of its own");
        }
        let more = forward.detached(&two, 1, day, std::future::pending::<Result<(), tonic::Status>>());
        assert!(more.await.is_some(), "bytes count as well");
        drop(callers);
        assert!(waits().await.is_some(), "the calls go on, and so they count");
    }

    #[tokio::test(start_paused = true)]
    async fn few_lists_are_passed_on_at_once_and_others_wait() {
        let forward = Forwarder::new(Arc::new(NoNet));
        let one: Arc<str> = "node-1:1".into();
        let long = Duration::from_secs(86_400);
        let lists = |within| {
            let (forward, one) = (forward.clone(), one.clone());
            async move { forward.detached_list(&one, within, std::future::pending::<Result<(), tonic::Status>>()).await }
        };
        let waiting: Vec<_> = (0..FORWARDED_LISTS_MAX).map(|_| tokio::spawn(lists(2 * long))).collect();
        tokio::task::yield_now().await;
        assert!(lists(long).await.is_none(), "no list before it has ended");
        let call = forward.detached(&one, 1, long, async { Ok(7) });
        assert!(matches!(call.await, Some(Ok(7))), "calls have room all the same");
        for list in waiting {
            assert!(list.await.expect("it ends").is_none(), "no answer came");
        }
        let list = forward.detached_list(&one, long, async { Ok(7) });
        assert!(matches!(list.await, Some(Ok(7))), "they gave their places back");
    }

    #[test]
    fn a_frame_that_the_leader_could_not_read_changed_nothing() {
        let id = ledger_core::ReservationId::from_parts(ledger_core::Slot::new(1).expect("a slot"), 1_000, 1);
        let command = ledger_core::Command::Release { id };
        let pending = [PendingCall { command, expires_at: Instant::now(), tag: 7 }];
        let reply_to = |status: tonic::Status| broken(&pending, "node:1", &status).items.remove(0).reply;
        let malformed = reply_to(ledger_proto::status::malformed("a frame of 9 bytes, at most 8 are allowed"));
        assert!(matches!(malformed, Reply::NotNow(_)), "{malformed:?}");
        let broken = reply_to(tonic::Status::unavailable("the connection broke"));
        assert!(matches!(broken, Reply::Unknown(_)), "{broken:?}");
    }
}
