//! Committed entries that cannot be decoded, on real nodes: no process ends, the entry is refused by all, and feed and status say so.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use bytes::Bytes;
use common::{Cluster, PATIENCE, create, mint, receive, reserve, sku};
use ledger_core::Outcome;
use ledger_core::change::ChangeKind;
use ledger_core::codec::{decode_record, encode_entry, entry_hash};
use ledger_core::types::LedgerTime;
use ledger_node::meta::META_GROUP;
use ledger_proto::v1;
use ledger_raft::{GroupId, ProposeError};
use tokio::time::timeout;

/// An entry of a known format with a byte too many.
fn malformed() -> Bytes {
    [&encode_entry(&[ledger_core::Command::Tick])[..], &[9]].concat().into()
}

async fn propose(cluster: &Cluster, bytes: Bytes) -> Result<ledger_raft::Committed, ProposeError> {
    loop {
        let (_, replica) = cluster.leader(1).await;
        match timeout(PATIENCE, replica.group().propose(bytes.clone())).await.expect("an answer") {
            Err(ProposeError::NotLeader { .. } | ProposeError::ClockUnsure) => tokio::task::yield_now().await,
            done => return done,
        }
    }
}

async fn works(cluster: &Cluster, n: u64) {
    let outcome = cluster.ask(reserve("mug", mint("mug", n), 60_000)).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_malformed_entry_is_refused_on_all_nodes_and_told_and_the_shard_works_on() {
    let mut cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("mug")).await;
    cluster.ask(receive("mug", 100, "first")).await;
    let committed = propose(&cluster, malformed()).await.expect("a definite answer");
    works(&cluster, 1).await;
    for i in 0..3 {
        cluster.applied(i, 1, committed.at.index + 1).await;
        let replica = cluster.node(i).shard(1).expect("a replica");
        let status = cluster.node(i).status().shards.remove(0);
        assert_eq!((status.entries_refused, status.apply_halted.as_str(), status.stopped.as_str()), (1, "", ""));
        let history = replica.history();
        history.sync_through(1, committed.at.index).expect("history");
        let record = history.record_at(1, committed.at.index).expect("history").expect("it is recorded");
        let record = decode_record(&record).expect("a record");
        let refused = record.changes.iter().find_map(|change| match change.kind {
            ChangeKind::EntryRefused { hash, bytes, .. } => Some((hash, bytes)),
            _ => None,
        });
        let hash = entry_hash(LedgerTime(committed.stamp_ms), &malformed());
        assert_eq!(refused, Some((hash, malformed().len() as u64)));
    }
    // It has neither product nor reservation: who knows its position has it explained.
    let explain = |shard, index| {
        let of = Some(v1::explain_request::Of::Entry(v1::LogEntry { shard, index }));
        v1::ExplainRequest { of, ..Default::default() }
    };
    for i in 0..3 {
        let mut client = cluster.grpc(i).await;
        let explained = client.explain(explain(1, committed.at.index)).await.expect("explained").into_inner();
        let names: Vec<_> = explained.changes.iter().map(|change| change.name.as_str()).collect();
        assert_eq!((names, explained.next, explained.cut_off), (vec!["EntryRefused"], None, false));
        for (shard, index) in [(1, u64::MAX), (2, 1)] {
            let refused = client.explain(explain(shard, index)).await.expect_err("no such entry");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
        }
    }
    let digests: Vec<_> =
        (0..3).map(|i| cluster.node(i).shard(1).expect("a replica").with_ledger(|l| l.chain())).collect();
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");

    cluster.stop_all().await;
    for i in 0..3 {
        cluster.restart_later(i).await;
    }
    works(&cluster, 2).await;
    let (i, _) = cluster.leader(1).await;
    let product = cluster.node(i).shard(1).expect("a replica").with_ledger(|l| l.product(&sku("mug")));
    assert!(product.is_some());
}

#[tokio::test]
async fn an_entry_of_a_newer_format_stops_the_group_by_name_and_no_process() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    cluster.ask(create("mug")).await;
    let answer = propose(&cluster, Bytes::from_static(&[2, 0, 0, 0, 0])).await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    for i in 0..3 {
        let replica = cluster.node(i).shard(1).expect("a replica");
        let mut watch = replica.group().watch();
        let halted = timeout(PATIENCE, watch.wait_for(|s| s.apply_halted.is_some())).await.expect("in time");
        let why = halted.expect("it lives").apply_halted.clone().expect("a reason");
        assert!(why.contains("entry has format version 2, this build knows up to 1"), "{why}");
        let status = cluster.node(i).status();
        assert_eq!(status.shards[0].apply_halted, why);
        assert_eq!(status.state, "serving");
        let read = replica.read_index(PATIENCE).await;
        assert!(read.is_err(), "{read:?}");
    }
}

#[tokio::test]
async fn a_watch_ends_where_a_shard_is_not_applied_any_more_though_another_is_busy() {
    let cluster = Cluster::start(2, |_, _, _| {}).await;
    let name_in = |shard: u32| {
        let table = cluster.node(0).table();
        let names = (0..1_000).map(|n| format!("mug-{n}"));
        names
            .into_iter()
            .find(|name| table.shard_id_for_slot(ledger_core::Slot::of(&sku(name))) == Some(shard))
            .expect("each has slots")
    };
    let (halts, busy) = (name_in(1), name_in(2));
    cluster.ask(create(&halts)).await;
    cluster.ask(create(&busy)).await;
    let answer = propose(&cluster, Bytes::from_static(&[2, 0, 0, 0, 0])).await;
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    let replica = cluster.node(0).shard(1).expect("a replica");
    let mut status = replica.group().watch();
    timeout(PATIENCE, status.wait_for(|s| s.apply_halted.is_some())).await.expect("in time").expect("it lives");

    let mut frames = cluster.grpc(0).await.watch(v1::WatchRequest::default()).await.expect("begun").into_inner();
    let mut delivered = Vec::new();
    let ended = async {
        for n in 0.. {
            cluster.ask(receive(&busy, 1, &format!("r{n}"))).await;
            match frames.message().await {
                Ok(frame) => delivered.extend(frame.expect("it ends with a status").changes),
                Err(status) => return status,
            }
        }
        unreachable!("it ends before")
    };
    let ended = timeout(PATIENCE, ended).await.expect("a watch does not wait for what never comes");
    assert_eq!(ended.code(), tonic::Code::Unavailable, "{ended}");
    assert!(ended.message().contains("shard 1 here does not apply"), "{ended}");
    let products: Vec<&str> = delivered
        .iter()
        .filter(|c| c.name == "ProductCreated")
        .map(|c| c.offer.as_ref().map_or("", |o| o.sku.as_str()))
        .collect();
    assert!(products.contains(&halts.as_str()), "what was applied before is delivered first: {products:?}");
}

#[tokio::test]
async fn the_meta_group_refuses_what_is_malformed_and_goes_on() {
    let cluster = Cluster::start(1, |_, _, _| {}).await;
    let raft = |i: usize| cluster.node(i).meta_group().expect("it runs");
    let leader = loop {
        let led = (0..3).find(|i| raft(*i).status().role == ledger_raft::Role::Leader);
        match led {
            Some(i) => break raft(i),
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(leader.id(), GroupId(META_GROUP.0));
    let done = timeout(PATIENCE, leader.propose(Bytes::from_static(b"\x01{}"))).await.expect("an answer");
    let committed = done.expect("a definite answer");
    for i in 0..3 {
        let mut watch = raft(i).watch();
        let seen = |s: &ledger_raft::GroupStatus| s.applied_index >= committed.at.index;
        timeout(PATIENCE, watch.wait_for(seen)).await.expect("in time").expect("it lives");
        assert_eq!(cluster.node(i).status().meta_entries_refused, 1);
        let page = cluster.get(i, "/metrics").await;
        let values = ledger_node::metrics::values(&page.text);
        assert_eq!(values.get("holdfast_meta_entries_refused_total"), Some(&1.0));
        assert_eq!(values.get("holdfast_meta_apply_halted"), Some(&0.0));
    }
    let request = ledger_proto::v1::SetSettingsRequest { remembered_max: Some(77_777), ..Default::default() };
    let set = cluster.admin(0).await.set_settings(request).await.expect("set").into_inner();
    assert!(set.changed);
}
