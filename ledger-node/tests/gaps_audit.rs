//! An audit recomputes a large shard while the shard goes on answering, reports how far it is, and finds what is wrong.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc as blocking};

use bytes::Bytes;
use common::{Cluster, PATIENCE, create, mint, receive, reserve};
use ledger_core::outcome::Settled;
use ledger_core::{Command, Outcome};
use ledger_node::door::{AnswerSink, EntryAnswers, PendingCall};
use ledger_node::history::{
    Coverage, FillError, History, HistoryError, HistoryFactory, MemoryHistory, Page, PageBounds, Retention,
};
use ledger_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

struct Channel(mpsc::UnboundedSender<EntryAnswers>);

impl AnswerSink for Channel {
    fn answers(&self, answers: EntryAnswers) {
        let _gone = self.0.send(answers);
    }
}

/// Puts so many holds into the shard.
async fn hold(cluster: &Cluster, holds: u64) {
    decide(cluster, holds, |n| reserve("shoe", mint("shoe", n), 3_600_000)).await;
}

/// Has so many commands decided, a full entry at a time.
async fn decide(cluster: &Cluster, commands: u64, nth: impl Fn(u64) -> Command) {
    let (_, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let mut next = 0;
    while next < commands {
        let until = commands.min(next + 8_000);
        let expires_at = Instant::now() + PATIENCE;
        let call = |n| PendingCall { command: nth(n), expires_at, tag: n };
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

/// Many who ask at once wait for two audits at most, and each sees a state that is not older than its call.
#[tokio::test]
async fn audits_that_are_asked_for_at_once_are_shared() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    let (leader, _) = cluster.leader(1).await;
    let node = cluster.node(leader).clone();
    cluster.ask(receive("shoe", 1_000, "r1")).await;
    let before = node.audits().run();
    let index = cluster.leader(1).await.1.applied().borrow().position.index;
    let answers = futures::future::join_all((0..50).map(|_| node.audit())).await;
    let run = node.audits().run() - before;
    assert!((1..=2).contains(&run), "{run}: the first one's, and one for those who asked after it began");
    for answer in answers {
        let answer = answer.expect("audited");
        assert!(answer.findings.is_empty() && answer.shards[0].index >= index, "{answer:?}");
    }
    node.audit().await.expect("audited");
    assert_eq!(node.audits().run() - before, run + 1, "one that comes later has its own");
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

/// Each product is within its bounds, and their sum is not within 64 bits: no probe or figure may end the node.
#[tokio::test]
async fn a_node_whose_units_sum_beyond_64_bits_is_ready_and_has_figures() {
    const PRODUCTS: u64 = (1 << 16) + 1;
    let cluster = Cluster::of(common::Shape { nodes: 1, shards: 1, replicas: 0 }, |_, _, _| {}).await;
    decide(&cluster, PRODUCTS, |n| create(&format!("shoe-{n}"))).await;
    decide(&cluster, PRODUCTS, |n| receive(&format!("shoe-{n}"), 1 << 48, "r1")).await;
    cluster.ready(0).await;
    let status = cluster.admin(0).await.node_status(v1::NodeStatusRequest {}).await.expect("answered").into_inner();
    let available = status.shards[0].totals.and_then(|t| t.balance).expect("totals").available;
    assert_eq!(available, u64::MAX, "the most that the figure can say");
    let page = cluster.get(0, "/metrics").await;
    let values = ledger_node::metrics::values(&page.text);
    assert_eq!(values.get("holdfast_units_available{shard=\"1\"}"), Some(&(u64::MAX as f64)));
    let audit = cluster.node(0).audit().await.expect("audited");
    assert_eq!(audit.findings, []);
}

#[tokio::test]
async fn two_audits_at_once_are_both_answered() {
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
    assert!((1..=2).contains(&node.audits().run()) && !*node.audits().under_way().borrow());
}

/// What the next read of a history waits for, if anything, whether it waits, and which record it leaves out.
#[derive(Default)]
struct Gate {
    open: Mutex<Option<blocking::Receiver<()>>>,
    waits: AtomicBool,
    leaves_out: AtomicU64,
}

struct OpenGated(Arc<Gate>);

impl HistoryFactory for OpenGated {
    fn open(&self, dir: &Path, keep: Retention) -> io::Result<Arc<dyn History>> {
        Ok(Arc::new(Gated { history: MemoryHistory::default().open(dir, keep)?, gate: self.0.clone() }))
    }
}

struct Gated {
    history: Arc<dyn History>,
    gate: Arc<Gate>,
}

impl History for Gated {
    fn begin(&self, shard: u32, at: u64, chain: u128) {
        self.history.begin(shard, at, chain);
    }
    fn append(&self, shard: u32, index: u64, record: Option<&Bytes>) {
        self.history.append(shard, index, record);
    }
    fn sync_through(&self, shard: u32, index: u64) -> io::Result<()> {
        self.history.sync_through(shard, index)
    }
    fn read(&self, shard: u32, from: u64, bounds: PageBounds) -> Result<Page, HistoryError> {
        let open = self.gate.open.lock().expect("no panic").take();
        if let Some(open) = open {
            self.gate.waits.store(true, Ordering::SeqCst);
            open.recv().expect("the test lets it go on");
        }
        let mut page = self.history.read(shard, from, bounds)?;
        page.records.retain(|(index, _)| *index != self.gate.leaves_out.load(Ordering::SeqCst));
        Ok(page)
    }
    fn record_at(&self, shard: u32, index: u64) -> Result<Option<Bytes>, HistoryError> {
        self.history.record_at(shard, index)
    }
    fn last_up_to(&self, shard: u32, index: u64) -> Result<Option<(u64, Bytes)>, HistoryError> {
        self.history.last_up_to(shard, index)
    }
    fn fits_ms(&self) -> u64 {
        self.history.fits_ms()
    }
    fn coverage(&self, shard: u32) -> Coverage {
        self.history.coverage(shard)
    }
    fn fill(&self, shard: u32, records: &[(u64, Bytes)], through: u64) -> Result<(), FillError> {
        self.history.fill(shard, records, through)
    }
    fn distrust(&self, shard: u32, after: u64, through: u64) {
        self.history.distrust(shard, after, through);
    }
    fn give_up_below(&self, shard: u32, oldest: u64) {
        self.history.give_up_below(shard, oldest);
    }
    fn reads_block(&self) -> bool {
        true
    }
    fn close(&self) {
        self.history.close();
    }
}

/// Callers that give up and ask again must not pile up audits, each with a view of the state.
#[tokio::test]
async fn an_audit_whose_caller_gave_up_keeps_its_turn_until_it_ends() {
    let (open, opened) = blocking::channel();
    let (cluster, gate) = gated().await;
    cluster.ask(create("shoe")).await;
    let node = cluster.node(0).clone();
    *gate.open.lock().expect("no panic") = Some(opened);

    let mut under_way = node.audits().under_way();
    let asked = tokio::spawn({
        let node = node.clone();
        async move { node.audit().await.map(drop) }
    });
    timeout(PATIENCE, under_way.wait_for(|it_is| *it_is)).await.expect("it begins").expect("the node lives");
    while !gate.waits.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    asked.abort();
    assert!(asked.await.expect_err("it was given up").is_cancelled());
    assert!(*node.audits().under_way().borrow(), "its thread goes on");
    let progress = node.status().audit.expect("how far it is");
    assert_eq!((progress.shard, progress.doing.as_str()), (1, "history"));
    let next = node.audit();
    tokio::pin!(next);
    assert!(futures::poll!(&mut next).is_pending(), "it has the turn");
    open.send(()).expect("it waits");
    let next = timeout(PATIENCE, next).await.expect("in time").expect("audited");
    assert_eq!(next.findings, []);
    assert_eq!(node.audits().run(), 2, "the one that was given up ended, too");
    assert_eq!(node.status().audit, None, "none is under way");
}

/// Three nodes, of which the first has a gated history.
async fn gated() -> (Cluster, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let given = gate.clone();
    let cluster = Cluster::start(1, move |i, _, seams| {
        if i == 0 {
            *seams = ledger_node::NodeSeams::new(seams.raft.clone(), Arc::new(OpenGated(given.clone())));
        }
    })
    .await;
    (cluster, gate)
}

/// The state is right by itself: only who recomputes it from history finds that a change is missing there.
#[tokio::test]
async fn what_history_contradicts_is_a_finding_of_the_node() {
    let (cluster, gate) = gated().await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 10, "r1")).await;
    let (_, replica) = cluster.leader(1).await;
    let received = replica.applied().borrow().position.index;
    cluster.ask(receive("shoe", 5, "r2")).await;
    let index = replica.applied().borrow().position.index;
    cluster.applied(0, 1, index).await;
    let node = cluster.node(0);
    assert_eq!(node.audit().await.expect("audited").findings, []);
    gate.leaves_out.store(received, Ordering::SeqCst);
    let found = node.audit().await.expect("audited").findings;
    let invariants: Vec<_> = found.iter().map(|f| f.invariant.as_str()).collect();
    assert!(invariants.contains(&"chain") && invariants.contains(&"conserved"), "{found:?}");
    assert_eq!(node.audits().findings(), found.len() as u64);
}
