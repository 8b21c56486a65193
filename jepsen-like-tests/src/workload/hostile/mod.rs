//! Hostile clients: raw bytes at and beyond every limit of the API, and legal sequences that push counters to their bounds.
//!
//! **What it is.** [`methods`] finds every method in the `.proto` files, [`values`] makes its messages by reflection, [`mangle`] damages some, [`call`] and
//! [`web`] send them below every client library, [`judge`] looks at what comes back. [`sequences`] does what is allowed, but by nobody expected.
//! What the nodes answer teaches ids, epochs, cursors and times for the next calls.
//!
//! **Owns** the clients and their counts. **Must never** touch another client's product or id, nor ask through the SDK or the conversions of
//! `ledger-proto`, whose checks would spare the node. **Read next**: [`values`], [`sequences`], [`crate::checkers::hostile`].

mod after_faults;
mod call;
mod judge;
mod mangle;
mod methods;
mod peers;
mod sequences;
mod values;
mod web;

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger_proto::v1;
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::transport::Channel;

use super::journal::Journalled;
use super::{PAUSE, goes_on};
use crate::history::Hostile;
pub(crate) use after_faults::after_faults;
use call::Fate;
use judge::{Judged, Sent};
use methods::Admin;
use values::{Maker, SALE, SKUS, Seen};

/// Requests of one turn: a turn takes about as long as another client's.
const CALLS_PER_TURN: u32 = 6;
/// Calls of one frame, most of the time.
const CALLS_PER_FRAME: usize = 5;
/// What each product gets at first.
const UNITS: i64 = 100_000;

/// One hostile client.
struct Attacker<'a> {
    asking: Journalled<'a>,
    seen: Seen,
    channels: BTreeMap<u64, Channel>,
    /// HTTP addresses by node, once some node told them.
    http: BTreeMap<u64, String>,
    /// Tags of calls count on, so that no two calls of a frame have the same.
    tag: u64,
}

/// A hostile client's life: it sets its products up, then takes turns until its load is over and something was answered.
pub(super) async fn attack(asking: Journalled<'_>) {
    let seen = Seen::at(asking.client.ledger_time().0);
    let mut attacker = Attacker { asking, seen, channels: BTreeMap::new(), http: BTreeMap::new(), tag: 0 };
    attacker.with(|_| {});
    attacker.set_up().await;
    let load = attacker.asking.load;
    for _ in (0..).take_while(|&done| goes_on(load, done)) {
        attacker.turn().await;
        attacker.asking.pause(load.pause_ms_max).await;
    }
    while attacker.with(|sums| sums.executed == 0 || sums.refused == 0) && super::now_ms() < super::LASTS_MS_MAX {
        attacker.set_up().await;
        attacker.submit(vec![sequences::receive("nobody-created-this", 1, "refused".to_owned())]).await;
        tokio::time::sleep(PAUSE).await;
    }
}

impl Attacker<'_> {
    fn with<T>(&self, change: impl FnOnce(&mut Hostile) -> T) -> T {
        let mut run = self.asking.journal().lock().expect("never poisoned");
        change(run.hostile.get_or_insert_default())
    }

    fn maker(&mut self) -> Maker<'_> {
        Maker { rng: &mut self.asking.rng, seen: &mut self.seen }
    }

    fn node(&mut self) -> u64 {
        let n = self.asking.rng.random_range(0..1_000);
        self.asking.site.node(n)
    }

    async fn turn(&mut self) {
        match self.asking.rng.random_range(0..20) {
            0..4 => sequences::one(self).await,
            4..8 => self.web_request().await,
            8 => self.probe().await,
            _ => {
                for _ in 0..CALLS_PER_TURN {
                    self.some_method().await;
                }
            }
        }
    }

    /// Any method with any message, damaged now and then.
    async fn some_method(&mut self) {
        let all = methods::all();
        let method = match self.asking.rng.random_range(0..10) {
            // Most of what there is lies behind these.
            0..4 => methods::method(["Submit", "SubmitBatch", "SubmitStream"][self.asking.rng.random_range(0..3)]),
            _ => all[self.asking.rng.random_range(0..all.len())].clone(),
        };
        let Some(admin) = methods::admin(&method) else { return };
        if self.asking.rng.random_bool(0.04) {
            self.odd_body(&method).await;
            return;
        }
        let of_frames = method.is_client_streaming();
        let count = if of_frames { self.asking.rng.random_range(0..4) } else { 1 };
        let (mut messages, mut tags, mut whole) = (Vec::new(), Vec::new(), true);
        for _ in 0..count {
            let mut made = self.made(&method);
            match admin {
                Admin::Freely => {}
                Admin::Guarded => made.set_field_by_name("expected_generation", Value::U64(u64::MAX)),
                Admin::OfNobody => {
                    let mut nobody = DynamicMessage::new(methods::message("Member"));
                    nobody.set_field_by_name("node", Value::U64(u64::MAX));
                    made.set_field_by_name("members", Value::List(vec![Value::Message(nobody)]));
                }
            }
            tags.extend(tags_of(&made));
            let bytes = made.encode_to_vec();
            if admin == Admin::Freely && self.asking.rng.random_bool(0.2) {
                let other = self.made(&method).encode_to_vec();
                let (bytes, still) = mangle::mangled(&mut self.asking.rng, bytes, &other);
                whole &= still;
                // Two messages in one: whose tags they have nobody knows.
                tags.clear();
                tags.push(u64::MAX);
                messages.push(bytes);
            } else {
                messages.push(bytes);
            }
        }
        if tags.contains(&u64::MAX) {
            tags.clear();
        }
        let node = self.node();
        self.send(node, &method, &messages, &tags, whole).await;
    }

    /// A message for a method; its calls have tags of their own, and there are a few of them.
    fn made(&mut self, method: &MethodDescriptor) -> DynamicMessage {
        let mut made = self.maker().message(&method.input(), 0);
        if method.input().name() == "Call" {
            self.number(&mut made);
        }
        if method.input().name() == "CallFrame" {
            let few = self.asking.rng.random_range(1..=CALLS_PER_FRAME);
            let calls: Vec<Value> = (0..few)
                .map(|_| {
                    let mut call = self.maker().message(&methods::message("Call"), 1);
                    self.number(&mut call);
                    Value::Message(call)
                })
                .collect();
            made.set_field_by_name("calls", Value::List(calls));
        }
        made
    }

    fn number(&mut self, call: &mut DynamicMessage) {
        self.tag += 1;
        call.set_field_by_name("tag", Value::U64(self.tag));
    }

    /// A body that is no sequence of messages: a length beyond its end, a flag that nobody set, nothing at all.
    async fn odd_body(&mut self, method: &MethodDescriptor) {
        let body: &[u8] = match self.asking.rng.random_range(0..5) {
            0 => &[],
            1 => &[0, 0xff, 0xff, 0xff, 0xff, 1],
            2 => &[1, 0, 0, 0, 0],
            3 => &[7, 0, 0, 0, 1, 1],
            _ => &[0, 0, 0, 0],
        };
        let node = self.node();
        self.send_body(node, method, Bytes::from_static(body), &[], false).await;
    }

    /// Sends messages to a method of a node and looks at the answer; the messages of the answer, if it is as it must be.
    async fn send(
        &mut self,
        node: u64,
        method: &MethodDescriptor,
        messages: &[Vec<u8>],
        tags: &[u64],
        whole: bool,
    ) -> Vec<DynamicMessage> {
        self.send_body(node, method, call::framed(messages), tags, whole).await.messages
    }

    async fn send_body(
        &mut self,
        node: u64,
        method: &MethodDescriptor,
        body: Bytes,
        tags: &[u64],
        whole: bool,
    ) -> Judged {
        self.with(|sums| sums.asked += 1);
        let fate = match self.channel(node).await {
            Ok(mut channel) => {
                let streaming = method.is_server_streaming() && !method.is_client_streaming();
                call::call(&mut channel, &methods::path(method), body, streaming).await
            }
            Err(why) => Fate::Unreached(why),
        };
        match fate {
            Fate::Unreached(why) => {
                tracing::debug!(node, method = method.name(), why, "a hostile call has no answer");
                self.channels.remove(&node);
                let why = format!("{} of node {node}: {why}", method.name());
                self.with(|sums| sums.unreached(whole, &why));
                Judged::default()
            }
            Fate::Answered(answered) => match judge::judge(&Sent { method, whole, tags }, &answered) {
                Ok(judged) => {
                    self.with(|sums| {
                        sums.count(method.name(), judged.kind);
                        sums.executed += judged.executed;
                        sums.refused += judged.refused;
                    });
                    judged.messages.iter().for_each(|message| self.seen.learn(message));
                    judged
                }
                Err(what) => {
                    self.with(|sums| sums.wrong(format!("node {node}: {what}")));
                    Judged::default()
                }
            },
        }
    }

    async fn channel(&mut self, node: u64) -> Result<Channel, String> {
        if let Some(channel) = self.channels.get(&node) {
            return Ok(channel.clone());
        }
        let channel = self.asking.site.channel(node).await.map_err(|e| e.to_string())?;
        self.channels.insert(node, channel.clone());
        Ok(channel)
    }

    /// Submits calls as one frame; what each was answered, in their order, if it was.
    async fn submit(&mut self, verbs: Vec<v1::call::Verb>) -> Vec<Option<v1::answer::Outcome>> {
        let method = methods::method("SubmitBatch");
        let first = self.tag + 1;
        let calls: Vec<v1::Call> = verbs
            .into_iter()
            .map(|verb| {
                self.tag += 1;
                v1::Call { tag: self.tag, within_ms: 0, verb: Some(verb) }
            })
            .collect();
        let tags: Vec<u64> = calls.iter().map(|call| call.tag).collect();
        let node = self.node();
        let frame = v1::CallFrame { calls }.encode_to_vec();
        let answered = self.send(node, &method, &[frame], &tags, true).await;
        let mut outcomes = vec![None; tags.len()];
        for frame in answered {
            let frame: v1::AnswerFrame = frame.transcode_to().unwrap_or_default();
            for answer in frame.entries.into_iter().flat_map(|entry| entry.answers) {
                if let Some(what) = answer.outcome.as_ref().and_then(broken_promise) {
                    self.with(|sums| sums.wrong(format!("node {node}: {what}")));
                }
                if let Some(place) = answer.tag.checked_sub(first).and_then(|n| outcomes.get_mut(n as usize)) {
                    *place = answer.outcome;
                }
            }
        }
        outcomes
    }

    /// Its products with units, one of them in a sale as well; as far as the nodes answer.
    async fn set_up(&mut self) {
        let policy = v1::Policy { open: true, per_key_max: Some(3), ..v1::Policy::default() };
        let mut calls = Vec::new();
        for sku in SKUS {
            calls.extend(sequences::stocked(sku, UNITS));
            let offer = Some(v1::OfferKey { sku: sku.to_owned(), sale: SALE.to_owned() });
            calls.push(v1::call::Verb::PutOffer(v1::PutOffer {
                offer,
                policy: Some(policy.clone()),
                expected_version: None,
            }));
            calls.push(v1::call::Verb::Allot(v1::Allot {
                sku: sku.to_owned(),
                to_sale: SALE.to_owned(),
                units: UNITS / 10,
                reference: "for the sale".to_owned(),
                ..v1::Allot::default()
            }));
        }
        for _ in 0..10 {
            let answers = self.submit(calls.clone()).await;
            let decided = |outcome: &Option<_>| {
                matches!(outcome, Some(v1::answer::Outcome::Ok(_) | v1::answer::Outcome::Refused(_)))
            };
            if answers.iter().all(decided) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a node says that it is ready, and what it says.
    async fn probe(&mut self) {
        let path = ["/readyz", "/readyz?verbose", "/metrics", "/livez"][self.asking.rng.random_range(0..4)];
        self.web(&web::get(path)).await;
        let node = self.node();
        let audit = methods::method(["NodeStatus", "Audit", "Digests"][self.asking.rng.random_range(0..3)]);
        self.send(node, &audit, &[Vec::new()], &[], true).await;
    }

    async fn web_request(&mut self) {
        for _ in 0..CALLS_PER_TURN / 2 {
            let request = web::make(&mut self.maker());
            self.web(&request).await;
        }
    }

    async fn web(&mut self, request: &web::Request) {
        let node = self.node();
        let Some(address) = self.http_of(node).await else { return };
        self.with(|sums| sums.asked += 1);
        let asked = match self.asking.site.dial(&address).await {
            Ok(io) => web::ask(io, request).await,
            Err(error) => Err(error.to_string()),
        };
        match asked.map(|page| web::judge(request, &page)) {
            Err(why) => {
                tracing::debug!(node, request = request.name, why, "a hostile request has no answer");
                let why = format!("{} of node {node}: {why}", request.name);
                self.with(|sums| sums.unreached(request.whole, &why));
            }
            Ok(Ok(kind)) => self.with(|sums| sums.count(&request.name, kind)),
            Ok(Err(what)) => self.with(|sums| sums.wrong(format!("node {node}: {what}"))),
        }
    }

    /// A node's HTTP address, as the cluster tells it.
    async fn http_of(&mut self, node: u64) -> Option<String> {
        if self.http.is_empty() {
            let asked = self.node();
            let answer = self.send(asked, &methods::method("GetRouting"), &[Vec::new()], &[], true).await;
            let routing: v1::Routing = answer.first()?.transcode_to().ok()?;
            self.http = routing.nodes.into_iter().map(|node| (node.node, node.http)).collect();
        }
        self.http.get(&node).cloned()
    }
}

/// What no call may be answered, whatever it asked: the wire lets nothing pass that no entry can carry, nor the queue what no replica can read.
fn broken_promise(outcome: &v1::answer::Outcome) -> Option<String> {
    let v1::answer::Outcome::Refused(why) = outcome else { return None };
    match why.code() {
        v1::RefusalCode::EntryUndecodable => Some("an entry was committed that no replica can decode".to_owned()),
        v1::RefusalCode::Invalid if why.what == "command" => Some(format!("the wire let pass: {}", why.message)),
        _ => None,
    }
}

/// Whether a node says that it is ready.
///
/// # Errors
/// It cannot be asked, or says what it lacks.
pub(crate) async fn ready(site: &super::Site, node: u64) -> Result<(), super::Failure> {
    let routing = site.ledger(node).await?.get_routing(v1::GetRoutingRequest {}).await?.into_inner();
    let own = routing.nodes.iter().find(|one| one.node == node).ok_or("it does not know itself")?;
    let page = web::ask(site.dial(&own.http).await?, &web::get("/readyz?verbose")).await?;
    if page.status == 200 { Ok(()) } else { Err(page.body.into()) }
}

/// Whether a node of the simulation calls itself ready, and what it says.
pub(crate) async fn readiness(site: &super::Site, node: u64) -> Result<(bool, String), super::Failure> {
    let address = format!("n{node}:{}", crate::sim::HTTP_PORT);
    let page = web::ask(site.dial(&address).await?, &web::get("/readyz?verbose")).await?;
    Ok((page.status == 200, page.body))
}

/// The bytes of a message of that name as a hostile client makes it out of a seed.
pub fn hostile_message(seed: u64, name: &str) -> Vec<u8> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut seen = Seen::at(crate::world::EPOCH_MS);
    Maker { rng: &mut rng, seen: &mut seen }.message(&methods::message(name), 0).encode_to_vec()
}

/// The tags of a call, or of the calls of a frame.
fn tags_of(message: &DynamicMessage) -> Vec<u64> {
    let tag = |call: &DynamicMessage| call.get_field_by_name("tag").and_then(|tag| tag.as_u64());
    match message.descriptor().name() {
        "Call" => tag(message).into_iter().collect(),
        "CallFrame" => match message.get_field_by_name("calls").as_deref() {
            Some(Value::List(calls)) => calls.iter().filter_map(Value::as_message).filter_map(tag).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
