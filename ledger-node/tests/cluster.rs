//! Three nodes in one process: from empty directories to reservations, restarts and strangers.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, PATIENCE, create, mint, offer, receive, reserve};
use ledger_core::outcome::{Settled, Status};
use ledger_core::view::IdView;
use ledger_core::{Command, Outcome, Refusal};
use ledger_node::data_dir::DataDirError;
use ledger_node::door::{Answer, AnswerSink, EntryAnswers, PendingCall};
use ledger_node::node::AdminError;
use ledger_node::{NodeSeams, NodeState, StartError, serve};
use ledger_proto::v1::{self, NotNowCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn empty_nodes_become_a_cluster_that_reserves_and_every_replica_agrees() {
    let cluster = Cluster::start(2, |_, _, _| {}).await;
    assert!(matches!(cluster.ask(create("shoe")).await, Outcome::Ok(Settled::Offer { .. })));
    assert!(matches!(cluster.ask(receive("shoe", 1, "r1")).await, Outcome::Ok(Settled::Stocked { .. })));
    let id = mint("shoe", 1);
    let first = cluster.ask(reserve("shoe", id, 60_000)).await;
    assert!(
        matches!(first, Outcome::Ok(Settled::Reservation(b)) if b.status == Status::Held && !b.replayed),
        "{first:?}"
    );
    let again = cluster.ask(reserve("shoe", id, 60_000)).await;
    assert!(matches!(again, Outcome::Ok(Settled::Reservation(b)) if b.replayed), "{again:?}");
    let other = cluster.ask(reserve("shoe", mint("shoe", 2), 60_000)).await;
    assert!(matches!(other, Outcome::Refused(Refusal::SoldOut { .. })), "{other:?}");

    let shard = cluster.node(0).table().shard_id_for_slot(id.slot()).expect("owned");
    let (leader, replica) = cluster.leader(shard).await;
    let index = replica.applied().borrow().position.index;
    for i in 0..3 {
        cluster.applied(i, shard, index).await;
        let balance = cluster
            .node(i)
            .shard(shard)
            .expect("here")
            .with_ledger(|l| l.offer(&offer("shoe")))
            .expect("known")
            .balance;
        assert_eq!((balance.available, balance.held, balance.sold), (0, 1, 0), "node {}", i + 1);
        assert_eq!(cluster.node(i).audit().await.expect("audited").findings, []);
    }
    let routing = cluster.node((leader + 1) % 3).routing();
    assert_eq!((routing.shards.len(), routing.nodes.len()), (2, 3));
    assert_eq!(routing.shards[shard as usize - 1].leader, leader as u64 + 1);
}

#[tokio::test]
async fn init_is_safe_to_repeat_and_refuses_other_members() {
    let cluster = Cluster::empty(|_, _, _| {}).await;
    assert_eq!(cluster.node(0).state(), NodeState::Uninitialised);
    let first = cluster.init(0, 1).await.expect("created");
    let through_another = cluster.init(2, 1).await.expect("the same members again");
    assert!(first.created && !through_another.created);
    assert_eq!(first.cluster, through_another.cluster);

    let stranger = v1::Member { node: 9, client: "127.0.0.1:1".to_owned(), ..Default::default() };
    let request = v1::InitRequest { members: vec![stranger.clone()], shards: 1, replicas: 0 };
    let refused = cluster.node(1).init(request).await;
    assert!(
        matches!(&refused, Err(AdminError::Refused(why)) if why.contains("never changes its cluster")),
        "{refused:?}"
    );
    let twice = v1::InitRequest { members: vec![stranger.clone(), stranger], shards: 1, replicas: 0 };
    assert!(matches!(cluster.node(1).init(twice).await, Err(AdminError::Invalid(_))));
}

#[tokio::test]
async fn a_restarted_node_has_everything_and_a_graceful_stop_hands_leadership_over() {
    let mut cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    cluster.ask(create("cup")).await;
    cluster.ask(receive("cup", 10, "r1")).await;
    let id = mint("cup", 7);
    cluster.ask(reserve("cup", id, 60_000)).await;
    let (old, _) = cluster.leader(1).await;
    let survivor = cluster.node((old + 1) % 3).shard(1).expect("a replica");
    let term = survivor.status().term;
    cluster.stop(old).await;
    let (new, _) = cluster.leader(1).await;
    assert_ne!(new, old);
    assert_eq!(survivor.status().term, term + 1, "one transfer, no election by time-out");
    let held = cluster.ask(reserve("cup", id, 60_000)).await;
    assert!(matches!(held, Outcome::Ok(Settled::Reservation(b)) if b.replayed), "{held:?}");
    cluster.ask(Command::Confirm { id, lines: None }).await;

    cluster.restart(old).await;
    let (_, leader) = cluster.leader(1).await;
    cluster.applied(old, 1, leader.applied().borrow().position.index).await;
    let known = cluster.node(old).shard(1).expect("here").with_ledger(|l| l.id(id));
    assert!(matches!(known, IdView::Reservation(r) if r.status == Status::Confirmed));
    cluster.stop_all().await;
    for i in 0..3 {
        cluster.restart_later(i).await;
    }
    let after = cluster.ask(Command::Fence { id }).await;
    assert!(matches!(after, Outcome::Ok(Settled::Fenced(_))), "{after:?}");
}

#[tokio::test]
async fn strangers_are_refused_at_the_directory() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    let in_use = serve(common::config(cluster.dirs[0].path()), NodeSeams::real()).await.err();
    assert!(matches!(in_use, Some(StartError::DataDir(DataDirError::InUse { .. }))), "{in_use:?}");
    cluster.stop(0).await;
    let mut config = common::config(cluster.dirs[0].path());
    config.node_id = Some(2);
    let other = serve(config, NodeSeams::real()).await.err();
    assert!(
        matches!(other, Some(StartError::DataDir(DataDirError::OtherNode { found: 1, wanted: 2, .. }))),
        "{other:?}"
    );
    let foreign = tempfile::tempdir().expect("a directory");
    std::fs::write(foreign.path().join("notes"), "mine").expect("written");
    let refused = serve(common::config(foreign.path()), NodeSeams::real()).await.err();
    assert!(matches!(refused, Some(StartError::DataDir(DataDirError::NotOurs { .. }))), "{refused:?}");
}

struct Channel(mpsc::UnboundedSender<EntryAnswers>);

impl AnswerSink for Channel {
    fn answers(&self, answers: EntryAnswers) {
        let _gone = self.0.send(answers);
    }
}

#[tokio::test]
async fn the_door_batches_answers_each_call_once_and_keeps_a_share_for_releases() {
    let cluster =
        Cluster::start(1, |_, config, _| (config.queue_calls, config.queue_reserved_percent) = (100, 25)).await;
    cluster.ask(create("pen")).await;
    cluster.ask(receive("pen", 1000, "r1")).await;
    let (leader, replica) = cluster.leader(1).await;
    let (sender, mut answers) = mpsc::unbounded_channel();
    let sink: Arc<dyn AnswerSink> = Arc::new(Channel(sender));
    let expires_at = Instant::now() + PATIENCE;
    let call = |tag| PendingCall { command: reserve("pen", mint("pen", tag), 60_000), expires_at, tag };
    replica.door().propose(&sink, (0..90).map(call).collect());
    let release = Command::Release { id: mint("pen", 5_000) };
    replica.door().propose(&sink, vec![PendingCall { command: release, expires_at, tag: 200 }]);

    let away = answers.recv().await.expect("told at once");
    assert_eq!((away.position, away.items.len()), (None, 15), "75 of 100 places are for reserves");
    assert!(away.items.iter().all(|i| matches!(&i.answer, Answer::NotNow(n) if n.code == NotNowCode::Overloaded)));
    let taken = answers.recv().await.expect("answered");
    assert!(taken.position.is_some(), "one entry for all");
    let tags: Vec<u64> = taken.items.iter().map(|item| item.tag).collect();
    assert_eq!(tags, (0..75).chain([200]).collect::<Vec<_>>(), "in the order they came");
    assert_eq!(taken.items[74].place, 74);
    assert!(matches!(&taken.items[75].answer, Answer::Outcome(Outcome::Refused(Refusal::UnknownReservation))));

    let late = PendingCall { command: reserve("pen", mint("pen", 900), 60_000), expires_at: Instant::now(), tag: 1 };
    replica.door().propose(&sink, vec![late]);
    let late = answers.recv().await.expect("answered");
    assert!(matches!(&late.items[0].answer, Answer::NotNow(_)), "{late:?}");
    let follower = cluster.node((leader + 1) % 3).shard(1).expect("a replica");
    follower.door().propose(&sink, vec![call(1)]);
    let elsewhere = answers.recv().await.expect("answered");
    let address = cluster.nodes[leader].as_ref().expect("runs").client_addr().to_string();
    let Answer::NotNow(why) = &elsewhere.items[0].answer else { panic!("{elsewhere:?}") };
    assert_eq!((why.code, why.leader.as_deref()), (NotNowCode::NotLeader, Some(address.as_str())));
}

#[tokio::test]
async fn without_a_quorum_calls_in_flight_are_unknown_at_their_deadline_and_not_before() {
    let mut cluster = Cluster::start(1, |_, config, _| config.balance = false).await;
    cluster.ask(create("hat")).await;
    let (leader, replica) = cluster.leader(1).await;
    for i in (0..3).filter(|&i| i != leader) {
        cluster.stop(i).await;
    }
    let begun = Instant::now();
    let within = Duration::from_millis(300);
    let (position, _, answer) = replica.door().ask(receive("hat", 1, "r"), begun + within).await;
    assert_eq!(position, None);
    match answer {
        Answer::Unknown(_) => {}
        // The leader noticed first that it leads nobody.
        Answer::NotNow(why) => assert!(matches!(why.code, NotNowCode::NotLeader | NotNowCode::ClockUnsure), "{why:?}"),
        other @ (Answer::Outcome(_) | Answer::Invalid(_)) => panic!("decided without a quorum: {other:?}"),
    }
}

#[tokio::test]
async fn a_due_hold_on_an_idle_shard_expires_by_the_leaders_tick() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("tea")).await;
    cluster.ask(receive("tea", 1, "r1")).await;
    let (_, replica) = cluster.leader(1).await;
    let mut applied = replica.applied();
    cluster.ask(reserve("tea", mint("tea", 1), 200)).await;
    let due = replica.with_ledger(|l| l.next_due()).expect("the hold");
    let swept =
        timeout(PATIENCE, applied.wait_for(|to| to.time >= due)).await.expect("a tick comes").expect("lives").time;
    assert!(swept.0 - due.0 < 500, "swept {} ms after it was due", swept.0 - due.0);
    assert_eq!(replica.with_ledger(|l| l.offer(&offer("tea"))).expect("known").balance.available, 1);
    assert_eq!(replica.with_ledger(|l| l.next_due()), None, "nothing due any more, so no more ticks");
}

/// Ids are minted from ledger time. One from a time whose ids are forgotten would be refused, though nobody ever had it.
#[tokio::test]
async fn the_time_of_an_idle_shard_moves_on_before_ids_of_its_time_are_forgotten() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    let settings = ledger_core::ShardSettings {
        retain_refused_ms: ledger_core::limits::RETAIN_MS_MIN,
        ..ledger_core::ShardSettings::default()
    };
    let (_, replica) = cluster.leader(1).await;
    let (.., answer) = replica.door().ask(Command::Configure { settings }, Instant::now() + PATIENCE).await;
    assert!(matches!(answer, Answer::Outcome(Outcome::Ok(_))), "{answer:?}");
    let (idle, due, tick) = replica.with_ledger(|l| (l.time(), l.next_due(), l.next_idle_tick()));
    assert_eq!((due, tick), (None, idle.plus(ledger_core::limits::RETAIN_MS_MIN / 4)), "nothing is due");
    let mut applied = replica.applied();
    let ticked = timeout(PATIENCE, applied.wait_for(|to| to.time > idle)).await.expect("a tick comes").expect("lives");
    assert!(ticked.time >= tick, "{} ms after the last entry, wanted {}", ticked.time.0 - idle.0, tick.0 - idle.0);
}

#[tokio::test]
async fn a_replica_whose_state_differs_is_outvoted_and_reinstalled() {
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        // The third node loses one receive: from then on its state differs.
        if i == 2 {
            seams.sabotage = Some(Arc::new(|_, _, entry| {
                let lost =
                    |c: &Command| matches!(c, Command::Receive { reference, .. } if reference.as_str() == "lost");
                entry.commands.retain(|command| !lost(command));
            }));
        }
    })
    .await;
    let (leader, replica) = cluster.leader(1).await;
    if leader == 2 {
        replica.group().transfer_leader(ledger_raft::NodeId(1), PATIENCE).await.expect("handed over");
    }
    cluster.ask(create("ink")).await;
    cluster.ask(receive("ink", 5, "lost")).await;
    let broken = cluster.node(2).clone();
    let balance = |l: &ledger_core::Ledger| l.offer(&offer("ink")).map_or(0, |o| o.balance.available);
    // A digest is taken at every 1,024th index.
    let (_, replica) = cluster.leader(1).await;
    while replica.applied().borrow().position.index < 1100 {
        cluster.ask(Command::Fence { id: mint("ink", 1) }).await;
    }
    let shard = broken.shard(1).expect("a replica");
    let mut applied = shard.applied();
    let healed = timeout(PATIENCE, async {
        loop {
            if broken.digest_counts().reinstalled.load(std::sync::atomic::Ordering::Relaxed) > 0
                && shard.with_ledger(balance) == 5
            {
                return;
            }
            let _moment = timeout(Duration::from_millis(100), applied.changed()).await;
        }
    });
    healed.await.expect("the replica is reinstalled from the majority");
    cluster.stop_all().await;
}
