//! Submitting commands: by shard, through its door here or once through the leader elsewhere.
//!
//! **Owns** the grouping of calls and the gathering of their answers. **Must never** lose a call: each gets one answer.
//! **Read next**: [`super::forward`], [`crate::door`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_core::types::LedgerTime;
use ledger_proto::{At, Cause, DecodedCall, NotNow, Reply, answers, v1};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Api;
use super::reads::elsewhere;
use crate::door::{Answer, AnswerSink, EntryAnswers, NodeNotNow, PendingCall, TaggedAnswer};
use crate::shard::Shard;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// As given in the call.
    pub tag: u64,
    /// Place in the entry.
    pub place: u16,
    /// The answer.
    pub reply: Reply,
}

/// Answers of one entry, or (`at` is none) of calls that never reached a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Where and when they were decided.
    pub at: Option<At>,
    /// The answers.
    pub items: Vec<Item>,
}

/// Calls of one frame, by where they go.
#[derive(Default)]
pub struct Sorted {
    /// To a shard with a replica here.
    pub here: Vec<(Arc<Shard>, Vec<PendingCall>)>,
    /// To a shard with none here; its number, if the slot is owned at all.
    pub elsewhere: Vec<(Option<u32>, Vec<PendingCall>)>,
    /// Answered already: invalid input.
    pub invalid: Vec<Item>,
}

/// Sorts calls by shard. The shard table is taken once a frame.
pub fn sort(api: &Api, calls: Vec<DecodedCall>, now: Instant, cap: Option<Duration>) -> Sorted {
    let table = api.node.table();
    let mut out = Sorted::default();
    let expected = calls.len();
    let default_expiry = api.expires_at(now, 0, cap);
    for DecodedCall { tag, within_ms, command } in calls {
        let command = match command {
            Ok(command) => command,
            Err(invalid) => {
                out.invalid.push(Item { tag, place: 0, reply: Reply::from(invalid) });
                continue;
            }
        };
        let expires_at = if within_ms == 0 { default_expiry } else { api.expires_at(now, within_ms, cap) };
        let slot = command.slot();
        let call = PendingCall { command, expires_at, tag };
        match slot.and_then(|slot| table.shard_for_slot(slot)) {
            Some(shard) => match out.here.iter_mut().find(|(known, _)| Arc::ptr_eq(known, shard)) {
                Some((_, calls)) => calls.push(call),
                None => {
                    let mut calls = Vec::with_capacity(expected);
                    calls.push(call);
                    out.here.push((shard.clone(), calls));
                }
            },
            None => {
                let shard = slot.and_then(|slot| table.shard_id_for_slot(slot));
                match out.elsewhere.iter_mut().find(|(known, _)| *known == shard) {
                    Some((_, calls)) => calls.push(call),
                    None => out.elsewhere.push((shard, vec![call])),
                }
            }
        }
    }
    out
}

/// Submits calls and waits for all their answers. Calls for shards led elsewhere are passed on to the leader, once.
pub async fn submit(api: &Api, calls: Vec<DecodedCall>, cap: Option<Duration>, forwarded: bool) -> Vec<Group> {
    if let Err(why) = api.serving() {
        let reply = Reply::NotNow(why);
        let items = calls.into_iter().map(|call| Item { tag: call.tag, place: 0, reply: reply.clone() }).collect();
        return vec![Group { at: None, items }];
    }
    let sorted = sort(api, calls, Instant::now(), cap);
    let mut groups = Vec::new();
    if !sorted.invalid.is_empty() {
        groups.push(Group { at: None, items: sorted.invalid });
    }
    let mut away = Vec::new();
    let mut gathered = Vec::new();
    for (shard, calls) in sorted.here {
        // The queue takes them, or says why not.
        if forwarded || shard.leads() {
            gathered.push(gather(&shard, calls));
            continue;
        }
        match (api.node.leader_addr_of(shard.id()), api.node.no_quorum_of(shard.id())) {
            (Some(leader), _) => away.push((leader, calls)),
            (None, Some(why)) => groups.push(answered(&calls, &Reply::NotNow(why))),
            (None, None) => gathered.push(gather(&shard, calls)),
        }
    }
    for (shard, calls) in sorted.elsewhere {
        match shard.and_then(|shard| api.node.leader_addr_of(shard)) {
            Some(leader) if !forwarded => away.push((leader, calls)),
            _ => groups.push(not_here(api, shard, &calls)),
        }
    }
    let away = away.into_iter().map(|(leader, calls)| api.forward.submit(leader, calls));
    let (here, away) = futures::join!(futures::future::join_all(gathered), futures::future::join_all(away));
    groups.extend(here.into_iter().flatten().map(group_of));
    groups.extend(away.into_iter().flatten());
    groups
}

/// One command, one answer.
pub async fn submit_one(api: &Api, call: DecodedCall, cap: Option<Duration>, forwarded: bool) -> (Option<At>, Reply) {
    let groups = submit(api, vec![call], cap, forwarded).await;
    let mut answers =
        groups.into_iter().flat_map(|group| group.items.into_iter().map(move |item| (group.at, item.reply)));
    answers.next().unwrap_or_else(|| (None, Reply::Unknown("the node gave no answer".to_owned())))
}

/// The slot's owner has no replica here, or the slot has no owner yet.
pub fn not_here(api: &Api, shard: Option<u32>, calls: &[PendingCall]) -> Group {
    let why = match shard {
        Some(shard) => elsewhere(api, shard),
        None => NotNow::not_leader(None),
    };
    answered(calls, &Reply::NotNow(why))
}

/// The same answer to all; nothing reached a log.
fn answered(calls: &[PendingCall], reply: &Reply) -> Group {
    Group { at: None, items: calls.iter().map(|call| Item { tag: call.tag, place: 0, reply: reply.clone() }).collect() }
}

/// Proposes calls to a door here and waits for every answer.
fn gather(shard: &Shard, calls: Vec<PendingCall>) -> impl Future<Output = Vec<EntryAnswers>> + use<> {
    let (done, answers) = oneshot::channel();
    let state = Gathered { left: calls.len(), entries: Vec::with_capacity(1), done: Some(done) };
    let sink: Arc<dyn AnswerSink> = Arc::new(Gather(Mutex::new(state)));
    let tags: Vec<u64> = calls.iter().map(|call| call.tag).collect();
    shard.door().propose(&sink, calls);
    drop(sink);
    async move {
        answers.await.unwrap_or_else(|_| {
            let unknown =
                |tag| TaggedAnswer { tag, place: 0, answer: Answer::Unknown("the node stopped before it knew") };
            vec![EntryAnswers { position: None, time: LedgerTime(0), items: tags.into_iter().map(unknown).collect() }]
        })
    }
}

struct Gathered {
    left: usize,
    entries: Vec<EntryAnswers>,
    done: Option<oneshot::Sender<Vec<EntryAnswers>>>,
}

struct Gather(Mutex<Gathered>);

impl AnswerSink for Gather {
    fn answers(&self, answers: EntryAnswers) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = state.left.saturating_sub(answers.items.len());
        state.entries.push(answers);
        if state.left == 0
            && let Some(done) = state.done.take()
        {
            // Nobody waits any more: the answers are dropped.
            drop(done.send(std::mem::take(&mut state.entries)));
        }
    }
}

/// The door's answers as replies.
pub fn group_of(entry: EntryAnswers) -> Group {
    let at = entry.position.map(|position| At { position, time: entry.time });
    let item = |answer: TaggedAnswer| Item { tag: answer.tag, place: answer.place, reply: reply_of(answer.answer) };
    let mut items: Vec<Item> = entry.items.into_iter().map(item).collect();
    if ledger_core::bad!("answer-dropped") && items.len() > 1 {
        items.pop();
    }
    Group { at, items }
}

/// The door's answer as a reply.
pub fn reply_of(answer: Answer) -> Reply {
    match answer {
        Answer::Outcome(outcome) => Reply::from(outcome),
        Answer::Invalid(invalid) => Reply::from(invalid),
        Answer::NotNow(why) => Reply::NotNow(not_now_of(&why)),
        Answer::Unknown(why) => Reply::Unknown(why.to_owned()),
    }
}

/// The door's *not now* as the wire's.
pub fn not_now_of(why: &NodeNotNow) -> NotNow {
    answers::not_now_from_wire(v1::NotNow {
        code: why.code.into(),
        message: why.message.clone().into_owned(),
        retry_ms: why.retry_ms,
        leader: why.leader.as_deref().unwrap_or_default().to_owned(),
    })
}

/// The leader took nothing: no byte went out, or it could not read them.
pub(super) fn not_reached(calls: &[PendingCall], leader: &str, why: &str) -> Group {
    let mut not_now = NotNow::new(Cause::NotLeader, format!("the leader at {leader} took nothing: {why}"), 50);
    not_now.leader = Some(leader.to_owned());
    answered(calls, &Reply::NotNow(not_now))
}
