//! Replicas that stop in a running cluster: each is repaired, from whichever peer answers, and its callers learn what they can.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ledger_core::Command;
use ledger_core::command::{LimitKeys, Lines};
use ledger_core::types::{LimitKey, Line, Quantity};
use ledger_node::door::Answer;
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::Disk;
use tokio::time::{Instant, timeout};

use crate::common::{Cluster, PATIENCE, create, in_memory, mint, offer, receive};

#[tokio::test]
async fn a_replica_whose_core_ends_is_stopped_and_reinstalled() {
    let done = Arc::new(AtomicBool::new(false));
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        in_memory(seams, i as u64);
        let done = done.clone();
        seams.sabotage = Some(Arc::new(move |_, _, entry| {
            let deadly =
                |c: &Command| matches!(c, Command::Receive { reference, .. } if reference.as_str() == "deadly");
            if entry.commands.iter().any(deadly) && !done.swap(true, Ordering::Relaxed) {
                panic!("as the test has it");
            }
        }));
    })
    .await;
    cluster.ask(create("ink")).await;
    cluster.ask(receive("ink", 1, "first")).await;
    let watches: Vec<_> = (0..3).map(|i| cluster.node(i).shard(1).expect("a replica").group().watch()).collect();
    cluster.ask(receive("ink", 4, "deadly")).await;
    // One of them, whichever applied it first.
    let stopped = watches.into_iter().map(|mut watch| {
        Box::pin(async move { watch.wait_for(|s| s.stopped.is_some()).await.map(|s| s.stopped.clone()) })
    });
    let (why, at, _) = timeout(PATIENCE, futures::future::select_all(stopped)).await.expect("it says that it stopped");
    let why = why.expect("the group lives").expect("a reason");
    assert!(why.contains("core ended"), "{why}");
    let until = Instant::now() + PATIENCE;
    while cluster.node(at).shard(1).expect("a replica").status().stopped.is_some() {
        assert!(Instant::now() < until, "it stays stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, replica) = cluster.leader(1).await;
    let index = replica.applied().borrow().position.index;
    for i in 0..3 {
        cluster.applied(i, 1, index).await;
        let shard = cluster.node(i).shard(1).expect("a replica");
        assert_eq!(
            shard.with_ledger(|l| l.offer(&offer("ink")).map(|o| o.balance.available)),
            Some(5),
            "node {}",
            i + 1
        );
    }
    cluster.stop_all().await;
}

/// Marks a replica as quarantined, as a node that died right after that would leave it.
fn quarantine(disk: &SimDisk, data_dir: &Path) {
    let why = b"\0\0\0\0\0\0\0\0as a test has it";
    let file = disk.open(&data_dir.join("snapshots/g1.quarantined"), true).expect("opened");
    let mut bytes = (why.len() as u32).to_le_bytes().to_vec();
    bytes.extend(crc32c::crc32c(why).to_le_bytes());
    bytes.extend(why);
    file.write_at(0, &bytes).expect("written");
    file.sync().expect("synced");
    disk.sync_dir(&data_dir.join("snapshots")).expect("synced");
}

#[tokio::test]
async fn a_stopped_replica_is_repaired_from_a_peer_that_answers_when_the_first_does_not() {
    let mut disks = Vec::new();
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        disks.push((in_memory(seams, i as u64), config.data_dir.clone()));
    })
    .await;
    cluster.ask(create("ink")).await;
    cluster.ask(receive("ink", 5, "r1")).await;
    let placement = cluster.node(0).placement().expect("placed");
    let replicas: Vec<usize> = placement.shards[0].replicas.iter().map(|node| *node as usize - 1).collect();
    let (first, stopped) = (replicas[0], replicas[2]);
    cluster.stop(stopped).await;
    let (disk, dir) = &disks[stopped];
    quarantine(disk, dir);
    cluster.stop(first).await;
    cluster.restart(stopped).await;
    let until = Instant::now() + PATIENCE;
    loop {
        let shard = cluster.node(stopped).shard(1);
        match shard.map(|shard| shard.status().stopped) {
            Some(None) => break,
            told => assert!(Instant::now() < until, "it is not repaired: {told:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.ask(receive("ink", 1, "r2")).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_crowd_larger_than_the_log_s_largest_entry_is_taken_in_several() {
    let mut cluster = Cluster::start(1, |i, config, seams| {
        config.balance = false;
        // Below what a configuration may say: the largest entry is a quarter of it.
        config.raft.segment_bytes = 64 << 10;
        in_memory(seams, i as u64);
    })
    .await;
    cluster.ask(create("ink")).await;
    cluster.ask(receive("ink", 10_000, "r1")).await;
    let (_, replica) = cluster.leader(1).await;
    let command = |n: u64| Command::Reserve {
        id: mint("ink", n),
        keys: LimitKeys::from_iter([LimitKey::new(format!("{n:064}")).expect("a key")]),
        lines: Lines::from_iter([Line { offer: offer("ink"), quantity: Quantity::new(1).expect("one") }]),
        hold_ms: Some(60_000),
    };
    let within = Instant::now() + PATIENCE;
    let answers = join_all((0..2_000).map(|n| replica.door().ask(command(n), within))).await;
    for (n, (_, _, answer)) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Answer::Outcome(ledger_core::Outcome::Ok(_))), "call {n}: {answer:?}");
    }
    cluster.stop_all().await;
}

/// A file that cannot be read may be readable a moment later, so that the replica is tried again;
/// the others do not wait for it.
#[tokio::test]
async fn a_shard_that_cannot_be_started_holds_back_no_other() {
    let mut cluster = Cluster::start(3, |_, config, _| config.balance = false).await;
    cluster.stop(1).await;
    let mark = cluster.dirs[1].path().join("snapshots/g1.quarantined");
    std::fs::create_dir(&mark).expect("a directory where a file is read");
    cluster.restart(1).await;
    assert!(cluster.node(1).shard(1).is_none(), "whether it is quarantined is not known");
    for shard in [2, 3] {
        assert_eq!(cluster.node(1).shard(shard).expect("started").status().stopped, None);
    }
    std::fs::remove_dir(&mark).expect("removed");
    let until = Instant::now() + PATIENCE;
    while cluster.node(1).shard(1).is_none() {
        assert!(Instant::now() < until, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.stop_all().await;
}
