//! The queue into a shard's log: what it lets in, what it never lets in, and when it is empty.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, PATIENCE, create, mint, receive, reserve};
use ledger_core::command::{LimitKeys, Lines};
use ledger_core::{Command, Outcome, ReservationId, ShardSettings, limits};
use ledger_node::NodeSeams;
use ledger_node::config::NodeConfig;
use ledger_node::door::{Answer, AnswerSink, EntryAnswers, PendingCall};
use ledger_node::limits::RETRY_MEMORY_MS;
use ledger_proto::v1::NotNowCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

struct Channel(mpsc::UnboundedSender<EntryAnswers>);

impl AnswerSink for Channel {
    fn answers(&self, answers: EntryAnswers) {
        let _gone = self.0.send(answers);
    }
}

async fn stocked() -> Cluster {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 1_000, "r1")).await;
    cluster
}

/// A command that the wire's conversions never make: more lines than an entry takes.
fn unencodable(n: u64) -> Command {
    let Command::Reserve { id, lines, .. } = reserve("shoe", mint("shoe", n), 60_000) else { unreachable!() };
    let lines: Lines = std::iter::repeat_n(lines[0].clone(), limits::LINES_MAX + 1).collect();
    Command::Reserve { id, keys: LimitKeys::new(), lines, hold_ms: None }
}

#[tokio::test]
async fn a_command_that_no_entry_can_carry_is_refused_and_its_neighbours_are_decided() {
    let cluster = stocked().await;
    let (leader, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let expires_at = Instant::now() + PATIENCE;
    let command = |tag| if tag % 2 == 0 { reserve("shoe", mint("shoe", tag), 60_000) } else { unencodable(tag) };
    let calls = (0..6).map(|tag| PendingCall { command: command(tag), expires_at, tag }).collect();
    replica.door().propose(&sink, calls);
    let mut decided = std::collections::BTreeMap::new();
    while decided.len() < 6 {
        let entry = tokio::time::timeout(PATIENCE, answers.recv()).await.expect("in time").expect("the door lives");
        decided.extend(entry.items.into_iter().map(|item| (item.tag, (entry.position, item.answer))));
    }
    for (tag, (position, answer)) in decided {
        if tag % 2 == 0 {
            assert!(position.is_some() && matches!(answer, Answer::Outcome(Outcome::Ok(_))), "{tag}: {answer:?}");
        } else {
            assert!(position.is_none(), "it never reached the log");
            assert!(matches!(&answer, Answer::Invalid(invalid) if invalid.field == "command"), "{tag}: {answer:?}");
        }
    }
    // A batch of nothing else leaves no entry behind.
    let entries = replica.door().counts().entries.load(std::sync::atomic::Ordering::Relaxed);
    let (_, _, answer) = replica.door().ask(unencodable(99), expires_at).await;
    assert!(matches!(answer, Answer::Invalid(_)), "{answer:?}");
    assert_eq!(replica.door().counts().entries.load(std::sync::atomic::Ordering::Relaxed), entries);
    cluster.ask(reserve("shoe", mint("shoe", 100), 60_000)).await;
    let index = replica.applied().borrow().position.index;
    for i in 0..3 {
        cluster.applied(i, 1, index).await;
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, []);
    }
    let page = cluster.get(leader, "/metrics").await;
    let counted = ledger_node::metrics::values(&page.text).get("holdfast_unencodable_total{shard=\"1\"}").copied();
    assert_eq!(counted, Some(4.0));
}

/// Calls that are answered without an entry must wake whoever waits until the queue is empty.
#[tokio::test]
async fn drained_returns_after_calls_that_never_reached_the_log() {
    let cluster = stocked().await;
    let (_, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let late = PendingCall { command: reserve("shoe", mint("shoe", 1), 1_000), expires_at: Instant::now(), tag: 1 };
    replica.door().propose(&sink, vec![late]);
    let drained = tokio::time::timeout(Duration::from_secs(5), replica.door().drained()).await;
    assert!(drained.is_ok(), "nothing waits and nothing is in flight, and still it waits");
    assert!(matches!(answers.recv().await.expect("answered").items[0].answer, Answer::NotNow(_)));
}

#[tokio::test]
async fn drained_waits_for_what_is_in_flight() {
    let cluster = stocked().await;
    let (_, replica) = cluster.leader(1).await;
    for round in 0..20 {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
        let expires_at = Instant::now() + PATIENCE;
        let call =
            |n| PendingCall { command: reserve("shoe", mint("shoe", round * 10 + n), 60_000), expires_at, tag: n };
        replica.door().propose(&sink, (0..10).map(call).collect());
        tokio::time::timeout(PATIENCE, replica.door().drained()).await.expect("it drains");
        let answered = answers.try_recv().expect("answered before it was drained");
        assert_eq!(answered.items.len(), 10);
    }
}

/// What `ledgerctl bench --shape c --in-flight 4` asks for with nothing configured.
#[tokio::test]
async fn as_many_full_frames_of_reserves_as_entries_in_flight_are_let_in_by_default() {
    let cluster = stocked().await;
    let (_, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let expires_at = Instant::now() + PATIENCE;
    let frames = ledger_node::limits::ENTRIES_IN_FLIGHT_MAX as u64;
    let frame = ledger_proto::limits::CALLS_PER_FRAME_MAX as u64;
    let call = |tag| PendingCall { command: reserve("shoe", mint("shoe", tag), 60_000), expires_at, tag };
    for n in 0..frames {
        replica.door().propose(&sink, (n * frame..(n + 1) * frame).map(call).collect());
    }
    let mut answered = 0;
    while answered < frames * frame {
        let entry = tokio::time::timeout(PATIENCE, answers.recv()).await.expect("in time").expect("the door lives");
        let away = entry.items.iter().find(|item| !matches!(item.answer, Answer::Outcome(_)));
        assert_eq!(away, None, "turned away with nothing configured");
        answered += entry.items.len() as u64;
    }
}

/// What the records of the only shard may take in the next test: more than an empty ledger's tables.
const MEMORY_MAX: u64 = 2 << 20;

/// Reserves until there is no memory; answers the ids that were taken.
async fn fill(cluster: &Cluster) -> Vec<ReservationId> {
    let mut taken = Vec::new();
    for from in (0..100_000).step_by(200) {
        let ids: Vec<_> = (from..from + 200).map(|n| mint("shoe", n)).collect();
        let asked = ids.iter().map(|&id| answer_to(cluster, reserve("shoe", id, 3_600_000)));
        let mut full = false;
        for (id, answer) in ids.iter().zip(futures::future::join_all(asked).await) {
            match answer {
                Answer::Outcome(Outcome::Ok(_)) => taken.push(*id),
                Answer::NotNow(why) => {
                    assert_eq!((why.code, why.retry_ms), (NotNowCode::MemoryFull, RETRY_MEMORY_MS));
                    assert!(why.message.contains("2 of 2 MiB on the leader's node"), "{}", why.message);
                    full = true;
                }
                other => panic!("{other:?}"),
            }
        }
        if full {
            return taken;
        }
    }
    panic!("{} reservations fit {MEMORY_MAX} bytes", taken.len())
}

/// The answer to a command: decided, or that there is no memory for it. After a start it may have to be asked again.
async fn answer_to(cluster: &Cluster, command: Command) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let (_, replica) = cluster.leader(1).await;
        match replica.door().ask(command.clone(), until).await.2 {
            Answer::NotNow(why) if why.code != NotNowCode::MemoryFull => {
                assert!(Instant::now() < until, "{why:?}");
                tokio::time::sleep(Duration::from_millis(why.retry_ms.max(1).into())).await;
            }
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn at_the_memory_bound_new_records_wait_and_all_else_goes_on_before_and_after_a_restart() {
    let bounded = |max: u64| move |_: usize, config: &mut NodeConfig, _: &mut NodeSeams| config.memory_max_bytes = max;
    let mut cluster = Cluster::start(1, bounded(MEMORY_MAX)).await;
    cluster.ask(create("shoe")).await;
    cluster.ask(receive("shoe", 1_000_000, "r1")).await;
    let taken = fill(&cluster).await;
    assert!(taken.len() > 1_000, "{} reservations", taken.len());
    // More than the tables of another seed may take less after a restart.
    let products: Vec<_> = (0..300).map(|n| format!("product {n}").replace(' ', "-")).collect();
    futures::future::join_all(products.iter().map(|name| cluster.ask(create(name)))).await;
    for round in 0..2 {
        let [confirmed, released] = [taken[2 * round], taken[2 * round + 1]];
        let again = answer_to(&cluster, reserve("shoe", taken[100], 3_600_000)).await;
        assert!(matches!(&again, Answer::Outcome(Outcome::Ok(_))), "it is answered as before: {again:?}");
        assert!(matches!(cluster.ask(Command::Confirm { id: confirmed, lines: None }).await, Outcome::Ok(_)));
        assert!(matches!(cluster.ask(Command::Release { id: released }).await, Outcome::Ok(_)));
        assert!(matches!(cluster.ask(receive("shoe", 1, &format!("again {round}"))).await, Outcome::Ok(_)));
        let settings = ShardSettings { retain_sold_ms: 60_000, ..ShardSettings::default() };
        let configured = answer_to(&cluster, Command::Configure { settings }).await;
        assert!(matches!(configured, Answer::Outcome(Outcome::Ok(_))), "{configured:?}");
        let refused = answer_to(&cluster, reserve("shoe", mint("shoe", 200_000), 1_000)).await;
        assert!(matches!(&refused, Answer::NotNow(why) if why.code == NotNowCode::MemoryFull), "{refused:?}");
        let (leader, _) = cluster.leader(1).await;
        let ready = cluster.get(leader, "/readyz?verbose").await.text;
        assert!(ready.contains("shard-1-memory") && ready.contains("it takes no new reservations while"), "{ready}");
        let page = cluster.get(leader, "/metrics").await.text;
        let values = ledger_node::metrics::values(&page);
        assert_eq!(values["holdfast_memory_max_bytes"], MEMORY_MAX as f64);
        assert!(values["holdfast_memory_used_bytes"] >= MEMORY_MAX as f64);
        assert!(values["holdfast_memory_full_total{shard=\"1\"}"] >= 1.0);
        if round == 0 {
            cluster.stop_all().await;
            for node in 0..3 {
                cluster.restart(node).await;
            }
        }
    }
}
