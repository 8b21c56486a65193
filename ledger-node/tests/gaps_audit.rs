//! An audit recomputes a large shard while the shard goes on answering, and its copy proves the snapshot.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::sync::Arc;

use common::{Cluster, PATIENCE, create, mint, receive, reserve};
use ledger_core::outcome::Settled;
use ledger_core::{Command, Outcome};
use ledger_node::door::{AnswerSink, EntryAnswers, PendingCall};
use ledger_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

struct Channel(mpsc::UnboundedSender<EntryAnswers>);

impl AnswerSink for Channel {
    fn answers(&self, answers: EntryAnswers) {
        let _gone = self.0.send(answers);
    }
}

/// Puts so many holds into the shard, a full entry at a time.
async fn hold(cluster: &Cluster, holds: u64) {
    let (_, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let mut next = 0;
    while next < holds {
        let until = holds.min(next + 8_000);
        let expires_at = Instant::now() + PATIENCE;
        let call = |n| PendingCall { command: reserve("shoe", mint("shoe", n), 3_600_000), expires_at, tag: n };
        replica.door().propose(&sink, (next..until).map(call).collect());
        let mut answered = 0;
        while answered < until - next {
            let some = timeout(PATIENCE, answers.recv()).await.expect("in time").expect("the sink lives");
            assert!(some.position.is_some(), "{some:?}");
            answered += some.items.len() as u64;
        }
        next = until;
    }
}

#[tokio::test]
async fn reserves_are_answered_while_a_large_shard_is_audited() {
    const HOLDS: u64 = 60_000;
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 1_000_000, "r1")).await;
    hold(&cluster, HOLDS).await;
    let (leader, _) = cluster.leader(1).await;
    let node = cluster.node(leader).clone();
    let mut admin = cluster.admin(leader).await;

    let mut under_way = node.audits().under_way();
    let audit = async { admin.audit(v1::AuditRequest {}).await.expect("audited").into_inner() };
    let meanwhile = async {
        // An audit on the runtime's one thread would begin and end within one step, and nobody would see it under way.
        timeout(PATIENCE, under_way.wait_for(|it_is| *it_is)).await.expect("it begins").expect("the node lives");
        let mut answered = 0;
        while *under_way.borrow() {
            let one = cluster.ask(reserve("shoe", mint("shoe", HOLDS + answered), 3_600_000)).await;
            assert!(matches!(one, Outcome::Ok(Settled::Reservation(_))), "{one:?}");
            answered += u64::from(*under_way.borrow());
        }
        answered
    };
    let (audit, answered) = tokio::join!(audit, meanwhile);
    assert_eq!(audit.findings, []);
    assert!(answered > 0, "no reserve was answered while the audit was under way");
    let totals = audit.shards[0].totals.expect("totals");
    assert!(totals.live >= HOLDS, "{totals:?}");
    let lock_ms = node.audits().longest_lock_us() as f64 / 1e3;
    println!("{HOLDS} holds: ledger locked for {lock_ms:.2} ms, {answered} reserves answered during the audit");
}

#[tokio::test]
async fn two_audits_at_once_take_turns_and_both_answer() {
    let cluster = Cluster::start(2, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 10, "r1")).await;
    let id = mint("shoe", 1);
    cluster.ask(reserve("shoe", id, 60_000)).await;
    cluster.ask(Command::Release { id }).await;
    // The leader of the product's shard has applied what it answered.
    let (leader, _) = cluster.leader(2).await;
    let node = cluster.node(leader);
    let (one, two) = tokio::join!(node.audit(), node.audit());
    for audit in [one, two] {
        let audit = audit.expect("audited");
        assert_eq!((audit.shards.len(), audit.findings.len()), (2, 0), "{audit:?}");
        // The node's own history was recomputed as well: created, received, reserved, released.
        assert_eq!(audit.shards.iter().map(|shard| shard.changes).sum::<u64>(), 4, "{audit:?}");
    }
    assert_eq!((node.audits().run(), *node.audits().under_way().borrow()), (2, false));
}
